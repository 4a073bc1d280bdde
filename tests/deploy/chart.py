"""The chart: lint, strict validation of each object, values, checks, and arithmetic."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import jsonschema
import kubernetes_validate
import yaml

from schemas import SCHEMAS

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/fanfare"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
HELM = TARGET / "deploy/helm"
VERSIONS = ["1.30", "1.33", "1.35"]
# Values that each profile leaves to the operator.
SECRETS = {
    "tryOut": {
        "secrets": {
            "AMQP_URL": "amqp://user:password@rabbitmq:5672/%2f",
            "DATABASE_URL": "postgres://user:password@postgres:5432/fanfare",
            "FANFARE_SECRET_KEYS": "k1:AAAA",
        }
    }
}
PROFILES = {
    "try-out": (["try-out"], SECRETS),
    "production": (["production"], {}),
    "high-volume": (["production", "high-volume"], {}),
}
# All objects that values can switch on, beyond the profiles.
EVERYTHING = {
    "dialects": {"own": "title = 'x'\n"},
    "image": {"digest": "sha256:" + "a" * 64, "pullSecrets": ["registry"]},
    "mail": {"urlSecret": {"name": "mail"}},
    "egressProxy": {"urlSecret": {"name": "proxy"}},
    "ingress": {"enabled": True, "className": "nginx", "hosts": ["hooks.example.com"], "tls": [{"secretName": "tls"}]},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["hooks.example.com"]},
    "ingest": {
        "autoscaling": {"mode": "hpa", "min": 2, "max": 2},
        "extraEnv": [{"name": "OTEL_SERVICE_NAME", "value": "x"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "tolerations": [{"operator": "Exists"}],
        "nodeSelector": {"disk": "fast"},
        "priorityClassName": "high",
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
    },
    "dispatcher": {
        "settings": {"FANFARE_MAIL_FROM": "fanfare@example.com"},
        "autoscaling": {
            "mode": "keda",
            "max": 2,
            "keda": {"trigger": "postgresql", "connectionSecret": {"name": "scaling"}},
        }
    },
    "networkPolicy": {
        "enabled": True,
        "callers": [{"namespaceSelector": {}}],
        "monitoring": [{"namespaceSelector": {}}],
        "broker": [{"podSelector": {}}],
        "database": [{"podSelector": {}}],
        "extraEgress": [{"ports": [{"port": 4318}]}],
    },
    "prometheusRule": {"enabled": True, "disabled": ["FanfareParks"], "labels": {"release": "x"}},
}


def helm(*arguments, values=None, profiles=(), version=VERSIONS[0]):
    command = [str(HELM), *arguments]
    for profile in profiles:
        command += ["--values", str(CHART / f"profiles/{profile}.yaml")]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values or {}, file)
        file.flush()
        command += ["--values", file.name, "--kube-version", version]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def template(values=None, profiles=(), version=VERSIONS[0]):
    return helm("template", "hooks", str(CHART), "--namespace", "prod", values=values, profiles=profiles, version=version)


def objects(values=None, profiles=(), version=VERSIONS[0]):
    rendered = template(values, profiles, version)
    if rendered.returncode:
        raise AssertionError(rendered.stderr)
    return [one for one in yaml.safe_load_all(rendered.stdout) if one]


def validate(one, version):
    """Refuses unknown fields and wrong values."""
    if one["kind"] in SCHEMAS:
        jsonschema.validate(one, SCHEMAS[one["kind"]])
    else:
        kubernetes_validate.validate(one, version, strict=True)


class Examples(unittest.TestCase):
    def test_each_object_is_valid(self):
        for path in sorted((ROOT / "deploy/examples").glob("*.yaml")):
            for one in yaml.safe_load_all(path.read_text()):
                with self.subTest(file=path.name, kind=one["kind"]):
                    validate(one, VERSIONS[-1])

    def test_argo_cd_gets_values_that_the_chart_takes(self):
        application = yaml.safe_load((ROOT / "deploy/examples/argocd.yaml").read_text())
        helm_source = application["spec"]["source"]["helm"]
        profiles = [pathlib.Path(file).stem for file in helm_source["valueFiles"]]
        self.assertGreater(len(objects(helm_source["valuesObject"], profiles)), 5)

    def test_verify_uses_the_secrets_and_the_service_of_the_production_profile(self):
        job = next(yaml.safe_load_all((ROOT / "deploy/examples/verify.yaml").read_text()))
        container = job["spec"]["template"]["spec"]["containers"][0]
        release = helm("template", "fanfare", str(CHART), profiles=["production"]).stdout
        release = [one for one in yaml.safe_load_all(release) if one]
        [service] = [one["metadata"]["name"] for one in release if one["kind"] == "Service"]
        self.assertIn(f"--api=http://{service}", container["args"])
        [dispatcher] = [
            one for one in release if one["kind"] == "Deployment" and one["metadata"]["name"].endswith("dispatcher")
        ]
        theirs = {one["name"]: one for one in dispatcher["spec"]["template"]["spec"]["containers"][0]["env"]}
        for variable in container["env"]:
            self.assertEqual(variable, theirs[variable["name"]])


class Rendered(unittest.TestCase):
    def each(self):
        for name, (profiles, values) in PROFILES.items():
            for version in VERSIONS:
                yield name, profiles, values, version
        yield "everything", ["production"], EVERYTHING, VERSIONS[-1]

    def test_lint_is_silent(self):
        for name, profiles, values, version in self.each():
            linted = helm("lint", "--strict", str(CHART), values=values, profiles=profiles, version=version)
            self.assertEqual(linted.returncode, 0, f"{name} {version}: {linted.stdout}{linted.stderr}")

    def test_each_object_is_valid(self):
        for name, profiles, values, version in self.each():
            found = objects(values, profiles, version)
            self.assertGreater(len(found), 5, name)
            for one in found:
                with self.subTest(profile=name, version=version, kind=one["kind"], name=one["metadata"]["name"]):
                    validate(one, version)

    def test_two_renders_are_identical(self):
        for name, profiles, values, version in self.each():
            first, second = (template(values, profiles, version).stdout for _ in range(2))
            self.assertEqual(first, second, name)

    def test_nothing_depends_on_the_cluster(self):
        for path in (CHART / "templates").rglob("*"):
            text = path.read_text() if path.is_file() else ""
            for word in ["lookup ", ".Capabilities", "randAlpha", "genCA", "genSigned", "helm.sh/hook"]:
                if word == "helm.sh/hook" and "tests" in path.parts:
                    continue
                self.assertNotIn(word, text, path)

    def test_pods_are_hardened_and_their_times_fit(self):
        for name, profiles, values, version in self.each():
            found = objects(values, profiles, version)
            settings = {one["metadata"]["name"]: one["data"] for one in found if one["kind"] == "ConfigMap"}
            deployments = [one for one in found if one["kind"] == "Deployment"]
            self.assertEqual(len(deployments), 2, name)
            for deployment in deployments:
                pod = deployment["spec"]["template"]["spec"]
                self.assertTrue(pod["securityContext"]["runAsNonRoot"])
                self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertFalse(pod["automountServiceAccountToken"] or pod["enableServiceLinks"])
                for container in pod.get("initContainers", []) + pod["containers"]:
                    security = container["securityContext"]
                    self.assertTrue(security["readOnlyRootFilesystem"], name)
                    self.assertFalse(security["allowPrivilegeEscalation"], name)
                    self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
                    self.assertNotIn("cpu", container["resources"]["limits"])
                    variables = [variable["name"] for variable in container.get("env", [])]
                    self.assertEqual(len(variables), len(set(variables)), f"{name}: {variables}")
                container = pod["containers"][0]
                grace = int(settings[deployment["metadata"]["name"]]["FANFARE_GRACE"].removesuffix("s"))
                before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
                self.assertLess(before + grace, pod["terminationGracePeriodSeconds"], name)
                scaled = any(
                    one["kind"] in ("ScaledObject", "HorizontalPodAutoscaler")
                    and one["metadata"]["name"] == deployment["metadata"]["name"]
                    for one in found
                )
                self.assertNotEqual(scaled, "replicas" in deployment["spec"], name)

    def test_large_numbers_stay_whole(self):
        rendered = template({"settings": {"FANFARE_MAX_EVENT_BYTES": 1048576}}, ["production"]).stdout
        self.assertIn('FANFARE_MAX_EVENT_BYTES: "1048576"', rendered)

    def test_secrets_may_be_files(self):
        names = ["AMQP_URL", "DATABASE_URL", "FANFARE_SECRET_KEYS"]
        files = {"extraEnv": [{"name": f"{name}_FILE", "value": f"/secrets/{name}"} for name in names]}
        self.assertGreater(len(objects({"ingest": files, "dispatcher": files})), 5)

    def test_secrets_are_only_referenced(self):
        production = template({}, ["production"]).stdout
        self.assertNotIn("kind: Secret\n", production)
        self.assertIn("secretKeyRef", production)


class Checks(unittest.TestCase):
    """Each check of values fails with a sentence that names the value."""

    def refuses(self, sentence, values, profiles=("production",)):
        rendered = template(values, profiles)
        self.assertNotEqual(rendered.returncode, 0, f"rendered although: {sentence}")
        self.assertIn(sentence, rendered.stderr)

    def test_missing_servers_and_keys(self):
        self.refuses("broker.url or broker.urlSecret.name is required", {"broker": {"url": ""}})
        self.refuses("database.url or database.urlSecret.name is required", {"database": {"url": ""}})
        self.refuses("secretKeys.secret.name is required", {"secretKeys": {"secret": {"name": ""}}})
        self.refuses("are both set", {"broker": {"urlSecret": {"name": "x"}}})

    def test_a_password_in_a_url(self):
        self.refuses("has a user or password", {"broker": {"url": "amqp://user:hunter2@host"}})

    def test_more_connections_than_the_database_has(self):
        self.refuses("connectionBudget (20)", {"database": {"connectionBudget": 20}})
        self.refuses("connectionBudget", {"dispatcher": {"settings": {"FANFARE_DATABASE_CONNECTIONS": 100}}})
        self.refuses("connectionBudget", {"dispatcher": {"autoscaling": {"max": 40}}})

    def test_scaling_that_would_run_away(self):
        self.refuses("waitingPerReplica (512)", {"dispatcher": {"autoscaling": {"keda": {"waitingPerReplica": 512}}}})
        self.refuses("prometheusUrl is required", {"dispatcher": {"autoscaling": {"keda": {"prometheusUrl": ""}}}})
        self.refuses(
            "connectionSecret.name is required", {"dispatcher": {"autoscaling": {"keda": {"trigger": "postgresql"}}}}
        )
        self.refuses("autoscaling.min (5) is greater than max (4)", {"dispatcher": {"autoscaling": {"min": 5}}})

    def test_what_an_option_needs(self):
        self.refuses("FANFARE_MAIL_FROM is required", {"mail": {"urlSecret": {"name": "mail"}}})
        self.refuses("database.ingestRole is required", {"database": {"ingestRole": ""}})
        self.refuses("ingress.hosts is required", {"ingress": {"enabled": True}})

    def test_settings_in_two_places(self):
        self.refuses(
            "FANFARE_DATABASE_CONNECTIONS is in settings and in ingest.settings",
            {
                "settings": {"FANFARE_DATABASE_CONNECTIONS": 5},
                "ingest": {"settings": {"FANFARE_DATABASE_CONNECTIONS": 5}},
            },
        )

    def test_unknown_settings_and_values(self):
        self.refuses("FANFARE_PREFETSCH", {"dispatcher": {"settings": {"FANFARE_PREFETSCH": 5}}})
        # Computed from other values.
        self.refuses("FANFARE_GRACE", {"settings": {"FANFARE_GRACE": "5s"}})
        # Must agree in all processes.
        self.refuses("FANFARE_RETENTION", {"dispatcher": {"settings": {"FANFARE_RETENTION": "5d"}}})
        self.refuses("'replica'", {"ingest": {"replica": 3}})
        self.refuses("mode", {"ingest": {"autoscaling": {"mode": "keda"}}})
        self.refuses("replicas", {"ingest": {"replicas": 0}})


class Values(unittest.TestCase):
    """values.yaml, values.schema.json and the references of the programs say the same."""

    def setUp(self):
        self.text = (CHART / "values.yaml").read_text()
        self.values = yaml.safe_load(self.text)
        self.schema = json.loads((CHART / "values.schema.json").read_text())

    def test_each_leaf_has_a_comment(self):
        lines = self.text.splitlines()
        for number, line in enumerate(lines):
            if re.match(r"\s*[A-Za-z_]+: \S", line) and not line.lstrip().startswith("#"):
                self.assertTrue(lines[number - 1].lstrip().startswith("#"), f"line {number + 1}: {line}")

    def test_the_schema_has_the_same_leaves_and_nothing_more(self):
        def compare(values, schema, path):
            properties = schema.get("properties")
            if properties is None:
                return
            self.assertIs(schema["additionalProperties"], False, path)
            self.assertEqual(set(values), set(properties) - {"global"}, path)
            for name, value in values.items():
                if isinstance(value, dict):
                    compare(value, properties[name], f"{path}.{name}")

        compare(self.values, self.schema, "values")
        jsonschema.validate(self.values, self.schema)

    def test_settings_are_the_programs(self):
        names, optional = {}, {"FANFARE_DATABASE_CONNECTIONS", "FANFARE_LOG_FORMAT", "FANFARE_MEMORY_MIB", "RUST_LOG"}
        computed = {"FANFARE_GRACE", "FANFARE_ADDRESS", "FANFARE_OPERATIONS_ADDRESS", "FANFARE_DIALECTS"}
        for service in ["ingest", "dispatcher"]:
            reference = subprocess.run(
                [str(TARGET / f"debug/{service}"), "--reference"], capture_output=True, text=True, check=True
            ).stdout
            # A secret has a second variable, for its file.
            found = re.findall(r"^\| `([A-Z_]+)` \|", reference, re.MULTILINE)
            names[service] = set(found) - computed
            self.assertGreater(len(names[service]), 10)
        shared = names["ingest"] & names["dispatcher"]
        optional |= {name for name in shared if name.startswith("OTEL_")}
        allowed = lambda *path: set(self.at(*path)["propertyNames"]["enum"])
        self.assertEqual(allowed("settings"), shared)
        for service in names:
            self.assertEqual(allowed(service, "settings"), names[service] - shared | optional, service)

    def at(self, *path):
        schema = self.schema
        for name in path:
            schema = schema["properties"][name]
        return schema

    def test_the_chart_has_the_version_of_the_workspace(self):
        workspace = (ROOT / "Cargo.toml").read_text()
        version = re.search(r'^version = "(.*)"$', workspace, re.MULTILINE).group(1)
        self.assertEqual(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"], version)


if __name__ == "__main__":
    unittest.main()
