"""recd and recctl on Kafka, each beside a bare librdkafka client in the same run: consuming, producing, and from an event to a changed answer.

    make bench-kafka                                             (everything, about four minutes)
    make bench-kafka BENCH_KAFKA="[consume] [produce] [answer] [--rounds N] [--impressions N]"

Consuming: logs of 100,000 users x 20,000 items lie in three topics of 4 partitions, lz4. A bare consumer with the settings of recd's source throws the records away;
recd decodes and applies them, with training and personal rows off (intercepts are still fitted). Both in turn, the order changing, after two rounds that do
not count; CPU time is that of all threads from the start of consumption to the last record, without recd's own start. Producing: bench_replay, a sixth of the
records. Answers: a watch is produced at once, and the user's list is asked for until the title is gone from it and his row was fitted on it, beside the time
until a bare consumer has the same record; 5,000 other records a second, training on.

The broker is scripts/kafka-dev's unless RECD_TEST_KAFKA names one, where topics named bench-* are left. It runs on the same processors: trust the ratios, and look at the
spread.
"""
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(HERE)), "e2e"))
from recd_process import BUILD, RECCTL, ROOT, Recd, UnixConnection  # noqa: E402

BENCH = os.environ.get("BENCH") or os.path.join(BUILD, "bench")
KAFKA_DEV = os.path.join(ROOT, "scripts", "kafka-dev")
STREAMS = ("impressions", "events", "watch_stats")
TICKS = os.sysconf("SC_CLK_TCK")
GOAL_CPU, GOAL_WALL, GOAL_PRODUCE, GOAL_P99_MS = 0.60, 0.80, 0.80, 500
PER_SECOND, PROBES = 5000, 250
PATIENCE_SEC = 120
# Neither training nor personal rows (nobody has so many positives) nor checkpoints.
APPLY_ONLY = "training = { enabled = false; };\npersonalize = { min_positives = 1000000; };\ncheckpoint = { interval_sec = 0; };"


def run(*words, **options):
    return subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if len(ordered) % 2 else (ordered[len(ordered) // 2 - 1] + ordered[len(ordered) // 2]) / 2


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def spread(values):
    return f"{min(values):,.0f} to {max(values):,.0f}"


def verdict(ratio, goal):
    return f"{100 * ratio:.0f} % of bare; goal {100 * goal:.0f} %: {'met' if ratio >= goal else 'NOT MET'}"


class KafkaRecd(Recd):
    """recd that reads three topics, PREFIX and the stream's name."""

    def __init__(self, folder, brokers, prefix, settings):
        self.brokers, self.prefix = brokers, prefix
        super().__init__(folder, settings)

    def write_conf(self, settings):
        streams = "".join(f'\t{stream} = {{ topic = "{self.prefix}{stream}"; }};\n' for stream in STREAMS)
        self.conf.write_text(
            f'data_dir = "{self.data}";\nsources = {{\n{streams}}};\nserver = {{ socket = "{self.socket}"; }};\n'
            f'kafka = {{ brokers = "{self.brokers}"; group = "bench-{secrets.token_hex(4)}"; }};\n{settings}\n'
        )

    def cpu_s(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def synth(folder, users, items, impressions, seed=42):
    run(RECCTL, "synth", "--out_dir", folder, "--num_users", users, "--num_items", items, "--num_impressions", impressions, "--seed", seed)
    for name in ("items", "users", "train_samples"):
        (folder / f"{name}.jsonl").unlink()
    return sum((folder / f"{stream}.jsonl").read_bytes().count(b"\n") for stream in STREAMS)


def replay(brokers, folder, prefix, *flags, streams=STREAMS):
    return [RECCTL, "replay", "--brokers", brokers, "--data_dir", str(folder), "--topic_prefix", prefix, "--streams", ",".join(streams), *flags]


# ---- consuming ----


def consume_bare(brokers, prefix, records):
    done = json.loads(run(os.path.join(BENCH, "kafka", "bare_consume"), brokers, records, *[prefix + stream for stream in STREAMS]))
    return done["wall_s"], done["cpu_s"], done["bytes"]


def consume_recd(brokers, prefix, records, folder):
    work = pathlib.Path(tempfile.mkdtemp(prefix="consume-", dir=folder))
    recd = KafkaRecd(work, brokers, prefix, APPLY_ONLY)
    try:
        recd.start()
        began, cpu = time.monotonic(), recd.cpu_s()
        while (taken := recd.taken()) < records:
            elapsed = time.monotonic() - began
            if elapsed > PATIENCE_SEC or recd.process.poll() is not None:
                raise SystemExit(f"bench_kafka: recd has not taken all records after {PATIENCE_SEC} s; the last of its log: {recd.log()[-800:]}")
            left = elapsed * (records - taken) / taken if taken else 0
            time.sleep(min(0.1, max(0.02, left / 2)))  # each answer costs recd a millisecond
        wall, cpu = time.monotonic() - began, recd.cpu_s() - cpu
        applied = sum(recd.status()["counters"]["events_applied"].values())
        if applied != records:
            raise SystemExit(f"bench_kafka: {applied} records applied, {records} expected")
        return wall, cpu
    finally:
        recd.kill()
        shutil.rmtree(work, ignore_errors=True)


def consuming(brokers, folder, prefix, records, rounds):
    print(f"\nconsuming: {records:,} records, 3 topics x 4 partitions, lz4; {rounds} rounds")
    walls, cpus = {"bare": [], "recd": []}, {"bare": [], "recd": []}
    for _ in range(2):  # the broker's machine code is still being made: its compiler would take turns of these processors
        consume_bare(brokers, prefix, records)
        consume_recd(brokers, prefix, records, folder)
    for serial in range(rounds):
        for kind in ("bare", "recd") if serial % 2 == 0 else ("recd", "bare"):
            wall, cpu = consume_bare(brokers, prefix, records)[:2] if kind == "bare" else consume_recd(brokers, prefix, records, folder)
            walls[kind].append(records / wall)
            cpus[kind].append(records / cpu)
            print(f"  round {serial + 1}  {kind}  {wall:6.2f} s wall  {cpu:6.2f} s CPU   load {os.getloadavg()[0]:.1f}", flush=True)
    for kind in ("bare", "recd"):
        print(f"  {kind}  median {median(cpus[kind]):12,.0f} records a CPU-second ({spread(cpus[kind])}), {median(walls[kind]):12,.0f} records/s ({spread(walls[kind])})")
    print(f"  CPU:  {verdict(median(cpus['recd']) / median(cpus['bare']), GOAL_CPU)}")
    print(f"  wall: {verdict(median(walls['recd']) / median(walls['bare']), GOAL_WALL)}", flush=True)


# ---- from an event to a changed answer ----


class Client:
    """One connection to recd, kept open."""

    def __init__(self, path):
        self.connection = UnixConnection(path)

    def get(self, path):
        self.connection.request("GET", path)
        return json.loads(self.connection.getresponse().read())


class Probes:
    """The process that produces single records; when each was sent and seen, in seconds of the monotonic clock."""

    def __init__(self, brokers, topic):
        self.sent, self.seen = {}, {}
        self.process = subprocess.Popen([os.path.join(BENCH, "kafka", "probe_latency"), brokers, topic], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise SystemExit("bench_kafka: probe_latency did not start")
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            what, serial, nanoseconds = line.split()
            (self.sent if what == "sent" else self.seen)[int(serial)] = int(nanoseconds) / 1e9

    def send(self, serial, user, line):
        self.process.stdin.write(f"{serial} {user} {json.dumps(line)}\n")
        self.process.stdin.flush()

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


def probe(probes, client, user, serial):
    """When the answer was masked and folded in, monotonic seconds; None for a user without a row of his own."""
    before = client.get(f"/v1/users/{user}/top?k=10")
    if before["served"] != "personalized":
        return None
    item, positives = before["items"][0]["item_id"], before["fitted_positives"]
    probes.send(serial, user, {"watch_id": f"w-probe-{serial}", "user_id": user, "item_id": item, "started_at": "2026-03-01T00:00:00+00:00", "completion": 0.95})
    began, masked = time.monotonic(), None
    while time.monotonic() - began < 30:
        answer = client.get(f"/v1/users/{user}/top?k=10")
        now = time.monotonic()
        if masked is None and all(ranked["item_id"] != item for ranked in answer["items"]):
            masked = now
        if masked is not None and answer.get("fitted_positives", 0) > positives:
            return masked, now
        time.sleep(0.001)
    raise SystemExit(f"bench_kafka: user {user} had no fresh answer after 30 s")


def report_answers(times, probes, rate):
    """`times`: {serial: (masked, folded)}."""
    masked = [(times[s][0] - probes.sent[s]) * 1e3 for s in times]
    folded = [(times[s][1] - probes.sent[s]) * 1e3 for s in times]
    broker = [(probes.seen[s] - probes.sent[s]) * 1e3 for s in times if s in probes.seen]
    print(f"  broker alone, produce to consume  p50 {percentile(broker, .5):6.1f} ms, p99 {percentile(broker, .99):6.1f} ms  ({len(broker)} records)")
    print(f"  title masked                      p50 {percentile(masked, .5):6.1f} ms, p99 {percentile(masked, .99):6.1f} ms")
    p99 = percentile(folded, .99)
    print(f"  folded in                         p50 {percentile(folded, .5):6.1f} ms, p99 {p99:6.1f} ms  goal p99 < {GOAL_P99_MS} ms: {'met' if p99 < GOAL_P99_MS else 'NOT MET'}"
          f"  ({len(folded)} probes, {rate / 1e6:.1f} M triples/s)", flush=True)


def answers(brokers, folder):
    logs, more = folder / "answer", folder / "background"
    records = synth(logs, 2000, 5000, 300000)
    synth(more, 2000, 5000, 400000, seed=43)
    prefix = f"bench-{secrets.token_hex(4)}-"
    run(*replay(brokers, logs, prefix, "--create"), stderr=subprocess.DEVNULL)
    recd = KafkaRecd(pathlib.Path(tempfile.mkdtemp(prefix="answer-", dir=folder)), brokers, prefix, "training = { idle_passes = 1000000; threads = 2; };")
    probes, background, times = None, None, {}
    try:
        recd.start()
        recd.wait(lambda: recd.taken() >= records, "not everything taken")
        recd.wait(lambda: recd.status()["fold_in_waiting"] == 0, "not folded in")
        print(f"\nevent to changed answer through the broker: 2,000 users x 5,000 items, d = 64, {PER_SECOND:,} other records/s, training on")
        background = subprocess.Popen(replay(brokers, more, prefix, "--rate", str(PER_SECOND), streams=("impressions",)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        probes, client = Probes(brokers, prefix + "watch_stats"), Client(recd.socket)
        time.sleep(1)  # the first probe meets a running stream
        for serial in range(PROBES):
            done = probe(probes, client, (serial * 37) % 2000, serial)
            if done:
                times[serial] = done
            time.sleep(0.02)
        if background.poll() is not None:
            raise SystemExit("bench_kafka: the background ended too early")
        rate = client.get("/v1/status")["triples_per_sec"]
        probes.close()
        report_answers(times, probes, rate)
    finally:
        for process in (background, probes.process if probes else None):
            if process and process.poll() is None:
                process.kill()
                process.wait()
        recd.kill()


# ---- the whole ----


def start_broker(folder):
    """(address, how to end it)"""
    own = os.environ.get("RECD_TEST_KAFKA", "")
    if own and own != "mock":
        return own, lambda: None
    broker = folder / "broker"
    done = subprocess.run([KAFKA_DEV, "start", "--dir", str(broker)], stdout=subprocess.PIPE, text=True)
    if done.returncode == 3:
        print("SKIP: no Kafka here (see the line above); RECD_TEST_KAFKA=HOST:PORT names one's own")
        shutil.rmtree(folder, ignore_errors=True)
        sys.exit(0)
    if done.returncode:
        raise SystemExit("bench_kafka: the broker does not start")
    return done.stdout.strip(), lambda: run(KAFKA_DEV, "wipe", "--dir", broker)


def arguments():
    """(parts, rounds, impressions)"""
    parts, numbers, words = [], {"--rounds": 6, "--impressions": 5000000}, sys.argv[1:]
    while words:
        word = words.pop(0)
        if word in numbers and words:
            numbers[word] = int(words.pop(0))
        elif word in ("consume", "produce", "answer"):
            parts.append(word)
        else:
            raise SystemExit(__doc__)
    return parts or ["consume", "produce", "answer"], numbers["--rounds"], numbers["--impressions"]


def main():
    parts, rounds, impressions = arguments()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="recd-bench-"))
    end_broker = lambda: None  # noqa: E731
    try:
        brokers, end_broker = start_broker(folder)
        print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} before the run")
        logs = folder / "logs"
        if "consume" in parts:
            records = synth(logs, 100000, 20000, impressions)
            prefix = f"bench-{secrets.token_hex(4)}-"
            run(*replay(brokers, logs, prefix, "--create"), stderr=subprocess.DEVNULL)
            consuming(brokers, folder, prefix, records, rounds)
        if "produce" in parts:
            print(f"\nproducing: goal {100 * GOAL_PRODUCE:.0f} % of a bare idempotent producer", flush=True)
            synth(folder / "produce", 100000, 20000, impressions // 6)
            subprocess.run([os.path.join(BENCH, "bench_replay"), str(folder / "produce"), "3"], check=True, env={**os.environ, "RECD_BENCH_KAFKA": brokers, "RECCTL": RECCTL})
        if "answer" in parts:
            answers(brokers, folder)
        print(f"load {os.getloadavg()[0]:.1f} after the run")
    finally:
        end_broker()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
