"""The trained DeiT-Tiny of the shared folder against PyTorch's logits: through vitserve classify,
through HTTP alone and through HTTP in batches of mixed size. Skipped where there is no such folder
(VITSERVE_SHARED, or shared/ beside the repository)."""

import json
import math
import os
import pathlib
import unittest

from vitserve import Case, Server, multipart, run, together

SHARED = pathlib.Path(os.environ.get("VITSERVE_SHARED") or
                      pathlib.Path(__file__).resolve().parents[3] / "shared")
DATA = SHARED / "data"
MODEL = ("--model", "deit_tiny_patch16_224", "--device", "cpu", "--precision", "fp32",
         "--weights", str(DATA / "deit_tiny_patch16_224.timm.safetensors"))


@unittest.skipUnless(DATA.is_dir(), f"no {DATA}")
class Golden(Case):
    @classmethod
    def setUpClass(cls):
        cls.golden = json.loads((DATA / "golden_deit_tiny.json").read_text(encoding="utf-8"))
        cls.paths = [DATA / "photos" / name for name in cls.golden]
        finished = run("classify", *MODEL, "--json", "--logits", *cls.paths)
        if finished.returncode != 0:
            raise AssertionError(finished.stderr)
        cls.printed = {path.name: json.loads(line)["results"][0] for path, line in
                       zip(cls.paths, finished.stdout.splitlines(), strict=True)}

    def check_results(self, results):
        """What HTTP answers is what was printed, to the bit, but for the name."""
        for result in results:
            expected = self.printed[result["name"]]
            self.assertEqual(result | {"name": None}, expected | {"name": None})

    def test_ten_photos(self):
        self.assertEqual(len(self.golden), 10)
        for name, golden in self.golden.items():
            with self.subTest(name):
                result = self.printed[name]
                self.assertEqual([prediction["class"] for prediction in result["predictions"]],
                                 golden["top5"])
                for prediction, probability in zip(result["predictions"], golden["p"]):
                    self.assertAlmostEqual(prediction["probability"], probability, places=5)
                difference = math.dist(result["logits"], golden["logits"])
                self.assertLessEqual(difference / math.hypot(*golden["logits"]), 1e-5)

    def test_http(self):
        photos = [(path.name, path.read_bytes()) for path in self.paths]
        with Server("--max-batch", 5, "--max-queue", 64, model=MODEL) as server:
            def send(form):
                """The photos of this form; a single one goes as a raw body."""
                files = [photos[i] for i in form]
                if len(files) == 1:
                    answer = server.classify(files[0][1], "?logits=1")
                else:
                    kind, body = multipart(files)
                    answer = server.classify(body, "?logits=1", Content_Type=kind)
                self.assertEqual(answer.status, 200, answer.body)
                names = [name for name, _ in files]
                return [result | {"name": name} for result, name in
                        zip(answer.results, names, strict=True)]
            for i in range(10):
                self.check_results(send([i]))
            self.check_results(send(range(10)))
            mixed = [[0, 1, 2], [3], [4, 5, 6, 7, 8, 9], [2, 2], [9], [8, 7, 6, 5], [0], [1, 3]]
            for results in together(send, mixed * 2, threads=8):
                self.check_results(results)

    def test_labels(self):
        words = {"084": "peacock", "285": "Egyptian cat", "340": "zebra", "967": "espresso"}
        for name, result in self.printed.items():
            if name[:3] in words:
                self.assertEqual(result["predictions"][0]["label"], words[name[:3]])


if __name__ == "__main__":
    unittest.main()
