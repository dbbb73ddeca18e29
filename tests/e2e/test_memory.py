"""Memory that runs out: each allocation of each kind of request is
made to fail once, and for a while all of them. A request ends with 503 out_of_memory, is answered as
if nothing had been, or finds its connection closed; never is the picture or the request blamed. The
next one works, and nothing is left behind."""

import base64
import gzip
import http.client
import json
import time

from oip import binary_request, elements, json_input, pixels_of, tensor_input, text_of
from scarce import Memory
from vitserve import SANITIZED, Case, Server, jpeg, multipart, png, together, webp

SCARCE = "memory|Resource temporarily unavailable"  # the latter: of a new thread's
STEPS = 20 if SANITIZED else 60
CLOSED = 0  # the status of a connection that ended without an answer


def post(path, body, **headers):
    return "POST", path, body, headers


def infer(request, *tensors):
    headers, body = binary_request({"inputs": [request]}, *tensors)
    if not tensors:
        headers, body = {}, json.dumps({"inputs": [request]}).encode()
    return post("/v2/models/fashion_vit/infer", body, **headers)


def requests():
    """Name -> method, path, body, headers."""
    kind, body = multipart([("a.png", png(seed=2)), ("b.jpg", jpeg())], top_k=3)
    images = {"images": [base64.b64encode(picture).decode() for picture in (png(), webp())]}
    pixels = pixels_of(28, 28, 3)
    return {
        "png": post("/classify", png()),
        "jpeg": post("/classify?logits=1", jpeg()),
        "webp": post("/classify", webp()),
        "multipart": post("/classify", body, Content_Type=kind),
        "json": post("/classify", json.dumps(images), Content_Type="application/json"),
        "gzip": post("/classify", gzip.compress(png()), Content_Encoding="gzip"),
        "chunked": post("/classify", [png()[:100], png()[100:]]),
        "v2 texts": infer(json_input("image", "BYTES", [1], [text_of(png())])),
        "v2 images": infer(tensor_input("image", "BYTES", [1], elements(png())), elements(png())),
        "v2 numbers": infer(json_input("pixels", "UINT8", [1, 28, 28, 3], list(pixels))),
        "v2 pixels": infer(tensor_input("pixels", "UINT8", [1, 28, 28, 3], pixels), pixels),
        "v2 config": ("GET", "/v2/models/fashion_vit/config", None, {}),
        "preprocess": post("/preprocess", png()),
        "model": ("GET", "/model", None, {}),
        "markdown": ("GET", "/model?format=markdown", None, {}),
        "svg": ("GET", "/model?format=svg", None, {}),
        "openapi": ("GET", "/openapi.json", None, {}),
        "page": ("GET", "/", None, {}),
        "health": ("GET", "/readyz", None, {}),
        "unknown": ("GET", "/unknown", None, {}),
    }


class MemoryCase(Case):
    def setUp(self):
        self.memory = self.enterContext(Memory())

    def serve(self, **options):
        # A connection that was counted and is forgotten would soon be one too many.
        return Server("--max-batch", 4, "--max-connections", 32, model=(),
                      variables=self.memory.variables, **options)


class Requests(MemoryCase):
    def setUp(self):
        super().setUp()
        self.server = self.enterContext(self.serve())
        self.check_good(self.server)

    def send(self, method, path, body, headers):
        """Status and body; CLOSED where there is no answer."""
        try:
            answer = self.server.request(method, path, body, **headers)
            return answer.status, answer.body, answer
        except (http.client.HTTPException, OSError):
            return CLOSED, b"", None

    def check_outcome(self, got, sound):
        """One of the outcomes that the head of this file allows."""
        status, body, answer = got
        if status == CLOSED:
            return
        if (status, body) == sound[:2]:
            self.assertEqual(set(answer.headers), set(sound[2].headers))
            return
        if status == 200:  # a picture of several, or of one answer
            errors = [result["code"] for result in answer.results if "code" in result]
            self.assertEqual(set(errors), {"out_of_memory"}, body)
            self.assertLess(len(errors), len(answer.results))
        elif status == sound[0] == 404:  # whose text holds the id of the request
            self.check_error(answer, 404, "not_found")
        else:
            self.check_error(answer, 503, "out_of_memory")

    def check_nothing_is_left(self, descriptors, threads):
        self.until_well()
        self.until(self.gauges_rest)  # a request ends after its client has the answer
        self.until(lambda: self.server.descriptors() <= descriptors)
        self.until(lambda: self.server.threads() == threads)

    def gauges_rest(self):
        text = self.server.request("GET", "/metrics").body.decode()
        return all(f"\nvitserve_{gauge} 0\n" in text
                   for gauge in ("queue_images", "inflight_requests", "inflight_bytes"))

    def until_well(self):
        self.until(lambda: self.server.request("GET", "/readyz").status == 200)
        self.check_good(self.server)

    def test_each_allocation(self):
        kinds = requests()
        for request in kinds.values():  # all that is allocated once is there
            self.send(*request)
        time.sleep(0.2)
        descriptors, threads = self.server.descriptors(), self.server.threads()
        for name, request in kinds.items():
            sound = self.send(*request)
            before = self.memory.made()
            self.assertEqual(self.send(*request)[0], sound[0])
            made = self.memory.made() - before
            self.assertGreater(made, 5)
            for count in range(made + 2):
                with self.subTest(name, allocation=count):
                    self.memory.fail_after(count)
                    got = self.send(*request)
                    self.memory.suffice()
                    self.check_outcome(got, sound)
                    self.assertIsNone(self.server.process.poll(), self.server.stderr())
            again = self.send(*request)
            self.assertEqual(again[0], sound[0])
            if sound[0] == 200:
                self.assertEqual(again[1], sound[1])
        self.check_nothing_is_left(descriptors, threads)

    def test_none_for_a_while(self):
        """Under load, and not before the clients have had their refusals."""
        kinds = [request for request in requests().values() if request[0] == "POST"]
        time.sleep(0.2)
        descriptors, threads = self.server.descriptors(), self.server.threads()
        for _ in range(5):
            self.memory.fail_after(100, lasting=True)
            outcomes = together(lambda request: self.send(*request)[0], kinds * 2)
            self.memory.suffice()
            self.assertIsNone(self.server.process.poll(), self.server.stderr())
            self.assertLessEqual(set(outcomes), {CLOSED, 200, 503})
            self.assertNotEqual(set(outcomes), {200})
        self.check_nothing_is_left(descriptors, threads)


class Starts(MemoryCase):
    """It starts all the same, or ends and says what was missing."""

    def starts(self):
        """Whether the server becomes ready."""
        try:
            server = self.serve(wait=False)
        except AssertionError as error:  # without an address, and why
            self.assertRegex(str(error), SCARCE)
            return False
        try:
            self.until(lambda: server.process.poll() is not None or "ready: " in server.stderr())
            self.memory.suffice()
            if server.process.poll() is None:
                self.check_good(server)
                self.assertEqual(server.stop(), 0, server.stderr())
                return True
            self.assertRegex(server.stderr(), SCARCE)
            self.assertEqual(server.process.returncode, 1)
            return False
        finally:
            server.kill()
            server.log.close()

    def test_each_allocation(self):
        before = self.memory.made()
        self.assertTrue(self.starts())
        made = self.memory.made() - before
        self.assertGreater(made, STEPS)
        started = 0
        for step in range(STEPS):
            count = made * step // STEPS
            with self.subTest(allocation=count):
                self.memory.fail_after(count)
                started += self.starts()
        self.assertLess(started, STEPS / 2)
