#!/usr/bin/python3
"""PyTorch for tests/bench/peers.py, in a process of its own.

    /usr/bin/python3 tests/bench/pytorch.py JSON

JSON: {"model": name, "weights": .safetensors, "precision": fp32|bf16|int8, "threads": N, "batches":
[...], "seconds": S, "image": file of float32 (3, side, side), "side": S, "check": the same as image
or null, "variants": {batch: a key of VARIANTS}, or null: the fastest for each batch is looked for}.
Prints one JSON object. Rates come from the median pass, after two of warm-up, as in `vitserve bench`.

The environment must hold OMP_NUM_THREADS, OMP_WAIT_POLICY=passive and no OPENBLAS_CORETYPE or
OPENBLAS_L2_SIZE (peer_run.py sets it so): OpenMP's threads that spin take the cores from OpenBLAS's
own, and the two variables hold OpenBLAS to an older processor. Debian's torch multiplies by whatever
libblas.so.3 is, so OpenBLAS must be installed: the reference BLAS is many times slower.
"""

import json
import mmap
import statistics
import struct
import sys
import time

import numpy
import torch

from peer_models import architecture


def read_safetensors(path):
    """{name: tensor} of a file whose tensors are all float32."""
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    length, = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = numpy.frombuffer(data, numpy.float32, (end - begin) // 4, 8 + length + begin)
        tensors[name] = torch.from_numpy(values).reshape(entry["shape"])
    return tensors


def in_precision(model, precision):
    """bf16: everything, as PyTorch does it; int8: the linear layers, quantised as they run. The
    matrix that makes query, key and value is no Linear module and stays in float32 there."""
    if precision == "bf16":
        return model.bfloat16()
    if precision == "int8":
        torch.backends.quantized.engine = "onednn"
        return torch.quantization.quantize_dynamic(model, {torch.nn.Linear})
    return model


def set_attention(model, training):
    for module in model.modules():
        if isinstance(module, torch.nn.MultiheadAttention):
            module.train(training)
    return model


def fused(model, _):
    """As it is: in eval mode PyTorch takes its fused attention."""
    return set_attention(model, False)


def plain(model, _):
    """The attention of separate operators, which training mode takes; its dropout is 0."""
    return set_attention(model, True)


def frozen(model, x):
    """Traced, with the weights as constants."""
    with torch.no_grad():
        return torch.jit.freeze(torch.jit.trace(fused(model, x), x, check_trace=False))


# Which is the fastest depends on the precision and the batch size.
VARIANTS = {"fused": fused, "plain": plain, "frozen": frozen}


def load(options):
    model = architecture(options["model"])
    model.load_state_dict(read_safetensors(options["weights"]))
    return in_precision(model, options["precision"])


def images(options, path, batch):
    """The picture in this file `batch` times."""
    picture = torch.from_numpy(numpy.fromfile(path, numpy.float32))
    dtype = torch.bfloat16 if options["precision"] == "bf16" else torch.float32
    return picture.reshape(1, 3, options["side"], options["side"]).repeat(batch, 1, 1, 1).to(dtype)


def median_pass(model, x, seconds):
    """In seconds."""
    model(x)
    model(x)
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        model(x)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(model, options, variant, batches):
    """{batch: seconds of a pass}"""
    model = VARIANTS[variant](model, images(options, options["image"], 2))
    return {batch: median_pass(model, images(options, options["image"], batch), options["seconds"])
            for batch in batches}


def fastest(model, options):
    """{batch: variant}"""
    times = {variant: measure(model, options, variant, options["batches"]) for variant in VARIANTS}
    return {batch: min(VARIANTS, key=lambda variant: times[variant][batch])
            for batch in options["batches"]}


def rates(model, options):
    seconds = {}
    for variant in VARIANTS:
        batches = [b for b in options["batches"] if options["variants"][str(b)] == variant]
        if batches:
            seconds.update(measure(model, options, variant, batches))
    return [{"batch": batch, "images_per_second": batch / seconds[batch],
             "ms_p50": 1e3 * seconds[batch]} for batch in options["batches"]]


def main():
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    answer = {"version": torch.__version__}
    with torch.inference_mode():
        model = load(options)
        if options["check"]:
            answer["logits"] = model(images(options, options["check"], 1)).float()[0].tolist()
        if options["variants"] is None:
            answer["variants"] = fastest(model, options)
        else:
            answer["results"] = rates(model, options)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
