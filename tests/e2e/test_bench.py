"""vitserve bench: the JSON, the table, and lists of batch sizes that are none. The model is the one
that is built in: small enough for many passes in a second, even under the sanitizers."""

import json
import unittest

from vitserve import Case, run

SIZES = [3, 1]


def bench(*arguments):
    return run("bench", "--seconds", 1, *arguments)


class Bench(Case):
    def test_json(self):
        finished = bench("--batch", ",".join(map(str, SIZES)), "--json")
        self.assertEqual(finished.returncode, 0, finished.stderr)
        report = json.loads(finished.stdout)
        self.assertEqual(list(report), ["model", "device", "precision", "results"])
        self.assertEqual([row["batch"] for row in report["results"]], SIZES)
        for row in report["results"]:
            self.assertGreater(row["ms_p50"], 0)
            self.assertGreater(row["ms_p99"], row["ms_p50"])
            self.assertAlmostEqual(row["images_per_second"] * row["ms_p50"] / row["batch"], 1000,
                                   delta=0.01)
            self.assertGreater(row["percent_of_limit"], 0)

    def test_the_table(self):
        finished = bench("--batch", SIZES[0])
        self.assertEqual(finished.returncode, 0, finished.stderr)
        title, heads, row = finished.stdout.splitlines()
        self.assertRegex(title, r"^\S+ on cpu \(.+\), \w+$")
        self.assertEqual(heads.split(), ["batch", "images/s", "ms", "(p50)", "ms", "(p99)", "%", "of",
                                         "limit"])
        batch, rate, p50, p99, percent = map(float, row.split())
        self.assertEqual(batch, SIZES[0])
        self.assertAlmostEqual(rate * p50 / batch, 1000, delta=5)
        self.assertGreater(p99, p50)
        self.assertGreater(percent, 0)

    def test_what_is_no_list(self):
        for sizes in ("0", "-1", "4097", "1,", ",1", "1,,2", "1,x", "1;2", "1.5", "9" * 30,
                      ",".join(["1"] * 65)):
            finished = bench("--batch", sizes)
            self.assertEqual(finished.returncode, 2, sizes)
            self.assertIn(f'--batch: "{sizes}" is not a list like 1,8,32 of sizes from 1 to 4096',
                          finished.stderr)
            self.assertEqual(finished.stdout, "")


if __name__ == "__main__":
    unittest.main()
