"""Every form of body gives the same answer, and what is malformed, too large or meant to do harm
gets its status and a sentence, in bounded time and memory."""

import base64
import gzip
import json
import time
import unittest
import zlib

from vitserve import SANITIZED, ServerCase, jpeg, multipart, png, together

JSON = "application/json"
MIB = 1 << 20


def encoded(data):
    return base64.b64encode(data).decode()


def json_body(*images, **fields):
    return json.dumps({"images": [encoded(image) for image in images], **fields}).encode()


def odd_forms(picture):
    """As clients send them, or people make them by hand."""
    disposition = b'Content-Disposition: form-data; name="file"'
    for head, data, line_break in (
            (b"\nContent-Type: image/x", picture, b"\r\n"),
            (b"\nContent-Type: application/octet-stream", picture, b"\n"),
            (b"", picture, b"\r\n"),
            (b"; filename*=utf-8''image%2D1", picture, b"\n"),
            (b"; filename*=utf-8''image%2D1; filename=x", picture, b"\r\n"),
            (b"\nContent-Transfer-Encoding: base64", base64.encodebytes(picture), b"\r\n"),
            (b"\ncontent-transfer-encoding:Base64 ", base64.b64encode(picture), b"\n")):
        field = b'--b\nContent-Disposition: form-data; name="comment"\n\nx\n'
        start = (field + b"--b\n" + disposition + head + b"\n\n").replace(b"\n", line_break)
        yield start + data + line_break + b"--b--", "multipart/form-data; boundary=b"


def raw_deflate(data, level=9):
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


class SamePicture(ServerCase):
    def check_same(self, expected, body, query="?logits=1", **headers):
        answer = self.server.classify(body, query, **headers)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.results, expected)

    def test_all_forms(self):
        for picture in (jpeg(), png()):
            expected = self.server.classify(picture, "?logits=1").results
            kind, form = multipart([("image-1", picture)])
            text = json_body(picture)
            uri = json.dumps({"images": ["data:image/png;base64," + encoded(picture)]}).encode()
            lines = json.dumps({"images": [base64.encodebytes(picture).decode()]}).encode()
            url_safe = base64.urlsafe_b64encode(picture).decode().rstrip("=")
            forms = ((picture, None), (form, kind), (text, JSON), (uri, JSON), (lines, JSON),
                     (text, "Application/JSON; charset=utf-8"),
                     (json.dumps({"images": [url_safe]}).encode(), JSON),
                     (b"\xef\xbb\xbf" + text, JSON), *odd_forms(picture))
            encodings = ((lambda data: data, "identity"), (gzip.compress, "gzip"),
                         (gzip.compress, "X-GZip"), (zlib.compress, "deflate"),
                         (raw_deflate, "deflate"),
                         (lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:]), "gzip"))
            for body, content_type in forms:
                headers = {"Content_Type": content_type} if content_type else {}
                self.check_same(expected, body, **headers)
                for encode, name in encodings:
                    with self.subTest(content_type, encoding=name):
                        packed = encode(body)
                        self.check_same(expected, packed, Content_Encoding=name, **headers)
                        pieces = [packed[i:i + 100] for i in range(0, len(packed), 100)]
                        self.check_same(expected, iter(pieces), Content_Encoding=name, **headers)

    def test_many_in_json(self):
        pictures = [png(20 + i, 10, seed=i) for i in range(5)]
        results = self.server.classify(json_body(*pictures, b"junk", b""), Content_Type=JSON).results
        self.assertEqual([r["name"] for r in results], [f"image-{i}" for i in range(1, 8)])
        for picture, result in zip(pictures, results):
            alone = self.server.classify(picture).results[0]
            self.assertEqual(result["width"], alone["width"])
            self.assertEqual(result["predictions"], alone["predictions"])
        self.assertEqual([r.get("code") for r in results], [None] * 5 + ["unsupported_image"] * 2)

    def test_fields_in_json(self):
        classes = self.server.request("GET", "/model").json["architecture"]["num_classes"]
        for fields in ({"logits": True}, {"logits": 1}):
            answer = self.server.classify(json_body(png(), top_k=7, **fields), Content_Type=JSON)
            self.assertEqual(len(answer.results[0]["predictions"]), 7)
            self.assertEqual(len(answer.results[0]["logits"]), classes)
        for fields in ({"logits": False}, {"logits": 0}):
            answer = self.server.classify(json_body(png(), **fields), Content_Type=JSON)
            self.assertNotIn("logits", answer.results[0])
        for fields in ({"top_k": None}, {"logits": None, "explain": None}):  # null is absent
            answer = self.server.classify(json_body(png(), **fields), Content_Type=JSON)
            self.assertEqual(len(answer.results[0]["predictions"]), 5)
            self.assertNotIn("logits", answer.results[0])
        # The query comes first.
        answer = self.server.classify(json_body(png(), top_k=7), "?top_k=2", Content_Type=JSON)
        self.assertEqual(len(answer.results[0]["predictions"]), 2)

    def test_all_bad_in_json(self):
        answer = self.server.classify(json_body(b"junk", png()[:60]), Content_Type=JSON)
        self.check_error(answer, 415, "unsupported_image")
        self.assertEqual(len(answer.results), 2)


class Refused(ServerCase):
    def check(self, body, status, code, words, **headers):
        with self.subTest(body=body[:60], **headers):
            answer = self.server.classify(body, **headers)
            self.check_error(answer, status, code)
            self.assertIn(words, answer.json["error"])

    def test_malformed_json(self):
        good = encoded(png())
        for text, words in (('{"images": [', "json: line 1, column "),
                            ("[" * 10000, "64"), ('{"images":' * 10000, "64"),
                            ("[]", "an object"), ('"x"', "json: "), ("\x00", "json: "),
                            ('{"images": ["\\u0000"]}', "json: "),
                            ('{"images": "%s"}' % good, "a list"), ('{"images": [5]}', "images[0]"),
                            ('{"images": ["%s"], "images": []}' % good, "duplicate"),
                            ('{"images": ["%s", "%s!"]}' % (good, good), "images[1]: base64: byte "),
                            ('{"images": ["%s"]}' % (good[:200] + "A"), "images[0]: base64: "),
                            ('{"images": ["data:image/png,x"]}', "images[0]: data URI"),
                            ('{"images": ["http://x/y.png"]}', "images[0]: base64"),
                            ('{"image": "%s"}' % good, '"image" is none of images, top_k, logits'),
                            ('{"images": ["%s"], "logits": "yes"}' % good, "logits"),
                            ('{"images": ["%s"], "logits": 2}' % good, "logits")):
            self.check(text.encode(), 400, "bad_request", words, Content_Type=JSON)
        self.check(b'{"images": ["\xff"]}', 400, "bad_request", "json: ", Content_Type=JSON)
        for value in ("0", "-1", "1001", "1e30", "5.0", '"5"', "[]", "1" * 18):
            text = '{"images": ["%s"], "top_k": %s}' % (good, value)
            self.check(text.encode(), 400, "bad_top_k", "top_k", Content_Type=JSON)
        for text in (b"", b"{}", b'{"images": []}', b'{"top_k": 5}'):
            self.check(text, 400, "no_image", "", Content_Type=JSON)

    def test_too_many_images(self):
        text = json.dumps({"images": ["!"] * 10000}).encode()
        self.check(text, 413, "too_many_images", "64", Content_Type=JSON)

    def test_json_under_another_type(self):
        self.check(json_body(png()), 415, "unsupported_image", "Content-Type: application/json",
                   Content_Type="application/x-www-form-urlencoded")

    def test_fields_that_come_twice(self):
        field = b'--b\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n3\r\n'
        self.check(field * 2 + b"--b--", 400, "bad_request", '"top_k" comes twice',
                   Content_Type="multipart/form-data; boundary=b")

    def test_encodings(self):
        for name in ("br", "zstd", "compress", "gzip, gzip", "gzip;q=1", "x" * 300, "\xff"):
            self.check(png(), 415, "unsupported_media_type", "neither gzip nor deflate",
                       Content_Encoding=name)
        packed = gzip.compress(png())
        for name, body, words in (("gzip", packed[:-1], "gzip: the data is cut off"),
                                  ("gzip", packed[:10], "gzip: the data is cut off"),
                                  ("gzip", b"", "gzip: the data is cut off"),
                                  ("gzip", packed + b"junk", "gzip: byte "),
                                  ("gzip", packed[:-8] + bytes(8), "gzip: byte "),
                                  ("gzip", png(), "gzip: byte "),
                                  ("deflate", packed, "deflate: byte "),
                                  ("deflate", zlib.compress(png()) + b"x", "more data behind")):
            self.check(body, 400, "bad_request", words, Content_Encoding=name)
        # A picture that is gzip in itself is none that we know.
        self.check(packed, 415, "unsupported_image", "JPEG")


class Bombs(ServerCase):
    """After all of them the server holds no more than before."""
    options = ("--max-batch", 2, "--log-level", "warning")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        together(lambda _: cls.server.classify(png(400, 300)), range(8))
        cls.server.classify(bytes(8 * MIB))
        cls.memory_kb = cls.server.memory_kb()

    def check_bomb(self, body, status, code, words, seconds=10, **headers):
        start = time.monotonic()
        answer = self.server.classify(body, **headers)
        took = time.monotonic() - start
        self.check_error(answer, status, code)
        self.assertIn(words, answer.json["error"])
        self.assertTrue(SANITIZED or took < seconds, f"{took} s")
        self.check_good(self.server)
        # The body is freed after the answer is sent.
        deadline = time.monotonic() + 5
        while (growth := self.server.memory_kb() - self.memory_kb) > 5 * 1024 and not SANITIZED:
            self.assertLess(time.monotonic(), deadline, f"{growth} kB more than before")
            time.sleep(0.02)

    def test_decompression(self):
        # 1 GiB in a megabyte; and as a picture, a form and JSON that would be fine but for its size.
        zeros = gzip.compress(bytes(16 * MIB)) * 64
        limit = str(32 * MIB)
        for kind in (JSON, "multipart/form-data; boundary=b", "image/png"):
            self.check_bomb(zeros, 413, "body_too_large", limit, Content_Type=kind,
                            Content_Encoding="gzip")
        for encode in (zlib.compress, raw_deflate):
            self.check_bomb(encode(bytes(32 * MIB + 1)), 413, "body_too_large", limit,
                            Content_Encoding="deflate")
        self.check_bomb(zlib.compress(bytes(32 * MIB)), 415, "unsupported_image", "JPEG",
                        Content_Encoding="deflate")
        self.check_bomb(gzip.compress(b"") * 500000, 400, "no_image", "empty",
                        Content_Encoding="gzip")

    def test_small_values(self):
        for values in (b"[],", b"{},", b"0,", b'"",', b"[", b'{"":', b"[[[[]]]],"):
            text = b"[" + values * (32 * MIB // len(values) - 1)
            self.check_bomb(text, 400, "bad_request", "json: line 1, column ", Content_Type=JSON)
            self.check_bomb(gzip.compress(text), 400, "bad_request", "json: line 1, column ",
                            Content_Type=JSON, Content_Encoding="gzip")

    def test_large_values(self):
        size = 32 * MIB - 100
        for text, code, words in ((b'{"images": ["' + b"A" * (size - 2) + b'A=="]}', "bad_request",
                                   "images[0]: base64: "),
                                  (b'{"images": ["' + b"\\n" * (size // 2) + b'A"]}', "bad_request",
                                   "images[0]: base64: "),
                                  (b"[" + b"1" * size + b"]", "bad_request", "json: "),
                                  (b" " * size, "bad_request", "json: "),
                                  (b'["' + b"A" * size, "bad_request", "json: "),
                                  (b'{"' + b"A" * size + b'": 1}', "bad_request", "none of"),
                                  (b'["' + b'\\"' * (size // 2) + b'"]', "bad_request", "object")):
            with self.subTest(text=text[:20]):
                self.check_bomb(text, 400, code, words, seconds=20, Content_Type=JSON)


if __name__ == "__main__":
    unittest.main()
