"""The examples of README.md: each is run against a server, and does what it says."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from vitserve import TIMEOUT, Case, Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:8080"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


class Examples(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server(model=()))
        # Where the examples leave their files: like the top of the tree for those that they read.
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        for name in ("config", "README.md"):
            (cls.folder / name).symlink_to(ROOT / name)

    def run_text(self, command, text):
        """Runs a program with this text as its input, the server's address put in."""
        self.assertIn(ADDRESS, text)
        finished = subprocess.run(command, cwd=self.folder, capture_output=True, timeout=TIMEOUT,
                                  input=text.replace(ADDRESS, f"127.0.0.1:{self.server.port}"),
                                  text=True, check=False)
        self.assertEqual(finished.returncode, 0, finished.stderr + finished.stdout)
        self.assertEqual(finished.stderr, "")
        return finished.stdout

    def test_python(self):
        self.assertTrue(blocks("python"))
        for block in blocks("python"):
            self.assertIn("Sneaker", self.run_text([sys.executable, "-"], block))

    @unittest.skipUnless(shutil.which("node"), "no node")
    def test_javascript(self):
        self.assertTrue(blocks("js"))
        for block in blocks("js"):
            output = self.run_text(["node", "--input-type=module", "-"], block)
            self.assertIn("Sneaker", output)

    @unittest.skipUnless(shutil.which("curl"), "no curl")
    def test_curl(self):
        commands = re.findall(r"^\$ (curl (?:.*\\\n)*.*)", "".join(blocks("console")),
                              re.MULTILINE)
        self.assertGreater(len(commands), 4)
        for command in commands:
            with self.subTest(command):
                self.run_text(["sh", "-e"], command.replace("curl ", "curl -sS --fail ", 1))

    @unittest.skipUnless(shutil.which("curl"), "no curl")
    def test_the_answers_shown(self):
        """Every answer that stands under a command is the real one, to a digit or two."""
        shown = re.findall(r"^\$ (curl .*)\n(\{(?:.|\n)*?\n?.*\]\}\]\})\n", "".join(
            block + "\n" for block in blocks("console")), re.MULTILINE)
        self.assertTrue(shown)
        for command, answer in shown:
            real = json.loads(self.run_text(["sh", "-e"], command.replace("curl ", "curl -sS ", 1)))
            expected = json.loads(answer)
            for result in (*real["results"], *expected["results"]):
                for prediction in result["predictions"]:
                    prediction["probability"] = round(prediction["probability"], 2)
            self.assertEqual(real, expected)


if __name__ == "__main__":
    unittest.main()
