"""`recctl train --backend cuda` on the emulated device: the same global model as the processor's, bit for bit, in deterministic mode; personal rows that agree to
rounding; what it says without a device, and when one fails. The benchmark of the device, once.

EMU_RECCTL names recctl with the emulation; otherwise it is emu/recctl in the build folder.
"""
import json
import os
import subprocess

import numpy as np
import pytest

from offline import ROOT, load

EMU_RECCTL = os.environ.get("EMU_RECCTL") or os.path.join(ROOT, os.environ.get("BUILD", "build"), "emu", "recctl")
GLOBAL, PERSONAL = "model_bpr.pt", "model_bpr_personalized.pt"
SMALL = ["--epochs", "2", "--steps_per_epoch", "10", "--batch_size", "256", "--emb_dim", "12", "--personalize_steps", "15", "--k_eval", "10"]

pytestmark = pytest.mark.skipif(not os.path.exists(EMU_RECCTL), reason=f"{EMU_RECCTL} is not built")


def run(*words, code=0, **environment):
    done = subprocess.run([EMU_RECCTL, *map(str, words)], capture_output=True, text=True, timeout=300, env={**os.environ, **environment})
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    run("synth", "--out_dir", folder, "--num_items", 120, "--num_users", 40, "--num_impressions", 8000)
    return folder


def train(data, out, *words, **more):
    return json.loads(run("train", "--data_dir", data, "--out_dir", out, "--json", *SMALL, *words, **more).stdout)


def rows(folder):
    model = load(folder / PERSONAL)
    return model["U"][np.argsort(model["user_ids"])], model["V"][np.argsort(model["item_ids"])], model


@pytest.mark.parametrize("more", [[], ["--early_stop", "1", "--epochs", "8", "--lr", "0.3"]])
def test_the_same_models_as_the_processor(data, tmp_path, more):
    cpu = train(data, tmp_path / "cpu", "--backend", "cpu", "--deterministic", *more)
    cuda = train(data, tmp_path / "cuda", "--backend", "cuda", "--deterministic", *more)
    assert (cpu["backend"], cuda["backend"]) == ("cpu", "cuda") and cuda["backend_reason"] == ""
    assert [e["loss"] for e in cpu["epochs"]] == [e["loss"] for e in cuda["epochs"]]
    assert (tmp_path / "cpu" / GLOBAL).read_bytes() == (tmp_path / "cuda" / GLOBAL).read_bytes()
    mine, items, _ = rows(tmp_path / "cuda")
    theirs, their_items, _ = rows(tmp_path / "cpu")
    start = load(tmp_path / "cpu" / GLOBAL)
    start = start["U"][np.argsort(start["user_ids"])]
    assert np.array_equal(items, their_items)
    assert np.abs(theirs - start).max() > 0.01  # they did move
    assert np.abs(mine - theirs).max() < 1e-4
    if more:
        assert cuda["early_stop"]["stopped"] is True and cuda["early_stop"]["best_epoch"] < len(cuda["epochs"])


def test_precision(data, tmp_path):
    assert train(data, tmp_path / "a", "--backend", "cuda", "--amp")["precision"] == "bf16"
    on_cpu = run("train", "--data_dir", data, "--out_dir", tmp_path / "b", *SMALL, "--backend", "cpu", "--precision", "bf16")
    assert "the processor trains in fp32" in on_cpu.stdout
    half, full = load(tmp_path / "a" / GLOBAL), load(tmp_path / "b" / GLOBAL)
    assert not np.any(half["V"].view(np.uint32) & 0xFFFF) and np.any(full["V"].view(np.uint32) & 0xFFFF)
    assert "fp32" in run("train", "--data_dir", data, "--out_dir", tmp_path / "c", *SMALL, "--amp", "--deterministic", code=2).stderr


def test_without_a_device(data, tmp_path):
    told = train(data, tmp_path / "a", CUDA_EMU_DRIVER="0")
    assert told["backend"] == "cpu" and "driver" in told["backend_reason"]
    assert "--backend cuda: " in run("train", "--data_dir", data, "--out_dir", tmp_path / "b", *SMALL, "--backend", "cuda", code=1, CUDA_EMU_DEVICES="0").stderr


def test_a_device_that_fails(data, tmp_path):
    """Wherever it is lost: the processor does the rest of the work that can be done anew, or the command ends with the reason."""

    def lose_it_at(call):
        """What became of the command; None: it ended before that call."""
        told = subprocess.run([EMU_RECCTL, "train", "--data_dir", data, "--out_dir", tmp_path, *SMALL, "--epochs", "1", "--steps_per_epoch", "2", "--deterministic"],
                              capture_output=True, text=True, timeout=300, env={**os.environ, "CUDA_EMU_FAIL": f"lost@{call}"})
        assert told.returncode in (0, 1), (call, told.stderr)
        if told.returncode:
            assert "recctl train: cuda: " in told.stderr
            return "ended"
        if ", cpu: " in told.stdout:
            return "processor from the start"
        return "processor personalizes" if "the processor does it" in told.stderr else None

    outcomes, call, before = set(), 1, 0
    while (outcome := lose_it_at(call)) is not None:
        outcomes.add(outcome)
        before, call = call, call + 1 + call // 6
    while call - before > 1:  # personalizing comes last: look for the last call
        middle = (before + call) // 2
        outcome = lose_it_at(middle)
        before, call = (middle, call) if outcome else (before, middle)
        outcomes.add(outcome)
    assert outcomes - {None} == {"ended", "processor from the start", "processor personalizes"}


def test_the_benchmark_runs():
    """Its figures are for a real GPU (make bench-gpu); here only that it gets to its end."""
    done = subprocess.run([os.path.join(os.path.dirname(EMU_RECCTL), "bench_device"), "tiny"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + 2 * (1 + 3 * (1 + 5) + 1 + 2 + 3), done.stdout
