"""Long runs on the real binary (./dev soak): 64 clients for a minute, every answer checked and the
memory flat; then a thousand requests under valgrind without a leak. Usage: soak.py BINARY"""

import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

os.environ["VITSERVE_BINARY"] = str(pathlib.Path(sys.argv[1]).resolve())
import vitserve  # noqa: E402  (reads the variable)

CLIENTS, SECONDS, WARM_SECONDS, LIMIT_KB = 64, 60, 5, 5 * 1024
REQUESTS_UNDER_VALGRIND = 1000


def bodies():
    """Requests of every kind, and the statuses that answer them."""
    pictures = [vitserve.png(seed=seed, width=100 + 10 * seed, height=80) for seed in range(6)]
    kind, form = vitserve.multipart([(f"{i}.png", picture) for i, picture in enumerate(pictures[:2])])
    requests = [(picture, {}, 200) for picture in pictures]
    requests += [(form, {"Content_Type": kind}, 200), (b"no picture", {}, 415),
                 (pictures[0][:500], {}, 400), (b"", {}, 400)]
    return requests


class Client(threading.Thread):
    def __init__(self, server, expected, end):
        super().__init__()
        self.server, self.expected, self.end = server, expected, end
        self.answered = self.refused = 0
        self.wrong = []

    def run(self):
        requests = bodies()
        connection = self.server.connect()
        while time.monotonic() < self.end and not self.wrong:
            i = (self.answered + self.ident) % len(requests)
            body, headers, status = requests[i]
            answer = vitserve.exchange(connection, "POST", "/classify", body, **headers)
            self.answered += 1
            if answer.status == 429:
                self.refused += 1
            elif answer.status != status or (status == 200 and answer.results != self.expected[i]):
                self.wrong.append((i, answer.status, answer.body[:200]))
        connection.close()


def many_clients():
    with vitserve.Server("--max-batch", 8, "--max-queue", 512) as server:
        expected = [server.classify(body, **headers).results if status == 200 else None
                    for body, headers, status in bodies()]
        end = time.monotonic() + SECONDS
        clients = [Client(server, expected, end) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(WARM_SECONDS)
        warm = most = server.memory_kb()
        while time.monotonic() < end:
            time.sleep(0.5)
            most = max(most, server.memory_kb())
        for client in clients:
            client.join()
        last = server.memory_kb()
    wrong = [w for client in clients for w in client.wrong]
    answered, refused = sum(c.answered for c in clients), sum(c.refused for c in clients)
    print(f"{CLIENTS} clients, {SECONDS} s: {answered} answered, {refused} of them 429, "
          f"{len(wrong)} wrong; RSS {warm} kB after {WARM_SECONDS} s, at most {most}, "
          f"{last} at the end")
    return not wrong and refused == 0 and most - warm <= LIMIT_KB


def valgrind():
    with tempfile.NamedTemporaryFile("r") as log:
        command = ["valgrind", "--leak-check=full", "--fair-sched=yes", "--errors-for-leak-kinds=definite,indirect",
                   "--error-exitcode=9", f"--log-file={log.name}", "--fullpath-after=",
                   vitserve.BINARY, "serve", "--model", "deit_tiny_patch16_224",
                   "--random-weights", "1", "--device", "cpu", "--threads", "1", "--max-batch", "2",
                   "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=vitserve.environment())
        port = int(process.stdout.readline().decode().rsplit(":", 1)[1])
        server = vitserve.Server.__new__(vitserve.Server)
        server.port = port
        while server.request("GET", "/readyz").status != 200:
            time.sleep(0.5)
        requests = bodies()
        # Mostly what never reaches the network: under valgrind a forward pass takes seconds.
        good = [requests[0], requests[6]]
        bad = requests[7:]
        for i in range(REQUESTS_UNDER_VALGRIND):
            body, headers, status = good[i // 100 % 10 == 9] if i % 100 == 0 else bad[i % len(bad)]
            answer = server.classify(body, **headers)
            assert answer.status in (status, 429), answer.body
        process.terminate()
        code = process.wait()
        text = log.read()
    print(f"valgrind: exit code {code} after {REQUESTS_UNDER_VALGRIND} requests")
    if code != 0:
        print(text[-6000:])
    return code == 0


if __name__ == "__main__":
    vitserve.TIMEOUT = 300
    results = [many_clients(), valgrind()]
    sys.exit(0 if all(results) else 1)
