"""What comes as a record and is none, or comes again, late or in another order (rows 1 to 7), through Kafka; and the same through files beside it."""
import collections
import json
import random
import shutil

from kafka_world import STREAMS
from recd_process import watches

WATCH = {"user_id": 7, "item_id": 8, "started_at": "2025-12-10T12:00:00+00:00", "completion": 0.9}


def watch(**changed):
    """A watch with some keys changed, as bytes; ... takes a key out."""
    return json.dumps({key: value for key, value in {**WATCH, **changed}.items() if value is not ...}).encode()


def number(name, text):
    """The same with a number as it is written."""
    return watch(**{name: 111}).replace(b"111", text)


# Rows 2 to 5: a line, and the reason it is refused for; None: it is taken.
CORPUS = [
    (b"[" * 900000, "json"), (b'{"user_id":7,"x":' + b"[" * 40 + b"]" * 40 + b"}", "too_deep"), (watch(padding="x" * 950000), "too_long"),
    (watch(padding="x" * 800000), None), (b"7", "json"), (watch()[:-1], "json"), (watch() + watch(), "json"),
    (watch(session_id="a").replace(b'"a"', b'"\xff\xfe"'), "json"), (watch(session_id="a").replace(b'"a"', b'"a\0b"'), "json"), (watch() + b"\0", "json"),
    (b"\xef\xbb\xbf" + watch(), None), (watch() + b"\r", None), (watch(session_id="\u017eluv\u00e1"), None),
    (watch(user_id=...), "missing_key"), (watch(completion=None), "missing_key"), (watch()[:-1] + b', "user_id": 7}', "duplicate_key"),
    (watch(completion="0.5"), "wrong_type"), (watch(user_id=[7]), "wrong_type"), (watch(session_id=5), "wrong_type"), (watch(started_at="today"), "bad_time"),
    (watch(completion=1.5), "bad_completion"), (watch(watch_time_sec=-1), "bad_number"),
    (number("user_id", b"9007199254740993"), None), (number("user_id", b"9223372036854775807"), None), (number("user_id", b"9223372036854775808"), "bad_id"),
    (number("user_id", b"-1"), "bad_id"), (number("item_id", b"1e3"), "bad_id"), (number("item_id", b"7.0"), "bad_id"), (watch(item_id="7"), "bad_id"),
    (number("item_id", b"007"), "json"),
]


def test_tombstones_and_bad_records(any_kafka, make_kafka_recd):
    """Rows 1 and 6: counted and skipped; a refused one is in the dead-letter file with its topic, partition and offset."""
    topic = any_kafka.topic("watches")
    lines = [*watches(10, 10), "{bad", *watches(10, 2, first=10), '{"user_id": 1}']
    any_kafka.produce(topic, lines, "--tombstones", 5)
    recd = make_kafka_recd(any_kafka, {"watch_stats": topic}).start()
    recd.wait_offset(topic, 127)
    position = recd.position(topic)
    assert (position["lines"], position["empty"], position["refused"]) == (122, 5, {"json": 1, "missing_key": 1})
    letters = (recd.data / "dead-letter.jsonl").read_text().splitlines()
    assert len(letters) == 2 and f"kafka:watch_stats:{topic}:0" in letters[0] and "100" in letters[0]


def test_corpus_of_bad_lines(any_kafka, make_kafka_recd, tmp_path):
    """Rows 2 to 5, through a topic and through a file: the same lines are refused for the same reasons, each counted once, and the others are taken."""
    (tmp_path / "corpus").write_bytes(b"".join(line + b"\n" for line, _ in CORPUS))
    topic = any_kafka.topic("watches")
    assert any_kafka.produce(topic, tmp_path / "corpus") == len(CORPUS)
    refused = collections.Counter(reason for _, reason in CORPUS if reason)
    recd = make_kafka_recd(any_kafka, {"watch_stats": topic}, files=["watch_stats"])
    recd.conf.write_text(recd.conf.read_text().replace("sources = {", "sources = {\n\tline_bytes_max = 940000;"))
    shutil.copy(tmp_path / "corpus", recd.logs / "watch_stats.jsonl")
    recd.start()
    recd.wait_taken(2 * len(CORPUS))
    positions = recd.status()["positions"]
    assert len(positions) == 2
    for position in positions:
        assert (position["lines"], position["empty"], position["refused"]) == (len(CORPUS), 0, refused), position["name"]
    letters = [json.loads(letter) for letter in (recd.data / "dead-letter.jsonl").read_text().splitlines()]
    for position in positions:
        assert collections.Counter(letter["reason"] for letter in letters if letter["source"] == position["name"]) == refused
    assert recd.status()["n_positives"] == len({7, 9007199254740993, 9223372036854775807})


def test_again_and_in_any_order(any_kafka, small_logs, make_kafka_recd, tmp_path):
    """Row 7: every record twice, all of them shuffled, over partitions in which no user stays together: the state is that of the logs read once, in order, from files."""
    random_of_seed = random.Random(7)
    topics = {}
    for stream in STREAMS:
        lines = small_logs.path(stream).read_text().splitlines() * 2
        random_of_seed.shuffle(lines)
        (tmp_path / stream).write_text("".join(line + "\n" for line in lines))
        topics[stream] = any_kafka.topic(stream, 3)
        assert any_kafka.produce(topics[stream], tmp_path / stream, "--key", "item_id") == 2 * small_logs.counts[stream]
    shuffled = make_kafka_recd(any_kafka, topics).start()
    ordered = make_kafka_recd(any_kafka, {}, files=STREAMS)
    for stream in STREAMS:
        shutil.copy(small_logs.path(stream), ordered.logs)
    ordered.start()
    ordered.wait_taken(small_logs.lines)
    shuffled.wait_taken(2 * small_logs.lines)
    assert shuffled.status()["histories_digest"] == ordered.status()["histories_digest"]
    assert shuffled.status()["n_positives"] == ordered.status()["n_positives"]
    assert all(position["duplicates"] == 0 for position in shuffled.status()["positions"])  # other records, not the same one again
