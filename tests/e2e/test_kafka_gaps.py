"""Data that is not there any more, or is not what it was: recd refuses, names what is lost, and goes on only when told to (rows 17, 18, 19, 26)."""
import pytest

from kafka_world import SMALL, wait_for
from recd_process import watches

REFUSED = 3
NEVER = SMALL + "\ncheckpoint = { interval_sec = 0; };"


def stopped_at(kafka, make_kafka_recd, n_partitions=1, n=100, **config):
    """A topic of which recd has taken the first n records (a user a partition in turn), and then was stopped."""
    topic = kafka.topic("watches", n_partitions, **config)
    kafka.produce(topic, watches(10, n // 10), "--partition", 0)
    recd = make_kafka_recd(kafka, {"watch_stats": topic}).start()
    recd.wait_offset(topic, n)
    assert recd.stop() == 0
    return topic, recd


def refuse(recd, topic, *words):
    """Starts recd, which must end by itself; nothing is changed by that."""
    recd.stderr.unlink()
    recd.spawn()
    log = recd.expect_end(REFUSED)
    for word in (topic, *words):
        assert str(word) in log, f"{word!r} is not in: {log}"
    return log


def accept(recd):
    recd.kafka = 'on_gap = "accept";'
    recd.write_conf(recd.settings)
    recd.start()


def test_evicted_records(kafka, make_kafka_recd):
    """Row 17: what was deleted before recd read it. The partition and its numbers are said; accepted, exactly these are the gap."""
    topic, recd = stopped_at(kafka, make_kafka_recd, n_partitions=2)
    kafka.produce(topic, watches(10, 10, first=10), "--partition", 0)
    kafka.produce(topic, watches(10, 2, first=30), "--partition", 1)
    kafka.tool("delete-records", topic, 0, 150)
    log = refuse(recd, topic, 100, 150, "50 ", "on_gap")
    assert "partition 0" in log or f"{topic}:0" in log or f"{topic} [0]" in log
    refuse(recd, topic, 100, 150)  # again: the refusal itself moved nothing
    accept(recd)
    recd.wait_offset(topic, 200)
    recd.wait_offset(topic, 20, partition=1)
    position = recd.position(topic)
    assert (position["gaps"], position["gap_bytes"], position["lines"]) == (1, 50, 150)
    assert recd.partition(topic)["gap_records"] == 50
    assert recd.position(topic, 1)["gaps"] == 0
    assert recd.status()["n_positives"] == 150 + 20
    assert recd.stop() == 0
    recd.start()  # the gap is in the checkpoint, and is counted once
    position = recd.position(topic)
    assert (position["gaps"], position["gap_bytes"], position["lines"]) == (1, 50, 150)


def test_all_records_past_retention(kafka, make_kafka_recd):
    """Row 17, by the broker's own retention: nothing is left of the partition."""
    topic, recd = stopped_at(kafka, make_kafka_recd, retention_ms=500)
    kafka.produce(topic, watches(10, 5, first=10), "--partition", 0)
    wait_for(lambda: kafka.watermarks(topic)[0] == (150, 150), "the broker kept its records")
    refuse(recd, topic, 100, 150, "50 ")
    accept(recd)
    recd.wait_offset(topic, 150)
    assert (recd.position(topic)["gaps"], recd.position(topic)["gap_bytes"]) == (1, 50)


@pytest.mark.parametrize("n_new", [150, 100, 40])
def test_recreated_topic(kafka, make_kafka_recd, n_new):
    """Row 18: the topic was deleted and made anew with other records; longer, just as long, shorter."""
    topic, recd = stopped_at(kafka, make_kafka_recd)
    kafka.tool("delete", topic)
    kafka.topic("", name=topic)
    kafka.produce(topic, watches(10, n_new // 10, first=30, day=12), "--partition", 0)
    refuse(recd, topic, 100, "on_gap")
    accept(recd)
    recd.wait(lambda: recd.position(topic)["gaps"] == 1 and recd.position(topic)["offset"] == n_new, "the new topic was not taken")
    assert recd.status()["n_positives"] == 100 + n_new  # what recd knows stays; the new topic is read from its start
    assert recd.stop() == 0


@pytest.mark.parametrize("n_partitions", [2, 1])
def test_recreated_topic_while_recd_runs(kafka, make_kafka_recd, n_partitions):
    """Row 18, without a stop in between: it ends by itself, says why, and has taken nothing of the new topic; which may have fewer partitions, too."""
    topic = kafka.topic("watches", 2)
    kafka.produce(topic, watches(10, 10), "--partition", 0)
    kafka.produce(topic, watches(10, 2, first=50), "--partition", 1)
    recd = make_kafka_recd(kafka, {"watch_stats": topic}, kafka="metadata_interval_ms = 500;").start()
    recd.wait_offset(topic, 100)
    recd.wait_offset(topic, 20, partition=1)
    kafka.tool("delete", topic)
    kafka.topic("", name=topic, partitions=n_partitions)
    kafka.produce(topic, watches(10, 4, first=30, day=12), "--partition", 0)
    log = recd.expect_end(REFUSED)
    assert "recreated" in log and topic in log and "on_gap" in log
    accept(recd)
    recd.wait(lambda: [recd.position(topic, partition)["gaps"] for partition in (0, 1)] == [1, 1], "no gaps")
    recd.wait_offset(topic, 40)
    assert (recd.position(topic)["offset"], recd.position(topic, 1)["offset"]) == (40, 0)
    assert recd.status()["n_positives"] == 120 + 40
    assert recd.stop() == 0
    recd.kafka = ""
    recd.write_conf(recd.settings)
    recd.start()  # what was accepted is not refused later
    kafka.produce(topic, watches(10, 1, first=40), "--partition", 0)
    recd.wait_offset(topic, 50)
    assert [recd.position(topic, partition)["gaps"] for partition in (0, 1)] == [1, 1]


def test_partitions_of_nobody(kafka, make_kafka_recd):
    """kafka.partitions names none of the topic's: the status and the log say that nothing is read."""
    topic = kafka.topic("watches", 2)
    recd = make_kafka_recd(kafka, {"watch_stats": topic}, kafka='partitions = "2-3"; metadata_interval_ms = 200;').start()
    recd.wait(lambda: recd.source("watch_stats")["degraded"], "not degraded")
    assert "has 2 partitions, and kafka.partitions names none" in recd.source("watch_stats")["reason"]
    kafka.tool("add-partitions", topic, 3)
    kafka.produce(topic, watches(10, 3), "--partition", 2)
    recd.wait_offset(topic, 30, partition=2)
    recd.wait(lambda: not recd.source("watch_stats")["degraded"], "still degraded")


def test_evicted_up_to_the_position_is_not_a_gap(kafka, make_kafka_recd):
    topic, recd = stopped_at(kafka, make_kafka_recd)
    kafka.produce(topic, watches(10, 5, first=10), "--partition", 0)
    kafka.tool("delete-records", topic, 0, 100)
    recd.start()
    recd.wait_offset(topic, 150)
    assert recd.position(topic)["gaps"] == 0 and recd.status()["n_positives"] == 150


def test_same_topic_is_not_a_gap(kafka, make_kafka_recd):
    """The comparison itself: over a restart of recd and of the broker nothing is refused."""
    topic, recd = stopped_at(kafka, make_kafka_recd)
    kafka.kill()
    kafka.start()
    kafka.produce(topic, watches(10, 5, first=10), "--partition", 0)
    recd.start()
    recd.wait_offset(topic, 150)
    assert recd.position(topic)["gaps"] == 0 and recd.status()["n_positives"] == 150


def test_transactions(kafka, make_kafka_recd):
    """Row 19: markers and aborted records are offsets without a record for us: holes, counted; aborted records are not applied; also over a kill."""
    topic = kafka.topic("watches")
    recd = make_kafka_recd(kafka, {"watch_stats": topic}, settings=NEVER).start()
    kafka.produce(topic, watches(9, 10), "--transaction", "marks", "--per-transaction", 10)  # 9 markers
    recd.wait_taken(90)
    assert recd.snapshot()[0] == 200
    kafka.produce(topic, watches(10, 5, first=20), "--transaction", "abort")  # 50 records, 1 marker
    kafka.produce(topic, watches(10, 3, first=40), "--transaction", "commit")  # 1 marker, the last offset of all
    end = kafka.watermarks(topic)[0][1]
    assert end == 90 + 9 + 50 + 1 + 30 + 1
    recd.wait_offset(topic, end)
    position = recd.position(topic)
    assert (position["lines"], position["holes"], position["gaps"]) == (120, 9 + 50 + 1 + 1, 0)
    assert recd.status()["n_positives"] == 120
    result = recd.result()
    recd.kill()
    recd.start()
    recd.wait_offset(topic, end)
    assert recd.result() == result


def test_added_partition(kafka, make_kafka_recd):
    """Row 26: it is found while recd runs, begins at 0 also with from = "end", and enters the checkpoint."""
    topic = kafka.topic("watches")
    kafka.produce(topic, watches(10, 10), "--partition", 0)
    recd = make_kafka_recd(kafka, {"watch_stats": topic}, settings=NEVER, kafka="metadata_interval_ms = 200;")
    recd.conf.write_text(recd.conf.read_text().replace(f'"{topic}"; ', f'"{topic}"; from = "end"; '))
    recd.start()
    recd.wait(lambda: recd.position(topic) or recd.status()["checkpoint_number"] > 0, "no start position")
    kafka.tool("add-partitions", topic, 3)
    kafka.produce(topic, watches(10, 3, first=20), "--partition", 2)
    recd.wait_offset(topic, 30, partition=2)
    assert recd.taken() == 30
    assert recd.snapshot()[0] == 200
    recd.kill()
    kafka.produce(topic, watches(10, 4, first=30), "--partition", 2)
    recd.start()
    recd.wait_offset(topic, 70, partition=2)
    assert recd.status()["n_positives"] == 70 and recd.position(topic, 2)["lines"] == 70
