"""The built-in model: what a server without options answers to the sample pictures beside it."""

import json
import pathlib
import unittest

from vitserve import Case, Server, multipart, run

SAMPLES = pathlib.Path(__file__).resolve().parents[2] / "config" / "demo" / "samples"
LABELS = {"t-shirt.png": "T-shirt/top", "trouser.png": "Trouser", "pullover.png": "Pullover",
          "dress.png": "Dress", "coat.png": "Coat", "sandal.png": "Sandal", "shirt.png": "Shirt",
          "sneaker.png": "Sneaker", "bag.png": "Bag", "ankle-boot.png": "Ankle boot",
          "red-sneaker.jpg": "Sneaker", "blue-top.jpg": "T-shirt/top"}


class Demo(Case):
    def test_samples(self):
        self.assertEqual({path.name for path in SAMPLES.iterdir()}, set(LABELS))
        kind, body = multipart([(name, (SAMPLES / name).read_bytes()) for name in LABELS])
        with Server("--max-queue", len(LABELS), model=()) as server:
            answer = server.classify(body, Content_Type=kind)
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual(answer.json["model"], "fashion_vit")
            runtime = server.request("GET", "/model").json["runtime"]
        self.assertEqual(runtime["weights_source"], "built-in")
        self.assertEqual({result["name"]: result["predictions"][0]["label"]
                          for result in answer.results}, LABELS)

    def test_every_precision(self):
        """The classes of the samples do not depend on the number format."""
        paths = [SAMPLES / name for name in LABELS]
        for precision in ("fp32", "bf16", "int8"):
            finished = run("classify", "--device", "cpu", "--precision", precision, "--json",
                           *paths)
            if finished.returncode != 0 and precision != "fp32":
                self.assertIn("AVX512", finished.stderr)
                continue
            results = [json.loads(line)["results"][0] for line in finished.stdout.splitlines()]
            self.assertEqual([result["predictions"][0]["label"] for result in results],
                             list(LABELS.values()), precision)

    def test_another_checkpoint_wins(self):
        finished = run("classify", "--weights", "none.safetensors", SAMPLES / "bag.png")
        self.assertEqual(finished.returncode, 1)
        self.assertIn("none.safetensors", finished.stderr)
        finished = run("classify", "--random-weights", "1", "--json", SAMPLES / "bag.png")
        self.assertEqual(finished.returncode, 0, finished.stderr)


if __name__ == "__main__":
    unittest.main()
