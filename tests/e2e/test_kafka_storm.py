"""The kill storm: `recctl replay` sends logs, recd and the broker are killed at seeded times, and the end is that of a run without a kill, and of the files.

RECD_TEST_STORM="LINES KILLS BROKER_KILLS [SEED]" sets its size (default "60000 5 1"); `make torture` runs a large one. The seed is printed.
"""
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import pytest

from kafka_world import SMALL, STREAMS, Logs
from recd_process import RECCTL

SETTINGS = SMALL + "\ncheckpoint = { interval_sec = 1; };"
SIZE = os.environ.get("RECD_TEST_STORM", "60000 5 1").split()
LINES, KILLS, BROKER_KILLS = map(int, SIZE[:3])
SEED = int(SIZE[3]) if len(SIZE) > 3 else random.SystemRandom().randrange(1 << 32)


@pytest.fixture(scope="module")
def logs():
    folder = tempfile.mkdtemp(prefix="recd-logs-")
    yield Logs(folder, int(LINES * 0.83), users=max(60, LINES // 1000), items=max(400, LINES // 200))
    shutil.rmtree(folder, ignore_errors=True)


def say(capsys, text):
    with capsys.disabled():
        print(f"\nstorm: {text}", flush=True)


def replay(broker, logs, topics, rate):
    """The logs into their topics, at so many records a second."""
    names = ",".join(f"{stream}={topic}" for stream, topic in topics.items())
    return subprocess.Popen([RECCTL, "replay", "--brokers", broker.address, "--data_dir", logs.folder, "--streams", ",".join(topics), "--topics", names,
                             "--rate", str(rate), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kills(recd, rng, n):
    """Kills recd n times: while it reads, while it saves, and some times before it is ready."""
    for number in range(n):
        if rng.random() < 0.2:
            recd.spawn()
            time.sleep(rng.uniform(0, 0.3))
        else:
            recd.start()
            time.sleep(rng.uniform(0.05, 1.6))
        assert recd.process.poll() is None, f"recd ended by itself before kill {number}: {recd.log()[-800:]}"
        os.kill(recd.process.pid, signal.SIGKILL)
        recd.process.wait()


def broker_kills(broker, rng, n, seconds, errors):
    """Kills the broker n times, evenly spread with some chance; it is down for up to two seconds each time."""
    try:
        for _ in range(n):
            time.sleep(seconds / n * rng.uniform(0.3, 0.8))
            broker.kill()
            time.sleep(rng.uniform(0, 2))
            broker.start()
    except BaseException as error:  # told by the test's own thread
        errors.append(error)


def test_kill_storm(any_kafka, logs, make_kafka_recd, capsys):
    if not any_kafka.real and LINES > 100000:
        pytest.skip("the mock cluster does not keep that many records")
    n_broker_kills = BROKER_KILLS if any_kafka.ours else 0
    say(capsys, f"seed {SEED}: {logs.lines} lines, {KILLS} kills of recd, {n_broker_kills} of the broker")
    rng = random.Random(SEED)
    topics = logs.topics(any_kafka, fill=False)
    # The records come in for about as long as the kills take, so that most kills meet records.
    seconds = KILLS * 1.1 + n_broker_kills * 2
    replaying = replay(any_kafka, logs, topics, max(1, int(logs.lines / seconds)))
    errors = []
    killer = threading.Thread(target=broker_kills, args=(any_kafka, random.Random(SEED + 1), n_broker_kills, seconds, errors))
    recd = make_kafka_recd(any_kafka, topics, settings=SETTINGS)
    try:
        killer.start()
        kills(recd, rng, KILLS)
        killer.join()
        assert not errors, f"seed {SEED}: {errors}"
        out, err = replaying.communicate(timeout=600)
        assert replaying.returncode == 0, f"seed {SEED}: {err}"
        sent = json.loads(out)["streams"]
        assert {stream: sent[stream]["acknowledged"] for stream in STREAMS} == {stream: logs.counts[stream] for stream in STREAMS}, f"seed {SEED}"
    finally:
        killer.join()
        replaying.kill()
        replaying.wait()
    recd.start()
    recd.wait_taken(logs.lines)
    recd.wait(lambda: sum(partition["lag_records"] or 0 for partition in recd.status()["partitions"]) == 0, "a lag stays")
    stormy = recd.result()
    assert all(position["gaps"] == position["holes"] == 0 for position in recd.status()["positions"]), f"seed {SEED}"
    dropped = sum(position["duplicates"] for position in recd.status()["positions"])
    recd.kill()

    calm = make_kafka_recd(any_kafka, topics, settings=SMALL).start()
    calm.wait_taken(logs.lines)
    assert calm.taken() == logs.lines
    assert stormy == calm.result(), f"seed {SEED}"
    calm.kill()
    files = make_kafka_recd(any_kafka, {}, settings=SMALL, files=STREAMS)
    for stream in STREAMS:
        shutil.copy(logs.path(stream), files.logs)
    files.start()
    files.wait_taken(logs.lines)
    assert files.result()["histories_digest"] == stormy["histories_digest"], f"seed {SEED}"
    assert files.result()["counters"] == stormy["counters"], f"seed {SEED}"
    say(capsys, f"seed {SEED}: the same digests and counters; {dropped} records that came again were dropped")
