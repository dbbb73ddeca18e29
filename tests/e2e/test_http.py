"""The HTTP interface as api.md describes it: bodies, parameters, answers, overload."""

import contextlib
import gzip
import http.client
import itertools
import json
import math
import pathlib
import tempfile
import time
import unittest

from vitserve import (MODEL, SANITIZED, Case, Server, ServerCase, answer_from, exchange, jpeg,
                      multipart, png, run, together, webp)


class Bodies(ServerCase):
    name = "fashion_vit" if SANITIZED else MODEL[1]

    def test_raw_body_of_any_type(self):
        expected = self.server.classify(jpeg()).results
        self.assertEqual((expected[0]["width"], expected[0]["height"]), (64, 48))
        for kind in ("image/jpeg", "image/png", "application/octet-stream", "text/plain",
                     "application/x-www-form-urlencoded", "nonsense", ""):
            with self.subTest(kind):
                answer = self.server.classify(jpeg(), Content_Type=kind)
                self.assertEqual(answer.status, 200, answer.body)
                self.assertEqual(answer.results, expected)
        self.assertEqual(expected[0]["name"], "image-1")
        (result,) = self.server.classify(webp(), Content_Type="image/jpeg").results
        self.assertEqual((result["width"], result["height"]), (33, 31))

    def test_answer_shape(self):
        answer = self.server.classify(png(50, 20))
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(set(answer.json), {"model", "results"})
        self.assertEqual(answer.json["model"], self.name)
        (result,) = answer.results
        self.assertEqual(set(result), {"name", "width", "height", "predictions"})
        self.assertEqual((result["width"], result["height"]), (50, 20))
        for prediction in result["predictions"]:
            self.assertEqual(set(prediction), {"class", "label", "probability"})

    def test_multipart_keeps_order_and_names(self):
        names = ["b.png", "a.png", "Ärger & \U0001f600.png", "", "c d;e=f.png", "a.png", "", "z"]
        files = [(name, png(20 + i, 10, seed=i)) for i, name in enumerate(names)]
        kind, body = multipart(files)
        answer = self.server.classify(body, "?logits=1", Content_Type=kind)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual([result["name"] for result in answer.results],
                         [name or f"image-{i + 1}" for i, name in enumerate(names)])
        for (_, data), result in zip(files, answer.results, strict=True):
            alone = self.server.classify(data, "?logits=1").results[0]
            self.assertEqual(result["width"], alone["width"])
            self.assertEqual(result["logits"], alone["logits"])

    def test_bad_images_beside_good_ones(self):
        kind, body = multipart([("bad", b"no image"), ("good", png()), ("empty", b""),
                                ("cut", png()[:60]), ("good", jpeg())])
        answer = self.server.classify(body, Content_Type=kind)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(set(answer.json), {"model", "results"})
        codes = [result.get("code") for result in answer.results]
        self.assertEqual(codes[0], "unsupported_image")
        self.assertIsNone(codes[1])
        self.assertIn(codes[2], ("unsupported_image", "bad_image"))
        self.assertEqual(codes[3], "bad_image")
        self.assertIsNone(codes[4])
        for result in answer.results:
            fields = ({"name", "error", "code"} if "code" in result else
                      {"name", "width", "height", "predictions"})
            self.assertEqual(set(result), fields)

    def test_all_bad_gives_the_status_of_the_first(self):
        for first, second, status, code in ((b"no image", png()[:60], 415, "unsupported_image"),
                                            (png()[:60], b"no image", 400, "bad_image")):
            kind, body = multipart([("one", first), ("two", second)])
            answer = self.server.classify(body, Content_Type=kind)
            self.check_error(answer, status, code)
            self.assertEqual([result["name"] for result in answer.results], ["one", "two"])
            self.assertEqual(answer.results[0]["error"], answer.json["error"])
            self.assertEqual(answer.json["model"], self.name)

    def test_chunked_upload(self):
        data = jpeg()
        pieces = [data[i:i + 100] for i in range(0, len(data), 100)]
        with contextlib.closing(self.server.connect()) as connection:
            for _ in range(2):
                answer = exchange(connection, "POST", "/classify", iter(pieces))
                self.assertEqual(answer.results, self.server.classify(data).results)

    def test_expect_100_continue(self):
        data = png()
        head = (f"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
                "Expect: 100-continue\r\n\r\n").encode()
        with self.server.open_socket() as connection:
            connection.sendall(head)
            self.assertEqual(connection.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.sendall(data)
            self.assertEqual(answer_from(connection).status, 200)
        # What will be refused is refused before it is sent.
        with self.server.open_socket() as connection:
            connection.sendall(head.replace(str(len(data)).encode(), b"999999999999"))
            self.check_error(answer_from(connection), 413, "body_too_large")


class Parameters(ServerCase):
    model = MODEL

    def test_top_k(self):
        for k in (1, 2, 5, 999, 1000):
            predictions = self.server.classify(png(), f"?top_k={k}").results[0]["predictions"]
            self.assertEqual(len(predictions), k)
            probabilities = [prediction["probability"] for prediction in predictions]
            self.assertEqual(probabilities, sorted(probabilities, reverse=True))
        self.assertAlmostEqual(math.fsum(probabilities), 1.0, places=5)
        self.assertEqual({prediction["class"] for prediction in predictions}, set(range(1000)))

    def test_top_k_and_logits_in_the_form(self):
        kind, body = multipart([("a", png())], top_k=7, logits=1)
        (result,) = self.server.classify(body, Content_Type=kind).results
        self.assertEqual(len(result["predictions"]), 7)
        self.assertEqual(len(result["logits"]), 1000)
        kind, body = multipart([("a", png())], top_k=0)
        self.check_error(self.server.classify(body, Content_Type=kind), 400, "bad_top_k")

    def test_logits(self):
        (result,) = self.server.classify(png(), "?logits=1&top_k=1000").results
        logits = result["logits"]
        self.assertEqual(len(logits), 1000)
        total = math.fsum(math.exp(logit) for logit in logits)
        order = sorted(range(1000), key=lambda i: (-logits[i], i))
        self.assertEqual([prediction["class"] for prediction in result["predictions"]], order)
        for prediction in result["predictions"]:
            expected = math.exp(logits[prediction["class"]]) / total
            self.assertLess(abs(prediction["probability"] / expected - 1), 1e-4)
        self.assertNotIn("logits", self.server.classify(png(), "?logits=0").results[0])
        for value in ("2", "true", ""):
            self.check_error(self.server.classify(png(), "?logits=" + value), 400, "bad_request")

    def test_default_top_k_is_an_option(self):
        with Server("--max-batch", 1, "--top-k", 3, model=MODEL) as server:
            self.assertEqual(len(server.classify(png()).results[0]["predictions"]), 3)
        with Server("--max-batch", 1, "--top-k", 5000, model=MODEL) as server:
            self.assertEqual(len(server.classify(png()).results[0]["predictions"]), 1000)


class RequestIds(ServerCase):
    def id_for(self, *sent):
        connection = self.server.connect()
        with contextlib.closing(connection):
            connection.putrequest("GET", "/healthz")
            for value in sent:
                connection.putheader("X-Request-Id", value)
            connection.endheaders()
            return connection.getresponse().getheader("X-Request-Id")

    def test_sane_ones_come_back(self):
        for value in ("a", "0", "2f9c-41.B_x", "x" * 128, 'a"b', "<script>", "a;b", "a,b", "%41",
                      "Root=1-67891233-abcd", "a/b+c==", "{0f-1}", "|a.b.", "urn:uuid:6e8b-0", "!~"):
            self.assertEqual(self.id_for(value), value)

    def test_others_are_replaced(self):
        seen = set()
        for sent in ((), ("",), ("x" * 129,), ("a b",), ("a\tb",), ("\u00e9",), ("a\x7f",)):
            fresh = self.id_for(*sent)
            self.assertRegex(fresh, r"\A[0-9a-f]{16}\Z")
            self.assertNotIn(fresh, seen)
            seen.add(fresh)

    def test_errors_and_results_carry_it(self):
        for answer in (self.server.request("GET", "/nowhere", X_Request_Id="id-1"),
                       self.server.classify(b"no image", X_Request_Id="id-1"),
                       self.server.classify(png(), X_Request_Id="id-1")):
            self.assertEqual(answer.headers["x-request-id"], "id-1")
            if answer.status != 200:
                self.assertEqual(answer.json["request_id"], "id-1")


class Paths(ServerCase):
    model = MODEL

    def test_health(self):
        for path in ("/healthz", "/readyz"):
            answer = self.server.request("GET", path)
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.json, {"status": "ok"})

    def test_model_as_json(self):
        expected = json.loads(run("model", *MODEL[:2], "--format", "json").stdout)
        answer = self.server.request("GET", "/model")
        self.assertEqual(answer.headers["content-type"], "application/json")
        model = answer.json
        runtime = model.pop("runtime")
        self.assertEqual(model, expected)
        self.assertEqual(model["num_layers"], len(model["layers"]))
        self.assertEqual(model["num_parameters"], 5717416)
        self.assertEqual(model["num_parameters_human"], "5.72M")
        self.assertEqual(sum(form["layers"] for form in model["forms"]), model["num_layers"])
        self.assertEqual(sum(form["parameters"] for form in model["forms"]),
                         model["num_parameters"])
        self.assertEqual(model["layers"][0],
                         {"name": "class_token", "shape": [1, 1, 192], "squeezed_shape": [192],
                          "num_parameters": 192, "form": "Vector"})
        self.assertEqual(model["architecture"],
                         {"image_size": 224, "patch_size": 16, "hidden_size": 192,
                          "num_layers": 12, "num_heads": 3, "mlp_size": 768, "num_classes": 1000})
        self.assertEqual({name: model["preprocess"][name] for name in
                          ("resize", "crop", "interpolation")},
                         {"resize": 256, "crop": 224, "interpolation": "bicubic"})
        self.assertEqual(set(runtime), {"device", "device_name", "precision", "weights_bytes",
                                        "max_batch", "flops_per_image", "weights_source",
                                        "version"})
        self.assertEqual((runtime["device"], runtime["weights_source"], runtime["max_batch"]),
                         ("cpu", "random", 8))
        self.assertGreater(runtime["flops_per_image"], 2e9)

    def test_model_as_markdown(self):
        expected = run("model", *MODEL[:2], "--format", "markdown").stdout
        for path, headers in (("/model?format=markdown", {}),
                              ("/model", {"Accept": "text/markdown"}),
                              ("/model?format=markdown", {"Accept": "application/json"})):
            answer = self.server.request("GET", path, **headers)
            self.assertEqual(answer.status, 200)
            self.assertTrue(answer.headers["content-type"].startswith("text/markdown"))
            self.assertEqual(answer.body.decode(), expected)
        for headers in ({"Accept": "*/*"}, {"Accept": "text/html,application/json"}):
            answer = self.server.request("GET", "/model", **headers)
            self.assertEqual(answer.headers["content-type"], "application/json")
        answer = self.server.request("GET", "/model?format=json", Accept="text/markdown")
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.check_error(self.server.request("GET", "/model?format=yaml"), 400, "bad_request")

    def test_head_is_get_without_the_body(self):
        for path in ("/model", "/model?format=markdown", "/healthz", "/readyz"):
            got, head = self.server.request("GET", path), self.server.request("HEAD", path)
            self.assertEqual((head.status, head.body), (200, b""))
            self.assertEqual(head.headers["content-length"], str(len(got.body)))
            self.assertEqual(head.headers["content-type"], got.headers["content-type"])
        self.assertEqual(self.server.request("HEAD", "/classify").status, 405)
        self.assertEqual(self.server.request("HEAD", "/nowhere").status, 404)

    def test_keep_alive(self):
        with contextlib.closing(self.server.connect()) as connection:
            socket = None
            for _ in range(3):
                for method, path, body, status in (
                        ("POST", "/classify", png(), 200), ("POST", "/classify", b"bad", 415),
                        ("POST", "/classify?top_k=0", png(), 400), ("GET", "/classify", None, 405),
                        ("GET", "/nowhere", None, 404), ("HEAD", "/model", None, 200),
                        ("POST", "/nowhere", png(), 404), ("GET", "/readyz", None, 200)):
                    answer = exchange(connection, method, path, body)
                    self.assertEqual(answer.status, status, path)
                    self.assertNotEqual(answer.headers.get("connection", "").lower(), "close")
                    socket = socket or connection.sock
                    self.assertIs(connection.sock, socket)

    def test_http_1_0_and_connection_close(self):
        for request in (b"GET /healthz HTTP/1.0\r\n\r\n",
                        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
            answer = self.server.send_raw(request)
            self.assertIn(b" 200 OK\r\n", answer)
            self.assertTrue(answer.endswith(b'{"status":"ok"}'), answer)

    def test_pipelined_requests(self):
        one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = self.server.send_raw(
            one * 4 + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK\r\n"), 5)

    def test_what_is_sent_ahead(self):
        """More than the server reads beside the first request: it looks there for a client that has
        left, and takes nothing."""
        first, second = png(), png() + bytes(1 << 20)
        with self.server.open_socket() as connection:
            connection.sendall(b"".join(
                b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" %
                len(picture) + picture for picture in (first, second)))
            with connection.makefile("rb") as stream:
                for _ in range(2):
                    self.assertEqual(stream.readline(), b"HTTP/1.1 200 OK\r\n")
                    headers = http.client.parse_headers(stream)
                    stream.read(int(headers["content-length"]))

    def test_names_of_headers_in_any_case(self):
        kind, form = multipart([("a.png", png())])
        body = gzip.compress(form)
        for case in (str.lower, str.upper, str.title):
            head = "".join(f"{case(name)}: {value}\r\n" for name, value in (
                ("host", "localhost"), ("content-type", kind), ("content-encoding", "gzip"),
                ("content-length", len(body)), ("x-request-id", "mine"), ("connection", "close")))
            answer = self.server.send_raw(f"POST /classify HTTP/1.1\r\n{head}\r\n".encode() + body)
            self.assertIn(b" 200 OK\r\n", answer)
            self.assertIn(b"X-Request-Id: mine\r\n", answer)
            self.assertIn(b'"a.png"', answer)


class Batches(ServerCase):
    """What shares a batch changes no bit of an answer."""

    def test_alone_together_and_without_a_server(self):
        pictures = [png(30 + 7 * i, 60 - 3 * i, seed=i) for i in range(15)] + [jpeg()]
        alone = [self.server.classify(picture, "?logits=1").results[0] for picture in pictures]
        self.assertEqual(len({tuple(result["logits"]) for result in alone}), 16)
        for _ in range(4):
            answers = together(lambda picture: self.server.classify(picture, "?logits=1"),
                               pictures)
            self.assertEqual([answer.results[0] for answer in answers], alone)

        # Forms of 1 to 5 files beside each other, in a different mix each.
        def send_form(start):
            chosen = [(start + 3 * i) % 16 for i in range(1 + start % 5)]
            kind, body = multipart([(str(i), pictures[i]) for i in chosen])
            results = self.server.classify(body, "?logits=1", Content_Type=kind).results
            return [(int(result["name"]), result["logits"]) for result in results] == [
                (i, alone[i]["logits"]) for i in chosen]
        self.assertEqual(together(send_form, range(16), threads=6), [True] * 16)

        with tempfile.TemporaryDirectory() as folder:
            paths = [pathlib.Path(folder, f"{i}.image") for i in range(16)]
            for path, picture in zip(paths, pictures):
                path.write_bytes(picture)
            lines = run("classify", *self.model, "--json", "--logits", "--max-batch", 5,
                        *paths).stdout.splitlines()
        for line, path, expected in zip(lines, paths, alone, strict=True):
            (result,) = json.loads(line)["results"]
            self.assertEqual(result, expected | {"name": str(path)})

    def test_64_clients(self):
        pictures = [png(40, 40, seed=i) for i in range(8)]
        expected = [self.server.classify(picture).results for picture in pictures]
        end = time.monotonic() + 4

        def client(number):
            count = wrong = 0
            with contextlib.closing(self.server.connect()) as connection:
                while time.monotonic() < end:
                    index = (number + count) % len(pictures)
                    answer = exchange(connection, "POST", "/classify", pictures[index])
                    wrong += answer.status != 429 and (answer.status != 200 or
                                                       answer.results != expected[index])
                    count += 1
                    if answer.status == 429:
                        time.sleep(0.05)
            return count, wrong
        counts = together(client, range(64))
        self.assertGreater(min(count for count, _ in counts), 0)
        self.assertEqual(sum(wrong for _, wrong in counts), 0)
        self.check_good(self.server)


class Overload(Case):
    def test_full_queue_is_429(self):
        with Server("--max-batch", 1, "--max-queue", 2, model=MODEL) as server:
            kind, pair = multipart([("a", png()), ("b", png(seed=2))])
            answers = []
            for _ in range(20):
                answers += together(lambda _: server.classify(pair, Content_Type=kind), range(12))
                if {answer.status for answer in answers} == {200, 429}:
                    break
            self.assertEqual({answer.status for answer in answers}, {200, 429})
            for answer in answers:
                if answer.status == 429:
                    self.check_error(answer, 429, "queue_full")
                else:
                    self.assertEqual(len(answer.results), 2)
            # Every slot is back.
            for _ in range(3):
                self.assertEqual(server.classify(pair, Content_Type=kind).status, 200)

    def test_too_many_images(self):
        def form(count):
            return multipart([(str(i), png(seed=i)) for i in range(count)])
        with Server("--max-batch", 2, "--max-images", 3) as server:
            for count, status in ((3, 200), (4, 413), (50, 413)):
                kind, body = form(count)
                answer = server.classify(body, Content_Type=kind)
                self.assertEqual(answer.status, status)
                if status == 413:
                    self.check_error(answer, 413, "too_many_images")
                    self.assertIn("3", answer.json["error"])
        with Server("--max-batch", 2, "--max-queue", 2) as server:
            kind, body = form(3)
            answer = server.classify(body, Content_Type=kind)
            self.check_error(answer, 413, "too_many_images")
            self.assertIn("2", answer.json["error"])
            kind, body = form(2)
            self.assertEqual(server.classify(body, Content_Type=kind).status, 200)

    def test_byte_budget(self):
        """429 while others fill it; 413 for what it could never hold."""
        data = png()
        with Server("--max-batch", 1, "--max-inflight-bytes", len(data)) as server:
            for _ in range(3):
                self.assertEqual(server.classify(data).status, 200)
                self.check_error(server.classify(data + b"x"), 413, "body_too_large")
            # One body that is still arriving holds the whole budget.
            with server.open_socket() as slow:
                slow.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                             b"Content-Length: %d\r\n\r\n" % len(data))
                self.assertEqual(slow.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
                self.check_error(server.classify(data), 429, "queue_full")
                slow.sendall(data)
                self.assertEqual(answer_from(slow).status, 200)
            self.assertEqual(server.classify(data).status, 200)

    def test_connection_limit(self):
        with Server("--max-batch", 1, "--max-connections", 4) as server:
            with contextlib.ExitStack() as stack:
                sockets = [stack.enter_context(server.open_socket()) for _ in range(12)]
                request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
                answered = 0
                for connection in sockets:
                    with contextlib.suppress(ConnectionError):
                        connection.sendall(request)
                        answered += connection.recv(100).startswith(b"HTTP/1.1 200")
                self.assertIn(answered, (1, 2, 3, 4))
            for _ in itertools.repeat(None, 50):
                with contextlib.suppress(ConnectionError):
                    if server.request("GET", "/healthz").status == 200:
                        break
                time.sleep(0.02)
            self.check_good(server)


if __name__ == "__main__":
    unittest.main()
