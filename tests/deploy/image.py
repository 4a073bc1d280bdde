"""The image: labels, user, content, and its programs in a container."""

import datetime
import json
import ssl
import subprocess
import unittest

from chart import ROOT
from containers import BEGIN, IMAGE, PROGRAMS, VERSION, build_image, files_of, podman

PACKAGES = ["base-files", "ca-certificates", "libc6", "libgcc-s1"]


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        build_image()
        [cls.description] = json.loads(podman("image", "inspect", IMAGE))
        cls.configuration = cls.description["Config"]

    def test_the_labels_tell_the_build(self):
        labels = self.configuration["Labels"]
        label = lambda name: labels[f"org.opencontainers.image.{name}"]
        self.assertEqual(label("title"), "Fanfare")
        self.assertTrue(label("description").startswith("Delivers webhooks"))
        self.assertEqual(label("licenses"), "Apache-2.0")
        self.assertEqual(label("version"), VERSION)
        head = ["git", "rev-parse", "--short=12", "HEAD"]
        commit = subprocess.run(head, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        self.assertEqual(label("revision"), commit)
        created = datetime.datetime.fromisoformat(label("created").replace("Z", "+00:00"))
        self.assertGreaterEqual(created, BEGIN)

    def test_the_user_has_no_rights_and_the_chart_names_the_program(self):
        self.assertEqual(self.configuration["User"], "65532:65532")
        self.assertEqual(self.configuration["WorkingDir"], "/")
        self.assertFalse(self.configuration.get("Entrypoint") or self.configuration.get("Cmd"))
        self.assertEqual(set(self.configuration["ExposedPorts"]), {"8080/tcp", "9090/tcp"})

    def test_the_only_programs_are_fanfares(self):
        with files_of(IMAGE) as root:
            folders = [root / name for name in ["bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin"]]
            programs = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
            self.assertEqual({path.name for path in (root / "usr/local/bin").iterdir()}, set(PROGRAMS))
            self.assertFalse(programs & {"sh", "bash", "dash", "busybox", "apt", "dpkg", "perl"})
        with self.assertRaisesRegex(AssertionError, "executable file not found"):
            podman("run", "--rm", "--network=none", IMAGE, "sh")

    def test_scanners_find_the_versions_of_packages(self):
        with files_of(IMAGE) as root:
            entries = {path.name: path.read_text() for path in (root / "var/lib/dpkg/status.d").iterdir()}
            release = (root / "etc/os-release").read_text()
        self.assertEqual(sorted(entries), PACKAGES)
        for name, entry in entries.items():
            self.assertRegex(entry, rf"(?m)^Package: {name}$")
            self.assertRegex(entry, r"(?m)^Version: \S+$")
        self.assertRegex(release, "(?m)^ID=")

    def test_the_certificates_are_a_bundle(self):
        variables = dict(variable.split("=", 1) for variable in self.configuration["Env"])
        with files_of(IMAGE) as root:
            context = ssl.create_default_context(cafile=str(root / variables["SSL_CERT_FILE"].lstrip("/")))
        self.assertGreater(len(context.get_ca_certs()), 100)

    def test_each_program_runs_without_rights_and_writable_files(self):
        limits = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"]
        for program in PROGRAMS:
            in_container = lambda option: podman("run", "--rm", "--network=none", *limits, IMAGE, program, option)
            self.assertEqual(in_container("--version"), f"{program} {VERSION}\n")
            self.assertRegex(in_container("--help"), f"(?i)usage: {program} ")


if __name__ == "__main__":
    unittest.main()
