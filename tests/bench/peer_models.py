#!/usr/bin/python3
"""The model that every engine of tests/bench/peers.py runs, as the files that they read.

    /usr/bin/python3 tests/bench/peer_models.py MODEL FOLDER

Needs torch, torchvision and Pillow. A torchvision model with seeded weights, all of them drawn anew:
weights=None leaves a head of zeros, and every logit would be 0. Writes into FOLDER:

    weights.safetensors   for vitserve and PyTorch          model.onnx  for ONNX Runtime
    check.png check.f32   a picture, and what torchvision's transform makes of it: (3, S, S) float32
    bench.f32             the pixels that `vitserve bench` makes up, normalised: (3, S, S) float32
"""

import pathlib
import shutil
import sys
import tempfile

import numpy
import torch
import torchvision
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "golden")]
from compare_torchvision import MODELS, make_photos  # noqa: E402
from make_networks import randomise, write_safetensors  # noqa: E402

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def architecture(name):
    return getattr(torchvision.models, name)(weights=None, **MODELS[name][1]).eval()


def export(model, path, side):
    """PyTorch's fused attention cannot be exported; attention alone in training mode takes the
    other path. Its dropout is 0 and the rest stays in eval mode, so the numbers are the same, and
    constants are folded."""
    for module in model.modules():
        if isinstance(module, torch.nn.MultiheadAttention):
            module.train()
    torch.onnx.export(model, torch.zeros(2, 3, side, side), path, opset_version=14,
                      training=torch.onnx.TrainingMode.PRESERVE, input_names=["x"],
                      output_names=["y"], dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}})


def bench_image(side):
    """server/bench.c's pixels."""
    index = numpy.arange(side * side * 3, dtype=numpy.uint64)
    pixels = (index * numpy.uint64(2654435761) >> numpy.uint64(24)).astype(numpy.uint8)
    image = pixels.reshape(side, side, 3) / 255
    return numpy.ascontiguousarray(((image - MEAN) / STD).transpose(2, 0, 1), numpy.float32)


def check_image(name, path):
    recipe, version = MODELS[name][0].split(".")
    transform = getattr(getattr(torchvision.models, recipe), version).transforms()
    with tempfile.TemporaryDirectory() as photos:
        shutil.copyfile(make_photos(pathlib.Path(photos))[0], path)
    return transform(Image.open(path).convert("RGB")).numpy()


def main():
    name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    model = architecture(name)
    randomise(model, torch.Generator().manual_seed(1))
    write_safetensors(folder / "weights.safetensors", model.state_dict())
    check_image(name, folder / "check.png").tofile(folder / "check.f32")
    bench_image(model.image_size).tofile(folder / "bench.f32")
    export(model, str(folder / "model.onnx"), model.image_size)


if __name__ == "__main__":
    main()
