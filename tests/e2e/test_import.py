"""recctl import: what torch.save wrote becomes a model that recctl answers from, and that recd starts from."""
import json
import os
import subprocess

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="python3-torch is not installed")

from recd_process import RECCTL, Recd  # noqa: E402

USERS, ITEMS, DIM = 6, 9, 8


class Module(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.user_emb, self.item_emb = torch.nn.Embedding(USERS, DIM), torch.nn.Embedding(ITEMS, DIM)
        self.user_bias, self.item_bias = torch.nn.Embedding(USERS, 1), torch.nn.Embedding(ITEMS, 1)


def recctl(*words, code=0):
    done = subprocess.run([RECCTL, *map(str, words)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture
def saved(tmp_path):
    module = Module()
    torch.save(module.state_dict(), tmp_path / "module.pt")
    (tmp_path / "users.txt").write_text("".join(f"{10 + u}\n" for u in range(USERS)))
    (tmp_path / "items.txt").write_text("".join(f"{500 - i}\n" for i in range(ITEMS)))
    return module


def ids(folder):
    return ["--user_ids", folder / "users.txt", "--item_ids", folder / "items.txt"]


def scores_of(module, user):
    with torch.no_grad():
        row = module.item_emb.weight @ module.user_emb.weight[user] + module.item_bias.weight[:, 0] + module.user_bias.weight[user, 0]
    return {500 - i: float(score) for i, score in enumerate(row)}


def watch(user, item, second, completion=0.9):
    return {"user_id": user, "item_id": item, "started_at": f"2026-01-01T00:00:{second:02}+00:00", "completion": completion}


@pytest.mark.core
def test_a_module_answers_as_it_did(saved, tmp_path):
    told = json.loads(recctl("import", tmp_path / "module.pt", *ids(tmp_path), "--out_dir", tmp_path / "m", "--json").stdout)
    assert (told["users"], told["items"], told["emb_dim"], told["checkpoint"]) == (USERS, ITEMS, DIM, None)
    assert told["tensors"] == {"U": "user_emb.weight", "V": "item_emb.weight", "bu": "user_bias.weight", "bi": "item_bias.weight"}
    model = torch.load(tmp_path / "m" / "model_bpr.pt", weights_only=True)
    assert torch.equal(model["U"], saved.user_emb.weight.data) and torch.equal(model["bi"], saved.item_bias.weight.data[:, 0])
    assert model["item_ids"].tolist() == [500 - i for i in range(ITEMS)]
    (tmp_path / "watch_stats.jsonl").write_text("".join(json.dumps(watch(10 + u, 500 - u, u)) + "\n" for u in range(USERS)))
    for user in range(USERS):
        asked = ["--model_path", tmp_path / "m" / "model_bpr.pt", "--data_dir", tmp_path, "--user_id", 10 + user, "--json"]
        answer = json.loads(recctl("top", *asked, "--k", ITEMS).stdout)
        expected = scores_of(saved, user)
        del expected[500 - user]  # watched
        assert answer["served"] == "global"
        assert [i["item_id"] for i in answer["items"]] == sorted(expected, key=expected.get, reverse=True)[:len(answer["items"])]
        assert [i["score"] for i in answer["items"]] == pytest.approx([expected[i["item_id"]] for i in answer["items"]], abs=1e-4)
    assert "watched_count" in recctl("explain", *asked).stdout


def test_four_tensors_with_their_ids(saved, tmp_path):
    tensors = {"U": torch.rand(3, 4), "V": torch.rand(5, 4), "bu": torch.zeros(3), "bi": torch.rand(5), "user_ids": torch.tensor([3, 1, 2]), "item_ids": torch.arange(5)}
    torch.save(tensors, tmp_path / "four.pt")
    recctl("import", tmp_path / "four.pt", "--out_dir", tmp_path / "m")
    model = torch.load(tmp_path / "m" / "model_bpr.pt", weights_only=True)
    assert all(torch.equal(model[name], tensor) for name, tensor in tensors.items())


def test_what_cannot_be_taken(saved, tmp_path):
    def says(text, value, *words):
        torch.save(value, tmp_path / "bad.pt")
        done = recctl("import", tmp_path / "bad.pt", "--row_ids", "--out_dir", tmp_path / "none", *words, code=1)
        assert text in done.stderr and done.stdout == "" and not (tmp_path / "none").exists(), done.stderr

    state = saved.state_dict()
    says("save the model's state_dict()", saved)
    says("no tensor at all", {"model_state_dict": state, "epoch": 3})
    says("dtype float64", {name: tensor.double() for name, tensor in state.items()})
    says("row 4 holds NaN", {**state, "item_emb.weight": torch.where(torch.arange(ITEMS)[:, None] == 4, torch.nan, state["item_emb.weight"])})
    says("8 columns", {**state, "item_emb.weight": torch.rand(ITEMS, DIM + 1)})
    says("has no 'x'", state, "--user_weight", "x")
    says("holds 6 ids, item_emb.weight has 9 rows", state, "--item_ids", tmp_path / "users.txt")
    assert "--user_ids FILE with 6 lines" in recctl("import", tmp_path / "module.pt", code=1).stderr
    assert "FILE.pt" in recctl("import", code=2).stderr


def test_recd_starts_from_it(saved, tmp_path):
    recd = Recd(tmp_path, f"training = {{ emb_dim = {DIM}; enabled = false; }};")
    told = recctl("import", tmp_path / "module.pt", *ids(tmp_path), "--into", recd.data).stdout
    assert "starts from it" in told and sorted(os.listdir(recd.data / "checkpoints")) == ["000001", "latest"]
    refused = recctl("import", tmp_path / "module.pt", *ids(tmp_path), "--into", recd.data, code=1)
    assert "in use already" in refused.stderr
    # from its beginning: everything in the logs counts, and the rows are those that were imported
    recd.append("watch_stats", [watch(10 + u, 500 - u, u) for u in range(USERS)] + [watch(99, 500 - i, 10 + i, 0.1) for i in range(ITEMS)])
    recd.append("impressions", [{"user_id": 99, "item_id": 500 - i, "shown_at": "2026-01-01T00:00:30+00:00", "surface": "home", "position": 1, "request_id": "r"}
                                for i in range(ITEMS)])
    try:
        recd.start()
        recd.wait_taken(USERS + 2 * ITEMS)
        recd.wait(lambda: recd.request("GET", "/v1/users/10/top?k=20")[1]["served"] != "popularity", "the imported rows are not served")
        recd.snapshot()
        model = torch.load(recd.data / "model_bpr.pt", weights_only=True)
        row_of = {user: row for row, user in enumerate(model["user_ids"].tolist())}
        column_of = {item: row for row, item in enumerate(model["item_ids"].tolist())}
        for user in range(USERS):
            assert np.allclose(model["U"][row_of[10 + user]], saved.user_emb.weight.data[user], atol=1e-6)
        for item in range(ITEMS):
            assert np.allclose(model["V"][column_of[500 - item]], saved.item_emb.weight.data[item], atol=1e-6)
        assert recd.stop() == 0
        recd.start()  # and goes on from its own checkpoint
        assert recd.taken() == USERS + 2 * ITEMS
        assert "in use by another recd" in recctl("import", tmp_path / "module.pt", *ids(tmp_path), "--into", recd.data, code=1).stderr
        assert recd.stop() == 0
    finally:
        recd.kill()
