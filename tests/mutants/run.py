#!/usr/bin/env python3
"""Mutation testing of the server: which test notices when server/ is wrong?

Each mutant of the lists beside this file is built in a copy of the tree (only what the mistake touches
is compiled again), and the tests that are expected to catch it run on it, then all others until the
first that fails. Prints a line for each. Exit code 1 if a mutant survives, or if its text is no longer
in the code.

    tests/mutants/run.py                all mutants; ten seconds to two minutes each
    tests/mutants/run.py q3 'planted*'  those alone, by name or by list
    tests/mutants/run.py --check        only whether each mutant's text is there, exactly once
"""

import argparse
import concurrent.futures
import fnmatch
import json
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))

from mutation import Stale, count_stale, mutated_files, read_mutants  # noqa: E402

# What the black-box tests run.
SERVER = ["vitserve", "vitserve_with_faults", "scarce_memory", "other_machine", "slow_close",
          "load"]
# Tests that no mistake in server/ concerns, that need what a copy lacks, or that look for what a
# mutant is by definition.
OTHERS = r"kernels|emulated|vit_cpu|cuda|gpu_|mutants|ptxas|layers|cublaslt|emulator|readme|page_browser|tile|team"
LIMIT_S = 120  # a test that hangs has noticed


def tests_of(folder):
    """Those that there are in a build folder."""
    shown = subprocess.run(["ctest", "--show-only=json-v1"], cwd=folder, check=True,
                           capture_output=True, text=True).stdout
    return [test["name"] for test in json.loads(shown)["tests"]
            if not re.search(OTHERS, test["name"])]


class Copy:
    """The tree as it is in git's index and beside it, built, to be broken and mended again."""

    def __init__(self, folder, expected=None):
        """expected: the only tests that are of interest, if not all are."""
        self.tree, self.build = folder / "tree", folder / "tree" / "build"
        self.tree.mkdir()
        listed = subprocess.run(["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"], cwd=ROOT,
                                check=True, capture_output=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.tree / name)
        if (ROOT.parent / "shared").exists():
            (folder / "shared").symlink_to(ROOT.parent / "shared")
        self.call("cmake", "-S", "..", "-B", ".", "-G", "Ninja", "-DWITH_CUDA=OFF")
        tests = tests_of(self.build)
        self.tests = sorted(set(expected) & set(tests)) if expected else tests
        self.others = [] if expected else tests
        error = self.make(self.tests)
        if error:
            sys.exit(f"The code as it is does not build: {error}")

    def call(self, *command):
        self.build.mkdir(exist_ok=True)
        return subprocess.run(command, cwd=self.build, capture_output=True, text=True,
                              errors="replace", check=False)

    def make(self, tests):
        """Builds what these tests run; None, or the error."""
        targets = [f"test_{test}" for test in tests if not test.startswith("e2e_")]
        targets += SERVER if len(targets) < len(tests) else []
        done = self.call("ninja", *targets)
        lines = (done.stdout + done.stderr).splitlines()
        return (next((line for line in lines if "error" in line), lines[-1])
                if done.returncode else None)

    def run(self, tests):
        """The first of the tests that fails and what it said, or None."""
        done = self.call("ctest", "-j2", "--stop-on-failure", "--output-on-failure", "--timeout",
                         str(LIMIT_S), "-R", f"^({'|'.join(tests)})$")
        if not done.returncode:
            return None
        failed = re.search(r"Test +#\d+: (\w+) \.*\s*\*\*\*(\w+)", done.stdout)
        part = re.search(r"^\[  FAILED  \] (\w+)$|^(?:FAIL|ERROR): (test_\w+) \(", done.stdout, re.M)
        return " ".join(filter(None, (failed and failed[1], failed and failed[2],
                                      part and (part[1] or part[2])))) or done.stdout[-200:]


def verdict(mutant, copy):
    """What became of the mutant: a word and the rest of its line."""
    server = copy.tree / "server"
    try:
        files = mutated_files(mutant, server)
    except Stale as stale:
        return "STALE", str(stale)
    sound = {name: (server / name).read_text(encoding="utf-8") for name in files}
    for name, text in files.items():
        (server / name).write_text(text, encoding="utf-8")
    try:
        return judge(mutant, copy)
    finally:
        for name, text in sound.items():
            (server / name).write_text(text, encoding="utf-8")


def judge(mutant, copy):
    others = [test for test in copy.others if test not in mutant.expected]
    for tests in (mutant.expected, [test for test in others if not test.startswith("e2e_")],
                  [test for test in others if test.startswith("e2e_")]):
        if not tests:
            continue
        error = copy.make(tests)
        if error:
            return "STALE", "does not compile: " + error
        failed = copy.run(tests)
        if failed:
            surprise = f" (expected {' '.join(mutant.expected)})" if tests is not mutant.expected else ""
            return "caught", failed + surprise
    return "SURVIVED", mutant.what


def run_all(mutants, copies):
    """Prints a line for each mutant; their names by verdict."""
    verdicts, lock = {}, threading.Lock()
    free = queue.Queue()
    for copy in copies:
        free.put(copy)

    def one(mutant):
        copy, start = free.get(), time.monotonic()
        try:
            word, rest = verdict(mutant, copy)
        finally:
            free.put(copy)
        with lock:
            verdicts.setdefault(word, []).append(mutant.name)
            print(f"{mutant.name:4} {word:8} {time.monotonic() - start:4.0f} s  {rest}", flush=True)

    with concurrent.futures.ThreadPoolExecutor(len(copies)) as pool:
        for _ in pool.map(one, mutants):
            pass
    return verdicts


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="mutants or lists, or patterns of them (all)")
    parser.add_argument("--check", action="store_true", help="only look for each mutant's text")
    parser.add_argument("--expected", action="store_true",
                        help="run only the tests that are expected to catch a mutant")
    parser.add_argument("-j", type=int, choices=(1, 2), default=1, help="mutants side by side")
    options = parser.parse_args()
    known = {line for line in re.findall(r"\w+", (ROOT / "tests" / "CMakeLists.txt").read_text())}
    mutants = [mutant for path in sorted(HERE.glob("*.txt"))
               for mutant in read_mutants(path, lambda word: word.removeprefix("e2e_") in known)
               if not options.names or any(fnmatch.fnmatch(name, pattern) for pattern in options.names
                                           for name in (mutant.name, path.stem))]
    if not mutants:
        sys.exit("no such mutant")
    if options.check:
        return count_stale(mutants, ROOT / "server") > 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = []
        for i in range(options.j):
            (pathlib.Path(folder) / str(i)).mkdir()
            expected = {test for mutant in mutants for test in mutant.expected}
            copies.append(Copy(pathlib.Path(folder) / str(i), expected if options.expected else None))
        failed = copies[0].run(copies[0].tests)  # or everything would count as caught
        if failed:
            sys.exit(f"A test fails on the code as it is: {failed}")
        verdicts = run_all(mutants, copies)
    print(", ".join(f"{len(names)} {word}" for word, names in sorted(verdicts.items())))
    return "SURVIVED" in verdicts or "STALE" in verdicts


if __name__ == "__main__":
    sys.exit(main())
