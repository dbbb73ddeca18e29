"""The systemd unit: understood by systemd, and confined."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNIT = ROOT / "docker" / "vitserve.service"
BINARY = os.environ.get("VITSERVE_BINARY", str(ROOT / "build" / "vitserve"))


@unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze here")
class ServiceCase(unittest.TestCase):
    def setUp(self):
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.unit = directory / UNIT.name
        self.unit.write_text(UNIT.read_text().replace("/usr/local/bin/vitserve", BINARY))

    def analyze(self, *words):
        return subprocess.run(["systemd-analyze", *words, str(self.unit)], capture_output=True,
                              text=True, check=False)

    def test_is_understood(self):
        run = self.analyze("verify", "--man=no")
        self.assertEqual((run.returncode, run.stdout + run.stderr), (0, ""))

    def test_is_confined(self):
        run = self.analyze("security", "--offline=true", "--no-pager", "--threshold=20")
        self.assertEqual(run.returncode, 0, run.stdout[-200:] + run.stderr)
