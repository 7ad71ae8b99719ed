"""recctl top --all_users: everybody's answers are the single answers, from recd, from its checkpoint and from files; the file is whole or the old one; memory is bounded."""
import json
import os
import re
import socket
import subprocess
import time
import threading

import pytest

from recd_process import RECCTL, watches

QUICK = ["--epochs", "1", "--steps_per_epoch", "50", "--batch_size", "512", "--emb_dim", "16", "--personalize_steps", "20"]


def recctl(*words, code=0):
    done = subprocess.run([RECCTL, *map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, (done.returncode, done.stdout[-800:], done.stderr)
    return done


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def bare(answer, titles=False):
    """A single answer without what a line leaves out."""
    keys = ["item_id", "title", "score", "conf"] if titles else ["item_id", "score", "conf"]
    return answer["user_id"], answer["served"], [{key: item[key] for key in keys} for item in answer["items"]]


def as_line(line):
    return line["user_id"], line["served"], line["items"]


def assert_counts(stderr, lines):
    served = [sum(line["served"] == name for line in lines) for name in ["personalized", "global", "popularity"]]
    assert re.search(rf"{len(lines)} users, {sum(len(line['items']) for line in lines)} titles, .*served: {served[0]} personalized, {served[1]} global, {served[2]} popularity", stderr), stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("top_all")
    recctl("synth", "--out_dir", folder, "--num_items", 700, "--num_users", 400, "--num_impressions", 9000)
    recctl("train", "--data_dir", folder, *QUICK)
    return folder


def test_files_equal_single_answers(data, tmp_path):
    out = tmp_path / "top.jsonl"
    done = recctl("top", "--all-users", "--data_dir", data, "--k", 7, "--output", out)
    single = [bare(json.loads(line)) for line in recctl("top", "--data_dir", data, "--users_max", 0, "--k", 7, "--json").stdout.splitlines()]
    lines = lines_of(out)
    assert [as_line(line) for line in lines] == single
    assert {line["served"] for line in lines} == {"personalized", "global", "popularity"}
    assert {line["model"] for line in lines} == {"model_bpr_personalized.pt"}
    assert_counts(done.stderr, lines)
    assert os.listdir(tmp_path) == ["top.jsonl"]
    for threads in 1, 3:  # the same bytes, whoever computed them
        again = recctl("top", "--all_users", "--data_dir", data, "--k", 7, "--output", "-", "--threads", threads)
        assert again.stdout == out.read_text()

    recctl("top", "--all_users", "--model_path", data / "model_bpr.pt", "--data_dir", data, "--titles", "--output", out)
    titled = lines_of(out)
    single = [bare(json.loads(line), titles=True) for line in recctl("top", "--model_path", data / "model_bpr.pt", "--data_dir", data, "--users_max", 0, "--json").stdout.splitlines()]
    assert [as_line(line) for line in titled] == single
    assert titled[0]["items"][0]["title"].startswith("Movie")


def test_recd_equals_single_answers(recd, tmp_path):
    recd.append("items", [{"item_id": 1000 + i, "title": f"T{i}"} for i in range(40)])
    recd.append("watch_stats", watches(1300, 5))
    recd.append("watch_stats", watches(1400, 1, completion=0.1)[1300:])  # users without a positive
    recd.start().wait_taken(40 + 1300 * 5 + 100)
    out = tmp_path / "top.jsonl"
    done = None

    def equal_at_rest():
        """recd goes on learning: compares once the model no longer changes between the two ways of asking."""
        nonlocal done
        done = recctl("top", "--all_users", "--socket", recd.socket, "--k", 4, "--titles", "--output", out)
        for line in lines_of(out):
            answer = recd.request("GET", f"/v1/users/{line['user_id']}/top?k=4")[1]
            if (as_line(line), line["generation"]) != (bare(answer, titles=True), answer["generation"]):
                return False
        return recd.status()["training_resting"]

    recd.wait(equal_at_rest, "the lines never become the single answers")
    lines = lines_of(out)
    assert [line["user_id"] for line in lines] == list(range(1400))  # more than one page
    assert len(lines) == recd.status()["n_users"]
    assert lines[1399]["served"] == "popularity" and lines[0]["served"] != "popularity"
    assert_counts(done.stderr, lines)
    assert f"generations {lines[0]['generation']} to {lines[-1]['generation']}" in done.stderr


def assert_same(ours, theirs):
    """A personal row is kept as its sum with the global one; taken apart again, the last bits of a score may be others."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(ours, list):
        assert len(ours) == len(theirs)
        for our, their in zip(ours, theirs):
            assert_same(our, their)
    else:
        assert ours == (pytest.approx(theirs, abs=1e-5) if isinstance(theirs, float) else theirs)


@pytest.mark.core
def test_a_checkpoint_answers_like_recd(make_recd, tmp_path):
    """While recd runs, and after it was killed: everybody's list, a user's list and its explanation are those that recd gave."""
    recd = make_recd("training = { emb_dim = 8; threads = 2; idle_passes = 10; };\nstate = { min_pos_completion = 0.7; impressions_max = 9; };\npersonalize = { min_positives = 4; };")
    recd.append("items", [{"item_id": 1000 + i, "title": f"T{i}", "genres": ["war" if i % 3 else "drama"]} for i in range(40)])
    recd.append("watch_stats", watches(300, 5))
    recd.append("watch_stats", watches(400, 3)[900:])  # too few for a row of their own
    recd.append("watch_stats", watches(450, 1, completion=0.65)[400:])  # no positive under recd.conf, one under the defaults
    recd.start().wait_taken(40 + 1500 + 300 + 50)
    mine, theirs = tmp_path / "checkpoint.jsonl", tmp_path / "recd.jsonl"

    assert recd.snapshot()[0] == 200  # the one to fall back to
    single = []

    def saved_at_rest():
        """At rest the last triples are published a little later: no model may be from then until after the last answer."""
        before = recd.status()
        time.sleep(1)
        if not before["training_resting"] or recd.status()["generation"] != before["generation"] or recd.snapshot()[0] != 200:
            return False
        recctl("top", "--all_users", "--socket", recd.socket, "--k", 6, "--output", theirs)
        single[:] = [recd.request("GET", f"/v1/users/{user}/{what}")[1] for user in (3, 250, 320, 420, 9999) for what in ("top", "explain")]
        return recd.status()["generation"] == before["generation"]

    recd.wait(saved_at_rest, "recd never comes to rest")
    held = sorted(os.listdir(recd.data))
    newest = max(path for path in (recd.data / "checkpoints").iterdir() if path.name.isdigit())
    assert {line["served"] for line in lines_of(theirs)} == {"personalized", "global", "popularity"}

    def check():
        for folder in recd.data, newest, recd.data / "checkpoints" / "latest":
            done = recctl("top", "--all_users", "--checkpoint", folder, "--config", recd.conf, "--k", 6, "--output", mine)
            assert_same(lines_of(mine), lines_of(theirs))
            assert_counts(done.stderr, lines_of(mine))
        users = [word for user in (3, 250, 320, 420, 9999) for word in ("--user_id", user)]
        tops = recctl("top", "--checkpoint", recd.data, "--config", recd.conf, "--json", *users).stdout.splitlines()
        whys = recctl("explain", "--checkpoint", recd.data, "--config", recd.conf, "--json", *users).stdout.splitlines()
        assert_same([json.loads(line) for pair in zip(tops, whys) for line in pair], single)

    check()
    assert recd.request("GET", "/readyz")[0] == 200 and sorted(os.listdir(recd.data)) == held
    recd.kill()
    check()
    assert sorted(os.listdir(recd.data)) == held
    recctl("top", "--all_users", "--checkpoint", recd.data, "--k", 6, "--output", mine)  # by the defaults: other positives
    assert [line["served"] for line in lines_of(mine)[400:]] == ["global"] * 50 and {line["served"] for line in lines_of(theirs)[400:]} == {"popularity"}
    assert len(recctl("top", "--checkpoint", recd.data, "--users_max", 7, "--json").stdout.splitlines()) == 7

    model = newest / "model_bpr.pt"
    model.write_bytes(model.read_bytes()[:-3])
    done = recctl("top", "--all_users", "--checkpoint", recd.data, "--config", recd.conf, "--k", 6, "--output", mine)
    assert f"damaged checkpoint passed over: checkpoints/{newest.name}: model_bpr.pt" in done.stderr and len(lines_of(mine)) == 450
    before = mine.read_text()
    assert "model_bpr.pt" in recctl("top", "--all_users", "--checkpoint", newest, "--output", mine, code=1).stderr
    assert "no checkpoint here" in recctl("top", "--all_users", "--checkpoint", tmp_path, "--output", mine, code=1).stderr
    assert "No such file" in recctl("top", "--all_users", "--checkpoint", tmp_path / "none", "--output", mine, code=1).stderr
    assert "recd.conf:1" in recctl("top", "--checkpoint", recd.data, "--config", bad_conf(tmp_path), "--user_id", 1, code=1).stderr
    assert f"--checkpoint {recd.data}" in recctl("top", "--all_users", "--data_dir", recd.data, "--output", mine, code=1).stderr
    assert mine.read_text() == before


def bad_conf(folder):
    (folder / "recd.conf").write_text("no_such_key = 1;\n")
    return folder / "recd.conf"


class Pages:
    """A recd that gives the pages it is told, one a request of /v1/top; `hold` keeps the last one back until it is set."""

    def __init__(self, path, pages, hold=None):
        self.asked, self.pages, self.hold = [], list(pages), hold
        self.held = threading.Event()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen(8)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            peer, _ = self.socket.accept()
            with peer:
                path = peer.recv(65536).split(b" ")[1].decode()
                if not path.startswith("/v1/top?"):
                    status, body = 200, b'{"n_users":4}'
                else:
                    self.asked.append(path)
                    status, body = self.pages.pop(0)
                    if not self.pages and self.hold:
                        self.held.set()
                        self.hold.wait(60)
                try:
                    peer.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body)) + body)
                except OSError:
                    pass


def page(*users, padding=""):
    return 200, b"".join(
        json.dumps({"user_id": user, "served": "global", "generation": 3, "items": [{"item_id": 1, "title": padding, "score": 0.5, "conf": 0.6}]}).encode() + b"\n" for user in users
    )


END = (200, b"")


def test_pages(tmp_path):
    out = tmp_path / "top.jsonl"
    recd = Pages(tmp_path / "s", [page(3, 5), page(6), END])
    done = recctl("top", "--all_users", "--socket", tmp_path / "s", "--output", out)
    assert [line["user_id"] for line in lines_of(out)] == [3, 5, 6]
    assert recd.asked == [f"/v1/top?k=10&limit=1000&titles=0{after}" for after in ["", "&after_user=5", "&after_user=6"]]
    assert "3 users, 3 titles" in done.stderr and "generations 3 to 3" in done.stderr
    Pages(tmp_path / "none", [END])
    assert "0 users, 0 titles" in recctl("top", "--all_users", "--socket", tmp_path / "none", "--output", out).stderr
    assert out.read_text() == ""


def test_failures_keep_the_old_file(tmp_path):
    out = tmp_path / "top.jsonl"
    out.write_text("old\n")
    cases = {
        "gone": ([page(1, 2), (503, b'{"error":"not ready: stopping"}')], "after 2 users: recd: not ready: stopping"),
        "twice": ([page(1, 2), page(2)], "does not answer like recd"),  # would never end
        "order": ([page(2, 1)], "does not answer like recd"),
        "cut": ([(200, page(1, 2)[1][:-1])], "does not answer like recd"),
        "web": ([(200, b"<html>\n")], "does not answer like recd"),
        "old": ([(404, b'{"error":"no such path"}')], "recd: no such path"),
    }
    for name, (pages, text) in cases.items():
        Pages(tmp_path / name, pages)
        done = recctl("top", "--all_users", "--socket", tmp_path / name, "--output", out, code=1)
        assert text in done.stderr, (name, done.stderr)
        assert out.read_text() == "old\n" and not (tmp_path / "top.jsonl.tmp").exists(), name
    assert "nothing listens on" in recctl("top", "--all_users", "--socket", tmp_path / "nobody", "--output", out, code=1).stderr
    assert "no regular file" in recctl("top", "--all_users", "--socket", tmp_path / "nobody", "--output", "/dev/null", code=1).stderr
    assert "No such file" in recctl("top", "--all_users", "--socket", tmp_path / "nobody", "--output", tmp_path / "no" / "x", code=1).stderr


def test_killed_and_beside_another(tmp_path):
    """Killed in the middle: the old file stays; what is left of it does not disturb the next run. Two at once: the second one says so."""
    out, left = tmp_path / "top.jsonl", tmp_path / "top.jsonl.tmp"
    out.write_text("old\n")
    hold = threading.Event()
    slow = Pages(tmp_path / "slow", [page(*range(500)), END], hold)
    process = subprocess.Popen([RECCTL, "top", "--all_users", "--socket", tmp_path / "slow", "--output", out], stderr=subprocess.DEVNULL)
    try:
        assert slow.held.wait(60)
        assert left.stat().st_size > 0 and out.read_text() == "old\n"
        Pages(tmp_path / "quick", [END])
        assert "another run is writing it" in recctl("top", "--all_users", "--socket", tmp_path / "quick", "--output", out, code=1).stderr
        assert left.stat().st_size > 0  # the first one's, untouched
    finally:
        process.kill()
        process.wait()
        hold.set()
    assert out.read_text() == "old\n" and left.exists()
    Pages(tmp_path / "next", [page(7), END])
    recctl("top", "--all_users", "--socket", tmp_path / "next", "--output", out)
    assert [line["user_id"] for line in lines_of(out)] == [7] and not left.exists()


@pytest.mark.skipif(bool(os.environ.get("SAN")), reason="memory is not the product's under a sanitizer")
def test_memory_is_bounded(tmp_path):
    """60 pages of 1 MB: 60 MB of output, from a process that never holds more than a few pages."""
    out = tmp_path / "top.jsonl"
    hold = threading.Event()
    recd = Pages(tmp_path / "s", [page(*range(10 * i, 10 * i + 10), padding="x" * 100_000) for i in range(60)] + [END], hold)
    process = subprocess.Popen([RECCTL, "top", "--all_users", "--socket", tmp_path / "s", "--output", out], stderr=subprocess.DEVNULL)
    try:
        assert recd.held.wait(60)
        with open(f"/proc/{process.pid}/status") as status:
            peak_kib = int(re.search(r"VmHWM:\s+(\d+)", status.read()).group(1))
    finally:
        hold.set()
        assert process.wait(60) == 0
    assert out.stat().st_size > 60_000_000
    assert peak_kib < 40_000, f"{peak_kib} KiB"


def test_wrong_use(tmp_path):
    cases = {
        "needs --output": ["--all_users"],
        "--output goes with --all_users": ["--output", "x", "--user_id", "1"],
        "--titles goes with --all_users": ["--titles", "--user_id", "1"],
        "--threads goes with --all_users": ["--threads", "2", "--user_id", "1"],
        "leave --user_id out": ["--all_users", "--output", "x", "--user_id", "1"],
        "leave --users_max out": ["--all_users", "--output", "x", "--users_max", "3"],
        "give one or the other": ["--all_users", "--output", "x", "--socket", "s", "--data_dir", "d"],
        "leave --data_dir and --model_path out": ["--user_id", "1", "--checkpoint", "c", "--model_path", "m"],
        "--config goes with --checkpoint": ["--user_id", "1", "--config", "c"],
        "leave --min_pos_completion out": ["--user_id", "1", "--checkpoint", "c", "--config", "c", "--min_pos_completion", "0.6"],
    }
    for text, words in cases.items():
        assert text in recctl("top", *words, code=2).stderr
