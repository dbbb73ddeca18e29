"""What a container may take of its machine: another machine, preloaded (tests/faults/other_machine.c),
with its control groups in a folder. VITSERVE_BINARY lies beside it."""

import os
import pathlib
import tempfile
import unittest

from vitserve import BINARY, SANITIZED, Case, Server, multipart, png

LIBRARY = pathlib.Path(BINARY).parent / "other_machine.so"
MOUNTS = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
MIB = 1 << 20


class Containers(Case):
    def machine(self, cores, **files):
        """The environment of a server there; files: of the container's group, "." written as "_"."""
        root = self.enterContext(tempfile.TemporaryDirectory())
        texts = {"proc/self/mountinfo": MOUNTS, "proc/self/cgroup": "0::/pod/container\n"}
        for name, text in files.items():
            texts["sys/fs/cgroup/pod/container/" + name.replace("_", ".")] = text
        for name, text in texts.items():
            path = pathlib.Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="ascii")
        variables = {"LD_PRELOAD": str(LIBRARY), "OTHER_CORES": str(cores), "OTHER_ROOT": root}
        if SANITIZED:
            variables["ASAN_OPTIONS"] = "verify_asan_link_order=0"
        return variables

    def serve(self, variables, *options):
        return self.enterContext(Server(*options, model=(), variables=variables))

    def found(self, server):
        """What the ready line says."""
        ready, = (line for line in server.stderr().splitlines() if " ready: " in line)
        return ready.rsplit("; ", 1)[1]

    def threads(self, server):
        """Of an idle server, connections aside."""
        return len(os.listdir(f"/proc/{server.process.pid}/task"))

    def check_quota(self, quota, cores, found):
        limited = self.serve(self.machine(64, cpu_max=f"{quota} 100000\n"))
        self.assertEqual(self.found(limited), found)
        told = self.serve(self.machine(64), "--threads", cores, "--decode-threads", cores)
        self.until(lambda: self.threads(limited) == self.threads(told))
        self.check_good(limited)

    def test_half_a_cpu(self):
        self.check_quota(50000, 1, "1 of 64 cores by a quota of 0.50")

    def test_two_cpus(self):
        self.check_quota(200000, 2, "2 of 64 cores by quota")

    def test_no_quota(self):
        self.check_quota("max", 64, "64 cores")

    def test_what_one_asks_for(self):
        """--threads and --decode-threads count more than any quota."""
        options = ("--threads", 3, "--decode-threads", 5)
        limited = self.serve(self.machine(64, cpu_max="50000 100000\n"), *options)
        free = self.serve(self.machine(64), *options)
        self.until(lambda: self.threads(limited) == self.threads(free))
        self.assertGreater(self.threads(free), 3 + 5)

    def test_memory(self):
        """A batch that the device does in time, but not in a quarter of the memory."""
        free = self.serve(self.machine(2))
        most = free.request("GET", "/model").json["runtime"]["max_batch"]
        tight = self.serve(self.machine(2, memory_max=str(MIB)))
        batch = tight.request("GET", "/model").json["runtime"]["max_batch"]
        self.assertLess(batch, most)
        self.assertIn("1 MiB of memory by limit", self.found(tight))
        self.check_good(tight)


class Groups(Case):
    """Many images in one request, on any number of decoders: the same answer, in the order sent."""

    def wakes(self, server):
        """How often each of the threads that help has gone to sleep since it was started."""
        counts = {}
        for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
            try:
                text = (task / "status").read_text()
            except (FileNotFoundError, ProcessLookupError):  # the thread of a connection, gone by now
                continue
            status = dict(line.split(":", 1) for line in text.splitlines())
            if status["Name"].strip() == "decoder":
                counts[task.name] = int(status["voluntary_ctxt_switches"])
        return counts

    def test_who_decodes(self):
        """A request with many images is helped; one with one image has it decoded where it came in."""
        kind, body = multipart([(f"{i}.png", png(300, 300, seed=i)) for i in range(20)])
        with Server("--decode-threads", 3, "--max-queue", 64, model=()) as server:
            self.until(lambda: len(self.wakes(server)) == 3)
            self.until(lambda: min(self.wakes(server).values()) > 0)
            asleep = self.wakes(server)
            for _ in range(10):
                self.check_good(server)
            self.assertEqual(self.wakes(server), asleep)

            def all_have_helped():
                self.assertEqual(server.classify(body, Content_Type=kind).status, 200)
                return all(count > asleep[name] for name, count in self.wakes(server).items())
            self.until(all_have_helped)

    def test_the_number_of_decoders_does_not_matter(self):
        pictures = [(f"{i}.png", png(width=30 + 7 * (i % 5), height=20 + 5 * (i % 7), seed=i))
                    for i in range(24)]
        pictures[5] = ("5.png", b"no picture")
        pictures[17] = ("17.png", png(300, 300)[:-100])
        kind, body = multipart(pictures)
        answers = []
        for decoders in (1, 2, 8):
            with Server("--decode-threads", decoders, "--max-queue", 64, model=()) as server:
                answer = server.classify(body, "?logits=1", Content_Type=kind)
                self.assertEqual(answer.status, 200)
                answers.append(answer.results)
        results = answers[0]
        self.assertEqual([result["name"] for result in results], [name for name, _ in pictures])
        self.assertEqual([i for i, result in enumerate(results) if "error" in result], [5, 17])
        self.assertEqual(answers[1], results)
        self.assertEqual(answers[2], results)


if __name__ == "__main__":
    unittest.main()
