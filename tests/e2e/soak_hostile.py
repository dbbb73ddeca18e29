"""`./dev soak hostile`: every costly input against a default server, beside a client that sends a good
image every 100 ms. That client has to be answered every time, nearly as soon as when it is alone;
what a hostile request costs has to be within the bounds that SECURITY.md gives."""

import contextlib
import multiprocessing
import os
import pathlib
import re
import socket
import struct
import subprocess
import tempfile
import threading
import time

import hostile
import vitserve

RELATIVES = 20
ATTACKERS = 4          # connections of each attack
ATTACK_SECONDS = 2     # for each input
PATIENCE_SECONDS = 1   # after which an attacker leaves, and comes again
PERIOD = 0.1           # between two good images
ALONE_SECONDS = 30
P99_LIMIT = 3          # times that of the good client alone
CPU_LIMIT_MS = 1500    # of one request that its client left after PATIENCE_SECONDS: SECURITY.md
MEMORY_LIMIT_KB = 1800 << 10


def cpu_ms(server):
    with open(f"/proc/{server.process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


class Repeated(threading.Thread):
    """Does something until it is told to stop."""
    def __init__(self):
        super().__init__()
        self.stopped = threading.Event()
        self.start()

    def run(self):
        while not self.stopped.is_set():
            self.once()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()


def send_good_images(server, stopped, results):
    """A good image every PERIOD; (statuses, milliseconds, statuses of /readyz) at the end."""
    picture = vitserve.png(width=500, height=375)
    statuses, times_ms, probes = [], [], []
    while not stopped.is_set():
        start = time.monotonic()
        try:
            status = server.classify(picture).status
        except OSError as error:
            status = repr(error)
        statuses.append(status)
        times_ms.append((time.monotonic() - start) * 1000)
        if len(statuses) % 5 == 0:
            probes.append(server.request("GET", "/readyz").status)
        stopped.wait(max(0, start + PERIOD - time.monotonic()))
    results.put((statuses, times_ms, probes))


class GoodClient:
    """In a process of its own: the attackers' Python must not keep it waiting."""
    def __init__(self, server):
        context = multiprocessing.get_context("fork")
        self.stopped, self.results = context.Event(), context.Queue()
        self.process = context.Process(target=send_good_images,
                                       args=(server, self.stopped, self.results))
        self.statuses, self.times_ms, self.probes = [], [], []

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.statuses, self.times_ms, self.probes = self.results.get(timeout=2 * vitserve.TIMEOUT)
        self.process.join()

    def p99(self):
        return sorted(self.times_ms)[(len(self.times_ms) * 99 - 1) // 100]


class Attacker(Repeated):
    """Sends a request, waits a while for the answer, and leaves."""
    def __init__(self, server, request):
        self.server, self.request, self.sent, self.answered = server, request, 0, 0
        super().__init__()

    def once(self):
        with contextlib.suppress(OSError), self.server.open_socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sent += 1
            connection.settimeout(PATIENCE_SECONDS)
            connection.sendall(self.request)
            self.answered += bool(connection.recv(4096))


class Memory(Repeated):
    """The most that the server has taken."""
    def __init__(self, server):
        self.server, self.most_kb = server, 0
        super().__init__()

    def once(self):
        self.most_kb = max(self.most_kb, self.server.memory_kb())
        time.sleep(0.02)


def settled_cpu_ms(server):
    """Once nothing is in work: whatever an attack has left behind counts as its own."""
    before = cpu_ms(server)
    while True:
        time.sleep(0.2)
        now = cpu_ms(server)
        if now - before <= 30:
            return now
        before = now


def attack(server, request):
    """How many requests were sent, and the CPU milliseconds of each, the good client's included."""
    start = cpu_ms(server)
    with contextlib.ExitStack() as stack:
        attackers = [stack.enter_context(Attacker(server, request)) for _ in range(ATTACKERS)]
        time.sleep(ATTACK_SECONDS)
    sent = sum(attacker.sent for attacker in attackers)
    return sent, (settled_cpu_ms(server) - start) / sent


def run_kind(kind, requests):
    """One row of the table, and whether it is within the bounds."""
    with vitserve.Server(model=()) as server:
        for _ in range(20):
            server.classify(vitserve.png(width=500, height=375))
        with GoodClient(server) as alone:
            time.sleep(ALONE_SECONDS)
        sent, costs = 0, {}
        with Memory(server) as memory, GoodClient(server) as beside:
            for name, request in requests:
                count, costs[name] = attack(server, request)
                sent += count
        costliest = max(costs, key=costs.get)
        ratio = beside.p99() / alone.p99()
        answered = set(beside.statuses) == {200} and set(beside.probes) == {200}
        print(f"hostile: {kind}: {len(requests)} inputs, {sent} requests; good client "
              f"{beside.statuses.count(200)} of {len(beside.statuses)} answered, p99 "
              f"{beside.p99():.1f} ms, {ratio:.2f} times {alone.p99():.1f} ms alone; CPU of a request "
              f"at most {costs[costliest]:.0f} ms ({costliest}); RSS at most {memory.most_kb} kB",
              flush=True)
    return (answered and ratio <= P99_LIMIT and costs[costliest] <= CPU_LIMIT_MS and
            memory.most_kb <= MEMORY_LIMIT_KB)


def kinds():
    for seed, (kind, pictures) in enumerate(hostile.pictures().items()):
        yield kind, hostile.relatives(pictures, RELATIVES, seed)
    yield "JSON", hostile.json_bombs()


def hostile_inputs():
    return all([run_kind(kind, requests) for kind, requests in kinds()])


# ---- behind a balancer --------------------------------------------------------------------------

HAPROXY_CONFIG = pathlib.Path(__file__).parents[2] / "docker" / "haproxy.cfg"
REPLICAS = 3
BUSY_MS = 300  # of CPU, in the seconds of one hostile request


def free_port():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return holder.getsockname()[1]


class Replica(vitserve.Server):
    """As compose.yaml has it."""
    def __init__(self):
        super().__init__("--request-timeout-ms", 5000, "--admin-port", 0, "--allowed-hosts", "*",
                         model=())
        line = self.process.stdout.readline().decode()
        self.admin_port = int(line.rsplit(":", 1)[1])


class Balancer(vitserve.Server):
    """HAProxy with the file that ships, but for where the replicas are."""
    def __init__(self, replicas):
        self.port = free_port()
        text = HAPROXY_CONFIG.read_text(encoding="utf-8")
        text, templates = re.subn(
            r"(?m)^    server-template .*$", "\n".join(
                f"    server r{i} 127.0.0.1:{replica.port} port {replica.admin_port}"
                for i, replica in enumerate(replicas)), text)
        text, checks = re.subn(r"(?m)^    http-check connect port 8081$", "    http-check connect",
                               text)
        text, binds = re.subn(r"(?m)^    bind :8080$", f"    bind 127.0.0.1:{self.port}", text)
        text = re.sub(r"(?m)^    bind :8405$", f"    bind 127.0.0.1:{free_port()}", text)
        assert (templates, checks, binds) == (1, 1, 1)
        self.file = tempfile.NamedTemporaryFile("w", suffix=".cfg")
        self.file.write(text)
        self.file.flush()
        self.process = subprocess.Popen(["haproxy", "-db", "-f", self.file.name],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.file.close()

    def __enter__(self):
        end = time.monotonic() + vitserve.TIMEOUT
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if self.classify(vitserve.png()).status == 200:
                    return self
            time.sleep(0.1)
        raise RuntimeError("haproxy does not become ready")


def one_request(balancer, request):
    with contextlib.suppress(OSError), balancer.open_socket() as connection:
        connection.sendall(request)
        connection.settimeout(20)
        connection.recv(4096)


def balanced():
    """Every kind's costliest forms, one request at a time: it keeps one replica busy, at most, and
    the good client is served by the others."""
    with contextlib.ExitStack() as stack:
        replicas = [stack.enter_context(Replica()) for _ in range(REPLICAS)]
        balancer = stack.enter_context(Balancer(replicas))
        good = stack.enter_context(GoodClient(balancer))
        sent, worst, most_ms = 0, 0, 0
        for _, pictures in hostile.pictures().items():
            for _, picture in pictures[:5]:
                before = [settled_cpu_ms(replica) for replica in replicas]
                one_request(balancer, hostile.packed_form(picture))
                costs = [settled_cpu_ms(replica) - start
                         for replica, start in zip(replicas, before)]
                sent, most_ms = sent + 1, max(most_ms, max(costs))
                worst = max(worst, sum(cost > BUSY_MS for cost in costs))
    answered = set(good.statuses) == {200}
    print(f"balanced: {sent} hostile requests through HAProxy: at most {worst} of {REPLICAS} "
          f"replicas busy with one of them, {most_ms:.0f} ms of CPU at most; good client "
          f"{good.statuses.count(200)} of {len(good.statuses)} answered, p99 {good.p99():.1f} ms",
          flush=True)
    return answered and worst <= 1
