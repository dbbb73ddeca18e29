"""vitserve classify: the table and the JSON, which files the words name, progress."""

import contextlib
import json
import math
import os
import pathlib
import pty
import shutil
import subprocess
import tempfile
import unittest

from vitserve import BINARY, MODEL, Case, environment, jpeg, png, run

FILES = {"good.png": png(), "good.jpg": jpeg(), "empty.png": b"", "bad.png": b"bad",
         "cut.png": png()[:80], "--top-k": png(seed=2), "caf\u00e9.png": png(seed=3)}


def read_terminal(descriptor):
    """What a program wrote to its terminal, until it has ended."""
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := os.read(descriptor, 4096):
            shown += piece
    return shown.decode()


class ClassifyCase(Case):
    files = FILES

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name, data in self.files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(data)
        self.enterContext(contextlib.chdir(self.folder))

    def classify(self, *arguments):
        return run("classify", *MODEL, *arguments)

    def on_terminal(self, *arguments, **descriptors):
        """The exit code and what the terminal shows; stdout or stderr may go elsewhere."""
        ours, theirs = pty.openpty()
        command = [BINARY, "classify", *MODEL, *map(str, arguments)]
        with subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL,
                              **{"stdout": theirs, "stderr": theirs} | descriptors) as process:
            os.close(theirs)
            shown = read_terminal(ours)
        os.close(ours)
        return process.returncode, shown.replace("\r\n", "\n")

    def results(self, *arguments, code=0):
        finished = self.classify("--top-k", 1, *arguments)
        self.assertEqual(finished.returncode, code, finished.stderr)
        return [json.loads(line)["results"][0] for line in finished.stdout.splitlines()]

    def names(self, *arguments, **options):
        return [result["name"] for result in self.results(*arguments, **options)]


class Table(ClassifyCase):
    def test_columns(self):
        code, shown = self.on_terminal("good.png", "good.jpg", "--top-k", 3)
        self.assertEqual(code, 0, shown)
        lines = shown.splitlines()
        self.assertEqual(len(lines), 8)
        self.assertEqual((lines[0], lines[4]), ("good.png (40 x 30)", "good.jpg (64 x 48)"))
        shares = []
        for line in lines[1:4] + lines[5:]:
            self.assertRegex(line, r"\A  [ \d]{3}\.\d\d %  [ \d]{3}  [^ ].*\Z")
            shares.append(float(line.split()[0]))
        self.assertEqual(shares[:3], sorted(shares[:3], reverse=True))

    def test_a_name_commands_no_terminal(self):
        names = ("a\x7fb.png", "a\x1b[31mb.png")
        for name in names:
            shutil.copy("good.png", name)
        code, shown = self.on_terminal(*names, "--top-k", 1)
        self.assertEqual(code, 0, shown)
        self.assertEqual(shown.splitlines()[::2], ["a?b.png (40 x 30)", "a?[31mb.png (40 x 30)"])

    def test_long_labels_are_whole(self):
        labels = [f"caf\u00e9 {i} " + "x" * 200 for i in range(1000)]
        pathlib.Path("labels.txt").write_text("\n".join(labels), encoding="utf-8")
        arguments = ("--labels", "labels.txt", "--top-k", 1000, "good.png")
        code, shown = self.on_terminal(*arguments)
        self.assertEqual(code, 0)
        (result,) = json.loads(self.classify(*arguments).stdout)["results"]
        for line, prediction in zip(shown.splitlines()[1:], result["predictions"], strict=True):
            share, _, index, label = line.split(maxsplit=3)
            self.assertEqual((int(index), label), (prediction["class"], prediction["label"]))
            self.assertEqual(label, labels[int(index)])
            self.assertAlmostEqual(float(share), 100 * prediction["probability"], delta=0.00501)

    def test_an_error_is_a_line(self):
        code, shown = self.on_terminal("missing.png", "good.png", "--top-k", 1)
        self.assertEqual(code, 1)
        lines = shown.splitlines()
        self.assertEqual(lines[0], "missing.png: No such file or directory")
        self.assertEqual(lines[1], "good.png (40 x 30)")
        self.assertEqual(lines[3:], ["vitserve: 1 of 2 images failed, the first: missing.png: "
                                     "No such file or directory"])

    def test_names_do_not_reach_the_terminal_as_commands(self):
        code, shown = self.on_terminal("\x1b]0;x.png", stderr=subprocess.DEVNULL)
        self.assertEqual((code, shown), (1, "?]0;x.png: No such file or directory\n"))

    def test_two_dashes_end_the_options(self):
        code, shown = self.on_terminal("--top-k", 1, "--", "--top-k", "good.png")
        self.assertEqual(code, 0, shown)
        self.assertTrue(shown.startswith("--top-k (40 x 30)\n"), shown)
        self.assertEqual(len(shown.splitlines()), 4)


class Json(ClassifyCase):
    def test_shape(self):
        finished = self.classify("good.png", "caf\u00e9.png")
        self.assertEqual(finished.returncode, 0, finished.stderr)
        answers = [json.loads(line) for line in finished.stdout.splitlines()]
        self.assertEqual([answer["results"][0]["name"] for answer in answers],
                         ["good.png", "caf\u00e9.png"])
        for answer in answers:
            self.assertEqual(set(answer), {"model", "results"})
            (result,) = answer["results"]
            self.assertEqual(set(result), {"name", "width", "height", "predictions"})
            self.assertEqual(len(result["predictions"]), 5)
        finished = self.classify("--json", "--logits", "--top-k", 5000, "good.png")
        (result,) = json.loads(finished.stdout)["results"]
        self.assertEqual((len(result["logits"]), len(result["predictions"])), (1000, 1000))
        total = math.fsum(prediction["probability"] for prediction in result["predictions"])
        self.assertAlmostEqual(total, 1.0, places=5)

    def test_on_a_terminal_by_option(self):
        code, shown = self.on_terminal("--json", "good.png")
        self.assertEqual((code, shown), (0, self.classify("good.png").stdout))

    def test_bad_files_beside_good_ones(self):
        names = ["missing.png", "good.png", "empty.png", "bad.png", "cut.png", "good.jpg"]
        results = self.results("--max-batch", 2, *names, code=1)
        self.assertEqual([result["name"] for result in results], names)
        self.assertEqual([result.get("code") for result in results],
                         ["io", None, "unsupported_image", "unsupported_image", "bad_image", None])
        self.assertEqual(results[-1], self.results("good.jpg")[0])

    def test_only_bad_files(self):
        for name in ("missing.png", "empty.png", "bad.png"):
            finished = self.classify(name)
            self.assertEqual(finished.returncode, 1)
            answer = json.loads(finished.stdout)
            self.assertEqual(answer["results"][0]["name"], name)
            self.assertEqual(answer["error"], answer["results"][0]["error"])
            self.assertIn(f"1 of 1 images failed, the first: {name}: ", finished.stderr)

    def test_neither_batch_nor_threads_change_a_bit(self):
        one = {name: self.classify("--logits", name).stdout for name in ("good.png", "good.jpg")}
        names = ["good.png", "good.jpg", "good.jpg", "good.png", "good.png"] * 3
        for threads in (1, 2, 300):
            many = self.classify("--logits", "--max-batch", 4, "--decode-threads", threads, *names)
            self.assertEqual(many.stdout, "".join(one[name] for name in names))

    def test_standard_output_that_takes_nothing(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            finished = subprocess.run([BINARY, "classify", *MODEL, "good.png"], check=False,
                                      stdout=full, stderr=subprocess.PIPE, text=True,
                                      env=environment())
        self.assertEqual(finished.returncode, 1)
        self.assertIn("standard output: No space left", finished.stderr)

    def test_the_model_must_open(self):
        finished = run("classify", "--model", "nonsense", "good.png")
        self.assertEqual(finished.returncode, 2)
        self.assertIn("nonsense", finished.stderr)
        finished = run("classify", *MODEL[:2], "--weights", "bad.png", "good.png")
        self.assertEqual((finished.returncode, finished.stdout), (1, ""))
        self.assertIn("bad.png", finished.stderr)


class Names(ClassifyCase):
    files = {name: png(seed=7) for name in
             ("d/b.png", "d/a.PNG", "d/a/z.JpEg", "d/a/deep/er/x.jpg", "d/a-b/y.png", "d/.png/q.png",
              "d/w.webp", "d/notes.txt", "d/png", "d/x.png.txt", "no/readme", "[1].png", "1.png",
              "odd[", "star*.png", "starry.png")}

    def test_directories(self):
        wanted = sorted(name for name in self.files if name.startswith("d/")
                        and name.lower().endswith((".png", ".jpg", ".jpeg", ".webp")))
        self.assertEqual(len(wanted), 7)
        self.assertEqual(self.names("d"), wanted)
        self.assertEqual(self.names("d/"), wanted)
        self.assertEqual(self.names("1.png", "d/a", "d/b.png"),
                         ["1.png", "d/a/deep/er/x.jpg", "d/a/z.JpEg", "d/b.png"])

    def test_links(self):
        (self.folder / "d" / "loop").symlink_to("..")
        (self.folder / "d" / "self.png").symlink_to("self.png")
        (self.folder / "d" / "dir.png").symlink_to("a")
        (self.folder / "d" / "a" / "link.png").symlink_to("../b.png")
        (self.folder / "start").symlink_to("d/a")
        self.assertEqual(self.names("start"),
                         ["start/deep/er/x.jpg", "start/link.png", "start/z.JpEg"])
        results = {result["name"]: result.get("error") for result in self.results("d", code=1)}
        self.assertEqual(len(results), 9)
        self.assertIn("symbolic links", results.pop("d/self.png"))
        self.assertIn("d/a/link.png", results)
        self.assertEqual(set(results.values()), {None})

    def test_a_directory_without_pictures(self):
        (result, good) = self.results("no", "1.png", code=1)
        self.assertEqual((result["name"], good["name"]), ("no", "1.png"))
        self.assertRegex(result["error"], "directory without pictures .*webp")
        finished = self.classify("no")
        self.assertEqual(finished.returncode, 1)
        self.assertIn("no: a directory without pictures", finished.stderr)

    def test_patterns(self):
        self.assertEqual(self.names("d/[ab]*"),
                         ["d/a/deep/er/x.jpg", "d/a/z.JpEg", "d/a-b/y.png", "d/a.PNG", "d/b.png"])
        self.assertEqual(self.names("?.png"), ["1.png"])
        self.assertEqual(self.names("star*.png"), ["star*.png"])
        self.assertEqual(self.names("sta*.png"), ["star*.png", "starry.png"])
        self.assertEqual(self.names("[1].png"), ["[1].png"])
        self.assertEqual(self.names("[[]1].png", "odd["), ["[1].png", "odd["])

    def test_a_pattern_that_matches_nothing(self):
        (result, good) = self.results("*.gif", "1.png", code=1)
        self.assertEqual((result["name"], result["error"]),
                         ("*.gif", "no file matches this pattern"))
        self.assertEqual(good["name"], "1.png")

    def test_what_is_no_file(self):
        os.mkfifo("pipe.png")
        os.mkfifo("d/pipe.png")
        self.assertEqual([result.get("error") for result in
                          self.results("pipe.png", "/dev/null", code=1)], ["not a regular file"] * 2)
        self.assertNotIn("d/pipe.png", self.names("d"))


class Progress(ClassifyCase):
    def progress(self, *arguments):
        return self.on_terminal("--max-batch", 2, *arguments, stdout=subprocess.DEVNULL)

    def test_line_that_vanishes(self):
        code, shown = self.progress(*["good.png"] * 5)
        self.assertEqual(code, 0)
        self.assertRegex(shown, r"\A\r\x1b\[K(\r[24]/5 images, \d+/s\x1b\[K\r\x1b\[K){2}\Z")

    def test_none_for_a_single_batch(self):
        self.assertEqual(self.progress("good.png", "good.png"), (0, ""))

    def test_none_where_nobody_looks(self):
        finished = self.classify("--max-batch", 1, "good.png", "good.png")
        self.assertEqual((finished.returncode, finished.stderr), (0, ""))

    def test_beside_a_table(self):
        code, shown = self.on_terminal("--max-batch", 1, "--top-k", 1, "good.png", "bad.png",
                                       "good.jpg")
        self.assertEqual(code, 1)
        screen = [line.rpartition("\x1b[K")[2] for line in shown.split("\n")]
        self.assertEqual(screen[0], "good.png (40 x 30)")
        self.assertTrue(screen[2].startswith("bad.png: "), shown)
        self.assertEqual(screen[3], "good.jpg (64 x 48)")
        self.assertTrue(screen[5].startswith("vitserve: 1 of 3 images failed"), shown)


if __name__ == "__main__":
    unittest.main()
