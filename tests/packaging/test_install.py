"""What `make install` puts where, and whether systemd and man accept it."""
import os
import re
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BUILD", "build")
UNIT = "usr/lib/systemd/system/recd.service"
EXPOSURE_MAX = 2.0


def run(*command, **options):
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, stdin=subprocess.DEVNULL, **options)


def make(*goals):
    env = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "SAN")}
    done = run("make", "--no-print-directory", f"BUILD={BUILD}", *goals, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout


def need(tool):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")


def files_below(folder):
    return sorted(os.path.relpath(os.path.join(where, name), folder) for where, _, names in os.walk(folder) for name in names)


@pytest.fixture(scope="module", name="destdir")
def installed_tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("destdir")
    make("install", f"DESTDIR={folder}")
    return folder


def test_install_puts_every_file_in_its_place(destdir):
    assert files_below(destdir) == [
        "etc/recd/recd.conf",
        "usr/bin/recctl",
        "usr/bin/recd",
        UNIT,
        "usr/lib/sysusers.d/recd.conf",
        "usr/lib/tmpfiles.d/recd.conf",
        "usr/share/doc/recd/gpu.conf",
        "usr/share/doc/recd/kafka.conf",
        "usr/share/doc/recd/recd.conf.default",
        "usr/share/man/man1/recctl.1",
        "usr/share/man/man8/recd.8",
    ]


def test_install_keeps_a_configuration_that_is_there(tmp_path):
    conf = tmp_path / "etc/recd/recd.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("# mine\n")
    make("install", f"DESTDIR={tmp_path}")
    assert conf.read_text() == "# mine\n"


def test_uninstall_leaves_only_the_configuration(tmp_path):
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/opt/recd")
    assert "opt/recd/bin/recd" in files_below(tmp_path)
    make("uninstall", f"DESTDIR={tmp_path}", "PREFIX=/opt/recd")
    assert files_below(tmp_path) == ["etc/recd/recd.conf"]


def test_unit_starts_the_program_of_its_prefix(tmp_path):
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/opt/recd")
    unit = (tmp_path / "opt/recd/lib/systemd/system/recd.service").read_text()
    assert re.findall(r"^ExecStart=(\S+)", unit, re.M) == ["/opt/recd/bin/recd"]


def test_installed_configuration_is_accepted_by_the_installed_recd(destdir):
    done = run(str(destdir / "usr/bin/recd"), "--check-config", "--config", str(destdir / "etc/recd/recd.conf"))
    assert done.returncode == 0, done.stdout


def test_systemd_accepts_the_unit(destdir, tmp_path):
    need("systemd-analyze")
    unit = (destdir / UNIT).read_text().replace("ExecStart=/usr/bin/recd", f"ExecStart={destdir}/usr/bin/recd")
    copy = tmp_path / "recd.service"
    copy.write_text(unit)
    done = run("systemd-analyze", "verify", "--man=no", str(copy))
    complaints = [line for line in done.stdout.splitlines() if "recd" in line]
    assert done.returncode == 0 and not complaints, done.stdout


def exposure(unit):
    """systemd's own figure, 0.0 (sealed) to 10.0 (open)."""
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(unit))
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout
    return float(found.group(1))


def test_unit_exposure_is_at_most_2(destdir):
    need("systemd-analyze")
    unit = destdir / UNIT
    assert exposure(unit) <= EXPOSURE_MAX
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit))
    assert done.returncode == 0, done.stdout


def test_gpu_drop_in_opens_the_devices_and_stays_at_most_2(destdir, tmp_path):
    need("systemd-analyze")
    shutil.copy(destdir / UNIT, tmp_path / "recd.service")
    sealed = exposure(tmp_path / "recd.service")
    drop_ins = tmp_path / "recd.service.d"
    drop_ins.mkdir()
    shutil.copy(destdir / "usr/share/doc/recd/gpu.conf", drop_ins / "gpu.conf")
    opened = exposure(tmp_path / "recd.service")
    print(f"exposure {sealed} without the drop-in, {opened} with it")
    assert sealed < opened <= EXPOSURE_MAX


def test_kafka_drop_in_opens_the_network_and_stays_at_most_2(destdir, tmp_path):
    need("systemd-analyze")
    shutil.copy(destdir / UNIT, tmp_path / "recd.service")
    sealed = exposure(tmp_path / "recd.service")
    drop_ins = tmp_path / "recd.service.d"
    drop_ins.mkdir()
    shutil.copy(destdir / "usr/share/doc/recd/kafka.conf", drop_ins / "kafka.conf")
    opened = exposure(tmp_path / "recd.service")
    print(f"exposure {sealed} without the drop-in, {opened} with it")
    assert sealed < opened <= EXPOSURE_MAX


def test_sysusers_and_tmpfiles_are_accepted(destdir):
    need("systemd-sysusers")
    need("systemd-tmpfiles")
    done = run("systemd-sysusers", "--dry-run", f"--root={destdir}", "recd.conf")
    assert done.returncode == 0 and "recd" in done.stdout, done.stdout
    if os.geteuid() != 0:
        pytest.skip("systemd-tmpfiles needs root to hand a folder to another user")
    (destdir / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nrecd:x:4711:4711::/var/lib/recd:/usr/sbin/nologin\n")
    (destdir / "etc/group").write_text("root:x:0:\nrecd:x:4711:\n")
    try:
        done = run("systemd-tmpfiles", "--create", f"--root={destdir}", "recd.conf")
        assert done.returncode == 0, done.stdout
        data = os.stat(destdir / "var/lib/recd")
        assert (data.st_mode & 0o7777, data.st_uid) == (0o750, 4711)
    finally:
        (destdir / "etc/passwd").unlink()
        (destdir / "etc/group").unlink()
