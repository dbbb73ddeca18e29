"""Replicas that crash, freeze, drain and are replaced, behind the balancers that ship. Clients notice
nothing, but for what a frozen replica had when it froze: no request that ran out of time is sent again."""

import contextlib
import http.client
import json
import re
import shutil
import signal
import tempfile
import unittest

import yaml

from sandbox import (ADMIN_PORT, Case, DOCKER, Load, NETWORK, Player, PORT, Program,
                     compose_service, get, photo, setUpModule, wait_for)  # setUpModule is for unittest

# Ids that would end the string or begin an element where they are echoed; the last is too long.
HOSTILE_IDS = ('x","code":"ok","evil":"y', "<b>", "a b", "\\", "%22", "x" * 129)
FRESH_ID = r"^[0-9a-f-]{32,36}$"


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

    def ask(self, method, target, body=None, request_id=None):
        """The status, the id in the head, and the body."""
        headers = {"X-Request-Id": request_id} if request_id else {}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)) as client:
            with contextlib.suppress(ConnectionError):  # not all of it need be read
                client.request(method, target, body, headers)
            answer = client.getresponse()
            return answer.status, answer.getheader("X-Request-Id"), answer.read()

    def check_large_bodies(self):
        """What fits into no buffer passes."""
        status, _, body = self.ask("POST", "/classify", photo(6_000_000))
        self.assertEqual(status, 200, body)

    def check_own_error(self, status):
        """It is JSON as the server's are, whatever the client calls its request."""
        for wanted in (*HOSTILE_IDS, "client-1_a.B", "x" * 128):
            answer, in_head, body = self.ask("GET", "/model", request_id=wanted)
            error = json.loads(body)
            self.assertEqual((answer, error["code"]), (status, "unavailable"))
            self.assertEqual(set(error), {"error", "code", "request_id"})
            self.assertEqual(error["request_id"], in_head)
            if wanted in HOSTILE_IDS:
                self.assertRegex(in_head, FRESH_ID)
            else:
                self.assertEqual(in_head, wanted)

    def check_under_load(self, title, act):
        """act(load) while clients ask: none of them notices."""
        with Load("127.0.0.1") as load:
            act(load)
            self.check_none_failed(load, title)
        print(self.sent_again(), flush=True)


class FaultTests:
    """What each balancer has to hide, and what it must not. name: its own; replace(replica): by a new
    one; wait_seen(count): until it knows of so many replicas; sent_again(): what it did."""

    def test_faults_do_not_show(self):
        """A crash and a replacement, half a minute."""
        a, b, _ = self.replicas
        def act(load):
            load.at(8)
            self.crash(a)
            load.at(20)
            self.replace(b)
            load.at(35)
        self.check_under_load(f"{self.name}, faults", act)

    def check_frozen_replica(self):
        """What it was sent is answered 504, and nobody else gets it; the rest goes on. Returns what
        failed."""
        *others, frozen = self.replicas
        with Load("127.0.0.1") as load:
            load.at(5)
            frozen.process.send_signal(signal.SIGSTOP)
            load.at(20)
            frozen.process.send_signal(signal.SIGCONT)
            load.at(25)
            load.stop()
        print("\n" + load.report(f"{self.name}, frozen from 5 to 20 s"), flush=True)
        failed = load.failed()
        self.assertGreater(len(failed), 0)
        for request in failed:
            self.assertEqual(request.outcome, 504, request)
            self.assertEqual(json.loads(request.detail)["code"], "unavailable")
        self.check_not_for_others({request.id for request in failed}, others)
        self.assertGreater(sum(5 < request.start < 20 and request.outcome == 200
                               for request in load.requests), 100)
        return failed

    def check_not_for_others(self, ids, others):
        seen = set().union(*(replica.seen() for replica in others))
        self.assertGreater(len(seen), 100)
        self.assertEqual(ids & seen, set())

    def play(self, fate):
        """Replicas that do this, and no others, behind the balancer."""
        for replica in self.replicas:
            replica.stop(signal.SIGKILL)
        self.wait_seen(0)
        players = [self.start(Player(replica.address, fate)) for replica in self.replicas]
        self.wait_seen(len(players))
        return players

    def received(self, players):
        return [line for player in players for line in player.output().splitlines()]

    def test_what_takes_too_long_is_sent_once(self):
        players = self.play("hangs")
        for n, method in enumerate(("POST", "PUT"), 1):
            status, _, body = self.ask(method, "/classify", b"x")
            self.assertEqual((status, json.loads(body)["code"]), (504, "unavailable"))
            self.assertEqual(len(self.received(players)), n, self.received(players))

    def test_what_kills_reaches_two(self):
        players = self.play("dies")
        for n, method in enumerate(("POST", "PUT"), 1):
            status, _, body = self.ask(method, "/classify", b"x")
            self.assertIn(status, (502, 503))
            self.assertEqual(json.loads(body)["code"], "unavailable")
            self.assertEqual(len(self.received(players)), 2 * n, self.received(players))

    def test_metrics_are_not_public(self):
        """In none of the spellings that a replica understands, and in some more."""
        for target in ("/metrics", "/metrics/", "/metrics?x", "/%6detrics", "/%6Detric%73", "/metrics%2f",
                       "//metrics", "/./metrics", "/%2e/metrics", "/metrics%00", "/metrics%",
                       f"http://127.0.0.1:{PORT}/metrics"):
            for method in ("GET", "HEAD", "POST"):
                status, _, body = self.ask(method, target)
                self.assertIn(status, (400, 404), target)
                self.assertNotIn(b"vitserve_", body, target)
        self.assertEqual(get(f"http://127.0.0.1:{PORT}/readyz")[0], 200)

    def test_replica_gets_the_id(self):
        for wanted in (*HOSTILE_IDS, None):
            _, fresh, _ = self.ask("GET", "/model", request_id=wanted)
            self.assertRegex(fresh, FRESH_ID)
            wait_for("a replica saw " + fresh,
                     lambda: any(fresh in replica.seen() for replica in self.replicas))
        self.assertEqual(self.ask("GET", "/model", request_id="client-1_a.B")[1], "client-1_a.B")

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
        self.wait_seen(3)

    def metric(self, name, pattern=".*"):
        """The sum of the samples whose labels match."""
        text = get("http://127.0.0.1:8405/metrics")[1].decode()
        return sum(float(value) for labels, value in
                   re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.M) if re.search(pattern, labels))

    def up(self):
        return self.metric("haproxy_server_status", 'proxy="vitserve".*state="UP"')

    def wait_seen(self, count):
        wait_for(f"haproxy sees {count} replicas", lambda: self.up() == count)

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
        self.wait_seen(0)
        self.check_own_error(503)
        self.start_replica(self.replicas[0].address).wait_ready()
        self.wait_seen(1)
        self.assertEqual(get(f"http://127.0.0.1:{PORT}/model")[0], 200)

    def test_large_bodies(self):
        self.check_large_bodies()

    def test_frozen_replica(self):
        """HAProxy asks the replicas: once it has noticed, nothing more is sent there."""
        failed = self.check_frozen_replica()
        self.assertEqual([request for request in failed if request.start > 15], [])

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
        self.check_own_error(503)

    def test_large_bodies(self):
        self.check_large_bodies()
        status, _, body = self.ask("POST", "/classify", photo(34_000_000))
        self.assertEqual((status, json.loads(body)["code"]), (413, "body_too_large"))

    def test_frozen_replica(self):
        self.check_frozen_replica()

    def wait_seen(self, count):
        """It knows of a replica what the last request to it met."""
