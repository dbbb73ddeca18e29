"""What RFC 9110 and 9112 ask of a server, and what proxies and clients send: targets, hosts, the
names and values of headers. None of it depends on how strict the HTTP library is by default."""

import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from vitserve import Server, ServerCase, jpeg, png

KEY = "a-key-of-the-test"
HIDDEN = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"  # as the body of another request


def statuses(answer):
    """Of every final answer; libmicrohttpd 0.9.75 sends the head of one of its own twice."""
    found = re.findall(rb"HTTP/1\.1 ([2-5]\d\d) ", answer)
    twice = b"<html>" in answer and found[-2:-1] == found[-1:]
    return [int(status) for status in (found[1:] if twice else found)]


class ProtocolCase(ServerCase):
    options = ("--max-batch", 2)
    model = ()

    def ask(self, target, method="GET", *headers, version="1.1", host="Host: localhost", body=b""):
        """The statuses of all the answers to one request, and the last answer."""
        head = [f"{method} {target} HTTP/{version}", host, "Connection: close", *headers]
        if body and not any(line.lower().startswith("content-length") for line in headers):
            head.append(f"Content-Length: {len(body)}")
        data = "\r\n".join(line for line in head if line is not None).encode("latin-1")
        answer = self.server.send_raw(data + b"\r\n\r\n" + body)
        return statuses(answer), answer

    def check(self, status, *arguments, **options):
        with self.subTest(arguments, host=options.get("host"), version=options.get("version")):
            got, answer = self.ask(*arguments, **options)
            self.assertEqual(got, [status], answer[:500])
            return answer


class Targets(ProtocolCase):
    def setUp(self):
        document = self.server.request("GET", "/openapi.json").json
        self.routes = [(path.format(name="fashion_vit", version="1"), method.upper())
                       for path, item in document["paths"].items() for method in item
                       if method in ("get", "post", "put")]
        self.routes += [(path, "GET") for path in ("/", "/app.js", "/style.css", "/favicon.svg")]
        self.assertGreater(len(self.routes), 20)

    def good(self, path, method):
        if path.endswith("/infer"):
            tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 28, 28, 3]}
            text = json.dumps({"inputs": [tensor | {"data": [0] * 28 * 28 * 3}]})
            return {"method": method, "body": text.encode()}
        return {"method": method, "body": png() if method != "GET" else b""}

    def test_every_form_of_every_route(self):
        for path, method in self.routes:
            answers = set()
            targets = [path, path + "?x=y"] + ([path + "/"] if path != "/" else [])
            targets += [prefix + target for target in targets
                        for prefix in ("http://h", "HTTPS://h:1")]
            for target in targets:
                with self.subTest(f"{method} {target}"):
                    got, answer = self.ask(target, **self.good(path, method))
                    answers.add((tuple(got), re.search(rb"\r\nContent-Type: (.*)\r", answer)[1]))
            self.assertEqual(len(answers), 1, (path, answers))

    def test_absolute_forms(self):
        for target, status in (("http://x", 200), ("http://x?top_k=1", 200), ("http://x/", 200),
                               ("http://u:p@[::1]:80/healthz", 200), ("hTTp://x/healthz", 200),
                               ("http://x/nowhere", 404), ("http://x//healthz", 404),
                               ("http:///healthz", 404), ("http:/healthz", 404),
                               ("ftp://x/healthz", 404), ("x/healthz", 404),
                               ("/http://x/healthz", 404), ("http://x/healthz//", 404)):
            self.check(status, target)
        for target in ("http://x", "*"):
            self.assertIn(b"PUT", self.check(200, target, "OPTIONS"))
        answer = self.check(200, "http://x/classify?top_k=2", "POST", body=png())
        (result,) = json.loads(answer.split(b"\r\n\r\n")[1])["results"]
        self.assertEqual(len(result["predictions"]), 2)
        answer = self.check(404, "http://x/v2/models/other")
        self.assertIn(b'no model \\"other\\"', answer)

    def test_they_need_a_key_where_the_path_does(self):
        with tempfile.NamedTemporaryFile("w") as keys:
            keys.write(KEY)
            keys.flush()
            with Server(*self.options, "--api-key-file", keys.name, model=()) as server:
                for prefix in ("", "http://x", "http://user@healthz"):
                    for end in ("", "/"):
                        for path, status in (("/healthz", 200), ("/model", 401),
                                             ("/v2/models/fashion_vit", 401)):
                            answer = server.send_raw(
                                f"GET {prefix}{path}{end} HTTP/1.1\r\nHost: localhost\r\n"
                                "Connection: close\r\n\r\n".encode())
                            self.assertEqual(statuses(answer), [status], (prefix, path, end))
                # A refusal for the head comes before that for the key, and closes.
                answer = server.send_raw(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length : "
                                         b"%d\r\n\r\n" % len(HIDDEN) + HIDDEN)
                self.assertEqual(statuses(answer), [400])

    def test_put(self):
        for path, status in (("/classify", 200), ("/classify/", 200), ("/preprocess", 405),
                             ("/model", 405), ("/v2/models/fashion_vit/infer", 405)):
            answer = self.check(status, path, "PUT", body=png())
            if status == 405:
                self.assertNotIn(b"PUT", re.search(rb"Allow: (.*)\r", answer)[1])
        for method in ("PU", "PUTT", "PUT,", "POST, PUT", "put", "P"):
            got, _ = self.ask("/classify", method)
            self.assertNotIn(200, got)


@unittest.skipUnless(shutil.which("curl"), "no curl")
class Curl(ProtocolCase):
    def test_uploads(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "picture.jpg")
            path.write_bytes(jpeg())
            server = f"http://127.0.0.1:{self.server.port}"
            for arguments in (("-T", path), ("-F", f"f=<{path}"),
                              ("-F", f"f=@{path};encoder=base64"),
                              ("-F", "comment=x", "-F", f"f=@{path}", "-F", "top_k=1"),
                              ("-F", f"f=@{path};filename="), ("-x", server, "-T", path)):
                done = subprocess.run(["curl", "-sS", *map(str, arguments), server + "/classify"],
                                      check=True, stdout=subprocess.PIPE, timeout=60)
                (result,) = json.loads(done.stdout)["results"]
                self.assertEqual((result["width"], result["height"]), (64, 48), arguments)


class Hosts(ProtocolCase):
    def test_http_1_1_needs_one(self):
        self.check(400, "/healthz", host=None)
        self.check(400, "http://x/healthz", host=None)
        self.check(400, "/classify", "POST", host=None, body=png())
        for version, status in (("1.1", 400), ("1.0", 400)):
            self.check(status, "/healthz", "GET", "Host: localhost", version=version)
            self.check(status, "/healthz", "GET", "hOST: y", version=version)
        self.check(200, "/healthz", host=None, version="1.0")
        self.check(200, "/healthz", version="1.0")

    def test_what_it_holds(self):
        for value in ("", " ", "x", "localhost:80", "[::1]:8080", "a_b", "%41", " x\t", "127.0.0.1"):
            self.check(200, "/healthz", host="Host:" + value)
        for value in ("example.org", "example.org:80", " a.b\t"):
            self.check(421, "/healthz", host="Host:" + value)
            self.check(200, "http://example.org/healthz", host="Host:" + value)
        for value in ("a b", "x/y", "user@x", "a, b", "x\\", "http://x", "x?y", '"x"', "\xe9"):
            self.check(400, "/healthz", host="Host: " + value)


    def test_names_that_are_allowed(self):
        """Those of another site are not, so that its pages cannot make a name of theirs mean us."""
        picture = png()
        with Server("--allowed-hosts", "a.example,b.example", "--admin-port", 0,
                    model=()) as server:
            for name, status in (("a.example", 200), ("B.example:8080", 200), ("localhost", 200),
                                 ("c.example", 421), ("127.0.0.1.c.example", 421)):
                answer = server.request("POST", "/classify", picture, Host=name)
                self.assertEqual(answer.status, status, name)
                if status == 421:
                    self.check_error(answer, 421, "misdirected_request")
                    self.assertIn("--allowed-hosts", answer.json["error"])
        with Server("--allowed-hosts", "*", model=()) as server:
            self.assertEqual(server.request("GET", "/healthz", Host="c.example").status, 200)


class Headers(ProtocolCase):
    def test_names(self):
        """No second answer for what a proxy takes for the body."""
        length = f"Content-Length : {len(HIDDEN)}"
        for line in (length, length.replace(" :", "\t:"), length.replace(" :", "  :"),
                     length.replace("nt-L", "nt L"), "Transfer-Encoding : chunked",
                     "Transfer-Encoding\t: chunked", length.replace(" :", "\v:"),
                     length.replace(" :", "\x01:"), "X Y: z", "X(Y): z", "X\xe9: z", "X,: z",
                     "X@: z"):
            self.check(400, "/classify", "POST", line, body=HIDDEN)
            for method in ("POST", "GET", "DELETE"):
                self.assertEqual(self.keep_alive(line, method), [400])
        for line in ("Content-Length: 5\r", "X: a\rContent-Length: 9"):
            self.assertNotIn(200, self.keep_alive(line))
        for line in ("x-!#$%&'*+-.^_`|~09: y", "X:", "X:y", "X: : y", "X:\ty z, (\xe9)"):
            self.check(200, "/healthz", "GET", line)

    def keep_alive(self, line, method="POST"):
        head = f"{method} /classify HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n".encode("latin-1")
        return statuses(self.server.send_raw(head + HIDDEN, half_close=True))

    def test_folded_lines(self):
        """Taken as one line, or refused: never is a body another request."""
        size = len(HIDDEN)
        for line in (f"Content-Length:\r\n {size}", f"Content-Length: {size}\r\n\t",
                     f"Content-Length: {size // 10}\r\n {size % 10}",
                     "Transfer-Encoding:\r\n chunked", f"X: a\r\nContent-Length:\r\n\t{size}"):
            with self.subTest(line):
                self.assertEqual(self.keep_alive(line)[1:], [])
        self.assertEqual(self.keep_alive(f" Content-Length: {size}")[1:], [])

    def test_blanks_around_values(self):
        size, picture = len(png()), png()
        for blank in (" ", "\t", " \t  ", ""):
            for before in (" ", "", "\t \t"):
                def line(name, value, blanks=(before, blank)):
                    return f"{name}:{blanks[0]}{value}{blanks[1]}"
                self.check(200, "/classify", "POST", line("Content-Length", size), body=picture)
                self.check(200, "/classify", "POST", line("Content-Length", size),
                           line("Content-Type", "image/png"), line("Content-Encoding", "identity"),
                           line("Expect", "100-continue"), body=picture, host=line("Host", "localhost"))
                answer = self.check(200, "/healthz", "GET", line("X-Request-Id", "id-1"))
                self.assertIn(b"X-Request-Id: id-1\r\n", answer)
                answer = self.check(200, "/model", "GET", line("Accept", "text/markdown"))
                self.assertIn(b"Content-Type: text/markdown", answer)
                self.check(200, "/v2/models/fashion_vit/infer", "POST",
                           line("Inference-Header-Content-Length", "0"), body=picture)
                chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (size, picture)
                answer = self.server.send_raw(
                    "POST /classify HTTP/1.1\r\nHost: localhost\r\n"
                    f"{line('Transfer-Encoding', 'chunked')}\r\n{line('Connection', 'close')}\r\n\r\n".encode() + chunk)
                self.assertEqual(statuses(answer), [200])
        for value in ("5 5", "5\t5", "5,", "+5", " ", "chunked "):
            self.check(400, "/classify", "POST", "Content-Length: " + value, body=picture)


if __name__ == "__main__":
    unittest.main()
