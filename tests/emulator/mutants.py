#!/usr/bin/env python3
"""Mutation testing of the CUDA backend: which test notices when a kernel is wrong?

Each mutant of mutants.txt is a mistake that someone could make in kernels/. One after the other they
are built into an emulated vitserve_cuda.so of their own (only what the mistake touches is compiled
again) and the tests run on it until the first that fails. Prints a line for each. Exit code 1 if a
mutant survives that a test should catch, or if its text is no longer in the code.

    tests/emulator/mutants.py            all mutants; about ten seconds each
    tests/emulator/mutants.py A01 'N*'   those alone
    tests/emulator/mutants.py --check    only whether each mutant's text is there, exactly once

A build folder with sanitizers works too (--build), and catches more.
"""

import argparse
import concurrent.futures
import dataclasses
import fnmatch
import functools
import json
import os
import pathlib
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))

from mutation import Mutant, Stale, count_stale, mutated_files, read_mutants  # noqa: E402

# The tests, cheapest first, and what ctest calls them: their environment is taken from there.
STAGES = {"kernels": "kernels_emulated", "large": "kernels_large_emulated", "vit": "vit_emulated",
          "e2e": "e2e_emulated"}
# Why no test is expected to catch a mutant; and what only a build with sanitizers catches.
EXEMPT = {"speed": "costs only time", "gpu": "shows on a real GPU alone", "asan": "needs sanitizers",
          "unused": "the server does nothing in which it would show"}
LIMITS_S = {"kernels": 300, "large": 600, "vit": 300, "e2e": 900}


def known(word):
    return word.partition(":")[0] in (*STAGES, *EXEMPT)


def exempt(mutant, sanitized):
    return [word for word in mutant.expected if word in EXEMPT and not (word == "asan" and sanitized)]


# ---- the build ----------------------------------------------------------------------------------


@functools.cache
def headers_of(path):
    """The headers of kernels/ that a file includes, by name."""
    names = set(re.findall(r'^#include "(\w+\.cuh)"', path.read_text(encoding="utf-8"), re.M))
    return frozenset(names.union(*(headers_of(ROOT / "kernels" / name) for name in names)))


class Build:
    """How the emulated module was built in a build folder, to be done again with a file changed."""

    def __init__(self, folder):
        self.folder = folder
        if subprocess.run(["cmake", "--build", ".", "-j1", "--target", "vitserve_cuda_emulated",
                           "emulated_programs"], cwd=folder, check=False).returncode:
            sys.exit(f"{folder}: the code as it is does not build")
        entries = json.loads((folder / "compile_commands.json").read_text(encoding="utf-8"))
        self.compile = {}  # by source: its command, and the object in it
        for entry in entries:
            command = shlex.split(entry["command"])
            output = command[command.index("-o") + 1] if "-o" in command else ""
            if entry["file"].endswith(".cu") and "vitserve_cuda_emulated" in output:
                self.compile[pathlib.Path(entry["file"])] = (command, output)
        self.sanitized = any("-fsanitize=address" in flag for command, _ in self.compile.values()
                             for flag in command)
        link = subprocess.run(["ninja", "-t", "commands", "tests/emulator/vitserve_cuda.so"],
                              cwd=folder, check=True, capture_output=True, text=True).stdout
        self.link = shlex.split(link.splitlines()[-1])
        self.link = [word for word in self.link if word not in (":", "&&")]
        self.environments = self.read_environments()

    def read_environments(self):
        """By stage, of those that there are in this build."""
        shown = subprocess.run(["ctest", "--show-only=json-v1"], cwd=self.folder, check=True,
                               capture_output=True, text=True).stdout
        environments = {}
        for test in json.loads(shown)["tests"]:
            for stage in (stage for stage, name in STAGES.items() if name == test["name"]):
                values = [p["value"] for p in test["properties"] if p["name"] == "ENVIRONMENT"]
                environments[stage] = dict(v.split("=", 1) for v in (values or [[]])[0])
        return environments

    def module(self, files, scratch):
        """Builds it with the given contents of files of kernels/ into scratch/; None, or the error."""
        sources = scratch / "kernels"
        shutil.rmtree(sources, ignore_errors=True)
        shutil.copytree(ROOT / "kernels", sources)
        for name, text in files.items():
            (sources / name).write_text(text, encoding="utf-8")
        link = list(self.link)
        for source, (command, output) in self.compile.items():
            if source.name not in files and not headers_of(source) & files.keys():
                continue
            changed, compiled = sources / source.name, scratch / f"{source.name}.o"
            command = [str(compiled) if word == output else str(changed) if word == str(source)
                       else word for word in command if word != "-Werror"]
            error = self.call([*command, "-w"])
            if error:
                return error
            link[link.index(output)] = str(compiled)
        link[link.index("tests/emulator/vitserve_cuda.so")] = str(scratch / "vitserve_cuda.so")
        return self.call(link)

    def call(self, command):
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else None


# ---- the tests ----------------------------------------------------------------------------------


@dataclasses.dataclass
class Outcome:
    passed: bool
    text: str = ""


# Of cmocka and of unittest.
FAILED_TEST = re.compile(r"^\[  FAILED  \] (\w+)$|^(?:FAIL|ERROR): (test_\w+) \(")
MESSAGE = re.compile(r"(emulator: .*)|(AddressSanitizer: .*)|(runtime error: .*)|"
                     r"(.*(?:corrupt|free\(\)|malloc\(\)).*)|"
                     r"^ERROR: (?!test_\w+ \()(.*)|^\[  ERROR   \] --- (?!\[)(.*)|"
                     r"^([\w.]*(?:Error|Expired)\b.*)|"
                     r"^\[  ERROR   \] --- \[   LINE   \] --- .*/(.*?): error")


def command_of(stage, pattern, scratch):
    """The command, its folder, and what it wants in the environment."""
    if stage == "e2e":
        names = [f"test_emulated.{pattern}" if pattern else "test_emulated"]
        return ([sys.executable, "-B", "-m", "unittest", "-f", "-v", *names], ROOT / "tests" / "e2e",
                {"VITSERVE_BINARY": str(scratch / "vitserve")})
    program = scratch / ("test_vit" if stage == "vit" else "test_kernels")
    filters = {"TEST_FILTER": f"test_{pattern}*"} if pattern else {}
    return [str(program), "cuda:large" if stage == "large" else "cuda"], scratch, filters


def kill(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run_stage(stage, pattern, scratch, usual, limit):
    """Runs in the usual environment until the first failure, or for `limit` seconds."""
    command, folder, more = command_of(stage, pattern, scratch)
    cache = tempfile.TemporaryDirectory(dir=scratch)  # no algorithm of another mutant's
    environment = {**os.environ, **usual, **more, "XDG_CACHE_HOME": cache.name}
    late, test, message = threading.Event(), "", ""
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace",
                          start_new_session=True) as process:
        timer = threading.Timer(limit, lambda: (late.set(), kill(process)))
        timer.start()
        for line in process.stdout:
            found = MESSAGE.search(line)
            if found and not message:
                message = next(filter(None, found.groups())).strip()
            failed = FAILED_TEST.search(line.rstrip())
            if failed and not test:
                test = failed[1] or failed[2]
                if stage != "e2e":  # a dead kernel leaves the emulator locked: the next test hangs
                    kill(process)
        code = process.wait()
        timer.cancel()
    kill(process)
    cache.cleanup()
    if late.is_set():
        return Outcome(False, text=f"{test or '?'}: hangs (over {limit} s)")
    return Outcome(code == 0, text=f"{test or 'exit code %d' % code}: {message}")


def stages_for(mutant, build, e2e):
    """(stage, pattern), in order: what is expected to catch it first, then every test there is."""
    expected = [tuple(word.partition(":")[::2]) for word in mutant.expected if word not in EXEMPT]
    everything = [(stage, "") for stage in STAGES]
    return [(stage, part) for stage, part in dict.fromkeys(expected + everything)
            if stage in build.environments and (e2e or stage != "e2e")]


def verdict(mutant, build, scratch, options):
    """What became of the mutant: a word and the rest of its line."""
    try:
        files = mutated_files(mutant, ROOT / "kernels")
    except Stale as stale:
        return "STALE", str(stale)
    error = build.module(files, scratch)
    if error:
        first = next((line for line in error.splitlines() if "error" in line), error)
        return "STALE", "does not compile: " + first
    for stage, pattern in stages_for(mutant, build, options.e2e):
        outcome = run_stage(stage, pattern, scratch, build.environments[stage],
                            LIMITS_S[stage] * options.patience)
        if not outcome.passed:
            expected = [word.partition(":")[0] for word in mutant.expected if word not in EXEMPT]
            surprise = "" if stage in expected or not expected else f" (expected {' '.join(mutant.expected)})"
            return "caught", f"{stage} {outcome.text}{surprise}"
    excuses = exempt(mutant, build.sanitized)
    if excuses:
        return "survived", f"as expected: {', '.join(EXEMPT[word] for word in excuses)}"
    if not options.e2e and all(word.startswith("e2e") for word in mutant.expected):
        return "survived", "so far: only --e2e is expected to catch it"
    return "SURVIVED", mutant.what


def run_all(mutants, build, options):
    """Prints a line for each mutant; how many times each verdict was given."""
    scratches = queue.Queue()
    verdicts, lock = {}, threading.Lock()

    def one(mutant):
        scratch, start = scratches.get(), time.monotonic()
        try:
            word, rest = verdict(mutant, build, scratch, options)
        finally:
            scratches.put(scratch)
        with lock:
            verdicts.setdefault(word, []).append(mutant.name)
            print(f"{mutant.name:4} {word:8} {time.monotonic() - start:4.0f} s  {rest}", flush=True)

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for i in range(options.j):
            scratch = pathlib.Path(folder) / str(i)
            scratch.mkdir()
            for program in ("test_kernels", "test_vit", "vitserve"):
                shutil.copy(build.folder / "tests" / "emulator" / program, scratch)
            scratches.put(scratch)
        sound = Mutant("none", "the code as it is", ["speed"])  # or everything would count as caught
        word, rest = verdict(sound, build, scratches.queue[0], options)
        if word != "survived":
            sys.exit(f"The tests fail on the code as it is: {rest}")
        with concurrent.futures.ThreadPoolExecutor(options.j) as pool:
            for _ in pool.map(one, mutants):
                pass
    return verdicts


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="mutants, or patterns of them (all)")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help="build folder")
    parser.add_argument("--e2e", action="store_true", help="the tests of the whole server too")
    parser.add_argument("--check", action="store_true", help="only look for each mutant's text")
    parser.add_argument("--patience", type=float, default=1.0, help="factor on every time limit")
    parser.add_argument("-j", type=int, choices=(1, 2), default=1, help="mutants side by side")
    options = parser.parse_args()
    mutants = [mutant for mutant in read_mutants(HERE / "mutants.txt", known) if not options.names or
               any(fnmatch.fnmatch(mutant.name, name) for name in options.names)]
    if not mutants:
        sys.exit("no such mutant")
    if options.check:
        return count_stale(mutants, ROOT / "kernels") > 0
    verdicts = run_all(mutants, Build(options.build.resolve()), options)
    print(", ".join(f"{len(names)} {word}" for word, names in sorted(verdicts.items())))
    return "SURVIVED" in verdicts or "STALE" in verdicts


if __name__ == "__main__":
    sys.exit(main())
