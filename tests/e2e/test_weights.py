"""Checkpoints through the whole program: the built-in model's weights as torch.save would write them
and under Hugging Face's names answer as it does, to the bit; where a checkpoint is looked for."""

import io
import json
import pathlib
import pickle
import re
import struct
import sys
import tempfile
import types
import unittest
import unittest.mock
import zipfile

from vitserve import Case, run

DEMO = pathlib.Path(__file__).resolve().parents[2] / "config" / "demo"
PICTURES = sorted((DEMO / "samples").iterdir())
DEIT = ("--model", "deit_tiny_patch16_224")

HUGGING_FACE = (
    (r"^class_token$", "vit.embeddings.cls_token"),
    (r"^conv_proj\.", "vit.embeddings.patch_embeddings.projection."),
    (r"^encoder\.pos_embedding$", "vit.embeddings.position_embeddings"),
    (r"^encoder\.ln\.", "vit.layernorm."),
    (r"^encoder\.layers\.encoder_layer_", "vit.encoder.layer."),
    (r"\.ln_1\.", ".layernorm_before."), (r"\.ln_2\.", ".layernorm_after."),
    (r"\.self_attention\.out_proj\.", ".attention.output.dense."),
    (r"\.mlp\.0\.", ".intermediate.dense."), (r"\.mlp\.3\.", ".output.dense."),
    (r"^heads\.head\.", "classifier."))


def read_demo():
    """{name: (shape, bytes)} of the built-in model, all F16."""
    content = (DEMO / "fashion_vit.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + length])
    header.pop("__metadata__", None)
    assert all(entry["dtype"] == "F16" for entry in header.values())
    data = content[8 + length:]
    return {name: (entry["shape"], data[slice(*entry["data_offsets"])])
            for name, entry in header.items()}


def to_hugging_face(tensors):
    """Query, key and value apart, everything under its other name."""
    out = {}
    for name, (shape, data) in tensors.items():
        for pattern, replacement in HUGGING_FACE:
            name = re.sub(pattern, replacement, name)
        stem, in_proj, rest = name.partition("self_attention.in_proj_")
        for i, part in enumerate(("query", "key", "value") if in_proj else ()):
            third = len(data) // 3
            out[f"{stem}attention.attention.{part}.{rest}"] = (
                [shape[0] // 3, *shape[1:]], data[i * third:(i + 1) * third])
        if not in_proj:
            out[name] = (shape, data)
    return out


def write_safetensors(path, tensors):
    header, end = {}, 0
    for name, (shape, data) in tensors.items():
        begin, end = end, end + len(data)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text +
                     b"".join(data for _, data in tensors.values()))


class Storage:
    def __init__(self, key, elements):
        self.key, self.elements = key, elements


class Tensor:
    """Pickled as a tensor is: the call of a function of torch, which need not be there."""

    def __init__(self, key, shape):
        self.key, self.shape = key, shape

    def __reduce__(self):
        strides, elements = [], 1
        for side in reversed(self.shape):
            strides.insert(0, elements)
            elements *= side
        return (sys.modules["torch._utils"]._rebuild_tensor_v2,
                (Storage(self.key, elements), 0, tuple(self.shape), tuple(strides), False, {}))


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return "storage", sys.modules["torch"].HalfStorage, obj.key, "cpu", obj.elements
        return None


def stand_ins():
    """What pickle looks up to write a name of torch."""
    def _rebuild_tensor_v2():
        pass
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.HalfStorage = type("HalfStorage", (), {"__module__": "torch"})
    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    torch._utils, utils._rebuild_tensor_v2 = utils, _rebuild_tensor_v2
    return unittest.mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils})


def write_pth(path, value, storages):
    text = io.BytesIO()
    with stand_ins():
        Pickler(text, 2).dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", text.getvalue())
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)


def write_tensors_as_pth(path, tensors, wrap=lambda value: value):
    keys = {name: str(i) for i, name in enumerate(tensors)}
    write_pth(path, wrap({name: Tensor(keys[name], shape) for name, (shape, _) in tensors.items()}),
              {keys[name]: data for name, (_, data) in tensors.items()})


class Weights(Case):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def classify(self, *options):
        finished = run("classify", "--device", "cpu", "--precision", "fp32", "--json", "--logits",
                       *options, *PICTURES)
        self.assertEqual(finished.returncode, 0, finished.stderr)
        return finished.stdout

    def test_every_way_to_write_it(self):
        """The name of the file says nothing of what is in it."""
        expected = self.classify()
        self.assertIn('"logits"', expected)
        tensors, path = read_demo(), self.folder / "checkpoint"
        other = to_hugging_face(tensors)
        self.assertEqual(len(other), len(tensors) + 4 * sum("in_proj_weight" in name
                                                            for name in tensors))
        for form in (tensors, other):
            write_safetensors(path, form)
            self.assertEqual(self.classify("--weights", path), expected)
            write_tensors_as_pth(path, form)
            self.assertEqual(self.classify("--weights", path), expected)
        write_tensors_as_pth(path, tensors, lambda value: {"model": value, "epoch": 3, "rate": 0.5})
        self.assertEqual(self.classify("--weights", path), expected)
        # It is the file that answers.
        shape, data = tensors["heads.head.bias"]
        tensors["heads.head.bias"] = (shape, bytes(len(data)))
        write_tensors_as_pth(path, tensors)
        self.assertNotEqual(self.classify("--weights", path), expected)

    def test_where_it_is_looked_for(self):
        """NAME.safetensors, else NAME.pth. A network of zeros, all of them the same few."""
        finished = run("model", *DEIT, "--format", "json")
        layers = json.loads(finished.stdout)["layers"]
        path = self.folder / "deit_tiny_patch16_224.pth"
        write_pth(path, {layer["name"]: Tensor("0", layer["shape"]) for layer in layers},
                  {"0": bytes(2 * max(layer["num_parameters"] for layer in layers))})
        looked = (*DEIT, "--weights-dir", self.folder)
        answer = json.loads(self.classify(*looked).splitlines()[0])
        self.assertEqual(answer["results"][0]["logits"], [0] * 1000)
        path.with_suffix(".safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
        finished = run("classify", *looked, PICTURES[0])
        self.assertEqual(finished.returncode, 1)
        self.assertIn("deit_tiny_patch16_224.safetensors: not a Vision Transformer",
                      finished.stderr)

    def test_what_is_said(self):
        finished = run("classify", *DEIT, "--weights-dir", self.folder, PICTURES[0])
        self.assertEqual(finished.returncode, 1)
        self.assertIn(f"{self.folder}/deit_tiny_patch16_224.safetensors and "
                      "deit_tiny_patch16_224.pth", finished.stderr)
        write_pth(self.folder / "evil.pth", {"class_token": Tensor("0", [1]), "n": print}, {})
        finished = run("classify", "--weights", self.folder / "evil.pth", PICTURES[0])
        self.assertEqual(finished.returncode, 1)
        self.assertIn("the pickle wants __builtin__.print: refused", finished.stderr)
        finished = run("classify", "--help")
        self.assertIn(".safetensors or .pth; torchvision, timm or Hugging Face names",
                      re.sub(r"\s+", " ", finished.stdout))


if __name__ == "__main__":
    unittest.main()
