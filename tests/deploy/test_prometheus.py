"""Prometheus with the configuration that ships: it finds the replicas, and everything that an alert or
the dashboard asks for has an answer."""

import json
import re
import shutil
import subprocess
import tempfile
import unittest
import urllib.parse

import yaml

from sandbox import Case, DOCKER, Load, Program, get, setUpModule, wait_for  # noqa: F401

HERE = DOCKER.parent / "tests" / "deploy"
ALERTS = DOCKER / "prometheus" / "alerts.yaml"
API = "http://127.0.0.1:9090/api/v1/"


def ask(expression):
    return json.loads(get(API + "query?" + urllib.parse.urlencode({"query": expression}))[1])


def dashboard_queries():
    """(panel, expression), with Grafana's variables filled in."""
    dashboard = json.loads((DOCKER / "grafana/dashboards/vitserve.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m").replace(
                "$instance", ".*")


@unittest.skipUnless(shutil.which("promtool"), "no prometheus here")
class RulesCase(unittest.TestCase):
    def check_passes(self, *command):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    def test_files_are_valid(self):
        self.check_passes("promtool", "check", "config", DOCKER / "prometheus/prometheus.yaml")
        self.check_passes("promtool", "check", "rules", ALERTS)

    def test_alerts_fire(self):
        """Each of them, at what it is for, and none of them when all is well."""
        self.check_passes("promtool", "test", "rules", HERE / "alerts_test.yaml")
        tests = (HERE / "alerts_test.yaml").read_text()
        names = re.findall(r"alert: (\w+)", ALERTS.read_text())
        self.assertGreater(len(names), 5)
        for name in names:
            self.assertRegex(tests, f'alertname(: |="){name}\\b')

    def test_every_metric_is_shown(self):
        """What server/metrics.c writes is on the dashboard."""
        source = (DOCKER.parent / "server/metrics.c").read_text()
        metrics = set(re.findall(r'write_(?:head|gauge)\(out, "(\w+)"', source))
        metrics |= {name + "_bucket" for name in re.findall(r'\{"(\w+_(?:seconds|images))",', source)}
        self.assertGreater(len(metrics), 10)
        shown = " ".join(expression for _, expression in dashboard_queries())
        self.assertEqual({name for name in metrics if f"vitserve_{name}{{" not in shown}, set())


@unittest.skipUnless(shutil.which("prometheus"), "no prometheus here")
@unittest.skipUnless(shutil.which("haproxy"), "no haproxy here")
class PrometheusCase(Case):
    def targets_up(self):
        found = ask("up")["data"]["result"]
        return {sample["metric"]["instance"] for sample in found if sample["value"][1] == "1"}

    def test_everything_has_data(self):
        replicas = self.start_replicas(3)
        self.start(Program("haproxy", "-f", DOCKER / "haproxy.cfg"))
        data = self.enterContext(tempfile.TemporaryDirectory())
        prometheus = self.start(Program(
            "prometheus", f"--config.file={DOCKER}/prometheus/prometheus.yaml",
            f"--storage.tsdb.path={data}", "--web.listen-address=127.0.0.1:9090"))
        wait_for("prometheus", lambda: get("http://127.0.0.1:9090/-/ready")[0] == 200)
        expected = {f"{replica.address}:8081" for replica in replicas} | {"127.0.0.1:8405"}
        wait_for("all targets are scraped", lambda: self.targets_up() == expected, 60)
        with Load("127.0.0.1", clients=8) as load:
            load.at(20)
            self.check_alerts()
            self.check_dashboard()
        self.assertEqual(load.failed(), [], prometheus.output())

    def check_alerts(self):
        """What each alert compares with a number is there, and evaluated."""
        rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"]
                 for rule in group["rules"]]
        for rule in rules:
            expression = re.sub(r" [<>] [\d.]+$", "", rule["expr"])
            self.assertNotEqual("alert" in rule, expression == rule["expr"], rule)
            answer = ask(expression)
            self.assertEqual(answer["status"], "success", answer)
            self.assertNotEqual(answer["data"]["result"], [], expression)
        health = {rule["name"]: rule["health"] for group in
                  json.loads(get(API + "rules")[1])["data"]["groups"] for rule in group["rules"]}
        self.assertEqual(set(health.values()), {"ok"}, health)

    def check_dashboard(self):
        n = 0
        for panel, expression in dashboard_queries():
            answer = ask(expression)
            self.assertEqual(answer["status"], "success", f"{panel}: {expression}: {answer}")
            self.assertNotEqual(answer["data"]["result"], [], f"{panel}: {expression}")
            n += 1
        print(f"\n{n} queries of the dashboard have data", flush=True)
