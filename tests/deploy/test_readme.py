"""The commands of docker/README.md, in order, as they stand there. What is no part of this machine is
played: `docker` and `kubectl` check what they are given, and where compose.yaml would have been started
the real programs run."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from sandbox import Case, DOCKER, PLAYERS, Program, ROOT, get, setUpModule, wait_for  # noqa: F401


def blocks():
    return re.findall(r"^```sh\n(.*?)^```$", (DOCKER / "README.md").read_text(), re.M | re.S)


@unittest.skipUnless(all(map(shutil.which, ("haproxy", "prometheus", "curl"))),
                     "no haproxy, prometheus or curl here")
class ReadmeCase(Case):
    def start_compose(self):
        self.start_replicas(3)
        self.start(Program("haproxy", "-f", DOCKER / "haproxy.cfg"))
        data = self.enterContext(tempfile.TemporaryDirectory())
        self.start(Program("prometheus", f"--config.file={DOCKER}/prometheus/prometheus.yaml",
                           f"--storage.tsdb.path={data}", "--web.listen-address=127.0.0.1:9090"))
        wait_for("haproxy", lambda: get("http://127.0.0.1:8080/readyz")[0] == 200)
        wait_for("prometheus", lambda: get("http://127.0.0.1:9090/-/ready")[0] == 200)

    def test_follow(self):
        self.assertGreater(len(blocks()), 8)
        self.start_compose()
        state = self.enterContext(tempfile.TemporaryDirectory())
        played = pathlib.Path(state) / "played"
        variables = {**os.environ, "PATH": f"{PLAYERS}:{os.environ['PATH']}", "PLAYED": str(played),
                     "REAL_PATH": os.environ["PATH"]}
        for block in blocks():
            if "container-test" in block or "./dev build" in block:
                continue  # this test; what would be written to /usr/local
            run = subprocess.run(["sh", "-eu", "-c", block], cwd=ROOT, env=variables, text=True,
                                 capture_output=True, timeout=120, check=False)
            self.assertEqual(run.returncode, 0, block + run.stdout + run.stderr)
            if "curl" in block:
                self.assertIn('"label":"Sneaker"', run.stdout)
        commands = played.read_text()
        self.assertEqual(len(re.findall(r"^docker stop ", commands, re.M)), 3)
        self.assertEqual(len(re.findall(r"^kubectl apply ", commands, re.M)), 6)

    def test_files_are_listed(self):
        """What README.md says of each file, and no file without a word."""
        readme = (DOCKER / "README.md").read_text()
        for path in DOCKER.iterdir():
            self.assertIn(f"`{path.name}", readme + "`README.md`")
