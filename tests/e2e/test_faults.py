"""A device that fails, hangs or slows on command (tests/faults): each fault ends in the documented
status or exit code, the health checks tell the truth, and the next request works or the process has
ended. VITSERVE_BINARY lies beside the faulty module."""

import contextlib
import os
import pathlib
import tempfile
import threading
import time
import unittest

from vitserve import HERE, SANITIZED, TIMEOUT, Case, Server, answer_from, png, together

SLOW = 4 if SANITIZED else 1
MODEL = ("--device", "cuda")  # the built-in model
CHECKPOINT = HERE.parents[1] / "config" / "demo" / "fashion_vit.safetensors"


class FaultCase(Case):
    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.file = pathlib.Path(folder, "command")
        self.command("ok")

    def command(self, text):
        """Renamed into place: never seen half written."""
        new = self.file.with_suffix(".new")
        new.write_text(text, encoding="ascii")
        new.rename(self.file)

    def serve(self, *options):
        return Server("--max-batch", 4, *options, model=MODEL,
                      variables={"FAULTS": str(self.file)})

    def gauges(self, server):
        lines = server.request("GET", "/metrics").body.decode().splitlines()
        wanted = ("vitserve_queue_images ", "vitserve_inflight_requests ",
                  "vitserve_inflight_bytes ")
        return [int(line.split()[1]) for line in lines if line.startswith(wanted)]

    def check_well_again(self, server):
        self.until(lambda: server.request("GET", "/readyz").status == 200)
        self.check_good(server)
        self.until(lambda: self.gauges(server) == [0, 0, 0])


class Start(FaultCase):
    def test_first_passes_that_tune(self):
        """They take longer than any batch may, and yet the batch that is chosen is a large one."""
        self.command("cold 300")
        with Server(model=MODEL, variables={"FAULTS": str(self.file)}) as server:
            self.assertGreaterEqual(server.request("GET", "/model").json["runtime"]["max_batch"], 4)
            self.check_good(server)


class Batches(FaultCase):
    def test_a_failed_batch(self):
        """500 for its images; not ready until a forward pass has succeeded."""
        with self.serve() as server:
            self.check_good(server)
            self.command("fail")
            self.check_error(server.classify(png()), 500, "internal")
            self.check_error(server.request("GET", "/readyz"), 503, "device_failed")
            self.check_error(server.request("GET", "/healthz"), 503, "device_failed")
            time.sleep(0.5)  # it has tried again, in vain
            self.check_error(server.request("GET", "/readyz"), 503, "device_failed")
            self.command("ok")
            self.check_well_again(server)

    def test_a_lost_device(self):
        """503 for what was in work, and the process ends with its own exit code."""
        server = self.serve()
        try:
            self.check_good(server)
            self.command("lost")
            statuses = []
            def client(_):
                with contextlib.suppress(OSError, AttributeError):
                    answer = server.classify(png())
                    statuses.append((answer.status, answer.json["code"]))
            together(client, range(6))
            self.assertIn((503, "device_failed"), statuses)
            self.assertLessEqual({status for status, _ in statuses}, {503})
            self.assertEqual(server.wait(), 3)
        finally:
            server.kill()
            server.log.close()

    def test_a_device_that_hangs(self):
        """What waits gets 504 in time, the health checks say so within 5 s, and it can recover."""
        with self.serve("--request-timeout-ms", 1000, "--max-queue", 8) as server:
            self.command("hang")
            answers = []
            stuck = threading.Thread(target=lambda: answers.append(server.classify(png())))
            stuck.start()
            time.sleep(0.3)
            start = time.monotonic()
            waiting = together(lambda _: server.classify(png()), range(7))
            for answer in waiting:
                self.check_error(answer, 504, "deadline")
            self.assertLess(time.monotonic() - start, 1.5 * SLOW)
            self.until(lambda: server.request("GET", "/healthz").status == 503, 6 * SLOW)
            self.check_error(server.request("GET", "/healthz"), 503, "device_failed")
            self.check_error(server.request("GET", "/readyz"), 503, "device_failed")
            self.assertLess(time.monotonic() - start, 6 * SLOW)
            self.command("ok")
            stuck.join(TIMEOUT)
            self.assertEqual(answers[0].status, 200)  # the worker had it: late, but not lost
            self.check_well_again(server)

    def test_the_time_of_a_request_begins_with_its_head(self):
        """Not with the end of its body."""
        data = png()
        with self.serve("--request-timeout-ms", 6000) as server, server.open_socket() as slow:
            self.command("hang")
            stuck = threading.Thread(target=lambda: server.classify(png()))
            stuck.start()
            start = time.monotonic()
            slow.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
                         % len(data) + data[:-1])
            time.sleep(5)
            slow.sendall(data[-1:])
            self.check_error(answer_from(slow), 504, "deadline")
            self.assertLess(time.monotonic() - start, 10)
            self.command("ok")
            stuck.join(TIMEOUT)

    def test_a_slow_model_is_not_stalled(self):
        """A batch of 6.5 s whose ops go on: healthy all the time."""
        with self.serve("--request-timeout-ms", 60000) as server:
            self.command("slow 250")  # 26 ops
            answers = []
            stuck = threading.Thread(target=lambda: answers.append(server.classify(png())))
            stuck.start()
            start = time.monotonic()
            while stuck.is_alive():
                self.assertEqual(server.request("GET", "/healthz").status, 200)
                self.assertEqual(server.request("GET", "/readyz").status, 200)
                time.sleep(0.2)
            self.assertGreater(time.monotonic() - start, 5.5)
            self.assertEqual(answers[0].status, 200)
            self.command("ok")
            self.check_well_again(server)


class Stops(FaultCase):
    """A device that hangs holds neither the start nor the stop of the process."""

    def test_while_starting(self):
        self.command("hang")
        with Server(model=MODEL, variables={"FAULTS": str(self.file)}, wait=False) as server:
            time.sleep(0.3)
            self.check_error(server.request("GET", "/readyz"), 503, "starting")
            self.assertEqual(server.request("GET", "/healthz").status, 200)
            start = time.monotonic()
            self.assertEqual(server.stop(), 0)
            self.assertLess(time.monotonic() - start, 1.0 * SLOW)

    def test_while_draining(self):
        """The exit code says that it was late, not that the device is lost."""
        server = self.serve("--drain-timeout-ms", 200)
        try:
            self.command("hang")
            with server.open_socket() as client:
                data = png()
                client.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
                               % len(data) + data)
                time.sleep(0.3)
                start = time.monotonic()
                self.assertEqual(server.stop(), 4)
                self.assertLess(time.monotonic() - start, 6.0 * SLOW)
                self.assertIn("leaving", server.stderr())
        finally:
            server.kill()
            server.log.close()

    def test_while_every_batch_fails(self):
        """The probes of a device that goes on failing end with the server."""
        with self.serve() as server:
            self.command("fail")
            self.check_error(server.classify(png()), 500, "internal")
            self.assertEqual(server.stop(), 0, server.stderr())


class Clients(FaultCase):
    def test_work_of_a_client_that_hung_up_is_dropped(self):
        with self.serve("--max-queue", 64, "--request-timeout-ms", 60000) as server:
            self.command("hang")
            data = png()
            head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data)
            # One is taken by the worker; the others wait, and go.
            with server.open_socket() as first, contextlib.ExitStack() as stack:
                first.sendall(head + data)
                self.until(lambda: self.gauges(server)[0] == 1)
                time.sleep(0.1)
                for _ in range(20):
                    stack.enter_context(server.open_socket()).sendall(head + data)
                self.until(lambda: self.gauges(server)[0] == 21)
                stack.close()
                self.command("ok")
                self.until(lambda: self.gauges(server) == [0, 0, 0])
            text = server.request("GET", "/metrics").body.decode()
            self.assertIn('vitserve_images_total{outcome="cancelled"} 20\n', text)
            self.assertIn('vitserve_batch_images_sum 1\n', text)
            self.check_well_again(server)

    def test_expired_work_is_dropped(self):
        with self.serve("--max-queue", 64, "--request-timeout-ms", 300) as server:
            self.command("hang")
            threading.Thread(target=server.classify, args=(png(),)).start()
            self.until(lambda: self.gauges(server)[0] == 1)
            time.sleep(0.1)
            for answer in together(lambda _: server.classify(png()), range(10)):
                self.check_error(answer, 504, "deadline")
            self.command("ok")
            self.until(lambda: self.gauges(server) == [0, 0, 0])
            text = server.request("GET", "/metrics").body.decode()
            self.assertIn('vitserve_images_total{outcome="expired"} 10\n', text)
            self.assertIn('vitserve_batch_images_sum 1\n', text)
            self.check_well_again(server)


class Disks(Case):
    """The log and the files of a server whose disk is full or gone."""

    def check_serves(self, server):
        for _ in range(20):
            self.check_good(server)
            self.check_error(server.classify(b"no picture"), 415, "unsupported_image")

    def test_a_log_that_takes_nothing(self):
        with Server(model=(), log=open("/dev/full", "wb", 0)) as server:
            self.check_serves(server)

    def test_a_log_whose_reader_has_gone(self):
        reader, writer = os.pipe()
        os.close(reader)
        with Server(model=(), log=os.fdopen(writer, "wb", 0)) as server:
            self.check_serves(server)

    def test_a_checkpoint_that_is_gone(self):
        """Once the server is ready, all of it is in memory."""
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "model.safetensors")
            file.write_bytes(CHECKPOINT.read_bytes())
            with Server(model=("--model", "fashion_vit", "--weights", file)) as server:
                sound = server.classify(png(), "?logits=1").body
                with file.open("r+b") as cut:
                    cut.truncate(0)
                file.unlink()
                self.assertEqual(server.classify(png(), "?logits=1").body, sound)
                self.check_serves(server)


if __name__ == "__main__":
    unittest.main()
