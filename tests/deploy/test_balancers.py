"""Replicas that crash, freeze, drain and are replaced, behind the balancers that ship: clients notice
nothing."""

import contextlib
import http.client
import json
import re
import shutil
import signal
import tempfile
import unittest

import yaml

from sandbox import (ADMIN_PORT, Case, DOCKER, Load, PORT, Program, compose_service, get,
                     photo, setUpModule, wait_for)  # setUpModule is for unittest


class BalancerCase(Case):
    def check_none_failed(self, load, title):
        load.stop()
        print("\n" + load.report(title), flush=True)
        self.assertGreater(len(load.requests), 100)
        self.assertEqual(load.failed(), [])

    def crash(self, replica):
        """As the kernel would, out of memory; what supervises it starts it anew at its address."""
        replica.process.kill()
        replica.process.wait()
        return self.start_replica(replica.address)

    def drain(self, replica):
        self.assertEqual(replica.stop(), 0, replica.output())

    def post(self, body):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)) as client:
            with contextlib.suppress(ConnectionError):  # not all of it need be read
                client.request("POST", "/classify", body)
            answer = client.getresponse()
            return answer.status, answer.read()

    def check_large_bodies(self):
        """What fits into no buffer passes."""
        status, body = self.post(photo(6_000_000))
        self.assertEqual(status, 200, body)

    def check_under_load(self, title, act):
        """act(load) while clients ask: none of them notices."""
        with Load("127.0.0.1") as load:
            act(load)
            self.check_none_failed(load, title)
        print(self.sent_again(), flush=True)


class FaultTests:
    """What each balancer has to hide. name: its own; replace(replica): by a new one;
    sent_again(): what it did for that."""

    def test_faults_do_not_show(self):
        """One minute: a crash, a replacement, and a replica that freezes for ten seconds."""
        a, b, c = self.replicas
        def act(load):
            load.at(8)
            self.crash(a)
            load.at(20)
            self.replace(b)
            load.at(35)
            c.process.send_signal(signal.SIGSTOP)
            load.at(45)
            c.process.send_signal(signal.SIGCONT)
            load.at(60)
        self.check_under_load(f"{self.name}, faults", act)

    def test_rolling_replacement(self):
        def act(load):
            load.at(5)
            for replica in self.replicas:
                self.replace(replica)
            load.at(load.requests[-1].start + 5)
        self.check_under_load(f"{self.name}, three replicas replaced", act)


@unittest.skipUnless(shutil.which("haproxy"), "no haproxy here")
class HaproxyCase(FaultTests, BalancerCase):
    name = "haproxy"

    def setUp(self):
        super().setUp()
        self.replicas = self.start_replicas(3)
        self.haproxy = self.start(Program("haproxy", "-f", DOCKER / "haproxy.cfg"))
        wait_for("haproxy sees three replicas", lambda: self.up() == 3)

    def metric(self, name, pattern=".*"):
        """The sum of the samples whose labels match."""
        text = get("http://127.0.0.1:8405/metrics")[1].decode()
        return sum(float(value) for labels, value in
                   re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.M) if re.search(pattern, labels))

    def up(self):
        return self.metric("haproxy_server_status", 'proxy="vitserve".*state="UP"')

    def sent_again(self):
        return "  sent again: {:.0f}, to another replica: {:.0f}".format(
            self.metric("haproxy_backend_retry_warnings_total", 'proxy="vitserve"'),
            self.metric("haproxy_backend_redispatch_warnings_total", 'proxy="vitserve"'))

    def replace(self, replica):
        """By one at another address, as containers get one."""
        new = self.start_replica().wait_ready()
        self.dns.hosts["vitserve"].append(new.address)
        wait_for("haproxy sees the new one",
                 lambda: self.metric("haproxy_server_status", 'state="UP"') >= 3)
        self.drain(replica)
        self.dns.hosts["vitserve"].remove(replica.address)

    def test_nobody_left(self):
        """The balancer's own errors look like the server's, and it recovers."""
        for replica in self.replicas:
            replica.process.kill()
        wait_for("haproxy sees that they are gone", lambda: self.up() == 0)
        status, body = get(f"http://127.0.0.1:{PORT}/model")
        self.assertEqual(status, 503)
        self.assertRegex(body, rb'^\{"error":"[^"]+","code":"unavailable","request_id":"[0-9a-f-]+"\}$')
        new = self.start_replica(self.replicas[0].address).wait_ready()
        wait_for("haproxy sees " + new.address, lambda: self.up() == 1)
        self.assertEqual(get(f"http://127.0.0.1:{PORT}/model")[0], 200)

    def test_large_bodies(self):
        self.check_large_bodies()

    def test_metrics_are_not_public(self):
        self.assertEqual(get(f"http://127.0.0.1:{PORT}/metrics")[0], 404)
        self.assertEqual(get(f"http://127.0.0.1:{PORT}/readyz")[0], 200)

    def test_limits_fit_together(self):
        """haproxy.cfg, nginx.conf and compose.yaml speak of the same numbers."""
        haproxy, nginx = ((DOCKER / name).read_text() for name in ("haproxy.cfg", "nginx.conf"))
        replica = compose_service("vitserve")
        limits = {name: int(value) for name, value in replica["environment"].items()
                  if str(value).isdigit()}
        timeout_ms = limits["VITSERVE_REQUEST_TIMEOUT_MS"]
        self.assertGreater(int(re.search(r"timeout server (\d+)s", haproxy)[1]) * 1000, timeout_ms)
        self.assertGreater(int(re.search(r"proxy_read_timeout (\d+)s", nginx)[1]) * 1000, timeout_ms)
        self.assertLess(self.metric("haproxy_server_limit_sessions") / 32,
                        limits["VITSERVE_MAX_QUEUE"])
        cuda = yaml.safe_load((DOCKER / "compose.cuda.yaml").read_text())["services"]
        self.assertLess(cuda["haproxy"]["environment"]["REPLICA_MAXCONN"],
                        cuda["vitserve"]["environment"]["VITSERVE_MAX_QUEUE"])
        seconds, fall = map(int, re.search(r"inter (\d+)s fall (\d+)", haproxy).groups())
        self.assertGreater(limits["VITSERVE_DRAIN_DELAY_MS"], seconds * fall * 1000)
        self.assertGreaterEqual(int(replica["stop_grace_period"].rstrip("s")) * 1000,
                                limits["VITSERVE_DRAIN_DELAY_MS"] + limits["VITSERVE_DRAIN_TIMEOUT_MS"])
        self.assertIn(f"connect port {ADMIN_PORT}", haproxy)


@unittest.skipUnless(shutil.which("nginx"), "no nginx here")
class NginxCase(FaultTests, BalancerCase):
    name = "nginx"

    def setUp(self):
        super().setUp()
        self.replicas = self.start_replicas(3)
        directory = self.enterContext(tempfile.TemporaryDirectory())
        self.nginx = self.start(Program("nginx", "-c", DOCKER / "nginx.conf", "-g",
                                        f"daemon off; pid {directory}/nginx.pid;"))
        wait_for("nginx answers", lambda: get(f"http://127.0.0.1:{PORT}/readyz")[0] == 200)

    def replace(self, replica):
        """By one at the same address: nginx looks names up once."""
        self.drain(replica)
        self.start_replica(replica.address).wait_ready()

    def sent_again(self):
        statuses = re.findall(r'upstream "[^"]*" "([^"]*)"', self.nginx.output())
        return f"  sent again: {sum(',' in status for status in statuses)}"

    def test_nobody_left(self):
        for replica in self.replicas:
            replica.process.kill()
            replica.process.wait()
        status, body = get(f"http://127.0.0.1:{PORT}/model")
        self.assertEqual(status, 503)
        self.assertRegex(body, rb'^\{"error":"[^"]+","code":"unavailable","request_id":"[0-9a-f]+"\}$')

    def test_large_bodies(self):
        self.check_large_bodies()
        status, body = self.post(photo(34_000_000))
        self.assertEqual((status, json.loads(body)["code"]), (413, "body_too_large"))

    def test_metrics_are_not_public(self):
        self.assertEqual(get(f"http://127.0.0.1:{PORT}/metrics")[0], 404)
