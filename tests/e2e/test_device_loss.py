"""The device that trains, lost at any call: recd built on the emulated CUDA runtime (EMU_RECD), told by CUDA_EMU_FAIL which call fails and how.

Every run starts from the same checkpoint, takes lines in, trains, writes a checkpoint and stops. Whatever fails: no crash, every line counted, the same histories, tables
without a value that training cannot give, and words in the status and the log that say what happened.
"""
import math
import os
import re
import shutil

import pytest

import recd_process
from recd_process import Recd, watches

EMU_RECD = os.environ.get("EMU_RECD") or os.path.join(recd_process.BUILD, "emu", "recd")
needs_emulation = pytest.mark.skipif(not os.path.exists(EMU_RECD), reason=f"{EMU_RECD} is not built: make {os.path.relpath(EMU_RECD, recd_process.ROOT)}")
USERS, ITEMS = 12, 6
STEP = max(1, 18 // int(os.environ.get("RECD_TEST_SCALE", "1")))  # every so manyth call fails; RECD_TEST_SCALE=18, as in make torture: each
TRAINING = 'backend = "{backend}"; emb_dim = 8; threads = 1; batch_size = 64; idle_passes = 1000000; slice_ms = 5; publish_interval_ms = 20; device_pause_ms = 10; on_device_loss = "{loss}";'


def settings(backend="auto", loss="rebuild"):
    return "training = { " + TRAINING.format(backend=backend, loss=loss) + " };\nquality = { enabled = false; };\npersonalize = { steps = 20; };"


@pytest.fixture
def emu_recd(make_recd, monkeypatch):
    """emu_recd(settings, fail) is a Recd on the emulation; fail: KIND@N."""
    monkeypatch.setattr(recd_process, "RECD", EMU_RECD)

    def make(text, fail=None, data_from=None):
        recd = make_recd(text, wrapper=["env", *([f"CUDA_EMU_FAIL={fail}"] if fail else [])])
        if data_from is not None:
            shutil.copytree(data_from.data, recd.data, symlinks=True)  # its logs stay away: they were read
            recd.write_conf(text)
        return recd

    return make


def check_tables(recd):
    torch = pytest.importorskip("torch")
    model = torch.load(recd.data / "model_bpr.pt", weights_only=True)
    for name in ("U", "V", "bi"):
        assert torch.isfinite(model[name]).all(), name
        assert model[name].abs().max() < 100, name


def run_cycle(recd):
    """From a start to a last checkpoint; returns the status before the stop."""
    recd.start()
    lines = watches(USERS + 4, 4, first=ITEMS)
    before = recd.taken() if recd.status()["n_positions"] else 0
    recd.append("watch_stats", lines[: len(lines) // 2])
    recd.wait_taken(before + len(lines) // 2)
    triples = recd.status()["progress"]["triples"]
    recd.wait(lambda: recd.status()["progress"]["triples"] > triples, "no training")
    recd.append("watch_stats", lines[len(lines) // 2 :])
    recd.wait_taken(before + len(lines))
    status, answer = recd.snapshot()
    assert status == 200, answer
    assert recd.request("GET", "/v1/users/1/top?k=3")[0] == 200
    status = recd.status()
    assert math.isfinite(status["progress"]["triples"])
    return status


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A data directory with a checkpoint, trained on the emulated device, and what a run without failures comes to."""
    if not os.path.exists(EMU_RECD):
        pytest.skip("no emulation")
    old, recd_process.RECD = recd_process.RECD, EMU_RECD
    recd = Recd(tmp_path_factory.mktemp("calm"), settings())
    try:
        recd.start()
        recd.append("watch_stats", watches(USERS, ITEMS))
        recd.wait_taken(USERS * ITEMS)
        recd.wait(lambda: recd.status()["progress"]["triples"] > 1000, "no training")
        assert recd.status()["backend"] == "cuda", recd.status()["backend_reason"]
        assert recd.stop() == 0
        yield recd
    finally:
        recd.kill()
        recd_process.RECD = old


@needs_emulation
@pytest.mark.core
def test_status_and_log_name_the_device(emu_recd, calm):
    recd = emu_recd(settings("cuda"), data_from=calm)
    status = run_cycle(recd)
    device = status["device"]
    assert status["backend"] == "cuda" and status["backend_reason"] == ""
    assert device["name"] and device["cuda"] == "13.0" and device["precision"] == "fp32"
    assert 0 < device["memory_used_bytes"] < device["memory_bytes"]
    assert device["losses"] == 0 and device["lost_age_ms"] is None and device["lost"] is False
    assert f"training on cuda ({device['name']}, driver {device['driver'] or 'unknown'}, CUDA 13.0" in recd.log()
    assert f'device="{device["name"]}"' in recd.request("GET", "/metrics")[1]
    assert recd.stop() == 0
    check_tables(recd)


@needs_emulation
def test_without_a_device(emu_recd, calm):
    recd = emu_recd(settings("auto"), data_from=calm)
    recd.wrapper = ["env", "CUDA_EMU_DEVICES=0"]
    recd.start()
    assert recd.status()["backend"] == "cpu"
    assert "no NVIDIA GPU" in recd.status()["backend_reason"]
    assert "training on cpu" in recd.log()
    assert recd.stop() == 0
    recd.write_conf(settings("cuda"))
    recd.spawn()
    assert recd.process.wait(30) == 2
    assert 'training.backend = "cuda": no NVIDIA GPU' in recd.log()


@needs_emulation
@pytest.mark.parametrize("loss", ["cpu", "exit"])
def test_policies(emu_recd, calm, loss):
    recd = emu_recd(settings(loss=loss), fail="lost@400", data_from=calm)
    recd.start()
    recd.append("watch_stats", watches(USERS, 3, first=ITEMS))
    if loss == "exit":
        assert recd.process.wait(60) == 1
        assert 'on_device_loss = "exit"' in recd.log()
        assert re.search(r"recd stops: .*\n(.*\n)*.*checkpoint \d+ durable", recd.log()), recd.log()
    else:
        recd.wait(lambda: recd.status()["device"]["losses"] == 1, "nothing was lost")
        recd.wait_taken(USERS * (ITEMS + 3))
        status = recd.status()
        assert status["backend"] == "cpu" and "until a restart" in status["backend_reason"]
        assert recd.stop() == 0
    check_tables(recd)


@needs_emulation
@pytest.mark.parametrize("kind", ["nomem", "unknown", "lost", "launch"])
def test_calls_failing_in_turn(emu_recd, calm, kind):
    """A sample of the calls of a cycle, dense where the device is opened and filled; RECD_TEST_SCALE takes more of them."""
    digest = None
    numbers = range(1, 40, max(1, STEP // 3)) if kind == "launch" else [*range(1, 150, STEP), *range(150, 1000, max(17, STEP * 170 // 18))]
    seen = 0
    for number in numbers:
        recd = emu_recd(settings(), fail=f"{kind}@{number}", data_from=calm)
        status = run_cycle(recd)
        what = f"{kind}@{number}: {recd.log()[-400:]}"
        assert digest is None or status["histories_digest"] == digest, what
        digest = status["histories_digest"]
        assert status["n_positives"] == USERS * ITEMS + (USERS + 4) * 4, what
        if status["device"]["losses"]:
            seen += 1
            assert status["device"]["trouble"] and "device lost: cuda: " in recd.log(), what
        elif status["backend"] == "cpu":
            seen += 1
            assert status["backend_reason"], what
        assert recd.stop() == 0, what
        check_tables(recd)
        shutil.rmtree(recd.folder, ignore_errors=True)
    assert seen >= len(numbers) // 3, f"only {seen} of {len(numbers)} failures were met"
