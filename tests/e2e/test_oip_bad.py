"""Requests of the Open Inference Protocol that are wrong: each is refused with one sentence that
says what and where, and the server goes on."""

import base64
import gzip
import json
import random
import struct
import unittest
import zlib

from vitserve import SANITIZED, Case, Server, jpeg, metrics, multipart, png, together

PATH = "/v2/models/fashion_vit/infer"
CROP = 28 * 28 * 3


def text_of(picture):
    return base64.b64encode(picture).decode()


def image(**changes):
    """An input that is right, but for these changes; None takes a field away."""
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text_of(png())]}
    return {name: value for name, value in (tensor | changes).items() if value is not None}


def pixels(**changes):
    return image(**({"name": "pixels", "shape": [1, 28, 28, 3], "datatype": "UINT8",
                     "data": [7] * CROP} | changes))


def behind(size):
    return {"data": None, "parameters": {"binary_data_size": size}}


class GaugeCase(Case):
    def wait_for_gauge(self, server, name):
        """Until it is 0: a request ends a little later than its answer arrives."""
        self.until(lambda: metrics(server)[f"vitserve_{name}"] == 0)


class BadCase(GaugeCase):
    options = ("--max-batch", "8")

    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server(*cls.options, model=()))

    def send(self, body, **headers):
        return self.server.request("POST", PATH, body, **headers)

    def check_good_oip(self):
        answer = self.send(json.dumps({"inputs": [image()]}))
        self.assertEqual(answer.status, 200, answer.body)

    def refuse(self, request, words, tensor=b"", status=400, code="bad_request", **headers):
        """A request as JSON or as text, perhaps with a tensor behind it."""
        if not isinstance(request, bytes):
            request = json.dumps(request).encode()
        if tensor:
            headers.setdefault("Inference_Header_Content_Length", str(len(request)))
        with self.subTest(words):
            answer = self.send(request + tensor, **headers)
            self.check_error(answer, status, code)
            self.assertIn(words, answer.json["error"])
            self.assertEqual(set(answer.json), {"error", "code", "request_id"})


class Malformed(BadCase):
    def test_json(self):
        for text in (b"{", b"[]", b"7", b"nonsense", b'"text"', b"\xff\xfe", b"{}x", b"{'a':1}",
                     b'{"inputs":[1,]}', b'{"id":"\xff"}', b'{"id":"\xed\xa0\x80"}',
                     b'{"id":"\\u0000"}', b'{"id":"1","id":"2"}', jpeg(), png(), b"\0",
                     b'{"inputs":[{"data":[1,2'):
            self.refuse(text, "json")
        self.refuse(b"", "empty", code="no_image")
        self.check_good_oip()

    def test_nesting(self):
        for head in (b"", b'{"x":', b'{"inputs":[{"name":"pixels","datatype":"UINT8",'
                     b'"shape":[1,28,28,3],"data":'):
            for brackets in (b"[", b'{"a":'):
                self.refuse(head + brackets * 10000, "")
                self.refuse(head + brackets * 10000 + b"1" +
                            (b"]" if brackets == b"[" else b"}") * 10000, "")
        self.check_good_oip()

    def test_inputs(self):
        self.refuse({}, '"inputs"')
        self.refuse({"inputs": None}, '"inputs"')
        self.refuse({"inputs": []}, "0 of them")
        self.refuse({"inputs": [image(), pixels()]}, "2 of them")
        self.refuse({"inputs": [image(), image()]}, "2 of them")
        self.refuse({"inputs": [pixels(), pixels()]}, "a second list of numbers")
        self.refuse({"inputs": [image(name="input")]}, '"input" is neither image nor pixels')
        self.refuse({"inputs": [image(name="\U0001f600" * 40)]}, "is neither image nor pixels")
        self.refuse({"inputs": [image(name=None)]}, '"name"')
        self.refuse({"inputs": [image(datatype=None)]}, '"datatype"')
        self.refuse({"inputs": [image(shape=None)]}, "shape")
        self.refuse({"inputs": [image(data=None)]}, "neither data nor binary_data_size")

    def test_datatypes(self):
        for datatype in ("UINT8", "bytes", "STRING", "FP32", ""):
            self.refuse({"inputs": [image(datatype=datatype)]}, "the datatype is BYTES")
        for datatype in ("BYTES", "INT8", "FP32", "uint8", "BOOL"):
            self.refuse({"inputs": [pixels(datatype=datatype)]}, "the datatype is UINT8")

    def test_shapes(self):
        for shape in ([], [0], [-1], [1, 0], [1, 2], [1, 1, 1], [1.0], ["1"], [[1]], 1, "[1]",
                      [True], [2**32 + 1, 2**32 + 1]):
            self.refuse({"inputs": [image(shape=shape)]}, "neither [n] nor [n, 1]")
        for shape in ([CROP], [28, 28, 3], [1, 3, 28, 28], [1, 28, 28, 1], [1, 28, 28, 4],
                      [0, 28, 28, 3], [-1, 28, 28, 3], [1, -28, -28, 3], [1, 224, 224, 3],
                      [1, 28, 28, 3, 1], [1, 28, 2**62, 3], [1, 2**32 + 28, 28, 3]):
            self.refuse({"inputs": [pixels(shape=shape)]}, "[n, 28, 28, 3]")
        for count in (2**62, 2**63 - 1, 2**40):
            self.refuse({"inputs": [pixels(shape=[count, 28, 28, 3])]}, "shape[0]")
            self.refuse({"inputs": [image(shape=[count])]}, "shape[0]")
        self.refuse({"inputs": [image(shape=[2**63])]}, "json")
        self.refuse({"inputs": [image(shape=[2])]}, "list of 2 strings")
        self.refuse({"inputs": [pixels(shape=[2, 28, 28, 3])]}, "")

    def test_text(self):
        self.refuse({"inputs": [image(data=["A" + text_of(png())[:200]])]}, "image 1: base64")
        self.refuse({"inputs": [image(shape=[2], data=[text_of(png()), "!"])]}, "image 2: base64")
        self.refuse({"inputs": [image(data=["data:image/png,abc"])]}, "image 1: data URI")
        self.refuse({"inputs": [image(data=[1, 2, 3])]}, "list of 1 strings")
        self.refuse({"inputs": [image(data=text_of(png()))]}, "list of 1 strings")

    def test_numbers(self):
        for value in (256, -1, 1.0, 1e2, None, True, "7", [7], {}):
            data = [7] * CROP
            data[1234] = value
            self.refuse({"inputs": [pixels(data=data)]}, "data")
        data[1234] = 256
        self.refuse({"inputs": [pixels(data=data)]}, "data[1234] is not a whole number from 0")
        self.refuse({"inputs": [pixels(data=[200] * (CROP - 1))]}, f"first {CROP - 1} numbers")
        self.refuse({"inputs": [pixels(data=[200] * (CROP + 1))]}, f"first {CROP} numbers")
        self.refuse({"inputs": [pixels(data=[[7] * CROP])]}, "lists 2 deep")
        self.refuse({"inputs": [pixels(data=[])]}, "too short")
        text = json.dumps({"inputs": [pixels()]}).encode()
        self.refuse(text.replace(b"7,", b"NaN,", 1), "data[0]")
        self.refuse(text.replace(b"7,", b"Infinity,", 1), "data[0]")
        self.refuse(b'{"id":NaN,' + text[1:], "json")

    def test_outputs(self):
        def ask(*outputs):
            return {"inputs": [image()], "outputs": list(outputs)}
        self.refuse(ask({"name": "logit"}), '"logit" is neither logits nor probabilities')
        self.refuse(ask({"name": "logits"}, {"name": "logits"}), "outputs[1]: logits is there")
        self.refuse(ask({}), "outputs[0]")
        self.refuse(ask("logits"), "outputs[0]")
        self.refuse({"inputs": [image()], "outputs": "logits"}, "outputs is not a list")
        for count in (0, -1, 1.5, "3", True, [1]):
            self.refuse(ask({"name": "logits", "parameters": {"classification": count}}),
                        "classification")
        for flag in (1, "true", []):
            self.refuse(ask({"name": "logits", "parameters": {"binary_data": flag}}),
                        "binary_data")

    def test_parameters(self):
        for value in (7, "x", []):
            self.refuse({"parameters": value, "inputs": [image()]}, "parameters is not an object")
        for name, value in (("timeout", "1"), ("timeout", -1), ("priority", 0.5), ("x", {}),
                            ("x", []), ("x", {}), ("binary_data_output", 1),
                            ("binary_data_output", "true")):
            self.refuse({"parameters": {name: value}, "inputs": [image()]}, f'"{name}"')
        self.refuse({"id": 7, "inputs": [image()]}, "id is not a string")
        self.refuse({"id": "é" * 128 + "x", "inputs": [image()]}, "id: 257 bytes")

    def test_one_bad_image_fails_the_request(self):
        good = text_of(png())
        self.refuse({"inputs": [image(shape=[3], data=[good, good, text_of(png()[:60])])]},
                    "image 3: png: ", code="bad_image")
        self.refuse({"inputs": [image(shape=[2], data=[text_of(jpeg()[:-40]), good])]},
                    "image 1: jpeg: ", code="bad_image")
        self.refuse({"inputs": [image(shape=[2], data=[good, "QUJD"])]}, "image 2: ", status=415,
                    code="unsupported_image")
        self.refuse({"inputs": [image(data=[""])]}, "image 1: ", status=415,
                    code="unsupported_image")
        self.refuse(b"no image", "image 1: ", status=415, code="unsupported_image",
                    Inference_Header_Content_Length="0")


class Binary(BadCase):
    def test_length_of_the_json(self):
        body = json.dumps({"inputs": [image()]}).encode()
        for length in ("-1", "x", "1.5", "0x10", "+1", "1 2", "1,1", "12a", "\u00b2"):
            self.refuse(body, "is not a whole number", Inference_Header_Content_Length=length)
        for length in (len(body) + 1, 2**31, 2**32, 2**63, 2**64, 2**64 + len(body), 10**100):
            self.refuse(body, "is more than the body's",
                        Inference_Header_Content_Length=str(length))
        self.refuse(body, "json", Inference_Header_Content_Length=str(len(body) - 1))
        self.refuse(b"", "empty", code="no_image", Inference_Header_Content_Length="0")
        answer = self.send(body, Inference_Header_Content_Length=str(len(body)))
        self.assertEqual(answer.status, 200)

    def test_sizes(self):
        tensor = struct.pack("<I", len(png())) + png()
        size = len(tensor)
        for wrong in (size - 1, size + 1, 0, 2**32 + size, 2**63 - 1):
            self.refuse({"inputs": [image(**behind(wrong))]}, f"but {size} follow", tensor)
        for wrong in (-1, -size, str(size), float(size), True, [size]):
            self.refuse({"inputs": [image(**behind(wrong))]}, '"binary_data_size"', tensor)
        self.refuse({"inputs": [image(**behind(2**64 + size))]}, "json", tensor)
        self.refuse({"inputs": [image(**behind(size))]}, "but 0 follow")
        self.refuse({"inputs": [image()]}, f"0 bytes, but {size} follow", tensor)
        self.refuse({"inputs": [image(**behind(size) | {"data": ["QUJD"]})]},
                    "both data and binary_data_size", tensor)
        answer = self.send(json.dumps({"inputs": [image(**behind(size))]}).encode())
        self.check_error(answer, 400, "bad_request")
        crop = bytes(CROP)
        for wrong in (crop[1:], crop + b"x", crop * 2):
            self.refuse({"inputs": [pixels(**behind(len(wrong)))]},
                        f"{len(wrong)}, but the shape holds {CROP} bytes", wrong)

    def test_bytes_elements(self):
        picture = png()
        for tensor, words in (
                (struct.pack("<I", len(picture) + 1) + picture, "its length says"),
                (struct.pack("<I", 2**32 - 1) + picture, "its length says 4294967295"),
                (struct.pack("<I", len(picture) - 1) + picture, "1 bytes are left over"),
                (struct.pack(">I", len(picture)) + picture, "its length says"),
                (picture[:3], "within its length"),
                (struct.pack("<I", len(picture)) + picture + b"\0\0\0", "3 bytes are left over")):
            self.refuse({"inputs": [image(**behind(len(tensor)))]}, words, tensor)
        two = struct.pack("<I", len(picture)) + picture + b"\0\0\0"
        self.refuse({"inputs": [image(**behind(len(two)), shape=[2, 1])]},
                    "image 2: the tensor ends", two)

    def test_every_truncation(self):
        """The declared lengths are those of the whole body."""
        picture = png(4, 4)
        tensor = struct.pack("<I", len(picture)) + picture
        head = json.dumps({"inputs": [image(**behind(len(tensor)))]}).encode()
        body = head + tensor
        for length in range(0, len(body), 9 if SANITIZED else 3):
            answer = self.send(body[:length], Inference_Header_Content_Length=str(len(head)))
            self.assertEqual(answer.status, 400, length)
        self.assertEqual(self.send(body, Inference_Header_Content_Length=str(len(head))).status,
                         200)

    def test_noise(self):
        """Changed bytes are survived, and every answer is one that the protocol knows."""
        noise = random.Random(1)
        picture = png(4, 4)
        tensor = struct.pack("<I", len(picture)) + picture
        head = json.dumps({"inputs": [image(**behind(len(tensor)))]}).encode()
        for _ in range(300):
            body = bytearray(head + tensor)
            for _ in range(noise.randint(1, 4)):
                body[noise.randrange(len(body))] = noise.choice(b"\0\"\\[]{}:,019-e \xff")
            answer = self.send(bytes(body), Inference_Header_Content_Length=str(len(head)))
            self.assertIn(answer.status, (200, 400, 413, 415))
        self.check_good_oip()


class Encodings(BadCase):
    options = ("--max-batch", "8", "--max-body-bytes", "1000000")

    def test_unknown(self):
        body = json.dumps({"inputs": [image()]}).encode()
        for encoding in ("br", "zstd", "gzip, gzip", "x"):
            self.refuse(body, "Content-Encoding", status=415, code="unsupported_media_type",
                        Content_Encoding=encoding)

    def test_damaged(self):
        body = gzip.compress(json.dumps({"inputs": [image()]}).encode())
        for data in (body[:-9], b"no gzip", body + b"x", b""):
            answer = self.send(data, Content_Encoding="gzip")
            self.assertEqual(answer.status, 400, answer.body)
        self.check_good_oip()

    def test_bombs(self):
        for compress, encoding in ((gzip.compress, "gzip"), (zlib.compress, "deflate")):
            for filler in (b" ", b"[", b"[],", b'"'):
                self.refuse(compress(b'{"id":' + filler * 2000000), "1000000 bytes", status=413,
                            code="body_too_large", Content_Encoding=encoding)
        self.check_good_oip()

    def test_a_refused_one_is_given_back(self):
        self.refuse(gzip.compress(b"{" + b" " * 100000), "json: line 1", Content_Encoding="gzip")
        self.wait_for_gauge(self.server, "inflight_bytes")

    def test_length_beyond_what_comes_out(self):
        body = json.dumps({"inputs": [image()]}).encode()
        self.refuse(gzip.compress(body), "is more than the body's", Content_Encoding="gzip",
                    Inference_Header_Content_Length=str(len(body) + 1))


class Limits(GaugeCase):
    def test_number_of_images(self):
        with Server("--max-batch", 8, "--max-images", 3, model=()) as server:
            def send(count):
                good = text_of(png())
                return server.request("POST", PATH, json.dumps(
                    {"inputs": [image(shape=[count], data=[good] * count)]}))
            self.assertEqual(send(3).status, 200)
            answer = send(4)
            self.check_error(answer, 413, "too_many_images")
            self.assertIn("3", answer.json["error"])
            self.assertEqual(server.request("GET", "/v2/models/fashion_vit/config")
                             .json["max_batch_size"], 3)

    def test_all_or_none(self):
        """A full queue refuses the whole request."""
        with Server("--max-batch", 1, "--max-queue", 2,
                    model=("--model", "deit_tiny_patch16_224", "--random-weights", "1")) as server:
            path = "/v2/models/deit_tiny_patch16_224/infer"
            body = json.dumps({"inputs": [image(shape=[2], data=[text_of(png())] * 2)]})
            answers = []
            for _ in range(20):
                answers += together(lambda _: server.request("POST", path, body), range(12))
                if {answer.status for answer in answers} == {200, 429}:
                    break
            self.assertEqual({answer.status for answer in answers}, {200, 429})
            for answer in answers:
                if answer.status == 429:
                    self.check_error(answer, 429, "queue_full")
            self.assertEqual(server.request("POST", path, body).status, 200)
            self.wait_for_gauge(server, "queue_images")

    def test_byte_budget(self):
        """What is made of a body counts: pixels, decoded text, JSON's values."""
        crops = [7] * (CROP * 16)
        numbers = json.dumps({"inputs": [pixels(shape=[16, 28, 28, 3], data=crops)]}).encode()
        for body, extra in ((numbers, CROP * 16), (json.dumps({"inputs": [image(data=[
                text_of(png(200, 200))])]}).encode(), 3 * len(png(200, 200)))):
            with Server("--max-batch", 8, "--max-inflight-bytes", len(body) + extra // 2,
                        model=()) as server:
                for _ in range(3):
                    answer = server.request("POST", PATH, body)
                    self.check_error(answer, 429, "queue_full")
                self.wait_for_gauge(server, "inflight_bytes")
                self.assertEqual(server.classify(png()).status, 200)
            with Server("--max-batch", 8, "--max-inflight-bytes", len(body) + 2 * extra + 20000,
                        model=()) as server:
                for _ in range(3):
                    self.assertEqual(server.request("POST", PATH, body).status, 200)
                    self.wait_for_gauge(server, "inflight_bytes")

    @unittest.skipIf(SANITIZED, "the memory of a sanitized program tells nothing")
    def test_memory(self):
        """Large bodies of numbers, good and bad, leave nothing behind and need no multiple."""
        count = 32
        good = json.dumps({"inputs": [pixels(shape=[count, 28, 28, 3],
                                             data=[255] * (CROP * count))]}).encode()
        bodies = [good, good[:-5], good.replace(b"255]", b"256]"),
                  b'{"x":[' + b"[]," * 1000000 + b"1]}", b'{"id":"' + b"x" * 3000000]
        with Server("--max-batch", 16, model=()) as server:
            def send_all(rounds):
                for _ in range(rounds):
                    statuses = [server.request("POST", PATH, body).status for body in bodies]
                    self.assertEqual(statuses, [200, 400, 400, 400, 400])
            send_all(2)
            before = server.memory_kb()
            send_all(6)
            self.assertLess(server.memory_kb() - before, 10000)
            # Bodies, an id three times, what the allocator keeps: not 100 bytes a value.
            self.assertLess(server.memory_kb(), 100000)

    def test_both_protocols_at_once(self):
        with Server("--max-batch", 8, "--max-queue", 256, model=()) as server:
            kind, form = multipart([("a", png()), ("b", png(seed=2))])
            body = json.dumps({"inputs": [image(shape=[2], data=[text_of(png()),
                                                                 text_of(png(seed=2))])]})
            bad = json.dumps({"inputs": [image(shape=[2])]})
            expected = [result["logits"] for result in server.classify(
                form, "?logits=1", Content_Type=kind).results]

            def send(number):
                if number % 3 == 0:
                    answer = server.classify(form, "?logits=1", Content_Type=kind)
                    return [result["logits"] for result in answer.results] == expected
                if number % 3 == 1:
                    answer = server.request("POST", PATH, body)
                    return answer.json["outputs"][0]["data"] == sum(expected, [])
                return server.request("POST", PATH, bad).status == 400
            self.assertEqual(together(send, range(60), threads=12), [True] * 60)


if __name__ == "__main__":
    unittest.main()
