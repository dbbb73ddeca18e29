"""/openapi.json is true both ways: every status it documents is produced here, and everything that
is produced, statuses, headers, media types and fields, is documented. VITSERVE_BINARY lies beside
the module of tests/faults, so that the bad days can be had too."""

import base64
import contextlib
import gzip
import http.client
import json
import pathlib
import re
import tempfile
import threading
import time
import unittest

try:
    import jsonschema
except ImportError:
    jsonschema = None

from scarce import Memory
from vitserve import TIMEOUT, Case, Server, answer_from, multipart, png, together

ALWAYS = {"date", "content-length", "content-type", "connection"}  # of every answer
KEY = "a-key-of-the-test"
METHODS = {"get", "post", "put"}


class Document:
    def __init__(self, text):
        self.root = json.loads(text)
        self.produced = set()  # (path, method, status)
        self.fields = set()    # (schema object's id, property) that were seen

    def resolve(self, value):
        while "$ref" in value:
            target = self.root
            for name in value["$ref"].removeprefix("#/").split("/"):
                target = target[name]
            value = target
        return value

    def operations(self):
        for path, item in self.root["paths"].items():
            for method in METHODS & set(item):
                yield path, method, item[method]

    def find(self, method, path):
        """The operation that documents a request, and its path template."""
        for template, item in self.root["paths"].items():
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
            if re.fullmatch(pattern, path) and method.lower() in item:
                return template, item[method.lower()]
        raise AssertionError(f"{method} {path} is not documented")

    def schema(self, value):
        """As jsonschema takes it: with the components it refers to."""
        return {**value, "components": self.root["components"]}

    def note_fields(self, value, schema):
        """Which of the documented properties a value has; through lists, objects and choices."""
        schema = self.resolve(schema)
        for choice in schema.get("oneOf", ()):
            if not list(jsonschema.Draft202012Validator(self.schema(choice)).iter_errors(value)):
                self.note_fields(value, choice)
        if isinstance(value, list) and "items" in schema:
            for item in value:
                self.note_fields(item, schema["items"])
        if isinstance(value, dict):
            for name, member in value.items():
                if name in schema.get("properties", {}):
                    self.fields.add((id(schema), name))
                    self.note_fields(member, schema["properties"][name])

    def check(self, case, method, path, answer):
        template, operation = self.find(method, path)
        where = f"{method} {path} {answer.status}"
        case.assertIn(str(answer.status), operation["responses"], where)
        response = self.resolve(operation["responses"][str(answer.status)])
        self.produced.add((template, method.lower(), str(answer.status)))
        documented = {name.lower() for name in response.get("headers", {})}
        case.assertLessEqual(set(answer.headers) - ALWAYS, documented, where)
        if not answer.body:
            return
        media = answer.headers["content-type"].split(";")[0]
        case.assertIn(media, response["content"], where)
        # Before binary tensors stands the object that would be there without them.
        length = answer.headers.get("inference-header-content-length")
        if media == "application/json" or length:
            schema = response["content"]["application/json"]["schema"]
            value = json.loads(answer.body[:int(length)] if length else answer.body)
            jsonschema.validate(value, self.schema(schema), jsonschema.Draft202012Validator)
            self.note_fields(value, schema)


@unittest.skipUnless(jsonschema, "no python3-jsonschema")
class OpenApi(Case):
    """One pass through the life of a server, from before it is ready to its drain."""
    maxDiff = None

    def setUp(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.commands = folder / "command"
        self.keys = folder / "keys"
        self.keys.write_text(KEY + "\n", encoding="ascii")

    def command(self, text):
        new = self.commands.with_suffix(".new")
        new.write_text(text, encoding="ascii")
        new.rename(self.commands)

    @contextlib.contextmanager
    def serve(self, *options, wait=True, variables=None):
        with Server(*options, model=("--device", "cuda"), wait=wait,
                    variables={"FAULTS": str(self.commands)} | (variables or {})) as self.server:
            try:
                yield
            finally:
                self.command("ok")

    def ask(self, method, path, body=None, **headers):
        """What is posted to /classify is put there too."""
        if method == "POST" and path.split("?")[0] == "/classify":
            self.ask_once("PUT", path, body, **headers)
        return self.ask_once(method, path, body, **headers)

    def ask_once(self, method, path, body=None, **headers):
        answer = self.server.request(method, path, body, **headers)
        self.document.check(self, method, path.split("?")[0], answer)
        return answer

    def get_all(self):
        for path in self.gets:
            self.ask("GET", path)

    # -- every situation in turn

    def while_starting(self):
        self.command("hang")
        with self.serve(wait=False):
            self.document = Document(self.server.request("GET", "/openapi.json").body)
            name = "fashion_vit"
            self.gets = [path.replace("{name}", name).replace("{version}", "1")
                         for path, method, _ in self.document.operations() if method == "get"]
            self.posts = [path.replace("{name}", name).replace("{version}", "1")
                          for path, method, _ in self.document.operations() if method == "post"]
            self.infer = next(path for path in self.posts if path.endswith(f"{name}/infer"))
            self.get_all()
            for path in self.posts:
                self.assertEqual(self.ask("POST", path, png()).status, 503)
            self.command("ok")
            self.server.wait_ready()

    def good_requests(self):
        self.get_all()
        for form in ("json", "markdown", "text", "svg"):
            self.ask("GET", "/model?format=" + form)
        self.assertEqual(self.ask("GET", "/model?format=pdf").status, 400)
        kind, form = multipart([("a", png()), ("b", b"no image")])
        encoded = base64.b64encode(png()).decode()
        for path in ("/classify", "/preprocess"):
            self.assertEqual(self.ask("POST", path, png()).status, 200)
            self.ask("POST", path, json.dumps({"images": [encoded]}),
                     Content_Type="application/json")
            self.ask("POST", path, gzip.compress(png()), Content_Encoding="gzip")
        self.ask("POST", "/classify?logits=1&top_k=2", form, Content_Type=kind)
        self.ask("POST", "/preprocess", png(), Accept="application/octet-stream")
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [encoded]}
        for path in self.posts[2:]:
            self.assertEqual(self.ask("POST", path, png(),
                                      Inference_Header_Content_Length="0").status, 200)
            self.ask("POST", path, json.dumps({"id": "x", "inputs": [tensor]}))
            self.ask("POST", path, json.dumps({
                "inputs": [tensor],
                "outputs": [{"name": "logits", "parameters": {"classification": 2}},
                            {"name": "probabilities", "parameters": {"binary_data": True}}]}))

    def bad_requests(self):
        for path in self.posts:
            for body, headers in ((b"", {}), (png()[:-40], {}), (b"no image", {}),
                                  (png(), {"Content_Encoding": "br"}),
                                  (b"x" * 70000, {})):
                if path in self.posts[2:]:
                    headers = {"Inference_Header_Content_Length": "0", **headers}
                answer = self.ask("POST", path, body, **headers)
                self.assertIn(answer.status, (400, 413, 415))
            for method in ("POST", "PUT") if path == "/classify" else ("POST",):
                self.late_body(method, path)
        for path in self.gets + self.posts:
            if "fashion_vit" in path:
                method = "POST" if path in self.posts else "GET"
                self.ask(method, path.replace("fashion_vit", "other"), png() if method == "POST"
                         else None)

    def late_body(self, method, path):
        data = png()
        with self.server.open_socket() as slow:
            slow.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
                         "\r\n".encode() + data[:9])
            for at in (9, 10):  # never silent for as long as the whole may take
                time.sleep(0.6)
                slow.sendall(data[at:at + 1] if at == 9 else data[at:])
            answer = answer_from(slow)
            self.assertEqual(answer.status, 408)
            self.document.check(self, method, path, answer)

    def without_key(self):
        with self.serve("--api-key-file", self.keys):
            for path in self.gets:
                self.ask("GET", path)
            for path in self.posts:
                self.assertEqual(self.ask("POST", path, png()).status, 401)

    def overload(self):
        """The device stands still: the queue fills, what waits runs out of time."""
        self.command("hang")
        def one(path):
            raw = {"Inference_Header_Content_Length": "0"} if path in self.posts[2:] else {}
            return self.ask("POST", path, png(), **raw)
        queued = [path for path in self.posts if path != "/preprocess"]
        stuck = threading.Thread(target=lambda: self.server.classify(png()))
        stuck.start()
        time.sleep(0.3)
        for path in queued:
            self.assertEqual(one(path).status, 504)
        with contextlib.ExitStack() as stack:
            budget = stack.enter_context(self.server.open_socket())
            budget.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 59999\r\n\r\nx")
            budget.sendall(b"x")
            time.sleep(0.1)
            for path in self.posts:
                self.assertEqual(one(path).status, 429)
        self.command("ok")
        stuck.join(TIMEOUT)
        self.server.wait_ready()

    def decoders_busy(self):
        """One picture is decoded at a time, and the others have no time to wait for it."""
        data = png(300, 300)
        with self.serve("--request-timeout-ms", 5, "--decode-threads", 1):
            deadline = time.monotonic() + TIMEOUT
            statuses = set()
            while 504 not in statuses and time.monotonic() < deadline:
                statuses |= set(together(lambda _: self.impatient(data), range(8)))

    def impatient(self, data):
        # A body that takes its time may find the connection closed.
        with contextlib.suppress(ConnectionError):
            return self.ask("POST", "/preprocess", data).status

    def failures(self):
        uploads = [("POST", path) for path in self.posts if path != "/preprocess"]
        for method, path in [("PUT", "/classify"), *uploads]:
            self.command("fail")
            raw = {"Inference_Header_Content_Length": "0"} if path in self.posts[2:] else {}
            self.assertEqual(self.ask_once(method, path, png(), **raw).status, 500)
            self.get_all()  # the health checks say so
            self.command("ok")
            self.server.wait_ready()

    def without_memory(self):
        """What has no other reason for a 503; the connection takes some allocations before."""
        with Memory() as memory, self.serve(variables=memory.variables):
            for path in self.gets:
                for count in range(60):
                    memory.fail_after(count)
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        self.ask("GET", path)
                    memory.suffice()

    def test_both_ways(self):
        self.while_starting()
        with self.serve("--request-timeout-ms", 1000, "--max-batch", 2, "--max-queue", 4,
                        "--max-body-bytes", 60000, "--max-inflight-bytes", 66000):
            self.good_requests()
            self.bad_requests()
            self.overload()
            self.failures()
        self.without_key()
        self.decoders_busy()
        self.without_memory()
        documented = {(path, method, status) for path, method, operation
                      in self.document.operations() for status in operation["responses"]}
        self.assertEqual(documented - self.document.produced, set())
        self.check_fields()

    def check_fields(self):
        for name, schema in self.document.root["components"]["schemas"].items():
            for field in schema.get("properties", ()):
                if name not in ("Images", "InferRequest"):  # of requests
                    self.assertIn((id(schema), field), self.document.fields, f"{name}.{field}")


if __name__ == "__main__":
    unittest.main()
