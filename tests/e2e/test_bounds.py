"""What one request may cost: pixels, memory, and time that nobody waits for any more."""

import contextlib
import select
import time

import hostile
from vitserve import TIMEOUT, Case, Server, metrics, multipart, png

MODEL = ()  # the built-in one
COSTLY = hostile.jpeg(8000, 8000, components=1, scans=32)
COUNT = 64


class Bounds(Case):
    def settled(self, server):
        """The metrics once nothing is in work."""
        end = time.monotonic() + TIMEOUT
        while (found := metrics(server))["vitserve_queue_images"]:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        return found

    def check_begun(self, server, outcome):
        """All of the images have come to this end, nearly none has been begun."""
        found = self.settled(server)
        self.assertEqual(found[f'vitserve_images_total{{outcome="{outcome}"}}'], COUNT)
        self.assertLess(found["vitserve_decode_seconds_count"], COUNT / 2)
        self.check_good(server)


class Bodies(Case):
    def test_a_body_that_just_fits(self):
        """One of unknown length is given more room than it needs, but only if there is more."""
        with Server("--max-inflight-bytes", 1 << 20, model=()) as server, \
                server.open_socket() as slow:
            slow.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\n"
                         b"Content-Length: 300000\r\n\r\n" + bytes(299999))
            self.until(lambda: metrics(server)["vitserve_inflight_bytes"] == 300000)
            answer = server.classify(bytes(50000) for _ in range(14))
            self.check_error(answer, 415, "unsupported_image")

    def test_one_byte_over_the_limit(self):
        """Of a length that is not known beforehand."""
        with Server("--max-body-bytes", 1000, model=()) as server:
            for length, status, code in ((1000, 415, "unsupported_image"),
                                         (1001, 413, "body_too_large")):
                answer = server.classify(iter([bytes(length - 1), b"x"]))
                self.check_error(answer, status, code)

    def test_a_refused_body_holds_nothing(self):
        """Though it goes on for as long as a refused client is listened to, which is five seconds."""
        with Server("--max-body-bytes", 1000000, model=()) as server, \
                server.open_socket() as slow:
            slow.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\n"
                         b"Transfer-Encoding: chunked\r\n\r\nf4240\r\n" + bytes(1000000))
            self.until(lambda: metrics(server)["vitserve_inflight_bytes"] >= 1000000)
            slow.sendall(b"\r\n10\r\n" + bytes(16))
            self.until(lambda: metrics(server)["vitserve_inflight_bytes"] == 0, 4)


class Time(Bounds):
    def test_a_client_that_leaves(self):
        for request in (hostile.form(COSTLY, COUNT), hostile.packed_form(COSTLY, COUNT),
                        hostile.oip(COSTLY, COUNT)):
            with Server("--decode-threads", 2, "--request-timeout-ms", 600000,
                        "--max-queue", 2 * COUNT, model=MODEL) as server:
                with server.open_socket() as connection:
                    connection.sendall(request)
                    end = time.monotonic() + TIMEOUT
                    while (metrics(server)["vitserve_queue_images"] == 0 and
                           time.monotonic() < end):
                        time.sleep(0.001)
                self.check_begun(server, "cancelled")

    def test_the_deadline(self):
        with Server("--decode-threads", 2, "--request-timeout-ms", 150, "--max-queue", 2 * COUNT,
                    model=MODEL) as server:
            kind, form = multipart([(str(i), COSTLY) for i in range(COUNT)])
            self.check_error(server.classify(form, Content_Type=kind), 504, "deadline")
            self.check_begun(server, "expired")

    def test_the_deadline_of_one_picture(self):
        with Server("--request-timeout-ms", 50, model=MODEL) as server:
            for path in ("/classify", "/preprocess"):
                answer = server.request("POST", path, COSTLY)
                self.check_error(answer, 504, "deadline")
            self.check_good(server)

    def test_a_stop(self):
        """Clients that have left hold no stop up."""
        with Server("--drain-timeout-ms", 600000, "--request-timeout-ms", 600000,
                    "--max-queue", 4 * COUNT, model=MODEL) as server:
            with contextlib.ExitStack() as stack:
                for _ in range(3):
                    stack.enter_context(server.open_socket()).sendall(hostile.form(COSTLY, COUNT))
            self.assertEqual(server.stop(), 0)


    def test_json_that_takes_long_to_parse(self):
        """It has a long turn: images go by."""
        requests = dict(hostile.json_bombs())
        for name in ("escapes to /classify", "escapes to /v2/models/fashion_vit/infer"):
            with Server("--decode-threads", 1, model=MODEL) as server:
                with server.open_socket() as connection:
                    connection.sendall(requests[name])
                    end = time.monotonic() + TIMEOUT
                    while (metrics(server)["vitserve_inflight_bytes"] < 10 << 20 and
                           time.monotonic() < end):
                        pass
                    self.check_good(server)
                    answered, _, _ = select.select([connection], [], [], 0)
                    self.assertEqual(answered, [])


class Pixels(Bounds):
    def test_of_a_request(self):
        """Four times --max-pixels by default."""
        picture = png(width=20, height=20)
        for options, most in ((("--max-pixels", 400), 4),
                              (("--max-pixels", 400, "--max-request-pixels", 2399), 5),
                              (("--max-request-pixels", 399), 0)):
            with Server(*options, "--max-queue", COUNT, model=MODEL) as server:
                for count in range(1, most + 3):
                    kind, form = multipart([(str(i), picture) for i in range(count)])
                    answer = server.classify(form, Content_Type=kind)
                    if count <= most:
                        self.assertEqual(answer.status, 200)
                        continue
                    self.check_error(answer, 413, "image_too_large")
                    self.assertIn("--max-request-pixels", answer.json["error"])
                found = self.settled(server)
                refused = found['vitserve_images_total{outcome="bad_image"}']
                self.assertEqual(refused, sum(range(most + 1, most + 3)))


class Memory(Bounds):
    def test_more_than_there_may_be(self):
        with Server("--max-decode-bytes", 16 << 20, model=MODEL) as server:
            answer = server.classify(COSTLY)
            self.check_error(answer, 413, "image_too_large")
            self.assertIn("--max-decode-bytes", answer.json["error"])
            for picture in (hostile.jpeg(4000, 3000), hostile.webp(1000, 1000)):
                self.assertEqual(server.classify(picture).status, 200)

    def test_who_waits_for_memory_gets_it(self):
        """Of pictures that fit one at a time, each is decoded in the end."""
        picture = hostile.jpeg(1500, 1000, components=4, scans=4)  # 12 MB
        with Server("--max-decode-bytes", 20 << 20, "--decode-threads", 4, "--max-queue", COUNT,
                    model=MODEL) as server:
            kind, form = multipart([(str(i), picture) for i in range(12)])
            answer = server.classify(form, Content_Type=kind)
            self.assertEqual(answer.status, 200)
            self.assertEqual([set(result) & {"error"} for result in answer.results], [set()] * 12)
