"""Whether the clients that people use see the status of a request that is refused: each posts a
body that the server does not want, many times, and must be told so every time.

usage: run.py BINARY FAULTY_BINARY [CLIENT...]

The second program lies beside the faulty device of tests/faults, which keeps the queue full. Prints
a line for each client and case; exits with 1 if a status was missed. ./dev client-test installs
what it needs. Runs in the virtual environment that has requests, httpx and aiohttp.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
os.environ["VITSERVE_BINARY"] = sys.argv[1]

from vitserve import BINARY, Case, Server, png  # pylint: disable=wrong-import-position
import vitserve  # pylint: disable=wrong-import-position

TRIES, MIB = 30, 1 << 20
PATIENCE_S = 600
BUILT_IN_MODEL = ()


# ---- the clients: each makes TRIES requests and returns a line for each -------------------------

def run_script(*command):
    def post(url, file, way):
        arguments = [*command, str(TRIES), url, str(file), way]
        done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S,
                              check=True)
        return done.stdout.splitlines()
    return post


def run_curl(*options):
    def post(url, file, way):
        chunked = ("-H", "Transfer-Encoding: chunked") if way == "chunked" else ()
        command = ["curl", "-s", "-S", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "60",
                   "-H", "Authorization: Bearer wrong", *options, *chunked,
                   "--data-binary", f"@{file}", url]
        return [try_once(command, lambda done: done.stdout) for _ in range(TRIES)]
    return post


def run_wget(url, file, _way):
    command = ["wget", "-q", "-S", "-O", "/dev/null", "--tries=1", "--timeout=60",
               "--header=Authorization: Bearer wrong", f"--post-file={file}", url]

    def status(done):
        lines = [line.split() for line in done.stderr.splitlines() if " HTTP/" in line]
        return lines[-1][1] if lines else "no status"
    return [try_once(command, status) for _ in range(TRIES)]


def try_once(command, status):
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return status(done) if status(done) != "000" else done.stderr.strip()


CLIENTS = {
    "fetch": run_script("node", HERE / "send.mjs"),
    "curl": run_curl(),
    "curl without Expect": run_curl("-H", "Expect:"),
    "requests": run_script(sys.executable, HERE / "send.py", "requests"),
    "httpx": run_script(sys.executable, HERE / "send.py", "httpx"),
    "aiohttp": run_script(sys.executable, HERE / "send.py", "aiohttp"),
    "HttpClient": run_script("java", HERE / "Send.java"),
    "wget": run_wget,
}


# ---- the cases: each is a server, the file, how it is sent, and the status ----------------------

@contextlib.contextmanager
def wrong_key(folder):
    keys = folder / "keys"
    keys.write_text("the-right-one\n", encoding="ascii")
    with Server("--api-key-file", keys, model=BUILT_IN_MODEL) as server:
        yield server


@contextlib.contextmanager
def small_limit(_folder):
    with Server(model=BUILT_IN_MODEL) as server:
        yield server


@contextlib.contextmanager
def full_budget(_folder):
    """A request that promised 7 of its 8 MiB, and does not go on."""
    options = ("--max-inflight-bytes", 8 * MIB, "--request-timeout-ms", PATIENCE_S * 1000)
    with Server(*options, model=BUILT_IN_MODEL) as server, server.open_socket() as holder:
        holder.sendall(f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {7 * MIB}\r\n\r\n"
                       .encode())
        Case().until(lambda: gauge(server, "vitserve_inflight_bytes") >= 7 * MIB)
        yield server


@contextlib.contextmanager
def full_queue(folder):
    """Its one place is held by a picture whose device takes minutes; that must be so to the end."""
    command = folder / "command"
    command.write_text("ok", encoding="ascii")
    options = ("--device", "cuda", "--max-queue", 1, "--max-batch", 1,
               "--request-timeout-ms", PATIENCE_S * 1000)
    vitserve.BINARY = sys.argv[2]
    try:
        with Server(*options, model=BUILT_IN_MODEL, variables={"FAULTS": str(command)}) as server:
            command.write_text("slow 4000", encoding="ascii")
            answers = []
            holder = threading.Thread(target=lambda: answers.append(server.classify(png()).status))
            holder.start()
            Case().until(lambda: gauge(server, "vitserve_inflight_requests") == 1)
            yield server
            assert not answers, "the queue did not stay full"
            command.write_text("ok", encoding="ascii")
            holder.join()
            assert answers == [200], answers
    finally:
        vitserve.BINARY = BINARY


def gauge(server, name):
    lines = server.request("GET", "/metrics").body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


CASES = {
    "5 MB with a wrong key": (wrong_key, bytes(5_000_000), "length", "401"),
    "40 MiB in chunks, over the limit": (small_limit, bytes(40 * MIB), "chunked", "413"),
    "5 MB, the budget of bytes is full": (full_budget, bytes(5_000_000), "length", "429"),
    "a picture, the queue is full": (full_queue, png(400, 300), "length", "429"),
}


def missed(client, url, case, file, way, status):
    lines = CLIENTS[client](url, file, way)
    seen = lines.count(status)
    print(f"{client:20} {case:34} {status} {seen}/{TRIES}", flush=True)
    for line in sorted(set(lines) - {status}):
        print(f"    {lines.count(line)} times: {line}")
    return seen != TRIES or len(lines) != TRIES


def main():
    chosen = sys.argv[3:] or list(CLIENTS)
    misses = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for case, (serve, body, way, status) in CASES.items():
            file = folder / "body"
            file.write_bytes(body)
            with serve(folder) as server:
                url = f"http://127.0.0.1:{server.port}/classify"
                for client in chosen:
                    if client != "wget" or way != "chunked":  # it always sends a length
                        misses += missed(client, url, case, file, way, status)
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
