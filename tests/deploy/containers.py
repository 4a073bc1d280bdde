"""Podman and buildah with storage of their own below the target folder, and Fanfare's image."""

import contextlib
import datetime
import fcntl
import functools
import os
import pathlib
import platform
import re
import resource
import shutil
import subprocess
import tarfile
import tempfile

from chart import ROOT, TARGET

FOLDER = TARGET / "deploy/containers"
BEGIN = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
PROGRAMS = ["ingest", "dispatcher", "fanfare"]
VERSION = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
IMAGE = f"localhost/fanfare:{VERSION}"
PAUSE = "localhost/pause"
REMEDY = "Run `make test-deploy` as root in a virtual machine, or in a container with all rights."
CAP_SYS_ADMIN = 1 << 21
# Processes of a container's user: podman lowers its own limit to the number of process ids.
MAX_PROCESSES = 4096
# A stage of the image: the tag keeps the stage from the removal of older images.
PACKAGES = "localhost/fanfare-packages"
# Variables that lead podman and buildah to other engines, storage or settings: the tests remove all containers.
FOREIGN = ("CONTAINER", "STORAGE_", "DOCKER_", "BUILDAH_", "REGISTRY_AUTH")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)} | {
    "CONTAINERS_CONF": str(FOLDER / "containers.conf"),
    "CONTAINERS_STORAGE_CONF": str(FOLDER / "storage.conf"),
    # Runs the steps of a build without a container of their own, also inside of a container.
    "BUILDAH_ISOLATION": "chroot",
    "FANFARE_IMAGE_TOOL": "buildah",
    "FANFARE_IMAGE_CONTEXT": str(FOLDER / "context"),
}


def run(*command, stdin=None):
    """Runs a command. Returns its standard output; fails with its standard error."""
    command = [*map(str, command)]
    done = subprocess.run(command, env=ENVIRONMENT, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def podman(*arguments, stdin=None):
    return run("podman", "--remote=false", *arguments, stdin=stdin)


def logs(name):
    """Returns the output of a container, with standard error."""
    command = ["podman", "logs", name]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, env=ENVIRONMENT, text=True, check=False, **both).stdout


@functools.cache
def prove_containers():
    """Fails on a machine that cannot run containers, with the reason and a remedy."""
    check_rights()
    configure()
    try:
        remove_remains()
        make_pause()
        podman("run", "--rm", "--network=host", "--entrypoint=/catatonit", PAUSE, "--version")
    except AssertionError as error:
        raise AssertionError(f"This machine cannot run containers. {REMEDY} {error}") from None


@functools.cache
def build_image():
    """Builds the image from the programs of the target folder, once."""
    prove_containers()
    base = make_base()
    # Without debug information the layer is half as large. Buildah compares times to find a layer of an earlier run.
    (FOLDER / "context/programs").mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        run("strip", "--preserve-dates", "-o", FOLDER / "context/programs" / program, TARGET / "debug" / program)
    build = [ROOT / "deploy/dev/image", "--layers", "--build-arg=PROGRAMS=prebuilt", f"--build-arg=DEBIAN={base}"]
    run(*build, "--target=root", f"--tag={PACKAGES}")
    run(*build)
    # Buildah 1.28 leaves the container of a stage without steps.
    run("buildah", "rm", "--all")
    podman("image", "prune", "--force")


def check_rights():
    """Fails without the right to mount. Podman would then run without root, and do less."""
    rights = re.search(r"CapEff:\s*(\w+)", pathlib.Path("/proc/self/status").read_text()).group(1)
    if not int(rights, 16) & CAP_SYS_ADMIN:
        raise AssertionError(f"The tests of image and pods need root with the capability CAP_SYS_ADMIN. {REMEDY}")


def configure():
    """Writes the settings of podman and buildah."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    hold_lock()
    # Podman recognizes its containers as ended when the temporary folder is new.
    for name in ["run", "tmp"]:
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        (FOLDER / name).mkdir()
    (FOLDER / "storage.conf").write_text(
        f'[storage]\ndriver = "{storage_driver()}"\ngraphroot = "{FOLDER}/storage"\nrunroot = "{FOLDER}/run"\n'
    )
    # Podman would raise both limits, which needs a capability that root lacks on some machines.
    files, processes = (resource.getrlimit(limit)[1] for limit in [resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC])
    if processes == resource.RLIM_INFINITY or processes > MAX_PROCESSES:
        processes = MAX_PROCESSES
    (FOLDER / "containers.conf").write_text(
        f"""[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
log_driver = "k8s-file"
[engine]
# Crun refuses machines with both versions of cgroups.
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
infra_image = "{PAUSE}"
lock_type = "file"
tmp_dir = "{FOLDER}/tmp"
[network]
network_config_dir = "{FOLDER}/networks"
"""
    )


@functools.cache
def hold_lock():
    """Waits until no other process uses the folder. Holds the lock until the end of this process."""
    fcntl.flock(os.open(FOLDER / "lock", os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)


def storage_driver():
    """Returns overlay, or the slower vfs on a machine that permits no overlay mounts."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        lower, upper, work, merged = (pathlib.Path(folder) / name for name in ["lower", "upper", "work", "merged"])
        for path in [lower, upper, work, merged]:
            path.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        mounted = subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, merged], capture_output=True, check=False
        )
        if mounted.returncode:
            return "vfs"
        subprocess.run(["umount", merged], check=True)
        return "overlay"


def remove_remains():
    """Removes all pods, containers and secrets of the private storage."""
    # All at once: `pod rm` would wait a second or more for each pod.
    subprocess.run(["podman", "kill", "--all"], env=ENVIRONMENT, capture_output=True, check=False)
    podman("pod", "rm", "--all", "--force", "--time=0")
    podman("rm", "--all", "--force", "--time=0")
    podman("secret", "rm", "--all")


def has_image(name):
    return subprocess.run(["podman", "image", "exists", name], env=ENVIRONMENT, check=False).returncode == 0


def make_pause():
    """Makes the image of a pod's first container, which holds the namespaces."""
    if has_image(PAUSE):
        return
    archive = FOLDER / "pause.tar"
    with tarfile.open(archive, mode="w") as tar:
        tar.add(shutil.which("catatonit"), "catatonit")
    podman("import", '--change=ENTRYPOINT ["/catatonit", "-P"]', archive, PAUSE)
    archive.unlink()


def make_base():
    """Makes an image of this machine's own release, once: the programs link to its C library. Returns the name."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    base = f"localhost/debian:{release}"
    if not has_image(base):
        archive = FOLDER / "base.tar"
        run("mmdebstrap", "--mode=root", "--variant=apt", release, archive)
        podman("import", archive, base)
        archive.unlink()
    return base


@contextlib.contextmanager
def files_of(name):
    """Gives the folder of an image's files."""
    try:
        yield pathlib.Path(podman("image", "mount", name).strip())
    finally:
        podman("image", "unmount", name)
