"""Event to changed answer: milliseconds from a watch being written to a log file until recd's answer for that user is fitted on it.

    RECD=build/recd RECCTL=build/recctl /usr/bin/python3 tests/bench/bench_answer.py [PROBES [LINES_PER_SEC]]

recd tails files of 2,000 users x 5,000 items and trains all the time. A background stream of lines of other users is appended at the given rate. Each probe
appends one far-enough watch of a user's first recommendation and asks for that user's list until two things have happened: the title is gone from it (masked),
and the personal row behind it is fitted on one positive more (folded in). The probe counts only while the lag is under a second. Printed beside the same
with training switched off. Limit: p99 under 250 ms.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from recd_process import RECCTL, Recd, UnixConnection  # noqa: E402

LIMIT_MS = 250
SETTINGS = "training = {{ enabled = {training}; idle_passes = 1000000; threads = 2; }};"


class Client:
    """One connection, kept open."""

    def __init__(self, path):
        self.connection = UnixConnection(path)

    def get(self, path):
        self.connection.request("GET", path)
        return json.loads(self.connection.getresponse().read())


def background(recd, lines, per_second, stop):
    """Appends the lines, a few every ten milliseconds."""
    began, sent = time.monotonic(), 0
    with open(recd.logs / "impressions.jsonl", "a", buffering=1) as file:
        while not stop.is_set() and sent < len(lines):
            due = min(len(lines), int((time.monotonic() - began) * per_second))
            if due > sent:
                file.write("".join(lines[sent:due]))
                file.flush()
                sent = due
            time.sleep(0.01)


def probe(recd, client, user, serial):
    """(masked, folded) in milliseconds."""
    before = client.get(f"/v1/users/{user}/top?k=10")
    if before["served"] != "personalized":
        return None
    item, positives = before["items"][0]["item_id"], before["fitted_positives"]
    line = {"watch_id": f"w-probe-{serial}", "user_id": user, "item_id": item, "started_at": "2026-03-01T00:00:00+00:00", "completion": 0.95}
    began, masked = time.monotonic(), None
    with open(recd.logs / "watch_stats.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    while time.monotonic() - began < 30:
        answer = client.get(f"/v1/users/{user}/top?k=10")
        now = time.monotonic() - began
        if masked is None and all(it["item_id"] != item for it in answer["items"]):
            masked = now
        if masked is not None and answer.get("fitted_positives", 0) > positives:
            return masked * 1e3, now * 1e3
        time.sleep(0.001)
    raise SystemExit(f"bench_answer: user {user} had no fresh answer after 30 s")


def run(folder, logs, training, probes, per_second):
    work = pathlib.Path(tempfile.mkdtemp(prefix="answer-", dir=folder))
    recd = Recd(work, SETTINGS.format(training="true" if training else "false"))
    impressions = (logs / "impressions.jsonl").read_text().splitlines(keepends=True)
    half = len(impressions) // 2
    for name in ("items", "events", "watch_stats"):
        shutil.copy(logs / f"{name}.jsonl", recd.logs)
    (recd.logs / "impressions.jsonl").write_text("".join(impressions[:half]))
    recd.start()
    recd.wait_taken(half + sum((logs / f"{name}.jsonl").read_bytes().count(b"\n") for name in ("items", "events", "watch_stats")))
    recd.wait(lambda: recd.status()["fold_in_waiting"] == 0, "not folded in")
    stop = threading.Event()
    stream = threading.Thread(target=background, args=(recd, impressions[half:], per_second, stop))
    stream.start()
    client, times = Client(recd.socket), []
    for serial in range(probes):
        if any(source["lag_bytes"] > per_second * 170 for source in client.get("/v1/status")["sources"]):
            time.sleep(0.05)
            continue
        times.append(probe(recd, client, (serial * 37) % 2000, serial))
        time.sleep(0.02)
    rate = client.get("/v1/status")["triples_per_sec"]
    stop.set()
    stream.join()
    client.connection.close()
    recd.kill()
    shutil.rmtree(work)
    return [t for t in times if t], rate


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main():
    probes = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    per_second = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    folder = pathlib.Path(tempfile.mkdtemp(prefix="recd-bench-"))
    try:
        logs = folder / "all"
        subprocess.run([RECCTL, "synth", "--out_dir", logs, "--num_users", "2000", "--num_items", "5000", "--num_impressions", "600000"], check=True, stdout=subprocess.DEVNULL)
        print(f"event to changed answer, 2,000 users x 5,000 items, d = 64, {per_second} other lines/s, {probes} probes")
        for training in (True, False):
            times, rate = run(folder, logs, training, probes, per_second)
            masked, folded = [t[0] for t in times], [t[1] for t in times]
            p99 = percentile(folded, 0.99)
            print(
                f"  training {'on ' if training else 'off'} ({rate / 1e6:4.1f} M triples/s): masked p50 {percentile(masked, .5):6.1f} ms, p99 {percentile(masked, .99):6.1f}; "
                f"folded in p50 {percentile(folded, .5):6.1f} ms, p99 {p99:6.1f} = {p99 / LIMIT_MS:.2f} of the limit ({len(times)} counted)"
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
