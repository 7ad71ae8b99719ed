"""recd on Kafka: the same state as from files, commits behind durable checkpoints only, what is missing or refused (rows 21, 22, 24, 25, 37)."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from kafka_world import SMALL, STREAMS, TOOL, wait_for
from recd_process import RECD, Recd, watches
from test_checkpoint_faults import detach, inject, needs_strace

NEVER = SMALL + "\ncheckpoint = { interval_sec = 0; };"  # checkpoints only when asked


def part(status, keys):
    return {key: status[key] for key in keys}


@pytest.fixture(scope="module")
def from_files(small_logs):
    """What recd makes of the same logs when it tails them."""
    recd = Recd(pathlib.Path(tempfile.mkdtemp(prefix="recd-e2e-")), SMALL)
    for stream in (*STREAMS, "catalogue"):
        shutil.copy(small_logs.path(stream), recd.logs)
    recd.start()
    recd.wait_taken(small_logs.lines + small_logs.counts["catalogue"])
    status = recd.status()
    recd.kill()
    shutil.rmtree(recd.folder)
    return part(status, ("histories_digest", "n_positives", "counters"))


def test_files_and_topics_give_the_same_state(any_kafka, small_logs, make_kafka_recd, from_files):
    topics = small_logs.topics(any_kafka)
    topics["catalogue"] = any_kafka.topic("catalogue")
    any_kafka.produce(topics["catalogue"], small_logs.path("catalogue"))
    recd = make_kafka_recd(any_kafka, topics).start()
    recd.wait_taken(small_logs.lines + small_logs.counts["catalogue"])
    assert part(recd.status(), from_files) == from_files
    status = recd.status()
    assert len(status["partitions"]) == 13
    assert all(position["gaps"] == position["holes"] == 0 for position in status["positions"])
    recd.wait(lambda: all(partition["lag_records"] == 0 for partition in recd.status()["partitions"]), "lag does not end")
    assert recd.stop() == 0


@pytest.mark.core
def test_files_and_topics_mixed(any_kafka, small_logs, make_kafka_recd, from_files):
    """Watches from a topic, impressions and the catalogue from files, events half and half in one stream; and over a kill."""
    events = small_logs.path("events").read_text().splitlines()
    topics = small_logs.topics(any_kafka, streams=["watch_stats"])
    topics["events"] = any_kafka.topic("events", 2)
    any_kafka.produce(topics["events"], events[::2])
    recd = make_kafka_recd(any_kafka, topics, files=("impressions", "catalogue", "events"))
    for stream in ("impressions", "catalogue"):
        shutil.copy(small_logs.path(stream), recd.logs)
    recd.append("events", [line + "\n" for line in events[1:401:2]])
    recd.start()
    recd.wait(lambda: recd.taken() > 3000, "nothing taken")
    assert recd.snapshot()[0] == 200
    recd.kill()
    recd.append("events", [line + "\n" for line in events[401::2]])
    recd.start()
    recd.wait_taken(small_logs.lines + small_logs.counts["catalogue"])
    assert part(recd.status(), from_files) == from_files
    assert recd.stop() == 0


def test_commits_follow_durable_checkpoints(any_kafka, make_kafka_recd):
    topic = any_kafka.topic("watches", 2)
    recd = make_kafka_recd(any_kafka, {"watch_stats": topic}, settings=NEVER).start()
    recd.snapshot()
    any_kafka.produce(topic, watches(20, 10))
    recd.wait_taken(200)
    time.sleep(0.5)  # long enough for a commit that should not be
    assert sum(max(offset, 0) for offset in any_kafka.committed(recd.group, topic).values()) == 0
    assert recd.snapshot()[0] == 200
    wait_for(lambda: sum(max(offset, 0) for offset in any_kafka.committed(recd.group, topic).values()) == 200, "not committed")
    recd.wait(lambda: sum(partition["committed"] or 0 for partition in recd.status()["partitions"]) == 200, "commits not shown")
    any_kafka.produce(topic, watches(20, 3, first=10))
    recd.wait_taken(260)
    assert recd.stop() == 0  # SIGTERM: a last checkpoint, and it is committed too
    assert sum(any_kafka.committed(recd.group, topic).values()) == 260


@needs_strace
def test_failed_checkpoint_commits_nothing(any_kafka, make_kafka_recd):
    """Row 37."""
    topic = any_kafka.topic("watches")
    recd = make_kafka_recd(any_kafka, {"watch_stats": topic}, settings=NEVER).start()
    recd.snapshot()
    any_kafka.produce(topic, watches(10, 10))
    recd.wait_taken(100)
    tracer = inject(recd, "fsync:error=EIO:when=1+")
    assert recd.snapshot()[0] in (500, 503)
    time.sleep(0.5)
    detach(tracer)
    assert max(any_kafka.committed(recd.group, topic).values()) <= 0
    assert recd.snapshot()[0] == 200
    wait_for(lambda: any_kafka.committed(recd.group, topic)[0] == 100, "not committed")


def test_failing_commits_are_not_fatal(mock_kafka, make_kafka_recd):
    """Row 24: the broker refuses commits for a while; recd goes on, and its own checkpoint is what it restarts from."""
    topic = mock_kafka.topic("watches")
    recd = make_kafka_recd(mock_kafka, {"watch_stats": topic}, settings=NEVER).start()
    mock_kafka.say("errors 8 30 20")  # OffsetCommit: GROUP_AUTHORIZATION_FAILED
    mock_kafka.produce(topic, watches(10, 10))
    recd.wait_taken(100)
    assert recd.snapshot()[0] == 200
    recd.wait(lambda: "ommit" in recd.log(), "the log does not tell of the commit")
    assert recd.request("GET", "/readyz")[0] == 200
    recd.kill()
    recd.start()
    mock_kafka.produce(topic, watches(10, 5, first=10))
    recd.wait_taken(150)
    time.sleep(0.2)
    assert recd.taken() == 150 and recd.status()["n_positives"] == 150


def test_second_daemon_is_refused(any_kafka, make_kafka_recd):
    """Row 22."""
    topic = any_kafka.topic("watches")
    recd = make_kafka_recd(any_kafka, {"watch_stats": topic}).start()
    second = recd.folder / "second.conf"
    second.write_text(recd.conf.read_text().replace(f'"{recd.socket}"', f'"{recd.socket}2"'))
    done = subprocess.run([RECD, "--config", str(second)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 3 and "in use by another recd" in done.stderr
    any_kafka.produce(topic, watches(5, 5))
    recd.wait_taken(25)


def test_missing_topic(kafka, make_kafka_recd):
    """Row 25: said in words, in the status and the log; recd serves, and goes on once the topic is there."""
    name = f"late-{os.getpid()}-{time.monotonic_ns()}"
    recd = make_kafka_recd(kafka, {"watch_stats": name}, kafka="metadata_interval_ms = 300;").start()
    recd.wait(lambda: recd.source("watch_stats")["degraded"], "not degraded")
    for text in (recd.source("watch_stats")["reason"], recd.log()):
        assert name in text and "does not exist" in text
    assert recd.request("GET", "/healthz")[0] == 200
    kafka.topic("", name=name, partitions=2)
    kafka.produce(name, watches(10, 10))
    recd.wait_taken(100)
    recd.wait(lambda: not recd.source("watch_stats")["degraded"], "still degraded")


def test_wrong_password(kafka, make_kafka_recd):
    """Row 25: said in words, and the password is nowhere; with the right one it goes on."""
    topic = kafka.topic("watches")
    kafka.produce(topic, watches(10, 10))
    login = 'properties = ["security.protocol=SASL_PLAINTEXT", "sasl.mechanism=PLAIN", "sasl.username=recd", "sasl.password=PASSWORD"];'
    recd = make_kafka_recd(kafka, {"watch_stats": topic}, kafka=login.replace("PASSWORD", "my-wrong-secret"), brokers=kafka.sasl_address())
    recd.start()
    recd.wait(lambda: "authentication failed" in recd.source("watch_stats")["reason"], "no word of the authentication")
    assert "authentication failed" in recd.log()
    for text in (recd.log(), str(recd.status()), str(recd.request("GET", "/metrics"))):
        assert "my-wrong-secret" not in text
    assert recd.stop() == 0
    recd.kafka = login.replace("PASSWORD", "test-password")
    recd.write_conf(SMALL)
    recd.start()
    recd.wait_taken(100)
    assert "test-password" not in recd.log()


def test_tls(kafka, make_kafka_recd):
    """A broker that speaks TLS: with its certificate trusted recd reads; without, the status and the log say that the certificate is not trusted."""
    topic = kafka.topic("watches")
    kafka.produce(topic, watches(10, 10))
    address, certificate = kafka.tls_address()
    recd = make_kafka_recd(kafka, {"watch_stats": topic}, kafka='properties = ["security.protocol=SSL"];', brokers=address)
    recd.start()
    recd.wait(lambda: "certificate" in recd.source("watch_stats")["reason"], "no word of the certificate")
    assert "certificate" in recd.log() and recd.taken() == 0
    assert recd.stop() == 0
    recd.kafka = f'properties = ["security.protocol=SSL", "ssl.ca.location={certificate}"];'
    recd.write_conf(SMALL)
    recd.start()
    recd.wait_taken(100)
    recd.wait(lambda: not recd.source("watch_stats")["degraded"], "still degraded")


def test_foreign_member_changes_nothing(kafka, make_kafka_recd):
    """Row 21: another program joins recd's group, is given every partition and commits; recd reads on, and restarts from its own checkpoint."""
    topic = kafka.topic("watches", 3)
    kafka.produce(topic, watches(20, 10))
    recd = make_kafka_recd(kafka, {"watch_stats": topic}).start()
    recd.wait_taken(200)
    assert recd.snapshot()[0] == 200
    member = subprocess.Popen([TOOL, "--brokers", kafka.address, "join", recd.group, topic], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert member.stdout.readline() == "assigned 3\n"
        kafka.produce(topic, watches(20, 10, first=10))
        recd.wait_taken(400)
        recd.snapshot()
        assert recd.stop() == 0
        kafka.produce(topic, watches(20, 5, first=20))
    finally:
        member.communicate(timeout=60)  # it has read to the end and commits that as it leaves
    assert sum(kafka.committed(recd.group, topic).values()) >= 400
    recd.start()
    recd.wait_taken(500)
    assert recd.status()["n_positives"] == 500
    assert all(position["gaps"] == position["holes"] == 0 for position in recd.status()["positions"])


def test_pause_longer_than_the_poll_interval(kafka, make_kafka_recd):
    """Row 20: a pause of all threads that would cost a group member its partitions."""
    topic = kafka.topic("watches")
    limits = 'properties = ["session.timeout.ms=1000", "heartbeat.interval.ms=300", "max.poll.interval.ms=1000"];'
    recd = make_kafka_recd(kafka, {"watch_stats": topic}, kafka=limits).start()
    kafka.produce(topic, watches(10, 10))
    recd.wait_taken(100)
    os.kill(recd.pid(), signal.SIGSTOP)
    time.sleep(2.5)
    kafka.produce(topic, watches(10, 5, first=10))
    os.kill(recd.pid(), signal.SIGCONT)
    recd.wait_taken(150)
    assert recd.snapshot()[0] == 200
    wait_for(lambda: kafka.committed(recd.group, topic)[0] == 150, "not committed")
