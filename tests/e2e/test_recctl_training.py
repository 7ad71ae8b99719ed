"""How `recctl train` trains: settings, samples, weights, early stopping, the deterministic mode."""
import json
import math
import os
import resource
import signal
import xml.etree.ElementTree as ElementTree
from collections import defaultdict

import pytest

from offline import K, QUICK, load, recctl, when, trained  # noqa: F401


def test_early_stop_and_the_curve(trained, tmp_path):
    curve = tmp_path / "curve <&>.svg"
    told = json.loads(recctl("train", "--data_dir", trained.data, "--out_dir", tmp_path, "--json", "--k_eval", K, *QUICK[4:], "--epochs", 30, "--steps_per_epoch", 60,
                             "--early_stop", 2, "--valid_share", 0.2, "--plot", curve, "--lr", 0.3, "--reg", 0).stdout)
    stop, ndcg = told["early_stop"], [e["ndcg"] for e in told["epochs"]]
    assert stop["stopped"] is True and len(ndcg) == stop["best_epoch"] + 2 < 30
    assert ndcg[stop["best_epoch"] - 1] == max(ndcg) and max(ndcg[-2:]) <= max(ndcg)
    all_positives = sum(len(trained.logs.positives(user)) for user in trained.logs.before)
    assert stop["validation_pairs"] == math.ceil(0.2 * all_positives) and told["positives"] == all_positives - stop["validation_pairs"]
    svg = ElementTree.parse(curve).getroot()
    space = "{http://www.w3.org/2000/svg}"
    points = svg.findall(f"{space}circle")
    assert svg.tag == f"{space}svg" and len(points) == 2 * len(ndcg)
    shown = [float(p.find(f"{space}title").text.split(": ")[1]) for p in points]
    assert shown == pytest.approx([e["loss"] for e in told["epochs"]] + ndcg, rel=1e-5)
    # the model that was kept is the best epoch's, however long training went on after it
    plan = ["--data_dir", trained.data, *QUICK[4:], "--epochs", 30, "--steps_per_epoch", 60, "--valid_share", 0.2, "--lr", 0.3, "--reg", 0, "--deterministic", "--threads", 1]
    told = json.loads(recctl("train", *plan, "--out_dir", tmp_path / "a", "--early_stop", 30, "--json").stdout)
    ndcg, best = [e["ndcg"] for e in told["epochs"]], told["early_stop"]["best_epoch"]
    assert len(ndcg) == 30 and told["early_stop"]["stopped"] is False and ndcg[best - 1] == max(ndcg)
    waits = [1 + i - max(range(i), key=ndcg.__getitem__) for i in range(1, best)]  # patience that reaches the best epoch
    patience = max(waits, default=1)
    told = json.loads(recctl("train", *plan, "--out_dir", tmp_path / "b", "--early_stop", patience, "--json").stdout)
    assert told["early_stop"]["best_epoch"] == best and len(told["epochs"]) == min(best + patience, 30)
    assert (tmp_path / "a" / "model_bpr.pt").read_bytes() == (tmp_path / "b" / "model_bpr.pt").read_bytes()
    told = json.loads(recctl("train", "--data_dir", trained.data, "--out_dir", tmp_path, "--json", *QUICK, "--plot", curve).stdout)
    assert told["early_stop"] is None and all(0 < e["ndcg"] <= 1 for e in told["epochs"])
    assert told["positives"] == all_positives


def test_personal_rows_are_not_fitted_to_the_slice(tmp_path):
    """Three users with three positives each, which is just enough; the slice takes the last one."""
    with (tmp_path / "watch_stats.jsonl").open("w") as out:
        for i in range(9):
            out.write(json.dumps({"user_id": i // 3, "item_id": i // 3 + i % 3, "started_at": f"2026-01-01T00:{i:02}:00+00:00", "completion": 0.9}) + "\n")
    plan = ["train", "--data_dir", tmp_path, "--holdout", 0, "--json", *QUICK]
    assert json.loads(recctl(*plan).stdout)["personal_rows"] == 3
    told = json.loads(recctl(*plan, "--early_stop", 1, "--valid_share", 0.1).stdout)
    assert (told["early_stop"]["validation_pairs"], told["personal_rows"]) == (1, 2)


@pytest.mark.parametrize("words", [["--optimizer", "sgd", "--lr", "0.05"], ["--skip_share", "0.5"], ["--emb_dim", "7"], ["--holdout", "0.3"], ["--loss", "bce"],
                                   ["--order", "grouped"], ["--weight_completion", "1", "--half_life_days", "30"]])
def test_other_settings_learn_too(trained, tmp_path, words):
    done = recctl("train", "--data_dir", trained.data, "--out_dir", tmp_path, "--json", "--k_eval", K, *QUICK, *words)
    told = json.loads(done.stdout)["metrics"]
    assert told["personalized"]["auc"] > told["popularity"]["auc"]
    assert told["global"]["ndcg"] > told["popularity"]["ndcg"]


def exact(trained, folder, *words):
    """The two models of a deterministic run, byte by byte."""
    recctl("train", "--data_dir", trained.data, "--out_dir", folder, "--deterministic", *QUICK, *words)
    return [(folder / name).read_bytes() for name in ("model_bpr.pt", "model_bpr_personalized.pt")]


def test_deterministic_means_the_same_files(trained, tmp_path):
    first = exact(trained, tmp_path / "1", "--threads", 2)
    assert exact(trained, tmp_path / "2", "--threads", 2) == first
    assert exact(trained, tmp_path / "3", "--threads", 1) == first
    other = exact(trained, tmp_path / "4", "--seed", 43)
    assert other[0] != first[0] and other[1] != first[1]
    fast = exact(trained, tmp_path / "5", "--deterministic=no", "--threads", 1)
    assert fast[0] != first[0]  # one triple after the other is another sum than whole batches


def exact_global(trained, folder, *words, quick=QUICK[:-2]):
    recctl("train", "--data_dir", trained.data, "--out_dir", folder, "--deterministic", *quick, "--personalize_steps", 0, *words)
    return (folder / "model_bpr.pt").read_bytes()


SETTINGS = [["--popular_share", 0.3], ["--popular_share", 0.3, "--popular_power", 1.5], ["--init_scale", 3], ["--reg_bias", 0.1], ["--order", "grouped"],
            ["--skip_share", 0.3], ["--skip_share", 0.3, "--negative_after_sec", 10 ** 6], ["--reg_user", 0.2], ["--reg_pos", 0.2], ["--reg_neg", 0.2], ["--reg", 0.2],
            ["--hard_share", 0.7], ["--hard_of", 5], ["--half_life_days", 20], ["--weight_completion", 2]]


def test_each_setting_does_something(trained, tmp_path):
    """No two of them make the same model, and each makes the same one again."""
    models = {}
    for number, words in enumerate([[], *SETTINGS]):
        model = exact_global(trained, tmp_path / str(number), *words)
        assert model not in models, (words, models[model])
        models[model] = words
    for number, words in enumerate(SETTINGS[::3]):
        assert models[exact_global(trained, tmp_path / f"again{number}", *words)] == words
    same = exact_global(trained, tmp_path / "three", "--reg_user", 0.2, "--reg_pos", 0.2, "--reg_neg", 0.2)
    assert models[same] == ["--reg", 0.2]


def test_a_preset_and_flags_beside_it(trained, tmp_path):
    """Rate, passes and steps as the preset says, but for what was given; an epoch is one pass."""
    def told(*words):
        plan = ["--data_dir", trained.data, "--out_dir", tmp_path, "--personalize_steps", 0, "--emb_dim", 8, "--json"]
        return json.loads(recctl("train", *plan, *words).stdout)

    run = told("--preset", "quality", "--lr", 0.02, "--epochs", 3)  # both are what they are without a preset, or less
    assert len(run["epochs"]) == 3 and run["epochs"][0]["rate_begin"] == pytest.approx(0.02)
    run = told("--preset", "fast")
    assert len(run["epochs"]) == 20 and run["epochs"][0]["rate_begin"] == pytest.approx(0.3)
    assert all(run["positives"] <= epoch["triples"] < 1.01 * run["positives"] for epoch in run["epochs"])
    run = told("--preset", "fast", "--batch_size", 2048)
    assert all(epoch["triples"] == 2048 * math.ceil(run["positives"] / 2048) for epoch in run["epochs"])


def test_steps_of_a_preset_fit_its_passes(tmp_path):
    """5,000 positives are three steps of 1,667, in the learner, too: the same bits as with that size given."""
    (tmp_path / "train").write_text("".join(f"{i % 100} {i * 7 % 383}\n" for i in range(5000)))
    (tmp_path / "test").write_text("".join(f"{i} {383 + i % 9}\n" for i in range(100)))

    def model(name, *words):
        plan = ["--train_tsv", tmp_path / "train", "--test_tsv", tmp_path / "test", "--out_dir", tmp_path / name, "--emb_dim", 4, "--personalize_steps", 0, "--json"]
        told = json.loads(recctl("train", *plan, "--deterministic", "--preset", "fast", "--epochs", 80, *words).stdout)  # more than 200 steps: jobs of several
        assert told["positives"] == 5000 and {epoch["triples"] for epoch in told["epochs"]} == {3 * 1667}
        return (tmp_path / name / "model_bpr.pt").read_bytes()

    assert model("a") == model("b", "--batch_size", 1667, "--steps_per_epoch", 3)


def samples_file(trained, path, *more):
    """All of train_samples.jsonl and the lines `more`, which come first."""
    path.write_text("".join(line + "\n" for line in more) + (trained.data / "train_samples.jsonl").read_text())
    return path


def test_labelled_samples(trained, tmp_path):
    """What counts is in the file: pairs of known users and titles before the split, a pair with both labels as a positive."""
    bad = ['{"user_id": 1, "item_id": 2, "label": 2}', '{"user_id": 1, "item_id": 2}', "no json", '{"user_id": -1, "item_id": 2, "label": 0}', "[1]",
           '{"user_id": 1, "item_id": 2, "label": 1, "ts": "yesterday"}']
    known = sorted(trained.logs.before)[0], sorted(trained.logs.items)[0]
    extra = ['{"user_id": 987654321, "item_id": %d, "label": 1}' % known[1], '{"user_id": %d, "item_id": 987654321, "label": 0}' % known[0],
             '{"user_id": %d, "item_id": %d, "label": 0}' % known, '{"user_id": %d, "item_id": %d, "label": 1, "ts": null}' % known, ""]
    path = samples_file(trained, tmp_path / "samples.jsonl", *bad, *extra)
    done = recctl("train", "--data_dir", trained.data, "--out_dir", tmp_path, "--loss", "bce", "--samples", path, "--json", "--k_eval", K, *QUICK)
    told = json.loads(done.stdout)
    labels, late, lines = defaultdict(set), 0, 0
    for line in map(json.loads, filter(None, path.read_text().split("\n")[len(bad):])):
        lines += 1
        if when(line.get("ts") or "1970-01-01T00:00:00+00:00") >= trained.logs.cut:
            late += 1
        else:
            labels[line["user_id"], line["item_id"]].add(line["label"])
    del labels[987654321, known[1]], labels[known[0], 987654321]
    assert told["samples"] == {"lines": lines + len(bad), "bad": len(bad), "late": late, "unknown_users": 1, "unknown_items": 1,
                               "positives": sum(1 in seen for seen in labels.values()), "negatives": sum(1 not in seen for seen in labels.values())}
    assert told["positives"] == told["samples"]["positives"] and late > 100
    for line, reason in ((1, "label must be 0 or 1"), (2, "label must be"), (4, "user_id must be"), (5, "not a JSON object")):
        assert f"samples.jsonl:{line}: {reason}" in done.stderr
    assert "samples.jsonl:6:" not in done.stderr  # the first five are told
    assert told["epochs"][-1]["loss"] < told["epochs"][0]["loss"] < math.log(2)


def test_labelled_negatives_are_what_stands_against_a_positive(tmp_path):
    """
    Every user likes title 0 and refused one title of his own: scores of that one fall, those of the others keep what they began with. Nobody has a positive in the
    histories, and still each row is that of a user who was trained on.
    """
    users, items = 30, 40
    with (tmp_path / "watch_stats.jsonl").open("w") as watches, (tmp_path / "samples.jsonl").open("w") as samples:
        for user in range(users):
            for item in range(items):
                watches.write(json.dumps({"user_id": user, "item_id": item, "started_at": "2026-01-01T00:00:00+00:00", "completion": 0.1}) + "\n")
            samples.write(json.dumps({"user_id": user, "item_id": 0, "label": 1}) + "\n")
            samples.write(json.dumps({"user_id": user, "item_id": 1 + user % 5, "label": 0}) + "\n")
    plan = ["--data_dir", tmp_path, "--holdout", 0, "--loss", "bce", "--samples", tmp_path / "samples.jsonl", "--json", *QUICK]
    recctl("train", *plan, "--out_dir", tmp_path / "a")
    model = load(tmp_path / "a" / "model_bpr.pt")
    bias = dict(zip(model["item_ids"], model["bi"]))
    assert bias[0] > 0.1 and all(bias[item] < -0.1 for item in range(1, 6)) and all(bias[item] == 0 for item in range(6, items))
    assert len({row.tobytes() for row in model["U"]}) == users
    recctl("train", *plan, "--skip_share", 0, "--out_dir", tmp_path / "b")
    bias = load(tmp_path / "b" / "model_bpr.pt")["bi"]
    assert all(value < -0.1 for value in bias[1:6])  # without them: uniform over what was shown or watched
    assert "no positives: no line of" in recctl("train", *plan[:-len(QUICK) - 2], tmp_path / "watch_stats.jsonl", "--out_dir", tmp_path / "c", *QUICK, code=1).stderr


def shown(user, item, minute):
    return {"user_id": user, "item_id": item, "shown_at": f"2026-01-01T{minute // 60:02}:{minute % 60:02}:00+00:00", "surface": "home", "position": 1, "request_id": "r"}


def test_skips_are_drawn_from_all_that_are_kept(tmp_path):
    """One user was shown 200 titles and chose none; when only skips stand against a positive, each of them is drawn, the newest, too."""
    skipped = range(1, 201)
    with (tmp_path / "watch_stats.jsonl").open("w") as watches, (tmp_path / "impressions.jsonl").open("w") as impressions:
        for item in 1000, 1001, 1002:
            watches.write(json.dumps({"user_id": 7, "item_id": item, "started_at": "2026-01-01T00:00:00+00:00", "completion": 0.9}) + "\n")
        for item in skipped:
            impressions.write(json.dumps(shown(7, item, item)) + "\n")
        impressions.write(json.dumps(shown(8, 1, 600)) + "\n")  # time goes on, so that all of them are decided
    recctl("train", "--data_dir", tmp_path, "--holdout", 0, "--skip_share", 1, *QUICK)
    model = load(tmp_path / "model_bpr.pt")
    bias = dict(zip(model["item_ids"].tolist(), model["bi"]))
    assert all(bias[item] < 0 for item in skipped) and bias[1000] > 0


def test_a_plot_that_cannot_be_written(trained, tmp_path):
    """A bad path is found before training; what fails at the end does not take the report along."""
    for path in tmp_path / "none/x.svg", tmp_path:
        done = recctl("train", "--data_dir", trained.data, "--out_dir", tmp_path / "m", *QUICK, "--plot", path, code=1)
        assert str(path) in done.stderr and "epoch" not in done.stdout and os.listdir(tmp_path / "m") == []
    (tmp_path / "train").write_text("".join(f"{i % 7} {i % 11}\n" for i in range(60)))
    (tmp_path / "test").write_text("".join(f"{i % 7} {i % 13}\n" for i in range(60, 90)))

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    plan = ["train", "--train_tsv", tmp_path / "train", "--test_tsv", tmp_path / "test", "--plot", tmp_path / "c.svg", *QUICK]
    for words, shown in ([], "item-kNN"), (["--json"], '"item_knn"'):
        done = recctl(*plan, *words, code=1, preexec_fn=no_room, restore_signals=False)
        assert shown in done.stdout and f"{tmp_path}/c.svg: write: File too large" in done.stderr and "wrote" not in done.stdout + done.stderr
    assert sorted(os.listdir(tmp_path)) == ["m", "test", "train"]


TSV = ["--train_tsv", "x", "--test_tsv", "y"]


@pytest.mark.parametrize("words, says", [
    (["--samples", "x"], "--loss bce"), (["--loss", "bce", "--samples", "x", "--weight_completion", "1"], "has no completion"), (["--loss", "log"], "bce"),
    (["--order", "user"], "grouped"), (["--half_life_days", "-1"], "--half_life_days"),
    ([*TSV, "--half_life_days", 3], "a pair has no time"), ([*TSV, "--weight_completion", 1], "no completion"), ([*TSV, "--min_pos_completion", 0.5], "--min_pos_completion"),
    ([*TSV, "--data_dir", "data"], "--data_dir"), ([*TSV, "--holdout", 0.1], "--holdout"), ([*TSV, "--test_share", 0.1], "--test_share"),
    ([*TSV, "--skip_share", 0.1], "no skips"), ([*TSV, "--negative_after_sec", 1], "without impressions"), (["--tsv_format", "lists"], "--tsv_format"),
    (["--valid_share", 0.1], "--early_stop"), (["--popular_power", 1], "--popular_share"), (["--popular_share", 0, "--popular_power", 1], "--popular_share"),
    (["--skip_share", 0.5, "--popular_share", 0.6], "at most 1 together"), (["--skip_share", 0.5, "--hard_share", 0.6], "at most 1 together"),
    (["--preset", "fast", "--skip_share", 0.5, "--hard_share", 1], "at most 1 together"), (["--deterministic", "--batch_size", 100000], "1..65536 in deterministic mode"),
    (["--deterministic", "--precision", "bf16"], "fp32"), (["--deterministic", "--amp"], "fp32"),
])
def test_flags_that_do_not_go_together(words, says):
    done = recctl("train", "--data_dir", "/nonexistent", *words, code=2) if words[:1] != TSV[:1] else recctl("train", *words, code=2)
    assert says in done.stderr and done.stdout == ""


def test_a_samples_file_that_is_none(trained, tmp_path):
    assert "--samples" in recctl("train", "--data_dir", trained.data, "--out_dir", tmp_path, "--loss", "bce", "--samples", tmp_path / "no", *QUICK, code=1).stderr


def test_what_is_old_counts_less(tmp_path):
    """Half of the users watched title 1 long ago, the others title 2 just now; the title that is new has the larger bias, without a half-life they are alike."""
    with (tmp_path / "watch_stats.jsonl").open("w") as out:
        for user in range(60):
            month, item = ("2025-01", 1) if user % 2 else ("2026-01", 2)
            out.write(json.dumps({"user_id": user, "item_id": item, "started_at": f"{month}-01T00:00:00+00:00", "completion": 0.9}) + "\n")
        for other in range(10, 20):  # titles that can be negatives
            out.write(json.dumps({"user_id": 90 + other, "item_id": other, "started_at": "2025-01-01T00:00:00+00:00", "completion": 0.9}) + "\n")

    def biases(*words):
        recctl("train", "--data_dir", tmp_path, "--out_dir", tmp_path / "m", "--holdout", 0, "--hard_share", 0, "--lr", 0.005, "--optimizer", "sgd", *QUICK, *words)
        model = load(tmp_path / "m" / "model_bpr.pt")
        bias = dict(zip(model["item_ids"], model["bi"]))
        return bias[1], bias[2]

    old, new = biases()
    assert abs(old - new) < 0.1 * new
    old, new = biases("--half_life_days", 100)
    assert 0 < old < new / 2
    old, new = biases("--weight_completion", 1)
    assert abs(old - new) < 0.1 * new
