"""What the tests of recctl on files share: the program, the facts of a folder of logs worked out anew, and one run of `recctl train` a module.

RECCTL names the binary; otherwise it is recctl in the build folder (BUILD, as for make).
"""
import json
import math
import os
import subprocess
from collections import defaultdict
from datetime import datetime

import numpy as np
import pytest
import torch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RECCTL = os.environ.get("RECCTL") or os.path.join(ROOT, os.environ.get("BUILD", "build"), "recctl")
QUICK = ["--epochs", "2", "--steps_per_epoch", "100", "--batch_size", "512", "--emb_dim", "16", "--personalize_steps", "50"]
K = 20


def recctl(*words, code=0, **options):
    done = subprocess.run([RECCTL, *map(str, words)], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def load(path):
    model = torch.load(path)
    return {key: value.numpy() if isinstance(value, torch.Tensor) else value for key, value in model.items()}


def when(text):
    return datetime.fromisoformat(text).timestamp()


class Logs:
    """The facts of a folder, before and after the time split."""

    def __init__(self, folder, holdout=0.1):
        self.watches = [json.loads(line) for line in (folder / "watch_stats.jsonl").open()]
        self.items = {row["item_id"]: row for row in map(json.loads, (folder / "items.jsonl").open())}
        times = sorted(when(w["started_at"]) for w in self.watches)
        self.cut = times[len(times) - math.ceil(holdout * len(times) - 1e-6)] if holdout else math.inf
        self.before, after = defaultdict(dict), defaultdict(dict)
        for w in self.watches:
            side = self.before if when(w["started_at"]) < self.cut else after
            side[w["user_id"]][w["item_id"]] = max(w["completion"], side[w["user_id"]].get(w["item_id"], 0))
        self.relevant = {}
        for user, watched in after.items():
            found = {item for item, completion in watched.items() if completion >= 0.6 and item not in self.before[user]}
            if found:
                self.relevant[user] = found
        self.popularity = defaultdict(int)
        for watched in self.before.values():
            for item, completion in watched.items():
                self.popularity[item] += completion >= 0.6

    def positives(self, user):
        return [item for item, completion in self.before[user].items() if completion >= 0.6]


def metrics(logs, item_ids, score):
    """Means over users of the definitions in trainer/learn/evaluate.h."""
    sums = defaultdict(float)
    row_of = {item: row for row, item in enumerate(item_ids)}
    for user, relevant in logs.relevant.items():
        scores = np.array(score(user), dtype=np.float64)
        for item in logs.before[user]:
            scores[row_of[item]] = -np.inf
        order = [row for row in np.lexsort((np.arange(len(scores)), -scores)) if scores[row] > -np.inf]
        ranks = sorted(order.index(row_of[item]) + 1 for item in relevant)
        hits = [rank for rank in ranks if rank <= K]
        sums["recall"] += len(hits) / len(relevant)
        sums["ndcg"] += sum(1 / math.log2(r + 1) for r in hits) / sum(1 / math.log2(r + 1) for r in range(1, min(K, len(relevant)) + 1))
        sums["hit_rate"] += bool(hits)
        sums["mrr"] += 1 / ranks[0]
        good = scores[[row_of[item] for item in relevant]]
        bad = np.array([scores[row] for row in order if item_ids[row] not in relevant])
        sums["auc"] += np.mean((good[:, None] > bad).astype(float) + 0.5 * (good[:, None] == bad))
    return {name: value / len(logs.relevant) for name, value in sums.items()}


def assert_metrics(told, expected, users):
    assert told["users"] == users == sum(group["users"] for group in told["groups"].values())
    for name, value in expected.items():
        assert told[name] == pytest.approx(value, abs=2e-3 if name != "auc" else 2e-4), name


class Trained:
    def __init__(self, folder):
        self.folder, self.data = folder, folder / "data"
        recctl("synth", "--out_dir", self.data, "--num_users", 80, "--num_items", 300, "--num_impressions", 60000, "--seed", 5, "--oracle", folder / "oracle.pt")
        done = recctl("train", "--data_dir", self.data, "--k_eval", K, "--threads", 2, "--json", *QUICK)
        self.stderr, self.told = done.stderr, json.loads(done.stdout)
        self.logs = Logs(self.data)
        self.models = {kind: load(self.told["models"][kind]) for kind in ("global", "personalized")}

    def scores(self, kind):
        model = self.models[kind]
        row_of = {user: row for row, user in enumerate(model["user_ids"])}
        return lambda user: model["V"] @ model["U"][row_of[user]] + model["bi"] + model["bu"][row_of[user]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("offline"))
