"""How tests/bench/peers.py starts vitserve, ONNX Runtime and PyTorch: one process at a time, each in
the environment that suits it best, all on the files that peer_models.py made."""

import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "build" / "peers"
SIDE = 224
TIMEOUT = 900


class Failed(RuntimeError):
    """A command that exited with `code` (negative: by that signal) and `text` on standard error."""

    def __init__(self, command, finished):
        self.code, self.text = finished.returncode, finished.stderr.strip()[-2000:]
        super().__init__(f"{' '.join(map(str, command[:3]))} ...: exit code {self.code}: {self.text}")

    def is_refusal(self):
        """vitserve says in a sentence what it cannot do."""
        return self.code in (1, 2)


def environment(threads=None):
    """Without settings that are meant for other programs. OPENBLAS_*: they may hold OpenBLAS, which
    PyTorch multiplies by, to an older processor. OMP_WAIT_POLICY: PyTorch has two pools of threads,
    OpenMP's and OpenBLAS's; one that spins takes the cores from the other."""
    prefixes = ("VITSERVE_", "OPENBLAS_", "OMP_", "GOMP_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    if threads:
        clean.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads),
                     OMP_WAIT_POLICY="passive")
    return clean


def output(command, env=None):
    """Standard output of a command that must succeed."""
    finished = subprocess.run([str(part) for part in command], env=env or environment(),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=TIMEOUT, check=False)
    if finished.returncode != 0:
        raise Failed(command, finished)
    return finished.stdout


def script(name, *arguments, threads=None):
    """A script beside this one. -B: no caches in the tree."""
    return output([sys.executable, "-B", "-W", "ignore", HERE / name, *arguments],
                  environment(threads or os.cpu_count()))


def files_of(model):
    """The folder of the model's files, made when they are missing. Delete it to have them anew."""
    folder = FOLDER / model
    if not folder.exists():
        print(f"writing the files of {model} into {folder.relative_to(ROOT)}", file=sys.stderr)
        part = FOLDER / f"{model}.part"
        script("peer_models.py", model, part)
        script("onnx_int8.py", part / "model.onnx", part / "int8.onnx")
        part.rename(folder)
    return folder


# ---- the three engines: job -> {"logits": [...], "results": [{"batch", "images_per_second", ...}]} --
# job: model, folder, precision, threads, batches, seconds; check: logits wanted; variants: PyTorch's.

def vitserve(binary, job):
    options = ["--model", job["model"], "--weights", job["folder"] / "weights.safetensors",
               "--device", "cpu", "--precision", job["precision"], "--threads", job["threads"],
               "--log-level", "error", "--json"]
    if job["check"]:
        text = output([binary, "classify", *options, "--logits", job["folder"] / "check.png"])
        return {"logits": json.loads(text)["results"][0]["logits"]}
    batches = ",".join(map(str, job["batches"]))
    return json.loads(output([binary, "bench", *options, "--batch", batches,
                              "--seconds", job["seconds"]]))


def onnxruntime(job):
    model = {"fp32": "model.onnx", "int8": "int8.onnx"}[job["precision"]]
    options = {"package": str(FOLDER / "node_modules" / "onnxruntime-node"),
               "model": str(job["folder"] / model), "threads": job["threads"],
               "batches": [] if job["check"] else job["batches"], "seconds": job["seconds"],
               "image": str(job["folder"] / "bench.f32"), "side": SIDE,
               "check": str(job["folder"] / "check.f32") if job["check"] else None}
    return json.loads(output(["node", HERE / "onnxruntime.js", json.dumps(options)]))


def pytorch(job):
    options = {"model": job["model"], "weights": str(job["folder"] / "weights.safetensors"),
               "precision": job["precision"], "threads": job["threads"], "batches": job["batches"],
               "seconds": job["seconds"], "image": str(job["folder"] / "bench.f32"), "side": SIDE,
               "check": str(job["folder"] / "check.f32") if job["check"] else None,
               "variants": job["variants"]}
    return json.loads(script("pytorch.py", json.dumps(options), threads=job["threads"]))
