"""The bar: torchvision's network in PyTorch on the same GPU, eager and compiled. Device-resident bf16
input, median of many passes. Usage: torch_bench.py MODEL BATCH,BATCH,... FILE; a line of JSON goes
to FILE as soon as it is measured, since a compilation may outlast the time that is left.

Compiled products are the library's: trying Triton's own takes a minute for each batch, and they were
slower where that was seen (H200, batch 64, mlp_in: 38 against 29 us)."""

import json
import statistics
import sys
import time

import torch
import torch._inductor.config
import torchvision

torch._inductor.config.max_autotune_gemm_backends = "ATEN"


def median_ms(run, seconds=1.0):
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
    name, batches, path = sys.argv[1], [int(b) for b in sys.argv[2].split(",")], sys.argv[3]
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval().cuda().bfloat16()
    torch.nn.init.normal_(model.heads.head.weight, std=0.02)
    inputs = [torch.randn(b, 3, 224, 224, device="cuda", dtype=torch.bfloat16) for b in batches]
    with torch.inference_mode(), open(path, "w", encoding="utf-8") as file:
        def tell(kind, batch, ms):
            line = json.dumps({"model": name, "torch": torch.__version__, "kind": kind,
                               "batch": batch, "ms": ms})
            print(line, flush=True)
            print(line, file=file, flush=True)

        for batch, x in zip(batches, inputs):
            tell("eager", batch, median_ms(lambda: model(x)))
        for batch, x in zip(batches, inputs):
            torch._dynamo.reset()
            compiled = torch.compile(model, mode="max-autotune", dynamic=False)
            tell("compile", batch, median_ms(lambda: compiled(x)))


if __name__ == "__main__":
    main()
