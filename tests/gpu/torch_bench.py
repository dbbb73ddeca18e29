"""The bar: torchvision's network in PyTorch on the same GPU. Device-resident bf16 input, median of
many passes. Usage: torch_bench.py MODEL BATCH,BATCH,... ; prints one JSON object."""

import json
import statistics
import sys
import time

import torch
import torchvision


def median_ms(run, seconds=2.0):
    for _ in range(5):
        run()
    torch.cuda.synchronize()
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return statistics.median(times)


def main():
    name, batches = sys.argv[1], [int(b) for b in sys.argv[2].split(",")]
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval().cuda().bfloat16()
    torch.nn.init.normal_(model.heads.head.weight, std=0.02)
    results = []
    with torch.inference_mode():
        for batch in batches:
            x = torch.randn(batch, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
            row = {"batch": batch, "eager_ms": median_ms(lambda: model(x))}
            try:
                torch._dynamo.reset()
                compiled = torch.compile(model, mode="max-autotune")
                row["compile_ms"] = median_ms(lambda: compiled(x))
            except Exception as error:  # a compiler that is not there: say so and go on
                row["compile_error"] = str(error)[:200]
            results.append(row)
            print(row, file=sys.stderr, flush=True)
    print(json.dumps({"model": name, "torch": torch.__version__,
                      "gpu": torch.cuda.get_device_name(), "results": results}))


if __name__ == "__main__":
    main()
