"""A Kafka for the tests: a real broker (scripts/kafka-dev, or one's own by RECD_TEST_KAFKA=HOST:PORT), or librdkafka's mock cluster; and recd reading from it.

Fixtures (conftest.py takes them in): `kafka` is a real broker, one for the whole session; a test skips with the reason where none can be had. `any_kafka` is
the same broker, else the mock (RECD_TEST_KAFKA=mock asks for it). Topics have names of their own, so tests share a broker without meeting.
"""
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import tempfile
import threading
import time

import pytest

from recd_process import BUILD, RECCTL, ROOT, Recd

TOOL = os.path.join(BUILD, "tests", "kafka_tool")
KAFKA_DEV = os.path.join(ROOT, "scripts", "kafka-dev")
OWN = os.environ.get("RECD_TEST_KAFKA", "")
SMALL = "training = { emb_dim = 8; threads = 1; idle_passes = 5; };"


class Broker:
    """A broker at an address. `folder` is that of scripts/kafka-dev, None for a broker that is not ours to end."""

    real = True

    def __init__(self, address, folder=None):
        self.address = address
        self.folder = folder
        self.ours = folder is not None or not self.real

    def tool(self, *words, stdin=None):
        done = subprocess.run([TOOL, "--brokers", self.address, *map(str, words)], input=stdin, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"kafka_tool {words}: {done.stderr}"
        return done.stdout

    def topic(self, stem, partitions=1, name=None, **config):
        """Makes a topic and returns its name. Settings are written with _ for the dots: retention_ms=1000."""
        name = name or f"{stem}-{secrets.token_hex(4)}"
        flags = [word for key, value in config.items() for word in ("--config", f"{key.replace('_', '.')}={value}")]
        self.tool("create", name, "--partitions", partitions, *flags)
        return name

    def produce(self, topic, lines, *flags):
        """Lines: a path, or a list of dicts and strings. Returns how many records went in."""
        if isinstance(lines, (str, pathlib.Path)):
            return int(self.tool("produce", topic, lines, *flags))
        text = "".join((json.dumps(line) if isinstance(line, dict) else line) + "\n" for line in lines)
        return int(self.tool("produce", topic, "-", *flags, stdin=text))

    def watermarks(self, topic):
        """{partition: (first offset, next offset)}"""
        rows = [list(map(int, line.split())) for line in self.tool("watermarks", topic).splitlines()]
        return {partition: (first, end) for partition, first, end in rows}

    def committed(self, group, topic):
        """{partition: offset}; -1 where nothing is committed."""
        return {int(line.split()[0]): int(line.split()[1]) for line in self.tool("committed", group, topic).splitlines()}

    def _dev(self, command, *flags):
        if not self.folder:
            pytest.skip("the broker of RECD_TEST_KAFKA is not ours to start, end or log in to")
        done = subprocess.run([KAFKA_DEV, command, "--dir", self.folder, *flags], capture_output=True, text=True, timeout=600)  # it fetches for 240 s and waits for a broker for 90 s at most
        if done.returncode == 3:
            pytest.skip(f"no Kafka here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def sasl_address(self):
        return self._dev("status", "--sasl")

    def tls_address(self):
        """The address, and the file with the certificate to trust."""
        return self._dev("status", "--tls").split(" ", 1)

    def kill(self):
        self._dev("kill")

    def start(self):
        self.address = self._dev("start")

    def close(self):
        if self.folder:
            self._dev("wipe")
            shutil.rmtree(os.path.dirname(self.folder), ignore_errors=True)


class Mock(Broker):
    """librdkafka's mock cluster: no admin requests, no markers, about 5 MiB a partition; it can be told to be down."""

    real = False

    def __init__(self):
        self.process = subprocess.Popen([TOOL, "mock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lock = threading.Lock()
        super().__init__(self.process.stdout.readline().strip())

    def say(self, line):
        with self.lock:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline().strip()
        assert answer == "done", f"{line}: {answer}"

    def topic(self, stem, partitions=1, name=None, **config):
        name = name or f"{stem}-{secrets.token_hex(4)}"
        self.say(f"topic {name} {partitions}")
        return name

    def kill(self):
        self.say("down")

    def start(self):
        self.say("up")

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)


def real_broker():
    if OWN == "mock":
        pytest.skip("RECD_TEST_KAFKA asks for the mock cluster, which cannot do this")
    if OWN:
        return Broker(OWN)
    broker = Broker("", os.path.join(tempfile.mkdtemp(prefix="recd-kafka-"), "broker"))
    try:
        broker.start()
    except BaseException:
        shutil.rmtree(os.path.dirname(broker.folder), ignore_errors=True)
        raise
    return broker


@pytest.fixture(scope="session")
def kafka_session():
    """One broker for the session; a place that remembers the reason when there is none."""
    found = {}
    yield found
    for broker in found.values():
        if isinstance(broker, Broker):
            broker.close()


def shared(session, key, make):
    if key not in session:
        try:
            session[key] = make()
        except pytest.skip.Exception as reason:
            session[key] = str(reason)
    return session[key]


@pytest.fixture
def kafka(kafka_session):
    broker = shared(kafka_session, "real", real_broker)
    if isinstance(broker, str):
        pytest.skip(broker)
    if broker.folder:
        broker.start()  # a test before may have left it down
    return broker


@pytest.fixture
def any_kafka(kafka_session):
    broker = shared(kafka_session, "real", real_broker)
    if isinstance(broker, str):
        broker = shared(kafka_session, "mock", Mock)
    elif broker.folder:
        broker.start()
    return broker


@pytest.fixture
def mock_kafka(kafka_session):
    """Always the mock cluster: for faults that a real broker cannot be told to have."""
    return shared(kafka_session, "mock", Mock)


class KafkaRecd(Recd):
    """recd on topics. `topics` maps a stream to its topic, `files` names streams that are read from files too; `kafka` holds lines for the group kafka."""

    def __init__(self, folder, broker, topics, settings=SMALL, kafka="", files=(), brokers=None):
        self.broker = broker
        self.brokers = brokers or broker.address
        self.topics = topics
        self.files = files
        self.group = f"recd-{secrets.token_hex(4)}"
        self.kafka = kafka
        super().__init__(folder, settings)

    def write_conf(self, settings):
        streams = ""
        for stream in sorted(set(self.topics) | set(self.files)):
            topic = f'topic = "{self.topics[stream]}"; ' if stream in self.topics else ""
            files = f'files = ["{self.logs}/{"items" if stream == "catalogue" else stream}*.jsonl"]; ' if stream in self.files else ""
            streams += f"\t{stream} = {{ {topic}{files}}};\n"
        self.conf.write_text(
            f'data_dir = "{self.data}";\nsources = {{\n{streams}}};\nserver = {{ socket = "{self.socket}"; }};\n'
            f'kafka = {{ brokers = "{self.brokers}"; group = "{self.group}"; {self.kafka} }};\n{settings}\n'
        )

    def position(self, topic, partition=0):
        """The position of one partition; None before its first batch was applied."""
        return next((p for p in self.status()["positions"] if p["name"].endswith(f":{topic}:{partition}")), None)

    def partition(self, topic, partition=0):
        return next((p for p in self.status()["partitions"] if p["name"].endswith(f":{topic}:{partition}")), None)

    def source(self, stream):
        return next(s for s in self.status()["sources"] if s["name"] == f"kafka:{stream}")

    def wait_offset(self, topic, offset, partition=0):
        self.wait(lambda: (self.position(topic, partition) or {"offset": -1})["offset"] >= offset, f"offset {offset} of {topic} not taken")

    def result(self):
        """What must be the same, however often recd or the broker ended on the way."""
        status = self.status()
        return {key: status[key] for key in ("histories_digest", "positions_digest", "n_positives", "counters")}

    def expect_end(self, code):
        """Waits until recd ends by itself; returns its log."""
        assert self.process.wait(60) == code, self.log()[-800:]
        return self.log()


@pytest.fixture
def make_kafka_recd():
    made = []

    def make(broker, topics, **options):
        recd = KafkaRecd(pathlib.Path(tempfile.mkdtemp(prefix="recd-e2e-")), broker, topics, **options)
        made.append(recd)
        return recd

    yield make
    for recd in made:
        recd.kill()
        shutil.rmtree(recd.folder, ignore_errors=True)


STREAMS = ("watch_stats", "impressions", "events")


class Logs:
    """Logs of an online cinema in a folder, the same for the same numbers. `lines` counts those of the three streams."""

    def __init__(self, folder, impressions, users=60, items=400, seed=42):
        self.folder = pathlib.Path(folder)
        subprocess.run([RECCTL, "synth", "--out_dir", folder, "--num_users", str(users), "--num_items", str(items), "--num_impressions", str(impressions),
                        "--seed", str(seed)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.counts = {stream: self.path(stream).read_bytes().count(b"\n") for stream in (*STREAMS, "catalogue")}
        self.lines = sum(self.counts[stream] for stream in STREAMS)

    def path(self, stream):
        return self.folder / f"{'items' if stream == 'catalogue' else stream}.jsonl"

    def topics(self, broker, partitions=4, streams=STREAMS, fill=True):
        """A topic a stream, filled with its log. {stream: topic}"""
        topics = {stream: broker.topic(stream, partitions) for stream in streams}
        for stream, topic in topics.items():
            if fill:
                assert broker.produce(topic, self.path(stream)) == self.counts[stream]
        return topics


@pytest.fixture(scope="session")
def small_logs():
    folder = tempfile.mkdtemp(prefix="recd-logs-")
    yield Logs(folder, 20000)
    shutil.rmtree(folder, ignore_errors=True)


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} after {seconds} s"
        time.sleep(0.05)
