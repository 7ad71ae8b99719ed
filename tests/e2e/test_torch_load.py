"""PyTorch files between recd and the installed torch: torch.load(weights_only=True) reads what the C writer wrote, and the C reader reads what torch.save wrote.

Needs python3-torch. The C side is the unit test test_torch_file, which is also a small tool (--write, --dump)."""
import os
import random
import subprocess
import zipfile
import zlib
from collections import OrderedDict

import pytest

torch = pytest.importorskip("torch", reason="python3-torch is not installed")

TOOL = os.path.join(os.environ.get("BUILD", "build"), "tests", "model", "test_torch_file")
pytestmark = pytest.mark.core
DTYPES = {torch.float32: "float32", torch.int64: "int64", torch.int32: "int32", torch.uint8: "uint8"}
SIZES = {torch.float32: 4, torch.int64: 8, torch.int32: 4, torch.uint8: 1}
# as in test_torch_file.c: name, dtype, shape
SPECS = [
    ("U", torch.float32, (37, 5)), ("V", torch.float32, (1, 64)), ("bu", torch.float32, (37,)), ("user_ids", torch.int64, (37,)),
    ("counts", torch.int32, (7, 3)), ("names", torch.uint8, (1001,)), ("scalar", torch.int64, ()), ("none", torch.float32, (0,)),
    ("no_rows", torch.float32, (0, 8)), ("no_columns", torch.int32, (8, 0)), ("one", torch.uint8, (1, 1)), ("no_bytes", torch.uint8, (0,)),
]
VALUES = {
    "small": 7, "byte": 255, "word": 256, "minus": -1, "int32_min": -2 ** 31, "above_int32": 2 ** 31, "max": 2 ** 63 - 1, "min": -2 ** 63,
    "lr": "0.02", "empty_string": "", "фильм": "line\nwith \"quotes\" и юникод \U0001f3ac",
}


def raw(tensor):
    return tensor.detach().contiguous().reshape(-1).numpy().tobytes()


def run_tool(*arguments):
    return subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    result = run_tool("--write", folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def check_all(loaded):
    assert type(loaded) is dict
    assert list(loaded) == [name for name, _, _ in SPECS] + list(VALUES)
    for number, (name, dtype, shape) in enumerate(SPECS):
        tensor = loaded[name]
        assert tensor.dtype == dtype and tuple(tensor.shape) == shape and tensor.is_contiguous(), name
        assert tensor.stride() == torch.empty(shape, dtype=dtype).stride(), name
        assert not tensor.requires_grad
        length = SIZES[dtype] * tensor.numel()
        assert raw(tensor) == bytes((i * 7 + number * 31 + (i >> 8)) % 97 for i in range(length)), name
    for name, value in VALUES.items():
        assert loaded[name] == value and type(loaded[name]) is type(value), name


@pytest.mark.parametrize("name", ["all.pt", "zip64.pt"])
def test_torch_loads_every_dtype_and_shape(written, name):
    check_all(torch.load(written / name, weights_only=True))
    check_all(torch.load(written / name, map_location="cpu", weights_only=True))


@pytest.mark.parametrize("name", ["all.pt", "zip64.pt"])
def test_torch_maps(written, name):
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 1):
        pytest.skip(f"torch {torch.__version__} has no mmap=True")
    check_all(torch.load(written / name, weights_only=True, mmap=True))


def test_many_tensors(written):
    loaded = torch.load(written / "many.pt", weights_only=True)
    assert list(loaded) == [f"t{i}" for i in range(300)]
    for i in range(300):
        assert loaded[f"t{i}"].tolist() == [i, -i, 5]


@pytest.mark.parametrize("name", ["all.pt", "zip64.pt", "many.pt"])
def test_zip_is_whole_and_aligned(written, name):
    with zipfile.ZipFile(written / name) as archive, open(written / name, "rb") as file:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names[:3] == ["archive/data.pkl", "archive/version", "archive/byteorder"]
        assert archive.read("archive/version") == b"3\n" and archive.read("archive/byteorder") == b"little"
        for info in archive.infolist():
            file.seek(info.header_offset + 26)
            lengths = file.read(4)
            payload = info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            assert payload % 64 == 0 and info.compress_type == zipfile.ZIP_STORED


def test_written_twice_is_the_same(written, tmp_path):
    assert run_tool("--write", tmp_path).returncode == 0
    for name in ["zip64.pt", "many.pt"]:
        assert (written / name).read_bytes() == (tmp_path / name).read_bytes()


# ---- the other way ----

def dump(path):
    result = run_tool("--dump", path)
    assert result.returncode == 0, result.stderr
    return [line.split(" ", 3) for line in result.stdout.splitlines()]


def expected_line(name, tensor):
    shape = "(" + ",".join(str(size) for size in tensor.shape) + ")"
    return [name, DTYPES[tensor.dtype], shape, f"{zlib.crc32(raw(tensor)):08x}"]


def test_reads_what_torch_saves(tmp_path):
    generator = random.Random(1)
    for round_ in range(30):
        value = OrderedDict() if round_ % 2 else {}
        expected = []
        for i in range(generator.randrange(0, 12)):
            dtype = generator.choice(list(DTYPES))
            shape = [generator.randrange(0, 9) for _ in range(generator.randrange(0, 3))]
            tensor = (torch.rand(shape) * 200).to(dtype)
            if generator.random() < 0.3:
                tensor = torch.nn.Parameter(tensor, requires_grad=False)
            if generator.random() < 0.2 and tensor.dim() and tensor.shape[0] > 2:
                tensor = tensor[1:]
            value[f"t{i}"] = tensor
            expected.append(expected_line(f"t{i}", tensor))
            value[f"other{i}"] = generator.choice([3, -2 ** 40, "x", 0.5, True, None, [1, {"a": tensor}], (tensor, tensor), {}, []])
        torch.save(value, tmp_path / "x.pt")
        assert dump(tmp_path / "x.pt") == expected


def test_reads_a_state_dict(tmp_path):
    model = torch.nn.Sequential(torch.nn.Embedding(50, 8), torch.nn.Linear(8, 3))
    torch.save(model.state_dict(), tmp_path / "x.pt")
    assert dump(tmp_path / "x.pt") == [expected_line(name, tensor) for name, tensor in model.state_dict().items()]


def test_names_what_it_cannot_use(tmp_path):
    torch.save({"half": torch.ones(3).half(), "t": torch.ones(2, 3).t(), "ok": torch.ones(1), "cube": torch.ones(2, 2, 2)}, tmp_path / "x.pt")
    lines = [" ".join(line) for line in dump(tmp_path / "x.pt")]
    assert lines[0] == "half unsupported dtype float16"
    assert lines[1] == "t unsupported not contiguous (shape 3 x 2, strides 1, 3)"
    assert lines[2].startswith("ok float32 (1) ")
    assert lines[3] == "cube unsupported 3 dimensions"


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_runs_no_code(tmp_path):
    torch.save({"U": torch.ones(2), "x": RunsCode(tmp_path / "made")}, tmp_path / "x.pt")
    result = run_tool("--dump", tmp_path / "x.pt")
    assert result.returncode == 1 and "refused global" in result.stderr and "mkdir" in result.stderr
    assert not (tmp_path / "made").exists()


def test_refuses_a_compressed_archive(tmp_path):
    torch.save({"U": torch.ones(2)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    result = run_tool("--dump", tmp_path / "y.pt")
    assert result.returncode == 1 and "compressed" in result.stderr
