"""recctl train, evaluate, explain and top on files, and its client against a stub. What recctl says is recomputed here from the logs and the saved tensors alone."""
import json
import math
import os
import pty
import re
import shutil
import socket
import subprocess
import threading
from collections import defaultdict

import numpy as np
import pytest
import torch

from offline import K, QUICK, RECCTL, Logs, assert_metrics, load, metrics, recctl, when, trained  # noqa: F401


def test_what_train_tells(trained):
    told = trained.told
    assert "\033" not in trained.stderr and "epoch 2/2" in trained.stderr
    assert (told["users"], told["items"], told["triples"], told["threads"]) == (80, 300, 2 * 100 * 512, 2)
    assert told["positives"] == sum(len(trained.logs.positives(user)) for user in trained.logs.before)
    assert told["train_seconds"] > 0 and told["triples_per_sec"] == pytest.approx(told["triples"] / told["train_seconds"], rel=1e-6)
    assert [e["epoch"] for e in told["epochs"]] == [1, 2]
    assert told["epochs"][0]["rate_begin"] == pytest.approx(0.02) and told["epochs"][1]["rate_end"] == 0
    assert told["epochs"][1]["loss"] < told["epochs"][0]["loss"] < math.log(2)
    assert told["split"]["watches"] == len(trained.logs.watches)
    assert told["split"]["cut_us"] == round(trained.logs.cut * 1e6)
    assert told["split"]["relevant"] == sum(map(len, trained.logs.relevant.values()))
    assert told["split"]["users"] == len(trained.logs.relevant)
    assert told["item_tables_unchanged"] is True and re.fullmatch("[0-9a-f]{16}", told["item_tables_hash"])
    calibration = told["calibration"]["global"]
    assert calibration["decided"] > 1000
    assert calibration["mean_conf"] == pytest.approx(calibration["watch_rate"], abs=0.01)


def test_the_models_are_pytorch_files(trained):
    logs, models = trained.logs, trained.models
    for kind, model in models.items():
        assert model["kind"] == kind and model["emb_dim"] == 16
        assert (model["U"].shape, model["V"].shape, model["bu"].shape, model["bi"].shape) == ((80, 16), (300, 16), (80,), (300,))
        assert {str(model[name].dtype) for name in ("U", "V", "bu", "bi")} == {"float32"}
        assert sorted(model["user_ids"]) == list(range(80)) and sorted(model["item_ids"]) == list(range(300))
        assert all(np.isfinite(model[name]).all() for name in ("U", "V", "bu", "bi"))
    weights_only = torch.load(trained.told["models"]["global"], weights_only=True)
    assert torch.equal(weights_only["U"], torch.from_numpy(models["global"]["U"]))
    for name in ("V", "bi", "item_ids", "user_ids"):
        assert models["global"][name].tobytes() == models["personalized"][name].tobytes()
    own = [row for row, user in enumerate(models["global"]["user_ids"]) if len(logs.positives(user)) >= 3]
    assert len(own) == trained.told["personal_rows"] and 60 < len(own)
    moved = (models["global"]["U"] != models["personalized"]["U"]).any(axis=1)
    assert set(np.flatnonzero(moved)) == set(own)


def test_metrics_are_what_they_say(trained):
    logs, told = trained.logs, trained.told["metrics"]
    ids = list(trained.models["global"]["item_ids"])
    users = len(logs.relevant)
    assert told["k"] == K and users > 30
    assert_metrics(told["popularity"], metrics(logs, ids, lambda user: [logs.popularity[item] for item in ids]), users)
    assert_metrics(told["global"], metrics(logs, ids, trained.scores("global")), users)
    assert_metrics(told["personalized"], metrics(logs, ids, trained.scores("personalized")), users)
    groups = defaultdict(int)
    for user in logs.relevant:
        n = len(logs.positives(user))
        groups["heavy" if n >= 10 else "rare" if n else "new"] += 1
    assert {name: group["users"] for name, group in told["global"]["groups"].items()} == {"new": groups["new"], "rare": groups["rare"], "heavy": groups["heavy"]}


def test_evaluate_agrees_with_train_and_knows_the_oracle(trained):
    oracle = load(trained.folder / "oracle.pt")
    row_of = {user: row for row, user in enumerate(oracle["user_ids"])}
    for kind in "global", "personalized":
        done = recctl("evaluate", "--data-dir", trained.data, "--model-path", trained.told["models"][kind], "--k", K, "--oracle", trained.folder / "oracle.pt", "--json")
        told = json.loads(done.stdout)
        assert told["kind"] == kind and told["split"] == trained.told["split"]
        for name, of in ("popularity", "popularity"), ("model", kind):
            for figure in ("recall", "ndcg", "hit_rate", "mrr", "auc"):
                assert told["metrics"][name][figure] == pytest.approx(trained.told["metrics"][of][figure], abs=1e-9), (name, figure)
        expected = metrics(trained.logs, list(oracle["item_ids"]), lambda user: oracle["chance"][row_of[user]])
        assert_metrics(told["metrics"]["oracle"], expected, len(trained.logs.relevant))
        ndcg = {name: figures["ndcg"] for name, figures in told["metrics"].items() if name != "k"}
        assert ndcg["popularity"] < ndcg["model"] < ndcg["oracle"]
        assert told["share_covered"] == pytest.approx((ndcg["model"] - ndcg["popularity"]) / (ndcg["oracle"] - ndcg["popularity"]), rel=1e-6)
    text = recctl("evaluate", "--data_dir", trained.data, "--k", K, "--oracle", trained.folder / "oracle.pt").stdout
    assert f"NDCG@{K}" in text and re.search(r"model covers: \d+\.\d %", text) and "\033" not in text


def test_both_judge_strangers_alike(trained, tmp_path):
    """A user whom nobody had met before the split has no row: both commands take the mean of the model's rows."""
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    with (data / "watch_stats.jsonl").open("a") as out:
        for user, item in (900, 3), (900, 40), (901, 7):
            out.write(json.dumps({"user_id": user, "item_id": item, "started_at": "2999-01-01T00:00:00+00:00", "completion": 0.9}) + "\n")
    trains = json.loads(recctl("train", "--data_dir", data, "--k_eval", K, "--json", *QUICK).stdout)
    assert trains["split"]["users"] == len(Logs(data).relevant) and trains["metrics"]["global"]["groups"]["new"]["users"] >= 2
    for kind in "global", "personalized":
        told = json.loads(recctl("evaluate", "--data_dir", data, "--model_path", trains["models"][kind], "--k", K, "--json").stdout)
        for figure in ("recall", "ndcg", "hit_rate", "mrr", "auc"):
            assert told["metrics"]["model"][figure] == pytest.approx(trains["metrics"][kind][figure], abs=1e-9), (kind, figure)
        assert told["metrics"]["model"]["groups"]["new"] == pytest.approx(trains["metrics"][kind]["groups"]["new"], abs=1e-9)
    rows = {kind: load(trains["models"][kind]) for kind in ("global", "personalized")}
    known = [row for row, user in enumerate(rows["global"]["user_ids"]) if any(c >= 0.6 for c in Logs(data).before[user].values())]
    means = {kind: model["U"][known].astype(np.float64).mean(axis=0) for kind, model in rows.items()}
    for kind, model in rows.items():
        expected = metrics_of_strangers(Logs(data), model, means[kind])
        assert trains["metrics"][kind]["groups"]["new"]["auc"] == pytest.approx(expected, abs=1e-4)
    assert not np.allclose(means["global"], means["personalized"], atol=1e-4)


def metrics_of_strangers(logs, model, row):
    """Mean AUC of users without a positive before the split, all of whom `row` stands for."""
    scores, values = model["V"] @ row + model["bi"], []
    for user, relevant in logs.relevant.items():
        if not logs.positives(user):
            assert not logs.before[user]
            good = np.isin(model["item_ids"], list(relevant))
            values.append(np.mean((scores[good][:, None] > scores[~good]) + 0.5 * (scores[good][:, None] == scores[~good])))
    return np.mean(values)


def test_when_an_impression_is_a_skip(trained, tmp_path):
    """The same --negative_after_sec, the same decided impressions in both commands; another one, others."""
    told = json.loads(recctl("train", "--data_dir", trained.data, "--out_dir", tmp_path, "--negative_after_sec", 10 ** 5, "--json", *QUICK).stdout)
    held_out = told["calibration"]["global"]["held_out"]
    judged = ["evaluate", "--data_dir", trained.data, "--model_path", told["models"]["global"], "--json"]
    assert json.loads(recctl(*judged, "--negative_after_sec", 10 ** 5).stdout)["calibration"]["decided"] == held_out["decided"]
    assert json.loads(recctl(*judged).stdout)["calibration"]["decided"] > held_out["decided"] > 0


def explained(trained, *words):
    done = recctl("explain", "--data_dir", trained.data, "--json", *words)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_explain_is_recomputed(trained):
    logs = Logs(trained.data, holdout=0)  # explain and top know everything in the logs
    model = trained.models["personalized"]
    ids, row_of = list(model["item_ids"]), {item: row for row, item in enumerate(model["item_ids"])}
    answers = explained(trained, "--user_id", 3, "--user_id", 11, "--top_k", 6)
    assert [a["user_id"] for a in answers] == [3, 11]
    for answer in answers:
        user, score = answer["user_id"], trained.scores("personalized")(answer["user_id"])
        left = [item for item in ids if item not in logs.before[user]]
        best = sorted(left, key=lambda item: -score[row_of[item]])[:6]
        assert [i["item_id"] for i in answer["items"]] == best
        assert [i["rank"] for i in answer["items"]] == [1, 2, 3, 4, 5, 6]
        liked = logs.positives(user)
        assert (answer["watched_count"], answer["positive_count"], answer["served"]) == (len(logs.before[user]), len(liked), "personalized")
        unit = model["V"] / np.linalg.norm(model["V"], axis=1, keepdims=True)
        for item in answer["items"]:
            row = row_of[item["item_id"]]
            assert item["score"] == pytest.approx(score[row], abs=1e-4)
            assert item["conf"] == pytest.approx(1 / (1 + math.exp(-item["score"])), abs=1e-6)
            assert (item["title"], item["genres"]) == (logs.items[item["item_id"]]["title"], logs.items[item["item_id"]]["genres"])
            cosines = sorted(((float(unit[row] @ unit[row_of[other]]), other) for other in liked), reverse=True)[:3]
            assert [n["similarity"] for n in item["nearest"]] == pytest.approx([c for c, _ in cosines], abs=1e-4)
            assert {n["item_id"] for n in item["nearest"]} <= set(liked)
        for column, titles in ("watched", liked), ("recommended", best):
            expected = defaultdict(float)
            for item in titles:
                for genre in logs.items[item]["genres"]:
                    expected[genre] += 1 / len(logs.items[item]["genres"]) / len(titles)
            told = {g["genre"]: g[column] for g in answer["genres"] if g[column]}
            assert told == pytest.approx(dict(expected), abs=1e-5)


def test_top_equals_explain_and_strangers_get_what_is_popular(trained):
    logs = Logs(trained.data, holdout=0)
    lines = recctl("top", "--data_dir", trained.data, "--user_id", 3, "--user_id", 4711, "--k", 6, "--json").stdout.splitlines()
    mine, strangers = map(json.loads, lines)
    assert [i["item_id"] for i in mine["items"]] == [i["item_id"] for i in explained(trained, "--user_id", 3, "--top_k", 6)[0]["items"]]
    assert strangers["served"] == "popularity"
    assert [i["score"] for i in strangers["items"]] == sorted(logs.popularity.values(), reverse=True)[:6]
    for item in strangers["items"]:
        assert logs.popularity[item["item_id"]] == item["score"] and item["conf"] == pytest.approx(item["score"] / 80)
    of_global = json.loads(recctl("top", "--model_path", trained.told["models"]["global"], "--data_dir", trained.data, "--user_id", 3, "--json").stdout)
    assert of_global["served"] == "global"
    stranger = explained(trained, "--user_id", 4711)[0]
    assert (stranger["served"], stranger["watched_count"]) == ("popularity", 0) and not any(g["watched"] for g in stranger["genres"])


def test_tables_for_people(trained):
    text = recctl("explain", "--data_dir", trained.data, "--users_max", 2).stdout
    assert "\033" not in text and not re.search(r"[ \t]$", text, re.M)
    assert re.findall(r"^user (\d+)  watched_count \d+", text, re.M) == ["0", "1"]
    for head in re.finditer(r"^  rank +item  title.*score +conf  nearest watched$", text, re.M):
        conf = head.group().index("conf") + 4
        rows = text[head.end() + 1:].splitlines()[:5]
        assert all(re.search(r"0\.\d{3}$", row[:conf]) and row[conf:conf + 2] == "  " for row in rows)  # numbers end under their title
    assert "first 2 of 80 users" in recctl("top", "--data_dir", trained.data, "--users_max", 2).stderr
    assert len(recctl("top", "--data_dir", trained.data, "--users_max", 0, "--k", 1, "--json").stdout.splitlines()) == 80


def test_colours_on_a_terminal_only(trained):
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminal here: {error}")
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    done = subprocess.run([RECCTL, "top", "--data_dir", str(trained.data), "--user_id", "3", "--k", "1"], stdout=theirs, env=environment, timeout=60, check=True)
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 4096):
            text += chunk
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    assert done.returncode == 0 and b"\033[1m" in text


def test_titles_cannot_write_to_the_terminal(trained, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in "watch_stats.jsonl", "model_bpr_personalized.pt":
        (data / name).write_bytes((trained.data / name).read_bytes())
    with (data / "items.jsonl").open("w") as out:
        for item in range(300):
            out.write(json.dumps({"item_id": item, "title": "\033[2Jred\u009b31m\r\u00e9", "genres": ["\033[1m"]}) + "\n")
    text = recctl("explain", "--data_dir", data, "--user_id", 3).stdout
    assert "?[2Jred??31m?\u00e9" in text and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_without_holdout_everything_is_trained_on(trained, tmp_path):
    done = recctl("train", "--data_dir", trained.data, "--out_dir", tmp_path, "--holdout", 0, "--personalize_steps", 0, "--json", *QUICK[:-2])
    told, logs = json.loads(done.stdout), Logs(trained.data, holdout=0)
    assert told["metrics"] is None and list(told["models"]) == ["global"]
    assert sorted(os.listdir(tmp_path)) == ["model_bpr.pt"]
    assert told["positives"] == sum(len(logs.positives(user)) for user in logs.before) > trained.told["positives"]


@pytest.mark.parametrize("words, share", [(["--test_share", 0], 0), (["--test_share", 0.3], 0.3), (["--holdout", 0.3, "--test_share", 0.2], 0.2),
                                          (["--test_share", 0.2, "--holdout", 0.3], 0.3), (["--holdout", 0.3, "--test-share=0"], 0)])
def test_two_names_of_one_share(trained, tmp_path, words, share):
    told = json.loads(recctl("train", "--data_dir", trained.data, "--out_dir", tmp_path, "--personalize_steps", 0, "--json", *QUICK[:-2], *words).stdout)
    assert told["split"]["holdout"] == share if share else told["metrics"] is None


def figures(lists, relevant, ks):
    """Recall, NDCG, HR at each K, and MRR, from whole ranked lists; straight from docs/EVALUATION.md."""
    sums = defaultdict(float)
    for user, wanted in relevant.items():
        hits = [item in wanted for item in lists[user]]
        sums["mrr"] += 1 / (hits.index(True) + 1)
        for k in ks:
            sums["recall", k] += sum(hits[:k]) / len(wanted)
            sums["ndcg", k] += sum(1 / math.log2(r + 2) for r, hit in enumerate(hits[:k]) if hit) / sum(1 / math.log2(r + 2) for r in range(min(k, len(wanted))))
            sums["hit_rate", k] += any(hits[:k])
    return {key: value / len(relevant) for key, value in sums.items()}


def assert_figures(told, expected, ks):
    assert told["mrr"] == pytest.approx(expected["mrr"], abs=2e-4)
    for k in ks:
        for name in "recall", "ndcg", "hit_rate":
            assert told["at"][str(k)][name] == pytest.approx(expected[name, k], abs=2e-4), (name, k)
            low, high = told["at"][str(k)]["interval"][name]
            assert 0 <= low <= told["at"][str(k)][name] <= high <= 1 and (low < high or low in (0, 1))
    assert all(told[name] == told["at"][str(ks[0])][name] for name in ("recall", "ndcg", "hit_rate", "coverage", "popularity"))


@pytest.mark.parametrize("last", [1, 3])
def test_the_last_watches_of_each_user(trained, tmp_path, last):
    ks = [10, 3]
    words = ["--data_dir", trained.data, "--split", "user", "--test_last", last, "--json"]
    told = json.loads(recctl("train", "--out_dir", tmp_path, "--k_eval", "10,3", *words, *QUICK).stdout)
    of_user, before, relevant = defaultdict(list), defaultdict(set), {}
    for watch in trained.logs.watches:
        of_user[watch["user_id"]].append((when(watch["started_at"]), watch["item_id"], watch["completion"]))
    held_out, positives = 0, 0
    for user, watched in of_user.items():
        times = sorted(time for time, _, _ in watched)
        cut = times[-last] if len(times) >= last and times[-last] > times[0] else math.inf
        before[user] = {item for time, item, _ in watched if time < cut}
        positives += len({item for time, item, completion in watched if time < cut and completion >= 0.6})
        held_out += sum(time >= cut for time in times)
        wanted = {item for time, item, completion in watched if time >= cut and completion >= 0.6} - before[user]
        if wanted:
            relevant[user] = wanted
    split = told["split"]
    assert (split["kind"], split["last"], split["held_out"], told["positives"]) == ("user", last, held_out, positives)
    assert (split["users"], split["relevant"]) == (len(relevant), sum(map(len, relevant.values()))) and split["users"] >= 8
    model = load(tmp_path / "model_bpr.pt")
    ids, row_of, lists = list(model["item_ids"]), {user: row for row, user in enumerate(model["user_ids"])}, {}
    for user in relevant:
        scores = model["V"] @ model["U"][row_of[user]] + model["bi"]
        lists[user] = [ids[i] for i in np.lexsort((np.arange(len(ids)), -scores)) if ids[i] not in before[user]]
    assert_figures(told["metrics"]["global"], figures(lists, relevant, ks), ks)
    for k in ks:
        covered = {item for found in lists.values() for item in found[:k]}
        assert told["metrics"]["global"]["at"][str(k)]["coverage"] == pytest.approx(len(covered) / len(ids))
    again = json.loads(recctl("evaluate", "--model_path", tmp_path / "model_bpr.pt", "--k", "10,3", *words).stdout)
    assert again["split"] == split and again["metrics"]["model"]["ndcg"] == pytest.approx(told["metrics"]["global"]["ndcg"], abs=1e-9)
    assert again["metrics"]["item_knn"] == told["metrics"]["item_knn"]  # the rows' order does not show
    assert again["calibration"]["decided"] > 0 and again["calibration"]["slope"] is not None


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two files of pairs: users with a taste for one third of the titles; title 999 is in the test file alone."""
    folder, random = tmp_path_factory.mktemp("pairs"), np.random.default_rng(3)
    train, test = defaultdict(set), defaultdict(set)
    for user in range(100, 180):
        for _ in range(14):
            item = int(random.integers(0, 30)) * 3 + (user % 3 if random.random() < 0.9 else int(random.integers(0, 3)))
            (test if random.random() < 0.25 else train)[user].add(item)
        test[user] -= train[user]
    test[100].add(999)
    for name, of in ("train", train), ("test", test):
        (folder / f"{name}.tsv").write_text("".join(f"{user}\t{item}\t{random.random() * 1e6:.5g}\n" for user in of for item in sorted(of[user])))
        (folder / f"{name}.txt").write_text("".join(f"{user} {' '.join(map(str, sorted(of[user])))}\n" for user in of))
    return folder, train, {user: items for user, items in test.items() if items}


def knn_lists(train, wanted, neighbours=100, shrink=10):
    users, items = sorted(train), sorted(set().union(*train.values()))
    matrix = np.array([[item in train[user] for item in items] for user in users], dtype=float)
    count = matrix.sum(axis=0)
    similarity = (matrix.T @ matrix) / (np.sqrt(np.outer(count, count)) + shrink)
    np.fill_diagonal(similarity, 0)
    assert neighbours >= len(items)
    return items, count, {user: similarity[[items.index(item) for item in train[user]]].sum(axis=0) for user in wanted}


def test_two_files_of_pairs(pairs, tmp_path):
    folder, train, test = pairs
    ks = [5, 20]
    words = ["--train_tsv", folder / "train.tsv", "--test_tsv", folder / "test.tsv", "--json"]
    done = recctl("train", *words, "--out_dir", tmp_path / "m", "--k_eval", "5,20", *QUICK)
    told = json.loads(done.stdout)
    assert told["positives"] == sum(map(len, train.values())) and told["split"]["kind"] == "files"
    assert (told["split"]["users"], told["split"]["relevant"], told["split"]["unknown_items"]) == (len(test), sum(map(len, test.values())), 1)
    items, count, scores = knn_lists(train, test)
    rows = {"popularity": {user: count for user in test}, "item_knn": {user: np.where(scores[user] > 0, scores[user], count * 1e-9) for user in test}}
    model = load(tmp_path / "m" / "model_bpr.pt")
    row_of, column_of = ({id_: row for row, id_ in enumerate(model[name])} for name in ("user_ids", "item_ids"))
    order = [column_of[item] for item in items]
    rows["global"] = {user: (model["V"] @ model["U"][row_of[user]] + model["bi"])[order] for user in test}
    for name, of in rows.items():
        lists = {user: [items[i] for i in np.lexsort((order, -of[user].astype(np.float32))) if items[i] not in train[user]] + [999] for user in test}
        if name != "item_knn":  # sums in another order: a near tie may fall otherwise
            assert_figures(told["metrics"][name], figures(lists, test, ks), ks)
        assert told["metrics"][name]["ndcg"] == pytest.approx(figures(lists, test, ks)["ndcg", 5], abs=3e-3)
    assert told["metrics"]["popularity"]["ndcg"] < told["metrics"]["global"]["ndcg"]
    again = json.loads(recctl("evaluate", *words, "--model_path", tmp_path / "m" / "model_bpr.pt", "--k", "5,20").stdout)
    assert again["metrics"]["model"]["ndcg"] == pytest.approx(told["metrics"]["global"]["ndcg"], abs=1e-9)
    text = recctl("train", "--train_tsv", folder / "train.txt", "--test_tsv", folder / "test.txt", *QUICK).stdout
    assert f"training on {told['positives']} positives" in text and "nothing was saved" in text and "item-kNN" in text


@pytest.mark.parametrize("words, says", [
    (["--k_eval", "0"], "--k_eval 0: wanted"), (["--k_eval", "5,"], "wanted"), (["--k_eval", "1,2,3,4,5,6,7,8,9"], "one to 8 numbers"),
    (["--test_last", "2"], "--split user"), (["--split", "user", "--holdout", "0"], "--test_last"), (["--train_tsv", "x"], "go together"),
    (["--train_tsv", "x", "--test_tsv", "y", "--split", "user"], "split already"), (["--split", "item"], "global"),
])
def test_wrong_ways_to_judge(words, says):
    assert says in recctl("train", *words, code=2).stderr


@pytest.mark.parametrize("words", [["--oracle", "x"], ["--holdout", 0.1], ["--test-share", 0.1], ["--min_pos_completion", 0.5], ["--negative_after_sec", 5]])
def test_pairs_have_none_of_this(words):
    done = recctl("evaluate", "--model_path", "m.pt", "--train_tsv", "x", "--test_tsv", "y", *words, code=2)
    assert words[0].replace("-", "_")[2:] in done.stderr.replace("-", "_") and "_tsv" in done.stderr


def test_bad_lines_are_counted_and_not_fatal(trained, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    good = (trained.data / "watch_stats.jsonl").read_text()
    bad = ['{"user_id":1', '{"user_id":1,"item_id":2,"started_at":"2026-01-01T00:00:00+00:00","completion":1.5}', "x" * (3 << 20),
           '{"user_id":-1,"item_id":2,"started_at":"2026-01-01T00:00:00+00:00","completion":0.5}', "y" * (9 << 20)]
    (data / "watch_stats.jsonl").write_text(bad[0] + "\n\n" + "\r\n" + bad[1] + "\n" + good + bad[2] + "\n" + bad[4] + "\n" + bad[3])
    done = recctl("train", "--data_dir", data, "--json", *QUICK)
    told = json.loads(done.stdout)
    assert told["refused"] == {"watch_stats": {"json": 1, "bad_completion": 1, "too_long": 2, "bad_id": 1}}
    assert told["positives"] == trained.told["positives"]
    n = len(good.splitlines())
    assert f"watch_stats.jsonl: 5 of {n + 5} lines refused: json 1 too_long 2 bad_id 1 bad_completion 1" in done.stderr
    assert "no " in done.stderr and "items.jsonl; going on without it" in done.stderr


def test_a_watch_without_completion_counts_by_duration(tmp_path):
    """Watch time over the title's duration, also where the split is made; nothing without a duration."""
    data = tmp_path / "data"
    data.mkdir()
    with (data / "items.jsonl").open("w") as out:
        for item in range(20):
            out.write(json.dumps({"item_id": item, "duration_sec": 1000} if item < 19 else {"item_id": item}) + "\n")
    with (data / "watch_stats.jsonl").open("w") as out:
        for i in range(100):
            watch = {"user_id": i % 7, "item_id": (i * 3) % 19, "started_at": f"2026-01-01T{i // 60:02}:{i % 60:02}:00+00:00", "watch_time_sec": 700 if i % 2 else 500}
            out.write(json.dumps(watch) + "\n")
        out.write(json.dumps({"user_id": 0, "item_id": 19, "started_at": "2026-01-01T00:00:00+00:00", "watch_time_sec": 99999}) + "\n")
    told = json.loads(recctl("train", "--data_dir", data, "--json", "--holdout", 0.2, *QUICK).stdout)
    assert told["split"]["held_out"] == 21 and told["split"]["watches"] == 101  # the two of the first minute, then i = 1 ... : 79 is the first one held out
    pair = [(i % 7, (i * 3) % 19) for i in range(100)]
    assert told["positives"] == len({pair[i] for i in range(1, 79, 2)})
    assert told["split"]["relevant"] == len({pair[i] for i in range(79, 100, 2)} - set(pair[:79])) > 0


def test_equal_times_stay_together(trained, tmp_path):
    def write(minutes):
        with (tmp_path / "watch_stats.jsonl").open("w") as out:
            for i, minute in enumerate(minutes):
                out.write(json.dumps({"user_id": i % 3, "item_id": i, "started_at": f"2026-01-01T00:{minute:02}:00+00:00", "completion": 0.9}) + "\n")

    write([5, 0, 5, 1, 5, 2, 5, 3, 5, 4])
    told = json.loads(recctl("train", "--data_dir", tmp_path, "--json", "--holdout", 0.1, *QUICK).stdout)
    assert told["split"]["held_out"] == 5 and told["positives"] == 5
    assert (told["split"]["relevant"], told["split"]["unknown_items"]) == (0, 5)  # nobody had met those titles before
    done = recctl("train", "--data_dir", tmp_path, "--k_eval", "5,7", *QUICK)
    assert "nan" not in done.stdout and re.search(r"^ +popularity +all +0( +-){5} +[\d.]+ +-$", done.stdout, re.M)
    done = recctl("evaluate", "--data_dir", tmp_path, "--oracle", trained.folder / "oracle.pt")
    assert "nan" not in done.stdout and "the model covers: - (NDCG@50)" in done.stdout
    write([7] * 10)
    assert "--holdout 0" in recctl("train", "--data_dir", tmp_path, *QUICK, code=1).stderr
    write([])
    assert "no watches" in recctl("train", "--data_dir", tmp_path, *QUICK, code=1).stderr


def test_mistakes(trained, tmp_path):
    missing = recctl("train", "--data_dir", tmp_path / "none", code=1)
    assert "none/watch_stats.jsonl is missing" in missing.stderr and "recctl synth" in missing.stderr and missing.stdout == ""
    assert not (tmp_path / "none").exists()
    assert "did you mean --epochs" in recctl("train", "--epoch", 3, code=2).stderr
    assert "--emb_dim" in recctl("train", "--emb-dim", 0, code=2).stderr
    assert "0.9" in recctl("train", "--holdout", 1, code=2).stderr
    assert "recctl train" in recctl("evaluate", "--data_dir", trained.data, "--model_path", tmp_path / "no.pt", code=1).stderr
    recctl("explain", "--data_dir", trained.data, "--user_id", "x", code=2)
    assert "one or the other" in recctl("top", "--data_dir", trained.data, "--socket", "x", "--user_id", 1, code=2).stderr
    assert "no positives" in recctl("train", "--data_dir", trained.data, "--out_dir", tmp_path / "o", "--min_pos_completion", 1, code=1).stderr
    damaged = tmp_path / "damaged.pt"
    whole = bytearray(open(trained.told["models"]["global"], "rb").read())
    whole[len(whole) // 2] ^= 1
    damaged.write_bytes(whole)
    assert "damaged.pt" in recctl("evaluate", "--data_dir", trained.data, "--model_path", damaged, code=1).stderr


@pytest.mark.parametrize("name", ["model_bpr.pt", "model_bpr_personalized.pt"])
def test_links_are_left_alone(trained, tmp_path, name):
    (tmp_path / "real.pt").write_text("recd's")
    (tmp_path / name).symlink_to("real.pt")
    done = recctl("train", "--data_dir", trained.data, "--out_dir", tmp_path, *QUICK, code=1)
    assert "link" in done.stderr and "epoch" not in done.stdout and (tmp_path / "real.pt").read_text() == "recd's"
    assert sorted(os.listdir(tmp_path)) == [name, "real.pt"]


def test_a_folder_that_is_none(trained, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = recctl("train", "--data_dir", trained.data, "--out_dir", blocked, *QUICK, code=1)
    assert str(blocked) in done.stderr and "epoch" not in done.stdout


class Stub:
    """Answers every request on a unix socket with one fixed answer, and keeps what was asked."""

    def __init__(self, path, status, body):
        self.asked, self.answer = [], f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen(8)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            with peer:
                self.asked.append(peer.recv(65536).split(b"\r\n")[0].decode())
                peer.sendall(self.answer)


TOP = {"user_id": 9, "served": "global", "generation": 3,
       "items": [{"rank": 1, "item_id": 77, "title": "T", "release_year": None, "genres": [], "score": 1.5, "conf": 0.817574476}]}


def test_asking_recd(tmp_path):
    stub = Stub(tmp_path / "top", 200, json.dumps(TOP))
    text = recctl("top", "--socket", tmp_path / "top", "--user_id", 9, "--user-id", 10, "--k", 7).stdout
    assert re.search(r"^ +1 +77 +1\.500 +0\.818 +T$", text, re.M)
    told = recctl("top", "--socket", tmp_path / "top", "--user_id", 9, "--json").stdout
    assert json.loads(told) == TOP
    assert stub.asked == ["GET /v1/users/9/top?k=7 HTTP/1.1", "GET /v1/users/10/top?k=7 HTTP/1.1", "GET /v1/users/9/top?k=10 HTTP/1.1"]

    stub = Stub(tmp_path / "explain", 200, json.dumps({**TOP, "watched_count": 4, "positive_count": 2, "genres": [{"genre": "war", "watched": 1.0, "recommended": 0.0}]}))
    text = recctl("explain", "--socket", tmp_path / "explain", "--user_id", 9).stdout
    assert "watched_count 4" in text and re.search(r"^  war +100\.0 % +#{20} +0\.0 %$", text, re.M)
    assert stub.asked == ["GET /v1/users/9/explain?k=5 HTTP/1.1"]

    stub = Stub(tmp_path / "snapshot", 200, json.dumps({"checkpoint": 42, "bytes": 1234567, "duration_ms": 89}))
    assert recctl("snapshot", "--socket", tmp_path / "snapshot", "--timeout_sec", 5).stdout == "checkpoint 42 is durable: 1,234,567 bytes in 89 ms\n"
    assert stub.asked == ["POST /v1/snapshot?timeout_sec=5 HTTP/1.1"]


def test_recd_that_refuses_and_what_is_no_recd(tmp_path):
    Stub(tmp_path / "busy", 503, json.dumps({"error": "not ready: loading"}))
    done = recctl("status", "--socket", tmp_path / "busy", code=1)
    assert "not ready: loading" in done.stderr and done.stdout == ""
    Stub(tmp_path / "web", 200, "<html>")
    assert "does not answer like recd" in recctl("snapshot", "--socket", tmp_path / "web", code=1).stderr
    for command in ["status"], ["snapshot"], ["top", "--user_id", 1], ["explain", "--user_id", 1]:
        done = recctl(*command, "--socket", tmp_path / "nobody", code=1)
        assert "nothing listens on" in done.stderr and str(tmp_path / "nobody") in done.stderr
    assert "--user_id" in recctl("top", code=2).stderr


@pytest.mark.core
def test_the_whole_way(tmp_path):
    """Short, for the sanitizers: every command that works on files."""
    data = tmp_path / "data"
    recctl("synth", "--out_dir", data, "--num_users", 12, "--num_items", 60, "--num_impressions", 6000, "--oracle", tmp_path / "oracle.pt")
    quick = ["--epochs", 1, "--steps_per_epoch", 10, "--batch_size", 64, "--emb_dim", 9, "--personalize_steps", 5]
    recctl("train", "--data_dir", data, *quick)
    recctl("train", "--data_dir", data, "--deterministic", "--skip_share", 0.3, "--threads", 3, *quick)
    recctl("train", "--data_dir", data, "--out_dir", tmp_path / "u", "--split", "user", "--test_last", 2, "--early_stop", 1, "--plot", tmp_path / "c.svg", *quick)
    assert "item-kNN" in recctl("evaluate", "--data_dir", data, "--model_path", tmp_path / "u/model_bpr.pt", "--split", "user", "--test_last", 2, "--k", "5,9").stdout
    (tmp_path / "pairs").write_text("".join(f"{i % 7} {i % 11}\n" for i in range(40)))
    (tmp_path / "wanted").write_text("".join(f"{i % 7} {i % 13}\n" for i in range(40, 70)))
    recctl("train", "--train_tsv", tmp_path / "pairs", "--test_tsv", tmp_path / "wanted", *quick)
    told = json.loads(recctl("evaluate", "--data_dir", data, "--oracle", tmp_path / "oracle.pt", "--json").stdout)
    assert told["kind"] == "personalized" and told["metrics"]["model"]["users"] > 0
    assert "watched_count" in recctl("explain", "--data_dir", data).stdout
    assert len(recctl("top", "--data_dir", data, "--users_max", 0, "--json").stdout.splitlines()) == 12
