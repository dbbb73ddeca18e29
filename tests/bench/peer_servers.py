"""The servers of tests/bench/peers.py load: vitserve, and two that one would write instead. Each is a
process that prints its address, answers POST /classify in vitserve's shape, and ends on SIGTERM."""

import contextlib
import http.client
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time

import peer_run

START = 300  # s: PyTorch loads, and looks for its fastest variant


@contextlib.contextmanager
def started(command, env):
    """The port of a server that is up."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([str(part) for part in command], env=env, stderr=errors,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        try:
            ready, _, _ = select.select([process.stdout], [], [], START)
            line = process.stdout.readline() if ready else ""
            if not line.startswith("listening on http://"):
                process.kill()
                errors.seek(0)
                raise RuntimeError(f"{command[0]} ... does not start: {errors.read()[-2000:]}")
            yield int(line.rsplit(":", 1)[1])
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def vitserve(options, folder, precision, queue=64):
    """Without a size the queue is what it measures for itself, as the batches always are."""
    command = [options.binary, "serve", "--model", options.model, "--weights",
               folder / "weights.safetensors", "--device", "cpu", "--precision", precision,
               "--port", 0, "--log-level", "error"]
    if queue:
        command += ["--max-queue", max(queue, *options.clients)]
    return started(command, peer_run.environment())


def job(options, folder):
    return {"model": options.model, "threads": os.cpu_count(), "batch": max(options.clients),
            "side": peer_run.SIDE, "weights": str(folder / "weights.safetensors"),
            "image": str(folder / "bench.f32")}


def fastapi(options, folder, precision):
    argument = json.dumps({**job(options, folder), "precision": precision})
    return started([sys.executable, "-B", "-W", "ignore", peer_run.HERE / "fastapi_pytorch.py",
                    argument], peer_run.environment(os.cpu_count()))


def node(options, folder, _precision):
    argument = json.dumps({**job(options, folder), "model": str(folder / "model.onnx"),
                           "packages": str(peer_run.FOLDER / "node_modules")})
    return started(["node", peer_run.HERE / "node_onnxruntime.js", argument],
                   peer_run.environment())


def ask(port, body):
    """(logits, the first class), when the server is ready."""
    end = time.monotonic() + START
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START)
        with contextlib.closing(connection):
            connection.request("POST", "/classify?logits=1", body, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            text = answer.read()
        if answer.status == 200:
            result = json.loads(text)["results"][0]
            return result["logits"], result["predictions"][0]["class"]
        if answer.status != 503 or time.monotonic() > end:
            raise RuntimeError(f"the server answers {answer.status}: {text[:200]!r}")
        time.sleep(0.1)


def load(options, port, paths, *how):
    """tests/bench/load.c on these pictures: ([(outcome, ms, start in s)], the cores it took)."""
    before, begin = cpu_of_children(), time.monotonic()
    text = peer_run.output([options.binary.parent / "tests" / "load", f"127.0.0.1:{port}", *how,
                            *paths])
    busy = (cpu_of_children() - before) / (time.monotonic() - begin)
    lines = [line.split() for line in text.splitlines()]
    return [(line[0], float(line[1]), float(line[2])) for line in lines], busy


def cpu_of_children():
    """Seconds, of those that have ended: the server has not."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
