"""A hundred clients that send the costliest pictures there are to a container with the memory limit of
its manifest: the kernel does not kill it, and it answers well afterwards."""

import contextlib
import itertools
import multiprocessing
import pathlib
import random
import socket
import sys
import threading
import time
import unittest

import yaml

from sandbox import (ADMIN_PORT, BINARY, Case, DOCKER, Machine, NETWORK, PHOTO, PORT, Program, ROOT,
                     compose_service, container_environment, get, setUpModule, wait_for)
from test_manifests import bytes_of

sys.path.append(str(ROOT / "tests" / "e2e"))
import hostile  # noqa: E402

CLIENTS, PROCESSES, SECONDS = 100, 4, 60
PATIENCE_SECONDS = 15  # longer than the server's own deadline: it ends what it began


class MemoryGroup:
    """A control group whose memory is limited, as a container's is."""

    def __init__(self, limit):
        version_1 = pathlib.Path("/sys/fs/cgroup/memory")
        self.folder = (version_1 if version_1.is_dir() else version_1.parent) / "vitserve-test"
        names = (("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control")
                 if version_1.is_dir() else ("memory.max", "memory.peak", "memory.events"))
        self.limit, self.peak, self.events = (self.folder / name for name in names)
        try:
            if not version_1.is_dir():
                (version_1.parent / "cgroup.subtree_control").write_text("+memory")
            with contextlib.suppress(FileNotFoundError):
                self.folder.rmdir()  # of a run that was killed
            self.folder.mkdir()
            self.limit.write_text(str(limit))
        except OSError as error:
            raise unittest.SkipTest(f"no control group of our own: {error}") from error

    def joined(self):
        """The words before a command that runs there."""
        return ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs; exec "$@"', "sh"]

    def most_bytes(self):
        return int(self.peak.read_text())

    def killed(self):
        """How many processes the kernel has killed for want of memory."""
        return int(dict(line.split() for line in self.events.read_text().splitlines())["oom_kill"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        wait_for("an empty group", lambda: not (self.folder / "cgroup.procs").read_text())
        self.folder.rmdir()


def costliest():
    """Every hostile picture, alone and as many as a request may hold."""
    for _, picture in itertools.chain(*hostile.pictures().values()):
        yield hostile.plain(picture)
        yield hostile.packed_form(picture)


def send(address, requests, end, seed, answers):
    """One client: a request after the other, each over a connection of its own."""
    chance = random.Random(seed)
    while time.monotonic() < end:
        status = b"none"
        with contextlib.suppress(OSError), socket.create_connection((address, PORT), 5) as connection:
            connection.settimeout(PATIENCE_SECONDS)
            connection.sendall(chance.choice(requests))
            status = connection.recv(4096)[9:12] or b"closed"
        answers[status.decode()] = answers.get(status.decode(), 0) + 1


def send_many(address, requests, end, first, results):
    answers = [{} for _ in range(CLIENTS // PROCESSES)]
    threads = [threading.Thread(target=send, args=(address, requests, end, first + i, own))
               for i, own in enumerate(answers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(answers)


def attack(address, probe):
    """How many answers of each status a hundred clients have seen in a minute, and what the probe saw."""
    context = multiprocessing.get_context("fork")
    results, requests = context.Queue(), list(costliest())
    end = time.monotonic() + SECONDS
    processes = [context.Process(target=send_many, args=(
        address, requests, end, i * CLIENTS // PROCESSES, results)) for i in range(PROCESSES)]
    for process in processes:
        process.start()
    answers, probes = {}, []
    while time.monotonic() < end:
        probes.append(probe())
        time.sleep(1)
    for own in itertools.chain(*(results.get(timeout=SECONDS + 60) for _ in processes)):
        for status, count in own.items():
            answers[status] = answers.get(status, 0) + count
    for process in processes:
        process.join()
    return answers, probes


class MemoryCase(Case):
    def check_limit(self, title, limit, variables, **own):
        group = self.start(MemoryGroup(bytes_of(limit)))
        address = f"{NETWORK}.1"
        server = self.start(Program(
            *Machine.inside(), *group.joined(), BINARY, "serve",
            env=container_environment(variables, VITSERVE_LISTEN=address,
                                      VITSERVE_LOG_LEVEL="warning", **own)))
        admin = f"http://{address}:{ADMIN_PORT}"
        wait_for("ready", lambda: get(admin + "/readyz")[0] == 200)
        answers, probes = attack(address, lambda: get(admin + "/healthz")[0])
        print(f"\n{title}: at most {group.most_bytes() >> 20} of {limit} used, {group.killed()} "
              f"killed; answers {dict(sorted(answers.items()))}", flush=True)
        self.assertGreater(sum(answers.values()), CLIENTS)
        self.assertEqual(group.killed(), 0)
        self.assertIsNone(server.process.poll(), server.output())
        self.assertLess(group.most_bytes(), int(group.limit.read_text()))
        self.assertEqual(set(probes), {200})
        self.check_answers(address)

    def check_answers(self, address):
        with socket.create_connection((address, PORT), 5) as connection:
            connection.settimeout(30)
            connection.sendall(hostile.plain(PHOTO.read_bytes()))
            self.assertEqual(connection.recv(4096)[9:12], b"200")


def compose():
    service = compose_service("vitserve")
    return service["deploy"]["resources"]["limits"]["memory"], service["environment"]


def kubernetes():
    text = (DOCKER / "kubernetes" / "base" / "deployment.yaml").read_text()
    container, = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    return (container["resources"]["limits"]["memory"],
            {entry["name"]: entry["value"] for entry in container["env"]})


VIT_B_32 = {"VITSERVE_MODEL": "vit_b_32", "VITSERVE_RANDOM_WEIGHTS": "1",
            "VITSERVE_PRECISION": "fp32"}


class ComposeCase(MemoryCase):
    def test_built_in_model(self):
        self.check_limit("compose.yaml", *compose())

    def test_vit_b_32(self):
        self.check_limit("compose.yaml, vit_b_32", *compose(), **VIT_B_32)


class KubernetesCase(MemoryCase):
    def test_built_in_model(self):
        self.check_limit("kubernetes", *kubernetes())

    def test_vit_b_32(self):
        self.check_limit("kubernetes, vit_b_32", *kubernetes(), **VIT_B_32)
