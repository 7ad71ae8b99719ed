"""recctl synth from the outside: bytes, keys, order, ties, and rates against the model, recomputed here from users.jsonl and items.jsonl alone.

The seed is fixed, so the statistical bounds (4.5 standard deviations) either hold always or never.
RECCTL names the binary; otherwise it is recctl in the build folder (BUILD, as for make).
"""
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import time
from collections import Counter, defaultdict
from datetime import datetime

import numpy as np
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RECCTL = os.environ.get("RECCTL") or os.path.join(ROOT, os.environ.get("BUILD", "build"), "recctl")
FILES = ["items", "users", "impressions", "events", "watch_stats", "train_samples"]
FLAGS = ["--num_items", "300", "--num_users", "20", "--num_impressions", "120000", "--seed", "7"]


def synth(*flags, code=0, **options):
    done = subprocess.run([RECCTL, "synth", *map(str, flags)], capture_output=True, text=True, **options)
    assert done.returncode == code, done.stderr
    return done


def digest(folder):
    return {name: hashlib.sha256((folder / f"{name}.jsonl").read_bytes()).hexdigest() for name in FILES}


def lines(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").open()]


def seconds(text):
    return datetime.fromisoformat(text).timestamp()


class Logs:
    def __init__(self, folder, summary):
        self.folder, self.summary = folder, summary
        self.items, self.users, self.impressions, self.events, self.watches, self.samples = (lines(folder, name) for name in FILES)
        self.by_request = {i["request_id"]: i for i in self.impressions}


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synth")
    done = synth("--out_dir", folder / "data", "--oracle", folder / "oracle.pt", "--json", *FLAGS)
    assert done.stderr == ""  # no progress in a pipe
    return Logs(folder / "data", json.loads(done.stdout))


def test_same_seed_same_bytes(logs, tmp_path):
    synth("--out_dir", tmp_path / "again", *FLAGS)
    assert digest(tmp_path / "again") == digest(logs.folder)
    synth("--out_dir", tmp_path / "other", *FLAGS[:-1], "8")
    other = digest(tmp_path / "other")
    assert all(other[name] != value for name, value in digest(logs.folder).items())


def test_bytes_of_a_seed_are_the_same_everywhere(tmp_path):
    """A digest written down once: another compiler or machine must give it too."""
    synth("--out_dir", tmp_path, "--num_items", 50, "--num_users", 3, "--num_impressions", 5000)
    whole = hashlib.sha256("".join(sorted(digest(tmp_path).values())).encode()).hexdigest()
    assert whole == "646881b768ac448e4c37389b81176c6860e86db715a6c140ebbd427881db834e"


def test_lines_are_as_documented(logs):
    when = r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"'
    who = r'"user_id":\d+,"item_id":\d+'
    share = r"[01]\.\d{4}"
    patterns = {
        "items": r'\{"item_id":\d+,"title":"Movie #\d{5}","release_year":\d{4},"duration_sec":\d+,"genres":\["[a-z-]+"(,"[a-z-]+"){0,2}\],'
                 r'"tags":\["tag_\d\d"(,"tag_\d\d")*\]\}',
        "users": r'\{"user_id":\d+,"country":"[A-Z]{2}","ui_language":"[a-z]{2}","genre_pref":\{"[a-z-]+":' + share + r'(,"[a-z-]+":' + share + r")*\}\}",
        "impressions": r'\{"impression_id":(\d+),' + who + r',"surface":"[a-z]+","position":\d+,"shown_at":' + when + r',"request_id":"req-0*\1"\}',
        "events": r'\{"event_id":"ev-(\d+)-([a-z_]+)",' + who + r',"type":"\2","value":(null|\d+),"occurred_at":' + when + r',"request_id":"req-0*\1"\}',
        "watch_stats": r'\{"watch_id":"w-\d+",' + who + r',"started_at":' + when + r',"ended_at":' + when + r',"watch_time_sec":\d+,"completion":' + share
                       + r',"device_type":"(tv|mobile|web|tablet)","session_id":"sess-\d+-\d+"\}',
        "train_samples": r"\{" + who + r',"label":[01],"ts":' + when + r"\}",
    }
    for name, pattern in patterns.items():
        compiled = re.compile(pattern + "\n")
        for line in (logs.folder / f"{name}.jsonl").open():
            assert compiled.fullmatch(line), (name, line)


def test_counts(logs):
    assert [i["item_id"] for i in logs.items] == list(range(300))
    assert [u["user_id"] for u in logs.users] == list(range(20))
    assert [i["impression_id"] for i in logs.impressions] == list(range(120000))
    assert {i["position"] for i in logs.impressions} == set(range(1, 21))
    counts = logs.summary
    assert (counts["events"], counts["watch_stats"], counts["train_samples"]) == (len(logs.events), len(logs.watches), len(logs.samples))
    assert {e["type"] for e in logs.events} == {"click", "play_start", "like", "dislike", "rate"}
    for event in logs.events:
        assert (event["value"] in range(1, 11)) if event["type"] == "rate" else event["value"] is None
    shown = Counter(i["user_id"] for i in logs.impressions)
    assert len(shown) == 20 and 0.2 < np.std(list(shown.values())) / 6000 < 0.9


def test_every_file_is_in_time_order(logs):
    for rows, key in (logs.impressions, "shown_at"), (logs.events, "occurred_at"), (logs.watches, "started_at"), (logs.samples, "ts"):
        times = [row[key] for row in rows]
        assert times == sorted(times)
    assert logs.impressions[0]["shown_at"] >= "2025-12-10T12:00:00"
    assert "2026-02-07T12:00:00" < logs.impressions[-1]["shown_at"] < "2026-02-08T12:00:00"


def test_sessions_of_a_user_do_not_overlap(logs):
    """A watch names its session; sessions of one user are numbered in time order, and hold at most 32 impressions."""
    last = {}
    for impression in logs.impressions:
        assert last.get(impression["user_id"], "") <= impression["shown_at"]
        last[impression["user_id"]] = impression["shown_at"]
    number = defaultdict(lambda: -1)
    watch_of = {int(w["watch_id"][2:]): w for w in logs.watches}
    plays = Counter()
    for impression in logs.impressions:
        watch = watch_of.get(impression["impression_id"])
        if watch:
            user, session = map(int, watch["session_id"].split("-")[1:])
            assert user == impression["user_id"] and session >= number[user]
            number[user] = session
            plays[watch["session_id"]] += 1
    assert max(plays.values()) <= 32
    assert number[0] > 50


def test_events_and_watches_belong_to_impressions(logs):
    duration = {i["item_id"]: i["duration_sec"] for i in logs.items}
    watch_of = {int(w["watch_id"][2:]): w for w in logs.watches}
    assert len(watch_of) == len(logs.watches)
    seen = defaultdict(dict)
    for event in logs.events:
        cause = logs.by_request[event["request_id"]]
        assert (cause["user_id"], cause["item_id"]) == (event["user_id"], event["item_id"])
        assert event["type"] not in seen[event["request_id"]]
        seen[event["request_id"]][event["type"]] = event["occurred_at"]
    plays = 0
    for request, times in seen.items():
        assert logs.by_request[request]["shown_at"] < times["click"]
        watch = watch_of.get(logs.by_request[request]["impression_id"])
        assert (watch is not None) == ("play_start" in times)
        if not watch:
            assert set(times) == {"click"}
            continue
        plays += 1
        assert (watch["user_id"], watch["item_id"]) == (logs.by_request[request]["user_id"], logs.by_request[request]["item_id"])
        assert times["click"] < times["play_start"] <= watch["started_at"]
        for opinion in "like", "dislike", "rate":
            assert times.get(opinion, watch["ended_at"]) >= watch["ended_at"]
        assert ("like" not in times or watch["completion"] >= 0.6) and ("dislike" not in times or watch["completion"] < 0.3)
    assert plays == len(logs.watches) > 5000
    for watch in logs.watches:
        length = duration[watch["item_id"]]
        assert 0 <= watch["completion"] <= 1 and abs(watch["watch_time_sec"] - watch["completion"] * length) <= 1
        assert seconds(watch["ended_at"]) - seconds(watch["started_at"]) >= watch["watch_time_sec"]


def test_samples_are_what_the_logs_say(logs):
    clicked = {e["request_id"] for e in logs.events if e["type"] == "click"}
    expected = Counter((i["user_id"], i["item_id"], 0, i["shown_at"]) for i in logs.impressions if i["request_id"] not in clicked)
    expected += Counter((w["user_id"], w["item_id"], 1, w["started_at"]) for w in logs.watches if w["completion"] >= 0.6)
    assert Counter((s["user_id"], s["item_id"], s["label"], s["ts"]) for s in logs.samples) == expected


def tastes(logs):
    """taste[user][item] from the files: mean preference over the title's genres over the user's largest."""
    genres = sorted({g for i in logs.items for g in i["genres"]})
    assert len(genres) == 18
    titles = np.array([[(g in i["genres"]) / len(i["genres"]) for g in genres] for i in logs.items])
    prefs = np.array([[u["genre_pref"].get(g, 0.0) for g in genres] for u in logs.users])
    assert np.allclose(prefs.sum(1), 1.0, atol=1e-3)
    affinity = prefs @ titles.T
    return affinity / affinity.max(1, keepdims=True)


def within(count, expected, variance):
    return abs(count - expected) <= 4.5 * np.sqrt(variance) + 1e-3 * expected  # the last term: preferences are rounded in users.jsonl


def test_rates_follow_the_model(logs):
    taste = tastes(logs)
    user, item, position = (np.array([i[key] for i in logs.impressions]) for key in ("user_id", "item_id", "position"))
    t = taste[user, item]
    clicked = np.zeros(len(t), bool)
    played = np.zeros(len(t), bool)
    completion = np.zeros(len(t))
    for event in logs.events:
        number = int(event["request_id"][4:])
        clicked[number] |= event["type"] == "click"
        played[number] |= event["type"] == "play_start"
    for watch in logs.watches:
        completion[int(watch["watch_id"][2:])] = watch["completion"]
    for p in range(1, 21):
        assert within((position == p).sum(), len(t) / 20, len(t) / 20)
    chance = (0.03 + 0.6 * t) / np.log2(position + 2)
    for group in [t >= 0, t >= 0.5, position > 10] + [position == p for p in range(1, 21)] + [(t >= low) & (t < low + 0.2) for low in np.arange(0, 1.2, 0.2)]:
        assert within(clicked[group].sum(), chance[group].sum(), (chance * (1 - chance))[group].sum())
    assert within(played.sum(), 0.7 * clicked.sum(), 0.21 * clicked.sum())
    mean = 0.15 + 0.75 * t
    for low in np.arange(0, 1, 0.1):
        group = played & (t >= low) & (t <= low + 0.1)
        assert group.sum() > 30
        # printed rounded down to 1/10,000; the Beta's variance is mean (1 - mean) / (concentration + 1)
        assert within(completion[group].sum(), mean[group].sum(), (mean * (1 - mean) / 5)[group].sum())
    error = (completion - mean)[played]
    assert within(completion[played].sum(), mean[played].sum(), (mean * (1 - mean) / 5)[played].sum())
    assert 0.95 < np.sum(error ** 2) / np.sum((mean * (1 - mean) / 5)[played]) < 1.05


def test_oracle_predicts_the_positives(logs):
    torch = pytest.importorskip("torch", reason="the oracle is a PyTorch file")
    path = logs.folder.parent / "oracle.pt"
    oracle = torch.load(path, weights_only=True)
    chance = oracle["chance"].numpy().astype(float)
    assert list(oracle["user_ids"]) == list(range(20)) and list(oracle["item_ids"]) == list(range(300))
    assert chance.shape == (20, 300) and chance.min() > 0
    assert float(oracle["min_pos_completion"]) == 0.6 and oracle["seed"] == "7"
    shown = np.bincount([i["user_id"] for i in logs.impressions], minlength=20)
    positives = np.zeros(chance.shape)
    for watch in logs.watches:
        positives[watch["user_id"], watch["item_id"]] += watch["completion"] >= 0.6
    expected = chance * shown[:, None]
    order = np.argsort(chance, axis=None)
    for group in np.array_split(order, 20):
        assert within(positives.ravel()[group].sum(), expected.ravel()[group].sum(), expected.ravel()[group].sum())
    for user in range(20):
        assert within(positives[user].sum(), expected[user].sum(), expected[user].sum())


def test_start_and_days(tmp_path):
    synth("--out_dir", tmp_path / "a" / "b", "--num-impressions=2000", "--days", 2, "--start", "2024-02-28T23:00:00+01:00")
    times = [i["shown_at"] for i in lines(tmp_path / "a" / "b", "impressions")]
    assert "2024-02-28T22:00:00+00:00" <= times[0] and times[-1] < "2024-03-01T22:00:00+00:00"
    assert {t[:10] for t in times} >= {"2024-02-28", "2024-02-29", "2024-03-01"}
    synth("--out_dir", tmp_path / "late", "--start", "9999-10-25T00:00:00+00:00")
    assert lines(tmp_path / "late", "impressions")[-1]["shown_at"].startswith("9999-12-23T")


def test_oracle_may_lie_in_the_new_folder(tmp_path):
    synth("--out_dir", tmp_path / "data", "--num_impressions", 100, "--oracle", tmp_path / "data" / "oracle.pt")
    synth("--out_dir", "data", "--num_impressions", 100, "--oracle", "oracle.pt", cwd=tmp_path)
    assert (tmp_path / "data" / "oracle.pt").read_bytes() == (tmp_path / "oracle.pt").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["data", "oracle.pt"] and len(os.listdir(tmp_path / "data")) == len(FILES) + 1


def test_min_pos_completion(tmp_path):
    for threshold, name in (0.3, "low"), (0.9, "high"):
        folder = tmp_path / name
        summary = json.loads(synth("--out_dir", folder, "--num_impressions", 20000, "--min_pos_completion", threshold, "--json").stdout)
        positives = sum(w["completion"] >= threshold for w in lines(folder, "watch_stats"))
        assert sum(s["label"] for s in lines(folder, "train_samples")) == positives == summary["positives"]


@pytest.mark.parametrize("flags, message", [
    (["--num_user", "5"], "unknown flag --num_user; did you mean --num_users?"),
    (["--num_users", "0"], '--num_users: "0" is not valid; allowed: a whole number from 1 to 100000000'),
    (["--seed", "x"], '--seed: "x" is not valid'),
    (["--start", "2025-12-10"], '--start: "2025-12-10" is not valid; allowed: ISO-8601'),
    (["--start", "1970-01-01T00:00:00+01:00"], "is not valid; allowed: ISO-8601 with offset"),
    (["--start", "9999-12-01T00:00:00+00:00"], "with all of --days before 9999-12-30"),
    (["--num_impressions", "100000000", "--days", "1"], "raise --days"),
    (["word"], "one word too many"),
])
def test_wrong_use(tmp_path, flags, message):
    done = synth("--out_dir", tmp_path / "data", *flags, code=2)
    assert message in done.stderr and done.stdout == "" and not (tmp_path / "data").exists()


def test_help_and_version():
    page = synth("--help").stdout
    for flag in "out_dir", "num_items", "num_users", "num_impressions", "seed", "oracle", "days", "start", "json":
        assert f"--{flag}" in page
    assert "Examples:" in page and "Exit codes:" in page and "Memory:" in page
    for words, code in (["--help"], 0), (["--version"], 0), (["help", "synth"], 0), ([], 2), (["sinth"], 2):
        done = subprocess.run([RECCTL, *words], capture_output=True, text=True)
        assert done.returncode == code
    assert 'unknown command "sinth"; did you mean "synth"?' in done.stderr


def test_a_failed_run_changes_nothing(tmp_path):
    folder = tmp_path / "data"
    synth("--out_dir", folder, "--num_impressions", 1000)
    old = digest(folder)
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    # Python ignores SIGXFSZ, and restore_signals=False hands that on: the write fails with EFBIG, as on a full disk
    done = synth("--out_dir", folder, code=1, preexec_fn=small, restore_signals=False)
    assert "cannot write: File too large" in done.stderr
    assert digest(folder) == old and len(os.listdir(folder)) == len(FILES)
    done = synth("--out_dir", folder / "users.jsonl", code=1)
    assert "users.jsonl" in done.stderr and digest(folder) == old
    done = synth("--out_dir", folder, "--oracle", tmp_path / "absent" / "oracle.pt", code=1)
    assert "No such file" in done.stderr and digest(folder) == old and len(os.listdir(folder)) == len(FILES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(tmp_path, number):
    folder = tmp_path / "data"
    child = subprocess.Popen([RECCTL, "synth", "--out_dir", str(folder), "--num_impressions", "200000000"], stderr=subprocess.PIPE, text=True)
    try:
        while not (folder.exists() and sum(f.stat().st_size for f in folder.iterdir()) > 4 << 20):
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
    finally:
        child.kill()  # a run that does not stop would fill the disk
        child.wait()
    assert child.returncode == 1 and "stopped by a signal" in errors
    assert os.listdir(folder) == []
