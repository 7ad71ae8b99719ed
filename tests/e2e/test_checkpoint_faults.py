"""What a full or failing disk, damage and other shapes do to checkpoints (rows 35 to 41 of the fault list), on the running daemon.

Faults of single calls are injected with strace; a full disk is a small tmpfs. Without strace, or without the right to mount, the test is skipped.
"""
import os
import shutil
import subprocess
import time

import pytest

from recd_process import RECD, watches

SMALL = "training = { emb_dim = 8; threads = 2; idle_passes = 5; };"

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")


def filled(recd):
    recd.append("watch_stats", watches(20, 10))
    recd.start()
    recd.wait_taken(200)
    return recd


def generations(recd):
    return sorted(name for name in os.listdir(recd.data / "checkpoints") if name[0].isdigit())


def leftovers(recd):
    return [name for name in os.listdir(recd.data / "checkpoints") if name.startswith(".")]


@pytest.fixture
def small_disk(make_recd):
    recd = make_recd(SMALL)
    recd.data.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(recd.data)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here: " + mounted.stderr.strip())
    yield recd
    recd.kill()
    subprocess.run(["umount", "-l", str(recd.data)], check=True)


def test_full_disk(small_disk):
    """Row 35: the old one stays, the temporary is gone, training and answers go on, and the alarm ends when there is room again."""
    recd = filled(small_disk)
    assert recd.snapshot()[0] == 200
    good = generations(recd)
    with pytest.raises(OSError), open(recd.data / "ballast", "wb", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 4096)
    recd.append("watch_stats", watches(20, 5, first=10))
    recd.wait_taken(300)
    code, answer = recd.snapshot()
    assert code in (500, 503) and "No space left" in answer["error"]
    status = recd.status()
    assert status["checkpoint_failures"] == 1 and "No space left" in status["checkpoint_error"]
    assert generations(recd) == good and leftovers(recd) == []
    assert recd.request("GET", "/v1/users/3/top?k=3")[0] == 200
    assert recd.request("GET", "/readyz")[0] == 200
    (recd.data / "ballast").unlink()
    assert recd.snapshot()[0] == 200
    recd.wait(lambda: recd.status()["checkpoint_failures"] == 0, "the alarm did not end")
    digest = recd.status()["histories_digest"]
    recd.kill()
    recd.start()
    assert recd.status()["histories_digest"] == digest


def inject(recd, *expressions):
    """Attaches strace to the running recd with these injections; ends with detach()."""
    arguments = [STRACE, "-f", "-q", "-o", str(recd.folder / "trace"), "-p", str(recd.process.pid)]
    names = ",".join(sorted({expression.split(":")[0] for expression in expressions}))
    arguments += ["-e", f"trace={names}"]
    for expression in expressions:
        arguments += ["-e", f"inject={expression}"]
    tracer = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    if tracer.poll() is not None:
        pytest.skip("strace cannot attach here: " + tracer.stderr.read().strip())
    return tracer


def detach(tracer):
    tracer.terminate()
    tracer.wait(10)
    tracer.stderr.close()


@needs_strace
@pytest.mark.parametrize(
    "expression, words",
    [
        ("fdatasync:error=EIO:when=1", "dead-letter.jsonl"),
        ("fsync:error=EIO:when=1", "Input/output error"),  # state.pt
        ("fsync:error=EIO:when=2", "Input/output error"),
        ("fsync:error=EIO:when=4", "Input/output error"),  # a model
        ("fsync:error=EIO:when=5", "Input/output error"),  # the directory
        ("pwrite64:error=ENOSPC:when=3", "No space left"),
        ("renameat,renameat2,rename:error=EIO:when=1", "Input/output error"),
    ],
)
def test_failing_calls(make_recd, expression, words):
    """Rows 36, 37: not reported as saved, the old one stays, the next one is written anew on new descriptors."""
    recd = filled(make_recd(SMALL))
    assert recd.snapshot()[0] == 200
    good = generations(recd)
    before = recd.status()["checkpoint_number"]
    tracer = inject(recd, expression)
    code, answer = recd.snapshot()
    detach(tracer)
    assert code in (500, 503) and words in answer["error"], answer
    status = recd.status()
    assert status["checkpoint_number"] == before and status["checkpoint_failures"] == 1
    assert set(good) <= set(generations(recd)) and leftovers(recd) == []
    assert os.readlink(recd.data / "checkpoints" / "latest") == good[-1]
    assert recd.snapshot()[0] == 200
    digest = recd.status()["histories_digest"]
    recd.kill()
    recd.start()
    assert recd.status()["histories_digest"] == digest


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("file", ["model_bpr.pt", "model_bpr_personalized.pt", "state.pt"])
def test_damage_falls_back_and_reads_again(make_recd, file):
    """Rows 38, 43: the generation before is used, said loudly, and the lines after it are read again: the same state."""
    recd = filled(make_recd(SMALL))
    assert recd.snapshot()[0] == 200
    recd.append("watch_stats", watches(20, 5, first=10) + ["{bad\n"])
    recd.wait_taken(301)
    assert recd.snapshot()[0] == 200
    before = recd.status()
    recd.kill()
    newest = generations(recd)[-1]
    flip(recd.data / "checkpoints" / newest / file, os.path.getsize(recd.data / "checkpoints" / newest / file) // 2)
    recd.start()
    recd.wait_taken(301)
    after = recd.status()
    assert f"checkpoints/{newest}: {file}" in recd.log()
    for key in ("histories_digest", "positions_digest", "n_positives", "dead_letter_length"):
        assert before[key] == after[key], key
    # numbers are never reused
    assert recd.snapshot()[0] == 200
    assert recd.status()["checkpoint_number"] > int(newest)


def refused(recd, words):
    done = subprocess.run([RECD, "--config", str(recd.conf)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 3, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_all_bad_is_refused(make_recd):
    """Row 39: never an empty start over a loss; nothing is changed."""
    recd = filled(make_recd(SMALL))
    assert recd.snapshot()[0] == 200
    assert recd.stop() == 0
    names = generations(recd)
    for name in names:
        flip(recd.data / "checkpoints" / name / "state.pt", 500)
    refused(recd, ["none of", names[0], "state.pt"])
    shutil.rmtree(recd.data / "checkpoints")
    refused(recd, ["INITIALISED"])
    assert not (recd.data / "checkpoints").exists()


def test_other_shapes_are_refused(make_recd):
    """Row 40: another emb_dim, a newer format."""
    recd = filled(make_recd(SMALL))
    assert recd.stop() == 0
    names = generations(recd)
    recd.write_conf("training = { emb_dim = 16; };")
    refused(recd, ["emb_dim = 8", "16"])
    recd.write_conf(SMALL + "state = { impressions_max = 32; };")
    refused(recd, ["impressions_max"])
    assert generations(recd) == names


def test_three_are_kept(make_recd):
    """Row 43."""
    recd = filled(make_recd(SMALL))
    for _ in range(5):
        assert recd.snapshot()[0] == 200
    last = recd.status()["checkpoint_number"]
    assert generations(recd) == [f"{number:06}" for number in (last - 2, last - 1, last)]


@needs_strace
def test_killed_while_writing(make_recd):
    """Rows 38, 44: SIGKILL at calls spread over the writing of a checkpoint; the old or the new one loads, and the state comes out the same."""
    recd = filled(make_recd(SMALL))
    assert recd.snapshot()[0] == 200
    recd.wait(lambda: recd.status()["fold_in_waiting"] == 0, "users not folded in")
    digests = {recd.status()["histories_digest"]}
    calls = [("openat", 1), ("openat", 6), ("pwrite64", 2), ("pwrite64", 9), ("fsync", 3), ("fsync", 6), ("mkdirat", 1), ("renameat", 1), ("renameat", 2)]
    for name, when in calls:
        tracer = inject(recd, f"{name}:signal=KILL:when={when}")
        try:
            recd.snapshot()
        except OSError:
            pass
        try:
            recd.process.wait(3)
        except subprocess.TimeoutExpired:
            recd.kill()  # fewer such calls than that: the kill comes after the snapshot
        detach(tracer)
        recd.start()
        recd.wait_taken(200)
        digests.add(recd.status()["histories_digest"])
        assert leftovers(recd) == []
    assert len(digests) == 1
