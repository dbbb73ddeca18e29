"""The Kubernetes manifests, as kustomize puts them together: against the schemas of Kubernetes, KEDA and
the Prometheus operator where npm is at hand, and by what we want of every container."""

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
            subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent",
                            "--prefix", str(modules), *NPM_PACKAGES], check=True)
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
