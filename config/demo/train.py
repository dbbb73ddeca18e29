#!/usr/bin/env python3
"""Trains the built-in model on Fashion-MNIST: fashion_vit.safetensors, as README.md beside it describes.

    apt-get install python3-torch python3-torchvision dataset-fashion-mnist
    OMP_WAIT_POLICY=passive /usr/bin/python3 config/demo/train.py --out config/demo/fashion_vit.safetensors

The network is torchvision's VisionTransformer, so the tensors have the names that the server knows. Most epochs see a
random half of the patches of each picture (Liu et al. 2022, PatchDropout): twice as fast, and a regulariser. The last ones
see all of them. What is stored is the moving average of the weights.
"""
import argparse
import gzip
import json
import math
import os
import struct
import time

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.models.vision_transformer import VisionTransformer

DATASET = "/usr/share/datasets/fashion-mnist"
ARCHITECTURE = dict(image_size=28, patch_size=4, hidden_dim=128, num_layers=6, num_heads=4, mlp_dim=320, num_classes=10)
PATCHES = (ARCHITECTURE["image_size"] // ARCHITECTURE["patch_size"]) ** 2
KEPT_PATCHES = 24  # of 49, while patches are dropped
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.1


def load(split, dataset=DATASET):
    """The images (n, 1, 28, 28) in 0..1, black behind, and labels of "train" or "t10k"."""
    with gzip.open(f"{dataset}/{split}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(f"{dataset}/{split}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return torch.tensor(images.astype(np.float32) / 255), torch.tensor(labels.astype(np.int64))


def uniform(like, shape, low, high):
    return torch.empty(shape, device=like.device).uniform_(low, high)


def move(gray):
    """Small random turns, sizes, shifts and mirror images."""
    n = len(gray)
    angle, scale = uniform(gray, n, -0.17, 0.17), uniform(gray, n, 0.85, 1.2)
    shift = uniform(gray, (n, 2), -0.12, 0.12)
    mirror = torch.where(uniform(gray, n, 0, 1) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack([torch.stack([cos * mirror, -sin, shift[:, 0]], 1),
                         torch.stack([sin * mirror, cos, shift[:, 1]], 1)], 1)
    return F.grid_sample(gray, F.affine_grid(theta, gray.shape, align_corners=False), align_corners=False)


def erase(gray):
    """One random box of every fourth picture becomes a random grey."""
    n, size = len(gray), gray.shape[-1]
    across = torch.arange(size, device=gray.device)
    corner, side = uniform(gray, (n, 2), 0, size), uniform(gray, (n, 2), 4, 12)
    inside = (across >= corner[..., None]) & (across < (corner + side)[..., None])
    box = inside[:, 0, :, None] & inside[:, 1, None, :] & (uniform(gray, (n, 1, 1), 0, 1) < 0.25)
    return torch.where(box[:, None], uniform(gray, (n, 1, 1, 1), 0, 1), gray)


def colour(gray):
    """Half of the items get a colour, all a contrast; half of the pictures are inverted: dark items on white."""
    n = len(gray)
    tinted = uniform(gray, (n, 1, 1, 1), 0, 1) < 0.5
    tint = torch.where(tinted, uniform(gray, (n, 3, 1, 1), 0.3, 1), torch.ones((), device=gray.device))
    gray = gray ** torch.exp(uniform(gray, (n, 1, 1, 1), -0.25, 0.25))
    rgb = (gray * tint * uniform(gray, (n, 1, 1, 1), 0.7, 1.1)).clamp(0, 1)
    return torch.where(uniform(gray, (n, 1, 1, 1), 0, 1) < 0.5, 1 - rgb, rgb)


def network_input(rgb):
    return (rgb - 0.5) / 0.5  # the mean and std of config/models.json


def encoder_layer(layer, x):
    """What torchvision's layer computes, without the copies of nn.MultiheadAttention: half the time."""
    n, tokens, channels = x.shape
    attention = layer.self_attention
    qkv = F.linear(layer.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = qkv.view(n, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) * attention.head_dim ** -0.5).softmax(-1)
    x = x + attention.out_proj((weights @ v).transpose(1, 2).reshape(n, tokens, channels))
    return x + layer.mlp(layer.ln_2(x))


def forward(model, images, kept=PATCHES):
    """The logits, from a random choice of `kept` patches of each image."""
    tokens = model._process_input(images) + model.encoder.pos_embedding[:, 1:]
    if kept < PATCHES:
        choice = torch.rand(tokens.shape[:2], device=tokens.device).argsort(1)[:, :kept]
        tokens = tokens.gather(1, choice[..., None].expand(-1, -1, tokens.shape[2]))
    first = (model.class_token + model.encoder.pos_embedding[:, :1]).expand(len(tokens), -1, -1)
    tokens = torch.cat([first, tokens], 1)
    for layer in model.encoder.layers:
        tokens = encoder_layer(layer, tokens)
    return model.heads(model.encoder.ln(tokens[:, 0]))


def create(device):
    model = VisionTransformer(**ARCHITECTURE)
    for parameter in (model.class_token, model.heads.head.weight):  # torchvision leaves them at zero
        torch.nn.init.trunc_normal_(parameter, std=0.02)
    return model.to(device)


def create_optimizer(model):
    matrices = [p for p in model.parameters() if p.ndim == 2 or p.ndim == 4]
    others = [p for p in model.parameters() if p.ndim == 1 or p.ndim == 3]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": WEIGHT_DECAY},
                              {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.98))


def learning_rate(options, step, steps):
    """Linear warm-up over the first twentieth, then a cosine down to nothing."""
    warm_up = steps // 20
    if step < warm_up:
        return options.rate * (step + 1) / warm_up
    return options.rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def train(options, images, labels):
    model, average = create(options.device), create(options.device)
    average.load_state_dict(model.state_dict())
    optimizer = create_optimizer(model)
    batches = len(images) // options.batch
    epochs = options.epochs + options.full_epochs
    start = time.time()
    for epoch in range(epochs):
        order, total = torch.randperm(len(images), device=images.device), 0.0
        for i in range(batches):
            step = epoch * batches + i
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(options, step, epochs * batches)
            chosen = order[i * options.batch:(i + 1) * options.batch]
            batch = network_input(colour(erase(move(images[chosen]))))
            kept = KEPT_PATCHES if epoch < options.epochs else PATCHES
            with torch.autocast(images.device.type, torch.bfloat16):
                logits = forward(model, batch, kept)
            loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += float(loss.detach())
            follow(average, model, min(0.999, (step + 1) / (step + 10)))
        print(f"epoch {epoch + 1}/{epochs}: loss {total / batches:.4f}, {time.time() - start:.0f} s", flush=True)
    return average


@torch.no_grad()
def follow(average, model, decay):
    for a, b in zip(average.parameters(), model.parameters()):
        a.lerp_(b, 1 - decay)


@torch.no_grad()
def accuracy(model, images, labels):
    right = 0
    for i in range(0, len(images), 500):
        rgb = images[i:i + 500].expand(-1, 3, -1, -1)
        with torch.autocast(images.device.type, torch.bfloat16):
            right += int((forward(model, network_input(rgb)).argmax(1) == labels[i:i + 500]).sum())
    return right / len(images)


def save(model, path):
    """safetensors: a JSON header behind its length, then the tensors in fp16."""
    header, data = {}, b""
    for name, tensor in model.state_dict().items():
        values = tensor.cpu().to(torch.float16).numpy().tobytes()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--epochs", type=int, default=38, help="epochs on half of the patches")
    parser.add_argument("--full-epochs", type=int, default=8, help="epochs on all of them, after those")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="the highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=60000, help="of the training images, to try the script")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(options.seed)
    images, labels = (tensor.to(options.device) for tensor in load("train"))
    model = train(options, images[:options.limit], labels[:options.limit])
    save(model, options.out)
    images, labels = (tensor.to(options.device) for tensor in load("t10k"))
    print(f"test accuracy {accuracy(model, images, labels):.4f}, inverted {accuracy(model, 1 - images, labels):.4f}")


if __name__ == "__main__":
    main()
