#!/usr/bin/python3
"""make_golden.py: wrote torch-*.pt in this folder, once with torch 1.13 (Debian 12) and once with torch 2.6 (Debian 13):

    /usr/bin/python3 make_golden.py DIR

They are kept because torch.save's output differs between versions (records, padding, memo), and the reader must keep reading all of them.
recd-1.pt is written by tests/unit/model/test_torch_file.c (--golden FILE) and pins recd's own format.
"""
import os
import sys
import warnings
from collections import OrderedDict

import torch

warnings.simplefilter("ignore")
version = ".".join(torch.__version__.split(".")[:2])
version = version.split("a")[0].split("+")[0]
out = sys.argv[1]


def save(kind, value, **how):
    torch.save(value, os.path.join(out, f"torch-{version}-{kind}.pt"), **how)


ids = torch.arange(5, dtype=torch.int64) * 1000000007 + 9000000000
line = torch.arange(20, dtype=torch.float32)
save("dict", {
    "U": torch.arange(15, dtype=torch.float32).reshape(5, 3) / 4, "V": -torch.arange(12, dtype=torch.float32).reshape(4, 3),
    "bu": torch.arange(5, dtype=torch.float32), "bi": torch.zeros(4), "user_ids": ids, "item_ids": ids[:4].clone(),
    "i32": torch.tensor([-1, 2147483647, -2147483648], dtype=torch.int32), "u8": torch.tensor([0, 127, 255], dtype=torch.uint8),
    "empty": torch.zeros(0), "empty_rows": torch.zeros(0, 3), "empty_columns": torch.zeros(3, 0, dtype=torch.int64), "scalar": torch.tensor(2.5),
    "slice": line[3:13], "again": line, "one_row": torch.arange(6, dtype=torch.float32).reshape(2, 3)[1:],
    "epoch": 3, "big": 2 ** 40, "negative": -5, "smallest": -2 ** 63, "huge": 2 ** 70, "name": "gowalla", "unicode": "фильм", "yes": True, "rate": 0.02,
    "nothing": None, "nested": {"lr": 0.1, "list": [1, 2, (3, None, True)], "U": torch.ones(2, 2), "empty": {}, "deeper": OrderedDict(a=[{}])}, 7: "seven",
    "tuple": (1, "a", line), "parameter": torch.nn.Parameter(torch.arange(4, dtype=torch.float32)),
})


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.user = torch.nn.Embedding(6, 4)
        self.item = torch.nn.Embedding(3, 4)
        self.bias = torch.nn.Parameter(torch.arange(3, dtype=torch.float32))
        with torch.no_grad():
            self.user.weight.copy_(torch.arange(24, dtype=torch.float32).reshape(6, 4))
            self.item.weight.copy_(-torch.arange(12, dtype=torch.float32).reshape(3, 4))


save("state-dict", Model().state_dict())
save("odd", {
    "good": torch.arange(3, dtype=torch.float32), "half": torch.ones(2).half(), "double": torch.ones(2).double(), "bf16": torch.ones(2).bfloat16(),
    "bool": torch.ones(2).bool(), "i16": torch.ones(2).short(), "i8": torch.ones(2, dtype=torch.int8), "c64": torch.ones(2, dtype=torch.complex64),
    "transposed": torch.arange(6, dtype=torch.float32).reshape(2, 3).t(), "strided": line[::2], "expanded": torch.ones(1).expand(4),
    "three": torch.zeros(2, 2, 2),
})
save("tensor", line)
save("module", Model())
save("protocol-4", {"U": line}, pickle_protocol=4)
save("old-format", {"U": line}, _use_new_zipfile_serialization=False)
