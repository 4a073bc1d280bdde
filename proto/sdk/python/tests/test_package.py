"""The package: generated types, files, types, and snippets of the README."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import fanfare_sdk

FOLDER = Path(__file__).parent.parent
MODULES = {
    "__init__.py",
    "_exchange.py",
    "_operations.py",
    "_transport.py",
    "client.py",
    "errors.py",
    "key_set.py",
    "models.py",
    "py.typed",
    "receiving.py",
}

PROJECT = """\
import asyncio

from fanfare_sdk import AsyncFanfare, Fanfare, ReceivedEvent, models, verify


def run(fanfare: Fanfare) -> list[str]:
    published: models.Published = fanfare.publish("order.created", {"order": 1001})
    webhook: models.Webhook = fanfare.webhooks.create(models.NewWebhook(url="https://example.com", events=["*"]))
    results: list[models.PublishedOrNot] = fanfare.publish_batch([])
    return [published.id, webhook.id, *(event.id for event in fanfare.events.list(limit=10)), str(results)]


async def run_async(fanfare: AsyncFanfare) -> list[str]:
    published: models.Published = await fanfare.publish("order.created", {"order": 1001})
    return [published.id] + [delivery.id async for delivery in fanfare.deliveries.list(state="failed")]


def receive(body: bytes, headers: dict[str, str]) -> ReceivedEvent:
    return verify(body, headers, ["old", "new"], dialect="nudj")


if __name__ == "__main__":
    print(run.__name__, run_async.__name__, asyncio.__name__)
"""

FAULTY = """\
from fanfare_sdk import Fanfare


def run(fanfare: Fanfare) -> None:
    fanfare.publish(1001)
    fanfare.events.list(typ="order.created")
    fanfare.webhooks.get("wh_1").secrets
"""


def command(*arguments: str | Path, cwd: Path = FOLDER) -> str:
    done = subprocess.run([str(argument) for argument in arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def mypy(*arguments: str | Path, cwd: Path = FOLDER) -> str:
    return command(sys.executable, "-m", "mypy", "--strict", *arguments, cwd=cwd)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist. The wheel is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_the_models_are_current(tmp_path: Path) -> None:
    command(sys.executable, "generate_models.py", tmp_path / "models.py")
    current = (tmp_path / "models.py").read_text(encoding="utf-8")
    committed = (FOLDER / "fanfare_sdk" / "models.py").read_text(encoding="utf-8")
    assert committed == current, "fanfare_sdk/models.py is out of date: run generate_models.py"


def test_the_files_of_wheel_and_sdist(built: tuple[Path, Path]) -> None:
    wheel, sdist = built
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read("fanfare_sdk-0.1.0.dist-info/METADATA").decode()
    information = {f"fanfare_sdk-0.1.0.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL")}
    assert names == {f"fanfare_sdk/{name}" for name in MODULES} | information
    required = {line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line}
    assert {re.split(r"[ <>=]", line.removeprefix("Requires-Dist: "))[0] for line in required} == {
        "httpx",
        "pydantic",
        "standardwebhooks",
    }
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Python: >=3.10" in metadata
    with tarfile.open(sdist) as source:
        names = {member.name.removeprefix("fanfare_sdk-0.1.0/") for member in source.getmembers() if member.isfile()}
    # hatchling adds .gitignore.
    others = {"README.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert names == {f"fanfare_sdk/{name}" for name in MODULES} | others


def test_the_types_of_package_tests_and_examples() -> None:
    mypy("fanfare_sdk", "tests", "generate_models.py")
    mypy("examples/receive_fastapi.py", "examples/receive_django.py")


def test_a_project_that_installs_the_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, _ = built
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    command(python, "-m", "pip", "install", "--quiet", wheel)
    (tmp_path / "project.py").write_text(PROJECT, encoding="utf-8")
    assert command(python, "project.py", cwd=tmp_path) == "run run_async asyncio\n"
    mypy("--python-executable", python, "project.py", cwd=tmp_path)
    (tmp_path / "faulty.py").write_text(FAULTY, encoding="utf-8")
    with pytest.raises(AssertionError) as caught:
        mypy("--python-executable", python, "faulty.py", cwd=tmp_path)
    assert set(re.findall(r"faulty\.py:(\d+): error", str(caught.value))) == {"5", "6", "7"}


def test_the_snippets_of_the_readme(tmp_path: Path) -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(snippets) == 8
    for number, snippet in enumerate(snippets):
        (tmp_path / f"snippet_{number}.py").write_text(snippet, encoding="utf-8")
    mypy("--config-file", FOLDER / "pyproject.toml", *sorted(tmp_path.glob("*.py")))


def test_help_shows_the_signature_of_a_method() -> None:
    client = fanfare_sdk.Fanfare("https://fanfare.example.com", "key")
    assert list(inspect.signature(client.publish).parameters) == [
        "type",
        "data",
        "id",
        "time",
        "deliver_at",
        "ordering_key",
    ]
    assert (client.publish.__doc__ or "").startswith("Publishes an event.")
