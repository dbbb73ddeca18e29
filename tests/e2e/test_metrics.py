"""/metrics and Server-Timing: every number is held against what was sent and answered."""

import collections
import contextlib
import itertools
import math
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import time
import unittest

from vitserve import (MODEL, TIMEOUT, Case, Server, ServerCase, answer_from, exchange, multipart,
                      png, together)

KEY = "the-key-of-the-metrics-test"
KNOWN = {"requests_total": "counter", "images_total": "counter", "batches_total": "counter",
         "queue_images": "gauge", "inflight_requests": "gauge", "inflight_bytes": "gauge",
         "ready": "gauge", "device_memory_bytes": "gauge", "build_info": "gauge",
         "request_seconds": "histogram", "decode_seconds": "histogram",
         "queue_seconds": "histogram", "infer_seconds": "histogram", "batch_images": "histogram"}
OUTCOMES = ("ok", "bad_image", "rejected", "expired", "cancelled", "failed")


class Scrape:
    """One answer of /metrics, parsed: series[name, labels] with labels as a sorted tuple."""

    def __init__(self, server):
        self.answer = server.request("GET", "/metrics")
        self.text = self.answer.body.decode()
        self.types, self.helps, self.series = {}, {}, {}
        for line in self.text.splitlines():
            if line.startswith("# "):
                kind, name, rest = line[2:].split(" ", 2)
                table = {"TYPE": self.types, "HELP": self.helps}[kind]
                assert name not in table, line
                table[name] = rest
                continue
            name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
            pairs = re.findall(r'(\w+)="((?:[^"\\\n]|\\.)*)"', labels or "")
            assert ",".join(f'{key}="{text}"' for key, text in pairs) == (labels or ""), line
            series = name.removeprefix("vitserve_"), tuple(sorted(pairs))
            assert series not in self.series, line
            self.series[series] = float(value)

    def value(self, name, **labels):
        return self.series[name, tuple(sorted(labels.items()))]

    def all_of(self, name):
        return {labels: value for (other, labels), value in self.series.items() if other == name}

    def total(self, name):
        return sum(self.all_of(name).values())

    def requests(self):
        """{(path, status): count}, but for those of /metrics itself."""
        rows = {(dict(labels)["path"], int(dict(labels)["status"])): count
                for labels, count in self.all_of("requests_total").items()}
        return {row: count for row, count in rows.items() if row[0] != "/metrics"}


class MetricsCase(Case):
    def settled(self, server, images=0):
        """A scrape once nothing is in work and that many images are counted: replies have just
        been sent, and what nobody waits for may not have been read yet."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            scrape = Scrape(server)
            gauges = {name: scrape.value(name) for name in
                      ("queue_images", "inflight_requests", "inflight_bytes")}
            counted = scrape.total("images_total")
            if counted >= images and not any(gauges.values()):
                return scrape
            self.assertLess(time.monotonic(), deadline, (gauges, counted))
            time.sleep(0.02)

    def check_histograms(self, scrape):
        for name, kind in KNOWN.items():
            if kind != "histogram":
                continue
            buckets = [(math.inf if labels[0][1] == "+Inf" else float(labels[0][1]), count)
                       for labels, count in scrape.all_of(name + "_bucket").items()]
            bounds, counts = zip(*buckets)
            self.assertEqual(list(bounds), sorted(set(bounds)), name)
            self.assertEqual(list(counts), sorted(counts), name)
            self.assertEqual(bounds[-1], math.inf)
            self.assertEqual(counts[-1], scrape.value(name + "_count"), name)
            self.assertGreaterEqual(scrape.value(name + "_sum"), 0)
            if name.endswith("_seconds"):
                self.assertEqual((bounds[0], bounds[-2]), (0.00025, 10))
                self.assertGreaterEqual(len(bounds), 12)

    def check_sums(self, scrape):
        """What must hold whatever has happened, once nothing is in work."""
        self.check_histograms(scrape)
        ok, bad, gone = (scrape.value("images_total", outcome=name)
                         for name in ("ok", "bad_image", "cancelled"))
        self.assertEqual(scrape.value("infer_seconds_count"), ok)
        self.assertEqual(scrape.value("queue_seconds_count"), ok)
        decoded = scrape.value("decode_seconds_count") - ok - bad
        self.assertTrue(0 <= decoded <= gone, f"{decoded} of {gone}")
        self.assertEqual(scrape.value("batch_images_sum"), ok)
        self.assertEqual(scrape.value("batch_images_count"), scrape.total("batches_total"))
        self.assertEqual(scrape.value("request_seconds_count"), scrape.total("requests_total"))


class Text(MetricsCase, ServerCase):
    model = MODEL

    def test_names(self):
        self.check_good(self.server)
        scrape = self.settled(self.server)
        self.assertEqual(scrape.answer.headers["content-type"],
                         "text/plain; version=0.0.4; charset=utf-8")
        self.assertEqual(scrape.types, {"vitserve_" + name: kind for name, kind in KNOWN.items()})
        self.assertEqual(set(scrape.helps), set(scrape.types))
        for text in scrape.helps.values():
            self.assertGreater(len(text), 5)
        names = {name for name, _ in scrape.series}
        for name, kind in KNOWN.items():
            parts = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            self.assertLessEqual({name + part for part in parts}, names)
        self.assertEqual({dict(labels)["outcome"] for labels in scrape.all_of("images_total")},
                         set(OUTCOMES))
        self.assertEqual({dict(labels)["reason"] for labels in scrape.all_of("batches_total")},
                         {"full", "idle"})
        self.assertTrue(scrape.text.endswith("\n"))
        self.assertNotIn("\r", scrape.text)

    @unittest.skipUnless(shutil.which("promtool"),
                         "promtool is not installed (Debian's package prometheus has it)")
    def test_promtool(self):
        self.check_good(self.server)
        self.server.request("GET", "/nowhere")
        finished = subprocess.run(["promtool", "check", "metrics"],
                                  input=Scrape(self.server).text, capture_output=True, text=True,
                                  timeout=TIMEOUT, check=False)
        self.assertEqual((finished.returncode, finished.stdout, finished.stderr), (0, "", ""))

    def test_what_runs(self):
        scrape = Scrape(self.server)
        runtime = self.server.request("GET", "/model").json["runtime"]
        ((labels, one),) = scrape.all_of("build_info").items()
        self.assertEqual(one, 1)
        self.assertEqual(dict(labels), {"version": runtime["version"], "device": runtime["device"],
                                        "precision": runtime["precision"], "model": MODEL[1]})
        self.assertEqual(scrape.value("device_memory_bytes"), runtime["weights_bytes"])
        self.assertEqual(scrape.value("ready"), 1)

    def test_random_paths_add_no_rows(self):
        self.server.request("GET", "/nowhere")
        rows = set(Scrape(self.server).series)
        chance = random.Random(1)
        with contextlib.closing(self.server.connect()) as connection:
            for i in range(1000):
                path = "/" + "".join(chance.choices('abc/%22"{}=.,~\\', k=chance.randint(1, 40)))
                method = chance.choice(("GET", "HEAD", "POST", "PUT", "PROPFIND", f"M{i}"))
                self.assertEqual(exchange(connection, method, path).status, 404)
        scrape = Scrape(self.server)
        rows.add(("requests_total", (("path", "/metrics"), ("status", "200"))))
        self.assertLessEqual(set(scrape.series), rows)
        self.assertGreaterEqual(scrape.value("requests_total", path="other", status="404"), 1000)

    def test_while_starting(self):
        with Server("--max-batch", 1, model=("--model", "vit_b_32", *MODEL[2:]),
                    wait=False) as server:
            scrape = Scrape(server)
            self.assertEqual(scrape.value("ready"), 0)
            self.assertEqual(scrape.total("build_info"), 1)
            server.wait_ready()
            self.assertEqual(Scrape(server).value("ready"), 1)


class Gauges(MetricsCase):
    def test_a_request_that_arrives(self):
        data = png()
        with Server("--max-batch", 1) as server, server.open_socket() as slow:
            slow.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                         b"Content-Length: %d\r\n\r\n" % len(data))
            self.assertEqual(slow.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            for _ in range(3):
                time.sleep(0.2)  # the scrape before, too, has to be over
                scrape = Scrape(server)
                self.assertEqual(scrape.value("inflight_requests"), 1)
                self.assertEqual(scrape.value("inflight_bytes"), len(data))
                self.assertEqual(scrape.value("queue_images"), 0)
            slow.sendall(data)
            self.assertEqual(answer_from(slow).status, 200)
            self.check_sums(self.settled(server))

    def test_images_in_the_queue(self):
        kind, form = multipart([(str(i), png(seed=i)) for i in range(12)])
        with Server("--max-batch", 1, "--max-queue", 24, model=MODEL) as server:
            def poll():
                seen, end = set(), time.monotonic() + TIMEOUT
                while len(seen) < 2 and time.monotonic() < end:
                    seen.add(Scrape(server).value("queue_images"))
                return seen
            seen, *answers = together(
                lambda i: server.classify(form, Content_Type=kind) if i else poll(), range(3))
            self.assertLessEqual(seen, {0, 12, 24})
            self.assertGreater(len(seen), 1)
            self.assertEqual([answer.status for answer in answers], [200, 200])
            scrape = self.settled(server)
            self.check_sums(scrape)
            self.assertEqual(scrape.value("images_total", outcome="ok"), 24)

    def test_clients_that_vanish(self):
        data = png(300, 300)
        head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data)
        with Server("--max-batch", 2) as server:
            def vanish(i):
                with server.open_socket() as connection:
                    connection.sendall(head + data[:len(data) * (i % 4) // 3])
            together(vanish, range(32), threads=8)
            scrape = self.settled(server, images=8)
            self.check_sums(scrape)
            self.assertEqual(scrape.total("images_total"), 8)
            self.assertGreater(scrape.value("images_total", outcome="cancelled"), 0)


class Load(MetricsCase):
    """Good and bad requests of every kind from many threads; then the books are closed."""

    def requests(self):
        """(method, path, body, headers, images of it if its body is looked at)"""
        def form(*files, **fields):
            kind, body = multipart([(str(i), data) for i, data in enumerate(files)], **fields)
            return body, {"Content-Type": kind}
        good, cut = png(), png()[:60]
        key = {"Authorization": "Bearer " + KEY}
        mixed, mixed_kind = form(good, b"none", png(seed=2), cut)
        bad, bad_kind = form(cut, b"", b"none")
        many, many_kind = form(*[good] * 7)
        six, six_kind = form(*[good] * 6)
        odd, odd_kind = form(good, good, top_k=0)
        return [
            ("POST", "/classify", good, key, 1),
            ("POST", "/classify?top_k=2&logits=1", png(90, 20), key, 1),
            ("POST", "/classify", cut, key, 1),
            ("POST", "/classify", b"nothing", key, 1),
            ("POST", "/classify", png(700, 10, None), key, 1),  # too many pixels
            ("POST", "/classify", mixed, key | mixed_kind, 4),
            ("POST", "/classify", bad, key | bad_kind, 3),
            ("POST", "/classify", six, key | six_kind, 6),  # a full queue, mostly
            ("POST", "/classify?top_k=x", good, key, 1),
            ("POST", "/classify", odd, key | odd_kind, 2),
            ("POST", "/classify", many, key | many_kind, 0),
            ("POST", "/classify", b"", key, 0),
            ("POST", "/classify", bytes(40000), key, 0),
            ("POST", "/classify", good, {}, 0),
            ("POST", "/classify", good, {"Authorization": "Bearer nobody"}, 0),
            ("GET", "/classify", None, key, 0),
            ("OPTIONS", "/classify", None, {}, 0),
            ("GET", "/model", None, key, 0),
            ("HEAD", "/model", None, key, 0),
            ("GET", "/model?format=yaml", None, key, 0),
            ("GET", "/model", None, {}, 0),
            ("PUT", "/model", good, key, 0),
            ("GET", "/nowhere", None, key, 0),
            ("POST", "/nowhere/else", good, key, 0),
            ("GET", "/healthz", None, {}, 0),
            ("GET", "/readyz", None, {}, 0),
        ]

    def test_the_books(self):
        requests = self.requests()
        with tempfile.TemporaryDirectory() as folder:
            keys = pathlib.Path(folder, "keys")
            keys.write_text(KEY, encoding="ascii")
            with Server("--max-batch", 4, "--max-queue", 8, "--max-images", 6, "--max-pixels",
                        6000, "--max-body-bytes", 30000, "--api-key-file", keys,
                        model=MODEL) as server:
                before = self.settled(server)

                def client(number):
                    order = requests * 2
                    random.Random(number).shuffle(order)
                    return [(request, server.request(request[0], request[1], request[2],
                                                     **request[3])) for request in order]
                seen = list(itertools.chain(*together(client, range(8))))
                scrape = self.settled(server)
        self.check_sums(scrape)
        self.check_requests(seen, before, scrape)
        self.check_images(seen, scrape)

    def check_requests(self, seen, before, scrape):
        answered = collections.Counter()
        for (_, path, _, _, _), answer in seen:
            path = path.split("?")[0]
            answered["other" if path.startswith("/nowhere") else path, answer.status] += 1
        self.assertEqual({status for _, status in answered},
                         {200, 400, 401, 404, 405, 413, 415, 429})
        counted = collections.Counter(scrape.requests())
        counted.subtract(before.requests())
        self.assertEqual({row: count for row, count in counted.items() if count}, dict(answered))

    def check_images(self, seen, scrape):
        expected = dict.fromkeys(OUTCOMES, 0)
        sent = 0
        for (_, _, _, _, images), answer in seen:
            sent += images
            results = answer.json.get("results", ()) if images else ()
            if images and not results:
                self.assertIn(answer.json["code"], ("queue_full", "bad_top_k"))
                expected["rejected"] += images
            self.assertIn(len(results), (0, images))
            for result in results:
                expected["bad_image" if "code" in result else "ok"] += 1
        counted = {name: scrape.value("images_total", outcome=name) for name in OUTCOMES}
        self.assertEqual(counted, expected)
        self.assertEqual(scrape.total("images_total"), sent)
        for name in ("ok", "bad_image", "rejected"):
            self.assertGreater(expected[name], 0)


class Timing(ServerCase):
    """Server-Timing of an answer that images came through."""
    model = MODEL
    stages = ("read", "decode", "preprocess", "queue", "infer", "total")

    def times(self, answer):
        entries = dict(entry.strip().split(";", 1)
                       for entry in answer.headers["server-timing"].split(","))
        self.assertEqual(tuple(entries), (*self.stages, "batch"))
        batch = re.fullmatch(r'desc="([1-9][0-9]*)"', entries.pop("batch")).group(1)
        times = {name: float(re.fullmatch(r"dur=([0-9]+\.[0-9]{3})", text).group(1))
                 for name, text in entries.items()}
        return times, int(batch)

    def test_one_image(self):
        for picture in (png(), png(800, 600)):
            start = time.monotonic()
            answer = self.server.classify(picture)
            elapsed_ms = (time.monotonic() - start) * 1000
            times, batch = self.times(answer)
            self.assertEqual(batch, 1)
            self.assertLessEqual(sum(times[name] for name in self.stages[:-1]),
                                 times["total"] + 0.01)
            self.assertLessEqual(times["total"], elapsed_ms)
            for name in ("decode", "preprocess", "infer"):
                self.assertGreater(times[name], 0)

    def test_the_body_counts_as_read(self):
        data = png()
        with self.server.open_socket() as connection:
            connection.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
                               % len(data) + data[:100])
            time.sleep(0.3)
            connection.sendall(data[100:])
            times, _ = self.times(answer_from(connection))
        self.assertGreater(times["read"], 250)
        self.assertGreater(times["total"], times["read"])

    def test_a_form(self):
        kind, body = multipart([("a", png()), ("b", b"none"), ("c", png(400, 400))])
        times, batch = self.times(self.server.classify(body, Content_Type=kind))
        self.assertIn(batch, (1, 2))
        for name in self.stages[:-1]:
            self.assertLessEqual(times[name], times["total"])
        self.assertGreater(times["infer"], 0)

    def test_batches(self):
        answers = together(lambda i: self.server.classify(png(seed=i)), range(24))
        batches = [self.times(answer)[1] for answer in answers if answer.status == 200]
        self.assertGreater(max(batches), 1)
        self.assertLessEqual(max(batches), 8)

    def test_without_images(self):
        for answer in (self.server.request("GET", "/model"), self.server.classify(b"none"),
                       self.server.classify(png(), "?top_k=0"),
                       self.server.request("GET", "/nowhere")):
            self.assertNotIn("server-timing", answer.headers)


if __name__ == "__main__":
    unittest.main()
