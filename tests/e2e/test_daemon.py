"""recd from the outside: the main job, restarts, reloads, what it tells the service manager, and what it refuses."""
import json
import os
import random
import signal
import socket
import subprocess
import time

import pytest

from recd_process import RECCTL, RECD, Recd, watches

SMALL = "training = { emb_dim = 8; threads = 2; idle_passes = 20; };"


def recctl(recd, *arguments, code=0):
    done = subprocess.run([RECCTL, *arguments, "--socket", recd.socket], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.core
def test_logs_in_answers_out(recd):
    recd.start()
    recd.append("watch_stats", watches(users=20, items=12))
    recd.wait_taken(240)
    recd.wait(lambda: recd.status()["personal_rows"] == 20 and recd.status()["fold_in_waiting"] == 0, "users not folded in")
    code, top = recd.request("GET", "/v1/users/3/top?k=5")
    assert code == 200 and top["served"] == "personalized"
    # user 3 watched odd titles only: what is left to him are the even ones
    assert len(top["items"]) == 5 and all(item["item_id"] % 2 == 0 for item in top["items"])
    assert recd.request("GET", "/v1/users/999/top?k=5")[1]["served"] == "popularity"
    assert json.loads(recctl(recd, "status", "--json"))["n_users"] == 20
    assert recd.stop() == 0


def test_watched_now_is_masked_now(recd):
    recd.start()
    recd.append("watch_stats", watches(users=20, items=12))
    recd.wait_taken(240)
    recd.wait(lambda: recd.status()["fold_in_waiting"] == 0, "users not folded in")
    best = recd.request("GET", "/v1/users/3/top?k=1")[1]["items"][0]["item_id"]
    recd.append("watch_stats", [{"user_id": 3, "item_id": best, "started_at": "2025-12-11T00:00:00Z", "completion": 0.1}])
    recd.wait(lambda: recd.request("GET", "/v1/users/3/top?k=1")[1]["items"][0]["item_id"] != best, "still recommended")


@pytest.mark.core
def test_kill_and_restart_gives_the_same_state(recd):
    recd.start()
    recd.append("watch_stats", watches(20, 10) + ["{bad\n"])
    recd.append("impressions", [{"user_id": 1, "item_id": 1001, "shown_at": "2025-12-10T12:00:00Z", "surface": "home", "position": 1, "request_id": "r"}])
    recd.wait_taken(202)
    assert recd.snapshot()[0] == 200
    recd.append("watch_stats", watches(20, 3, first=10))  # after the checkpoint: read again
    recd.wait_taken(262)
    before = recd.status()
    recd.kill()
    recd.start()
    recd.wait_taken(262)
    after = recd.status()
    for key in ("histories_digest", "positions_digest", "n_positives", "counters", "dead_letter_length"):
        assert before[key] == after[key], key
    assert (recd.data / "dead-letter.jsonl").read_text().count("\n") == 1


def test_from_the_end_survives_an_early_kill(recd):
    """The start position is saved before the first interval: a kill does not move it to a later end."""
    recd.append("watch_stats", watches(5, 2))
    recd.write_conf(SMALL)
    recd.conf.write_text(recd.conf.read_text().replace('watch_stats*.jsonl"];', 'watch_stats*.jsonl"]; from = "end";'))
    recd.start()
    recd.wait(lambda: recd.status()["checkpoint_number"] > 0, "no first checkpoint")
    assert recd.taken() == 0
    recd.kill()
    recd.append("watch_stats", watches(5, 3, first=2))
    recd.start()
    recd.wait_taken(15)
    assert recd.status()["n_positives"] == 15


def test_order_and_duplicates_do_not_matter(make_recd):
    lines = watches(15, 10) + watches(15, 10, completion=0.3) + watches(15, 4, day=11)
    digests = set()
    for seed in (1, 2):
        shuffled = lines + lines[:100]
        random.Random(seed).shuffle(shuffled)
        recd = make_recd(SMALL)
        recd.append("watch_stats", shuffled)
        recd.start()
        recd.wait_taken(len(shuffled))
        digests.add(recd.status()["histories_digest"])
        recd.kill()
    assert len(digests) == 1


def test_second_daemon_is_refused(recd):
    """Row 22."""
    recd.start()
    second = Recd(recd.folder, SMALL)
    second.socket = str(recd.folder / "other")
    second.write_conf(SMALL)
    done = subprocess.run([RECD, "--config", str(second.conf)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 3
    assert f"in use by another recd (pid {recd.process.pid})" in done.stderr
    assert recd.request("GET", "/healthz")[0] == 200


@pytest.mark.parametrize(
    "text, words",
    [
        ("trainig = { };", ["trainig", "training"]),
        ("training = { emb_dim = 0; };", ["emb_dim", "1"]),
        ("training = { emb_dim = 1000; };", ["emb_dim", "512"]),
        ('training = { emb_dim = "x"; };', ["emb_dim"]),
        ("state = { min_pos_completion = 1.5; };", ["min_pos_completion"]),
        ('training = { backend = "gpu"; };', ["backend", "cuda"]),
        ("training = { emb_dim = 8 ", ["recd.conf"]),
        ("checkpoint = { keep = 1; };", ["keep", "3"]),
        ("personalize = { steps = 90000; batch = 60000; };", ["personalize.steps", "60000"]),
    ],
)
def test_bad_configuration(make_recd, text, words):
    """Row 49: file, line, reason, exit code 2."""
    recd = make_recd(text)
    done = subprocess.run([RECD, "--config", str(recd.conf)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert f"{recd.conf}:" in done.stderr
    for word in words:
        assert word in done.stderr
    line = int(done.stderr.split(f"{recd.conf}:")[1].split(":")[0])
    assert 9 <= line <= 10
    assert not recd.data.exists()


def test_reload(recd):
    """Row 49: a good one is taken over, a bad one leaves the old one, over HTTP and by signal."""
    recd.start()
    recd.append("watch_stats", watches(10, 5, completion=0.5))
    recd.wait_taken(50)
    assert recd.status()["n_positives"] == 0
    recd.write_conf(SMALL + "state = { min_pos_completion = 0.4; };")
    assert recd.request("POST", "/v1/reload")[0] == 200
    recd.wait(lambda: recd.status()["n_positives"] == 50, "new threshold not used")
    recd.write_conf("state = { min_pos_completion = 7; };")
    code, answer = recd.request("POST", "/v1/reload")
    assert code >= 400 and "min_pos_completion" in answer["error"]
    os.kill(recd.process.pid, signal.SIGHUP)
    recd.wait(lambda: recd.log().count("reload refused") == 2, "SIGHUP not taken")
    assert recd.status()["n_positives"] == 50
    recd.write_conf(SMALL.replace("emb_dim = 8", "emb_dim = 16"))
    assert "emb_dim" in recd.request("POST", "/v1/reload")[1]["result"]


def test_stops_inside_training_at_random_times(make_recd):
    """Row 45: SIGTERM at any time ends with a checkpoint, two of them end as well, and nothing is lost."""
    seed = int(os.environ.get("RECD_TEST_SEED", random.randrange(1 << 30)))
    print("seed", seed)
    rng = random.Random(seed)
    recd = make_recd("training = { emb_dim = 32; threads = 2; idle_passes = 100000; };")
    rows = watches(50, 20)
    for turn in range(8):
        recd.append("watch_stats", rows[turn * 125 : (turn + 1) * 125])
        recd.start()
        time.sleep(rng.random() * 0.4)
        os.kill(recd.process.pid, signal.SIGTERM)
        if rng.random() < 0.4:
            time.sleep(rng.random() * 0.05)
            if recd.process.poll() is None:
                os.kill(recd.process.pid, signal.SIGINT)
        assert recd.process.wait(30) == 0, recd.log()[-500:]
    recd.start()
    recd.wait_taken(1000)
    assert recd.status()["n_positives"] == len({(w["user_id"], w["item_id"]) for w in rows})


class ServiceManager:
    """A NOTIFY_SOCKET and what arrived on it."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(0.1)
        self.seen = []

    def wait_for(self, text, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if any(text in message for message in self.seen):
                return True
            try:
                self.seen.append(self.socket.recv(4096).decode())
            except TimeoutError:
                pass
        return False


def test_tells_the_service_manager(make_recd, tmp_path, monkeypatch):
    path = str(tmp_path / "notify")
    manager = ServiceManager(path)
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    recd = make_recd(SMALL, notify=path).start()
    assert manager.wait_for("READY=1")
    assert manager.wait_for("WATCHDOG=1")
    assert manager.wait_for("STATUS=")
    manager.seen.clear()
    os.kill(recd.process.pid, signal.SIGHUP)
    assert manager.wait_for("RELOADING=1") and manager.wait_for("READY=1")
    # a process that is stopped pings no more
    os.kill(recd.process.pid, signal.SIGSTOP)
    manager.seen.clear()
    time.sleep(0.3)
    manager.wait_for("nothing", 1)
    manager.seen.clear()
    assert not manager.wait_for("WATCHDOG=1", 1)
    os.kill(recd.process.pid, signal.SIGCONT)
    assert manager.wait_for("WATCHDOG=1")
    manager.seen.clear()
    os.kill(recd.process.pid, signal.SIGTERM)
    assert manager.wait_for("STOPPING=1")
    assert recd.process.wait(30) == 0


def test_forget(recd):
    recd.start()
    recd.append("watch_stats", watches(10, 6))
    recd.wait_taken(60)
    assert recd.request("POST", "/v1/users/4/forget")[0] == 200
    recd.wait(lambda: recd.status()["n_positives"] == 54, "facts not dropped")
    recd.append("watch_stats", watches(10, 1, first=6))
    recd.wait_taken(70)
    assert recd.snapshot()[0] == 200
    before = recd.status()
    assert before["counters"]["dropped_forgotten"] == 1 and before["n_positives"] == 63
    recd.kill()
    recd.start()
    assert recd.status()["histories_digest"] == before["histories_digest"]
    assert recd.request("GET", "/v1/users/4/explain")[1]["watched_count"] == 0
