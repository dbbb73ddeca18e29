"""The Open Inference Protocol: what each endpoint answers, every form of a request and of an
answer, and that the same picture gives the same numbers in all of them, to the bit."""

import base64
import contextlib
import gzip
import json
import random
import struct
import time
import unittest
import zlib

from vitserve import Case, Server, answer_from, exchange, jpeg, png, together

BOTH = ["logits", "probabilities"]


# ---- requests and answers -----------------------------------------------------------------------

def pixels_of(width, height, seed):
    """The bytes of png(width, height, seed)."""
    noise = random.Random(seed)
    return b"".join(noise.randbytes(3 * width) for _ in range(height))


def nested(data, *shape):
    """A flat list as lists of lists."""
    if len(shape) == 1:
        return list(data)
    step = len(data) // shape[0]
    return [nested(data[i:i + step], *shape[1:]) for i in range(0, len(data), step)]


def elements(*pictures):
    """A BYTES tensor."""
    return b"".join(struct.pack("<I", len(picture)) + picture for picture in pictures)


def text_of(picture):
    return base64.b64encode(picture).decode()


def tensor_input(name, datatype, shape, tensor):
    """An input whose tensor is behind the JSON."""
    return {"name": name, "shape": shape, "datatype": datatype,
            "parameters": {"binary_data_size": len(tensor)}}


def json_input(name, datatype, shape, data):
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def binary_request(request, *tensors):
    """The headers and the body."""
    head = json.dumps(request).encode()
    return ({"Inference_Header_Content_Length": str(len(head))}, head + b"".join(tensors))


def unpack_bytes(tensor):
    values = []
    while tensor:
        (length,) = struct.unpack_from("<I", tensor)
        values.append(tensor[4:4 + length].decode())
        tensor = tensor[4 + length:]
    return values


def read_outputs(answer):
    """[(name, datatype, shape, values)] of a good answer: numbers, or strings."""
    if answer.status != 200:
        raise AssertionError(answer)
    length = answer.headers.get("inference-header-content-length")
    expected = "application/json" if length is None else "application/octet-stream"
    if answer.headers["content-type"] != expected:
        raise AssertionError(answer.headers)
    head = json.loads(answer.body if length is None else answer.body[:int(length)])
    rest = b"" if length is None else answer.body[int(length):]
    outputs = []
    for output in head["outputs"]:
        if "data" in output:
            values = output["data"]
        else:
            size = output["parameters"]["binary_data_size"]
            tensor, rest = rest[:size], rest[size:]
            values = (unpack_bytes(tensor) if output["datatype"] == "BYTES" else
                      list(struct.unpack(f"<{size // 4}f", tensor)))
        outputs.append((output["name"], output["datatype"], output["shape"], values))
    if rest:
        raise AssertionError(f"{len(rest)} bytes left over")
    return outputs


def float_bits(values):
    return struct.pack(f"<{len(values)}f", *values)


class OipCase(Case):
    options = ("--max-batch", "8")
    model = ()
    name = "fashion_vit"
    S = 28  # side of the crop
    K = 10  # classes

    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server(*cls.options, model=cls.model))
        cls.path = f"/v2/models/{cls.name}"

    def get(self, path, status=200):
        answer = self.server.request("GET", path)
        self.assertEqual(answer.status, status, answer)
        self.assertEqual(answer.headers["content-type"], "application/json")
        return answer.json

    def infer(self, request, *tensors, **headers):
        """An answer; binary where there are tensors."""
        body = json.dumps(request).encode()
        if tensors:
            lengths, body = binary_request(request, *tensors)
            headers |= lengths
        return self.server.request("POST", self.path + "/infer", body, **headers)

    def classified(self, picture):
        """The logits that /classify gives."""
        return self.server.classify(picture, "?logits=1").results[0]["logits"]


# ---- what there is to know ----------------------------------------------------------------------

class Metadata(OipCase):
    def test_server(self):
        self.assertEqual(set(self.get("/v2")), {"name", "version", "extensions"})
        self.assertEqual(self.get("/v2")["name"], "vitserve")
        self.assertEqual(set(self.get("/v2")["extensions"]),
                         {"binary_tensor_data", "classification", "model_configuration",
                          "statistics"})
        self.assertEqual(self.get("/v2/health/live"), {"live": True})
        self.assertEqual(self.get("/v2/health/ready"), {"ready": True})
        self.assertEqual(self.get("/v2/models"), {"models": [self.name]})

    def test_model(self):
        for version in ("", "/versions/1"):
            self.assertEqual(self.get(self.path + version), {
                "name": self.name, "versions": ["1"], "platform": "vitserve_vit",
                "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]},
                           {"name": "pixels", "datatype": "UINT8",
                            "shape": [-1, self.S, self.S, 3]}],
                "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, self.K]},
                            {"name": "probabilities", "datatype": "FP32",
                             "shape": [-1, self.K]}]})
            self.assertEqual(self.get(self.path + version + "/ready"),
                             {"name": self.name, "ready": True})

    def test_config(self):
        for version in ("", "/versions/1"):
            self.assertEqual(self.get(self.path + version + "/config"), {
                "name": self.name, "platform": "vitserve_vit", "max_batch_size": 8,
                "input": [{"name": "image", "data_type": "TYPE_STRING", "dims": [1],
                           "optional": True},
                          {"name": "pixels", "data_type": "TYPE_UINT8", "dims": [self.S, self.S, 3],
                           "optional": True}],
                "output": [{"name": "logits", "data_type": "TYPE_FP32", "dims": [self.K]},
                           {"name": "probabilities", "data_type": "TYPE_FP32",
                            "dims": [self.K]}],
                "dynamic_batching": {}})

    def test_unknown_model_version_and_path(self):
        for path in ("/v2/models/other", f"{self.path}x", self.path[:-1],
                     f"{self.path}/versions/2", f"{self.path}/versions/11",
                     f"{self.path}/versions/1.0", "/v2/models/%C3%A9", "/v2/models/%ff"):
            for rest in ("", "/ready", "/config", "/stats"):
                with self.subTest(path + rest):
                    answer = self.server.request("GET", path + rest)
                    self.check_error(answer, 404, "not_found")
                    self.assertRegex(answer.json["error"], "model|version")
            self.check_error(self.server.request("POST", path + "/infer", b"{}"), 404, "not_found")
        for path in ("/v2/", "/v2x", "/v2/models/", f"{self.path}/", f"{self.path}/versions",
                     f"{self.path}/versions/", f"{self.path}/nothing", f"{self.path}/ready/",
                     f"{self.path}/versions/1/", f"{self.path}/versions/1/nothing",
                     "/v2/health", "/v2/health/started", f"/v2/models//{self.name}",
                     f"{self.path}/versions/1/infer/x", f"{self.path}%2Fready/x"):
            with self.subTest(path):
                self.check_error(self.server.request("GET", path), 404, "not_found")

    def test_methods(self):
        gets = ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", self.path,
                f"{self.path}/ready", f"{self.path}/config", f"{self.path}/stats",
                f"{self.path}/versions/1", f"{self.path}/versions/1/ready"]
        posts = [f"{self.path}/infer", f"{self.path}/versions/1/infer"]
        for path in gets + posts:
            allowed = {"GET", "HEAD"} if path in gets else {"POST"}
            for method in {"GET", "HEAD", "POST", "PUT", "DELETE"} - allowed:
                with self.subTest(f"{method} {path}"):
                    answer = self.server.request(method, path)
                    self.assertEqual(answer.status, 405)
                    self.assertEqual(set(answer.headers["allow"].split(", ")),
                                     allowed | {"OPTIONS"})
                    if method != "HEAD":
                        self.check_error(answer, 405, "method_not_allowed")
            answer = self.server.request("OPTIONS", path)
            self.assertEqual((answer.status, answer.body), (200, b""))
            self.assertEqual(set(answer.headers["allow"].split(", ")), allowed | {"OPTIONS"})
        head = self.server.request("HEAD", self.path)
        self.assertEqual((head.status, head.body), (200, b""))

    def test_metrics_name_the_route(self):
        picture = json_input("image", "BYTES", [1], [text_of(png())])
        self.assertEqual(self.infer({"inputs": [picture]}).status, 200)
        self.get("/v2/models/no-such-model", 404)
        text = self.server.request("GET", "/metrics").body.decode()
        for path, status in (("/v2/models/{name}/infer", 200), ("/v2/models/{name}", 404)):
            self.assertIn(f'vitserve_requests_total{{path="{path}",status="{status}"}}', text)
        self.assertNotIn(self.path, text.replace(f'model="{self.name}"', ""))
        self.assertNotIn("no-such-model", text)


class Starting(Case):
    def test_503_until_ready(self):
        with Server("--max-batch", 8, wait=False) as server:
            seen = set()
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and 200 not in seen:
                self.assertEqual(server.request("GET", "/v2/health/live").status, 200)
                answer = server.request("GET", "/v2/health/ready")
                seen.add(answer.status)
                if answer.status != 200:
                    self.check_error(answer, 503, "starting")
            self.assertIn(200, seen)
            self.assertLessEqual(seen, {200, 503})


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


# ---- answers ------------------------------------------------------------------------------------

class Outputs(OipCase):
    def ask(self, *outputs, pictures=None, **request):
        pictures = pictures or [png(), png(30, 50, seed=2)]
        request["inputs"] = [json_input("image", "BYTES", [len(pictures)],
                                        [text_of(picture) for picture in pictures])]
        if outputs:
            request["outputs"] = list(outputs)
        return self.infer(request)

    def test_shape_of_the_answer(self):
        answer = self.ask()
        self.assertEqual(set(answer.json), {"model_name", "model_version", "outputs"})
        self.assertEqual(answer.json["model_name"], self.name)
        self.assertEqual(answer.json["model_version"], "1")
        for output in answer.json["outputs"]:
            self.assertEqual(set(output), {"name", "datatype", "shape", "data"})
        self.assertRegex(answer.headers["server-timing"], r'batch;desc="[1-9]')

    def test_in_the_order_asked_for(self):
        both = {output[0]: output for output in read_outputs(self.ask())}
        self.assertEqual(list(both), BOTH)
        for names in (["probabilities", "logits"], ["logits"], ["probabilities"], BOTH):
            for flags in ((None, None), (True, False), (False, True), (True, True)):
                outputs = [{"name": name, "parameters": {"binary_data": flag}}
                           if flag is not None else {"name": name}
                           for name, flag in zip(names, flags)]
                answer = self.ask(*outputs)
                self.assertEqual("inference-header-content-length" in answer.headers,
                                 any(flags[:len(names)]))
                self.assertEqual([output[:3] + (float_bits(output[3]),)
                                  for output in read_outputs(answer)],
                                 [both[name][:3] + (float_bits(both[name][3]),)
                                  for name in names])
        self.assertEqual(read_outputs(self.ask(outputs=[])), list(both.values()))

    def test_an_output_overrides_the_request(self):
        answer = self.ask({"name": "logits", "parameters": {"binary_data": False}},
                          {"name": "probabilities"}, parameters={"binary_data_output": True})
        head = json.loads(answer.body[:int(answer.headers["inference-header-content-length"])])
        self.assertIn("data", head["outputs"][0])
        self.assertEqual(head["outputs"][1]["parameters"], {"binary_data_size": 8 * self.K})

    def test_classification(self):
        pictures = [png(), png(30, 50, seed=2)]
        predictions = [self.server.classify(picture, f"?logits=1&top_k={self.K}").results[0]
                       for picture in pictures]
        for name in BOTH:
            for count in (1, 3, self.K, self.K + 1, 10**6):
                for flag in (False, True):
                    answer = self.ask({"name": name, "parameters": {"classification": count,
                                                                    "binary_data": flag}},
                                      pictures=pictures)
                    (output,) = read_outputs(answer)
                    kept = min(count, self.K)
                    self.assertEqual(output[:3], (name, "BYTES", [2, kept]))
                    self.assertEqual(len(output[3]), 2 * kept)
                    for i, text in enumerate(output[3]):
                        result, place = predictions[i // kept], i % kept
                        value, index, label = text.split(":", 2)
                        expected = result["predictions"][place]
                        self.assertEqual((int(index), label), (expected["class"],
                                                               expected["label"]))
                        self.assertEqual(float_bits([float(value)]), float_bits(
                            [expected["probability"] if name == "probabilities" else
                             result["logits"][int(index)]]))

    def test_id_byte_for_byte(self):
        for text in ("1", "", "é", "\U0001f600 ß / \\ \" \n\t\x01", "x" * 100000):
            body = json.dumps({"id": text, "inputs": [json_input("image", "BYTES", [1],
                                                                 [text_of(png())])]},
                              ensure_ascii=False).encode()
            answer = self.server.request("POST", self.path + "/infer", body)
            self.assertEqual(answer.json["id"], text)
        self.assertIn('"id":"é/€"'.encode(), self.ask(id="é/€").body)
        self.assertNotIn("id", self.ask().json)

    def test_parameters_are_taken(self):
        answer = self.ask(parameters={"timeout": 1000000, "priority": 1, "sequence_id": "a",
                                      "sequence_start": True, "own": 1.5})
        self.assertEqual(answer.status, 200, answer.body)

    def test_version_in_the_path(self):
        image = json_input("image", "BYTES", [1], [text_of(png())])
        body = json.dumps({"inputs": [image]})
        answers = [self.server.request("POST", f"{self.path}{version}/infer", body)
                   for version in ("", "/versions/1")]
        self.assertEqual(answers[0].body, answers[1].body)

    def test_unknown_fields_are_passed_over(self):
        """Clients that follow gRPC's names send them."""
        answer = self.ask(model_name="other", model_version="")
        self.assertEqual(answer.status, 200, answer.body)


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


# ---- clients, byte for byte ---------------------------------------------------------------------

class Clients(OipCase):
    def test_python_client(self):
        """What tritonclient.http sends for infer(): no outputs listed, and two of them."""
        picture = png()
        tensor = elements(picture)
        head = (b'{"id":"42","inputs":[{"name":"image","shape":[1,1],"datatype":"BYTES",'
                b'"parameters":{"binary_data_size":%d}}],'
                b'"parameters":{"binary_data_output":true}}' % len(tensor))
        answer = self.send_raw_request(head, tensor, b"Connection: keep-alive\r\n"
                                       b"User-Agent: geventhttpclient-2.0.11\r\n")
        outputs = read_outputs(answer)
        self.assertEqual([output[0] for output in outputs], BOTH)
        self.assertEqual(float_bits(outputs[0][3]), float_bits(self.classified(picture)))
        length = int(answer.headers["inference-header-content-length"])
        self.assertEqual(json.loads(answer.body[:length])["id"], "42")
        head = (b'{"inputs":[{"name":"image","shape":[1,1],"datatype":"BYTES",'
                b'"parameters":{"binary_data_size":%d}}],"outputs":[{"name":"probabilities",'
                b'"parameters":{"classification":3,"binary_data":true}},{"name":"logits",'
                b'"parameters":{"binary_data":false}}]}' % len(tensor))
        outputs = read_outputs(self.send_raw_request(head, tensor))
        self.assertEqual([output[:3] for output in outputs],
                         [("probabilities", "BYTES", [1, 3]), ("logits", "FP32", [1, self.K])])

    def test_load_generator(self):
        """perf_analyzer in order: the server, the model, its configuration, statistics,
        requests as the C++ client writes them."""
        self.assertIn("statistics", self.get("/v2")["extensions"])
        inputs = {tensor["name"]: tensor for tensor in self.get(self.path)["inputs"]}
        config = self.get(self.path + "/config")
        self.assertEqual({tensor["name"] for tensor in config["input"]}, set(inputs))
        self.assertGreaterEqual(config["max_batch_size"], 1)
        before = self.get(self.path + "/versions/1/stats")["model_stats"][0]
        crop = pixels_of(self.S, self.S, 7)
        head = (b'{"id":"","inputs":[{"name":"pixels","datatype":"UINT8","shape":[1,28,28,3],'
                b'"parameters":{"binary_data_size":%d}}],"outputs":[{"name":"logits",'
                b'"parameters":{"binary_data":true}},{"name":"probabilities",'
                b'"parameters":{"binary_data":true}}]}' % len(crop))
        for _ in range(3):
            answer = self.send_raw_request(
                head, crop, b"User-Agent: libcurl-agent/1.0\r\nAccept: */*\r\n"
                b"Content-Type: application/octet-stream\r\n")
            self.assertEqual(float_bits(read_outputs(answer)[0][3]),
                             float_bits(self.classified(png(self.S, self.S, 7))))
        after = self.get(self.path + "/versions/1/stats")["model_stats"][0]
        self.assertEqual(after["inference_count"] - before["inference_count"], 6)

    def send_raw_request(self, head, tensor, headers=b""):
        request = (b"POST /v2/models/fashion_vit/infer HTTP/1.1\r\nHost: 127.0.0.1\r\n" + headers +
                   b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n" %
                   (len(head), len(head) + len(tensor)) + head + tensor)
        with self.server.open_socket() as connection:
            connection.sendall(request)
            return answer_from(connection)


# ---- statistics ---------------------------------------------------------------------------------

class Statistics(OipCase):
    def stats(self):
        (stats,) = self.get(self.path + "/stats")["model_stats"]
        return stats

    def check_shape(self, stats):
        self.assertEqual(set(stats), {
            "name", "version", "last_inference", "inference_count", "execution_count",
            "inference_stats", "response_stats", "batch_stats", "memory_usage"})
        self.assertEqual((stats["name"], stats["version"]), (self.name, "1"))
        self.assertEqual((stats["response_stats"], stats["memory_usage"]), ({}, []))
        self.assertEqual(set(stats["inference_stats"]), {
            "success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
            "cache_hit", "cache_miss"})
        self.assertEqual(stats["inference_count"], sum(
            batch["batch_size"] * batch["compute_infer"]["count"]
            for batch in stats["batch_stats"]))
        self.assertEqual(stats["execution_count"], sum(
            batch["compute_infer"]["count"] for batch in stats["batch_stats"]))
        for batch in stats["batch_stats"]:
            self.assertEqual(set(batch), {"batch_size", "compute_input", "compute_infer",
                                          "compute_output"})
            self.assertIn(batch["batch_size"], range(1, 9))
            self.assertGreater(batch["compute_infer"]["ns"], 0)

    def test_real_figures(self):
        stats = self.stats()
        self.check_shape(stats)
        self.assertEqual((stats["inference_count"], stats["execution_count"],
                          stats["last_inference"], stats["batch_stats"]), (0, 0, 0, []))
        start = time.monotonic()
        crops = pixels_of(self.S, self.S, 1) * 8
        for _ in range(5):
            request = {"inputs": [tensor_input("pixels", "UINT8", [8, self.S, self.S, 3], crops)]}
            self.assertEqual(self.infer(request, crops).status, 200)
        for _ in range(3):
            self.assertEqual(self.server.classify(png(200, 200)).status, 200)
        elapsed_ns = (time.monotonic() - start) * 1e9
        bad = {"inputs": [json_input("image", "BYTES", [2], [text_of(png()), "QUJD"])]}
        self.assertEqual(self.infer(bad).status, 415)
        stats = self.stats()
        self.check_shape(stats)
        times = stats["inference_stats"]
        self.assertEqual(stats["inference_count"], 5 * 8 + 3 + 1)
        self.assertEqual(times["success"]["count"], 8)
        self.assertEqual(times["fail"]["count"], 1)
        for stage in ("queue", "compute_input", "compute_infer"):
            self.assertEqual(times[stage]["count"], 8, stage)
            self.assertGreater(times[stage]["ns"], 0, stage)
            self.assertLess(times[stage]["ns"], elapsed_ns, stage)
        self.assertGreater(times["success"]["ns"], times["compute_infer"]["ns"])
        self.assertLess(times["success"]["ns"], elapsed_ns)
        self.assertLess(abs(stats["last_inference"] - time.time() * 1000), 60000)
        self.assertEqual(times["cache_hit"], {"count": 0, "ns": 0})


if __name__ == "__main__":
    unittest.main()
