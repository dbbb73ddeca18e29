#!/usr/bin/python3
"""Writes the small files of tests/golden/pth with torch.save, which tests/test_pth.c reads, and the
pickles in some of them to tests/fuzz/corpus/pth.

    /usr/bin/python3 tests/golden/make_pth.py

Needs torch (made with 1.13). Element i of a tensor is i + 1, but where a view begins further on.
"""

import collections
import os
import pathlib
import zipfile

import torch

TESTS = pathlib.Path(__file__).resolve().parents[1]


def count(*shape, dtype=torch.float32, begin=1):
    size = torch.Size(shape).numel()
    return torch.arange(begin, begin + size).to(dtype).reshape(shape)


def state_dict():
    shared = count(10)
    tensors = collections.OrderedDict(
        matrix=count(2, 3), half=count(4, dtype=torch.float16), brain=count(3, dtype=torch.bfloat16),
        double=count(2, dtype=torch.float64), scalar=count(), none=count(0, 5), view=shared[4:8],
        strides=shared.as_strided((1, 3, 1), (77, 1, 55)), parameter=torch.nn.Parameter(count(2)))
    tensors["tied"] = tensors["matrix"]
    tensors._metadata = {"": {"version": 1}}  # as a module's state_dict has
    return tensors


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def saved():
    """Name of the file: what is saved, options of torch.save."""
    training = {"epoch": 3, "rate": 0.5, "best": None, "seed": 1 << 80, "loss": -70000, "big": 1 << 40,
                "done": True, "name": "vit", "steps": [1, 2, [count(2)]], "of": (1, "two"), 5: count(2),
                "optimizer": {"state": {0: {"step": count(1, dtype=torch.int64)}}, "groups": []}}
    yield "state_dict", state_dict(), {}
    yield "wrapped", {"state_dict": state_dict(), "model": count(3), **training}, {}
    yield "protocol_4", {"model": state_dict(), **training}, {"pickle_protocol": 4}
    shared = count(120)
    yield "many", {f"tensor_{i}": shared[i:] for i in range(120)}, {}  # memo numbers of four bytes
    yield "before_1_6", {"matrix": count(2, 3)}, {"_use_new_zipfile_serialization": False}
    yield "integers", {"matrix": count(2, 3, dtype=torch.int64)}, {}
    yield "transposed", {"matrix": count(2, 3).T}, {}
    yield "expanded", {"matrix": count(1).expand(4)}, {}
    yield "list", [count(2)], {}
    yield "module", torch.nn.Linear(2, 2), {}
    yield "evil", {"matrix": count(2), "evil": Evil()}, {}


def main():
    folder, corpus = TESTS / "golden" / "pth", TESTS / "fuzz" / "corpus" / "pth"
    folder.mkdir(exist_ok=True)
    corpus.mkdir(parents=True, exist_ok=True)
    for name, value, options in saved():
        torch.save(value, folder / f"{name}.pth", **options)
        if name in ("state_dict", "wrapped", "protocol_4"):
            with zipfile.ZipFile(folder / f"{name}.pth") as archive:
                (corpus / f"{name}.pkl").write_bytes(archive.read(f"{name}/data.pkl"))


if __name__ == "__main__":
    main()
