"""The images that images.sh built, run as a container runtime runs them: read-only, as their user, with
no capability, no way to gain one and no shell."""

import json
import os
import pathlib
import re
import subprocess
import unittest
import urllib.request

from sandbox import (ADMIN_PORT, Case, Machine, PHOTO, PORT, Program, ROOT, get, setUpModule,
                     wait_for)  # setUpModule is for unittest

WORK = pathlib.Path(os.environ.get("WORK", ROOT / "build" / "deploy"))
LIMIT_MB = 80  # over the base
CUBLAS = "usr/local/lib/libcublasLt.so.13"
# Mounts the root read-only and without its shells, the volumes in it, and becomes the image's user.
# $1: the root, $2: the user, $3: the volumes; the rest is the environment and the command.
CONTAINER = """
set -e
root=$1 user=$2 volumes=$3
shift 3
mount --bind "$root" "$root"
for shell in bash dash; do
    mount --bind /dev/null "$root/usr/bin/$shell"
done
mount -t proc proc "$root/proc"
for volume in $volumes; do
    mount -t tmpfs -o size=64m,mode=0755 tmpfs "$root$volume"
    chown "$user" "$root$volume"
done
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups \\
    --no-new-privs --bounding-set=-all --inh-caps=-all env -i "$@"
"""


class Container(Program):
    """A command in the image: its entrypoint and these words, with the image's environment."""

    def __init__(self, image, *words):
        config = image.config
        user, volumes = config["User"], " ".join(config["Volumes"])
        command = [*config["Entrypoint"], *(words or config["Cmd"])]
        super().__init__(
            *Machine.inside(), "unshare", "--mount", "--ipc", "--uts", "sh", "-c", CONTAINER, "sh",
            image.root, user, volumes, *config["Env"], *command)


class Image:
    def __init__(self, name):
        self.root = os.path.realpath(WORK / f"{name}.root")
        self.config = json.loads((WORK / f"{name}.json").read_text())["Docker"]["config"]
        self.mb = int((WORK / f"{name}.mb").read_text())

    def files(self, *patterns):
        return [str(path) for pattern in patterns for path in pathlib.Path(self.root).glob(pattern)]


class ImageCase(Case):
    name = "cpu"

    @classmethod
    def setUpClass(cls):
        if not (WORK / f"{cls.name}.root").exists():
            raise unittest.SkipTest(f"no image {cls.name} has been built")
        cls.image = Image(cls.name)

    def run_in(self, *words):
        """The exit code and the output."""
        with Container(self.image, *words) as container:
            return container.process.wait(30), container.output()

    def test_configuration(self):
        config = self.image.config
        uid, gid = map(int, config["User"].split(":"))  # numbers: Kubernetes can tell it is not root
        self.assertGreater(min(uid, gid), 0)
        self.assertEqual(config["Entrypoint"], ["vitserve"])
        self.assertEqual(config["Cmd"], ["serve"])
        self.assertEqual(config["StopSignal"], "SIGTERM")
        self.assertEqual(config["Healthcheck"]["Test"][0], "CMD")
        self.assertEqual(set(config["ExposedPorts"]), {f"{PORT}/tcp", f"{ADMIN_PORT}/tcp"})
        version = re.search(r"project\(vitserve VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
        self.assertEqual(config["Labels"]["org.opencontainers.image.version"], version)
        labels = {name.rsplit(".", 1)[1] for name in config["Labels"] if "opencontainers" in name}
        self.assertLessEqual({"title", "description", "licenses", "version", "revision"}, labels)

    def test_size(self):
        ours = self.image.mb - sum(os.path.getsize(path) >> 20
                                   for path in self.image.files(CUBLAS))
        print(f"\n{self.name}: {self.image.mb} MB over its base, {ours} without cuBLASLt", flush=True)
        self.assertLessEqual(ours, LIMIT_MB)

    def test_nothing_stays_of_the_build(self):
        self.assertEqual(self.image.files(
            "src", "out", "usr/bin/gcc*", "usr/bin/cmake", "usr/local/cuda*", "var/lib/apt/lists/*",
            "var/cache/apt/*", "etc/apt/apt.conf.d/99*", "**/*.log"), [])

    def test_serves_read_only_without_privileges(self):
        health = self.image.config["Healthcheck"]["Test"][2:]
        with Container(self.image) as container:
            address = f"http://10.1.0.1:{PORT}"
            wait_for("ready", lambda: get(f"http://10.1.0.1:{ADMIN_PORT}/readyz")[0] == 200)
            self.check_confined(container)
            request = urllib.request.Request(address + "/classify", PHOTO.read_bytes())
            with urllib.request.urlopen(request, timeout=10) as answer:
                self.assertIn(b'"label":"Sneaker"', answer.read())
            self.assertEqual(self.run_in(*health), (0, ""))
            self.assertEqual(container.stop(), 0, container.output())
        self.assertEqual(self.run_in(*health)[0], 1)

    def check_confined(self, container):
        status = pathlib.Path(f"/proc/{container.process.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        self.assertEqual(fields["Name"], "vitserve")
        uid, gid = self.image.config["User"].split(":")
        self.assertEqual((set(fields["Uid"].split()), set(fields["Gid"].split())), ({uid}, {gid}))
        self.assertEqual({int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")}, {0})
        self.assertEqual(fields["NoNewPrivs"], "1")
        mounts = pathlib.Path(f"/proc/{container.process.pid}/mountinfo").read_text()
        root = next(line for line in mounts.splitlines() if line.split()[4] == "/")
        self.assertIn("ro", root.split()[5].split(","))

    def test_volumes_are_the_users(self):
        for volume in self.image.config["Volumes"]:
            owner = os.stat(self.image.root + volume)
            self.assertEqual(f"{owner.st_uid}:{owner.st_gid}", self.image.config["User"])
        self.assertEqual({line.split("=")[1] for line in self.image.config["Env"]
                          if line.startswith(("VITSERVE_WEIGHTS_DIR=", "XDG_CACHE_HOME="))},
                         set(self.image.config["Volumes"]))


class CudaImageCase(ImageCase):
    name = "cuda"

    def test_module_is_there(self):
        """With every library; where there is no driver the CPU computes."""
        self.assertEqual(len(self.image.files("usr/local/bin/vitserve_cuda.so", CUBLAS)), 2)
        run = subprocess.run(["chroot", self.image.root, "ldd", "/usr/local/bin/vitserve_cuda.so"],
                             capture_output=True, text=True, check=True)
        self.assertNotIn("not found", run.stdout)
        self.assertIn("/usr/local/lib/libcublasLt.so.13", run.stdout)
