"""The installed service under a real systemd, in a container that sees this machine's files through an overlay and has no network.

One boot (some 15 seconds) runs BOOT_SCRIPT, which writes what it saw to /result; the tests read it. Nothing of this machine is changed.
"""
import json
import os
import shutil
import subprocess
import tempfile

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BUILD", "build")
SYSTEMD = "/usr/lib/systemd/systemd"
WATCH = '{"watch_id":"w-%d","user_id":%d,"item_id":%d,"started_at":"2025-12-10T12:01:00+00:00","completion":0.9}\n'

BOOT_SCRIPT = r"""#!/bin/bash
exec 2>/errors
say() { printf '%s\t%s\n' "$1" "$2" >> /result; }
show() { systemctl show recd -p "$1" --value; }
until_is() { for _ in $(seq 600); do [ "$(show "$1")" = "$2" ] && return; sleep 0.1; done; }
say booted yes
systemd-sysusers recd.conf && systemd-tmpfiles --create recd.conf
systemctl daemon-reload
systemctl start recd; say start $?
say state "$(show ActiveState)"
say user "$(ps -o user= -p "$(show MainPID)")"
say status "$(recctl status --json)"
recctl snapshot > /dev/null; say snapshot $?
say capabilities "$(sed -n 's/^CapEff:\t//p' "/proc/$(show MainPID)/status")"

before=$(show MainPID)
systemctl reload recd; say reload $?
cp /etc/recd/recd.conf /etc/recd/good.conf
echo 'no_such_key = 1;' >> /etc/recd/recd.conf
kill -HUP "$before"; sleep 1
recctl status --json > /dev/null; say serves_after_bad_reload $?
[ "$(show MainPID)" = "$before" ] && say same_process_after_reloads yes

kill -STOP "$before"
until_is NRestarts 1; until_is ActiveState failed
say restarts_of_a_hung_one "$(show NRestarts)"
say exit_of_bad_configuration "$(show ExecMainStatus)"
say state_with_bad_configuration "$(show ActiveState)"

cp /etc/recd/good.conf /etc/recd/recd.conf
mkdir -p /etc/systemd/system/recd.service.d && cp /usr/share/doc/recd/gpu.conf /etc/systemd/system/recd.service.d/
systemctl daemon-reload; systemctl reset-failed recd
systemctl start recd; say start_with_gpu_drop_in $?
say status_after_restart "$(recctl status --json)"
systemctl stop recd; say stop $?
say result_of_stop "$(show Result)"
ls /var/lib/recd/model_bpr.pt /var/lib/recd/model_bpr_personalized.pt > /dev/null; say models $?
find /var/lib/recd -perm /o+rwx ! -type l > /readable_by_others
say readable_by_others "$(tr '\n' ' ' < /readable_by_others)"
journalctl -u recd --no-pager -o cat > /journal
"""

TEST_UNIT = """[Unit]
DefaultDependencies=no
After=basic.target systemd-journald.service
Wants=systemd-journald.service
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/boot-script
TimeoutStartSec=300
"""


def run(*command, **options):
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False, **options)


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)
    os.chmod(path, mode)


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as text:
            return text.read()
    except OSError:
        return ""


def boot(top):
    """Installs into the overlay, boots it, and returns what the script said (name -> value)."""
    env = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "SAN")}
    done = run("make", "--no-print-directory", f"BUILD={BUILD}", "install", f"DESTDIR={top}", cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout
    write(f"{top}/boot-script", BOOT_SCRIPT, 0o755)
    write(f"{top}/etc/systemd/system/recd-test.service", TEST_UNIT)
    write(f"{top}/etc/systemd/system/recd.service.d/test.conf", "[Service]\nWatchdogSec=8\n")
    write(f"{top}/etc/recd/recd.conf",
          'sources = { watch_stats = { files = ["/var/log/cinema/watch_stats.jsonl"]; }; };\ntraining = { emb_dim = 8; idle_passes = 5; };\n')
    write(f"{top}/var/log/cinema/watch_stats.jsonl", "".join(WATCH % (n, n % 5, n) for n in range(50)))
    if os.path.exists(f"{top}/etc/machine-id"):
        os.unlink(f"{top}/etc/machine-id")  # two machines must not share it
    try:
        console = run("systemd-nspawn", "-D", top, "--register=no", "--keep-unit", "--private-network", "-q", "-b",
                      "systemd.unit=recd-test.service", timeout=400).stdout
    except subprocess.TimeoutExpired as late:
        console = str(late)
    said = dict(line.split("\t", 1) for line in read(f"{top}/result").splitlines())
    if said.get("booted") != "yes":
        pytest.skip(f"a container does not boot here: {' '.join(console.split())[-200:]}")
    said["journal"] = read(f"{top}/journal")
    said["errors"] = read(f"{top}/errors")
    return said


@pytest.fixture(scope="module", name="said")
def what_the_boot_said():
    if os.geteuid() != 0:
        pytest.skip("booting a container needs root")
    if not shutil.which("systemd-nspawn") or not os.path.exists(SYSTEMD):
        pytest.skip("systemd or systemd-nspawn is not installed")
    scratch = tempfile.mkdtemp(prefix="recd-boot-")
    mounted = []
    try:
        if run("mount", "-t", "tmpfs", "tmpfs", scratch).returncode != 0:
            pytest.skip("no tmpfs can be mounted here")
        mounted.append(scratch)
        for name in ("up", "work", "top"):
            os.mkdir(f"{scratch}/{name}")
        done = run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={scratch}/up,workdir={scratch}/work", f"{scratch}/top")
        if done.returncode != 0:
            pytest.skip("no overlay can be mounted here")
        mounted.append(f"{scratch}/top")
        yield boot(f"{scratch}/top")
    finally:
        for folder in reversed(mounted):
            run("umount", folder)
        os.rmdir(scratch)


def test_service_is_active_once_it_has_started(said):
    assert (said["start"], said["state"], said["user"]) == ("0", "active", "recd"), said["journal"] + said["errors"]
    assert json.loads(said["status"])["ready"] is True


def test_sandbox_lets_recd_do_its_work_without_any_capability(said):
    assert int(said["capabilities"], 16) == 0
    assert (said["snapshot"], said["models"]) == ("0", "0"), said["journal"]
    assert said["readable_by_others"] == ""


def test_reload_keeps_the_process_and_a_bad_one_keeps_serving(said):
    assert (said["reload"], said["serves_after_bad_reload"]) == ("0", "0"), said["journal"]
    assert said["same_process_after_reloads"] == "yes"
    assert "no_such_key" in said["journal"]


def test_watchdog_ends_a_hung_recd_and_systemd_restarts_it(said):
    assert said["restarts_of_a_hung_one"] == "1", said["journal"]


def test_bad_configuration_is_not_tried_again(said):
    assert (said["exit_of_bad_configuration"], said["state_with_bad_configuration"]) == ("2", "failed"), said["journal"]


def test_goes_on_from_its_checkpoint_and_with_the_gpu_drop_in(said):
    assert said["start_with_gpu_drop_in"] == "0", said["journal"]
    before, after = json.loads(said["status"]), json.loads(said["status_after_restart"])
    assert after["histories_digest"] == before["histories_digest"]


def test_stops_with_success(said):
    assert (said["stop"], said["result_of_stop"]) == ("0", "success"), said["journal"]
