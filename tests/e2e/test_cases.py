"""The pictures of the field test, shared/cases: the crop that Pillow gives, or refused as by Pillow.

VITSERVE_SHARED names the folder shared/; without it, the one beside the checkout counts."""

import hashlib
import json
import os
import pathlib
import unittest

from vitserve import HERE, MODEL, ServerCase

CASES = pathlib.Path(os.environ.get("VITSERVE_SHARED", HERE.parents[2] / "shared")) / "cases"


def pictures():
    expected = json.loads((CASES / "expected.json").read_text(encoding="utf-8"))
    return {name: case["pillow_9_4"] for name, case in expected.items() if "pillow_9_4" in case}


@unittest.skipUnless((CASES / "expected.json").exists(), f"no {CASES}")
class Pictures(ServerCase):
    options, model = (), MODEL

    def test_crops(self):
        for name, expected in pictures().items():
            with self.subTest(name):
                answer = self.server.request("POST", "/preprocess", (CASES / name).read_bytes(),
                                             Accept="application/octet-stream")
                if expected["error"]:
                    self.check_error(answer, 400, "bad_image")
                    continue
                self.assertEqual(answer.status, 200, answer.body)
                self.assertEqual(hashlib.sha256(answer.body).hexdigest(),
                                 expected["crop224_bicubic256_sha256"])

    def test_sizes(self):
        """Upright, as the answer has them."""
        for name, expected in pictures().items():
            if not expected["error"]:
                width, height = expected["size"]
                if expected.get("orientation") in (5, 6, 7, 8):
                    width, height = height, width
                (result,) = self.server.classify((CASES / name).read_bytes()).results
                self.assertEqual((result["width"], result["height"]), (width, height), name)


if __name__ == "__main__":
    unittest.main()
