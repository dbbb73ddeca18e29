#!/usr/bin/python3
"""Writes the small networks of tests/golden/networks, which tests/test_vit.c runs.

    /usr/bin/python3 tests/golden/make_networks.py

Needs torch and torchvision (made with 1.13 and 0.14). Each network is a torchvision VisionTransformer
with every parameter drawn anew from a seed: torchvision sets the head, the class token and many
biases to zero, with which a network cannot be told from another. Its files:

    NAME.safetensors  the weights, rounded to the type and under the names that NETWORKS states
    NAME.u8           images: (images, image_size, image_size, 3) uint8
    NAME.json         dims, mean, std, the two file names, the number of images, and the logits of
                      each image, computed in float64 from the rounded weights

tests/compare_torchvision.py imports write_safetensors() and randomise().
"""

import json
import math
import pathlib
import re
import struct

import torch
from torchvision.models.vision_transformer import VisionTransformer

FOLDER = pathlib.Path(__file__).resolve().parent / "networks"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IMAGES = 3

# Head sizes 16, 80 and 64; a patch whose side is no multiple of 8; class counts that are odd.
NETWORKS = {
    "hs16_f32": dict(S=32, P=8, L=2, NH=2, C=32, M=64, K=10, dtype=torch.float32, names="torchvision"),
    "hs80_bf16": dict(S=42, P=14, L=2, NH=2, C=160, M=64, K=7, dtype=torch.bfloat16, names="timm"),
    "hs64_f16": dict(S=20, P=4, L=3, NH=1, C=64, M=48, K=33, dtype=torch.float16, names="legacy"),
}

RENAMES = {
    "torchvision": [],
    "legacy": [(r"\.mlp\.0\.", ".mlp.linear_1."), (r"\.mlp\.3\.", ".mlp.linear_2.")],
    "timm": [
        (r"^class_token$", "cls_token"),
        (r"^encoder\.pos_embedding$", "pos_embed"),
        (r"^conv_proj\.", "patch_embed.proj."),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"\.ln_1\.", ".norm1."),
        (r"\.ln_2\.", ".norm2."),
        (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.3\.", ".mlp.fc2."),
        (r"^encoder\.ln\.", "norm."),
        (r"^heads\.head\.", "head."),
    ],
}


def rename(name, layout):
    for pattern, replacement in RENAMES[layout]:
        name = re.sub(pattern, replacement, name)
    return name


def write_safetensors(path, tensors):
    """tensors: {name: tensor} of float32, float16 or bfloat16; written one by one."""
    types = {torch.float32: ("F32", 4), torch.float16: ("F16", 2), torch.bfloat16: ("BF16", 2)}
    header, end = {}, 0
    for name, tensor in tensors.items():
        dtype, size = types[tensor.dtype]
        begin, end = end, end + tensor.numel() * size
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            bits = torch.int32 if tensor.dtype == torch.float32 else torch.int16
            file.write(tensor.detach().contiguous().view(bits).numpy().data)


def randomise(model, generator):
    """Draws every parameter anew, so that none is zero or one and all have an effect."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.empty_like(parameter).normal_(generator=generator)
            if parameter.ndim == 1:
                is_layernorm = name.endswith("weight")
                parameter.copy_(1 + 0.2 * noise if is_layernorm else 0.2 * noise)
            elif parameter.ndim == 3:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))


def make(name, S, P, L, NH, C, M, K, dtype, names, seed):
    generator = torch.Generator().manual_seed(seed)
    model = VisionTransformer(S, P, L, NH, C, M, num_classes=K).eval()
    randomise(model, generator)
    rounded = {key: value.to(dtype) for key, value in model.state_dict().items()}
    model.load_state_dict(rounded)
    model.double()
    pixels = torch.randint(0, 256, (IMAGES, S, S, 3), generator=generator, dtype=torch.uint8)
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (MEAN, STD))
    with torch.no_grad():
        logits = model(((pixels.double() / 255 - mean) / std).permute(0, 3, 1, 2))
    write_safetensors(FOLDER / f"{name}.safetensors",
                      {rename(key, names): value for key, value in rounded.items()})
    (FOLDER / f"{name}.u8").write_bytes(pixels.numpy().tobytes())
    dims = dict(image_size=S, patch_size=P, hidden_size=C, num_layers=L, num_heads=NH, mlp_size=M,
                num_classes=K, layer_norm_epsilon=1e-6)
    rest = {"mean": MEAN, "std": STD, "weights": f"{name}.safetensors", "pixels": f"{name}.u8",
            "images": IMAGES, "logits": logits.tolist()}
    (FOLDER / f"{name}.json").write_text(json.dumps({"dims": dims, **rest}, indent=1) + "\n")


def main():
    torch.set_num_threads(2)
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, network) in enumerate(NETWORKS.items(), start=1):
        make(name, **network, seed=seed)


if __name__ == "__main__":
    main()
