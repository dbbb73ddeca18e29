"""The cases of the field test, shared/cases: requests, each sent as it stands, and pictures: the crop
that Pillow gives, or refused as by Pillow. VITSERVE_SHARED names the folder shared/; without it, the
one beside the checkout counts."""

import hashlib
import json
import os
import pathlib
import re
import unittest

from vitserve import HERE, MODEL, Case, Server, ServerCase

CASES = pathlib.Path(os.environ.get("VITSERVE_SHARED") or HERE.parents[2] / "shared") / "cases"


@unittest.skipUnless((CASES / "expected.json").exists(), f"there is no {CASES}")
class Requests(Case):
    def test_each_is_answered_as_expected(self):
        expected = json.loads((CASES / "expected.json").read_text(encoding="utf-8"))
        names = sorted(name for name in expected if name.endswith(".req"))
        self.assertGreaterEqual(len(names), 8)
        with Server("--max-batch", 2, model=()) as server:  # the built-in model, as they say
            for name in names:
                with self.subTest(name):
                    self.check_case(server.send_raw((CASES / name).read_bytes()),
                                    expected[name]["expect"])
            self.check_good(server)

    def check_case(self, answer, words):
        """words: "200, one result ..." or "400 and close ..."; one answer, after which the server
        closes."""
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertEqual(head[:13].decode(), f"HTTP/1.1 {words[:3]} ")
        self.assertEqual(len(re.findall(rb"HTTP/1\.1 \d\d\d", answer)), 1, answer[:2000])
        if "one result" in words:
            self.assertEqual(len(json.loads(body)["results"]), 1)


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
