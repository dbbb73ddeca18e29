"""The whole server with its CUDA backend, on the emulated GPU (tests/emulator): VITSERVE_BINARY lies
beside the emulated module."""

import json
import os
import pathlib
import tempfile
import unittest

from vitserve import Case, Server, png, run, together

SHARED = pathlib.Path(os.environ.get("VITSERVE_SHARED") or
                      pathlib.Path(__file__).resolve().parents[3] / "shared")
DATA = SHARED / "data"
CACHE = tempfile.TemporaryDirectory()
CUDA = ("--model", "deit_tiny_patch16_224", "--device", "cuda")
RANDOM = (*CUDA, "--random-weights", "1", "--max-batch", "1")
SMALL = ("--model", "fashion_vit", "--max-batch", "1")  # where any model will do


def write_picture():
    path = pathlib.Path(CACHE.name) / "picture.png"
    path.write_bytes(png())
    return path


def variables(**more):
    return {"XDG_CACHE_HOME": CACHE.name, **more}


class Photos(Case):
    @unittest.skipUnless(DATA.is_dir(), f"no {DATA}")
    def test_ten_photos(self):
        golden = json.loads((DATA / "golden_deit_tiny.json").read_text(encoding="utf-8"))
        weights = DATA / "deit_tiny_patch16_224.timm.safetensors"
        model = (*CUDA, "--precision", "bf16", "--weights", str(weights), "--max-batch", "1")
        with Server(model=model, variables=variables()) as server:
            runtime = server.request("GET", "/model").json["runtime"]
            self.assertEqual((runtime["device"], runtime["device_name"], runtime["precision"]),
                             ("cuda", "Emulated GPU", "bf16"))
            answers = [server.classify((DATA / "photos" / name).read_bytes(), "?logits=1")
                       for name in golden]  # one by one: each takes seconds
        errors = []
        for answer, expected in zip(answers, golden.values(), strict=True):
            self.assertEqual(answer.status, 200, answer.body)
            (result,) = answer.results
            self.assertEqual(result["predictions"][0]["class"], expected["top5"][0])
            squares = [(a - b) ** 2 for a, b in zip(result["logits"], expected["logits"])]
            norm = sum(value * value for value in expected["logits"])
            errors.append((sum(squares) / norm) ** 0.5)
        errors.sort()
        print("rel-L2 errors in bf16: median %.2e, worst %.2e" % (errors[5], errors[-1]))
        self.assertLessEqual(errors[5], 1.2e-2)
        self.assertLessEqual(errors[-1], 2e-2)


class ManyGpus(Case):
    def test_one(self):
        """One GPU by its number: no other gets a context, which would take half a GB there."""
        model = ("--random-weights", "1", "--max-batch", "1", "--device", "cuda:2")
        only = variables(EMULATOR_DEVICES="3", EMULATOR_ONLY_DEVICE="2")
        finished = run("classify", *model, write_picture(), **only)
        self.assertEqual(finished.returncode, 0, finished.stderr)
        with Server(model=model, variables=only) as server:
            for answer in together(lambda _: server.classify(png()), range(4)):
                self.assertEqual(answer.status, 200, answer.body)

    def test_all(self):
        """Every GPU takes its share of one queue; one by its number."""
        three = variables(EMULATOR_DEVICES="3")
        one = run("classify", *SMALL, "--device", "cuda:2", "--precision", "fp32", "--json",
                  "--logits", write_picture(), **three)
        self.assertEqual(one.returncode, 0, one.stderr)
        expected = json.loads(one.stdout)["results"][0]["logits"]
        with Server("--device", "cuda:all", "--precision", "fp32", "--max-queue", 8, model=SMALL,
                    variables=three) as server:
            for answer in together(lambda _: server.classify(png(), "?logits=1"), range(6)):
                self.assertEqual(answer.status, 200, answer.body)
                self.assertEqual(answer.results[0]["logits"], expected)
        absent = run("classify", *SMALL, "--device", "cuda:3", write_picture(), **three)
        self.assertIn("there is no GPU 3, only 3", absent.stderr)


class Tuning(Case):
    def test_other_library(self):
        """Algorithms that another build of cuBLASLt left in the file are found anew, once, and take
        the place of the old ones."""
        files = []
        with tempfile.TemporaryDirectory() as cache:
            for build in ("1", "2", "2"):
                finished = run("classify", "--device", "cuda", "--max-batch", "1", write_picture(),
                               XDG_CACHE_HOME=cache, EMULATOR_LIBRARY=build)
                self.assertEqual(finished.returncode, 0, finished.stderr)
                (kept,) = pathlib.Path(cache).glob("vitserve/tuning-*")
                files.append(kept.read_bytes())
        self.assertNotEqual(files[0], files[1])
        self.assertEqual(files[1], files[2])
        self.assertEqual(len(files[0]), len(files[1]))


class Faults(Case):
    def test_device_lost(self):
        """A sticky error fails the batch and ends the process with exit code 3."""
        server = Server("--device", "cuda", model=SMALL,
                        variables=variables(EMULATOR_FAIL="cudaGraphLaunch:4:700"))
        try:
            statuses = []
            for _ in range(10):
                try:
                    answer = server.classify(png())
                except (OSError, AttributeError):  # the process has ended
                    break
                statuses.append(answer.status)
                if answer.status != 200:
                    self.assertEqual(answer.json["code"], "device_failed")
            self.assertIn(503, statuses)
            self.assertEqual(server.wait(), 3)
        finally:
            server.kill()
            server.log.close()

    def test_no_gpu(self):
        finished = run("classify", *RANDOM, "x.png", **variables(EMULATOR_DEVICES="0"))
        self.assertEqual(finished.returncode, 1)
        self.assertIn("no usable GPU", finished.stderr)

    def test_out_of_memory(self):
        finished = run("classify", *RANDOM, "x.png", **variables(EMULATOR_MEMORY_MB="4"))
        self.assertEqual(finished.returncode, 1)
        self.assertRegex(finished.stderr, r"\d+ MiB needed, \d+ MiB free of 4 MiB")

    def test_precisions(self):
        finished = run("classify", *RANDOM, "--precision", "int8", "x.png", **variables())
        self.assertEqual(finished.returncode, 1)
        self.assertIn("Emulated GPU computes in fp32, tf32, bf16 and fp16 only", finished.stderr)
        finished = run("classify", *RANDOM, "--precision", "bf16", "x.png",
                       **variables(EMULATOR_CC="7.5"))
        self.assertIn("fp32 and fp16 only", finished.stderr)


if __name__ == "__main__":
    unittest.main()
