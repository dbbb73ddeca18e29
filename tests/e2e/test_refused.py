"""An answer that comes before the body has been read arrives: the client may send the rest, within
a bound. Raw sockets, which send everything before they read."""

import contextlib
import pathlib
import signal
import socket
import struct
import tempfile
import time
import unittest

from vitserve import SANITIZED, Case, Server, answer_from, png, receive_all, together

MIB = 1 << 20
SLOW = 5 if SANITIZED else 1
MODEL = ()  # the built-in one
KEY = "a-key-of-these-tests"
TRIES = 10
QUICK_LIMIT = ("--max-body-bytes", MIB)
CHUNK = b"20000\r\n" + bytes(0x20000) + b"\r\n"


def head(*lines, path="/classify"):
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def metric(server, name):
    lines = server.request("GET", "/metrics").body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


def send_until_closed(connection, piece, pause=0.0):
    """How many bytes were sent, and for how long, until the server closed or a minute was over."""
    sent, start = 0, time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < start + 60:
            connection.sendall(piece)
            sent += len(piece)
            time.sleep(pause)
    return sent, time.monotonic() - start


class Refused(Case):
    def ask(self, server, request, *pieces):
        """The one answer, after which the server closes its end without a reset."""
        with server.open_socket() as connection:
            connection.sendall(request)
            for piece in pieces:
                connection.sendall(piece)
            answer = answer_from(connection)
            self.assertEqual(connection.recv(1), b"")
            self.assertEqual(answer.headers["connection"].lower(), "close")
            return answer

    @contextlib.contextmanager
    def keyed(self, *options):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "keys")
            file.write_text(KEY + "\n", encoding="ascii")
            with Server("--api-key-file", file, *options, model=MODEL) as server:
                yield server

    def test_a_wrong_key(self):
        wrong = ("Authorization: Bearer wrong",)
        with self.keyed() as server:
            for _ in range(TRIES):
                answer = self.ask(server, head(*wrong, f"Content-Length: {5 * MIB}"),
                                  bytes(5 * MIB))
                self.check_error(answer, 401, "unauthorized")
                answer = self.ask(server, head(*wrong, "Transfer-Encoding: chunked"),
                                  *[CHUNK] * 40, b"0\r\n\r\n")
                self.check_error(answer, 401, "unauthorized")

    def test_over_the_limit(self):
        with Server(*QUICK_LIMIT, model=MODEL) as server:
            for _ in range(TRIES):
                self.check_error(self.ask(server, head(f"Content-Length: {40 * MIB}"),
                                          bytes(40 * MIB)), 413, "body_too_large")

    def test_chunked_over_the_limit(self):
        with Server(model=MODEL) as server:
            for _ in range(3):
                answer = self.ask(server, head("Transfer-Encoding: chunked"), *[CHUNK] * 8 * 72,
                                  b"0\r\n\r\n")
                self.check_error(answer, 413, "body_too_large")
                self.assertIn(str(32 * MIB), answer.json["error"])
                self.assertEqual(metric(server, "vitserve_inflight_bytes"), 0)

    def test_a_full_budget(self):
        """By the length that is declared, and by one that grows."""
        with Server("--max-inflight-bytes", 8 * MIB, model=MODEL) as server, \
                server.open_socket() as holder:
            holder.sendall(head(f"Content-Length: {7 * MIB}") + bytes(7 * MIB - 1))
            self.until(lambda: metric(server, "vitserve_inflight_bytes") >= 7 * MIB)
            for _ in range(TRIES):
                answer = self.ask(server, head(f"Content-Length: {5 * MIB}"), bytes(5 * MIB))
                self.check_error(answer, 429, "queue_full")
                answer = self.ask(server, head("Transfer-Encoding: chunked"), *[CHUNK] * 40,
                                  b"0\r\n\r\n")
                self.check_error(answer, 429, "queue_full")

    def test_promises(self):
        """Bodies that were declared and do not come keep nobody out."""
        with Server(model=MODEL) as server, contextlib.ExitStack() as stack:
            for _ in range(64):
                connection = stack.enter_context(server.open_socket())
                connection.sendall(head(f"Content-Length: {32 * MIB}"))
            self.until(lambda: metric(server, "vitserve_inflight_requests") == 64)
            self.assertLessEqual(metric(server, "vitserve_inflight_bytes"), 4 * MIB)
            self.check_good(server)

    def test_a_body_that_finds_no_room_as_it_grows(self):
        """There was some when it was declared, but another took it."""
        with Server("--max-inflight-bytes", 8 * MIB, model=MODEL) as server, \
                server.open_socket() as late, server.open_socket() as holder:
            late.sendall(head(f"Content-Length: {5 * MIB}") + CHUNK[:1000])
            self.until(lambda: metric(server, "vitserve_inflight_bytes") > 0)
            holder.sendall(head(f"Content-Length: {5 * MIB}") + bytes(5 * MIB - 1))
            self.until(lambda: metric(server, "vitserve_inflight_bytes") >= 5 * MIB)
            late.sendall(bytes(5 * MIB - 1000))
            self.check_error(answer_from(late), 429, "queue_full")
            holder.sendall(b"x")
            self.check_error(answer_from(holder), 415, "unsupported_image")

    def test_a_chunked_body_of_most_of_the_budget(self):
        """Of which it grows to less than twice what has come."""
        with Server("--max-inflight-bytes", MIB, model=MODEL) as server:
            for share in (0.5, 0.6, 0.75, 0.9, 1.0):
                piece = b"%x\r\n%b\r\n" % (1024, bytes(1024))
                with server.open_socket() as connection:
                    connection.sendall(head("Transfer-Encoding: chunked") +
                                       piece * int(1024 * share) + b"0\r\n\r\n")
                    self.check_error(answer_from(connection), 415, "unsupported_image")

    def test_a_full_queue(self):
        """Known once the body is there: the connection stays."""
        data = png(400, 300)
        with Server("--max-queue", 1, "--max-batch", 1, model=MODEL) as server:
            def client(_):
                with server.open_socket() as connection:
                    for _ in range(TRIES):
                        connection.sendall(head(f"Content-Length: {len(data)}") + data)
                        answer = answer_from(connection)
                        if answer.status != 200:
                            self.check_error(answer, 429, "queue_full")
            together(client, range(8))

    def test_who_waits_for_100_is_answered_at_once(self):
        with self.keyed() as server, server.open_socket() as connection:
            start = time.monotonic()
            connection.sendall(head("Authorization: Bearer wrong", "Expect: 100-continue",
                                    f"Content-Length: {5 * MIB}"))
            self.check_error(answer_from(connection), 401, "unauthorized")
            self.assertEqual(connection.recv(1), b"")
            self.assertLess(time.monotonic() - start, 1.0 * SLOW)

    def test_a_late_sender(self):
        """Who begins to send after the answer has come is read as well."""
        with self.keyed() as server, server.open_socket() as connection:
            connection.sendall(head(f"Content-Length: {5 * MIB}"))
            time.sleep(0.5)
            connection.sendall(bytes(5 * MIB))
            self.check_error(answer_from(connection), 401, "unauthorized")


class Bound(Case):
    """Past 64 MiB or 5 s the connection closes."""

    def check_closed(self, request, piece, pause=0.0):
        with Server(*QUICK_LIMIT, model=MODEL) as server, server.open_socket() as connection:
            connection.sendall(request)
            result = send_until_closed(connection, piece, pause)
            self.until(lambda: metric(server, "vitserve_inflight_requests") == 0)
            return result

    def test_too_much(self):
        for request in (head("Transfer-Encoding: chunked"), head(f"Content-Length: {10**12}")):
            sent, _ = self.check_closed(request, CHUNK)
            self.assertGreater(sent, 50 * MIB)
            self.assertLess(sent, 80 * MIB)

    def test_too_long(self):
        for request in (head("Transfer-Encoding: chunked") + CHUNK * 9,
                        head(f"Content-Length: {10**12}")):
            _, seconds = self.check_closed(request, b"1\r\nx\r\n", 0.05)
            self.assertGreater(seconds, 4.0)
            self.assertLess(seconds, 7.0 * SLOW)

    def test_silence(self):
        """Refused in the middle, and then nothing comes."""
        with Server(*QUICK_LIMIT, "--request-timeout-ms", 60000, model=MODEL) as server, \
                server.open_socket() as connection:
            connection.sendall(head("Transfer-Encoding: chunked") + CHUNK * 9)
            start = time.monotonic()
            self.assertEqual(receive_all(connection), b"")
            self.assertLess(time.monotonic() - start, 7.0 * SLOW)


class Stop(Case):
    def test_an_answer_on_its_way(self):
        """A refused client that still sends when the stop comes has its answer all the same."""
        with Server(*QUICK_LIMIT, model=MODEL) as server, server.open_socket() as connection:
            connection.sendall(head(f"Content-Length: {20 * MIB}"))
            time.sleep(0.2)
            server.send_signal(signal.SIGTERM)
            for _ in range(20):
                connection.sendall(bytes(MIB))
                time.sleep(0.02)
            self.check_error(answer_from(connection), 413, "body_too_large")
            connection.close()
            self.assertEqual(server.wait(), 0)

    def test_nothing_holds_it_past_its_limit(self):
        """Whatever a connection does, its stop ends."""
        picture = png(8, 8)
        classify = head(f"Content-Length: {len(picture)}", path="/classify?logits=1") + picture
        hostile = (b"", b"POST /classify HT", head("Content-Length: 1000000") + b"x",
                   head("Content-Length: 1000000", "Expect: 100-continue"),
                   head("Transfer-Encoding: chunked") + b"5;" * 100000,
                   head("Transfer-Encoding: chunked") + b"ffffffffffffffff\r\nx",
                   head("Transfer-Encoding: chunked") + CHUNK * 9,
                   head(f"Content-Length: {10**12}"), classify * 2000)
        with Server(*QUICK_LIMIT, "--drain-timeout-ms", 500, model=MODEL) as server, \
                contextlib.ExitStack() as stack:
            for half_close in (False, True):
                for data in hostile:
                    connection = stack.enter_context(server.open_socket())
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    connection.settimeout(0.5)
                    with contextlib.suppress(OSError):
                        connection.sendall(data)
                        if half_close:
                            connection.shutdown(socket.SHUT_WR)
            start = time.monotonic()
            self.assertEqual(server.stop(), 0, server.stderr())
            self.assertLess(time.monotonic() - start, 3.0 * SLOW)

    def test_nothing_is_left_that_it_waits_for(self):
        """A request that the library gave up is none: the stop does not wait for it."""
        linger = struct.pack("ii", 1, 0)
        with Server(*QUICK_LIMIT, model=MODEL) as server:
            for chunk in (b"5;" * 100000, b"ffffffffffffffff\r\nx", b"xyz\r\n"):
                for reset in (False, True):
                    with server.open_socket() as connection:
                        if reset:
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        with contextlib.suppress(ConnectionError):
                            connection.sendall(head("Transfer-Encoding: chunked") + chunk)
            self.until(lambda: metric(server, "vitserve_inflight_requests") == 0, 10 * SLOW)
            start = time.monotonic()
            self.assertEqual(server.stop(), 0, server.stderr())
            self.assertLess(time.monotonic() - start, 3.0 * SLOW)


if __name__ == "__main__":
    unittest.main()
