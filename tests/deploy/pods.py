"""The pods of the chart in podman: load over HTTP and AMQP, a rolling update, and killed processes."""

import base64
import contextlib
import copy
import http.client
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.request

import yaml

from chart import TARGET, objects
from containers import build_image, logs, podman, remove_remains
from service import Service

REPLICAS = 2
# Events per second of each load. At the second rate, a killed dispatcher has attempts in flight.
RATE = 40
RATE_OF_KILLS = 200
# Each load has connections of its own: two loads reach both replicas of ingest.
LOADS = 2
# Seconds until the Service learns that a pod ends.
LAG = 1
# Events that show a flow.
SOME = 10
# Longest wait for a condition, in seconds.
PATIENCE = float(os.environ.get("FANFARE_TEST_PATIENCE", 90))
SECRETS = {
    "AMQP_URL": os.environ["AMQP_URL"],
    "DATABASE_URL": os.environ["DATABASE_URL"],
    "FANFARE_SECRET_KEYS": "k1:" + base64.b64encode(bytes(32)).decode(),
}
VALUES = {
    "ingest": {"replicas": REPLICAS},
    "dispatcher": {"replicas": REPLICAS},
    # The receiver of `fanfare verify` is on this machine.
    "settings": {"FANFARE_ALLOW_ADDRESSES": "127.0.0.0/8"},
    "tryOut": {"secrets": SECRETS},
}
# Metrics that grow with the work of a process.
WORK = {"ingest": "fanfare_published_total", "dispatcher": "fanfare_attempts_total"}
SETTINGS_OF_PORTS = {"api": "FANFARE_ADDRESS", "operations": "FANFARE_OPERATIONS_ADDRESS"}


def until(condition, what):
    """Waits until `condition` holds. Returns its value."""
    end = time.monotonic() + PATIENCE
    while True:
        # A busy machine may answer late.
        with contextlib.suppress(OSError, http.client.HTTPException):
            if found := condition():
                return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(0.05)


def free_port():
    """Returns a free port below the kernel's range for outgoing connections, which could otherwise take the port."""
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(lowest - 12000, lowest)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def of_kind(rendered, kind, component):
    [found] = [
        one for one in rendered if one["kind"] == kind and one["metadata"]["name"].endswith(f"-{component}")
    ]
    return found


def differences(left, right, path=""):
    """Gives the paths at which two documents differ, as `a.b.0`."""
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        left, right = dict(enumerate(left)), dict(enumerate(right))
    if not (isinstance(left, dict) and isinstance(right, dict)):
        return {path} if left != right else set()
    return {
        found
        for name in left.keys() | right.keys()
        for found in differences(left.get(name), right.get(name), f"{path}.{name}".lstrip("."))
    }


class Pod:
    """A pod as the Deployment makes it, with ports of its own on the host's network."""

    def __init__(self, rendered, component, number):
        self.component = component
        self.template = of_kind(rendered, "Deployment", component)["spec"]["template"]
        self.settings = of_kind(rendered, "ConfigMap", component)
        self.container = self.template["spec"]["containers"][0]
        self.ports = {port["name"]: free_port() for port in self.container["ports"]}
        self.name = f"{component}-{number}"

    def documents(self):
        """The ConfigMap and the Pod for `podman kube play`."""
        settings, pod = copy.deepcopy(self.settings), copy.deepcopy(self.template)
        for name, port in self.ports.items():
            address, _ = settings["data"][SETTINGS_OF_PORTS[name]].rsplit(":", 1)
            settings["data"][SETTINGS_OF_PORTS[name]] = f"{address}:{port}"
        pod["metadata"]["name"] = self.name
        pod["spec"]["hostNetwork"] = True
        # Podman 4.3 would start an init container again after each end, also after a success.
        pod["spec"]["restartPolicy"] = "Never"
        # Podman 4.3 permits annotations of 63 characters, and no ports on the host's network. Its liveness probes are
        # timers of the machine's systemd.
        del pod["metadata"]["annotations"]
        for name in ["ports", "livenessProbe"]:
            del pod["spec"]["containers"][0][name]
        return [settings, {"apiVersion": "v1", "kind": "Pod"} | pod]

    def start(self):
        """Starts the pod, after the init containers."""
        podman("kube", "play", "-", stdin=yaml.safe_dump_all(self.documents()))

    @property
    def container_name(self):
        return f"{self.name}-{self.container['name']}"

    def stop(self):
        """Stops the pod as Kubernetes does after the removal from the Service. Returns the exit code."""
        time.sleep(self.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0))
        podman("stop", f"--time={self.template['spec']['terminationGracePeriodSeconds']}", self.container_name)
        return self.state()["ExitCode"]

    def kill(self):
        """Kills the process. Returns the exit code."""
        podman("kill", self.container_name)
        return int(podman("wait", self.container_name))

    def state(self):
        return json.loads(podman("inspect", self.container_name))[0]["State"]

    def get(self, path):
        url = f"http://127.0.0.1:{self.ports['operations']}{path}"
        timeout = self.container["readinessProbe"]["timeoutSeconds"]
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.read().decode()

    def is_ready(self):
        """Asks as the readiness probe does."""
        try:
            self.get(self.container["readinessProbe"]["httpGet"]["path"])
            return True
        except (OSError, http.client.HTTPException):
            return False

    def work(self):
        """The sum of the metric that grows with the work of the process."""
        series = re.findall(rf"(?m)^{WORK[self.component]}{{.*}} (\S+)$", self.get("/metrics"))
        return sum(map(float, series))


class Load:
    """`fanfare verify`, which publishes until its end, and compares the accounts."""

    def __init__(self, api, rate):
        listen = f"127.0.0.1:{free_port()}"
        options = [f"--api={api}", f"--listen={listen}", f"--rate={rate}", "--for=1h", f"--settle={PATIENCE:.0f}s"]
        self.folder = tempfile.TemporaryDirectory()
        self.output = pathlib.Path(self.folder.name) / "output"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [TARGET / "debug/fanfare", "verify", "--interfaces=http,amqp", "--json", *options],
                env=os.environ | SECRETS,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def accounts(self, kind):
        """The newest accounts of a kind: `progress`, which comes every ten seconds, or `result`."""
        lines = [line for line in self.output.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        found = [json.loads(line)[kind] for line in lines if f'"{kind}"' in line]
        return found[-1] if found else None

    def finish(self):
        """Ends publishing. Returns the accounts after the last delivery."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(2 * PATIENCE)
        result = self.accounts("result")
        if status or not result:
            raise AssertionError(f"`fanfare verify` ended with {status}:\n{self.output.read_text()}")
        return result

    def close(self):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


class Pods(unittest.TestCase):
    """Two replicas of each service. Each test leaves as many ready replicas as it found."""

    @classmethod
    def setUpClass(cls):
        build_image()
        cls.rendered = objects(VALUES, ["try-out"])
        cls.number = 0
        cls.pods = {"dispatcher": [], "ingest": []}
        cls.addClassCleanup(remove_remains)
        [secret] = [one for one in cls.rendered if one["kind"] == "Secret"]
        # Podman 4.3 reads no text of a Secret in `kube play`.
        values = {name: base64.b64encode(value.encode()).decode() for name, value in secret["stringData"].items()}
        podman("secret", "create", secret["metadata"]["name"], "-", stdin=json.dumps(values))
        probe = cls.new_pod("ingest").container["readinessProbe"]
        cls.service = Service(probe["periodSeconds"], probe["failureThreshold"])
        cls.addClassCleanup(cls.service.close)
        with cls.logs_on_failure():
            for component, pods in cls.pods.items():
                replicas = of_kind(cls.rendered, "Deployment", component)["spec"]["replicas"]
                pods += [cls.started(component) for _ in range(replicas)]
            for pod in cls.pods["ingest"]:
                cls.service.add(pod)

    @classmethod
    def new_pod(cls, component):
        cls.number += 1
        return Pod(cls.rendered, component, cls.number)

    @classmethod
    def started(cls, component):
        """Starts a pod, and waits until the pod is ready."""
        pod = cls.new_pod(component)
        pod.start()
        until(pod.is_ready, f"{pod.name} is ready")
        return pod

    @classmethod
    @contextlib.contextmanager
    def logs_on_failure(cls):
        try:
            yield
        except BaseException:
            for name in podman("ps", "--all", "--format={{.Names}}").split():
                print(f"--- log of {name}\n{logs(name)}")
            raise

    @contextlib.contextmanager
    def loads(self, rate):
        """Publishes `rate` events per second by each load, from the first work of all pods on."""
        with self.logs_on_failure(), contextlib.ExitStack() as ends:
            loads = [Load(self.service.url, rate) for _ in range(LOADS)]
            for load in loads:
                ends.callback(load.close)
            self.until_all_work()
            yield loads

    def until_all_work(self):
        """Waits until each dispatcher has sent some events, and ingest has accepted some, from now on."""
        for pod in self.pods["dispatcher"]:
            begin = pod.work()
            until(lambda: pod.work() > begin + SOME, f"{pod.name} sends")
        accepted = lambda: sum(pod.work() for pod in self.pods["ingest"])
        begin = accepted()
        until(lambda: accepted() > begin + SOME, "ingest accepts events")

    def test_the_pods_differ_from_the_chart_in_network_and_ports_alone(self):
        permitted = {"metadata.name", "metadata.annotations", "spec.hostNetwork", "spec.restartPolicy"}
        permitted |= {f"spec.containers.0.{name}" for name in ["ports", "livenessProbe"]}
        for component, pods in self.pods.items():
            template = of_kind(self.rendered, "Deployment", component)["spec"]["template"]
            rendered = of_kind(self.rendered, "ConfigMap", component)
            for pod in pods:
                settings, played = pod.documents()
                self.assertEqual(differences({"apiVersion": "v1", "kind": "Pod"} | template, played), permitted)
                changed = {f"data.{SETTINGS_OF_PORTS[name]}" for name in pod.ports}
                self.assertEqual(differences(rendered, settings), changed)

    def test_the_doctor_of_the_chart_finds_no_failure(self):
        [doctor] = [one for one in self.rendered if one["kind"] == "Pod"]
        [container] = doctor["spec"]["containers"]
        on_the_host = doctor | {"spec": doctor["spec"] | {"hostNetwork": True}}
        documents = [of_kind(self.rendered, "ConfigMap", "dispatcher"), on_the_host]
        podman("kube", "play", "-", stdin=yaml.safe_dump_all(documents))
        name = f"{doctor['metadata']['name']}-{container['name']}"
        status = int(podman("wait", name))
        self.assertEqual(status, 0, logs(name))

    def test_processes_are_confined(self):
        for pod in sum(self.pods.values(), []):
            with self.subTest(pod=pod.name):
                process = pathlib.Path(f"/proc/{pod.state()['Pid']}")
                status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
                expected = {"Uid": "65532", "NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0" * 16, "CapBnd": "0" * 16}
                self.assertEqual({name: status[name].split()[0] for name in expected}, expected)
                [root] = [line for line in (process / "mountinfo").read_text().splitlines() if line.split()[4] == "/"]
                self.assertEqual(root.split()[5].split(",")[0], "ro")
                limits = json.loads(podman("inspect", pod.container_name))[0]["HostConfig"]
                self.assertEqual(limits["Memory"], 512 * 1024 * 1024)

    def test_liveness_answers(self):
        for pod in sum(self.pods.values(), []):
            pod.get(pod.container["livenessProbe"]["httpGet"]["path"])

    def test_a_rolling_update_loses_and_repeats_nothing(self):
        with self.loads(RATE) as loads:
            refused = self.service.refused
            for component, pods in self.pods.items():
                for old in list(pods):
                    self.replace(component, old)
                    self.assertEqual(old.stop(), 0, old.name)
            self.until_all_work()
            for load in loads:
                end = load.finish()
                self.assertGreater(end["accepted"], 0)
                sums = {name: end[name] for name in ["missing", "repeats", "sent_again"]}
                self.assertEqual(sums, {"missing": 0, "repeats": 0, "sent_again": 0}, end)
            self.assertEqual(self.service.refused, refused, "connections to pods that did not listen")

    def replace(self, component, old):
        """Starts a pod, and takes the old pod out of the Service soon after the new pod is ready."""
        new = self.started(component)
        self.pods[component].append(new)
        self.pods[component].remove(old)
        if component == "ingest":
            self.service.add(new)
            # The end of the old pod begins meanwhile: `preStop` bridges the lag.
            threading.Timer(LAG, self.service.remove, [old]).start()

    def test_killed_processes_lose_nothing(self):
        with self.loads(RATE_OF_KILLS) as loads:
            for component, pods in self.pods.items():
                killed = pods[0]
                self.assertEqual(killed.kill(), 137)
                self.replace(component, killed)
            self.until_all_work()
            for load in loads:
                end = load.finish()
                self.assertEqual(end["missing"], 0, end)
                # Attempts between request and record: far fewer than in a second.
                self.assertLessEqual(end["repeats"], RATE_OF_KILLS, end)


if __name__ == "__main__":
    unittest.main()
