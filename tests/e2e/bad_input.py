"""What the tests of hostile input share: the next good request is served, and memory, descriptors and
threads return to where they were."""

import time

from vitserve import SANITIZED, ServerCase, png, together

BODY_LIMIT = 1 << 20
HEAD = b"POST /classify HTTP/1.1\r\nHost: localhost\r\n"


def settle(measure, wanted, seconds=10):
    """measure(), once it has come down to what is wanted or the time is over."""
    deadline = time.monotonic() + seconds
    while (value := measure()) > wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


class BadInputCase(ServerCase):
    """After each test a good request is answered; after all of them the server holds no more than
    before."""
    options = ("--max-batch", 4, "--max-body-bytes", BODY_LIMIT, "--log-level", "warning")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        server = cls.server
        big = png(400, 300)
        for _ in range(2):
            together(lambda _: server.classify(big), range(16))
            together(lambda _: server.classify(big[:-100]), range(16))
        cls.threads = settle(server.threads, 0, 0.5)
        cls.descriptors = settle(server.descriptors, 0, 0)
        cls.memory_kb = server.memory_kb()

    def tearDown(self):
        self.check_good(self.server)

    @classmethod
    def tearDownClass(cls):
        threads = settle(cls.server.threads, cls.threads)
        descriptors = settle(cls.server.descriptors, cls.descriptors)
        assert threads <= cls.threads, f"{threads} threads, {cls.threads} before"
        assert descriptors <= cls.descriptors, f"{descriptors} fds, {cls.descriptors} before"
        growth = cls.server.memory_kb() - cls.memory_kb
        assert SANITIZED or growth <= 5 * 1024, f"{growth} kB more than before"

    def raw_status(self, data, half_close=False):
        """The status of the one answer to these bytes, after which the server closes; None where
        it closes without."""
        answer = self.server.send_raw(data, half_close)
        if not answer:
            return None
        self.assertTrue(answer.startswith(b"HTTP/1.1 "), answer[:100])
        # libmicrohttpd 0.9.75 sends the head of an answer of its own twice.
        self.assertLessEqual(answer.count(b"HTTP/1."), 1 + (b"<html>" in answer), answer[:2000])
        return int(answer[9:12])
