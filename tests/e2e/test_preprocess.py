"""POST /preprocess: what the model sees, and nothing but one picture at a time."""

import base64
import gzip
import json
import struct
import unittest
import zlib

from vitserve import ServerCase, jpeg, multipart, png

SIDE = 28  # of the built-in model
RAW = "application/octet-stream"


def png_pixels(data):
    """The RGB bytes of a PNG as libspng writes it: 8 bits, no palette, no interlacing."""
    header, rows, at = None, b"", 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        rows += body if kind == b"IDAT" else b""
        at += 12 + length
    width, height, depth, colour = header[:4]
    assert (depth, colour) == (8, 2), header
    return width, height, unfilter(zlib.decompress(rows), width * 3, height)


def unfilter(rows, stride, height):
    """PNG's five filters, for 3 bytes a pixel."""
    def paeth(a, b, c):
        p = a + b - c
        return min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
    out, above = b"", bytes(stride)
    for y in range(height):
        kind, line = rows[y * (stride + 1)], bytearray(rows[y * (stride + 1) + 1:][:stride])
        for x in range(stride):
            left, corner = (line[x - 3], above[x - 3]) if x >= 3 else (0, 0)
            add = (0, left, above[x], (left + above[x]) // 2, paeth(left, above[x], corner))[kind]
            line[x] = (line[x] + add) & 255
        above = bytes(line)
        out += above
    return out


class Preprocess(ServerCase):
    options = ("--model", "fashion_vit", "--random-weights", 2)

    def crop(self, body, **headers):
        answer = self.server.request("POST", "/preprocess", body, **{"Accept": RAW, **headers})
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.headers["content-type"], RAW)
        self.assertEqual(len(answer.body), SIDE * SIDE * 3)
        return answer.body

    def test_png_and_bytes_are_the_same(self):
        for picture in (png(300, 200), png(20, 31, seed=3), jpeg()):
            raw = self.crop(picture)
            for headers in ({}, {"Accept": "image/*"}, {"Accept": "*/*"}, {"Accept": "image/png"},
                            {"Accept": "text/html"}):
                answer = self.server.request("POST", "/preprocess", picture, **headers)
                self.assertEqual(answer.status, 200)
                self.assertEqual(answer.headers["content-type"], "image/png")
                self.assertEqual(png_pixels(answer.body), (SIDE, SIDE, raw))

    def test_it_is_what_the_model_sees(self):
        """The crop sent back as the model's own input gives the logits of the picture, bit by bit."""
        for picture in (png(300, 200), jpeg()):
            expected = self.server.classify(picture, "?logits=1").results[0]["logits"]
            head = json.dumps({"inputs": [{"name": "pixels", "shape": [1, SIDE, SIDE, 3],
                                           "datatype": "UINT8",
                                           "parameters": {"binary_data_size": SIDE * SIDE * 3}}],
                               "outputs": [{"name": "logits"}]}).encode()
            answer = self.server.request("POST", "/v2/models/fashion_vit/infer",
                                         head + self.crop(picture),
                                         Inference_Header_Content_Length=str(len(head)))
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual(answer.json["outputs"][0]["data"], expected)

    def test_every_form_of_body(self):
        expected = self.crop(png())
        kind, form = multipart([("a.png", png())])
        encoded = json.dumps({"images": [base64.b64encode(png()).decode()]})
        self.assertEqual(self.crop(form, Content_Type=kind), expected)
        self.assertEqual(self.crop(encoded, Content_Type="application/json"), expected)
        self.assertEqual(self.crop(gzip.compress(png()), Content_Encoding="gzip"), expected)

    def test_bad_input(self):
        def post(body, **headers):
            return self.server.request("POST", "/preprocess", body, **headers)
        kind, two = multipart([("a", png()), ("b", png())])
        answer = post(two, Content_Type=kind)
        self.check_error(answer, 400, "bad_request")
        self.assertIn("one image at a time, not 2", answer.json["error"])
        self.check_error(post(b""), 400, "no_image")
        self.check_error(post(png()[:-40]), 400, "bad_image")
        self.check_error(post(b"no image"), 415, "unsupported_image")
        self.check_error(self.server.request("GET", "/preprocess"), 405, "method_not_allowed")
        self.crop(png())


if __name__ == "__main__":
    unittest.main()
