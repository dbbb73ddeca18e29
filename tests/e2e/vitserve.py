"""What the black-box tests share: the server as a process, a small HTTP client, test pictures.

The binary is named by VITSERVE_BINARY; VITSERVE_SANITIZED=1 says that it was built with sanitizers
(slower, and its memory tells nothing). Only the standard library is used.
"""

import collections
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import random
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest
import zlib

HERE = pathlib.Path(__file__).resolve().parent
BINARY = os.environ.get("VITSERVE_BINARY", str(HERE.parents[1] / "build" / "vitserve"))
SANITIZED = os.environ.get("VITSERVE_SANITIZED") == "1"
TIMEOUT = 120 if SANITIZED else 30
MODEL = ("--model", "deit_tiny_patch16_224", "--random-weights", "1", "--device", "cpu")
# What a server runs whose test does not care. Sanitizers make a forward pass ten times as slow, and
# test_kernels and test_vit have run it under them: there it is the built-in model, a hundredth of it.
ANY_MODEL = ("--device", "cpu") if SANITIZED else MODEL
GOLDEN_IMAGES = HERE.parent / "golden" / "images"


# ---- the program --------------------------------------------------------------------------------

def environment(**variables):
    """The environment without the VITSERVE_ variables of the tests, and with these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VITSERVE_")}
    clean.update(variables)
    return clean


def run(*arguments, **variables):
    """Runs the program to its end."""
    return subprocess.run([BINARY, *map(str, arguments)], env=environment(**variables),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=TIMEOUT, check=False)


def read_whole(file):
    """The bytes of a file that a process still writes to. The offset is not moved: it is shared."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


class Server:
    """vitserve serve on a free port of the loopback; a context manager that stops it, checks its
    exit code and leaves no process behind."""
    scheme = "http"

    def __init__(self, *options, model=ANY_MODEL, variables=None, wait=True, port=0, log=None):
        self.log = log or tempfile.TemporaryFile()
        self.says_ready = not log and not {"warning", "error"} & set(options)
        patience = ("--request-timeout-ms", "600000") if SANITIZED else ()
        command = [BINARY, "serve", *model, *patience, "--port", str(port), *map(str, options)]
        self.process = subprocess.Popen(command, env=environment(**(variables or {})),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.log)
        try:
            self.port = self._read_port()
            if wait:
                self.wait_ready()
        except BaseException:
            self.kill()
            raise

    def _read_port(self):
        ready, _, _ = select.select([self.process.stdout], [], [], TIMEOUT)
        line = self.process.stdout.readline().decode() if ready else ""
        if not line.startswith(f"listening on {self.scheme}://127.0.0.1:"):
            raise AssertionError(f"no address but {line!r}: {self.stderr()}")
        return int(line.rsplit(":", 1)[1])

    def wait_ready(self):
        deadline = time.monotonic() + TIMEOUT
        while self.request("GET", "/readyz").status != 200:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError("not ready: " + self.stderr())
            time.sleep(0.02)
        while self.says_ready and "ready: " not in self.stderr(): # its line comes just after
            if time.monotonic() > deadline:
                raise AssertionError("no line says ready: " + self.stderr())
            time.sleep(0.005)

    def stderr(self):
        return read_whole(self.log).decode(errors="replace")

    def send_signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=TIMEOUT):
        """Waits for the end; returns the exit code."""
        try:
            return self.process.wait(timeout)
        finally:
            self.kill()

    def stop(self, number=signal.SIGTERM):
        self.send_signal(number)
        return self.wait()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        code = self.process.returncode if self.process.poll() is not None else self.stop()
        if code != 0 and kind is None:
            raise AssertionError(f"exit code {code}: {self.stderr()}")
        self.log.close()

    @contextlib.contextmanager
    def paused(self):
        """No thread of it runs. The signal alone stops them when one of them comes to take it."""
        self.send_signal(signal.SIGSTOP)
        try:
            deadline = time.monotonic() + TIMEOUT
            while set(self._thread_states()) != {"T"}:
                if time.monotonic() > deadline:
                    raise AssertionError("it does not stop")
                time.sleep(0.001)
            yield
        finally:
            self.send_signal(signal.SIGCONT)

    # -- what the kernel knows of it

    def _thread_states(self):
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it has just ended
                yield (task / "stat").read_text().rsplit(")", 1)[1].split()[0]

    def _status(self, name):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name + ":"))

    def memory_kb(self):
        return self._status("VmRSS")

    def threads(self):
        return self._status("Threads")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    # -- requests

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)

    def open_socket(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)

    def request(self, method, path, body=None, **headers):
        """One request on a connection of its own; X_Y=... is the header X-Y."""
        with contextlib.closing(self.connect()) as connection:
            return exchange(connection, method, path, body, **headers)

    def classify(self, body, query="", **headers):
        return self.request("POST", "/classify" + query, body, **headers)

    def send_raw(self, data, half_close=False):
        """Sends bytes; returns what comes until the server closes, or nothing more for TIMEOUT."""
        with self.open_socket() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
                if half_close:
                    with contextlib.suppress(OSError):  # the server has closed already
                        connection.shutdown(socket.SHUT_WR)
            return receive_all(connection)


# ---- HTTP ---------------------------------------------------------------------------------------

class Answer(collections.namedtuple("Answer", "status headers body")):
    """headers: names in lower case -> values."""

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def results(self):
        return self.json["results"]


def read_answer(response):
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def exchange(connection, method, path, body=None, **headers):
    """One request on this http.client connection. A server that refuses may close before it has
    read everything: its answer counts all the same."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request(method, path, body, names)
    return read_answer(connection.getresponse())


def answer_from(connection, method="POST"):
    """Reads one answer from a socket."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return read_answer(response)


def receive_all(connection):
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            data += piece
    return data


def multipart(files, boundary="----vitserve-test", **fields):
    """files: (name, bytes) pairs. Returns the Content-Type and the body."""
    body = b""
    for name, value in fields.items():
        body += (f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
                 f"{value}\r\n").encode()
    for name, data in files:
        body += (f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
                 f'filename="{name}"\r\nContent-Type: image/png\r\n\r\n').encode() + data + b"\r\n"
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


def together(function, items, threads=None):
    """function(item) for all items at the same time; the results in order."""
    items = list(items)
    with concurrent.futures.ThreadPoolExecutor(threads or len(items)) as pool:
        return list(pool.map(function, items))


# ---- pictures -----------------------------------------------------------------------------------

def png_chunk(kind, data):
    return (struct.pack(">I", len(data)) + kind + data +
            struct.pack(">I", zlib.crc32(kind + data)))


def png(width=40, height=30, seed=1):
    """An RGB picture of noise that depends on the seed; black without one."""
    noise = random.Random(seed)
    rows = (bytes((1 + 3 * width) * height) if seed is None else
            b"".join(b"\0" + noise.randbytes(3 * width) for _ in range(height)))
    return (b"\x89PNG\r\n\x1a\n" +
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b""))


def jpeg():
    return (GOLDEN_IMAGES / "ycbcr-420-64x48.jpg").read_bytes()


def webp():
    return (GOLDEN_IMAGES / "lossy-33x31.webp").read_bytes()


# ---- test cases ---------------------------------------------------------------------------------

def metrics(server):
    """Name and labels -> value."""
    lines = server.request("GET", "/metrics").body.decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines
            if not line.startswith("#")}


class Case(unittest.TestCase):
    def check_error(self, answer, status, code):
        """The one shape of every error."""
        self.assertEqual(answer.status, status, answer)
        self.assertEqual(answer.headers["content-type"], "application/json")
        error = answer.json
        self.assertEqual(error["code"], code, error)
        self.assertEqual(error["request_id"], answer.headers["x-request-id"])
        self.assertGreater(len(error["error"]), 5)
        self.assertLessEqual(set(error), {"error", "code", "request_id", "model", "results"})
        if answer.status in (429, 503):
            self.assertGreaterEqual(int(answer.headers["retry-after"]), 1)

    def until(self, condition, seconds=TIMEOUT):
        """Waits for condition() to hold."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def check_good(self, server, picture=None):
        """The server answers a good request."""
        answer = server.classify(picture or png())
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(len(answer.results[0]["predictions"]), 5)


class ServerCase(Case):
    """Test cases on one server, started with these options."""
    options = ("--max-batch", "8")
    model = ANY_MODEL

    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server(*cls.options, model=cls.model))
