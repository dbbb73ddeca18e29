"""Every form of a request of the Open Inference Protocol: the same picture gives the same
numbers in all of them, to the bit."""

import contextlib
import gzip
import random
import unittest
import zlib

from oip import (BOTH, OipCase, binary_request, elements, float_bits, json_input, nested,
                 pixels_of, read_outputs, tensor_input, text_of)
from vitserve import exchange, jpeg, png, together


# ---- the same numbers in every form -------------------------------------------------------------

class Parity(OipCase):
    """A picture of exactly the size of the crop: its pixels are those that the model sees."""
    side = 28
    counts = (1, 3)

    def picture(self, seed):
        return png(self.side, self.side, seed)

    def crop(self, seed):
        """What the model sees of it."""
        rows = pixels_of(self.side, self.side, seed)
        margin = (self.side - self.S) // 2
        return b"".join(rows[3 * (self.side * y + margin):3 * (self.side * y + margin + self.S)]
                        for y in range(margin, margin + self.S))

    def check(self, answer, expected):
        """Logits are those of /classify, to the bit, and come with probabilities."""
        outputs = read_outputs(answer)
        self.assertEqual([output[:3] for output in outputs],
                         [(name, "FP32", [len(expected), self.K]) for name in BOTH])
        self.assertEqual(float_bits(outputs[0][3]), float_bits(sum(expected, [])))
        return outputs[1][3]

    def test_every_form(self):
        for count in self.counts:
            seeds = range(10 * count, 10 * count + count)
            expected = [self.classified(self.picture(seed)) for seed in seeds]
            pictures = [self.picture(seed) for seed in seeds]
            crops = b"".join(self.crop(seed) for seed in seeds)
            shape = [count, self.S, self.S, 3]
            texts = [text_of(picture) for picture in pictures]
            uris = [f"data:image/png;base64,{text}" for text in texts]
            forms = {
                "text": [json_input("image", "BYTES", [count], texts)],
                "text, n x 1": [json_input("image", "BYTES", [count, 1], texts)],
                "text, nested": [json_input("image", "BYTES", [count, 1], nested(texts, count, 1))],
                "data: URIs": [json_input("image", "BYTES", [count], uris)],
                "images": [tensor_input("image", "BYTES", [count], elements(*pictures)),
                           elements(*pictures)],
                "images, n x 1": [tensor_input("image", "BYTES", [count, 1], elements(*pictures)),
                                  elements(*pictures)],
                "pixels, flat": [json_input("pixels", "UINT8", shape, list(crops))],
                "pixels, nested": [json_input("pixels", "UINT8", shape, nested(crops, *shape))],
                "pixels": [tensor_input("pixels", "UINT8", shape, crops), crops]}
            probabilities = set()
            for form, (tensor, *binary) in forms.items():
                for flag in (False, True):
                    with self.subTest(form, count=count, binary=flag):
                        request = {"inputs": [tensor], "parameters": {"binary_data_output": flag}}
                        answer = self.infer(request, *binary)
                        probabilities.add(float_bits(self.check(answer, expected)))
                        self.assertEqual("inference-header-content-length" in answer.headers, flag)
            self.assertEqual(len(probabilities), 1)

    def test_raw_image(self):
        for picture in (self.picture(1), jpeg()):
            answer = self.server.request("POST", self.path + "/infer", picture,
                                         Inference_Header_Content_Length="0",
                                         Content_Type="application/octet-stream")
            self.assertIn("inference-header-content-length", answer.headers)
            self.check(answer, [self.classified(picture)])

    def test_probabilities(self):
        """Those of /classify, to the bit."""
        answer = self.server.classify(self.picture(5), f"?top_k={self.K}")
        expected = {prediction["class"]: prediction["probability"]
                    for prediction in answer.results[0]["predictions"]}
        image = json_input("image", "BYTES", [1], [text_of(self.picture(5))])
        (output,) = read_outputs(self.infer({"inputs": [image],
                                             "outputs": [{"name": "probabilities"}]}))
        self.assertEqual(float_bits(output[3]),
                         float_bits([expected[i] for i in range(self.K)]))

    def test_together_with_others(self):
        """Many at once, in all forms, share batches."""
        expected = {seed: self.classified(self.picture(seed)) for seed in range(8)}

        def send(number):
            seed = number % 8
            if number % 2:
                crop, shape = self.crop(seed), [1, self.S, self.S, 3]
                return self.infer({"inputs": [tensor_input("pixels", "UINT8", shape, crop)]}, crop)
            return self.infer({"inputs": [json_input("image", "BYTES", [1],
                                                     [text_of(self.picture(seed))])]})
        for number, answer in enumerate(together(send, range(24), threads=8)):
            self.check(answer, [expected[number % 8]])


class ParityOfAPhotoModel(Parity):
    """224 of 256 pixels, 150,528 numbers an image: a picture whose shorter side is 256 is not
    resized."""
    options = ("--max-batch", "4")
    model = ("--model", "deit_tiny_patch16_224", "--random-weights", "1", "--device", "cpu")
    name = "deit_tiny_patch16_224"
    S = 224
    K = 1000
    side = 256
    counts = (2,)


# ---- bodies -------------------------------------------------------------------------------------

class Bodies(OipCase):
    def request_of(self, *pictures):
        tensor = elements(*pictures)
        return binary_request({"inputs": [tensor_input("image", "BYTES", [len(pictures)],
                                                       tensor)]}, tensor)

    def test_chunked(self):
        headers, body = self.request_of(png(), jpeg())
        expected = self.server.request("POST", self.path + "/infer", body, **headers)
        with contextlib.closing(self.server.connect()) as connection:
            answer = exchange(connection, "POST", self.path + "/infer",
                              iter([body[i:i + 97] for i in range(0, len(body), 97)]), **headers)
        self.assertEqual(answer.body, expected.body)

    def test_compressed(self):
        """The length of the JSON is that before compression."""
        headers, body = self.request_of(png(), jpeg())
        expected = self.server.request("POST", self.path + "/infer", body, **headers)
        self.assertEqual(expected.status, 200)
        for encoding, data in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)),
                               ("identity", body)):
            answer = self.server.request("POST", self.path + "/infer", data,
                                         Content_Encoding=encoding, **headers)
            self.assertEqual((answer.status, answer.body), (200, expected.body), encoding)

    def test_pixels_of_many_images(self):
        """Up to --max-images, and none over it."""
        for count in (32, 33, 64, 65):
            crops = random.Random(count).randbytes(count * self.S * self.S * 3)
            shape = [count, self.S, self.S, 3]
            answers = [self.infer({"inputs": [tensor_input("pixels", "UINT8", shape, crops)]},
                                  crops),
                       self.infer({"inputs": [json_input("pixels", "UINT8", shape, list(crops))]})]
            for answer in answers:
                if count <= 32:
                    self.assertEqual(answer.status, 200, answer.body)
                    self.assertEqual(len(read_outputs(answer)[0][3]), count * self.K)
                else: # what the queue can hold, or the limit on a request
                    self.check_error(answer, 413, "too_many_images")
                    self.assertIn("64" if count > 64 else "32", answer.json["error"])


if __name__ == "__main__":
    unittest.main()
