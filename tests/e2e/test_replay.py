"""recctl replay against a Kafka: what the topics hold, record by record, after a whole run, after SIGKILLs at any time with --resume, and after a crash of the broker;
and what recd makes of it.

Expected is what a naive merge of the same files gives. The seed of the kills is fixed; RECD_TEST_SEED changes it, RECD_TEST_SCALE multiplies the rounds.
"""
import ctypes
import gzip
import json
import os
import random
import secrets
import signal
import subprocess
import threading
import time
from collections import defaultdict
from datetime import datetime

import pytest

from kafka_world import wait_for
from recd_process import RECCTL

STREAMS = {"catalogue": "items", "users": "users", "impressions": "impressions", "events": "events", "watch_stats": "watch_stats"}
TIME = {"impressions": "shown_at", "events": "occurred_at", "watch_stats": "started_at"}
SEED = int(os.environ.get("RECD_TEST_SEED", "7"))
SCALE = int(os.environ.get("RECD_TEST_SCALE", "1"))


def replay(broker, logs, *flags, code=0):
    done = subprocess.run([RECCTL, "replay", "--brokers", broker.address, "--data_dir", logs, *map(str, flags)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def streams_of(done):
    return json.loads(done.stdout)["streams"]


def topics(broker, partitions=4):
    """New topics for all streams; returns (prefix, {stream: topic})."""
    prefix = f"replay-{secrets.token_hex(4)}."
    return prefix, {stream: broker.topic("", partitions, name=prefix + stream) for stream in STREAMS}


def records(broker, topic):
    """{partition: [(key, origin, value), ...]}"""
    held = defaultdict(list)
    for line in broker.tool("consume", topic).splitlines():
        partition, _, _, key, origin, value = line.split("\t", 5)
        held[int(partition)].append((key, origin, value))
    return held


def zstd(what, data):
    """By the library that recctl is linked with: the program zstd need not be there. What these tests compress is below 64 MB."""
    library = ctypes.CDLL("libzstd.so.1")
    calls = {"compress": (library.ZSTD_compress, (3,)), "decompress": (library.ZSTD_decompress, ())}
    call, level = calls[what]
    call.restype = ctypes.c_size_t
    room = ctypes.create_string_buffer(64 << 20)
    n = call(room, ctypes.c_size_t(len(room)), data, ctypes.c_size_t(len(data)), *level)
    assert n <= len(room), what
    return room.raw[:n]


def contents(folder, stem):
    """[(base name, text)] of a stream's files."""
    found = []
    for path in sorted(folder.glob(f"{stem}*.jsonl*")):
        name = path.name.removesuffix(".gz").removesuffix(".zst")
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        elif path.suffix == ".zst":
            data = zstd("decompress", data)
        found.append((name, data.decode()))
    return sorted(found)


def expected(folder, stream):
    """[(key, "name", "@offset+length", line)] in the order of the merge: each file by the largest time so far."""
    rows = []
    for rank, (name, text) in enumerate(contents(folder, STREAMS[stream])):
        offset, largest = 0, 0.0
        for place, line in enumerate(text.splitlines()):
            row = json.loads(line)
            if stream in TIME:
                largest = max(largest, datetime.fromisoformat(row[TIME[stream]]).timestamp())
            key = row["item_id" if stream == "catalogue" else "user_id"]
            rows.append((largest, rank, place, str(key), name, f"@{offset}+{len(line)}/", line))
            offset += len(line) + 1
    return [row[3:] for row in sorted(rows, key=lambda row: row[:3])]


def check(broker, folder, names):
    """Each line once, in the order of the merge within its partition, a user in the same partition of every topic."""
    place = {}
    for stream, topic in names.items():
        held = records(broker, topic)
        wanted = expected(folder, stream)
        partition_of = {value: partition for partition, rows in held.items() for _, _, value in rows}
        assert sum(map(len, held.values())) == len(wanted), stream
        split = defaultdict(list)
        for row in wanted:
            split[partition_of[row[3]]].append(row)
        for partition, rows in held.items():
            assert [(key, value) for key, _, value in rows] == [(key, line) for key, _, _, line in split[partition]], f"{topic} partition {partition}"
            for (_, origin, _), (_, name, at, _) in zip(rows, split[partition]):
                assert origin.startswith(name + "#") and at in origin
            for key, _, _ in rows:
                if stream != "catalogue":
                    assert place.setdefault(key, partition) == partition
    assert len(set(place.values())) > 1


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Logs in several files, plain, gzip and zstd, the middle ones of a stream overlapping in time."""
    folder = tmp_path_factory.mktemp("logs")
    subprocess.run([RECCTL, "synth", "--out_dir", folder, "--num_items", "300", "--num_users", "200", "--num_impressions", "15000", "--seed", "5"], check=True,
                   capture_output=True)
    (folder / "train_samples.jsonl").unlink()
    lines = (folder / "impressions.jsonl").read_text().splitlines(keepends=True)
    (folder / "impressions.jsonl").write_text("".join(lines[10000:]))
    (folder / "impressions-0.jsonl").write_text("".join(lines[0:7500:2]))
    with gzip.open(folder / "impressions-1.jsonl.gz", "wt") as out:
        out.write("".join(lines[1:7500:2]))
    (folder / "impressions.jsonl.1").write_text("".join(lines[7500:10000]))
    plain = folder / "watch_stats.jsonl"
    (folder / "watch_stats.jsonl.zst").write_bytes(zstd("compress", plain.read_bytes()))
    plain.unlink()
    return folder


@pytest.mark.core
def test_each_line_once_and_in_order(any_kafka, logs):
    prefix, names = topics(any_kafka)
    done = replay(any_kafka, logs, "--topic_prefix", prefix, "--json")
    assert done.stderr == ""
    for stream, counts in streams_of(done).items():
        n = len(expected(logs, stream))
        assert counts["topic"] == names[stream]
        assert (counts["lines"], counts["sent"], counts["acknowledged"], counts["present"], counts["failed"]) == (n, n, n, 0, 0)
    check(any_kafka, logs, names)
    other = any_kafka.topic("keyed", 4)  # by librdkafka's own partitioner murmur2_random
    any_kafka.produce(other, logs / "events.jsonl")
    assert {key: p for p, rows in records(any_kafka, names["events"]).items() for key, _, _ in rows} == \
        {key: p for p, rows in records(any_kafka, other).items() for key, _, _ in rows}
    again = replay(any_kafka, logs, "--topic_prefix", prefix, "--json", "--resume")  # nothing is left
    assert all(counts["sent"] == 0 and counts["present"] == counts["lines"] for counts in streams_of(again).values())


def test_recd_takes_from_topics_what_it_takes_from_files(any_kafka, logs, make_kafka_recd):
    prefix, names = topics(any_kafka)
    sent = streams_of(replay(any_kafka, logs, "--topic_prefix", prefix, "--json"))
    read = ("catalogue", "impressions", "events", "watch_stats")
    lines = sum(sent[stream]["acknowledged"] for stream in read)
    consumer = make_kafka_recd(any_kafka, {stream: names[stream] for stream in read}).start()
    consumer.wait_taken(lines)
    tailer = make_kafka_recd(any_kafka, {}, files=read)
    for stream in read:
        for number, (_, text) in enumerate(contents(logs, STREAMS[stream])):
            (tailer.logs / f"{STREAMS[stream]}-{number}.jsonl").write_text(text)
    tailer.start().wait_taken(lines)
    of_topics, of_files = consumer.result(), tailer.result()
    assert of_topics["n_positives"] > 0 and consumer.taken() == tailer.taken() == lines
    for key in "histories_digest", "n_positives", "counters":
        assert of_topics[key] == of_files[key], key


def test_sigkill_at_any_time_then_resume(any_kafka, logs):
    rng = random.Random(SEED)
    for _ in range(SCALE):
        prefix, names = topics(any_kafka)
        kills, sent = 0, 0
        for attempt in range(6 * SCALE + 1):
            last = attempt == 6 * SCALE  # runs to its end
            flags = ["--topic_prefix", prefix, "--json"] + (["--resume"] if attempt else []) + ([] if last else ["--rate", rng.choice((4000, 15000))])
            process = subprocess.Popen([RECCTL, "replay", "--brokers", any_kafka.address, "--data_dir", logs, *map(str, flags)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:  # resuming looks at the topics for a second first
                process.wait(60 if last else rng.uniform(0.02, 0.4) + (1.1 if attempt else 0))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
                continue
            out, err = process.communicate()
            assert process.returncode == 0, err
            counts = json.loads(out)["streams"]
            sent = sum(stream["sent"] for stream in counts.values())
            assert all(stream["present"] + stream["sent"] == stream["lines"] for stream in counts.values())
            break
        print(f"seed {SEED}: {kills} kills, {sent} records by the last run")
        check(any_kafka, logs, names)
        assert kills >= 3


@pytest.mark.core
def test_sigint_delivers_what_is_queued(any_kafka, logs):
    prefix, names = topics(any_kafka)
    process = subprocess.Popen([RECCTL, "replay", "--brokers", any_kafka.address, "--data_dir", logs, "--topic_prefix", prefix, "--json", "--rate", "8000"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "--resume" in err and "stopped by a signal" in err
    summary = json.loads(out)
    sent = sum(stream["sent"] for stream in summary["streams"].values())
    assert not summary["complete"] and 0 < sent == sum(stream["acknowledged"] for stream in summary["streams"].values())
    assert sum(len(rows) for topic in names.values() for rows in records(any_kafka, topic).values()) == sent
    assert sum(stream["present"] for stream in streams_of(replay(any_kafka, logs, "--topic_prefix", prefix, "--json", "--resume")).values()) == sent
    check(any_kafka, logs, names)


def test_broker_crash_in_mid_run(kafka, logs):
    prefix, names = topics(kafka)
    process = subprocess.Popen([RECCTL, "replay", "--brokers", kafka.address, "--data_dir", logs, "--topic_prefix", prefix, "--json", "--rate", "10000"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(1)
    kafka.kill()
    time.sleep(0.5)
    kafka.start()
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert "no broker answers" in err
    check(kafka, logs, names)


def test_each_outage_is_told(mock_kafka, logs):
    topic = mock_kafka.topic("outages")
    process = subprocess.Popen([RECCTL, "replay", "--brokers", mock_kafka.address, "--data_dir", logs, "--topics", f"impressions={topic}", "--streams", "impressions", "--rate", "300", "--property", "reconnect.backoff.max.ms=1500"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    told = []
    reader = threading.Thread(target=lambda: told.extend(process.stderr), daemon=True)
    reader.start()

    def go_on():
        n = mock_kafka.watermarks(topic)[0][1]
        wait_for(lambda: mock_kafka.watermarks(topic)[0][1] > n + 50, "the records go on")

    try:
        for outage in range(4):  # librdkafka says less of the later ones, and so with another code last
            go_on()
            n = len(told)
            mock_kafka.kill()
            time.sleep(0.6)
            mock_kafka.start()
            go_on()
            assert any("no broker answers" in line for line in told[n:]), outage
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1
        reader.join()


@pytest.fixture
def few(tmp_path):
    rows = [{"user_id": user, "item_id": 1, "started_at": f"2025-12-10T12:00:{user:02}+00:00", "completion": 0.9} for user in range(30)]
    lines = [json.dumps(row) for row in rows]
    lines[3:3] = ["not json", '{"user_id":1}', ""]
    (tmp_path / "watch_stats.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_bad_lines_and_range(any_kafka, few):
    topic = any_kafka.topic("few", 2)
    flags = ("--topics", f"watch_stats={topic}", "--json")
    done = replay(any_kafka, few, *flags, "--from", "2025-12-10T15:00:10+03:00", "--to", "2025-12-10T12:00:20+00:00")
    counts = streams_of(done)["watch_stats"]
    assert (counts["lines"], counts["sent"], counts["skipped"], counts["out_of_range"]) == (32, 10, 2, 20)
    assert f"{few}/watch_stats.jsonl:4: bad line (json)" in done.stderr and "watch_stats.jsonl:5: bad line (missing_key)" in done.stderr
    held = [json.loads(value)["user_id"] for rows in records(any_kafka, topic).values() for _, _, value in rows]
    assert sorted(held) == list(range(10, 20))
    # another range is another replay: not to be mixed up by --resume
    done = replay(any_kafka, few, *flags, "--resume", code=1)
    assert "holds another replay" in done.stderr
    # another one behind it is fine, and resumes by itself
    replay(any_kafka, few, *flags, "--from", "2025-12-10T12:00:20+00:00")
    done = replay(any_kafka, few, *flags, "--from", "2025-12-10T12:00:20+00:00", "--resume")
    assert streams_of(done)["watch_stats"]["present"] == 10


def test_resume_notices_a_changed_file(any_kafka, few):
    text = (few / "watch_stats.jsonl").read_text()
    pad = "".join(json.dumps({"user_id": 99, "item_id": i, "started_at": "2025-12-10T12:00:00+00:00", "completion": 0.1}) + "\n" for i in range(80))
    (few / "watch_stats.jsonl").write_text(pad + text)
    topic = any_kafka.topic("changed", 1)
    flags = ("--topics", f"watch_stats={topic}", "--json")
    replay(any_kafka, few, *flags)
    (few / "watch_stats.jsonl").write_text(pad + text.replace('"user_id": 29, "item_id": 1', '"user_id": 29, "item_id": 2'))
    assert "the file was changed since" in replay(any_kafka, few, *flags, "--resume", code=1).stderr
    (few / "watch_stats.jsonl").write_text(pad + text.rsplit("\n", 1)[0])
    assert "there is no such line now" in replay(any_kafka, few, *flags, "--resume", code=1).stderr
    (few / "watch_stats.jsonl").write_text(pad.replace('"item_id": 70', '"item_id": 71') + text)  # far before the last line, and as long
    assert "are not those that it was given" in replay(any_kafka, few, *flags, "--resume", code=1).stderr
    assert sum(map(len, records(any_kafka, topic).values())) == 110
    (few / "watch_stats.jsonl").write_text(pad + text)
    assert streams_of(replay(any_kafka, few, *flags, "--resume"))["watch_stats"]["present"] == 110


@pytest.mark.core
def test_resume_notices_a_file_that_grew_in_the_past(mock_kafka, tmp_path):
    """Two files, one topic. What comes to a file later than the last record sent is new; what belongs before it was never sent and must not count as sent."""
    def watch(user, second):
        return json.dumps({"user_id": user, "item_id": second, "started_at": f"2025-12-10T12:{second // 60:02}:{second % 60:02}+00:00", "completion": 0.9}) + "\n"

    def held():
        return {partition: len(rows) for partition, rows in records(mock_kafka, topic).items()}

    def refuse():
        before = held()
        done = replay(mock_kafka, tmp_path, *flags, "--resume", code=1)
        assert "has got lines of an earlier time; nothing was sent" in done.stderr and f'topic "{topic}", partition' in done.stderr
        assert held() == before

    first, second = tmp_path / "watch_stats-a.jsonl", tmp_path / "watch_stats-b.jsonl"
    first.write_text("".join(watch(second % 20, second) for second in range(0, 300, 2)))
    second.write_text("".join(watch(second % 20, second) for second in range(1, 301, 2)))
    topic = mock_kafka.topic("grew", 2)
    flags = ("--topics", f"watch_stats={topic}", "--json")
    replay(mock_kafka, tmp_path, *flags)
    assert len(held()) == 2 and sum(held().values()) == 300
    grown = second.read_text() + "".join(watch(user, 301) for user in range(20))
    second.write_text(grown)
    counts = streams_of(replay(mock_kafka, tmp_path, *flags, "--resume"))["watch_stats"]
    assert (counts["present"], counts["sent"]) == (300, 20)
    text = first.read_text()
    first.write_text(text + watch(3, 299))  # in the merge before the last record of its partition, which is of the other file
    refuse()
    first.write_text(text + "".join(watch(user, 299) for user in range(20)))
    second.write_text(grown + watch(1, 302))  # something new for the other partition does not go before the refusal
    refuse()
    first.write_text(text)
    assert streams_of(replay(mock_kafka, tmp_path, *flags, "--resume"))["watch_stats"]["sent"] == 1


def test_creates_topics_only_when_asked(kafka, few):
    name = f"made-{secrets.token_hex(4)}"
    done = replay(kafka, few, "--topics", f"watch_stats={name}", code=1)
    assert f'topic "{name}" does not exist' in done.stderr and "--create" in done.stderr
    replay(kafka, few, "--topics", f"watch_stats={name}", "--create", "--partitions", 3)
    assert len(kafka.watermarks(name)) == 3
    replay(kafka, few, "--topics", f"watch_stats={name}", "--create", "--partitions", 5)  # stays as it is
    assert len(kafka.watermarks(name)) == 3


def test_event_timestamps(any_kafka, few):
    topic = any_kafka.topic("stamps")
    begin_ms = time.time() * 1000
    replay(any_kafka, few, "--topics", f"watch_stats={topic}")
    replay(any_kafka, few, "--topics", f"watch_stats={topic}", "--timestamps", "event")
    stamps = [int(line.split("\t")[2]) for line in any_kafka.tool("consume", topic).splitlines()]
    assert len(stamps) == 60 and min(stamps[:30]) > begin_ms - 1000
    assert stamps[30:] == [int(datetime.fromisoformat(f"2025-12-10T12:00:{user:02}+00:00").timestamp() * 1000) for user in range(30)]


def test_line_larger_than_the_broker_takes(any_kafka, few):
    topic = any_kafka.topic("large")
    with (few / "watch_stats.jsonl").open("a") as out:
        out.write("\n" + json.dumps({"user_id": 1, "item_id": 1, "started_at": "2025-12-10T12:00:01Z", "completion": 1, "device_type": "x" * 3000}))
    done = replay(any_kafka, few, "--topics", f"watch_stats={topic}", "--property", "message.max.bytes=2000", "--json", code=1)
    counts = streams_of(done)["watch_stats"]
    assert (counts["sent"], counts["acknowledged"], counts["too_large"]) == (30, 30, 1) and "larger than" in done.stderr


def test_refused_delivery_stops_without_a_gap(mock_kafka, few):
    topic = mock_kafka.topic("refused")
    flags = ("--topics", f"watch_stats={topic}", "--json", "--property", "linger.ms=0", "--property", "batch.num.messages=1")
    mock_kafka.say("errors 0 29 1")  # the first of several requests under way: not authorised
    done = replay(mock_kafka, few, *flags, code=1)
    counts = streams_of(done)["watch_stats"]
    assert counts["failed"] > 0 and counts["sent"] == counts["acknowledged"] + counts["failed"]
    assert f'topic "{topic}"' in done.stderr and "not allowed" in done.stderr and "--resume" in done.stderr
    replay(mock_kafka, few, *flags[:3], "--resume")
    assert [json.loads(value)["user_id"] for _, _, value in records(mock_kafka, topic)[0]] == list(range(30))


def test_damaged_file_ends_the_replay(any_kafka, few):
    topic = any_kafka.topic("damaged")
    whole = gzip.compress((few / "watch_stats.jsonl").read_bytes())
    (few / "watch_stats.jsonl").unlink()
    (few / "watch_stats.jsonl.gz").write_bytes(whole[:-10])
    done = replay(any_kafka, few, "--topics", f"watch_stats={topic}", code=1)
    assert "watch_stats.jsonl.gz: the compressed data ends too early" in done.stderr
    (few / "watch_stats.jsonl.gz").write_bytes(whole)  # mended: goes on
    replay(any_kafka, few, "--topics", f"watch_stats={topic}", "--resume")
    assert sum(map(len, records(any_kafka, topic).values())) == 30


def test_wrong_use_and_no_broker(few):
    def run(*flags):
        done = subprocess.run([RECCTL, "replay", "--data_dir", few, *flags], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr

    code, err = run()
    assert code == 2 and "--brokers is missing" in err
    for flags, said in ((("--speed", "fast"), "--speed"), (("--speed", "1x", "--rate", "5"), "exclude"), (("--from", "yesterday"), "--from"),
                        (("--from", "2025-12-11T00:00:00Z", "--to", "2025-12-10T00:00:00Z"), "not before"), (("--partitions", "3"), "--create"),
                        (("--property", "geheim"), "NAME=VALUE")):
        code, err = run("--brokers", "127.0.0.1:1", *flags)
        assert code == 2 and said in err and "geheim" not in err
    for prop in ("sasl.password=geheim", "nosuch=geheim", "linger.ms=geheim", "enable.idempotence=geheim"):
        code, err = run("--brokers", "127.0.0.1:1", "--property", prop, "--streams", "events")
        assert code == 1 and "geheim" not in err
    # what librdkafka itself says once it has all of them: of some it repeats the value
    for protocol, prop in ("sasl_ssl", "sasl.mechanism=geheim"), ("ssl", "ssl.curves.list=geheim"), ("ssl", "ssl.ca.location=/no/geheim.pem"):
        code, err = run("--brokers", "127.0.0.1:1", "--property", f"security.protocol={protocol}", "--property", prop)
        assert code == 1 and "geheim" not in err
        assert prop != "sasl.mechanism=geheim" or "***" in err
    code, err = run("--brokers", "127.0.0.1:1", "--property", "socket.timeout.ms=1000")
    assert code == 1 and "127.0.0.1:1" in err and "broker" in err


def test_recd_conf_names_brokers_and_topics(any_kafka, few):
    topic = any_kafka.topic("conf")
    conf = few / "recd.conf"
    conf.write_text(f'kafka = {{ brokers = "{any_kafka.address}"; properties = ["linger.ms=1"]; }};\n'
                    f'sources = {{ watch_stats = {{ topic = "{topic}"; }}; }};\n')
    (few / "users.jsonl").write_text('{"user_id":1}\n')  # has no topic there
    done = subprocess.run([RECCTL, "replay", "--config", conf, "--data_dir", few, "--json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {stream: counts["acknowledged"] for stream, counts in streams_of(done).items()} == {"watch_stats": 30}
    # what recd reads with is no obstacle to reading back how far a replay came
    conf.write_text(conf.read_text().replace('"linger.ms=1"', '"isolation.level=read_committed"'))
    done = subprocess.run([RECCTL, "replay", "--config", conf, "--data_dir", few, "--json", "--resume"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert streams_of(done)["watch_stats"]["present"] == 30
    conf.write_text('kafka = { brokers = "127.0.0.1:1"; properties = ["sasl.password"]; };\n')
    done = subprocess.run([RECCTL, "replay", "--config", conf, "--data_dir", few], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "recd.conf:1: kafka.properties" in done.stderr


def test_dry_run_needs_no_broker(few):
    done = subprocess.run([RECCTL, "replay", "--data_dir", few, "--dry_run"], capture_output=True, text=True)
    assert done.returncode == 0 and "nothing was sent" in done.stdout
    assert "from 2025-12-10T12:00:00+00:00 to 2025-12-10T12:00:29+00:00" in done.stdout
    assert f"{few}/watch_stats.jsonl -> watch_stats" in done.stdout
