"""Hostile and broken input: each gets its status, the next good request is served, and memory,
descriptors and threads return to where they were."""

import contextlib
import itertools
import socket
import struct
import time
import unittest
import urllib.parse

from vitserve import (MODEL, SANITIZED, ServerCase, answer_from, exchange, jpeg, multipart, png,
                      png_chunk, receive_all, together, webp)

BODY_LIMIT = 1 << 20
HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\n"


def settle(measure, wanted, seconds=10):
    """measure(), once it has come down to what is wanted or the time is over."""
    deadline = time.monotonic() + seconds
    while (value := measure()) > wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


class BadInputCase(ServerCase):
    """After each test a good request is answered; after all of them the server holds no more than
    before."""
    options = ("--max-batch", 4, "--max-body-bytes", BODY_LIMIT, "--log-level", "warning")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        server = cls.server
        big = png(400, 300)
        for _ in range(2):
            together(lambda _: server.classify(big), range(16))
            together(lambda _: server.classify(big[:-100]), range(16))
        cls.threads = settle(server.threads, 0, 0.5)
        cls.descriptors = settle(server.descriptors, 0, 0)
        cls.memory_kb = server.memory_kb()

    def tearDown(self):
        self.check_good(self.server)

    @classmethod
    def tearDownClass(cls):
        threads = settle(cls.server.threads, cls.threads)
        descriptors = settle(cls.server.descriptors, cls.descriptors)
        assert threads <= cls.threads, f"{threads} threads, {cls.threads} before"
        assert descriptors <= cls.descriptors, f"{descriptors} fds, {cls.descriptors} before"
        growth = cls.server.memory_kb() - cls.memory_kb
        assert SANITIZED or growth <= 5 * 1024, f"{growth} kB more than before"

    def raw_status(self, data, half_close=False):
        """The status of the one answer to these bytes, after which the server closes; None where
        it closes without."""
        answer = self.server.send_raw(data, half_close)
        if not answer:
            return None
        self.assertTrue(answer.startswith(b"HTTP/1.1 "), answer[:100])
        # libmicrohttpd 0.9.75 sends the head of an answer of its own twice.
        self.assertLessEqual(answer.count(b"HTTP/1."), 1 + (b"<html>" in answer), answer[:2000])
        return int(answer[9:12])


class Images(BadInputCase):
    def test_not_an_image(self):
        for data in (b"x", b"no image", b"GIF89a" + bytes(100), b"RIFF\0\0\0\0WAVEfmt ",
                     b"BM" + bytes(60), b"<svg/>", b"%PDF-1.4", bytes(1), bytes(5000),
                     b"\xff" * 100, bytes(range(256))):
            self.check_error(self.server.classify(data), 415, "unsupported_image")
        self.assertIn("JPEG, PNG and WebP", self.server.classify(b"x").json["error"])

    def test_nothing(self):
        self.check_error(self.server.classify(b""), 400, "no_image")
        self.check_error(self.server.classify(None, Content_Length="0"), 400, "no_image")
        self.check_error(self.server.classify(iter([])), 400, "no_image")

    def test_truncated_at_every_tenth_byte(self):
        for name, data, magic in (("png", png(), 8), ("jpeg", jpeg(), 3), ("webp", webp(), 12)):
            with contextlib.closing(self.server.connect()) as connection:
                for length in range(0, len(data), 10):
                    with self.subTest(name, length=length):
                        answer = exchange(connection, "POST", "/classify", data[:length])
                        if length == 0:
                            self.check_error(answer, 400, "no_image")
                        elif length < magic:
                            self.check_error(answer, 415, "unsupported_image")
                        elif name == "png" and length >= len(data) - 20:  # all the rows are there
                            self.assertEqual(answer.status, 200, answer)
                        else:
                            self.check_error(answer, 400, "bad_image")

    def test_every_tenth_byte_changed(self):
        for data in (png(), jpeg(), webp()):
            with contextlib.closing(self.server.connect()) as connection:
                for at in range(0, len(data), 10):
                    changed = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1:]
                    answer = exchange(connection, "POST", "/classify", changed)
                    self.assertIn(answer.status, (200, 400, 413, 415))
                    if answer.status != 200:
                        self.check_error(answer, answer.status, answer.json["code"])

    def test_headers_of_65535_x_65535(self):
        header = struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)
        big_png = (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) +
                   png_chunk(b"IDAT", b"x\x9c" + bytes(100)) + png_chunk(b"IEND", b""))
        at = next(i for i in range(len(jpeg())) if jpeg()[i:i + 2] in (b"\xff\xc0", b"\xff\xc2"))
        big_jpeg = jpeg()[:at + 5] + b"\xff\xff\xff\xff" + jpeg()[at + 9:]
        big_webp = webp()[:26] + b"\xff\x3f" * 2 + webp()[30:]  # 16383 is all it can say
        for name, data in (("png", big_png), ("jpeg", big_jpeg), ("webp", big_webp)):
            with self.subTest(name):
                answer = self.server.classify(data)
                self.check_error(answer, 413, "image_too_large")
                self.assertRegex(answer.json["error"], "64000000|65500")

    def test_impossible_sizes(self):
        for width, height in ((0, 1), (1, 0), (0x80000000, 1), (1, 0xFFFFFFFF), (0xFFFFFFFF,) * 2):
            header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
            answer = self.server.classify(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) +
                                          png_chunk(b"IEND", b""))
            self.assertIn(answer.status, (400, 413))

    def test_extreme_shapes(self):
        for width, height in ((1, 1), (1, 5000), (5000, 1), (3, 20000)):
            answer = self.server.classify(png(width, height))
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual(answer.results[0]["height"], height)


class Requests(BadInputCase):
    def test_top_k(self):
        for value in ("0", "-1", "abc", "1000000000", "1001", "99999999999999999999", "5x", "1.5",
                      "", "0x5", "1e1", "%00", "5%00", "%FF", "%2B", "\u00e9" * 20, "x" * 2000):
            for query in ("?top_k=", "?logits=1&top_k="):
                answer = self.server.classify(png(), query + urllib.parse.quote(value, safe="%"))
                self.check_error(answer, 400, "bad_top_k")
            if "%" not in value and len(value) < 16:
                kind, body = multipart([("a", png())], top_k=value)
                answer = self.server.classify(body, Content_Type=kind)
                if value:
                    self.check_error(answer, 400, "bad_top_k")
                else: # a field of a form that was left empty
                    self.assertEqual(answer.status, 200)

    def test_top_k_twice(self):
        for query in ("?top_k=2&top_k=3", "?top_k=2&top_k=abc", "?top_k=abc&top_k=2"):
            answer = self.server.classify(png(), query)
            self.assertIn(answer.status, (200, 400))

    def test_wrong_method(self):
        for path, allowed in (("/classify", "POST, PUT, OPTIONS"), ("/model", "GET, HEAD, OPTIONS"),
                              ("/healthz", "GET, HEAD, OPTIONS"),
                              ("/readyz", "GET, HEAD, OPTIONS")):
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "options",
                           "BREW", "get"):
                if method in allowed.split(", "):
                    continue
                answer = self.server.request(method, path, b"x" if method == "PUT" else None)
                self.assertEqual(answer.status, 405, f"{method} {path}")
                self.assertEqual(answer.headers["allow"], allowed)
                if method != "HEAD":
                    self.check_error(answer, 405, "method_not_allowed")

    def test_unknown_path(self):
        for path in ("/index.html", "/classif", "/classify//", "/classify/x", "//classify", "/CLASSIFY",
                     "/model.json", "/healthz%20", "/classify%00", "/classify%00.png", "/%ff%fe", "/%", "/%zz",
                     "/..%2fetc/passwd", "/../../etc/passwd", "/%C3%A9", "/" + "x" * 5000,
                     "/<script>alert(1)</script>", "/%22%0d%0aX-Evil:%20yes", "/classify;x"):
            for method, body in (("GET", None), ("POST", png())):
                answer = self.server.request(method, path, body)
                self.check_error(answer, 404, "not_found")
                self.assertNotIn("x-evil", answer.headers)

    def test_percent_encoded_path(self):
        answer = self.server.request("POST", "/%63lassif%79?top%5Fk=%32", png())
        self.assertEqual(answer.status, 200)
        self.assertEqual(len(answer.results[0]["predictions"]), 2)


class Forms(BadInputCase):
    def check_form(self, body, kind="multipart/form-data; boundary=b", code="bad_request"):
        with self.subTest(kind=kind[:80], body=body[:80]):
            answer = self.server.classify(body, Content_Type=kind)
            self.check_error(answer, 413 if code == "too_many_images" else 400, code)

    def test_malformed(self):
        good = multipart([("a", png())], boundary="b")[1]
        disposition = b"Content-Disposition: form-data"
        for kind in ("multipart/form-data", "multipart/form-data; boundary=",
                     'multipart/form-data; boundary="', "multipart/form-data; boundary=other",
                     "multipart/form-data; boundary=" + "b" * 71,
                     "multipart/form-data; boundary=" + "b" * 20000):
            self.check_form(good, kind)
        for body in (b"x", b"--b", b"--b\r\n", good[:-8], good[:len(good) // 2],
                     b"--b\r\n\r\nx\r\n--b--", b"--b\r\nx\r\n--b--",
                     b"--b\r\n" + disposition + b"\r\n\r\nx\r\n--b--",
                     good.replace(b"\r\n--b", b"\r\n--bb", 1),
                     good.replace(b"\r\n\r\n", b"\r\n", 1)):
            self.check_form(body)
        for name in (b"unknown", b"\xff", b"\0"):  # a field that is passed over
            self.check_form(b"--b\r\n" + disposition + b'; name="' + name + b'"\r\n\r\nx\r\n--b--',
                            code="no_image")
        self.check_form(b"--b--", code="no_image")
        self.check_form(b"", code="no_image")

    def test_every_tenth_byte_cut(self):
        kind, body = multipart([("a", png(8, 8)), ("b", b"bad")], top_k=3)
        for length in range(0, len(body) - 4, 10):
            self.check_form(body[:length], kind, "bad_request" if length else "no_image")

    def test_thousands_of_parts(self):
        field = b'--b\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n3\r\n'
        file = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n\r\n'
        self.check_form(field + b"--b--", code="no_image")
        self.check_form(field * 10000 + b"--b--")
        unknown = b'--b\nContent-Disposition: form-data; name="x"\n\n3\n'
        self.check_form(unknown * 20000 + b"--b--", code="no_image")
        self.check_form(unknown.replace(b"\n", b"\r\n", 1) + unknown * 20000 + b"--b--",
                        code="no_image")
        self.check_form(file * 10000 + b"--b--", code="too_many_images")
        self.check_form(b"--b\r\n" * 100000 + b"--b--")
        self.check_form(b"--b\r\n\r\n" * 100000 + b"--b--")
        self.check_form(b"\r\n--" * 200000)
        head = b"--b\r\n" + b"X-Header: x\r\n" * 50000 + b"\r\nx\r\n--b--"
        self.check_form(head)
        self.check_form(b"--b\r\nContent-Disposition: " + b";" * 500000 + b"\r\n\r\nx\r\n--b--")

    def test_boundary_inside_the_data(self):
        inner = png() + b"--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n\r\n--"
        kind, body = multipart([("a", inner), ("c", png())], boundary="b")
        results = self.server.classify(body, Content_Type=kind).results
        self.assertEqual([result["name"] for result in results], ["a", "c"])
        self.assertNotIn("error", results[0])

    def test_hostile_names(self):
        for name in ("../../etc/passwd", "<script>", "x" * 300, "x" * 30000, "a\tb", "\u202e"):
            kind, body = multipart([(name, png(8, 8))])
            (result,) = self.server.classify(body, Content_Type=kind).results
            self.assertEqual(result["name"], name if len(name) < 256 else "image-1")


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
        smuggled = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        for head, body in ((length + b"Transfer-Encoding: chunked\r\n", chunk),
                           (b"Transfer-Encoding: chunked\r\n" + length, chunk),
                           (b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", chunk),
                           (length + b"Transfer-Encoding: identity\r\n", data),
                           (length + b"Content-Length: 5\r\n", data),
                           (b"Content-Length: 5\r\n" + length, data),
                           (b"Transfer-Encoding: gzip\r\n", b""),
                           (b"Transfer-Encoding: gzip, chunked\r\n", chunk),
                           (b"Transfer-Encoding: xchunked\r\n", chunk),
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
                     b"GET /\0/x HTTP/1.1\r\nHost: x\r\n\r\n", bytes(range(256)) * 100,
                     b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: \0\r\n\r\n",
                     b"GET /healthz HTTP/1.1\r\nX-Request-Id: a\rb\r\n\r\n"):
            with self.subTest(data=data[:40]):
                answer = self.server.send_raw(data, half_close=True)
                self.assertTrue(not answer or answer.startswith(b"HTTP/1.1 "), answer[:100])

    def test_long_heads(self):
        for data in (b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /healthz?" + b"x&" * 50000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100000 + b"\r\n\r\n",
                     b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
                     b"x" * 1000000):
            with self.subTest(data=data[:40]):
                self.assertIn(self.raw_status(data), (400, 413, 414, 431, None))

    def test_half_a_request(self):
        data = png()
        whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data
        for length in [*range(1, 60, 7), len(whole) // 2, len(whole) - 1]:
            self.assertIn(self.raw_status(whole[:length], half_close=True), (None, 400))
        # Who closes a direction may have closed both: that cannot be told apart.
        self.assertEqual(self.raw_status(whole, half_close=True), 499)

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
        request = (b"POST /classify?top_k=1000&logits=1 HTTP/1.1\r\nHost: x\r\n"
                   b"Content-Length: %d\r\n\r\n" % len(data) + data)
        with self.server.open_socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(request * 50)
            self.check_good(self.server)


class Leaks(BadInputCase):
    """Enough requests of each kind that what one of them left behind would be seen."""

    def test_bodies(self):
        junk = bytes(200000)
        kind, form = multipart([("a", junk), ("b", junk)])
        with contextlib.closing(self.server.connect()) as connection:
            for _ in range(100):
                for body, status, headers in ((junk, 415, {}), (form, 415, {"Content_Type": kind}),
                                              (iter([junk]), 415, {}), (junk * 6, 413, {})):
                    answer = exchange(connection, "POST", "/classify", body, **headers)
                    self.assertEqual(answer.status, status)

    def test_small_requests(self):
        connect = b"Connection: keep-alive\r\n"
        for head in (b"GET /healthz", b"GET /nowhere", b"POST /classify"):
            request = head + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" + connect + b"\r\n"
            last = request.replace(b"keep-alive", b"close")
            for _ in range(20):
                answers = self.server.send_raw(request * 999 + last)
                self.assertEqual(answers.count(b"HTTP/1.1 "), 1000)

    def test_connections(self):
        for _ in range(500):
            self.server.open_socket().close()


class Bursts(ServerCase):
    def test_memory_of_large_pictures_is_given_back(self):
        large, junk = png(2000, 1500, seed=None), bytes(20 << 20)
        for _ in range(2):
            together(lambda _: self.server.classify(png(400, 300)), range(16))
        before = self.server.memory_kb()
        for _ in range(2):
            together(lambda _: self.server.classify(large), range(24))
            together(lambda _: self.server.classify(junk), range(12))
        self.check_good(self.server)
        growth = self.server.memory_kb() - before
        self.assertTrue(SANITIZED or growth <= 16 * 1024, f"{growth} kB more than before")


if __name__ == "__main__":
    unittest.main()
