"""vitserve pull, from a server on the loopback that cuts, stalls, refuses and lies."""

import contextlib
import hashlib
import http.server
import os
import pathlib
import pty
import random
import resource
import select
import signal
import subprocess
import tempfile
import threading
import time
import unittest

from vitserve import BINARY, TIMEOUT, Case, environment, run

DATA = random.Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = "vit_b_32"
PUBLISHED = "d86f8d99"  # the catalogue's digits of its SHA-256


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends server.data as the fields of the server say."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        server.ranges.append(wanted)
        start = int(wanted[6:-1]) if wanted and server.knows_ranges else 0
        if server.status != 200 or (wanted and start >= len(server.data)):
            self.send_response(416 if server.status == 200 else server.status)
            if server.location:
                self.send_header("Location", server.location)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"sorry")
            return
        self.send_response(206 if start else 200)
        self.close_connection = bool(server.endless or server.length)
        if server.endless:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(server.length or len(server.data) - start))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            while server.sent_bytes < server.endless:
                self.wfile.write(server.data)
                server.sent_bytes += len(server.data)
            if server.sends is None:
                self.wfile.write(server.data[start:])
            else:
                self.wfile.write(server.data[start:start + server.sends])
                self.wfile.flush()
                server.sent.set()
                server.go_on.wait(TIMEOUT)
                self.close_connection = True

    def log_message(self, *_):
        pass


class Files(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.knows_ranges, self.status, self.location = DATA, True, 200, None
        self.length = None  # what an answer says of its length, where that is a lie
        self.endless = self.sent_bytes = 0  # bytes of an answer without a length: the data repeated
        self.sends = None  # bytes of an answer before it waits for go_on and is cut
        self.sent, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.ranges = []  # what each request asked for

    def handle_error(self, *_):
        pass  # the program is free to hang up

    def url(self, name=NAME + "-0.pth"):
        return f"http://127.0.0.1:{self.server_port}/models/{name}"


class PullCase(Case):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "a" / "b"
        self.use(f"{NAME}.pth")
        self.files = self.enterContext(Files())
        thread = threading.Thread(target=self.files.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.files.shutdown)

    def use(self, name):
        self.file = self.folder / name
        self.part, self.record = self.folder / f"{name}.part", self.folder / f"{name}.sha256"

    def command(self, *options, name=NAME, digest=SHA256):
        """digest: None for the catalogue's 8 digits."""
        known = ("--sha256", digest) if digest else ()
        return ("pull", name, "--dir", str(self.folder), "--url", self.files.url(), *known, *options)

    def pull(self, *options, **arguments):
        return run(*self.command(*options, **arguments), no_proxy="127.0.0.1")

    def start(self, **arguments):
        return subprocess.Popen([BINARY, *self.command()], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, env=environment(no_proxy="127.0.0.1"),
                                **arguments)

    def check_done(self, finished, data=DATA, warning=""):
        self.assertEqual(finished.returncode, 0, finished.stderr)
        self.assertRegex(finished.stderr, rf"\A{warning}\Z")
        self.assertEqual(self.file.read_bytes(), data)
        self.assertIn(str(self.file), finished.stdout)
        self.assertIn(sha256(data), finished.stdout)
        self.assertEqual(self.record.read_text(), f"{sha256(data)}  {self.file.name}\n")
        self.assertEqual(sorted(os.listdir(self.folder)), [self.file.name, self.record.name])

    def check_failed(self, finished, *words, code=1, kept=None):
        self.assertEqual((finished.returncode, finished.stdout), (code, ""))
        self.assertEqual(finished.stderr.count("\n"), 1, finished.stderr)
        for word in words:
            self.assertIn(word, finished.stderr)
        self.assertFalse(self.file.exists())
        if kept is None:
            self.assertFalse(self.part.exists())
        else:
            self.assertEqual(self.part.read_bytes(), DATA[:kept])


class Good(PullCase):
    def test_new_directory(self):
        self.check_done(self.pull())
        self.assertEqual(self.files.ranges, [None])

    def test_sha256sum_reads_the_record(self):
        self.check_done(self.pull())
        finished = subprocess.run(["sha256sum", "--check", "--strict", self.record.name],
                                  cwd=self.folder, capture_output=True, text=True, check=False)
        self.assertEqual((finished.returncode, finished.stdout), (0, f"{self.file.name}: OK\n"))

    def mode(self, path):
        return path.stat().st_mode & 0o777

    def test_modes(self):
        process = self.start(stderr=subprocess.PIPE, umask=0)
        self.assertEqual(process.communicate(timeout=TIMEOUT)[1], b"")
        for path, mode in ((self.folder.parent, 0o755), (self.folder, 0o755), (self.file, 0o644),
                           (self.record, 0o644)):
            self.assertEqual(self.mode(path), mode, path)

    def test_modes_under_a_strict_umask(self):
        process = self.start(stderr=subprocess.PIPE, umask=0o077)
        self.assertEqual(process.communicate(timeout=TIMEOUT)[1], b"")
        self.assertEqual((self.mode(self.folder), self.mode(self.file)), (0o700, 0o600))

    def test_others_no_longer_write_to_the_part(self):
        self.folder.mkdir(parents=True)
        self.part.write_bytes(DATA[:1000])
        self.part.chmod(0o666)
        self.check_done(self.pull())
        self.assertEqual(self.mode(self.file), 0o644)

    def test_weights_dir_and_environment(self):
        finished = run("pull", NAME, VITSERVE_WEIGHTS_DIR="~/b", HOME=str(self.folder.parent),
                       VITSERVE_URL=self.files.url(), VITSERVE_SHA256=SHA256,
                       no_proxy="127.0.0.1")
        self.check_done(finished)

    def test_the_suffix_is_that_of_the_url(self):
        self.use(f"{NAME}.safetensors")
        finished = run("pull", NAME, "--dir", self.folder, "--sha256", SHA256, "--url",
                       self.files.url("x.safetensors"), no_proxy="127.0.0.1")
        self.check_done(finished)

    def test_not_again(self):
        self.check_done(self.pull())
        before = self.file.stat()
        finished = self.pull()
        self.check_done(finished)
        self.assertIn("already", finished.stdout)
        self.assertEqual(len(self.files.ranges), 1)
        self.assertEqual(self.file.stat().st_ino, before.st_ino)

    def test_another_file_of_that_name_stays(self):
        self.folder.mkdir(parents=True)
        self.file.write_bytes(b"mine")
        finished = self.pull()
        self.assertEqual(finished.returncode, 1)
        self.assertIn(f"{self.file} is another file", finished.stderr)
        self.assertEqual(self.file.read_bytes(), b"mine")
        self.assertEqual(os.listdir(self.folder), [self.file.name])
        self.assertEqual(self.files.ranges, [])


class Resume(PullCase):
    def cut_after(self, count):
        self.files.sends = count
        self.check_failed(self.pull(), f"{count / 1e6:.1f} MB are kept", kept=count)
        self.files.sends = None

    def test_goes_on_where_it_was_cut(self):
        self.cut_after(1_000_000)
        self.check_done(self.pull())
        self.assertEqual(self.files.ranges, [None, "bytes=1000000-"])

    def test_a_server_without_ranges_starts_over(self):
        self.cut_after(1_000_000)
        self.files.knows_ranges = False
        self.check_done(self.pull())
        self.assertEqual(self.files.ranges[1], "bytes=1000000-")

    def test_a_server_without_ranges_and_a_part_that_is_too_long(self):
        self.folder.mkdir(parents=True)
        self.part.write_bytes(DATA + b"x" * 1000)
        self.files.knows_ranges = False
        self.check_done(self.pull())

    def test_only_the_name_was_missing(self):
        self.folder.mkdir(parents=True)
        self.part.write_bytes(DATA)
        self.check_done(self.pull())
        self.assertEqual(self.files.ranges, [f"bytes={len(DATA)}-"])

    def test_a_part_of_something_else_is_thrown_away(self):
        self.folder.mkdir(parents=True)
        self.part.write_bytes(b"x" * 1000)
        self.check_failed(self.pull(), "SHA-256", SHA256)
        self.check_done(self.pull())

    def test_a_part_that_is_too_long_is_thrown_away(self):
        self.folder.mkdir(parents=True)
        self.part.write_bytes(DATA + b"x")
        self.check_failed(self.pull(), "SHA-256", SHA256)

    def test_an_error_keeps_the_part(self):
        self.cut_after(1_000_000)
        self.files.status = 503
        self.check_failed(self.pull(), "HTTP status 503", "1.0 MB are kept", kept=1_000_000)

    def interrupt(self, number):
        self.files.sends = 2_000_000
        self.files.go_on.clear()
        self.addCleanup(self.files.go_on.set)
        process = self.start(stderr=subprocess.PIPE, text=True)
        self.assertTrue(self.files.sent.wait(TIMEOUT))
        self.until(lambda: self.part.exists() and self.part.stat().st_size >= 2_000_000)
        process.send_signal(number)
        output, errors = process.communicate(timeout=TIMEOUT)
        self.check_failed(subprocess.CompletedProcess("", process.returncode, output, errors),
                          "interrupted", "2.0 MB are kept", kept=2_000_000)

    def test_interrupted(self):
        self.interrupt(signal.SIGINT)
        self.files.sends = None
        self.check_done(self.pull())
        self.assertEqual(self.files.ranges, [None, "bytes=2000000-"])

    def test_terminated(self):
        self.interrupt(signal.SIGTERM)

    def test_one_at_a_time(self):
        self.files.sends = 1000
        self.files.go_on.clear()
        self.addCleanup(self.files.go_on.set)
        process = self.start(stderr=subprocess.DEVNULL)
        self.assertTrue(self.files.sent.wait(TIMEOUT))
        finished = self.pull()
        self.files.go_on.set()
        process.communicate(timeout=TIMEOUT)
        self.assertEqual((finished.returncode, process.returncode), (1, 1))
        self.assertIn("another pull", finished.stderr)


class Bad(PullCase):
    def test_wrong_content(self):
        self.files.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
        self.check_failed(self.pull(), "SHA-256", sha256(self.files.data), SHA256)
        self.files.data = b""
        self.check_failed(self.pull(), "SHA-256", SHA256)

    def test_http_errors(self):
        for status in (404, 403, 500):
            self.files.status = status
            self.check_failed(self.pull(), self.files.url(), f"HTTP status {status}")

    def test_redirects_to_https_alone(self):
        other = self.enterContext(Files())
        thread = threading.Thread(target=other.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(other.shutdown)
        for url in (other.url(), "file:///etc/hostname", "ftp://127.0.0.1/x"):
            self.files.status, self.files.location = 302, url
            self.check_failed(self.pull(), self.files.url())
        self.assertEqual(other.ranges, [])

    def test_nobody_there(self):
        finished = run("pull", NAME, "--dir", self.folder, "--sha256", SHA256, "--url",
                       "http://127.0.0.1:1/x.pth", no_proxy="127.0.0.1")
        self.check_failed(finished, "http://127.0.0.1:1/x.pth")

    def test_urls_that_are_refused(self):
        for url in ("http://example.invalid/x.pth", "http://127.0.0.1.example.invalid/x.pth",
                    "http://127.0.0.1:1@example.invalid/x.pth", "http://localhost/x.pth",
                    "ftp://127.0.0.1/x.pth", "file:///x.pth", "x.pth", "https://a/x.zip",
                    "https://a"):
            finished = run("pull", NAME, "--dir", self.folder, "--url", url)
            self.check_failed(finished, "--url", url, code=2)

    def test_usage(self):
        for arguments, word in (((), "one model"), ((NAME, NAME), "one model"),
                                (("nonsense",), "deit_tiny_patch16_224"),
                                ((NAME, "--sha256", PUBLISHED), "not 64 lower-case hex digits"),
                                ((NAME, "--sha256", SHA256[:63]), "--sha256"),
                                ((NAME, "--sha256", SHA256 + "0"), "--sha256"),
                                ((NAME, "--sha256", SHA256.upper()), "--sha256"),
                                ((NAME, "--port", "1"), "--port")):
            self.check_failed(run("pull", *arguments, "--dir", self.folder), word, code=2)

    def test_models_without_a_download(self):
        self.check_failed(run("pull", "fashion_vit"), "built in")
        self.check_failed(run("pull", "vit_h_14"), "vit_h_14", "--url", "--sha256")

    def test_no_room(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        process = self.start(stderr=subprocess.PIPE, text=True, preexec_fn=limit)
        output, errors = process.communicate(timeout=TIMEOUT)
        self.check_failed(subprocess.CompletedProcess("", process.returncode, output, errors),
                          f"{self.part}: File too large", "1.0 MB are kept", kept=1_000_000)
        self.check_done(self.pull())

    def test_a_directory_that_cannot_be(self):
        self.folder.parent.mkdir()
        self.folder.write_bytes(b"")
        finished = self.pull()
        self.assertEqual(finished.returncode, 1)
        self.assertIn(str(self.folder), finished.stderr)
        self.assertEqual(self.files.ranges, [])


class Progress(PullCase):
    def test_bar_on_a_terminal(self):
        self.files.sends = 1_500_000
        self.files.go_on.clear()
        self.addCleanup(self.files.go_on.set)
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        process = self.start(stderr=theirs)
        os.close(theirs)
        self.assertTrue(self.files.sent.wait(TIMEOUT))
        shown, deadline = b"", time.monotonic() + TIMEOUT
        while b" 50 %  1.5 of 3.0 MB" not in shown:
            self.assertLess(time.monotonic(), deadline, shown)
            if select.select([ours], [], [], 0.1)[0]:
                shown += os.read(ours, 4096)
        self.files.go_on.set()
        process.communicate(timeout=TIMEOUT)
        with contextlib.suppress(OSError):  # the end of a terminal
            while piece := os.read(ours, 4096):
                shown += piece
        self.assertRegex(shown, rb"\r\[#{15} {15}\]  50 %  1\.5 of 3\.0 MB  \d+\.\d MB/s")
        self.assertRegex(shown, rb"\r\x1b\[Kvitserve: [^\r]*\r\n\Z")


if __name__ == "__main__":
    unittest.main()
