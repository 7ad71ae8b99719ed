import pathlib
import shutil
import tempfile

import pytest

import recd_process
from kafka_world import any_kafka, kafka, kafka_session, make_kafka_recd, mock_kafka, small_logs  # noqa: F401 (fixtures)


@pytest.fixture
def make_recd():
    """make_recd(settings=..., ...) gives a Recd in a folder of its own; all are ended and removed after the test."""
    made = []

    def make(settings="", **options):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="recd-e2e-"))
        recd = recd_process.Recd(folder, settings, **options)
        made.append(recd)
        return recd

    yield make
    for recd in made:
        recd.kill()
        shutil.rmtree(recd.folder, ignore_errors=True)


@pytest.fixture
def recd(make_recd):
    return make_recd("training = { emb_dim = 8; threads = 2; idle_passes = 20; };")
