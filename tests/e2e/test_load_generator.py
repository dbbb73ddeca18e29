"""The load generator (tests/bench/load.c) against servers that follow a script: it counts every
request once, says what became of it, and how late it was."""

import collections
import contextlib
import pathlib
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

from vitserve import BINARY, SANITIZED, TIMEOUT

LOAD = pathlib.Path(BINARY).parent / "tests" / "load"
SLOW = 3 if SANITIZED else 1
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

Line = collections.namedtuple("Line", "outcome ms start")


class Scripted:
    """A server on the loopback: script(server, connection, number of the request) after each request
    has been read whole; it returns what closes the connection."""

    def __init__(self, script):
        self.script, self.lock, self.threads = script, threading.Lock(), []
        self.requests = self.connections = 0
        self.bodies = collections.Counter()
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self.open = set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.connections += 1
                self.open.add(connection)
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as file:
            while length := self.read_head(file):
                with self.lock:
                    self.bodies[file.read(length)] += 1
                    self.requests += 1
                    number = self.requests
                if self.script(self, connection, number):
                    return

    @staticmethod
    def read_head(file):
        length = 0
        while (line := file.readline()).strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return length

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def run(address, *options, files=(b"picture",)):
    """(the lines that it prints, what it says on standard error)"""
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / str(i) for i in range(len(files))]
        for path, data in zip(paths, files):
            path.write_bytes(data)
        finished = subprocess.run([LOAD, address, *map(str, options), *paths], check=True, text=True,
                                  stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    lines = [line.split() for line in finished.stdout.splitlines()]
    return [Line(line[0], float(line[1]), float(line[2])) for line in lines], finished.stderr


def answer(data, close=False):
    def script(_server, connection, _number):
        connection.sendall(data)
        return close
    return script


class Counts(unittest.TestCase):
    def outcomes(self, script, *options, **more):
        """({outcome: how many}, the server) of 12 requests from 3 clients"""
        with Scripted(script) as server:
            lines, _ = run(server.address, "--clients", 3, "--requests", 12, *options, **more)
            return dict(collections.Counter(line.outcome for line in lines)), server

    def test_statuses(self):
        """Each request once, file after file, on connections that stay open."""
        heads = [b"200 OK", b"429 Too Many", b"503 No", b"404 Not Found"]

        def script(_server, connection, number):
            connection.sendall(b"HTTP/1.1 " + heads[number % 4] + b"\r\ncontent-length:0\r\n\r\n")
        found, server = self.outcomes(script, files=(b"one", b"second", b"3"))
        self.assertEqual(found, {"200": 3, "429": 3, "503": 3, "404": 3})
        self.assertEqual(server.bodies, {b"one": 4, b"second": 4, b"3": 4})
        self.assertEqual(server.connections, 3)

    def test_many(self):
        with Scripted(answer(OK)) as server:
            lines, errors = run(server.address, "--clients", 8, "--requests", 2000)
            self.assertEqual(({line.outcome for line in lines}, errors), ({"200"}, ""))
            self.assertEqual((len(lines), server.requests, server.connections), (2000, 2000, 8))

    def test_answers_in_pieces(self):
        def script(_server, connection, _number):
            for i in range(0, len(OK), 7):
                connection.sendall(OK[i:i + 7])
                time.sleep(0.002)
        found, server = self.outcomes(script)
        self.assertEqual((found, server.connections), ({"200": 12}, 3))

    def test_a_large_answer(self):
        body = b"HTTP/1.1 200 OK\r\n\r\nContent-Length: 3" * 30000
        found, _ = self.outcomes(answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) +
                                        body))
        self.assertEqual(found, {"200": 12})

    def test_an_answer_cut_short(self):
        found, server = self.outcomes(answer(OK[:-1], close=True))
        self.assertEqual((found, server.requests), ({"lost": 12}, 12))
        found, server = self.outcomes(answer(OK[:20], close=True))
        self.assertEqual((found, server.requests), ({"lost": 12}, 12))

    def test_no_answer(self):
        found, server = self.outcomes(answer(b"", close=True))
        self.assertEqual((found, server.requests), ({"lost": 12}, 12))

    def test_a_reset(self):
        def script(_server, connection, _number):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return True
        self.assertEqual(self.outcomes(script)[0], {"lost": 12})

    def test_closed_as_the_request_goes_out(self):
        """A connection that was used before: the request is sent once more, and counts once."""
        used = set()

        def script(_server, connection, _number):
            if connection in used:
                return True
            used.add(connection)
            connection.sendall(OK)
            return False
        with Scripted(script) as server:
            lines, errors = run(server.address, "--clients", 3, "--requests", 12)
            self.assertEqual([line.outcome for line in lines], ["200"] * 12)
            self.assertEqual((server.connections, server.requests), (12, 12 + 9))
            self.assertIn("9 requests sent twice", errors)

    def test_connection_close(self):
        for header in (b"Connection: close", b"connection:Close"):
            closing = OK.replace(b"\r\n", b"\r\n" + header + b"\r\n", 1)
            found, server = self.outcomes(answer(closing))  # the client is to close it
            self.assertEqual((found, server.connections), ({"200": 12}, 12))
        found, server = self.outcomes(answer(OK.replace(b"1.1", b"1.0")))
        self.assertEqual((found, server.connections), ({"200": 12}, 12))

    def test_closed_while_idle(self):
        """No error: the next request has a connection of its own."""
        def script(_server, connection, _number):
            connection.sendall(OK)
            return True
        with Scripted(script) as server:
            lines, _ = run(server.address, "--rate", 20, "--seconds", 1, "--connections", 1)
            self.assertEqual({line.outcome for line in lines}, {"200"})
            self.assertEqual((server.requests, server.connections), (len(lines), len(lines)))

    def test_no_http(self):
        bodies = [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
                  b"HTTP/1.1 xyz\r\nContent-Length: 0\r\n\r\n", OK + b"!",
                  OK.replace(b": 5", b": -5"), OK.replace(b": 5", b": x"),
                  b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                  b"HTTP/1.1 200 OK\r\nX: " + 20000 * b"x" + b"\r\n\r\n",
                  # what stands in the body is no header
                  b"HTTP/1.1 200 OK\r\n\r\n\r\nContent-Length: 0\r\n\r\n"]
        for body in bodies:
            with self.subTest(body[:60]):
                found, server = self.outcomes(answer(body))
                self.assertEqual((found, server.connections), ({"no_http": 12}, 12))

    def test_refused_before_it_was_sent(self):
        """The answer counts, and the connection with half a request in it is not used again."""
        def serve(connection):  # reads no more: the rest of the request never fits the buffers
            connection.recv(1000)
            connection.sendall(OK.replace(b"200 OK", b"413 Too Large"))
        with Scripted(None) as server:
            server.serve = serve
            lines, _ = run(server.address, "--clients", 1, "--requests", 3, files=(bytes(50 << 20),))
            self.assertEqual([line.outcome for line in lines], ["413"] * 3)
            self.assertEqual(server.connections, 3)

    def test_nobody_there(self):
        """Every client tries again, but not a million times a second."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = "127.0.0.1:%d" % free.getsockname()[1]
        lines, _ = run(address, "--clients", 2, "--seconds", 0.4)
        self.assertEqual({line.outcome for line in lines}, {"connect"})
        self.assertLessEqual(len(lines), 2 * (0.4 / 0.02 + 1))
        self.assertGreater(len(lines), 2)

    def test_usage(self):
        for options in ((), ("--clients", "1", "--rate", "1"), ("--clients", "x"), ("--rate", "-1"),
                        ("--nothing",)):
            finished = subprocess.run([LOAD, "127.0.0.1:1", *options, "/dev/null"], check=False,
                                      capture_output=True, timeout=TIMEOUT)
            self.assertEqual((finished.returncode, finished.stdout), (2, b""), options)


class Times(unittest.TestCase):
    def test_timeouts(self):
        with Scripted(lambda *_: time.sleep(1.5)) as server:
            lines, _ = run(server.address, "--clients", 2, "--requests", 6, "--timeout-ms", 200)
        self.assertEqual([line.outcome for line in lines], ["timeout"] * 6)
        for line in lines:
            self.assertGreaterEqual(line.ms, 200)
            self.assertLess(line.ms, 200 + 300 * SLOW)

    def stall(self, *options):
        """200 requests a second on a server that stands still from 0.5 s to 1.5 s."""
        begin = []

        def script(_server, connection, _number):
            begin.append(time.monotonic())
            since = time.monotonic() - begin[0]
            if 0.5 <= since < 1.5:
                time.sleep(1.5 - since)
            connection.sendall(OK)
        with Scripted(script) as server:
            lines, _ = run(server.address, "--rate", 200, "--seconds", 2, *options)
            self.assertEqual(len(lines), server.requests)
        self.assertEqual({line.outcome for line in lines}, {"200"})
        self.assertAlmostEqual(len(lines), 400, delta=80)  # four standard deviations
        self.assertLess(max(line.start for line in lines), 2.0)
        slack = 0.15 * SLOW
        stalled = [line for line in lines if 0.55 <= line.start < 1.45]
        self.assertAlmostEqual(len(stalled), 180, delta=54)
        for line in stalled:
            end = line.start + line.ms / 1e3
            self.assertGreater(end, 1.5 - 0.05)
            self.assertLess(end, 1.5 + slack + 0.1)
        self.assertGreater(max(line.ms for line in lines), 850)
        before = sorted(line.ms for line in lines if line.start < 0.4)
        self.assertLess(before[len(before) // 2], 20 * SLOW)

    def test_open_loop(self):
        """The latency of a stall shows in all the requests that were to start in it."""
        self.stall()

    def test_open_loop_without_connections(self):
        """The same where they had to wait for one of two connections."""
        self.stall("--connections", 2)

    def test_overload(self):
        """A server that never answers: each request has its time and no more, and most never had a
        connection, so they are not sent."""
        with Scripted(lambda *_: time.sleep(5)) as server:
            lines, _ = run(server.address, "--rate", 200, "--seconds", 1, "--connections", 1,
                           "--timeout-ms", 300)
            self.assertLess(server.requests, 80)
        self.assertEqual({line.outcome for line in lines}, {"timeout"})
        self.assertAlmostEqual(len(lines), 200, delta=60)
        for line in lines:
            self.assertGreaterEqual(line.ms, 300)
            self.assertLess(line.ms, 300 + 200 * SLOW)

    def test_a_seed_makes_the_same_times(self):
        with Scripted(answer(OK)) as server:
            starts = [[line.start for line in sorted(run(
                server.address, "--rate", 300, "--seconds", 0.3, "--seed", seed)[0],
                key=lambda line: line.start)] for seed in (1, 1, 2)]
        self.assertEqual(starts[0], starts[1])
        self.assertNotEqual(starts[0], starts[2])


if __name__ == "__main__":
    unittest.main()
