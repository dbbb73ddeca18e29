#!/usr/bin/python3
"""The server that one would write with FastAPI and PyTorch, for tests/bench/peers.py load.

    /usr/bin/python3 tests/bench/fastapi_pytorch.py JSON

JSON: {"model": name, "weights": .safetensors, "precision": fp32|bf16, "threads": N, "batch": most
images of a batch, "image": file of float32 (3, side, side), "side": S}. Prints the address when it
is ready: POST /classify, answered in vitserve's shape. The environment is that of pytorch.py.

What makes it fast here. One process: two of them, a thread each, would each keep their own batches
small, and a batch of 8 makes 1.7 times the images a second of a batch of 1. So one thread computes,
on all cores, whatever waits by then, without a delay, and as many threads as there are cores decode
meanwhile (Pillow releases Python's lock). Of PyTorch's ways through the attention it takes the
fastest, found when it starts. uvicorn runs on uvloop and httptools, both in C, and keeps no log.
"""

import asyncio
import concurrent.futures
import io
import json
import queue
import socket
import sys
import threading

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from PIL import Image

import pytorch
from pillow_torchvision import transform_of


class Batcher(threading.Thread):
    """Logits of single pictures, computed in batches."""

    def __init__(self, model, dtype, most):
        super().__init__(daemon=True)
        self.model, self.dtype, self.most = model, dtype, most
        self.jobs = queue.SimpleQueue()

    def submit(self, picture):
        job = (picture, concurrent.futures.Future())
        self.jobs.put(job)
        return job[1]

    def take(self):
        jobs = [self.jobs.get()]
        while len(jobs) < self.most and not self.jobs.empty():
            jobs.append(self.jobs.get())
        return jobs

    def run(self):
        with torch.inference_mode():
            while True:
                jobs = self.take()
                logits = self.model(torch.stack([picture for picture, _ in jobs]).to(self.dtype))
                for (_, future), row in zip(jobs, logits.float()):
                    future.set_result(row)


def make_app(options, batcher):
    app = FastAPI()
    transform = transform_of(options["model"])
    decoders = concurrent.futures.ThreadPoolExecutor(options["threads"])

    def decode(body):
        with torch.inference_mode():
            return transform(Image.open(io.BytesIO(body)).convert("RGB"))

    @app.post("/classify")
    async def classify(request: Request):
        body = await request.body()
        try:
            picture = await asyncio.get_running_loop().run_in_executor(decoders, decode, body)
        except OSError as error:
            return JSONResponse({"error": str(error)}, 400)
        logits = await asyncio.wrap_future(batcher.submit(picture))
        values, classes = logits.softmax(0).topk(5)
        result = {"predictions": [{"class": c, "probability": p}
                                  for c, p in zip(classes.tolist(), values.tolist())]}
        if "logits" in request.query_params:
            result["logits"] = logits.tolist()
        return JSONResponse({"results": [result]})

    return app


def main():
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    with torch.inference_mode():
        model = pytorch.load(options)
        variant, = pytorch.fastest(model, {**options, "batches": [8], "seconds": 1}).values()
        model = pytorch.VARIANTS[variant](model, pytorch.images(options, options["image"], 2))
    dtype = torch.bfloat16 if options["precision"] == "bf16" else torch.float32
    batcher = Batcher(model, dtype, options["batch"])
    batcher.start()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(make_app(options, batcher), loop="uvloop", http="httptools",
                                  access_log=False, log_level="error")).run([listener])


if __name__ == "__main__":
    main()
