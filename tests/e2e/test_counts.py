"""What /metrics, Server-Timing, the log and the statistics of v2 say after a request or two whose
every number is known beforehand."""

import datetime
import time
import unittest

from oip import OipCase
from test_metrics import MetricsCase, Scrape
from vitserve import Case, Server, multipart, png

MODEL = ()  # the built-in one


def form_of(*pictures):
    return multipart([(str(i), picture) for i, picture in enumerate(pictures)])


class Counts(MetricsCase):
    def test_a_batch_that_is_not_full(self):
        with Server("--max-batch", 8, model=MODEL) as server:
            self.check_good(server)
            scrape = self.settled(server, images=1)
            self.assertEqual(scrape.value("batches_total", reason="idle"), 1)
            self.assertEqual(scrape.value("batches_total", reason="full"), 0)

    def test_more_images_than_the_queue_holds(self):
        kind, body = form_of(*[png()] * 6)
        with Server("--max-queue", 4, "--max-images", 8, model=MODEL) as server:
            self.check_error(server.classify(body, Content_Type=kind), 413, "too_many_images")
            scrape = self.settled(server, images=6)
            self.assertEqual(scrape.value("images_total", outcome="rejected"), 6)

    def test_a_form_takes_the_time_of_all_its_images(self):
        """Decoding and resizing are told apart: a second scrape knows the decoding."""
        kind, body = form_of(*[png(900, 900, seed=i) for i in range(4)])
        with Server(model=MODEL) as server:
            answer = server.classify(body, Content_Type=kind)
            told = dict(entry.strip().split(";dur=")
                        for entry in answer.headers["server-timing"].split(",") if "dur" in entry)
            counted_ms = 1000 * self.settled(server, images=4).value("decode_seconds_sum")
            self.assertAlmostEqual(float(told["decode"]), counted_ms, places=2)

    def test_at_the_admin_port(self):
        with Server("--admin-port", 0, model=MODEL) as server:
            line = server.process.stdout.readline().decode()
            server.port = int(line.rsplit(":", 1)[1])
            # The one before is in flight until its thread has seen that the answer is out.
            self.until(lambda: Scrape(server).value("inflight_requests") == 0)


class Log(Case):
    def test_probes_are_silent(self):
        with Server(model=MODEL) as server:
            for path in ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"):
                for slash in ("", "/"):
                    self.assertEqual(server.request("GET", path + slash).status, 200, path)
            self.assertNotIn("request_id", server.stderr())
            server.request("GET", "/v2/health")
            self.assertEqual(server.stderr().count("request_id"), 1)

    def test_utc_wherever_the_server_is(self):
        for zone in ("XXX-9", "XXX+9"):
            with Server(model=MODEL, variables={"TZ": zone}) as server:
                self.check_good(server)
                stamp = server.stderr().splitlines()[-1].split()[0]
            told = datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00"))
            now = datetime.datetime.now(datetime.timezone.utc)
            self.assertLess(abs(now - told), datetime.timedelta(hours=4))


class Statistics(OipCase):
    def stats(self):
        (stats,) = self.get(self.path + "/stats")["model_stats"]
        return stats

    def test_one_bad_image_of_two(self):
        """Whichever it is, the inference has failed, and is not the last one."""
        self.check_good(self.server)
        before = self.stats()
        time.sleep(0.05)
        for pictures in ((b"none", png()), (png(), b"none")):
            kind, body = form_of(*pictures)
            self.assertEqual(self.server.classify(body, Content_Type=kind).status, 200)
        after = self.stats()
        for outcome, more in (("success", 0), ("fail", 2)):
            self.assertEqual(after["inference_stats"][outcome]["count"],
                             before["inference_stats"][outcome]["count"] + more)
        self.assertEqual(after["last_inference"], before["last_inference"])

    def test_a_model_without_a_name(self):
        for method, rest in (("GET", "/ready"), ("GET", "/config"), ("POST", "/infer")):
            answer = self.server.request(method, "/v2/models/" + rest, b"{}" if method == "POST"
                                         else None)
            self.check_error(answer, 404, "not_found")
        routes = {dict(labels)["path"] for labels in Scrape(self.server).all_of("requests_total")}
        self.assertIn("other", routes)
        self.assertFalse({route for route in routes if "{name}/" in route} -
                         {"/v2/models/{name}/stats"})

    def test_no_batch_that_a_request_could_not_fill(self):
        with Server("--max-batch", 8, "--max-images", 3, model=MODEL) as server:
            name = server.request("GET", "/v2/models").json["models"][0]
            config = server.request("GET", f"/v2/models/{name}/config").json
            self.assertEqual(config["max_batch_size"], 3)


if __name__ == "__main__":
    unittest.main()
