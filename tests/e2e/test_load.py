"""Time and crowds: deadlines, slow clients, the admin port, the drain."""

import contextlib
import http.client
import signal
import socket
import time
import unittest

from vitserve import MODEL as DEIT
from vitserve import (SANITIZED, TIMEOUT, Case, Server, answer_from, exchange, multipart, png,
                      receive_all, together)

SLOW = 5 if SANITIZED else 1
MODEL = ()  # the built-in one
CRAWLERS = 40 if SANITIZED else 300


def head(length, *lines):
    lines = ["POST /classify HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *lines]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def metric(server, name):
    lines = server.request("GET", "/metrics").body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


class Bodies(Case):
    def test_a_late_body(self):
        """A body that ends after its time is answered 408; nothing of it is kept."""
        data = png()
        with Server("--request-timeout-ms", 400, model=MODEL) as server:
            with server.open_socket() as slow:
                slow.sendall(head(len(data)) + data[:100])
                time.sleep(0.5)
                slow.sendall(data[100:200])
                time.sleep(0.05)
                self.assertEqual(metric(server, "vitserve_inflight_bytes"), 0)
                slow.sendall(data[200:])
                answer = answer_from(slow)
                self.check_error(answer, 408, "body_timeout")
                self.assertIn("400 ms", answer.json["error"])
            self.check_good(server)
            self.assertEqual(metric(server, "vitserve_inflight_bytes"), 0)

    def test_a_body_that_does_not_end(self):
        """A byte now and then keeps the idle timeout away, but not the end of the request's time."""
        with Server("--request-timeout-ms", 300, model=MODEL) as server:
            with server.open_socket() as slow:
                slow.sendall(head(1000))
                start = time.monotonic()
                with contextlib.suppress(ConnectionError):
                    while time.monotonic() - start < TIMEOUT:
                        slow.sendall(b"x")
                        time.sleep(0.05)
                self.assertLess(time.monotonic() - start, 1.5 * SLOW)
                self.assertEqual(receive_all(slow), b"")
            self.check_good(server)

    def test_a_silent_body(self):
        """Who promises a body and says nothing more does not hold its part of the budget."""
        with Server("--request-timeout-ms", 1000, model=MODEL) as server:
            with server.open_socket() as slow:
                slow.sendall(head(1000000) + b"x")
                time.sleep(0.2)
                self.assertGreater(metric(server, "vitserve_inflight_bytes"), 0)
                start = time.monotonic()
                self.assertEqual(receive_all(slow), b"")
                self.assertLess(time.monotonic() - start, 4 * SLOW)
                self.assertEqual(metric(server, "vitserve_inflight_bytes"), 0)

    def test_a_connection_stays_open_between_requests(self):
        with Server("--request-timeout-ms", 300, model=MODEL) as server:
            with contextlib.closing(server.connect()) as connection:
                connection.connect()
                first = connection.sock
                for _ in range(2):
                    answer = exchange(connection, "POST", "/classify", png())
                    self.assertEqual(answer.status, 200)
                    time.sleep(2.5)
                self.assertEqual(exchange(connection, "GET", "/healthz").status, 200)
                self.assertIs(connection.sock, first)

    def test_a_full_budget_of_crawlers(self):
        """Small bodies hold the budget from their head on; when their time is over it is free again."""
        data = png()
        with Server("--request-timeout-ms", 1000, "--max-inflight-bytes", 20 * len(data),
                    model=MODEL) as server, contextlib.ExitStack() as stack:
            crawlers = [stack.enter_context(server.open_socket()) for _ in range(20)]
            for crawler in crawlers:
                crawler.sendall(head(len(data)) + data[:50])
            time.sleep(0.1)
            self.check_error(server.classify(data), 429, "queue_full")
            time.sleep(1.0 * SLOW)
            for crawler in crawlers:
                crawler.sendall(b"x")
            time.sleep(0.1)
            self.check_good(server)

    def test_an_answer_that_nobody_reads(self):
        """It holds the budget, and nothing else of its request does, until it is sent."""
        count = 64  # of 1,000 classes: an answer larger than what the system keeps of it
        kind, body = multipart([(str(i), png(seed=i)) for i in range(count)])
        request = ("POST /classify?logits=1&top_k=1000 HTTP/1.1\r\nHost: localhost\r\n"
                   f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body
        with Server("--max-batch", 4, "--max-queue", count, model=DEIT) as server:
            with socket.socket() as lazy:
                lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                lazy.connect(("127.0.0.1", server.port))
                lazy.sendall(request)
                self.until(lambda: metric(server, "vitserve_batch_images_sum") == count)
                self.until(lambda: metric(server, "vitserve_inflight_bytes") > 2 * len(body))
                held = metric(server, "vitserve_inflight_bytes")
                answer = answer_from(lazy)
                self.assertEqual(len(answer.results), count)
                self.assertEqual(held, len(answer.body))
                self.until(lambda: metric(server, "vitserve_inflight_bytes") == 0)


class Health(Case):
    def test_crawling_uploads_and_a_full_queue(self):
        kind, form = multipart([(str(i), png(seed=i)) for i in range(8)])
        end = time.monotonic() + 2

        def client(server):
            while time.monotonic() < end:
                self.assertIn(server.classify(form, Content_Type=kind).status, (200, 429))
        with Server("--max-queue", 8, model=MODEL) as server, contextlib.ExitStack() as stack:
            for _ in range(CRAWLERS):
                crawler = stack.enter_context(server.open_socket())
                crawler.sendall(head(1000000) + b"x")

            def probe():
                slowest = 0.0
                while time.monotonic() < end:
                    for path in ("/healthz", "/readyz"):
                        start = time.monotonic()
                        self.assertEqual(server.request("GET", path).status, 200)
                        slowest = max(slowest, time.monotonic() - start)
                    time.sleep(0.01)
                return slowest
            results = together(lambda i: client(server) if i else probe(), range(7))
            print("slowest probe: %.1f ms" % (1e3 * results[0]))
            self.assertLess(results[0], 1.0 * SLOW)
            self.assertGreaterEqual(metric(server, "vitserve_inflight_requests"), CRAWLERS)


class AdminPort(Case):
    @contextlib.contextmanager
    def serve(self, *options):
        with Server("--admin-port", 0, *options, model=MODEL) as server:
            line = server.process.stdout.readline().decode()
            self.assertRegex(line, r"\Aadmin listening on http://127\.0\.0\.1:\d+\n\Z")
            port = int(line.rsplit(":", 1)[1])
            def ask(method, path, body=None):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
                with contextlib.closing(connection):
                    return exchange(connection, method, path, body)
            yield server, ask

    def test_what_is_there(self):
        with self.serve() as (server, ask):
            for path in ("/healthz", "/readyz", "/metrics"):
                self.assertEqual(ask("GET", path).status, 200)
                self.assertEqual(server.request("GET", path).status, 200)
            for method, path in (("GET", "/model"), ("POST", "/classify"), ("GET", "/")):
                self.check_error(ask(method, path), 404, "not_found")
            self.check_error(ask("POST", "/metrics"), 405, "method_not_allowed")
            self.check_error(ask("POST", "/metrics", png(200, 200)), 413, "body_too_large")

    def test_nothing_crowds_it_out(self):
        with self.serve("--max-connections", 4) as (server, ask), contextlib.ExitStack() as stack:
            refused = False
            for _ in range(20):  # a connection of before may still be on its way out
                stack.enter_context(server.open_socket()).sendall(head(1000))
                time.sleep(0.05)
                try:
                    server.request("GET", "/healthz")
                except (ConnectionError, http.client.HTTPException):
                    refused = True
                    break
            self.assertTrue(refused)
            for _ in range(3):
                self.assertEqual(ask("GET", "/healthz").status, 200)
                self.assertEqual(ask("GET", "/readyz").status, 200)
            self.assertRegex(ask("GET", "/metrics").body.decode(),
                             r"vitserve_inflight_requests [34]\n")

    def test_it_lives_as_long_as_the_drain(self):
        data = png()
        with self.serve() as (server, ask), server.open_socket() as slow:
            slow.sendall(head(len(data)) + data[:9])
            time.sleep(0.1)
            server.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            self.check_error(ask("GET", "/readyz"), 503, "draining")
            self.assertEqual(ask("GET", "/healthz").status, 200)
            slow.sendall(data[9:])
            self.assertEqual(answer_from(slow).status, 200)
            self.assertEqual(server.wait(), 0)


class Drain(Case):
    def test_drain_delay(self):
        """Not ready at once, yet serving, until balancers have had time to see it."""
        with Server("--drain-delay-ms", 1500, model=MODEL) as server:
            server.send_signal(signal.SIGTERM)
            start = time.monotonic()
            time.sleep(0.1)
            self.check_error(server.request("GET", "/readyz"), 503, "draining")
            self.assertEqual(server.request("GET", "/healthz").status, 200)
            served = 0
            while time.monotonic() - start < 1.2:
                self.check_good(server)
                served += 1
            self.assertGreater(served, 1)
            self.assertEqual(server.wait(), 0)
            self.assertGreater(time.monotonic() - start, 1.4)

    def test_a_second_signal_ends_the_delay(self):
        with Server("--drain-delay-ms", 60000, model=MODEL) as server:
            server.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            self.assertIsNone(server.process.poll())
            server.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(10), 0)

    def test_a_second_signal_ends_the_drain(self):
        with Server(model=MODEL) as server, server.open_socket() as slow:
            slow.sendall(head(1000))
            time.sleep(0.1)
            server.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            self.assertIsNone(server.process.poll())
            server.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(10), 0)
            self.assertIn("1 requests unanswered", server.stderr())


if __name__ == "__main__":
    unittest.main()
