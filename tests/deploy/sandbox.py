"""What the tests of docker/ share: two machines of their own, in which the files run as they are.

run.sh starts the tests in fresh Linux namespaces, so that the fixed ports of compose.yaml disturb
nobody and whatever was started ends with the tests. The balancers and Prometheus are in one network,
the replicas, each at an address of its own, in another; a cable between the two (a veth pair) is all
there is. The name `vitserve` stands for the replicas because a small DNS server answers where
Docker's does (127.0.0.11).
"""

import collections
import contextlib
import http.client
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
PLAYERS = ROOT / "tests" / "deploy" / "players"
BINARY = os.environ.get("VITSERVE_BINARY", str(ROOT / "build" / "vitserve"))
PHOTO = ROOT / "config" / "demo" / "samples" / "red-sneaker.jpg"
PORT, ADMIN_PORT = 8080, 8081
DNS_ADDRESS = "127.0.0.11"
NETWORK, MAX_REPLICAS = "10.1.0", 12


class Machine:
    """The network of the replicas; there is one."""
    namespace = None

    @classmethod
    def build(cls):
        cls.holder = holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")
        cls.namespace = f"/proc/{holder.pid}/ns/net"
        wait_for("a second network", lambda: os.readlink(cls.namespace) != own)
        for command in (
                ["ip", "link", "set", "lo", "up"],
                ["ip", "link", "add", "outside", "type", "veth", "peer", "inside", "netns",
                 str(holder.pid)],
                ["ip", "address", "add", f"{NETWORK}.254/24", "dev", "outside"],
                ["ip", "link", "set", "outside", "up"],
                [*cls.inside(), "ip", "link", "set", "lo", "up"],
                [*cls.inside(), "ip", "link", "set", "inside", "up"],
                *([*cls.inside(), "ip", "address", "add", f"{NETWORK}.{i}/24", "dev", "inside"]
                  for i in range(1, 1 + MAX_REPLICAS))):
            subprocess.run(command, check=True)

    @classmethod
    def inside(cls):
        """The words before a command that runs there."""
        return ["nsenter", "--net=" + cls.namespace]


def setUpModule():  # every test module takes this over
    """Builds the networks, the first time, and has names looked up at our server."""
    if Machine.namespace:
        return
    if [name for _, name in socket.if_nameindex()] != ["lo"] or os.geteuid() != 0:
        raise unittest.SkipTest("needs a network of its own: ./dev container-test")
    Machine.build()
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write(f"nameserver {DNS_ADDRESS}\noptions timeout:1 attempts:1\n")
    subprocess.run(["mount", "--bind", file.name, os.path.realpath("/etc/resolv.conf")], check=True)
    os.unlink(file.name)


def wait_for(what, condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return result


# ---- names --------------------------------------------------------------------------------------

class Dns:
    """Answers for the names in `hosts`; the rest does not exist. Only A records, over UDP."""

    def __init__(self, **hosts):
        self.hosts = {name: list(addresses) for name, addresses in hosts.items()}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((DNS_ADDRESS, 53))
        self.socket.settimeout(0.1)
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while not self.closed.is_set():
            with contextlib.suppress(TimeoutError):
                query, client = self.socket.recvfrom(4096)
                self.socket.sendto(self._answer(query), client)

    def _answer(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        question = query[12:at + 5]
        kind, = struct.unpack(">H", query[at + 1:at + 3])
        addresses = self.hosts.get(".".join(labels).lower())
        records = [socket.inet_aton(address) for address in addresses or ()] if kind == 1 else []
        flags = 0x8180 if addresses is not None else 0x8183  # NXDOMAIN
        return (query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + question +
                b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + record
                         for record in records))

    def close(self):
        self.closed.set()
        self.thread.join()
        self.socket.close()


# ---- programs -----------------------------------------------------------------------------------

class Program:
    """A process that is stopped with the block; its output is kept for messages."""

    def __init__(self, *command, env=None, cwd=None):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([str(word) for word in command], env=env, cwd=cwd,
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def output(self):
        # The offset is not moved: it is the process's too.
        return os.pread(self.log.fileno(), os.fstat(self.log.fileno()).st_size, 0).decode(
            errors="replace")

    def stop(self, number=signal.SIGTERM, seconds=30):
        """Returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()
        self.log.close()


def compose_service(name):
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"][name]


def image_environment():
    """The VITSERVE_ variables that Dockerfile.cpu sets."""
    return dict(re.findall(r"\b(VITSERVE_\w+)=(\S+)", (DOCKER / "Dockerfile.cpu").read_text()))


def container_environment(manifest, **own):
    """What vitserve finds in a container with these variables, and with our own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VITSERVE_")}
    return {**clean, **image_environment(), **{name: str(value) for name, value in manifest.items()},
            "VITSERVE_DEVICE": "cpu", **own}


class Player(Program):
    """A replica that is none: players/replica."""

    def __init__(self, address, fate):
        self.address = address
        super().__init__(*Machine.inside(), PLAYERS / "replica", address, fate)
        wait_for(f"{address} plays", lambda: get(f"http://{address}:{ADMIN_PORT}/readyz")[0] == 200)


class Replica(Program):
    """vitserve as its container runs it, at an address of its own."""

    def __init__(self, address):
        self.address = address
        compose = compose_service("vitserve")["environment"]
        super().__init__(*Machine.inside(), BINARY, "serve", env=container_environment(
            compose, VITSERVE_LISTEN=address, VITSERVE_THREADS="1", VITSERVE_LOG_LEVEL="info"))

    def seen(self):
        """The ids of the requests that it answered, or whose clients it found gone."""
        return set(re.findall(r'"request_id":"([^"]*)"', self.output()))

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"exit code {self.process.returncode}: {self.output()}")
        return get(f"http://{self.address}:{ADMIN_PORT}/readyz")[0] == 200

    def wait_ready(self):
        wait_for(f"{self.address} ready", self.ready)
        return self


def get(url):
    """The status, 0 where nobody answers, and the body."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


# ---- load ---------------------------------------------------------------------------------------

def photo(size):
    """A JPEG of a sneaker as large as one from a camera: a comment behind its first marker."""
    data = PHOTO.read_bytes()
    comment = b"\xff\xfe" + struct.pack(">H", 50002) + bytes(50000)
    return data[:2] + comment * (size // len(comment)) + data[2:]


Request = collections.namedtuple("Request", "id start seconds outcome detail")


class Load:
    """Clients that post a photo again and again, each over one connection, with a pause between.
    No client ever repeats a request: what a balancer does not hide counts as failed."""

    PAUSE = 0.1

    def __init__(self, address, clients=32):
        self.address, self.body = address, photo(200_000)
        self.requests, self.began = [], time.monotonic()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(i,), daemon=True)
                        for i in range(clients)]
        for thread in self.threads:
            thread.start()
            time.sleep(self.PAUSE / clients)

    def _run(self, client):
        connection = http.client.HTTPConnection(self.address, PORT, timeout=30)
        n = 0
        while not self.ended.wait(self.PAUSE):
            start = time.monotonic()
            n += 1
            name = f"client-{client}-{n}"
            try:
                connection.request("POST", "/classify?top_k=1", self.body, {"X-Request-Id": name})
                answer = connection.getresponse()
                text = answer.read()
                outcome = answer.status
                if outcome == 200 and b'"Sneaker"' not in text:
                    outcome = "wrong answer"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                outcome, text = type(error).__name__, str(error).encode()
            self.requests.append(Request(name, start - self.began, time.monotonic() - start,
                                         outcome, "" if outcome == 200 else text[:200]))
        connection.close()

    def at(self, second):
        """Waits until the load has lasted so long."""
        time.sleep(max(0.0, self.began + second - time.monotonic()))

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(60)

    def failed(self):
        return [request for request in self.requests if request.outcome != 200]

    def report(self, title):
        seconds = sorted(request.seconds for request in self.requests)
        outcomes = collections.Counter(str(request.outcome) for request in self.requests)
        lines = [f"{title}: {len(seconds)} requests in {time.monotonic() - self.began:.0f} s, "
                 f"{len(self.failed())} failed",
                 "  outcomes: " + ", ".join(f"{k} {v}" for k, v in sorted(outcomes.items())),
                 "  ms: " + ", ".join(f"{name} {seconds[int(q * (len(seconds) - 1))] * 1e3:.0f}"
                                      for name, q in (("p50", .5), ("p99", .99), ("max", 1)))]
        lines += [f"  at {r.start:.1f} s after {r.seconds:.2f} s: {r.outcome} {r.detail}"
                  for r in self.failed()[:10]]
        return "\n".join(lines)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()


class Case(unittest.TestCase):
    """Replicas at 10.1.0.1, .2, ...; each test stops what it started."""

    def setUp(self):
        self.dns = Dns(vitserve=[], haproxy=["127.0.0.1"])
        self.addCleanup(self.dns.close)
        self.n_replicas = 0

    def start(self, program):
        return self.enterContext(program)

    def start_replica(self, address=None):
        self.n_replicas += 1
        return self.start(Replica(address or f"{NETWORK}.{self.n_replicas}"))

    def start_replicas(self, count):
        """So many, ready and in the DNS."""
        replicas = [self.start_replica() for _ in range(count)]
        for replica in replicas:
            replica.wait_ready()
        self.dns.hosts["vitserve"] = [replica.address for replica in replicas]
        return replicas
