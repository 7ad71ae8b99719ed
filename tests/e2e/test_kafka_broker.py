"""The tests' own Kafka: a crash of the broker loses nothing, and what kafka_tool says is so."""
import subprocess

from kafka_world import KAFKA_DEV, STREAMS
from recd_process import watches


def test_broker_keeps_data_and_port_over_a_crash(kafka):
    address = kafka.address
    topic = kafka.topic("kept", partitions=3)
    assert kafka.produce(topic, watches(10, 30)) == 300
    before = kafka.watermarks(topic)
    kafka.kill()
    assert subprocess.run([KAFKA_DEV, "status", "--dir", kafka.folder], capture_output=True, text=True).stdout == "stopped\n"
    kafka.start()
    assert kafka.address == address
    assert kafka.watermarks(topic) == before and sum(end for _, end in before.values()) == 300


def test_markers_take_offsets(kafka):
    topic = kafka.topic("marks")
    kafka.produce(topic, watches(1, 30), "--transaction", "marks", "--per-transaction", 10)
    kafka.produce(topic, watches(1, 5), "--transaction", "abort")
    assert kafka.watermarks(topic)[0][1] > 30 + 5 + 3
    kafka.tool("delete-records", topic, 0, 20)
    assert kafka.watermarks(topic)[0][0] == 20


def test_streams_of_a_user_meet(any_kafka, small_logs):
    """The same key goes to the same partition number in every topic: what sharding rests on."""
    topics = small_logs.topics(any_kafka)
    ends = {stream: [end for _, end in any_kafka.watermarks(topic).values()] for stream, topic in topics.items()}
    assert [sum(ends[stream]) for stream in STREAMS] == [small_logs.counts[stream] for stream in STREAMS]
    assert all(min(counts) > 0 for counts in ends.values())
