"""Brokers that go away, and memory (rows 23, 23b, 28)."""
import json
import pathlib

from recd_process import watches


def test_broker_goes_and_comes(any_kafka, make_kafka_recd):
    """Row 23: recd says so, serves on, saves on, can be restarted meanwhile, and takes everything once the broker is back."""
    topic = any_kafka.topic("watches", 2)
    any_kafka.produce(topic, watches(20, 10))
    recd = make_kafka_recd(any_kafka, {"watch_stats": topic}).start()
    recd.wait_taken(200)
    any_kafka.kill()
    recd.wait(lambda: recd.source("watch_stats")["degraded"], "not degraded")
    assert "broker" in recd.source("watch_stats")["reason"] and any_kafka.address in recd.source("watch_stats")["reason"]
    beat = recd.source("watch_stats")["heartbeat"]
    assert recd.request("GET", "/healthz")[0] == 200
    assert len(recd.request("GET", "/v1/users/3/top?k=5")[1]["items"]) == 5
    assert recd.snapshot()[0] == 200
    recd.wait(lambda: recd.source("watch_stats")["heartbeat"] > beat, "its heartbeat stands still: a watchdog would end recd")
    assert recd.stop(timeout=30) == 0  # a commit that waits for the broker must not hold recd up until systemd kills it
    recd.start()  # without a broker
    recd.wait(lambda: recd.source("watch_stats")["degraded"], "not degraded after a start without a broker")
    assert len(recd.request("GET", "/v1/users/3/top?k=5")[1]["items"]) == 5
    any_kafka.start()
    any_kafka.produce(topic, watches(20, 5, first=10))
    recd.wait_taken(300)
    recd.wait(lambda: not recd.source("watch_stats")["degraded"], "still degraded")
    assert recd.status()["n_positives"] == 300
    assert all(position["gaps"] == 0 for position in recd.status()["positions"])


def test_silent_topic_is_lag_in_time(any_kafka, make_kafka_recd):
    """Row 23b: one topic is silent while another goes on: visible as lag in event time, and no error."""
    topics = {"watch_stats": any_kafka.topic("watches"), "events": any_kafka.topic("events")}
    any_kafka.produce(topics["watch_stats"], watches(5, 5, day=10))
    event = {"user_id": 1, "item_id": 1001, "type": "click", "occurred_at": "2025-12-13T12:00:00Z", "request_id": "r"}
    any_kafka.produce(topics["events"], [event])
    recd = make_kafka_recd(any_kafka, topics).start()
    recd.wait_taken(26)
    recd.wait(lambda: (recd.partition(topics["watch_stats"])["lag_time_us"] or 0) > 2 * 86400 * 1000000, "no lag in time")
    assert recd.partition(topics["watch_stats"])["lag_records"] == 0
    assert recd.partition(topics["events"])["lag_time_us"] == 0
    assert not recd.source("watch_stats")["degraded"]


def test_memory_of_a_slow_trainer(kafka, make_kafka_recd, tmp_path):
    """Row 28: the topic holds far more than recd may hold of it, and training takes most of the time."""
    topic = kafka.topic("watches", 4)
    log = tmp_path / "wide.jsonl"
    with open(log, "w", encoding="ascii") as file:
        for line in watches(800, 150):
            file.write(json.dumps({**line, "padding": "x" * 4000}) + "\n")
    n = kafka.produce(topic, log)
    megabytes = log.stat().st_size >> 20
    log.unlink()
    assert n == 120000 and megabytes > 450
    recd = make_kafka_recd(kafka, {"watch_stats": topic}, settings="training = { emb_dim = 64; threads = 1; slice_ms = 1000; idle_passes = 1000; };")
    recd.conf.write_text(recd.conf.read_text().replace("sources = {", "sources = {\n\tqueue_batches = 2;"))  # two batches wait, and a slice for each turn
    recd.start()
    recd.wait_taken(n)
    status = pathlib.Path(f"/proc/{recd.pid()}/status").read_text(encoding="ascii")
    peak = int(status.split("VmHWM:")[1].split()[0]) >> 10
    assert peak < 300, f"{peak} MiB for a topic of {megabytes} MiB"
