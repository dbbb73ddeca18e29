"""vitserve pull, and whom it trusts: what vouches for a file, what others have put into its
directory, a server that does not end."""

import os
import unittest

from test_pull import DATA, PUBLISHED, SHA256, PullCase, sha256

# Two contents whose SHA-256 begin with the same published digits. Either took two minutes to find.
FORGED, FORGED_TOO = b"forged: 00000037002ef9a1", b"forged: 000f4279006b24f0"


class Trust(PullCase):
    """Eight published digits show damage. What came first is then what is wanted."""
    WARNING = "[^\n]* warning [^\n]* only 8 digits [^\n]* TLS alone vouches for this file\n"

    def pull_first(self, data=FORGED):
        self.files.data = data
        self.check_done(self.pull(digest=None), data, self.WARNING)

    def check_refused(self, finished, *words):
        self.assertEqual((finished.returncode, finished.stdout), (1, ""))
        self.assertEqual(finished.stderr.count("\n"), 1, finished.stderr)
        for word in words:
            self.assertIn(word, finished.stderr)

    def test_the_forgeries(self):
        self.assertNotEqual(FORGED, FORGED_TOO)
        for data in (FORGED, FORGED_TOO):
            self.assertEqual(sha256(data)[:8], PUBLISHED)

    def test_digits_of_the_catalogue(self):
        self.pull_first()
        self.check_done(self.pull(digest=None), FORGED)  # known by now: no warning
        self.assertEqual(len(self.files.ranges), 1)

    def test_damage_shows_in_the_digits(self):
        self.check_failed(self.pull(digest=None), f"SHA-256 is {SHA256}, not {PUBLISHED}...")
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_file_that_was_there_before_the_record(self):
        self.folder.mkdir(parents=True)
        self.file.write_bytes(FORGED)
        self.check_done(self.pull(digest=None), FORGED, self.WARNING)
        self.assertEqual(self.files.ranges, [])

    def test_all_digits_count(self):
        wrong = SHA256[:63] + ("1" if SHA256[63] == "0" else "0")
        self.check_failed(self.pull(digest=wrong), f"SHA-256 is {SHA256}, not {wrong};")
        self.check_failed(self.pull(digest=SHA256[:8] + 56 * "0"), f"SHA-256 is {SHA256}")
        self.folder.joinpath(self.file.name).write_bytes(DATA)
        self.check_refused(self.pull(digest=wrong), f"{self.file} is another file")

    def test_a_digest_for_the_catalogue_s_model(self):
        self.files.data = FORGED
        self.check_done(self.pull(digest=sha256(FORGED)), FORGED)  # no warning

    def test_another_file_in_place_of_the_one_that_was_pulled(self):
        self.pull_first()
        self.file.write_bytes(FORGED_TOO)
        for options in ((), ("--check",)):
            self.check_refused(self.pull(*options, digest=None), f"{self.file} is not the file",
                               sha256(FORGED), sha256(FORGED_TOO), "delete it to pull it again",
                               f"or {self.record} if the change is wanted")
        self.assertEqual(self.file.read_bytes(), FORGED_TOO)
        self.record.unlink()
        self.check_done(self.pull(digest=None), FORGED_TOO, self.WARNING)

    def test_another_file_from_the_server(self):
        self.pull_first()
        self.file.unlink()
        self.files.data = FORGED_TOO
        self.check_failed(self.pull(digest=None), sha256(FORGED), sha256(FORGED_TOO),
                          f"if the change is wanted, delete {self.record}; nothing is kept")
        self.files.data = FORGED
        self.check_done(self.pull(digest=None), FORGED)
        self.file.unlink()
        self.record.unlink()
        self.pull_first(FORGED_TOO)

    def test_a_digest_that_is_not_the_recorded_one(self):
        self.pull_first()
        requests = len(self.files.ranges)
        self.check_refused(self.pull(digest=sha256(FORGED_TOO)), f"{self.record}: it was",
                           sha256(FORGED), sha256(FORGED_TOO), "delete it if the change is wanted")
        self.assertEqual(len(self.files.ranges), requests)
        self.assertEqual(self.file.read_bytes(), FORGED)

    def test_records_that_are_none(self):
        self.pull_first()
        good = self.record.read_text()
        for text in ("", good[:65], good.upper(), "x" + good[1:], good[:64] + good, "\0" + good):
            self.record.write_text(text)
            self.check_refused(self.pull(digest=None), f"{self.record}: not a line of sha256sum")
        self.record.unlink()
        self.record.mkdir()
        self.check_refused(self.pull(digest=None), str(self.record))

    def test_check(self):
        finished = self.pull("--check")
        self.check_refused(finished, f"{self.file} is not there")
        self.assertFalse(self.folder.exists())
        self.pull_first()
        requests = len(self.files.ranges)
        self.check_done(self.pull("--check", digest=None), FORGED)
        self.record.unlink()
        finished = self.pull("--check", digest=None)
        self.assertEqual((finished.returncode, finished.stderr.count("\n")), (0, 1))
        self.assertRegex(finished.stderr, self.WARNING)
        self.assertEqual(os.listdir(self.folder), [self.file.name])  # it writes nothing
        self.assertEqual(len(self.files.ranges), requests)


class Strangers(PullCase):
    """What others have put into the directory."""

    def setUp(self):
        super().setUp()
        self.folder.mkdir(parents=True)
        self.victim = self.folder.parent / "victim"
        self.victim.write_bytes(b"not yours")

    def check_refused(self, *words):
        finished = self.pull()
        self.assertEqual((finished.returncode, finished.stdout), (1, ""))
        for word in words:
            self.assertIn(word, finished.stderr)
        self.assertEqual(self.victim.read_bytes(), b"not yours")
        self.assertEqual(self.files.ranges, [])

    def test_a_symbolic_link_in_place_of_the_part(self):
        self.part.symlink_to(self.victim)
        self.check_refused(f"{self.part}: a symbolic link")
        self.part.unlink()
        self.part.symlink_to(self.folder.parent / "new")
        self.check_refused(f"{self.part}: a symbolic link")
        self.assertFalse((self.folder.parent / "new").exists())

    def test_a_hard_link_in_place_of_the_part(self):
        self.part.hardlink_to(self.victim)
        self.check_refused(f"{self.part}: not a regular file")

    def test_a_pipe_in_place_of_the_part(self):
        os.mkfifo(self.part)
        self.check_refused(f"{self.part}: not a regular file")

    def test_a_pipe_in_place_of_the_file(self):
        os.mkfifo(self.file)
        self.check_refused(str(self.file))

    def test_a_symbolic_link_in_place_of_the_record_to_be(self):
        self.record.with_name(self.record.name + ".part").symlink_to(self.victim)
        finished = self.pull()
        self.check_failed(finished, f"{self.record}.part: a symbolic link", kept=len(DATA))
        self.assertEqual(self.victim.read_bytes(), b"not yours")


class Limit(PullCase):
    """deit_tiny_patch16_224 has 5,717,416 parameters: 16 bytes of each, and 16 MiB."""
    MODEL, BYTES = "deit_tiny_patch16_224", 16 * 5_717_416 + (16 << 20)

    def setUp(self):
        super().setUp()
        self.use(f"{self.MODEL}.pth")

    def check_too_long(self):
        self.check_failed(self.pull(name=self.MODEL), self.files.url(),
                          f"longer than the {self.BYTES / 1e6:.1f} MB", "nothing is kept")

    def test_a_length_over_the_limit(self):
        self.files.length = self.BYTES + 1
        self.check_too_long()

    def test_a_length_at_the_limit(self):
        self.files.length, self.files.sends = self.BYTES, len(DATA)
        self.check_failed(self.pull(name=self.MODEL), "3.0 MB are kept", kept=len(DATA))

    def test_the_rest_of_a_file_that_is_too_long(self):
        self.folder.mkdir(parents=True)
        self.part.write_bytes(DATA[:1000])
        self.files.length = self.BYTES - 999
        self.check_too_long()

    def test_no_end(self):
        self.files.endless = 2 * self.BYTES
        self.check_too_long()
        self.assertLess(self.files.sent_bytes, self.files.endless)


if __name__ == "__main__":
    unittest.main()
