"""Connections: how many one address may have, how long they may say nothing, and the admin port,
which keeps room for probes."""

import contextlib
import os
import resource
import socket
import time
import unittest

from vitserve import TIMEOUT, Case, Server, answer_from, png, run

MODEL = ()  # the built-in one
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def ended(connection):
    """Closed by the server, without an answer."""
    with contextlib.suppress(ConnectionError):
        return connection.recv(1) == b""
    return True


class Silence(Case):
    def still_open(self, connection, byte):
        """Sends it."""
        connection.setblocking(False)
        try:
            connection.send(byte)
            return connection.recv(1) != b""
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    def test_heads_that_do_not_end(self):
        """The first has ten seconds, the next one that long after the idle timeout; a byte now and
        then changes nothing. A request in work has its own time."""
        picture = png()
        with Server("--idle-timeout-ms", 1000, "--request-timeout-ms", 600000,
                    model=MODEL) as server, contextlib.ExitStack() as stack:
            first, later, working = (stack.enter_context(server.open_socket()) for _ in range(3))
            later.sendall(HEALTH)
            self.assertEqual(answer_from(later, "GET").status, 200)
            working.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\n"
                            b"Content-Length: %d\r\n\r\n" % len(picture))
            start, sent = time.monotonic(), 0
            trickling = {first, later}
            while trickling and time.monotonic() < start + TIMEOUT:
                time.sleep(0.3)
                trickling = {connection for connection in trickling
                             if self.still_open(connection, b"x")}
                self.assertTrue(self.still_open(working, picture[sent:sent + 1]))
                sent += 1
                if len(trickling) == 1:
                    self.assertEqual(trickling, {later})
            self.assertEqual(trickling, set())
            self.assertGreater(time.monotonic() - start, 10)
            working.setblocking(True)
            working.sendall(picture[sent:])
            self.assertEqual(answer_from(working).status, 200)


def healthy(server):
    with contextlib.suppress(OSError):
        return server.request("GET", "/healthz").status == 200
    return False


class Descriptors(Case):
    def test_more_connections_than_the_soft_limit(self):
        """Services start with 1024 descriptors, as a rule; a process may raise that by itself."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, limits[1]))
        try:
            server = Server(model=MODEL)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        with server, contextlib.ExitStack() as stack:
            for _ in range(200):
                connection = stack.enter_context(server.open_socket())
                connection.sendall(HEALTH)
                self.assertEqual(answer_from(connection, "GET").status, 200)

    def test_none_left(self):
        """The log says so, once a second at most, and the next clients are served."""
        def complaints():
            return server.stderr().count("cannot accept a connection: Too many open files")
        with Server(model=MODEL) as server:
            start = time.monotonic()
            _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
            used = len(os.listdir(f"/proc/{server.process.pid}/fd"))
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used + 5, hard))
            with contextlib.ExitStack() as stack:
                for _ in range(20):
                    stack.enter_context(server.open_socket())
                self.until(lambda: complaints() > 1)
                self.assertLessEqual(complaints(), 1 + time.monotonic() - start)
            self.until(lambda: healthy(server))


class Addresses(Case):
    def test_one_address(self):
        """The connections that saw the server become ready may be among them for a moment."""
        most = 4
        with Server("--max-connections-per-address", most, model=MODEL) as server:
            with contextlib.ExitStack() as stack:
                def asks():
                    connection = stack.enter_context(server.open_socket())
                    with contextlib.suppress(ConnectionError):
                        connection.sendall(HEALTH)
                    return not ended(connection)
                answered = sum(asks() for _ in range(3 * most))
                self.assertIn(answered, (most - 1, most))
                self.assertFalse(asks())
            self.until(lambda: healthy(server))

    def test_another_address(self):
        """What one address has is nothing to the next."""
        with Server("--max-connections-per-address", 2, model=MODEL) as server, \
                contextlib.ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(server.open_socket()).sendall(HEALTH)
            other = stack.enter_context(socket.create_connection(
                ("127.0.0.1", server.port), TIMEOUT, ("127.0.0.2", 0)))
            other.sendall(HEALTH)
            self.assertEqual(answer_from(other, "GET").status, 200)

    def test_trusted_proxies(self):
        with Server("--max-connections-per-address", 1, "--trusted-proxies", "10.0.0.0/8,127.0.0.1",
                    model=MODEL) as server, contextlib.ExitStack() as stack:
            for _ in range(10):
                connection = stack.enter_context(server.open_socket())
                connection.sendall(HEALTH)
                self.assertEqual(answer_from(connection, "GET").status, 200)

    def test_what_is_no_address(self):
        finished = run("serve", "--port", 0, "--trusted-proxies", "10.0.0.0/8,proxy")
        self.assertEqual(finished.returncode, 2, finished.stderr)
        self.assertIn('"proxy" is neither an address', finished.stderr)


def ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as one:
        one.bind(("::1", 0))
        return True
    return False


class Admin(Case):
    def start(self, *options):
        server = self.enterContext(Server("--admin-port", 0, *options, model=MODEL))
        line = server.process.stdout.readline().decode()
        host, port = line.strip().rsplit("/", 1)[1].rsplit(":", 1)
        return server, (host, int(port))

    def ask(self, connection, path="/healthz"):
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return answer_from(connection, "GET").status

    def test_idle_connections_make_way(self):
        """Whether they have asked for something or not."""
        _, address = self.start()
        for i in range(300):
            connection = self.enterContext(socket.create_connection(address, TIMEOUT))
            if i % 3 == 0:
                self.assertEqual(self.ask(connection, "/metrics"), 200)
        for path in ("/healthz", "/readyz", "/metrics"):
            with socket.create_connection(address, TIMEOUT) as probe:
                self.assertEqual(self.ask(probe, path), 200)

    @unittest.skipUnless(ipv6(), "no ::1 here")
    def test_an_ipv6_address(self):
        """In brackets, as a URL has it."""
        _, (host, port) = self.start("--admin-listen", "::1")
        self.assertEqual(host, "[::1]")
        with socket.create_connection(("::1", port), TIMEOUT) as probe:
            self.assertEqual(self.ask(probe), 200)

    def test_who_falls_silent(self):
        """Twenty seconds, however long the main port waits."""
        _, address = self.start("--idle-timeout-ms", 3600 * 1000)
        with socket.create_connection(address, TIMEOUT) as connection:
            self.assertEqual(self.ask(connection), 200)
            start = time.monotonic()
            self.assertEqual(connection.recv(1), b"")
            self.assertGreater(time.monotonic() - start, 15)

    def test_an_address_of_its_own(self):
        server, (host, port) = self.start("--admin-listen", "127.0.0.3")
        self.assertEqual(host, "127.0.0.3")
        with socket.create_connection((host, port), TIMEOUT) as probe:
            self.assertEqual(self.ask(probe), 200)
        with self.assertRaises(ConnectionError):
            socket.create_connection(("127.0.0.1", port), TIMEOUT)
        with self.assertRaises(ConnectionError):
            socket.create_connection((host, server.port), TIMEOUT)
        for admin_listen, code in (("127.0.0.3", 0), ("127.0.0.4", 1)):
            finished = run("healthcheck", "--admin-port", port, "--admin-listen", admin_listen)
            self.assertEqual(finished.returncode, code, finished.stderr)


if __name__ == "__main__":
    unittest.main()
