"""The web page in a browser, where there is one: that its script runs under its own policy and
shows the server."""

import html
import re
import shutil
import subprocess
import tempfile
import unittest

from vitserve import TIMEOUT, Case, Server, environment

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)
# Nothing but the loopback is asked, and the browser's own errors are told on stderr.
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
           "--disable-background-networking", "--disable-component-update", "--no-first-run",
           "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr",
           "--virtual-time-budget=5000")


@unittest.skipUnless(BROWSER, "there is no chromium here")
class Browser(Case):
    def load(self, server):
        """The page after its script has run, and what the script complained of."""
        with tempfile.TemporaryDirectory() as home:
            command = [BROWSER, *OPTIONS, f"--user-data-dir={home}", "--dump-dom",
                       f"http://127.0.0.1:{server.port}/"]
            finished = subprocess.run(command, env=environment(HOME=home), capture_output=True,
                                      stdin=subprocess.DEVNULL, text=True, timeout=2 * TIMEOUT,
                                      check=True)
        # Chromium itself tells of every answer that is an error.
        console = [line for line in finished.stderr.splitlines()
                   if "CONSOLE" in line and "Failed to load resource" not in line]
        return finished.stdout, console

    def element(self, dom, name):
        return html.unescape(re.search(rf'<[^>]*id="{name}"[^>]*>([^<]*)<', dom)[1])

    def test_shows_the_server(self):
        with Server(model=()) as server:
            dom, console = self.load(server)
            model = server.request("GET", "/model").json
        self.assertEqual(console, [])
        self.assertEqual(self.element(dom, "readiness"), "Ready")
        self.assertIn('data-state="ready"', dom)
        self.assertEqual(self.element(dom, "model-name"), "fashion_vit")
        self.assertIn(f"<dd>{model['num_parameters_human']}</dd>", dom)
        self.assertIn(f"<dd>{model['runtime']['precision']}</dd>", dom)
        sizes = re.findall(r"<option[^>]*>(\d+)", dom)
        self.assertEqual(sizes, ["1", "3", "5", "10"])


if __name__ == "__main__":
    unittest.main()
