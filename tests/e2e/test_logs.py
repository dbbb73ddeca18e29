"""The log: one line for each request, whose fields match what was sent and answered, whole and valid
whatever a client sends, and without anything that is not for everybody's eyes."""

import collections
import contextlib
import itertools
import json
import pathlib
import random
import re
import tempfile
import time
import unittest

from vitserve import TIMEOUT, Case, Server, exchange, multipart, png, read_whole, together

KEY = "the-secret-key-of-the-log-test"
JSON = ("--log-format", "json", "--log-level", "debug", "--max-batch", 4)
FIELDS = {"time", "level", "request_id", "method", "path", "status", "bytes_in", "bytes_out",
          "read_ms", "total_ms"}
STAGES = {"batch", "decode_ms", "preprocess_ms", "queue_ms", "infer_ms"}


def json_lines(server):
    """Every line of the log, each of which must be a JSON object in UTF-8."""
    data = read_whole(server.log)
    assert not data or data.endswith(b"\n"), data[-200:]
    return [json.loads(line.decode("utf-8", errors="strict")) for line in data.splitlines()]


def request_lines(server):
    return [line for line in json_lines(server) if "request_id" in line]


class Fields(Case):
    def test_json(self):
        good = png()
        kind, form = multipart([("private-name.png", good), ("b", b"none"), ("c", png(seed=2))])
        cases = [  # method, path, body, headers; images, code
            ("POST", "/classify?top_k=3", good, {}, 1, None),
            ("POST", "/classify", form, {"Content-Type": kind}, 3, None),
            ("POST", "/classify", b"none", {}, 1, "unsupported_image"),
            ("POST", "/classify?top_k=0", good, {}, 1, "bad_top_k"),
            ("POST", "/classify", b"", {}, 0, "no_image"),
            ("GET", "/classify", None, {}, 0, "method_not_allowed"),
            ("GET", "/nowhere?a=b", None, {}, 0, "not_found"),
            ("GET", "/model", None, {}, 0, None),
            ("OPTIONS", "/model", None, {}, 0, None),
            ("GET", "/healthz", None, {}, 0, None),
        ]
        with Server(*JSON) as server:
            before = len(request_lines(server))
            answers = [server.request(method, path, body, X_Request_Id=f"id-{i}", **headers)
                       for i, (method, path, body, headers, _, _) in enumerate(cases)]
            lines = request_lines(server)[before:]
            self.assertEqual(len(lines), len(cases))
            for i, (line, answer, case) in enumerate(zip(lines, answers, cases)):
                method, path, body, _, images, code = case
                with self.subTest(path=path, method=method):
                    self.assertEqual(line["request_id"], f"id-{i}")
                    self.assertEqual((line["method"], line["path"]), (method, path.split("?")[0]))
                    self.assertEqual(line["status"], answer.status)
                    self.assertEqual(line["bytes_in"], len(body or b""))
                    self.assertEqual(line["bytes_out"], len(answer.body))
                    self.assertEqual(line.get("images", 0), images)
                    self.assertEqual(line.get("code"), code)
                    optional = ({"images"} if images else set()) | ({"code"} if code else set())
                    came_through = images and answer.status == 200
                    self.assertEqual(set(line), FIELDS | optional |
                                     (STAGES if came_through else set()))
                    for name in set(line) & (STAGES | {"read_ms", "total_ms"}):
                        self.assertGreaterEqual(line[name], 0)
                    self.assertLessEqual(line["read_ms"], line["total_ms"])
            self.assertEqual({line["level"] for line in lines[:-1]}, {"info"})
            self.assertEqual(lines[-1]["level"], "debug")

    def test_text(self):
        with Server("--max-batch", 2) as server:
            server.request("GET", "/healthz/")
            answer = server.classify(png(), "?top_k=2")
            lines = [line for line in server.stderr().splitlines() if "request_id=" in line]
            self.assertEqual(len(lines), 1)  # those of probes are for --log-level debug
            words = lines[0].split()
            self.assertRegex(words[0], r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
            self.assertEqual(words[1], "info")
            fields = dict(word.split("=", 1) for word in words[2:])
            self.assertEqual(fields["request_id"], answer.headers["x-request-id"])
            self.assertEqual((fields["method"], fields["path"], fields["status"]),
                             ("POST", "/classify", "200"))
            self.assertEqual((fields["bytes_in"], fields["bytes_out"], fields["images"]),
                             (str(len(png())), str(len(answer.body)), "1"))
            self.assertLessEqual(STAGES, set(fields))

    def test_times_are_those_of_server_timing(self):
        with Server(*JSON) as server:
            timing = server.classify(png()).headers["server-timing"]
            line = request_lines(server)[-1]
            for name in ("read", "decode", "preprocess", "queue", "infer"):
                told = float(re.search(rf"\b{name};dur=([0-9.]+)", timing).group(1))
                self.assertAlmostEqual(line[name + "_ms"], told, places=3)

    def test_levels(self):
        for level in ("warning", "error"):
            with Server("--max-batch", 1, "--log-level", level) as server:
                self.check_good(server)
                server.request("GET", "/nowhere")
                server.classify(b"none")
                self.assertEqual(server.stderr(), "")


class Secrets(Case):
    def test_nothing_private(self):
        """No key, no query, no name of a file, no byte of a picture."""
        kind, form = multipart([("private-name.png", png())])
        with tempfile.TemporaryDirectory() as folder:
            keys = pathlib.Path(folder, "keys")
            keys.write_text(KEY, encoding="ascii")
            for arguments in (JSON, JSON[2:]):
                with Server(*arguments, "--api-key-file", keys) as server:
                    for authorization in ("Bearer " + KEY, "Bearer " + KEY[:-1], KEY,
                                          "Basic " + KEY, ""):
                        for path in ("/classify?private=query", "/nowhere?private=query"):
                            server.request("POST", path, form, Content_Type=kind,
                                           Authorization=authorization, Cookie="private-cookie",
                                           Referer="http://private/", User_Agent="private-agent")
                    server.request("POST", "/classify", b"private bytes",
                                   Authorization="Bearer " + KEY)
                    log = server.stderr()
                    self.assertEqual(log.count("unauthorized"), 8)
                    for secret in (KEY[:10], "private", "query", "PNG", "IHDR", "Bearer"):
                        self.assertNotIn(secret, log)


class Hostile(Case):
    paths = {  # as sent -> as logged
        b"/a%0ab": "/a?b",
        b"/a%0d%0a{%22status%22:200}": '/a??{"status":200}',
        b'/"': '/"',
        b"/%22,%22status%22:%221": '/","status":"1',
        b"/%5c": "/\\",
        b"/\\\\": "/\\\\",
        b"/%ff%fe": "/??",
        b"/\xff\xfe": "/??",
        b"/%c3": "/?",
        b"/%c3%a9": "/\u00e9",
        b"/\xc3\xa9": "/\u00e9",
        b"/%ed%a0%80": "/???",
        b"/%f0%9f%98%80": "/\U0001f600",
        b"/%1b[31m": "/?[31m",
        b"/%c2%9b31m": "/??31m",
        b"/%7f": "/?",
        b"/%00secret": "/%00secret",
        b"/%": "/%",
        b"/%zz": "/%zz",
        b"/a%20status=500": "/a status=500",
        b"//": "//",
    }

    def ask(self, server, path, method=b"GET"):
        return server.send_raw(method + b" " + path + b" HTTP/1.1\r\nHost: localhost\r\n"
                               b"Connection: close\r\n\r\n")

    def test_json(self):
        with Server(*JSON) as server:
            for path, logged in self.paths.items():
                before = len(request_lines(server))
                answer = self.ask(server, path)
                with self.subTest(path):
                    self.assertIn(b" 404 ", answer)
                    (line,) = request_lines(server)[before:]
                    self.assertEqual(line["path"], logged)
                    self.assertEqual((line["status"], line["code"]), (404, "not_found"))
                    json.loads(answer.split(b"\r\n\r\n", 1)[1].decode())
            self.ask(server, b"/healthz", b'ME"\\TH\xff')
            self.assertEqual(request_lines(server)[-1]["method"], 'ME"\\TH?')

    def test_text(self):
        with Server("--max-batch", 1) as server:
            before = len(server.stderr().splitlines())
            for path in self.paths:
                self.ask(server, path)
            lines = read_whole(server.log).decode(errors="strict").split("\n")[before:-1]
            self.assertEqual(len(lines), len(self.paths))
            for line, logged in zip(lines, self.paths.values()):
                self.assertTrue(line.isprintable(), line)
                quoted = logged.replace("\\", "\\\\").replace('"', '\\"')
                rest = re.fullmatch(r"\S+ info request_id=[0-9a-f]{16} method=GET path=(.*) "
                                    r"status=404 code=not_found bytes_in=0 bytes_out=\d+ "
                                    r"read_ms=[0-9.]+ total_ms=[0-9.]+", line).group(1)
                self.assertIn(rest, (quoted, f'"{quoted}"'))
                self.assertEqual(rest.startswith('"'), bool(re.search(r"[^\w/*.-]", rest, re.A)))

    def test_long_ones(self):
        with Server(*JSON) as server:
            for piece, logged in ((b"x", "x"), (b"%22", '"'), (b"%5c", "\\"), (b"%ff", "?"),
                                  (b"%0a", "?"), (b"%f0%9f%98%80", "\U0001f600")):
                for count in (300, 1000, 1022, 1023, 1024, 1025, 2000, 8000):
                    if len(piece) * count > 20000:
                        continue
                    before = len(request_lines(server))
                    self.assertIn(b" 404 ", self.ask(server, b"/" + piece * count))
                    (line,) = request_lines(server)[before:]
                    path, whole = line["path"], "/" + logged * count
                    if path != whole:
                        self.assertTrue(path.endswith("...") and whole.startswith(path[:-3]))
                        self.assertGreater(len(json.dumps(whole, ensure_ascii=False).encode()),
                                           1000)
                    self.assertLessEqual(len(path.encode()), 1024 + 3)
                    self.assertEqual(line["status"], 404)
                    self.assertIn("total_ms", line)
            self.ask(server, b"/healthz", b"M" * 5000)
            line = request_lines(server)[-1]
            self.assertEqual(line["path"], "/healthz")
            self.assertRegex(line["method"], r"\AM{200,}\.\.\.\Z")

    def test_ids(self):
        """A sane one is the client's; what is none is replaced, so it cannot break a line."""
        with Server(*JSON) as server:
            for sent, kept in (("id-1.x_Y", True), ('"', True), ("a\\", True), ("a b", False),
                               ("\u00e9", False), ("x" * 128, True), ("x" * 129, False)):
                answer = server.request("GET", "/model", X_Request_Id=sent)
                line = request_lines(server)[-1]
                self.assertEqual(line["request_id"], answer.headers["x-request-id"])
                self.assertEqual(line["request_id"] == sent, kept)

    def test_ids_in_text(self):
        """One that looks like a field, or like the end of its own, stands between quotes."""
        with Server("--max-batch", 1) as server:
            for sent in ("status=500", '"', "\\", 'x"status=500', "{a}", "a/b+c==", '"' * 128):
                server.request("GET", "/model", X_Request_Id=sent)
                line = server.stderr().splitlines()[-1]
                quoted = sent.replace("\\", "\\\\").replace('"', '\\"')
                self.assertIn(f' info request_id="{quoted}" method=GET path=/model status=200 ',
                              line)

    def test_a_body_that_is_cut_off(self):
        """Where no answer can be sent, the log says why."""
        with Server(*JSON, "--max-body-bytes", 1000) as server:
            before = len(json_lines(server))
            server.send_raw(b"POST /cl%22%0a%ff HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: id-1\r\n"
                            b"Transfer-Encoding: chunked\r\n\r\n1000\r\n" + bytes(4096))
            deadline = time.monotonic() + TIMEOUT
            while not (lines := [line for line in json_lines(server)[before:]
                                 if line["level"] == "info"]):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
            (line,) = lines
            self.assertEqual(set(line), {"time", "level", "message"})
            self.assertRegex(line["message"], r'\Aid-1 POST /cl"\?\? ?: .*1000')


class Threads(Case):
    def test_lines_do_not_mix(self):
        """Every request of many clients has its line, and every line is whole."""
        for form in (JSON, ("--max-batch", 4)):
            with Server(*form, "--max-queue", 64) as server:
                def client(number):
                    chance, sent = random.Random(number), []
                    with contextlib.closing(server.connect()) as connection:
                        for i in range(40):
                            name = f"{number}-{i}"
                            path = "/" + chance.choice("abcdef") * chance.randint(1, 900)
                            if i == 20:
                                answer = exchange(connection, "POST", "/classify", png(),
                                                  X_Request_Id=name)
                                path = "/classify"
                            else:
                                answer = exchange(connection, "GET", path, X_Request_Id=name)
                            sent.append((name, path, answer.status))
                    return sent
                sent = list(itertools.chain(*together(client, range(16))))
                if form is JSON:
                    logged = [(line["request_id"], line["path"], line["status"])
                              for line in request_lines(server) if "-" in line["request_id"]]
                else:
                    logged = [(name, path, int(status)) for name, path, status in re.findall(
                        r"^\S+ info request_id=(\d+-\d+) method=\w+ path=(\S+) status=(\d+) "
                        r".*total_ms=[0-9.]+$", server.stderr(), re.M)]
                self.assertEqual(collections.Counter(logged), collections.Counter(sent))


if __name__ == "__main__":
    unittest.main()
