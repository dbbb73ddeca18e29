"""The Kubernetes manifests, as kustomize puts them together: against the schemas of Kubernetes, KEDA and
the Prometheus operator where npm is at hand, and, with those of compose, by what we want of every
container."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "docker" / "kubernetes"
BINARY = os.environ.get("VITSERVE_BINARY", str(ROOT / "build" / "vitserve"))
WORK = pathlib.Path(os.environ.get("WORK", ROOT / "build" / "deploy"))
KUSTOMIZE = (["kubectl", "kustomize"] if shutil.which("kubectl") else
             ["kustomize", "build"] if shutil.which("kustomize") else None)
PARTS = ("overlays/cpu", "overlays/cuda", "scaling/hpa", "scaling/keda", "monitoring")
# Where a kind's class and its type live; the types know every field there is.
SCHEMAS = {"keda.sh": "@kubernetes-models/keda",
           "monitoring.coreos.com": "@kubernetes-models/prometheus-operator"}
NPM_PACKAGES = ("kubernetes-models@5", "@kubernetes-models/keda@0.4",
                "@kubernetes-models/prometheus-operator@6", "typescript@5")


def rendered(part):
    text = subprocess.run([*KUSTOMIZE, str(KUBERNETES / part)], check=True, capture_output=True,
                          text=True).stdout
    return list(yaml.safe_load_all(text))


def kserve():
    return list(yaml.safe_load_all((KUBERNETES / "kserve/inferenceservice.yaml").read_text()))


def rules_as_object():
    """As README.md makes one of the rules of Prometheus."""
    readme = (ROOT / "docker" / "README.md").read_text()
    script = re.search(r"^(\{ printf .*?) \| kubectl apply -f -$", readme, re.M | re.S)[1]
    text = subprocess.run(["sh", "-c", script], cwd=ROOT, check=True, capture_output=True,
                          text=True).stdout
    return yaml.safe_load(text)


def pods_of_kserve():
    """What is a pod's or a container's in the objects of KServe, for which there is no schema here."""
    service, runtime = kserve()
    own = ("minReplicas", "maxReplicas", "model")
    pod = {name: value for name, value in service["spec"]["predictor"].items() if name not in own}
    return [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kserve"},
             "spec": {**pod, "containers": runtime["spec"]["containers"]}}]


@unittest.skipUnless(KUSTOMIZE, "no kubectl or kustomize here")
class ManifestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.parts = {part: rendered(part) for part in PARTS}

    def documents(self, kind, *parts):
        return [document for part in parts or PARTS for document in self.parts[part]
                if document["kind"] == kind]

    def test_schemas(self):
        if not shutil.which("npm"):
            self.skipTest("no npm here: the manifests are not held against the schemas")
        modules = WORK / "npm"
        if not (modules / "node_modules").exists():
            modules.mkdir(parents=True, exist_ok=True)
            command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent",
                       "--fetch-retries", "0", "--prefix", str(modules), *NPM_PACKAGES]
            if subprocess.run(command, check=False).returncode != 0:
                self.skipTest("npm gets no packages: the manifests are not held against the schemas")
        documents = [document for part in PARTS for document in self.parts[part]]
        documents += pods_of_kserve() + [rules_as_object()]
        self.check_with_classes(modules, documents)
        self.check_with_types(modules, documents)

    def check_with_classes(self, modules, documents):
        """Required fields, formats, patterns, ranges."""
        lines = ["const bad = [];"]
        for document in documents:
            module, kind = module_of(document), document["kind"]
            lines.append(f'try {{ new (await import("{module}")).{kind}'
                         f"({json.dumps(document)}).validate(); }} "
                         f'catch (error) {{ bad.push("{kind}: " + error.message); }}')
        lines.append("console.log(bad.join('\\n')); process.exit(bad.length ? 1 : 0);")
        script = modules / "validate.mjs"
        script.write_text("\n".join(lines))
        self.check_passes(["node", str(script)], modules)

    def check_with_types(self, modules, documents):
        """Fields that do not exist."""
        lines = []
        for i, document in enumerate(documents):
            kind = document["kind"]
            lines.append(f'import type {{ I{kind} as T{i} }} from "{module_of(document)}";\n'
                         f"export const document{i}: T{i} = {json.dumps(document, indent=1)};")
        (modules / "documents.ts").write_text("\n".join(lines))
        self.check_passes(["node", "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--module",
                           "nodenext", "--skipLibCheck", "documents.ts"], modules)

    def check_passes(self, command, directory):
        run = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    def test_pods_are_confined(self):
        pods = [document["spec"]["template"]["spec"] for document in self.documents("Deployment")]
        pods += [pod["spec"] for pod in pods_of_kserve()]
        self.assertEqual(len(pods), 3)
        for pod in pods:
            self.assertIs(pod["enableServiceLinks"], False)
            self.assertIs(pod["automountServiceAccountToken"], False)
            self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            container, = pod["containers"]
            self.assertEqual(container["securityContext"],
                             {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                              "capabilities": {"drop": ["ALL"]}})
            self.assertIn("memory", container["resources"]["limits"])

    def test_pods_cannot_write_the_weights(self):
        """What is measured on a GPU has a place of its own."""
        for document in self.documents("Deployment"):
            pod = document["spec"]["template"]["spec"]
            for mount in pod["containers"][0]["volumeMounts"]:
                volume, = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
                self.assertNotEqual(mount.get("readOnly", False), "emptyDir" in volume, mount)
        cuda, = self.documents("Deployment", "overlays/cuda")
        mounts = [mount["mountPath"] for mount in
                  cuda["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]]
        self.assertIn(cache_directory(), mounts)

    def test_memory_fits(self):
        for part, model in (("overlays/cpu", ON_CPU), ("overlays/cuda", ON_GPU)):
            document, = self.documents("Deployment", part)
            self.check_memory(document["spec"]["template"]["spec"]["containers"][0], model)
        self.check_memory(pods_of_kserve()[0]["spec"]["containers"][0], ON_CPU)

    def check_memory(self, container, model):
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        check_sum(self, container["resources"]["limits"]["memory"], environment, model)

    def test_pods_drain_in_time(self):
        for document in self.documents("Deployment"):
            pod = document["spec"]["template"]["spec"]
            container, = pod["containers"]
            env = {entry["name"]: entry["value"] for entry in container["env"]}
            delay, timeout = (int(env[f"VITSERVE_DRAIN_{name}_MS"]) for name in ("DELAY", "TIMEOUT"))
            self.assertGreater(pod["terminationGracePeriodSeconds"] * 1000, delay + timeout)
            probe = container["readinessProbe"]
            self.assertGreater(delay, 1000 * probe["periodSeconds"] * probe["failureThreshold"])
            for name, path in (("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/healthz")):
                self.assertEqual(container[name + "Probe"]["httpGet"], {"path": path, "port": "admin"})

    def test_one_gpu_each(self):
        limits = {part: self.documents("Deployment", part)[0]["spec"]["template"]["spec"]["containers"]
                  [0]["resources"]["limits"].get("nvidia.com/gpu")
                  for part in ("overlays/cpu", "overlays/cuda")}
        self.assertEqual(limits, {"overlays/cpu": None, "overlays/cuda": "1"})

    def test_names_meet(self):
        """What refers to the deployment, its labels, its ports and its metrics finds them."""
        deployment, = self.documents("Deployment", "overlays/cpu")
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        ports = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
        services = self.documents("Service", "overlays/cpu")
        for service in services:
            self.assertLessEqual(service["spec"]["selector"].items(), labels.items())
            self.assertLessEqual({port["targetPort"] for port in service["spec"]["ports"]}, ports)
        for document in self.documents("PodDisruptionBudget", "overlays/cpu"):
            self.assertLessEqual(document["spec"]["selector"]["matchLabels"].items(), labels.items())
        policy, = self.documents("NetworkPolicy", "overlays/cpu")
        self.assertLessEqual({port["port"] for rule in policy["spec"]["ingress"]
                              for port in rule["ports"]}, ports)
        monitor, = self.documents("ServiceMonitor")
        found = [service for service in services if monitor["spec"]["selector"]["matchLabels"].items() <=
                 service["metadata"]["labels"].items()]
        self.assertEqual([service["metadata"]["name"] for service in found], ["vitserve-replicas"])
        self.assertIn(monitor["spec"]["endpoints"][0]["port"],
                      [port["name"] for port in found[0]["spec"]["ports"]])
        for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
            document, = self.documents(kind)
            self.assertEqual(document["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"])
            self.assertEqual(document["metadata"]["namespace"], deployment["metadata"]["namespace"])
            self.assertIn("vitserve_queue_images", json.dumps(document))
        self.assertIn('"vitserve_queue_images"', (ROOT / "server/metrics.c").read_text().replace(
            '"queue_images"', '"vitserve_queue_images"'))


# What a replica takes beside its budgets: with vit_b_32 in fp32 on the CPU, and, reckoned generously,
# the driver's part on a GPU. For each connection: its own, and an answer that is not read.
ON_CPU, ON_GPU = 400 << 20, 1024 << 20
CONNECTION_BYTES = (12 << 10) + (64 << 10)


def default_of(option):
    """As `vitserve serve --help` has it."""
    text = subprocess.run([BINARY, "serve", "--help"], check=True, capture_output=True, text=True).stdout
    return int(re.search(rf"--{option} .*\n.*default (\d+)\)", text)[1])


def bytes_of(text):
    units = {"m": 20, "g": 30, "Mi": 20, "Gi": 30}
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()
    return int(number) << units[unit]


def check_sum(test, limit, environment, model):
    """What a replica may take fits its limit, and README.md adds it up."""
    limit = bytes_of(limit)
    values = [model, int(environment["VITSERVE_MAX_INFLIGHT_BYTES"]), limit // 4,
              CONNECTION_BYTES * int(environment.get("VITSERVE_MAX_CONNECTIONS") or
                                     default_of("max-connections"))]
    test.assertNotIn("VITSERVE_MAX_DECODE_BYTES", environment)  # else it counts instead of the quarter
    test.assertLessEqual(sum(values), limit)
    row = " | ".join(str(value >> 20) for value in (*values, sum(values), limit))
    test.assertIn(f" | {row} |", (ROOT / "docker" / "README.md").read_text())


def cache_directory():
    return re.search(r"XDG_CACHE_HOME=(\S+)", (ROOT / "docker" / "Dockerfile").read_text())[1]


class ComposeCase(unittest.TestCase):
    def setUp(self):
        base, cuda, nginx = (yaml.safe_load((ROOT / "docker" / f"compose{name}.yaml").read_text())
                             for name in ("", ".cuda", ".nginx"))
        self.base, self.services = base, {**base["services"], "nginx": nginx["services"]["nginx"]}
        self.vitserve, self.cuda = base["services"]["vitserve"], cuda["services"]["vitserve"]

    def test_containers_are_confined(self):
        self.assertEqual(len(self.services), 5)
        for name, service in self.services.items():
            self.assertIs(service.get("read_only"), True, name)
            self.assertEqual(service.get("cap_drop"), ["ALL"], name)
            self.assertNotIn("cap_add", service, name)
            self.assertEqual(service.get("security_opt"), ["no-new-privileges:true"], name)

    def test_nothing_is_published_unasked(self):
        ports = [port for service in self.services.values() for port in service.get("ports", ())]
        self.assertGreater(len(ports), 4)
        for port in ports:
            self.assertRegex(port, r"^(127\.0\.0\.1|\$\{PUBLISH:-127\.0\.0\.1\}):\d+:\d+$")

    def test_weights_cannot_be_written(self):
        """What is measured on a GPU has a place of its own."""
        for volume in self.vitserve["volumes"]:
            self.assertRegex(volume, ":ro$")
        self.assertNotIn("volumes", self.cuda)
        self.assertEqual([path.split(":")[0] for path in self.cuda["tmpfs"]], [cache_directory()])

    def test_balancer_is_trusted(self):
        """The limit of connections per address is not for it."""
        subnet, = self.base["networks"]["default"]["ipam"]["config"]
        self.assertEqual(self.vitserve["environment"]["VITSERVE_TRUSTED_PROXIES"], subnet["subnet"])

    def test_memory_fits(self):
        environment = self.vitserve["environment"]
        limit = self.vitserve["deploy"]["resources"]["limits"]["memory"]
        check_sum(self, limit, environment, ON_CPU)
        limit = self.cuda["deploy"]["resources"]["limits"]["memory"]
        check_sum(self, limit, {**environment, **self.cuda["environment"]}, ON_GPU)


def module_of(document):
    group, _, version = document["apiVersion"].rpartition("/")
    return SCHEMAS.get(group, "kubernetes-models") + f"/{group}/{version}".replace("//", "/")


class YamlCase(unittest.TestCase):
    def test_every_file_can_be_read(self):
        for path in sorted((ROOT / "docker").rglob("*.yaml")):
            documents = list(yaml.load_all(path.read_text(), UniqueKeyLoader))
            self.assertNotIn(None, documents, path)
        json.loads((ROOT / "docker/grafana/dashboards/vitserve.json").read_text())

    def test_kserve_names_meet(self):
        service, runtime = kserve()
        model = service["spec"]["predictor"]["model"]
        self.assertEqual(model["runtime"], runtime["metadata"]["name"])
        self.assertIn(model["modelFormat"]["name"],
                      [form["name"] for form in runtime["spec"]["supportedModelFormats"]])
        self.assertIn(model["protocolVersion"], runtime["spec"]["protocolVersions"])


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value
                if key.tag != "tag:yaml.org,2002:merge"]
        if len(keys) != len(set(keys)):
            raise AssertionError(f"a key twice: {node.start_mark}")
        return super().construct_mapping(node, deep)
