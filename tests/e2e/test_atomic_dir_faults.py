"""Failing system calls while a generation is published (FAILURES rows 35 to 37): strace makes the k-th call of a kind fail, then: the tool says which step
failed and exits 1, the old generation is what it was and what `latest` names, nothing temporary is left, no descriptor is synced again after its fsync
failed, and the next run publishes under a number never used before.

The program is the unit test test_atomic_dir as a small tool (--commit, --prune, --link). Needs strace; SKIP where tracing is not allowed."""
import os
import re
import shutil
import subprocess

import pytest

BUILD = os.environ.get("BUILD", "build")
TOOL = os.path.join(BUILD, "tests", "model", "test_atomic_dir")
TORCH_TOOL = os.path.join(BUILD, "tests", "model", "test_torch_file")
CALLS = "fsync,renameat,renameat2,symlinkat,mkdirat,openat,pwrite64,fallocate,close,unlinkat"
BYTES = 300000


def can_trace():
    if not shutil.which("strace"):
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


pytestmark = [pytest.mark.core, pytest.mark.skipif(not can_trace(), reason="strace is not there, or may not trace")]


def run(*arguments, inject=None, log=None):
    command = [TOOL, *map(str, arguments)]
    if inject:
        command = ["strace", "-f", "-o", str(log), "-e", f"trace={CALLS}", "-e", f"inject={inject}", *command]
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")  # leak checking needs ptrace itself
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.fixture
def data(tmp_path):
    """A data directory with one good generation."""
    folder = tmp_path / "data"
    folder.mkdir()
    assert run("--commit", folder, BYTES).stdout == "committed 1\n"
    return folder


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


ONE = ["checkpoints", "checkpoints/000001", "checkpoints/000001/model_bpr.pt", "checkpoints/latest"]


def check_loads(path):
    assert subprocess.run([TORCH_TOOL, "--dump", path], capture_output=True, check=False).returncode == 0


def failed_and_never_synced_again(log):
    """True when an fsync failed and its descriptor was closed before any other fsync had that number."""
    failed = set()
    seen = False
    for line in log.read_text().splitlines():
        sync = re.search(r"fsync\((\d+)\)\s+= (-?\d+)", line)
        close = re.search(r"close\((\d+)\)", line)
        if sync:
            assert sync[1] not in failed, line
            if sync[2] != "0":
                failed.add(sync[1])
                seen = True
        elif close:
            failed.discard(close[1])
    return seen


# what is made to fail while the second generation is written, and the step that the message must name
FAULTS = [
    ("mkdirat:error=ENOSPC:when=2", "make checkpoints/.tmp-2: No space left on device"),
    ("fallocate:error=ENOSPC:when=1", "model_bpr.pt: reserve space: No space left on device"),
    ("fallocate:error=EDQUOT:when=1", "model_bpr.pt: reserve space: Disk quota exceeded"),
    ("pwrite64:error=ENOSPC:when=1", "model_bpr.pt: write archive/data.pkl: No space left on device"),
    ("pwrite64:error=ENOSPC:when=4", "model_bpr.pt: write bytes: No space left on device"),
    ("pwrite64:error=EIO:when=5", "model_bpr.pt: write bytes: Input/output error"),
    ("pwrite64:retval=0:when=5", "model_bpr.pt: write bytes: Input/output error"),
    ("pwrite64:error=EIO:when=6", "model_bpr.pt: write archive/data.pkl: Input/output error"),
    ("pwrite64:error=EDQUOT:when=10", "model_bpr.pt: write the zip's directory: Disk quota exceeded"),
    ("fsync:error=EIO:when=1", "fsync the data directory: Input/output error"),
    ("fsync:error=EIO:when=2", "model_bpr.pt: fsync: Input/output error"),
    ("fsync:error=EIO:when=3", "fsync checkpoints/.tmp-2: Input/output error"),
    ("fsync:error=EIO:when=4", "fsync checkpoints after the rename to 000002: Input/output error"),
    ("renameat2:error=EIO:when=1", "rename checkpoints/.tmp-2 to 000002: Input/output error"),
    ("renameat2:error=ENOSPC:when=1", "rename checkpoints/.tmp-2 to 000002: No space left on device"),
    ("symlinkat:error=ENOSPC:when=1", "make the link checkpoints/latest to 000002: No space left on device"),
    ("renameat:error=EIO:when=1", "rename the link checkpoints/latest to 000002: Input/output error"),
]


@pytest.mark.parametrize("inject,text", FAULTS, ids=[fault[0] for fault in FAULTS])
def test_fault(data, tmp_path, inject, text):
    log = tmp_path / "log"
    result = run("--commit", data, BYTES, inject=inject, log=log)
    assert "(INJECTED)" in log.read_text(), "the call was not made: " + result.stdout
    assert result.returncode == 1 and result.stdout == f"failed: {text}\n"
    assert tree(data) == ONE
    assert os.readlink(data / "checkpoints" / "latest") == "000001"
    check_loads(data / "checkpoints" / "latest" / "model_bpr.pt")
    assert failed_and_never_synced_again(log) == inject.startswith("fsync")
    again = run("--commit", data, BYTES)  # the number may be used by a new run: nobody ever saw the failed generation
    assert again.stdout == "committed 2\n"
    check_loads(data / "checkpoints" / "latest" / "model_bpr.pt")


def test_last_fsync(data, tmp_path):
    """The generation was durable before: it stays, complete; but the call fails."""
    log = tmp_path / "log"
    result = run("--commit", data, BYTES, inject="fsync:error=EIO:when=5", log=log)
    assert result.returncode == 1 and result.stdout == "failed: fsync checkpoints after the link to 000002: Input/output error\n"
    assert failed_and_never_synced_again(log)
    assert tree(data) == sorted(ONE + ["checkpoints/000002", "checkpoints/000002/model_bpr.pt"])
    check_loads(data / "checkpoints" / "000002" / "model_bpr.pt")
    assert run("--commit", data, BYTES).stdout == "committed 3\n"


HARMLESS = [
    "fallocate:error=EOPNOTSUPP:when=1",  # a file system without it
    "fallocate:error=EINTR:when=1", "pwrite64:error=EINTR:when=3", "pwrite64:error=EINTR:when=7",
    "renameat2:error=EINVAL:when=1",  # a file system without RENAME_NOREPLACE
]


@pytest.mark.parametrize("inject", HARMLESS)
def test_harmless(data, tmp_path, inject):
    log = tmp_path / "log"
    result = run("--commit", data, BYTES, inject=inject, log=log)
    assert "(INJECTED)" in log.read_text()
    assert result.returncode == 0 and result.stdout == "committed 2\n"
    check_loads(data / "checkpoints" / "latest" / "model_bpr.pt")


def test_close_fails(data, tmp_path):
    """Some file systems report a lost write only at close."""
    log = tmp_path / "log"
    run("--commit", data, BYTES, inject="close:error=EIO:when=65535", log=log)
    closes = [line for line in log.read_text().splitlines() if " close(" in line]
    lines = log.read_text().splitlines()
    file_fd = next(re.search(r"= (\d+)$", line)[1] for line in lines if "model_bpr.pt" in line and "openat" in line)
    synced = next(i for i, line in enumerate(lines) if f"fsync({file_fd})" in line)
    number = 1 + sum(" close(" in line for line in lines[:synced])
    assert len(closes) >= number
    shutil.rmtree(data / "checkpoints" / "000002")
    (data / "checkpoints" / "latest").unlink()
    (data / "checkpoints" / "latest").symlink_to("000001")
    result = run("--commit", data, BYTES, inject=f"close:error=EIO:when={number}", log=log)
    assert result.returncode == 1 and result.stdout == "failed: model_bpr.pt: close: Input/output error\n"
    assert tree(data) == ONE


def test_order_of_durability(data, tmp_path):
    """File, its directory, rename, parent, link, parent: what test C of FAILURES relies on."""
    log = tmp_path / "log"
    assert run("--commit", data, BYTES, inject="fsync:error=EIO:when=65535", log=log).stdout == "committed 2\n"
    names, order = {}, []
    for line in log.read_text().splitlines():
        opened = re.search(r'openat\((\S+), "([^"]+)".*= (\d+)$', line)
        sync = re.search(r"fsync\((\d+)\)\s+= 0", line)
        if opened:
            parent = names.get(opened[1], "")
            names[opened[3]] = parent if opened[2] == "." else (parent + "/" + opened[2]).lstrip("/")
        elif sync:
            order.append("fsync " + names[sync[1]].split("checkpoints/")[-1].split("/")[-1])
        elif re.search(r"renameat2?\(", line):
            order.append("rename " + re.findall(r'"([^"]+)"', line)[1])
    assert order[-6:] == ["fsync model_bpr.pt", "fsync .tmp-2", "rename 000002", "fsync checkpoints", "rename latest", "fsync checkpoints"]


def test_prune_faults(data, tmp_path):
    log = tmp_path / "log"
    for number in range(2, 6):
        assert run("--commit", data, 100).stdout == f"committed {number}\n"
    before = tree(data)
    result = run("--prune", data, 3, inject="renameat2:error=EIO:when=1", log=log)
    assert result.stdout == "failed: rename checkpoints/000002 to .del-2: Input/output error\n"
    assert tree(data) == before
    result = run("--prune", data, 3, inject="fsync:error=EIO:when=2", log=log)
    assert result.stdout == "failed: fsync checkpoints before removing old generations: Input/output error\n"
    assert (data / "checkpoints" / ".del-1" / "model_bpr.pt").exists()  # nothing removed before the rename is durable
    assert run("--prune", data, 3).stdout == "pruned 0\n"  # the open removed the leftovers
    assert [name for name in os.listdir(data / "checkpoints") if name.startswith(".")] == []
    assert sorted(os.listdir(data / "checkpoints")) == ["000003", "000004", "000005", "latest"]


LINK_FAULTS = [
    ("symlinkat:error=ENOSPC:when=1", "make the link model_bpr.pt: No space left on device"),
    ("renameat:error=EIO:when=1", "rename the link model_bpr.pt: Input/output error"),
    ("fsync:error=EIO:when=2", "fsync the data directory after the link model_bpr.pt: Input/output error"),
]


@pytest.mark.parametrize("inject,text", LINK_FAULTS, ids=[fault[0] for fault in LINK_FAULTS])
def test_link_faults(data, tmp_path, inject, text):
    result = run("--link", data, "model_bpr.pt", inject=inject, log=tmp_path / "log")
    assert result.returncode == 1 and result.stdout == f"failed: {text}\n"
    assert [name for name in os.listdir(data) if name.startswith(".")] == []
    assert run("--link", data, "model_bpr.pt").stdout == "linked\n"
    check_loads(data / "model_bpr.pt")
