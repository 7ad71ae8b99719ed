"""recd as a process under test: a folder, a configuration, start and stop, requests over its socket, status polls.

RECD names the binary (else recd in the build folder). Everything lives in the folder given; a process is ended by its pid.
"""
import http.client
import json
import os
import signal
import socket
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
RECD = os.environ.get("RECD") or os.path.join(BUILD, "recd")
RECCTL = os.environ.get("RECCTL") or os.path.join(BUILD, "recctl")
PATIENCE_SEC = 60


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("recd", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Recd:
    """One data directory and the daemon on it. `settings` are lines of recd.conf, `wrapper` a command to run recd under."""

    def __init__(self, folder, settings="", data_dir=None, wrapper=(), notify=None):
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(exist_ok=True)
        self.data = data_dir or folder / "state"
        self.socket = str(folder / "s")
        self.conf = folder / "recd.conf"
        self.stderr = folder / "recd.log"
        self.settings = settings
        self.wrapper = list(wrapper)
        self.notify = notify
        self.process = None
        self.write_conf(settings)

    def write_conf(self, settings):
        streams = "".join(
            f'\t{name} = {{ files = ["{self.logs}/{file}*.jsonl"]; }};\n'
            for name, file in [("watch_stats", "watch_stats"), ("impressions", "impressions"), ("events", "events"), ("catalogue", "items")]
        )
        self.conf.write_text(f'data_dir = "{self.data}";\nsources = {{\n{streams}}};\nserver = {{ socket = "{self.socket}"; }};\n{settings}\n')

    def spawn(self, *arguments):
        env = dict(os.environ)
        env.pop("NOTIFY_SOCKET", None)
        if self.notify:
            env["NOTIFY_SOCKET"] = self.notify
        with open(self.stderr, "a") as log:
            self.process = subprocess.Popen([*self.wrapper, RECD, "--config", str(self.conf), *arguments], stderr=log, stdin=subprocess.DEVNULL, env=env)

    def start(self):
        self.spawn()
        self.wait(lambda: self.request("GET", "/readyz")[0] == 200, "not ready")
        return self

    def pid(self):
        """recd's own pid, also under a wrapper such as strace."""
        return int((self.data / "LOCK").read_text()) if self.wrapper else self.process.pid

    def wait(self, condition, what):
        end = time.monotonic() + PATIENCE_SEC
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"recd ended with {self.process.returncode}: {self.log()[-800:]}")
            try:
                if condition():
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"{what} after {PATIENCE_SEC} s: {self.log()[-800:]}")

    def request(self, method, path, timeout=30):
        connection = UnixConnection(self.socket, timeout)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read().decode()
            return answer.status, json.loads(body) if body.startswith("{") else body
        finally:
            connection.close()

    def status(self):
        return self.request("GET", "/v1/status")[1]

    def log(self):
        return self.stderr.read_text() if self.stderr.exists() else ""

    def snapshot(self):
        return self.request("POST", "/v1/snapshot")

    def append(self, stream, lines):
        with open(self.logs / f"{stream}.jsonl", "a") as file:
            file.write("".join(json.dumps(line) + "\n" if isinstance(line, dict) else line for line in lines))

    def taken(self):
        return sum(position["lines"] for position in self.status()["positions"])

    def wait_taken(self, lines):
        self.wait(lambda: self.taken() >= lines, f"{lines} lines not taken")

    def stop(self, number=signal.SIGTERM, timeout=PATIENCE_SEC):
        os.kill(self.pid(), number)
        return self.process.wait(timeout)

    def kill(self):
        if self.process and self.process.poll() is None:
            try:
                os.kill(self.pid(), signal.SIGKILL)
            except (OSError, ValueError):
                pass
            self.process.kill()
            self.process.wait()


def watches(users, items, first=0, completion=0.9, day=10):
    """A watch of each item by each user of the same half."""
    return [
        {"user_id": u, "item_id": 1000 + 2 * i + u % 2, "started_at": f"2025-12-{day:02d}T12:{(first + i) % 60:02d}:00+00:00", "completion": completion}
        for u in range(users)
        for i in range(first, first + items)
    ]
