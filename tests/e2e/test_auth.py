"""Keys of --api-key-file: who is let in and who is not, before a body is read; what stays open; the
reload on SIGHUP; CORS and OPTIONS, which work without a key; and that no key is ever shown."""

import base64
import contextlib
import pathlib
import re
import signal
import tempfile
import threading
import time
import unittest

from vitserve import (MODEL, TIMEOUT, Case, Server, answer_from, exchange, png, receive_all, run,
                      together)

KEY, OTHER = "k3y-of_the.first/team+==", "s" * 512
OPEN = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready", "/",
        "/style.css", "/app.js", "/favicon.svg")
CLOSED = (("POST", "/classify"), ("POST", "/preprocess"), ("GET", "/model"), ("GET", "/v2"),
          ("GET", "/openapi.json"), ("GET", "/nowhere"), ("GET", "/classify"), ("PUT", "/model"),
          ("GET", "/healthz//"), ("GET", "//"), ("GET", "/Healthz"), ("GET", "/style.css/x"))


def bearer(key):
    return {"Authorization": "Bearer " + key}


class KeyedCase(Case):
    """A server with a file of keys that tests may change."""
    options = ()

    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.file = pathlib.Path(folder, "keys")
        self.file.write_text(f"# two of them\n{KEY}\n{OTHER}\n", encoding="ascii")
        self.server = self.enterContext(Server("--max-batch", 2, "--api-key-file", self.file,
                                               *self.options))

    def check_refused(self, answer):
        self.check_error(answer, 401, "unauthorized")
        self.assertEqual(answer.headers["www-authenticate"], "Bearer")
        self.assertNotIn(KEY[:6], answer.body.decode())

    def check_not_shown(self):
        """Nothing that the server says holds a key, or the beginning of one."""
        texts = [self.server.stderr()]
        for path in OPEN[:3] + ("/model", "/nowhere"):
            texts.append(self.server.request("GET", path).body.decode())
            texts.append(self.server.request("GET", path, **bearer(KEY)).body.decode())
        for text in texts:
            for secret in (KEY[:8], OTHER[:8], "Bearer k", "Bearer s"):
                self.assertNotIn(secret, text)


class Keys(KeyedCase):
    options = ("--log-level", "debug")

    def test_right_ones(self):
        for key in (KEY, OTHER):
            for form in ("Bearer {}", "bearer {}", "BEARER    {}", "Bearer {}  "):
                answer = self.server.classify(png(), Authorization=form.format(key))
                self.assertEqual(answer.status, 200, answer.body)
                self.assertNotIn("www-authenticate", answer.headers)
        self.check_not_shown()

    def test_wrong_ones(self):
        basic = "Basic " + base64.b64encode(KEY.encode()).decode()
        for value in ("", "Bearer", "Bearer ", KEY, basic, "Basic " + KEY, "Bearer " + KEY[:-1],
                      "Bearer " + KEY + "x", "Bearer " + KEY[1:], "Bearer x" + KEY,
                      "Bearer " + KEY.upper(), "Bearer " + KEY[:1], "Bearer " + OTHER[:-1],
                      "Bearer " + OTHER + "s", f"Bearer {KEY}, {OTHER}", f"Bearer {KEY} {OTHER}",
                      "Bearer \xe9", "Bearer " + "x" * 5000, "Bearer # two of them",
                      f"Bearer {KEY}%00", f"Bearer\t{KEY}"):
            self.check_refused(self.server.classify(png(), Authorization=value))
        self.check_refused(self.server.classify(png()))
        self.check_refused(self.server.classify(png(), "?key=" + KEY))
        self.check_refused(self.server.classify(png(), X_API_Key=KEY, Cookie="key=" + KEY))
        self.assertEqual(self.server.classify(png(), **bearer(KEY)).status, 200)

    def test_open_paths(self):
        for path in OPEN:
            for method in ("GET", "HEAD"):
                known = self.server.request(method, path, **bearer(KEY)).status
                if known == 404:
                    continue
                self.assertEqual(known, 200, path)
                for headers in ({}, bearer("wrong")):
                    answer = self.server.request(method, path, **headers)
                    self.assertEqual(answer.status, 200, (method, path))

    def test_all_else_is_closed(self):
        for method, path in CLOSED:
            answer = self.server.request(method, path)
            with self.subTest(path):
                self.check_refused(answer)
                self.assertNotEqual(self.server.request(method, path, **bearer(KEY)).status, 401)
        for path in ("/model", "/classify", "/nowhere"):
            answer = self.server.request("HEAD", path)
            self.assertEqual((answer.status, answer.body), (401, b""))

    def test_before_the_body(self):
        """Neither 100 Continue nor one byte of the body: the headers are enough."""
        for length in (b"Content-Length: 33554432", b"Transfer-Encoding: chunked",
                       b"Content-Length: 99999999999"):
            for target in (b"POST /classify", b"POST /nowhere", b"POST /healthz",
                           b"GET /healthz", b"GET /metrics", b"OPTIONS /classify",
                           b"OPTIONS *"):
                with self.server.open_socket() as connection:
                    start = time.monotonic()
                    connection.sendall(target + b" HTTP/1.1\r\nHost: localhost\r\n" + length +
                                       b"\r\nExpect: 100-continue\r\n\r\n")
                    self.check_refused(answer_from(connection))
                    self.assertEqual(receive_all(connection), b"")
                    self.assertLess(time.monotonic() - start, TIMEOUT / 2)
        with self.server.open_socket() as connection:
            connection.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
                               b"Authorization: Bearer %s\r\nExpect: 100-continue\r\n\r\n"
                               % (len(png()), KEY.encode()))
            self.assertEqual(connection.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.sendall(png())
            self.assertEqual(answer_from(connection).status, 200)

    def test_bodies_without_a_key_take_no_budget(self):
        def upload(_):
            with self.server.open_socket() as connection:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\n"
                                       b"Content-Length: 33554432\r\n\r\n")
                    for _ in range(20):
                        connection.sendall(bytes(65536))
                        time.sleep(0.01)
        before = self.server.memory_kb()
        uploads = threading.Thread(target=together, args=(upload, range(20)))
        uploads.start()
        while uploads.is_alive():
            metrics = self.server.request("GET", "/metrics").body.decode()
            held = int(re.search(r"^vitserve_inflight_bytes (\d+)$", metrics, re.M).group(1))
            self.assertLessEqual(held, len(png()))  # of the good one, which may just be ending
            self.assertEqual(self.server.classify(png(), **bearer(KEY)).status, 200)
        uploads.join()
        self.assertLess(self.server.memory_kb() - before, 64 * 1024)

    def test_a_refusal_hides_no_request_behind_it(self):
        """The body that was not read is not taken for the next request."""
        hidden = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for method in (b"POST", b"GET"):
            answer = self.server.send_raw(method + b" /model HTTP/1.1\r\nHost: localhost\r\n"
                                          b"Content-Length: %d\r\n\r\n" % len(hidden) + hidden)
            self.assertEqual(answer.count(b"HTTP/1.1"), 1)
            self.assertIn(b" 401 ", answer)

    def test_while_starting(self):
        with Server("--max-batch", 1, "--api-key-file", self.file, wait=False,
                    model=("--model", "vit_b_32", *MODEL[2:])) as server:
            self.check_refused(server.classify(png()))
            server.wait_ready()


class Reload(KeyedCase):
    def hang_up(self, text=None):
        """Changes the file and sends SIGHUP; the line in which the server says what came of it."""
        if text is None:
            self.file.unlink()
        else:
            self.file.write_text(text, encoding="utf-8")
        def said():
            return [line for line in self.server.stderr().splitlines() if "SIGHUP" in line]
        count = len(said())
        self.server.send_signal(signal.SIGHUP)
        self.until(lambda: len(said()) > count)
        return said()[-1]

    def statuses(self, *keys):
        return [self.server.request("GET", "/model", **bearer(key)).status for key in keys]

    def test_new_keys(self):
        self.assertEqual(self.statuses(KEY, OTHER, "new"), [200, 200, 401])
        self.assertIn(" info ", self.hang_up(f"{KEY}\nnew\n"))
        self.assertEqual(self.statuses(KEY, OTHER, "new"), [200, 401, 200])
        self.check_not_shown()

    def test_a_bad_file_changes_nothing(self):
        for text in ("", "# none\n", f"new\n{KEY} and more\n", "n\xe9w\n", "n" * 513, None):
            line = self.hang_up(text)
            self.assertIn(" error ", line)
            self.assertIn(str(self.file), line)
            self.assertEqual(self.statuses(KEY, OTHER, "new"), [200, 200, 401])
        self.hang_up("new\n")
        self.assertEqual(self.statuses(KEY, OTHER, "new"), [401, 401, 200])
        self.check_not_shown()

    def test_under_load(self):
        """The key that is in every version of the file is never refused."""
        statuses, stopped = set(), threading.Event()

        def client(_):
            with contextlib.closing(self.server.connect()) as connection:
                while not stopped.is_set():
                    answer = exchange(connection, "GET", "/model", **bearer(KEY))
                    statuses.add(answer.status)

        def reload():
            descriptors = self.server.descriptors()
            try:
                for i in range(30):
                    self.hang_up("" if i % 3 == 2 else f"{KEY}\n" * (1 + 50 * (i % 3)))
            finally:
                stopped.set()
            self.assertLessEqual(self.server.descriptors(), descriptors + 8)
        together(lambda i: client(i) if i else reload(), range(5))
        self.assertEqual(statuses, {200})

    def test_without_keys(self):
        with Server("--max-batch", 1) as server:
            server.send_signal(signal.SIGHUP)
            self.check_good(server)
            self.assertIn("SIGHUP", server.stderr())


class Start(Case):
    def test_bad_files(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "keys")
            for content, code, word in ((None, 1, "No such file"), (b"", 2, "empty"),
                                        (b"# secret\n", 2, "no key"),
                                        (b"secret one\n", 2, "line 1"),
                                        (b"good\nsecret\0\n", 2, "zero"),
                                        (b"secret" * 100, 2, "512")):
                if content is not None:
                    file.write_bytes(content)
                finished = run("serve", *MODEL, "--port", 0, "--api-key-file", file)
                self.assertEqual(finished.returncode, code, finished.stderr)
                self.assertIn(str(file), finished.stderr)
                self.assertIn(word, finished.stderr)
                self.assertNotIn("secret", finished.stderr)
                self.assertEqual(finished.stdout, "")

    def test_print_config(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(KEY.encode())
            file.flush()
            finished = run("serve", "--api-key-file", file.name, "--print-config")
            self.assertIn(file.name, finished.stdout)
            self.assertNotIn(KEY, finished.stdout + finished.stderr)

    def test_bad_origins(self):
        for origin in ("example.org", "https://example.org/", "https://", "https://a, https://b",
                       "https://a\r\nX-Evil: 1", "null"):
            finished = run("serve", *MODEL, "--port", 0, "--cors-origin", origin)
            self.assertEqual(finished.returncode, 2, origin)
            self.assertIn("--cors-origin", finished.stderr)


ORIGIN = "https://app.example.org"
CORS = ("access-control-allow-origin", "access-control-expose-headers",
        "access-control-allow-methods", "access-control-allow-headers", "access-control-max-age")


def words(text):
    return {word.strip().lower() for word in text.split(",")}


class Cors(KeyedCase):
    """The Fetch standard's CORS protocol, with keys."""
    options = ("--cors-origin", ORIGIN)

    def test_preflight(self):
        for path in ("/classify", "/model", "/healthz"):
            answer = self.server.request(
                "OPTIONS", path, Origin=ORIGIN, Access_Control_Request_Method="POST",
                Access_Control_Request_Headers="authorization, content-type")
            self.assertEqual((answer.status, answer.body), (200, b""))
            headers = answer.headers
            self.assertEqual(headers["access-control-allow-origin"], ORIGIN)
            self.assertEqual(headers["vary"], "Origin")
            self.assertLessEqual({"get", "head", "post"},
                                 words(headers["access-control-allow-methods"]))
            self.assertLessEqual({"authorization", "content-type", "content-encoding",
                                  "x-request-id", "inference-header-content-length"},
                                 words(headers["access-control-allow-headers"]))
            self.assertRegex(headers["access-control-max-age"], r"\A[0-9]+\Z")
            self.assertNotIn("access-control-allow-credentials", headers)

    def test_answers_and_errors(self):
        for answer, status in ((self.server.classify(png(), Origin=ORIGIN, **bearer(KEY)), 200),
                               (self.server.classify(png(), **bearer(KEY)), 200),
                               (self.server.classify(b"x", Origin=ORIGIN, **bearer(KEY)), 415),
                               (self.server.classify(png(), Origin=ORIGIN), 401),
                               (self.server.request("GET", "/no", Origin=ORIGIN), 401),
                               (self.server.request("GET", "/no", Origin=ORIGIN, **bearer(KEY)),
                                404),
                               (self.server.request("GET", "/classify", **bearer(KEY)), 405),
                               (self.server.request("OPTIONS", "/no", Origin=ORIGIN), 404),
                               (self.server.request("POST", "/classify", None, Origin=ORIGIN,
                                                    Content_Length="99999999999",
                                                    **bearer(KEY)), 413)):
            self.assertEqual(answer.status, status)
            self.assertEqual(answer.headers["access-control-allow-origin"], ORIGIN)
            self.assertEqual(answer.headers["vary"], "Origin")
            self.assertLessEqual({"x-request-id", "retry-after", "server-timing"},
                                 words(answer.headers["access-control-expose-headers"]))

    def test_any_origin(self):
        with Server("--max-batch", 1, "--cors-origin", "*") as server:
            for answer in (server.classify(png()), server.classify(b"x"),
                           server.request("OPTIONS", "/classify")):
                self.assertEqual(answer.headers["access-control-allow-origin"], "*")
                self.assertNotIn("vary", answer.headers)

    def test_off(self):
        with Server("--max-batch", 1) as server:
            for answer in (server.classify(png(), Origin=ORIGIN),
                           server.classify(b"x", Origin=ORIGIN),
                           server.request("OPTIONS", "/classify", Origin=ORIGIN,
                                          Access_Control_Request_Method="POST")):
                for name in CORS + ("vary",):
                    self.assertNotIn(name, answer.headers)


class Methods(KeyedCase):
    """OPTIONS, HEAD and Allow; without a key where no key is needed."""
    routes = (("/classify", "POST, PUT"), ("/preprocess", "POST"), ("/model", "GET"),
              ("/healthz", "GET"), ("/readyz", "GET"),
              ("/metrics", "GET"))
    allowed = {"GET": "GET, HEAD, OPTIONS", "POST": "POST, OPTIONS",
               "POST, PUT": "POST, PUT, OPTIONS"}

    def test_options(self):
        for path, method in self.routes:
            answer = self.server.request("OPTIONS", path)
            self.assertEqual((answer.status, answer.body), (200, b""))
            self.assertEqual(answer.headers["allow"], self.allowed[method])
            self.assertEqual(answer.headers["content-length"], "0")
        self.check_error(self.server.request("OPTIONS", "/nowhere"), 404, "not_found")

    def test_options_of_the_server(self):
        answer = self.server.request("OPTIONS", "*")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["allow"], "GET, HEAD, POST, PUT, OPTIONS")
        self.check_error(self.server.request("GET", "*", **bearer(KEY)), 404, "not_found")

    def test_allow(self):
        for path, method in self.routes:
            for other in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "get"):
                if other in method.split(", ") or (other, method) == ("HEAD", "GET"):
                    continue
                answer = self.server.request(other, path, **bearer(KEY))
                self.assertEqual(answer.headers["allow"], self.allowed[method], (other, path))
                self.assertEqual(answer.status, 405)
                if other != "HEAD":
                    self.check_error(answer, 405, "method_not_allowed")
                    self.assertIn(method, answer.json["error"])

    def test_head(self):
        for path, method in self.routes:
            if method != "GET":
                continue
            got = self.server.request("GET", path, **bearer(KEY))
            head = self.server.request("HEAD", path, **bearer(KEY))
            self.assertEqual((head.status, head.body), (got.status, b""))
            self.assertEqual(head.headers["content-type"], got.headers["content-type"])
            self.assertGreater(int(head.headers["content-length"]), 0)
            # Nothing of a body is left on the connection.
            with contextlib.closing(self.server.connect()) as connection:
                for _ in range(3):
                    answer = exchange(connection, "HEAD", path, **bearer(KEY))
                    self.assertEqual(answer.status, 200)


if __name__ == "__main__":
    unittest.main()
