"""Broken and hostile HTTP: each connection gets its status, the next good request is served, and
memory, descriptors and threads return to where they were."""

import contextlib
import itertools
import socket
import struct
import unittest

from bad_input import BODY_LIMIT, HEAD, BadInputCase
from vitserve import MODEL, answer_from, png, receive_all


class Protocol(BadInputCase):
    model = MODEL  # whose answers are long

    def test_body_over_the_limit(self):
        self.check_error(self.server.classify(bytes(BODY_LIMIT + 1)), 413, "body_too_large")
        self.assertIn(str(BODY_LIMIT), self.server.classify(bytes(BODY_LIMIT + 1)).json["error"])
        self.check_error(self.server.classify(bytes(BODY_LIMIT)), 415, "unsupported_image")
        for length in (BODY_LIMIT + 1, 10**12, 2**63 - 1):
            data = HEAD + b"Content-Length: %d\r\n\r\n" % length
            self.assertEqual(self.raw_status(data), 413)
        for length in (2**63, 2**64 - 1, 2**64, 10**30):
            data = HEAD + b"Content-Length: %d\r\n\r\n" % length
            self.assertIn(self.raw_status(data), (400, 413))

    def test_chunked_body_over_the_limit(self):
        with self.server.open_socket() as connection:
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(600):
                    connection.sendall(b"20000\r\n" + bytes(0x20000) + b"\r\n")
                self.fail("the connection is still open")
            self.assertEqual(receive_all(connection), b"")
        pieces = itertools.repeat(bytes(BODY_LIMIT // 8), 8)
        self.check_error(self.server.classify(pieces), 415, "unsupported_image")

    def test_two_lengths(self):
        data = png()
        length = b"Content-Length: %d\r\n" % len(data)
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
        smuggled = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for head, body in ((length + b"Transfer-Encoding: chunked\r\n", chunk),
                           (b"Transfer-Encoding: chunked\r\n" + length, chunk),
                           (b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", chunk),
                           (length + b"Transfer-Encoding: identity\r\n", data),
                           (length + b"Content-Length: 5\r\n", data),
                           (b"Content-Length: 5\r\n" + length, data),
                           (b"Transfer-Encoding: gzip\r\n", b""),
                           (b"Transfer-Encoding: gzip, chunked\r\n", chunk),
                           (b"Transfer-Encoding: xchunked\r\n", chunk),
                           (b"Transfer-Encoding: chunkedx\r\n", chunk),
                           (b"Transfer-Encoding: chunked, gzip\r\n", chunk),
                           (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", chunk),
                           (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunk)):
            with self.subTest(head=head):
                self.assertEqual(self.raw_status(HEAD + head + b"\r\n" + body + smuggled), 400)

    def test_content_length_that_is_no_number(self):
        for length in (b"-1", b"abc", b"", b"1x", b"0x10", b"1,1", b"1 1", b"+5", b"1.0", b"\xff"):
            data = HEAD + b"Content-Length: " + length + b"\r\n\r\n" + bytes(20)
            with self.subTest(length=length):
                self.assertEqual(self.raw_status(data), 400)

    def test_broken_chunks(self):
        head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        for chunk in (b"xyz\r\n", b"-1\r\n", b"\r\n\r\n", b"5\r\nabcdefghij\r\n", b"5;" * 100000,
                      b"ffffffffffffffff\r\nx", b"fffffffffffffffff\r\nx", b"0x5\r\nabcde\r\n"):
            with self.subTest(chunk=chunk[:20]):
                self.assertIn(self.raw_status(head + chunk, half_close=True), (400, 413, 500, None))

    def test_garbage(self):
        for data in (b"\r\n" * 1000, b"\0" * 5000, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
                     b"hello\r\n\r\n", b"GET\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                     b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET http://[/ HTTP/1.1\r\n\r\n",
                     b" GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
                     b"GET / HTTP/1.1\r\n: empty\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
                     b"GET /\0/x HTTP/1.1\r\nHost: localhost\r\n\r\n", bytes(range(256)) * 100,
                     b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: \0\r\n\r\n",
                     b"GET /healthz HTTP/1.1\r\nX-Request-Id: a\rb\r\n\r\n"):
            with self.subTest(data=data[:40]):
                answer = self.server.send_raw(data, half_close=True)
                self.assertTrue(not answer or answer.startswith(b"HTTP/1.1 "), answer[:100])

    def test_long_heads(self):
        for data in (b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
                     b"GET /healthz?" + b"x&" * 50000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
                     b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100000 + b"\r\n\r\n",
                     b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
                     b"x" * 1000000):
            with self.subTest(data=data[:40]):
                self.assertIn(self.raw_status(data), (400, 413, 414, 431, None))

    def test_half_a_request(self):
        data = png()
        whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data
        for length in [*range(1, 60, 7), len(whole) // 2, len(whole) - 1]:
            self.assertIn(self.raw_status(whole[:length], half_close=True), (None, 400))

    def test_half_a_connection(self):
        """Who closes a direction may have closed both: that cannot be told apart. The server sees
        the end before it has an answer, however slow the client is."""
        data = png()
        with self.server.open_socket() as connection:
            with self.server.paused():
                connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data)
                connection.shutdown(socket.SHUT_WR)
            self.assertEqual(answer_from(connection).status, 499)

    def test_byte_by_byte(self):
        data = png(8, 8)
        with self.server.open_socket() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data:
                connection.sendall(bytes([byte]))
            self.assertEqual(answer_from(connection).status, 200)

    def test_clients_that_reset(self):
        data = png(200, 200)
        whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data
        linger = struct.pack("ii", 1, 0)
        for length in (0, 10, 60, len(whole) // 2, len(whole)):
            for _ in range(5):
                with self.server.open_socket() as connection:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    connection.sendall(whole[:length])

    def test_client_that_does_not_read(self):
        data = png(8, 8)
        request = (b"POST /classify?top_k=1000&logits=1 HTTP/1.1\r\nHost: localhost\r\n"
                   b"Content-Length: %d\r\n\r\n" % len(data) + data)
        with self.server.open_socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(request * 50)
            self.check_good(self.server)


if __name__ == "__main__":
    unittest.main()
