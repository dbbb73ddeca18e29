"""tests/bench/peers.py http: the real server under wrk beside the engine alone.

One JPEG, posted again and again over connections that stay open. wrk sends the next request when the
answer is there, so it never asks for more than its clients, and it shares the cores with the server:
both count against the server here. Only answers of 200 count as requests/s. The queue holds all
clients: wrk does not heed Retry-After, and a server that refuses most requests measures nothing.
"""

import json
import os
import pathlib
import statistics
import sys
import tempfile

import peer_decode
import peer_run
from peer_table import middle, ratios, spread, table

sys.path.insert(0, str(peer_run.HERE.parent / "e2e"))

# done() runs once, after the load; errors.status counts the answers of 400 and above.
LUA = """
local file = io.open(%s, "rb")
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["Content-Type"] = "image/jpeg"
function done(summary, latency)
    local e = summary.errors
    io.write(string.format('{"requests": %%d, "seconds": %%.6f, "ms_p50": %%.3f, "ms_p99": %%.3f, ' ..
        '"not_200": %%d, "socket_errors": %%d}\\n', summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, e.status,
        e.connect + e.read + e.write + e.timeout))
end
"""
SINGLE = 20  # requests by hand, for Server-Timing


def model_options(options, folder):
    return ["--model", options.model, "--weights", folder / "weights.safetensors", "--device", "cpu",
            "--precision", options.precision, "--log-level", "error"]


def load(port, path, clients, seconds):
    with tempfile.TemporaryDirectory() as folder:
        lua = pathlib.Path(folder) / "post.lua"
        lua.write_text(LUA % json.dumps(str(path)), encoding="ascii")
        text = peer_run.output(["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s",
                                "-s", lua, f"http://127.0.0.1:{port}/classify"])
    return {"clients": clients, **json.loads(text.splitlines()[-1])}


def server_timing(server, jpeg):
    """{part: median ms} of single requests, or {} where the server does not say."""
    samples = {}
    for _ in range(SINGLE):
        answer = server.classify(jpeg)
        if answer.status != 200:
            raise RuntimeError(f"the server answers {answer.status}: {answer.body[:200]!r}")
        for part in answer.headers.get("server-timing", "").split(","):
            name, _, value = part.strip().partition(";dur=")
            if value:
                samples.setdefault(name, []).append(float(value.split(";")[0]))
    return {name: statistics.median(values) for name, values in samples.items()}


def engine(options, folder, batch):
    text = peer_run.output([options.binary, "bench", *model_options(options, folder), "--json",
                            "--batch", batch, "--seconds", options.seconds])
    return json.loads(text)["results"][0]


def measure(options, folder, path):
    """One server, loaded with each number of clients. The engine alone runs right after each load,
    while the server is idle, at the batch that the server takes when it is busy: no more than there
    are clients."""
    os.environ["VITSERVE_BINARY"] = str(options.binary)
    import vitserve  # it reads the variable once
    vitserve.TIMEOUT = 120
    model = [str(part) for part in model_options(options, folder)]
    rounds = []
    with vitserve.Server("--max-queue", max(64, *options.clients), model=model) as server:
        runtime = server.request("GET", "/model").json.get("runtime", {})
        for number in range(1, options.rounds + 1):
            print(f"round {number}: the server and the engine in turn", file=sys.stderr, flush=True)
            loads = []
            for clients in options.clients:
                one = load(server.port, path, clients, options.seconds)
                batch = min(runtime.get("max_batch") or 16, clients)
                loads.append({**one, "engine": engine(options, folder, batch)})
            rounds.append({"round": number, "max_batch": runtime.get("max_batch"),
                           "precision": runtime.get("precision"), "loads": loads,
                           "server_timing": server_timing(server, path.read_bytes())})
    return rounds


def picture_ms(entry, decode_ms):
    """As the server says, or decode_ms."""
    timing = entry["server_timing"]
    if "decode" in timing and "preprocess" in timing:
        return timing["decode"] + timing["preprocess"]
    return decode_ms


def bench_decode_ms(options, path):
    """Decode and preprocess, for a server without Server-Timing."""
    bench = options.binary.parent / "tests" / "bench_decode"
    rows = peer_decode.lines(peer_run.output([bench, path]))
    return next(row["total_ms"] for row in rows if row["mode"] == "exact")


def print_table(options, rounds, decode_ms):
    body = []
    for i, clients in enumerate(options.clients):
        loads = [entry["loads"][i] for entry in rounds]
        alone = [one["engine"]["images_per_second"] for one in loads]
        rates = [(one["requests"] - one["not_200"]) / one["seconds"] for one in loads]
        # One client waits for the picture and the engine at the least.
        over = [one["ms_p50"] - one["engine"]["ms_p50"] - picture_ms(entry, decode_ms)
                for one, entry in zip(loads, rounds)]
        body.append([f"{clients} clients" if clients > 1 else "1 client", middle(rates),
                     f"{middle(alone)}, batch {loads[0]['engine']['batch']}",
                     spread(ratios(rates, alone)),
                     middle([one["ms_p50"] for one in loads]),
                     middle([one["ms_p99"] for one in loads]),
                     spread(over) if clients == 1 else "",
                     sum(one["not_200"] for one in loads),
                     sum(one["socket_errors"] for one in loads)])
    entry = rounds[0]
    table(f"{options.model} over HTTP, {entry['precision']}, at most {entry['max_batch']} images a "
          f"batch: median of {options.rounds} rounds",
          ["", "requests/s", "engine alone", "of the engine", "p50 ms", "p99 ms",
           "p50 ms over engine + picture", "not 200", "socket errors"], body)


def run(options):
    folder = peer_run.files_of(options.model)
    path = peer_decode.photo(peer_decode.SIZES[0])
    rounds = measure(options, folder, path)
    decode_ms = bench_decode_ms(options, path)
    print_table(options, rounds, decode_ms)
    return {"model": options.model, "decode_ms": decode_ms, "rounds": rounds}
