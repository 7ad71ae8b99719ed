"""The daemon with training.backend = "cuda" on the emulated device: the story of scripts/demo, smaller, beside the same story on the CPU; and devices that fail.

EMU_RECD and EMU_RECCTL name the programs that are linked with the emulation (tests/cuda_emu); `make check` builds them.
"""
import json
import os
import subprocess

import pytest
import torch

import recd_process

EMU_RECD = os.environ.get("EMU_RECD") or os.path.join(recd_process.BUILD, "emu/recd")
EMU_RECCTL = os.environ.get("EMU_RECCTL") or os.path.join(recd_process.BUILD, "emu/recctl")
SAN = os.environ.get("SAN", "")
# items, users, impressions, passes over the positives
WORLD = (300, 300, 120000, 12) if SAN else (400, 600, 400000, 120)
STREAMS = {"impressions": "shown_at", "events": "occurred_at", "watch_stats": "started_at"}


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    monkeypatch.setattr(recd_process, "RECD", EMU_RECD)
    for name in [name for name in os.environ if name.startswith("CUDA_EMU_")]:
        monkeypatch.delenv(name)


def recctl(*arguments):
    done = subprocess.run([EMU_RECCTL, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Logs of a small cinema, with their lines in time order and the moments that cut them: half of the watches, and nine tenths."""
    folder = tmp_path_factory.mktemp("cinema")
    items, users, impressions, _ = WORLD
    recctl("synth", "--out_dir", folder, "--num_items", items, "--num_users", users, "--num_impressions", impressions, "--seed", 42)
    lines = {}
    for stream, key in STREAMS.items():
        with open(folder / f"{stream}.jsonl", encoding="utf-8") as file:
            lines[stream] = sorted((json.loads(line)[key], line) for line in file)
    times = [time for time, _ in lines["watch_stats"]]
    return {"folder": folder, "lines": lines, "half": times[len(times) // 2], "judge": times[len(times) - len(times) // 10],
            "catalogue": (folder / "items.jsonl").read_text()}


def part(logs, stream, since, until):
    return [line for time, line in logs["lines"][stream] if since <= time < until]


def settings(backend, passes, more=""):
    return (f'training = {{ emb_dim = 16; threads = 2; idle_passes = {passes}; backend = "{backend}"; {more} }};\n'
            "personalize = { max_age_sec = 600; };")


def trained(recd, passes):
    return recd.status()["progress"]["passes"] >= passes


def rests(recd):
    status = recd.status()
    return status["training_resting"] and status["fold_in_waiting"] == 0


def judged(logs, model):
    """NDCG@50 of a model on the last tenth of the watches, with the 95 % interval of its mean over users, and NDCG@50 of popularity."""
    told = json.loads(recctl("evaluate", "--data_dir", logs["folder"], "--model_path", model, "--holdout", 0.1, "--k", 50, "--json"))["metrics"]
    return told["model"]["ndcg"], told["model"]["interval"]["ndcg"], told["popularity"]["ndcg"]


def live_story(recd, logs, backend):
    """Half of the logs lie there, the rest is written while it trains; a snapshot, SIGKILL, a restart; trained until it rests. How both models are judged."""
    passes = WORLD[3]
    recd.append("items", [logs["catalogue"]])
    for stream in STREAMS:
        recd.append(stream, part(logs, stream, "", logs["half"]))
    recd.start()
    assert recd.status()["backend"] == backend
    recd.wait(lambda: trained(recd, 2), "not trained")
    rest = {stream: part(logs, stream, logs["half"], logs["judge"]) for stream in STREAMS}
    for piece in range(4):
        for stream, lines in rest.items():
            recd.append(stream, lines[len(lines) * piece // 4:len(lines) * (piece + 1) // 4])
    recd.wait_taken(logs["catalogue"].count("\n") + sum(len(part(logs, stream, "", logs["judge"])) for stream in STREAMS))
    assert recd.snapshot()[0] == 200
    before = recd.status()
    recd.kill()
    kept = torch.load(recd.data / "checkpoints" / "latest" / "state.pt", weights_only=True)
    recd.write_conf(settings(backend, passes, "enabled = false;"))  # so that progress stands as it was found
    recd.start()
    after = recd.status()
    assert after["backend"] == backend
    assert (after["histories_digest"], after["positions_digest"]) == (before["histories_digest"], before["positions_digest"])
    assert kept["step"] > 0 and kept["passes"] > 0
    for count in ("step", "triples", "passes"):  # it goes on from there, it does not begin again
        assert after["progress"][count] == kept[count], count
    assert recd.stop() == 0
    recd.write_conf(settings(backend, passes))
    recd.start()
    recd.wait(lambda: trained(recd, passes) and rests(recd), "not trained")
    status, answer = recd.request("GET", "/v1/users/3/top?k=5")
    assert status == 200 and len(answer["items"]) == 5
    assert recd.snapshot()[0] == 200
    assert recd.status()["progress"]["rollbacks"] == 0
    assert recd.stop() == 0
    assert "Sanitizer" not in recd.log()
    return [judged(logs, recd.data / model) for model in ("model_bpr.pt", "model_bpr_personalized.pt")]


@pytest.mark.core
def test_story_beside_the_cpu(make_recd, logs):
    """Both models reach the CPU's quality within its noise: a sanitizer's slow run stops earlier, and has to beat popularity."""
    by_backend = {}
    for backend in ("cpu", "cuda"):
        by_backend[backend] = live_story(make_recd(settings(backend, WORLD[3])), logs, backend)
    for (cpu, interval, popularity), (cuda, _, _) in zip(by_backend["cpu"], by_backend["cuda"]):
        assert cuda > (1.5 * popularity if SAN else interval[0]), by_backend


def fed(recd, logs):
    """recd with half of the logs, started."""
    recd.append("items", [logs["catalogue"]])
    for stream in STREAMS:
        recd.append(stream, part(logs, stream, "", logs["half"]))
    recd.start()
    recd.wait_taken(logs["catalogue"].count("\n") + sum(len(part(logs, stream, "", logs["half"])) for stream in STREAMS))
    return recd


@pytest.fixture(scope="module")
def digest_of_half(logs, tmp_path_factory):
    """The histories' digest of the first half, by a recd that uses no device."""
    recd = recd_process.Recd(tmp_path_factory.mktemp("half"), settings("cpu", 1))
    try:
        return fed(recd, logs).status()["histories_digest"]
    finally:
        recd.kill()


@pytest.mark.parametrize("failure, mends", [("unknown@300", True), ("nomem@300", True), ("launch@40", True), ("lost@300", False)])
def test_device_fails_and_is_opened_anew(make_recd, logs, digest_of_half, monkeypatch, failure, mends):
    """A device that fails in the middle: the CPU goes on at once; the device is opened anew, where it can be. Nothing is lost, nothing half-done published."""
    monkeypatch.setenv("CUDA_EMU_FAIL", failure)
    recd = fed(make_recd(settings("cuda", 20, 'on_device_loss = "rebuild"; device_pause_ms = 200;')), logs)
    if failure.startswith("nomem"):  # the call may be one for more memory than is needed now: then less is taken, and nothing is lost
        recd.wait(lambda: recd.status()["device"]["losses"] == 1 or trained(recd, 20), "the device did not fail")
        if recd.status()["device"]["losses"] == 0:
            mends, failure = True, ""
    if failure:
        recd.wait(lambda: recd.status()["device"]["losses"] == 1, "the device did not fail")
    if failure and mends:
        recd.wait(lambda: recd.status()["device"]["rebuilds"] == 1 and recd.status()["backend"] == "cuda", "the device was not opened anew")
    recd.wait(lambda: trained(recd, 20) and rests(recd), "not trained")
    status = recd.status()
    assert status["histories_digest"] == digest_of_half
    assert status["progress"]["rollbacks"] == 0
    assert status["backend"] == ("cuda" if mends else "cpu")
    assert (status["device"]["trouble"] != "") == (failure != "")
    assert not failure or "cuda: " in recd.log()
    assert len(recd.request("GET", "/v1/users/3/top?k=5")[1]["items"]) == 5
    assert recd.snapshot()[0] == 200
    assert recd.stop() == 0


def test_device_fails_and_recd_stops(make_recd, logs, monkeypatch):
    """on_device_loss = "exit": a last checkpoint, exit code 1; the next start goes on from there."""
    monkeypatch.setenv("CUDA_EMU_FAIL", "lost@300")
    recd = make_recd(settings("cuda", 20, 'on_device_loss = "exit";'))
    recd.append("items", [logs["catalogue"]])
    for stream in STREAMS:
        recd.append(stream, part(logs, stream, "", logs["half"]))
    recd.spawn()
    assert recd.process.wait(recd_process.PATIENCE_SEC) == 1
    monkeypatch.delenv("CUDA_EMU_FAIL")
    recd.start()
    assert recd.status()["checkpoint_number"] >= 1 and recd.status()["backend"] == "cuda"


def test_without_a_device(make_recd, monkeypatch):
    """auto takes the CPU and says why; cuda refuses to start and says why."""
    monkeypatch.setenv("CUDA_EMU_DRIVER", "12040")
    recd = make_recd('training = { backend = "auto"; };').start()
    assert recd.status()["backend"] == "cpu"
    assert "the NVIDIA driver supports CUDA 12.4, this program needs 13.0 or later" in recd.log()
    recd = make_recd('training = { backend = "cuda"; };')
    recd.spawn()
    assert recd.process.wait(recd_process.PATIENCE_SEC) != 0
    assert "the NVIDIA driver supports CUDA 12.4" in recd.log()
