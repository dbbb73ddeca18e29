#!/usr/bin/python3
"""Holds `vitserve classify --precision fp32` against torchvision, whole models with random weights.

    /usr/bin/python3 tests/compare_torchvision.py --binary build/vitserve [MODEL...]

Needs torch, torchvision >= 0.14 and Pillow; vit_h_14 takes about 6 GB of memory, 2.5 GB of disk and,
on two cores, eight minutes.
For each model: a torchvision model with seeded weights, saved as .safetensors; torchvision's logits
of a few generated photos, with torchvision's own preprocessing; the binary's logits of the same
photos. Prints the relative L2 error of the worst photo and exits with 1 if one is above LIMIT.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch
import torchvision
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "golden"))
from make_networks import randomise, write_safetensors  # noqa: E402

LIMIT = 1e-5
# Whose transforms a model of this name uses, and the arguments of its constructor.
MODELS = {
    "vit_b_32": ("ViT_B_32_Weights.IMAGENET1K_V1", {}),
    "vit_b_16": ("ViT_B_16_Weights.IMAGENET1K_V1", {}),
    "vit_l_32": ("ViT_L_32_Weights.IMAGENET1K_V1", {}),
    "vit_l_16": ("ViT_L_16_Weights.IMAGENET1K_V1", {}),
    "vit_h_14": ("ViT_H_14_Weights.IMAGENET1K_SWAG_LINEAR_V1", {"image_size": 224}),
}
DEFAULT_MODELS = ["vit_b_32", "vit_b_16", "vit_l_32", "vit_h_14"]
# Landscape, portrait, odd sides, smaller than the crop, exactly the crop.
SIZES = [(640, 480), (301, 517), (97, 60), (224, 224)]


def make_photos(folder):
    """Smooth colours with noise on top, so that neighbouring pixels are related as in a photo."""
    generator = numpy.random.default_rng(1)
    paths = []
    for width, height in SIZES:
        coarse = generator.integers(0, 256, (5, 7, 3), dtype=numpy.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.BICUBIC)
        noise = generator.normal(0, 20, (height, width, 3))
        pixels = numpy.clip(numpy.asarray(smooth) + noise, 0, 255).astype(numpy.uint8)
        paths.append(folder / f"{width}x{height}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def torchvision_logits(name, weights_file, photos):
    """(photos, K) in float32; the weights are left in weights_file."""
    entry, arguments = MODELS[name]
    recipe, version = entry.split(".")
    transform = getattr(getattr(torchvision.models, recipe), version).transforms()
    model = getattr(torchvision.models, name)(weights=None, **arguments).eval()
    randomise(model, torch.Generator().manual_seed(1))
    write_safetensors(weights_file, model.state_dict())
    with torch.inference_mode():
        images = [transform(Image.open(photo).convert("RGB")) for photo in photos]
        return torch.cat([model(image[None]) for image in images]).numpy()


def binary_logits(binary, name, weights_file, photos):
    command = [binary, "classify", "--model", name, "--weights", weights_file, "--precision", "fp32",
               "--json", "--logits", *photos]
    output = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE,
                            text=True).stdout
    results = [result for line in output.splitlines() for result in json.loads(line)["results"]]
    return numpy.array([result["logits"] for result in results], dtype=numpy.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="build/vitserve")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    options = parser.parse_args()
    unknown = [name for name in options.models if name not in MODELS]
    if unknown:
        parser.error(f"unknown model {unknown[0]}: expected one of {', '.join(MODELS)}")

    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        photos = make_photos(pathlib.Path(folder))
        weights_file = pathlib.Path(folder) / "model.safetensors"
        for name in options.models or DEFAULT_MODELS:
            expected = torchvision_logits(name, weights_file, photos)
            found = binary_logits(options.binary, name, weights_file, photos)
            if found.shape != expected.shape:
                sys.exit(f"{name}: logits of shape {found.shape}, expected {expected.shape}")
            norms = numpy.linalg.norm(expected, axis=1)
            error = (numpy.linalg.norm(found - expected, axis=1) / norms).max()
            verdict = "ok" if error <= LIMIT else "FAILED"
            print(f"{name}: relative L2 error {error:.2e} (limit {LIMIT:.0e}): {verdict}", flush=True)
            # A NaN must not pass for the smaller number.
            worst = max(worst, error) if error == error else float("inf")
    sys.exit(0 if worst <= LIMIT else 1)


if __name__ == "__main__":
    main()
