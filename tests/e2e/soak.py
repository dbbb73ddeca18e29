"""Long runs on the real binary. Usage: soak.py BINARY [PART...], or ./dev soak [PART...]

images    SOAK_IMAGES pictures (default 200000) through the server: memory flat
leak      the control of that: a server that leaks 64 bytes an answer must be caught
idle      what 1000 idle connections add to the p99 of 64 clients
dropped   10000 connections opened and dropped: descriptors, threads and memory as before
stop      SIGTERM under full load, 50 times: no request lost, exit code 0
clients   64 clients for a minute, every answer checked, memory flat
valgrind  a thousand requests without a leak
hostile   small inputs that cost much, beside a good client: soak_hostile.py
balanced  the same through HAProxy and three replicas

All of them by default. The built-in model, so that it is the server that works. The build folder of
BINARY must hold tests/load (tests/bench/load.c), tests/soak_leak.so and tests/soak_trim.so.

Memory is compared after so many requests, not after so much time: each of glibc's two arenas grows to
the most that all threads ever needed at once, and it takes thousands of requests until they have met
in their worst way. Measured: the requests of `clients` add 0.7 MB in the 80000 after the first 20000,
and then no more; with a large model, at 120 requests/s, a minute is not enough for that.
"""

import collections
import contextlib
import os
import pathlib
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

os.environ["VITSERVE_BINARY"] = str(pathlib.Path(sys.argv[1]).resolve())
import soak_hostile  # noqa: E402
import vitserve  # noqa: E402  (reads the variable)

TESTS = pathlib.Path(vitserve.BINARY).parent / "tests"
BUILT_IN = ()
LIMIT_KB = 2 * 1024
WARM_REQUESTS = 20000
ALL = ("--seconds", 1e6, "--requests")  # however long so many requests take
IMAGES = int(os.environ.get("SOAK_IMAGES", "200000"))
LEAK_IMAGES = 60000  # 80 bytes of heap for each 64: 4.6 MB
IDLE, IDLE_ROUNDS, IDLE_SECONDS, IDLE_LIMIT = 1000, 7, 8, 1.25
DROPPED, BUNCH = 10000, 500
STOPS = 50
CLIENTS, SECONDS = 64, 60
REQUESTS_UNDER_VALGRIND = 1000


# ---- load ---------------------------------------------------------------------------------------

@contextlib.contextmanager
def loading(server, *options):
    """The load generator at work on the server, and the file that it prints to."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        pictures = [pathlib.Path(folder) / str(seed) for seed in range(6)]
        for seed, path in enumerate(pictures):
            path.write_bytes(vitserve.png(seed=seed, width=100 + 10 * seed, height=80))
        process = subprocess.Popen([TESTS / "load", f"127.0.0.1:{server.port}", *map(str, options),
                                    *pictures], stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=subprocess.STDOUT)
        try:
            yield process, output
        finally:
            process.kill()
            process.wait()


def result(process, output):
    """[(outcome, ms)]. A request that had to be sent twice, because its connection ended without an
    answer, is no good one here: it counts a second time, as `twice`."""
    code = process.wait()
    output.seek(0)
    lines = [line.split() for line in output]
    if code != 0:
        raise RuntimeError(f"the load generator failed: {lines[-1:]}")
    twice = sum(int(line[1]) for line in lines if line[0] == "load:")
    return ([(line[0], float(line[1])) for line in lines if line[0] != "load:"] +
            twice * [("twice", 0.0)])


def load(server, *options):
    with loading(server, *options) as (process, output):
        return result(process, output)


def outcomes(lines):
    return dict(collections.Counter(outcome for outcome, _ in lines))


def p99(lines):
    latencies = sorted(ms for _, ms in lines)
    return latencies[len(latencies) * 99 // 100]


# ---- memory -------------------------------------------------------------------------------------

def growth_kb(name, images, **variables):
    """How far the memory rises above what it is after the warm-up, while so many images come."""
    with vitserve.Server("--max-queue", 256, model=BUILT_IN, variables=variables) as server:
        start = time.monotonic()
        lines = load(server, "--clients", 16, *ALL, WARM_REQUESTS)
        warm = most = server.memory_kb()
        with loading(server, "--clients", 16, *ALL, images) as running:
            while running[0].poll() is None:
                time.sleep(0.1)
                most = max(most, server.memory_kb())
            lines += result(*running)
        last = server.memory_kb()
    seconds = time.monotonic() - start
    print(f"{name}: {outcomes(lines)} in {seconds:.0f} s, {len(lines) / seconds:.0f} images/s; RSS "
          f"{warm} kB after {WARM_REQUESTS}, at most {most}, {last} at the end", flush=True)
    if outcomes(lines) != {"200": WARM_REQUESTS + images}:
        raise RuntimeError("not every image was answered with 200")
    return most - warm


def images():
    return growth_kb("images", IMAGES) <= LIMIT_KB


def leak():
    return growth_kb("leak", LEAK_IMAGES, LD_PRELOAD=str(TESTS / "soak_leak.so")) > LIMIT_KB


# ---- connections --------------------------------------------------------------------------------

@contextlib.contextmanager
def idle_connections(server, count):
    """Connections that have had an answer each and stay open."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(server.open_socket())
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert vitserve.answer_from(connection, "GET").status == 200
        yield


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def idle():
    """Both in turn, the one that begins changing from round to round."""
    def measure(count):
        with idle_connections(server, count):
            lines = load(server, "--clients", CLIENTS, "--seconds", IDLE_SECONDS)
        if set(outcomes(lines)) != {"200"}:
            raise RuntimeError(f"not only answers of 200: {outcomes(lines)}")
        return p99(lines)
    rounds = []
    with vitserve.Server("--max-queue", 256, "--idle-timeout-ms", 3600000,
                         "--max-connections-per-address", 4096, model=BUILT_IN) as server:
        load(server, "--clients", CLIENTS, *ALL, WARM_REQUESTS)
        for number in range(IDLE_ROUNDS):
            counts = (0, IDLE) if number % 2 == 0 else (IDLE, 0)
            found = {count: measure(count) for count in counts}
            rounds.append((found[0], found[IDLE]))
    ratios = [beside / alone for alone, beside in rounds]
    ratio = statistics.median(ratios)
    print(f"idle: p99 of {CLIENTS} clients beside {IDLE} idle connections {ratio:.2f} times that "
          f"without ({min(ratios):.2f}..{max(ratios):.2f} in {IDLE_ROUNDS} rounds; "
          f"{statistics.median(alone for alone, _ in rounds):.1f} ms alone)", flush=True)
    return ratio <= IDLE_LIMIT


def drop_bunch(server, picture):
    """Left at every stage of a request, by a close or by a reset."""
    request = (b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(picture) +
               picture)
    stages = [0, 20, len(request) // 2, len(request)]
    with contextlib.ExitStack() as stack:
        for i in range(BUNCH):
            connection = stack.enter_context(server.open_socket())
            if i % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(request[:stages[i // 2 % len(stages)]])


def dropped():
    picture = vitserve.png(width=100, height=80)

    def state():
        return server.descriptors(), server.threads()

    def drop(connections):
        """Bunch by bunch: connections are accepted in their order, so after one that was answered
        none of those before it is in the backlog still, where it costs nothing yet."""
        good = True
        for _ in range(connections // BUNCH):
            drop_bunch(server, picture)
            good &= server.classify(picture).status == 200
            good &= wait_for(lambda: state() == before)
        return good

    def memory_kb():
        """As it is, and without what was freed but glibc keeps for later: that changes by some MB
        from bunch to bunch, as one small block near the end of an arena can hold all before it."""
        kept = server.memory_kb()
        server.send_signal(signal.SIGUSR2)
        time.sleep(1)
        return kept, server.memory_kb()
    preload = {"LD_PRELOAD": str(TESTS / "soak_trim.so")}
    with vitserve.Server("--max-queue", 256, model=BUILT_IN, variables=preload) as server:
        time.sleep(1)  # the connections that saw it become ready are closed
        before = state()
        good = drop(DROPPED // 4)
        warm = memory_kb()
        good &= drop(DROPPED)
        after, last = state(), memory_kb()
    print(f"dropped: {DROPPED} connections; (descriptors, threads) {before} before, {after} after; "
          f"(RSS, RSS without what glibc keeps) {warm} kB after {DROPPED // 4} more before them, "
          f"{last} at the end", flush=True)
    return good and last[1] - warm[1] <= LIMIT_KB


# ---- stop ---------------------------------------------------------------------------------------

def stop_once(delay):
    """What the server's log says that it answered, and what the clients got."""
    server = vitserve.Server("--max-queue", 256, "--log-level", "info", model=BUILT_IN)
    with server.log, loading(server, "--clients", CLIENTS, "--seconds", delay + 0.5) as running:
        time.sleep(delay)
        code = server.stop(signal.SIGTERM)
        lines = result(*running)
        log = server.stderr().splitlines()
    answered = collections.Counter(line.split(" status=")[1].split()[0] for line in log
                                   if " path=/classify " in line)
    return code, dict(answered), outcomes(lines), [line for line in log if "unanswered" in line]


def stop():
    """Each answer that the server logs has to arrive, and nothing else may have gone wrong but that
    nobody listened any more."""
    generator = random.Random(1)
    total, wrong = collections.Counter(), 0
    for _ in range(STOPS):
        code, answered, found, unanswered = stop_once(generator.uniform(0.1, 0.6))
        total.update(found)
        found.pop("connect", None)
        if code != 0 or answered != found or not found.get("200") or unanswered:
            wrong += 1
            print(f"stop: exit code {code}; the server answered {answered}, the clients got {found} "
                  f"{unanswered}", flush=True)
    print(f"stop: {STOPS} times under {CLIENTS} clients, {wrong} of them wrong; in all {dict(total)}",
          flush=True)
    return wrong == 0


# ---- clients that look at every answer ----------------------------------------------------------

def bodies():
    """Requests of every kind, and the statuses that answer them."""
    pictures = [vitserve.png(seed=seed, width=100 + 10 * seed, height=80) for seed in range(6)]
    kind, form = vitserve.multipart([(f"{i}.png", picture) for i, picture in enumerate(pictures[:2])])
    requests = [(picture, {}, 200) for picture in pictures]
    requests += [(form, {"Content_Type": kind}, 200), (b"no picture", {}, 415),
                 (pictures[0][:500], {}, 400), (b"", {}, 400)]
    return requests


class Client(threading.Thread):
    def __init__(self, server, expected):
        super().__init__()
        self.server, self.expected, self.stopped = server, expected, False
        self.answered = self.refused = 0
        self.wrong = []

    def run(self):
        requests = bodies()
        connection = self.server.connect()
        while not self.stopped and not self.wrong:
            i = (self.answered + self.ident) % len(requests)
            body, headers, status = requests[i]
            answer = vitserve.exchange(connection, "POST", "/classify", body, **headers)
            self.answered += 1
            if answer.status == 429:
                self.refused += 1
            elif answer.status != status or (status == 200 and answer.results != self.expected[i]):
                self.wrong.append((i, answer.status, answer.body[:200]))
        connection.close()


def clients():
    with vitserve.Server("--max-batch", 8, "--max-queue", 512, model=BUILT_IN) as server:
        expected = [server.classify(body, **headers).results if status == 200 else None
                    for body, headers, status in bodies()]
        threads = [Client(server, expected) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        wait_for(lambda: sum(thread.answered for thread in threads) >= WARM_REQUESTS, 300)
        warm = most = server.memory_kb()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(0.5)
            most = max(most, server.memory_kb())
        for thread in threads:
            thread.stopped = True
        for thread in threads:
            thread.join()
        last = server.memory_kb()
    wrong = [w for thread in threads for w in thread.wrong]
    answered, refused = sum(t.answered for t in threads), sum(t.refused for t in threads)
    print(f"clients: {CLIENTS} of them, {SECONDS} s: {answered} answered, {refused} of them 429, "
          f"{len(wrong)} wrong; RSS {warm} kB after {WARM_REQUESTS} requests, at most {most}, "
          f"{last} at the end", flush=True)
    return (not wrong and refused == 0 and answered > WARM_REQUESTS and
            most - warm <= LIMIT_KB)


def valgrind():
    with tempfile.NamedTemporaryFile("r") as log:
        command = ["valgrind", "--leak-check=full", "--fair-sched=yes",
                   "--errors-for-leak-kinds=definite,indirect", "--error-exitcode=9",
                   f"--log-file={log.name}", "--fullpath-after=", vitserve.BINARY, "serve",
                   "--threads", "1", "--max-batch", "2", "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=vitserve.environment())
        port = int(process.stdout.readline().decode().rsplit(":", 1)[1])
        server = vitserve.Server.__new__(vitserve.Server)
        server.port = port
        while server.request("GET", "/readyz").status != 200:
            time.sleep(0.5)
        requests = bodies()
        # Most do not reach the network: under valgrind a forward pass takes seconds.
        good, bad = requests[:7], requests[7:]
        for i in range(REQUESTS_UNDER_VALGRIND):
            body, headers, status = good[i // 50 % 7] if i % 50 == 0 else bad[i % len(bad)]
            answer = server.classify(body, **headers)
            assert answer.status == status, answer.body
        process.terminate()
        code = process.wait()
        text = log.read()
    print(f"valgrind: exit code {code} after {REQUESTS_UNDER_VALGRIND} requests", flush=True)
    if code != 0:
        print(text[-6000:])
    return code == 0


PARTS = {part.__name__: part for part in (images, leak, idle, dropped, stop, clients, valgrind)}
PARTS |= {"hostile": soak_hostile.hostile_inputs, "balanced": soak_hostile.balanced}


def main(names):
    vitserve.TIMEOUT = 300
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        sys.exit(f"soak: no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    results = {name: PARTS[name]() for name in names or PARTS}
    for name, good in results.items():
        print(f"{name}: {'ok' if good else 'FAILED'}")
    return all(results.values())


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[2:]) else 1)
