"""The cases of ../shared/cases that are requests: each is sent as it stands, and its answer is the
one that expected.json tells. The pictures among them are another test's."""

import json
import os
import pathlib
import re
import unittest

from vitserve import Server, Case

CASES = pathlib.Path(os.environ.get("VITSERVE_SHARED") or
                     pathlib.Path(__file__).resolve().parents[3] / "shared", "cases")


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


if __name__ == "__main__":
    unittest.main()
