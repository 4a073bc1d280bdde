"""Alerts, recording rules and dashboards: promtool, the metrics of the programs, and the runbook."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/helm/fanfare/files/rules.yaml"
CASES = sorted((ROOT / "tests/deploy").glob("rules*.test.yaml"))
DASHBOARDS = sorted((ROOT / "deploy/helm/fanfare/files/dashboards").glob("*.json"))
MAX_ALERTS = 12


def promtool(*arguments):
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def expects(case, alert):
    return any(test["alertname"] == alert for test in case["alert_rule_test"])


def known_metrics():
    """Metrics of the programs, with the series of histograms."""
    text = (ROOT / "deploy/settings.md").read_text()
    found = re.findall(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \|", text, re.MULTILINE)
    names = {name for name, kind in found if kind != "histogram"}
    for name, kind in found:
        if kind == "histogram":
            names |= {name + ending for ending in ["_bucket", "_sum", "_count"]}
    return names


def metrics_of(expression):
    # Values of labels, such as "process_busy", are no metrics.
    return set(re.findall(r"\b((?:fanfare|process)_[a-z0-9_]+)\b", re.sub(r'"[^"]*"', "", expression)))


class Rules(unittest.TestCase):
    def test_promtool_accepts_the_rules(self):
        checked = promtool("check", "rules", RULES)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_the_cases_hold(self):
        tested = promtool("test", "rules", *CASES)
        self.assertEqual(tested.returncode, 0, tested.stdout + tested.stderr)

    def test_each_alert_has_a_case_that_can_fail(self):
        for alert in alerts():
            with tempfile.TemporaryDirectory() as folder:
                text = yaml.safe_load(RULES.read_text())
                for group in text["groups"]:
                    for rule in group["rules"]:
                        if rule.get("alert") == alert["alert"]:
                            rule["expr"] = "vector(0) > 1"
                changed = pathlib.Path(folder) / "rules.yaml"
                changed.write_text(yaml.safe_dump(text))
                files = []
                for path in CASES:
                    cases = yaml.safe_load(path.read_text()) | {"rule_files": [str(changed)]}
                    cases["tests"] = [case for case in cases["tests"] if expects(case, alert["alert"])]
                    if cases["tests"]:
                        files.append(pathlib.Path(folder) / path.name)
                        files[-1].write_text(yaml.safe_dump(cases))
                self.assertNotEqual(promtool("test", "rules", *files).returncode, 0, f"no case needs {alert['alert']}")

    def test_alerts_are_few_and_in_the_runbook(self):
        self.assertLessEqual(len(alerts()), MAX_ALERTS)
        runbook = (ROOT / "deploy/alerts.md").read_text()
        for alert in alerts():
            self.assertIn(f"\n### {alert['alert']}\n", runbook)

    def test_each_metric_exists(self):
        known = known_metrics()
        self.assertGreater(len(known), 40)
        for rule in rules():
            unknown = metrics_of(rule["expr"]) - known
            self.assertFalse(unknown, f"{rule.get('alert') or rule.get('record')}: {unknown}")


class Scrape(unittest.TestCase):
    """The metrics of running programs, with the servers of AMQP_URL and DATABASE_URL."""

    def test_promtool_accepts_the_metrics(self):
        environment = os.environ | {
            "FANFARE_SECRET_KEYS": "k1:" + "A" * 43 + "=",
            "FANFARE_ADDRESS": "127.0.0.1:0",
            "FANFARE_OPERATIONS_ADDRESS": "127.0.0.1:0",
        }
        programs = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
        subprocess.run([programs / "fanfare", "migrate"], env=environment, check=True, capture_output=True)
        for service in ["ingest", "dispatcher"]:
            process = subprocess.Popen([programs / service], env=environment, stdout=subprocess.PIPE, text=True)
            try:
                lines = (json.loads(line) for line in process.stdout)
                address = next(line["address"] for line in lines if line.get("message") == "serving health and metrics")
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
                    metrics = answer.read()
                checked = subprocess.run(["promtool", "check", "metrics"], input=metrics, capture_output=True, check=False)
                self.assertEqual((checked.returncode, checked.stderr), (0, b""), service)
            finally:
                process.kill()
                process.wait()
                process.stdout.close()


class Dashboards(unittest.TestCase):
    def expressions(self):
        for path in DASHBOARDS:
            for panel in json.loads(path.read_text())["panels"]:
                for target in panel.get("targets", []):
                    yield f"{path.stem}: {panel['title']}", target["expr"]

    def test_each_expression_parses(self):
        records = [
            {"record": f"panel:number{number}", "expr": expression.replace("$namespace", "prod")}
            for number, (_, expression) in enumerate(self.expressions())
        ]
        self.assertGreater(len(records), 50)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}, file)
            file.flush()
            checked = promtool("check", "rules", file.name)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_each_metric_exists(self):
        known = known_metrics()
        for title, expression in self.expressions():
            unknown = metrics_of(expression) - known
            self.assertFalse(unknown, f"{title}: {unknown}")

    def test_each_metric_is_looked_at(self):
        """An operator who looks for a number finds it on a dashboard, or in an alert."""
        used = set().union(*(metrics_of(expression) for _, expression in self.expressions()))
        used |= set().union(*(metrics_of(rule["expr"]) for rule in rules()))
        base = lambda name: re.sub(r"_(bucket|sum|count)$", "", name)
        unused = {base(name) for name in known_metrics()} - {base(name) for name in used}
        # Compared by operators across versions and machines, not watched.
        unused -= {"process_virtual_memory_bytes", "process_virtual_memory_max_bytes", "process_start_time_seconds"}
        unused -= {"process_threads"}
        self.assertFalse(unused)

    def test_each_panel_says_what_is_normal(self):
        for path in DASHBOARDS:
            for panel in json.loads(path.read_text())["panels"]:
                if panel["type"] != "row":
                    self.assertTrue(panel["description"].endswith("."), panel["title"])


if __name__ == "__main__":
    unittest.main()
