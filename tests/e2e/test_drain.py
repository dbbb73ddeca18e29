"""The signals of a stop, who comes meanwhile, and what is asked of a server that has just been
started. VITSERVE_BINARY lies beside slow_close.so (tests/faults)."""

import pathlib
import signal
import socket
import time
import unittest

from vitserve import BINARY, MODEL, SANITIZED, TIMEOUT, Case, Server, metrics, together

BUILT_IN = ()
FOR_EVER_MS = 3600 * 1000
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIBRARY = pathlib.Path(BINARY).parent / "slow_close.so"


def head(method, path, length):
    return (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
            "\r\n").encode()


class Drain(Case):
    def begin(self, server):
        """The first signal; returns once it has been taken."""
        server.send_signal(signal.SIGTERM)
        self.until(lambda: server.request("GET", "/readyz").status == 503)

    def test_what_is_ready_in_the_delay(self):
        """Nothing, by whatever name a balancer asks for it; but it lives, and serves who comes."""
        with Server("--drain-delay-ms", FOR_EVER_MS, model=BUILT_IN) as server:
            model = "/v2/models/" + server.request("GET", "/v2/models").json["models"][0]
            ready = ("/readyz", "/v2/health/ready", model + "/ready", model + "/versions/1/ready")
            for path in ready:
                self.assertEqual(server.request("GET", path).status, 200, path)
            self.begin(server)
            for path in ready:
                self.assertEqual(server.request("GET", path).status, 503, path)
            for path in ("/healthz", "/v2/health/live"):
                self.assertEqual(server.request("GET", path).status, 200, path)
            self.check_good(server)
            self.assertEqual(server.stop(), 0)

    def test_a_second_signal_in_the_delay(self):
        """Ends the drain too, with a body still under way."""
        with Server("--drain-delay-ms", FOR_EVER_MS, "--drain-timeout-ms", FOR_EVER_MS,
                    "--request-timeout-ms", FOR_EVER_MS, "--idle-timeout-ms", FOR_EVER_MS,
                    model=BUILT_IN) as server, server.open_socket() as slow:
            slow.sendall(head("POST", "/classify", 1000) + b"x")
            self.begin(server)
            self.assertEqual(server.stop(), 0)

    def test_sighup_in_the_delay(self):
        """Reads the keys again, or nothing; the delay goes on."""
        with Server("--drain-delay-ms", 3000, model=BUILT_IN) as server:
            start = time.monotonic()
            self.begin(server)
            server.send_signal(signal.SIGHUP)
            self.assertEqual(server.wait(), 0)
            self.assertGreaterEqual(time.monotonic() - start, 3)

    def connect_until_refused(self, address):
        """One connection after the other; what became of those that were accepted."""
        seen = []
        while True:
            try:
                connection = socket.create_connection(address, 0.3)
            except OSError:  # refused, or not heard any more
                return seen
            with connection:
                connection.settimeout(TIMEOUT)
                try:
                    connection.sendall(HEALTH)
                    seen.append(connection.recv(100)[:15])
                except OSError as error:
                    seen.append(repr(error))

    def test_clients_that_connect_meanwhile(self):
        """Until the port is closed: who is accepted is answered."""
        variables = {"LD_PRELOAD": str(LIBRARY)}
        if SANITIZED:
            variables["ASAN_OPTIONS"] = "verify_asan_link_order=0"
        with Server(model=BUILT_IN, variables=variables) as server:
            def act(i):
                if i > 0:
                    return self.connect_until_refused(("127.0.0.1", server.port))
                time.sleep(0.1)
                return server.stop()
            code, *seen = together(act, range(9))
            self.assertEqual(code, 0)
            self.assertEqual({answer for answers in seen for answer in answers},
                             {b"HTTP/1.1 200 OK"})

    def test_no_time_and_nobody_to_wait_for(self):
        """A connection that has asked nothing is no request that goes unanswered."""
        with Server("--drain-timeout-ms", 0, model=BUILT_IN) as server, server.open_socket():
            self.check_good(server)  # the other has been accepted before
            self.assertEqual(server.stop(), 0)
            self.assertNotIn("unanswered", server.stderr())

    @unittest.skipIf(SANITIZED, "the search for leaks takes longer than what is to be seen")
    def test_connections_that_were_never_used(self):
        """Those that may still ask hold a stop for a second; those that have gone do not."""
        times = []
        while len(times) < 5 and (not times or min(times) >= 0.9):
            with Server(model=BUILT_IN) as server:
                before = server.descriptors()
                for _ in range(5):
                    server.open_socket().close()
                self.check_good(server)  # the others have been accepted before
                self.until(lambda: server.descriptors() <= before)
                start = time.monotonic()
                self.assertEqual(server.stop(), 0)
                times.append(time.monotonic() - start)
        self.assertLess(min(times), 0.9)


class Start(Case):
    def test_a_full_budget_while_starting(self):
        """There is no queue yet that could say how long to wait."""
        with Server("--max-inflight-bytes", 1 << 20, "--max-batch", 1,
                    model=("--model", "vit_b_32", *MODEL[2:]), wait=False) as server:
            with server.open_socket() as slow:
                slow.sendall(head("GET", "/", 900000) + bytes(890000))
                self.until(lambda: metrics(server)["vitserve_inflight_bytes"] >= 890000)
                answer = server.request("GET", "/", bytes(900000))
                self.check_error(answer, 429, "queue_full")
                self.assertEqual(answer.headers["retry-after"], "1")
                self.check_error(server.request("GET", "/readyz"), 503, "starting")
            self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
