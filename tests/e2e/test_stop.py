"""Start and stop: nothing that was accepted is lost, nothing idle holds the exit, and what cannot
start says why."""

import contextlib
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from vitserve import (BINARY, MODEL, SANITIZED, TIMEOUT, Case, Server, answer_from, environment,
                      exchange, multipart, png, run, together)

SLOW = 5 if SANITIZED else 1
QUICK = ("--max-batch", "2")
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(data, *headers):
    lines = ["POST /classify HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Stop(Case):
    def stop_timed(self, server, number=signal.SIGTERM):
        start = time.monotonic()
        self.assertEqual(server.stop(number), 0, server.stderr())
        return time.monotonic() - start

    def test_idle(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with Server(*QUICK) as server:
                self.check_good(server)
                self.assertLess(self.stop_timed(server, number), 1.0 * SLOW)
                self.assertIn("stopping", server.stderr())

    def test_twice_the_signal(self):
        with Server(*QUICK) as server:
            server.send_signal(signal.SIGTERM)
            self.stop_timed(server, signal.SIGINT)

    def test_idle_connections_do_not_hold_it(self):
        with Server(*QUICK) as server, contextlib.ExitStack() as stack:
            for _ in range(10):
                connection = stack.enter_context(contextlib.closing(server.connect()))
                self.assertEqual(exchange(connection, "GET", "/healthz").status, 200)
            self.assertLess(self.stop_timed(server), 1.0 * SLOW)

    def test_silent_connections_hold_it_for_a_moment_only(self):
        with Server(*QUICK) as server, contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(server.open_socket()) for _ in range(10)]
            sockets[0].sendall(b"POST /classify HTT")
            self.assertLess(self.stop_timed(server), 3.0 * SLOW)

    def test_requests_in_work_are_answered(self):
        patience = ("--drain-timeout-ms", 1000 * TIMEOUT, "--request-timeout-ms", 1000 * TIMEOUT)
        with Server("--max-batch", 2, "--max-queue", 64, *patience, model=MODEL) as server:
            kind, body = multipart([(str(i), png(seed=i)) for i in range(8)])
            expected = server.classify(body, Content_Type=kind).results
            sockets = [server.open_socket() for _ in range(6)]
            for connection in sockets:
                connection.sendall(post(body, "Content-Type: " + kind) + body)
            time.sleep(0.05)
            server.send_signal(signal.SIGTERM)
            for connection in sockets:
                with connection:
                    answer = answer_from(connection)
                    self.assertEqual(answer.status, 200, answer.body)
                    self.assertEqual(answer.results, expected)
            self.assertEqual(server.wait(), 0)

    def test_a_body_under_way_is_waited_for(self):
        data = png()
        with Server(*QUICK) as server, server.open_socket() as slow, server.open_socket() as fresh:
            slow.sendall(post(data, "Expect: 100-continue"))
            self.assertEqual(slow.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            slow.sendall(data[:100])
            server.send_signal(signal.SIGTERM)
            self.wait_closed(server.port)
            # The connection that had not asked anything yet may still do so.
            fresh.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = answer_from(fresh)
            self.check_error(answer, 503, "draining")
            self.assertEqual(answer.headers["connection"].lower(), "close")
            time.sleep(1.5)
            self.assertIsNone(server.process.poll())
            slow.sendall(data[100:])
            answer = answer_from(slow)
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.headers["connection"].lower(), "close")
            self.assertEqual(server.wait(), 0)

    def wait_closed(self, port):
        deadline = time.monotonic() + TIMEOUT
        with contextlib.suppress(ConnectionRefusedError):
            while time.monotonic() < deadline:
                socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT).close()
                time.sleep(0.01)
            self.fail("still listening")

    def test_drain_timeout(self):
        with Server(*QUICK, "--drain-timeout-ms", 300) as server, server.open_socket() as slow:
            slow.sendall(post(png(), "Expect: 100-continue"))
            self.assertEqual(slow.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            elapsed = self.stop_timed(server)
            self.assertGreater(elapsed, 0.25)
            self.assertLess(elapsed, 2.0 * SLOW)
            self.assertIn("1 requests unanswered", server.stderr())

    @staticmethod
    def open_sockets(server, stack, count=40):
        return [stack.enter_context(server.open_socket()) for _ in range(count)]

    def check_connected(self, stop_and_send):
        """Every one of 40 clients that connected before the stop gets its answer. They have a second
        for their request: where this process itself took longer, nothing is checked."""
        checked = 0
        for _ in range(3):
            with Server(*QUICK) as server, contextlib.ExitStack() as stack:
                start, sockets = stop_and_send(server, stack)
                if time.monotonic() - start > 0.9:
                    continue
                for connection in sockets:
                    self.assertEqual(answer_from(connection).status, 200)
                self.assertEqual(server.wait(), 0)
                checked += 1
        if checked == 0:
            self.skipTest("this machine is too busy to send 40 requests in a second")

    def test_connected_before_the_stop(self):
        """Even if the server has not looked at it when the signal comes: it sleeps while both
        arrive."""
        def stop_and_send(server, stack):
            with server.paused():
                sockets = self.open_sockets(server, stack)
                for connection in sockets[::2]:
                    connection.sendall(HEALTH)
                start = time.monotonic()
                server.send_signal(signal.SIGTERM)
            for connection in sockets[1::2]:
                connection.sendall(HEALTH)
            return start, sockets
        self.check_connected(stop_and_send)

    def test_connected_just_before_the_stop(self):
        def stop_and_send(server, stack):
            sockets = self.open_sockets(server, stack)
            start = time.monotonic()
            server.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            for connection in sockets:
                connection.sendall(HEALTH)
            return start, sockets
        self.check_connected(stop_and_send)

    def test_what_arrived_is_read_however_late(self):
        """The second that a silent connection has is over before the server comes to look."""
        def stop(_):
            with Server(*QUICK) as server, contextlib.ExitStack() as stack:
                sockets = self.open_sockets(server, stack, 200)
                server.send_signal(signal.SIGTERM)
                time.sleep(0.3)
                with server.paused():
                    for connection in sockets:
                        connection.sendall(HEALTH)
                    time.sleep(1.2)
                return [answer_from(connection).status for connection in sockets], server.wait()
        self.assertEqual(together(stop, range(4)), 4 * [(200 * [200], 0)])

    def test_under_load(self):
        """Clients that connect anew for each request: until the port is closed, every request is
        answered."""
        with Server("--max-batch", 8, "--max-queue", 64, model=MODEL) as server:
            data, lost, answered = png(), [], []
            stopped = threading.Event()

            def client(_):
                while not stopped.is_set():
                    try:
                        connection = server.open_socket()
                    except ConnectionRefusedError:
                        return
                    with connection:
                        try:
                            connection.sendall(post(data) + data)
                            answered.append(answer_from(connection).status)
                        except (OSError, ValueError) as error:
                            lost.append(repr(error))

            def stop(_):
                time.sleep(0.5)
                server.send_signal(signal.SIGTERM)
                code = server.wait()
                stopped.set()
                return code
            results = together(lambda i: client(i) if i else stop(i), range(17))
            self.assertEqual(results[0], 0)
            self.assertEqual(lost, [])
            self.assertEqual(set(answered), {200})
            self.assertGreater(len(answered), 0)

    def test_the_port_is_free_at_once(self):
        with Server(*QUICK) as server, contextlib.closing(server.connect()) as connection:
            self.assertEqual(exchange(connection, "GET", "/healthz").status, 200)
            port = server.port
            self.stop_timed(server)
            with Server(*QUICK, port=port) as second:
                self.check_good(second)


class Start(Case):
    def check_fails(self, arguments, code, *words, **variables):
        finished = run("serve", "--port", 0, *arguments, **variables)
        self.assertEqual(finished.returncode, code, finished.stderr)
        for word in words:
            self.assertIn(word, finished.stderr)

    def test_port_in_use(self):
        with Server(*QUICK) as server:
            self.check_fails((*MODEL, "--port", server.port), 1, str(server.port), "in use")
            self.check_good(server)

    def test_address(self):
        self.check_fails((*MODEL, "--listen", "nowhere.invalid"), 1, "nowhere.invalid")
        self.check_fails((*MODEL, "--listen", "192.0.2.1"), 1, "192.0.2.1")

    def test_unknown_model(self):
        self.check_fails(("--model", "vit_z_99"), 2, "vit_z_99", "vit_b_32",
                         "deit_tiny_patch16_224")

    def test_missing_weights(self):
        model = MODEL[:2]
        with tempfile.TemporaryDirectory() as folder:
            self.check_fails((*model, "--weights-dir", folder), 1,
                             f"{folder}/{model[1]}.safetensors", "--random-weights")
            self.check_fails(model, 1, f"{folder}/.cache/vitserve/{model[1]}.safetensors",
                             "--random-weights", HOME=folder)
            self.check_fails((*model, "--weights", folder + "/none"), 1, folder + "/none")

    def test_bad_weights(self):
        with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
            for content in (b"", b"no weights", b"\2\0\0\0\0\0\0\0{}", b"\xff" * 8):
                pathlib.Path(file.name).write_bytes(content)
                self.check_fails((*MODEL[:2], "--weights", file.name), 1)
        self.check_fails((*MODEL[:2], "--random-weights", "x"), 2, "--random-weights", '"x"')
        for number in ("-1", " -1", "+1"):
            self.check_fails((*MODEL[:2], "--random-weights", number), 2, "--random-weights",
                             f'"{number}"')

    def test_bad_labels(self):
        with tempfile.NamedTemporaryFile() as file:
            pathlib.Path(file.name).write_text("one\ntwo\n", encoding="ascii")
            self.check_fails((*MODEL, "--labels", file.name), 2, file.name, "1000")
            self.check_fails((*MODEL, "--labels", file.name + ".none"), 1, file.name + ".none")

    def test_what_the_device_cannot_do(self):
        if not pathlib.Path("/dev/nvidiactl").exists():
            self.check_fails((*MODEL, "--device", "cuda"), 1, "vitserve: no ")
        self.check_fails((*MODEL, "--device", "cpu", "--precision", "tf32"), 1, "fp32")

    def test_signal_while_starting(self):
        for delay in (0.0, 0.05):
            with Server(model=MODEL, wait=False) as server:
                time.sleep(delay)
                self.assertEqual(server.stop(), 0, server.stderr())

    def test_requests_while_starting(self):
        """A large model takes seconds to start: until then it answers, but is not ready."""
        with Server("--max-batch", 1, model=("--model", "vit_b_32", *MODEL[2:]),
                    wait=False) as server:
            self.assertEqual(server.request("GET", "/healthz").status, 200)
            for method, path, body in (("GET", "/readyz", None), ("POST", "/classify", png()),
                                       ("GET", "/model", None)):
                self.check_error(server.request(method, path, body), 503, "starting")
            server.wait_ready()
            self.check_good(server)

    def test_unclean_death_leaves_the_port(self):
        with Server(*QUICK) as server, contextlib.closing(server.connect()) as connection:
            exchange(connection, "GET", "/healthz")
            port = server.port
            server.kill()
            server.process.returncode = 0
            with Server(*QUICK, port=port) as second:
                self.check_good(second)

    def test_address_is_printed_first(self):
        process = subprocess.Popen([BINARY, "serve", *MODEL, *QUICK, "--port", "0"],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   env=environment())
        try:
            line = process.stdout.readline()
            self.assertRegex(line, rb"\Alistening on http://127\.0\.0\.1:[1-9][0-9]*\n\Z")
            process.terminate()
            self.assertEqual(process.communicate(timeout=TIMEOUT)[0], b"")
            self.assertEqual(process.returncode, 0)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    unittest.main()
