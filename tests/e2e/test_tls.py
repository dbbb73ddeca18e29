"""HTTPS: requests as over HTTP, files that cannot be used, and clients that speak no TLS or stop in
the middle of it."""

import contextlib
import http.client
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest
import warnings

from vitserve import (MODEL, SANITIZED, TIMEOUT, Case, Server, exchange, multipart, png,
                      read_answer, receive_all, run, together)

IDLE = ("--idle-timeout-ms", 1000)


def setUpModule():
    """Two certificates of 127.0.0.1, and their keys."""
    if not shutil.which("openssl"):
        raise unittest.SkipTest("openssl is not installed")
    global FOLDER
    FOLDER = pathlib.Path(unittest.enterModuleContext(tempfile.TemporaryDirectory()))
    for name, kind in (("ec", ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")),
                       ("rsa", ("rsa:2048",))):
        subprocess.run(["openssl", "req", "-x509", "-newkey", *kind, "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
                        "-keyout", FOLDER / f"{name}.key", "-out", FOLDER / f"{name}.crt"],
                       check=True, capture_output=True, timeout=TIMEOUT)


class TlsServer(Server):
    scheme = "https"

    def __init__(self, *options, cert="ec", **others):
        self.context = ssl.create_default_context(cafile=FOLDER / f"{cert}.crt")
        super().__init__("--max-batch", 2, "--tls-cert", FOLDER / f"{cert}.crt", "--tls-key",
                         FOLDER / f"{cert}.key", *options, **others)

    def connect(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=TIMEOUT,
                                           context=self.context)


class Requests(Case):
    def test_answers(self):
        for cert in ("ec", "rsa"):
            with TlsServer(cert=cert) as server:
                self.check_good(server)
                self.assertEqual(server.request("GET", "/healthz").json, {"status": "ok"})
                self.check_error(server.request("GET", "/nowhere"), 404, "not_found")
                self.check_error(server.classify(b"x"), 415, "unsupported_image")

    def test_the_same_as_without(self):
        pictures = [png(60, 50, seed=i) for i in range(4)]
        kind, form = multipart([(str(i), picture) for i, picture in enumerate(pictures)])
        with TlsServer() as server, Server("--max-batch", 2) as plain:
            for _ in range(2):
                answer = server.classify(form, "?logits=1", Content_Type=kind)
                self.assertEqual(answer.status, 200)
                self.assertEqual(answer.results,
                                 plain.classify(form, "?logits=1", Content_Type=kind).results)

    def test_keep_alive_and_many_clients(self):
        def client(number):
            with contextlib.closing(server.connect()) as connection:
                return {exchange(connection, "POST", "/classify", png(seed=number)).status
                        for _ in range(2)}
        with TlsServer("--max-queue", 64) as server:
            self.assertEqual(together(client, range(16)), [{200}] * 16)

    def test_a_large_body(self):
        with TlsServer() as server:
            answer = server.classify(png(1500, 1200))  # 5 MB that do not compress
            self.assertEqual(answer.results[0]["width"], 1500)
            self.check_error(server.classify(None, Content_Length="99999999999"), 413,
                             "body_too_large")

    def test_a_refusal_while_the_client_sends(self):
        with TlsServer("--max-body-bytes", 1 << 20) as server:
            for _ in range(5):
                with contextlib.closing(server.connect()) as connection:
                    connection.putrequest("POST", "/classify")
                    connection.putheader("Content-Length", str(5 << 20))
                    connection.endheaders()
                    connection.send(bytes(5 << 20))
                    answer = read_answer(connection.getresponse())
                    self.check_error(answer, 413, "body_too_large")

    def test_versions(self):
        with TlsServer() as server:
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                server.context.minimum_version = server.context.maximum_version = version
                self.assertEqual(server.request("GET", "/healthz").status, 200)
            for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
                self.refuses(server, version, "ALL:@SECLEVEL=0")
            # A client that does not know the certificate is told which one it is.
            server.context = ssl.create_default_context(cafile=FOLDER / "rsa.crt")
            with self.assertRaises(ssl.SSLCertVerificationError):
                server.request("GET", "/healthz")

    def refuses(self, server, version, ciphers):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            server.context = ssl.create_default_context(cafile=FOLDER / "rsa.crt")
            server.context.minimum_version = server.context.maximum_version = version
            server.context.set_ciphers(ciphers)
        with self.assertRaises(OSError) as raised:
            server.request("GET", "/healthz")
        self.assertNotIsInstance(raised.exception, ssl.SSLCertVerificationError)

    def test_no_keys_under_rsa(self):
        with TlsServer(cert="rsa") as server:
            self.refuses(server, ssl.TLSVersion.TLSv1_2, "kRSA:@SECLEVEL=0")
            server.context.set_ciphers("ECDHE")
            self.assertEqual(server.request("GET", "/healthz").status, 200)

    def test_with_a_key(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"secret-key\n")
            file.flush()
            with TlsServer("--api-key-file", file.name) as server:
                answer = server.classify(png())
                self.check_error(answer, 401, "unauthorized")
                self.assertEqual(answer.headers["www-authenticate"], "Bearer")
                answer = server.classify(png(), Authorization="Bearer secret-key")
                self.assertEqual(answer.status, 200)


class Clients(Case):
    def test_plain_http(self):
        with TlsServer() as server:
            for data in (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\0" * 1000, b"\n",
                         b"\x16\x03\x01\x40\x00" + bytes(1000)):
                start = time.monotonic()
                answer = server.send_raw(data, half_close=True)
                self.assertNotIn(b"HTTP", answer)
                self.assertLess(time.monotonic() - start, TIMEOUT / 2)
            self.check_good(server)

    def test_handshakes_that_stall(self):
        """Neither silence nor a byte now and then keeps a connection before its handshake is done;
        the others are served meanwhile."""
        with TlsServer(*IDLE) as server, contextlib.ExitStack() as stack:
            threads, descriptors = server.threads(), server.descriptors()
            sockets = [stack.enter_context(server.open_socket()) for _ in range(20)]
            for connection in sockets[::2]:
                connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
            start = time.monotonic()
            self.check_good(server)
            slow, closed = sockets[0], False
            while not closed and time.monotonic() < start + TIMEOUT:
                with contextlib.suppress(ConnectionError):
                    slow.sendall(b"\0")
                    time.sleep(0.2)
                    continue
                closed = True
            self.assertTrue(closed)
            for connection in sockets[1:]:
                receive_all(connection)
            self.assertLess(time.monotonic() - start, 4 * (5 if SANITIZED else 1))
            self.check_settled(server, threads, descriptors)
            self.check_good(server)

    def check_settled(self, server, threads, descriptors):
        self.until(lambda: server.threads() <= threads and server.descriptors() <= descriptors)

    def test_idle_after_the_handshake(self):
        with TlsServer(*IDLE) as server, contextlib.closing(server.connect()) as connection:
            self.assertEqual(exchange(connection, "GET", "/healthz").status, 200)
            start = time.monotonic()
            with contextlib.suppress(ssl.SSLError):
                self.assertEqual(connection.sock.recv(100), b"")
            self.assertLess(time.monotonic() - start, 4 * (5 if SANITIZED else 1))

    def test_clients_that_vanish(self):
        with TlsServer(*IDLE) as server:
            threads, descriptors = server.threads(), server.descriptors()
            for cut in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
                for _ in range(10):
                    with server.open_socket() as connection:
                        connection.sendall(cut)
            for _ in range(10):
                connection = server.connect()
                connection.putrequest("POST", "/classify")
                connection.putheader("Content-Length", "100000")
                connection.endheaders()
                connection.send(bytes(5000))
                connection.sock.shutdown(socket.SHUT_RDWR)
                connection.close()
            self.check_settled(server, threads, descriptors)
            self.check_good(server)

    def test_stop(self):
        """Nothing of TLS holds a stop: not a stalled handshake, not an idle connection."""
        with TlsServer() as server, contextlib.ExitStack() as stack:
            stalled = stack.enter_context(server.open_socket())
            stalled.sendall(b"\x16\x03\x01\x02\x00")
            idle = stack.enter_context(contextlib.closing(server.connect()))
            self.assertEqual(exchange(idle, "GET", "/healthz").status, 200)
            start = time.monotonic()
            self.assertEqual(server.stop(signal.SIGTERM), 0)
            self.assertLess(time.monotonic() - start, 3 * (5 if SANITIZED else 1))


class Files(Case):
    def check_fails(self, code, cert, key, *names):
        options = []
        for option, path in (("--tls-cert", cert), ("--tls-key", key)):
            options += [option, path] if path else []
        # GnuTLS itself leaks a part of a certificate that it cannot read.
        finished = run("serve", *MODEL, "--port", 0, *options, ASAN_OPTIONS="detect_leaks=0")
        self.assertEqual(finished.returncode, code, finished.stderr)
        self.assertEqual(finished.stdout, "")
        for name in names:
            self.assertIn(str(name), finished.stderr)
        self.assertNotIn("MII", finished.stderr)

    def test_one_without_the_other(self):
        self.check_fails(2, FOLDER / "ec.crt", None, "--tls-key")
        self.check_fails(2, None, FOLDER / "ec.key", "--tls-cert")

    def test_unreadable(self):
        missing, empty = FOLDER / "missing", FOLDER / "empty"
        empty.touch()
        for bad, code, word in ((missing, 1, "No such file"), (FOLDER, 1, "directory"),
                                (empty, 2, "empty")):
            self.check_fails(code, bad, FOLDER / "ec.key", bad, word)
            self.check_fails(code, FOLDER / "ec.crt", bad, bad, word)

    def test_not_pem(self):
        der = FOLDER / "der"
        subprocess.run(["openssl", "x509", "-in", FOLDER / "ec.crt", "-outform", "DER", "-out",
                        der], check=True, timeout=TIMEOUT)
        text = FOLDER / "text"
        text.write_text("no certificate\n", encoding="ascii")
        for bad in (der, text):
            self.check_fails(2, bad, FOLDER / "ec.key", bad)
            self.check_fails(2, FOLDER / "ec.crt", bad, bad)
        self.check_fails(2, FOLDER / "ec.key", FOLDER / "ec.crt", FOLDER / "ec.key", "PEM")

    def test_do_not_fit(self):
        self.check_fails(2, FOLDER / "ec.crt", FOLDER / "rsa.key", "--tls-cert", "--tls-key")
        for name in ("ec.crt", "ec.key"):
            cut = FOLDER / ("cut-" + name)
            lines = (FOLDER / name).read_text(encoding="ascii").splitlines(True)
            cut.write_text("".join(lines[:2] + lines[3:]), encoding="ascii")
            files = {"ec.crt": FOLDER / "ec.crt", "ec.key": FOLDER / "ec.key", name: cut}
            self.check_fails(2, files["ec.crt"], files["ec.key"], "--tls-cert", "--tls-key")

    def test_the_key_is_not_kept(self):
        """Its text is nowhere in the memory of the running server."""
        secret = (FOLDER / "ec.key").read_bytes().splitlines()[1][:40]
        with TlsServer() as server:
            self.check_good(server)
            found = 0
            with open(f"/proc/{server.process.pid}/maps", encoding="ascii") as maps, \
                    open(f"/proc/{server.process.pid}/mem", "rb") as memory:
                for line in maps:
                    span, rights = line.split()[:2]
                    first, last = (int(word, 16) for word in span.split("-"))
                    if rights.startswith("rw") and last - first < 1 << 30:
                        memory.seek(first)
                        found += memory.read(last - first).count(secret)
            self.assertEqual(found, 0)


if __name__ == "__main__":
    unittest.main()
