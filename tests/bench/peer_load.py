"""tests/bench/peers.py load: what clients see of a server under load.

Closed loop: as many clients as --clients at most, each of which asks again when it has its answer, at
vitserve and at two servers that one would write instead, in turn. Their logits agree first. The queue
holds all clients: these do not heed Retry-After.

Open loop: requests come at random times (Poisson), at shares of what vitserve managed in the closed
loop, whatever the server does; its queue is its own choice. The latency of each counts from when it
was to be sent, so that what a slow answer held up is seen. Over its capacity a server has to refuse:
429, soon, and go on serving the others as well as before.

Not in `all`: the peers take a while to start. The load generator shares the cores with the servers.
"""

import math
import sys

import peer_decode
import peer_plot
import peer_run
import peer_servers
from peer_engine import relative_error
from peer_table import middle, ratios, spread, table

SIZES = [(500, 375), (640, 480), (375, 500)]
OFFERED = [0.2, 0.5, 0.8, 1, 1.5, 3]
OPEN_SECONDS = 3  # times --seconds: the tail needs many requests
QUANTILES = [50, 90, 99, 99.9]
OURS = ("vitserve", "auto")
# What starts it, and how far its logits may be from PyTorch's in fp32 (relative L2). libvips does not
# resize as Pillow does; where the same bytes go in, ONNX Runtime's differ by 1e-6 (peers.py engine).
SERVERS = {OURS: (peer_servers.vitserve, 5e-2),
           ("vitserve", "fp32"): (peer_servers.vitserve, 1e-3),
           ("FastAPI + PyTorch", "fp32"): (peer_servers.fastapi, 1e-3),
           ("FastAPI + PyTorch", "bf16"): (peer_servers.fastapi, 5e-2),
           ("Node + sharp + ONNX Runtime", "fp32"): (peer_servers.node, 1e-1)}
REFERENCE = ("FastAPI + PyTorch", "fp32")


def say(text):
    print(text, file=sys.stderr, flush=True)


def quantile(values, percent):
    """The smallest value that so many percent do not exceed; None where the values are too few to
    have one above it: 1000 for p99.9."""
    if not values or len(values) * (100 - percent) < 99.99:
        return None
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def shown(value):
    return "" if value is None else f"{value:.1f}"


def check(options, folder, paths):
    """Everyone computes the same thing, or there is nothing to compare."""
    answers = {}
    for server, (start, _) in SERVERS.items():
        with start(options, folder, server[1]) as port:
            answers[server] = [peer_servers.ask(port, path.read_bytes()) for path in paths]
    report = []
    for server, (_, limit) in SERVERS.items():
        pairs = list(zip(answers[server], answers[REFERENCE]))
        error = max(relative_error(ours[0], theirs[0]) for ours, theirs in pairs)
        same = sum(ours[1] == theirs[1] for ours, theirs in pairs)
        say(f"{' '.join(server)}: the logits differ by {error:.1e}, {same} of {len(pairs)} "
            "pictures have the same first class")
        if not error <= limit or same < len(pairs):
            raise RuntimeError(f"{' '.join(server)} does not compute the same: relative L2 error "
                               f"{error:.2e}, the limit is {limit:.0e}")
        report.append({"server": server, "error": error})
    return report


# ---- closed loop --------------------------------------------------------------------------------

def closed_round(options, folder, paths, server, number):
    say(f"round {number}: {' '.join(server)}")
    clients = max(options.clients)
    with SERVERS[server][0](options, folder, server[1]) as port:
        peer_servers.ask(port, paths[0].read_bytes())
        peer_servers.load(options, port, paths, "--clients", clients, "--seconds", 1)  # warm
        lines, busy = peer_servers.load(options, port, paths, "--clients", clients,
                                        "--seconds", options.seconds)
    accepted = [line for line in lines if line[0] == "200"]
    # Those that were answered within the time: the last ones come after it.
    within = sum(start + ms / 1e3 <= options.seconds for _, ms, start in accepted)
    latencies = [ms for _, ms, _ in accepted]
    return {"round": number, "server": server, "client_cores": busy,
            "images_per_second": within / options.seconds, "not_200": len(lines) - len(accepted),
            **{f"ms_p{p}": quantile(latencies, p) for p in (50, 99)}}


def closed(options, folder, paths):
    return [closed_round(options, folder, paths, server, number)
            for number in range(1, options.rounds + 1) for server in SERVERS]


def figures(rows, server, name):
    """One figure a round."""
    return [row[name] for row in rows if row["server"] == server]


def middle_of(values):
    values = [value for value in values if value is not None]
    return middle(values) if values else ""


def print_closed(options, rows):
    rates = {server: figures(rows, server, "images_per_second") for server in SERVERS}
    body = []
    for server in SERVERS:
        ours = [spread(ratios(rates[mine], rates[server])) if all(rates[server]) and
                server[0] != "vitserve" else "" for mine in (OURS, ("vitserve", "fp32"))]
        body.append([" ".join(server), middle(rates[server]),
                     *(middle_of(figures(rows, server, f"ms_p{p}")) for p in (50, 99)),
                     sum(figures(rows, server, "not_200")), *ours])
    table(f"{options.model} over HTTP, {max(options.clients)} clients: median of {options.rounds} "
          f"rounds of {options.seconds} s",
          ["", "images/s", "p50 ms", "p99 ms", "not 200", "vitserve auto is faster by",
           "vitserve fp32"], body)
    print(f"The load generator took {max(row['client_cores'] for row in rows):.2f} cores at most.\n")


# ---- open loop ----------------------------------------------------------------------------------

def open_round(options, folder, paths, capacity, number):
    """{share of the capacity: lines}"""
    found = {}
    with peer_servers.vitserve(options, folder, OURS[1], queue=None) as port:
        peer_servers.ask(port, paths[0].read_bytes())
        for share in OFFERED:
            say(f"round {number}: {share} of the capacity")
            found[share], _ = peer_servers.load(
                options, port, paths, "--rate", share * capacity, "--seconds",
                OPEN_SECONDS * options.seconds, "--seed", number, "--connections", 2000)
    return found


def describe(share, lines, seconds):
    """The figures of all rounds together."""
    by_outcome = {}
    for outcome, ms, _ in lines:
        by_outcome.setdefault(outcome, []).append(ms)
    accepted, refused = by_outcome.pop("200", []), by_outcome.pop("429", [])
    within = sum(outcome == "200" and start + ms / 1e3 <= seconds[0] for outcome, ms, start in lines)
    return {"share": share, "offered_per_second": len(lines) / sum(seconds),
            "goodput_per_second": within / sum(seconds),
            "ms": {str(p): quantile(accepted, p) for p in QUANTILES},
            "refused": len(refused), "refused_ms_p99": quantile(refused, 99),
            "others": {outcome: len(values) for outcome, values in by_outcome.items()}}


def opened(options, folder, paths, capacity):
    rounds = [open_round(options, folder, paths, capacity, number)
              for number in range(1, options.rounds + 1)]
    seconds = [OPEN_SECONDS * options.seconds] * options.rounds
    return [describe(share, [line for found in rounds for line in found[share]], seconds)
            for share in OFFERED]


def print_open(options, capacity, rows):
    body = [[f"{row['share']:g}", f"{row['offered_per_second']:.1f}",
             f"{row['goodput_per_second']:.1f}", *(shown(row["ms"][str(p)]) for p in QUANTILES),
             row["refused"], shown(row["refused_ms_p99"]),
             ", ".join(f"{count} {name}" for name, count in row["others"].items())]
            for row in rows]
    table(f"vitserve {OURS[1]}, requests at random times, in shares of its capacity of "
          f"{capacity:.1f} images/s: {options.rounds} rounds of {OPEN_SECONDS * options.seconds} s",
          ["offered", "requests/s", "answered/s", *(f"p{p:g} ms" for p in QUANTILES), "429",
           "p99 ms of 429", "others"], body)
    print("The latencies are those of the answers of 200, from when each request was to be sent; a "
          "quantile of too few requests is left out.\n")


def plot(options, rows):
    """Beside the raw figures."""
    path = options.json.with_suffix(".svg")
    lines = {f"p{p:g} of 200": [(row["share"], row["ms"][str(p)]) for row in rows]
             for p in QUANTILES}
    lines["p99 of 429"] = [(row["share"], row["refused_ms_p99"]) for row in rows]
    path.write_text(peer_plot.svg(f"{options.model}: latency under load",
                                  "offered load / capacity", "ms", lines), encoding="utf-8")
    say(f"written {path}")


def run(options):
    folder = peer_run.files_of(options.model)
    paths = [peer_decode.photo(size) for size in SIZES]
    report = check(options, folder, paths)
    rows = closed(options, folder, paths)
    print_closed(options, rows)
    rates = sorted(figures(rows, OURS, "images_per_second"))
    capacity = rates[len(rates) // 2]
    if capacity <= 0:
        raise RuntimeError("vitserve answered nothing within --seconds: take more of them")
    open_rows = opened(options, folder, paths, capacity)
    print_open(options, capacity, open_rows)
    if options.json:
        plot(options, open_rows)
    return {"model": options.model, "checks": report, "closed": rows, "capacity": capacity,
            "open": open_rows}
