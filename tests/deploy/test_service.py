"""The systemd unit: understood by systemd, and confined."""

import json
import os
import pathlib
import re
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

    def keys(self):
        """The lines for keys that the unit proposes."""
        lines = re.findall(r"^#   (\w+=.*)$", self.unit.read_text(), re.M)
        return [line for line in lines if line.startswith(("LoadCredential=", "Environment="))]

    def test_keys_are_understood(self):
        """By systemd and by the server."""
        text = self.unit.read_text()
        self.unit.write_text(text.replace("[Service]\nEnv", "\n".join(["[Service]", *self.keys(), "Env"])))
        self.assertNotEqual(text, self.unit.read_text())
        run = self.analyze("verify", "--man=no")
        self.assertEqual((run.returncode, run.stdout + run.stderr), (0, ""))
        words = " ".join(line for line in self.keys() if line.startswith("Environment=")).replace(
            "Environment=", "").replace("%d", "/credentials").split()
        run = subprocess.run([BINARY, "serve", "--print-config"], env=dict(word.split("=") for word in words),
                             capture_output=True, text=True, check=True)
        self.assertEqual(run.stderr, "")
        config = json.loads(run.stdout)
        found = {config[name] for name in ("api_key_file", "tls_cert", "tls_key")}
        loaded = re.findall(r"LoadCredential=([\w-]+):/", "\n".join(self.keys()))
        self.assertEqual(found, {f"/credentials/{name}" for name in loaded})

    def test_leaves_no_core(self):
        self.assertIn("\nLimitCORE=0\n", self.unit.read_text())

    def analyze(self, *words):
        return subprocess.run(["systemd-analyze", *words, str(self.unit)], capture_output=True,
                              text=True, check=False)

    def test_is_understood(self):
        run = self.analyze("verify", "--man=no")
        self.assertEqual((run.returncode, run.stdout + run.stderr), (0, ""))

    def test_is_confined(self):
        run = self.analyze("security", "--offline=true", "--no-pager", "--threshold=20")
        self.assertEqual(run.returncode, 0, run.stdout[-200:] + run.stderr)
