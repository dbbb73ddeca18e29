"""The Open Inference Protocol: what each endpoint answers, every form of an answer, and clients as
they are, byte for byte."""

import json
import time
import unittest

from oip import (BOTH, OipCase, elements, float_bits, json_input, pixels_of, read_outputs,
                 tensor_input, text_of)
from vitserve import MODEL, Case, Server, answer_from, png


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
        for path in ("/v2//", "/v2x", "/v2/models//", f"{self.path}//", f"{self.path}/versions",
                     f"{self.path}/versions/", f"{self.path}/nothing", f"{self.path}/ready//",
                     f"{self.path}/versions/1//", f"{self.path}/versions/1/nothing",
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
        with Server("--max-batch", 8, model=MODEL, wait=False) as server:
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
        for text in ("1", "", "é", "\U0001f600 ß / \\ \" \n\t\x01", "x" * 256):
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
