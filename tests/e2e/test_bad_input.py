"""Hostile and broken pictures and forms: each gets its status, the next good request is served, and
memory, descriptors and threads return to where they were."""

import contextlib
import struct
import unittest
import urllib.parse

from bad_input import BadInputCase
from vitserve import SANITIZED, ServerCase, exchange, jpeg, multipart, png, png_chunk, together, webp


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
            request = head + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n" + connect + b"\r\n"
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
