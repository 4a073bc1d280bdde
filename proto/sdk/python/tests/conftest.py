"""Fixtures of tests against a running Fanfare, which the environment names."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest

from fanfare_sdk import AsyncFanfare, AsyncPages, Dialect, Fanfare, Pages, models

from .servers import Proxy, Receiver, proxy, receiver

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    api: str
    key: str
    application: str
    admin_key: str | None


def settings_of_environment() -> Settings:
    names = ("FANFARE_API", "FANFARE_KEY", "FANFARE_APPLICATION")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise pytest.UsageError(
            f"The tests need a running Fanfare, and {', '.join(missing)} is not set. Set FANFARE_API to the base URL "
            "with /api/v1, FANFARE_KEY to a key with the role manage, and FANFARE_APPLICATION to the key's application."
        )
    api, key, application = (os.environ[name] for name in names)
    return Settings(api, key, application, os.environ.get("FANFARE_ADMIN_KEY") or None)


def pytest_sessionstart() -> None:
    settings_of_environment()


@pytest.fixture(scope="session")
def settings() -> Settings:
    return settings_of_environment()


@pytest.fixture
def fanfare(settings: Settings) -> Iterator[Fanfare]:
    with Fanfare(settings.api, settings.key) as client:
        yield client


@dataclass
class Driver:
    """Runs both clients by the same calls."""

    asynchronous: bool
    loop: asyncio.AbstractEventLoop

    def client(self, url: str, key: str, application: str | None = None, **options: Any) -> Fanfare | AsyncFanfare:
        kind = AsyncFanfare if self.asynchronous else Fanfare
        return kind(url, key, application, **options)

    def run(self, result: T | Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(result) if isinstance(result, Coroutine) else result

    def items(self, pages: Pages[T] | AsyncPages[T]) -> list[T]:
        return self.collect(pages)

    def collect(self, items: Iterable[T] | AsyncIterable[T]) -> list[T]:
        async def gather(source: AsyncIterable[T]) -> list[T]:
            return [item async for item in source]

        return self.run(gather(items)) if isinstance(items, AsyncIterable) else list(items)


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    loop = asyncio.new_event_loop()
    yield Driver(request.param == "async", loop)
    loop.close()


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture
def flaky(settings: Settings) -> Iterator[Proxy]:
    with proxy(settings.api) as server:
        yield server


@pytest.fixture
def event_type() -> str:
    """An event type of the test alone."""
    return f"sdk.{uuid.uuid4().hex}"


@pytest.fixture
def webhook(fanfare: Fanfare, event_type: str) -> Iterator[Callable[[str], models.Webhook]]:
    """Creates webhooks for `event_type`, and deletes the webhooks at the end."""
    created: list[str] = []

    def create(url: str) -> models.Webhook:
        made = fanfare.webhooks.create(models.NewWebhook(url=url, events=[event_type]))
        created.append(made.id)
        return made

    yield create
    for id in created:
        fanfare.webhooks.delete(id)


@pytest.fixture
def of_dialect(settings: Settings) -> Iterator[Callable[[Dialect], Fanfare]]:
    """Gives a client for a new application with a dialect."""
    if settings.admin_key is None:
        pytest.skip("FANFARE_ADMIN_KEY is not set: applications with other dialects need an admin key")
    admin_key = settings.admin_key
    clients: list[Fanfare] = []

    def create(dialect: Dialect) -> Fanfare:
        answer = httpx.post(
            f"{settings.api}/applications",
            headers={"authorization": f"Bearer {admin_key}"},
            json={"name": f"sdk {dialect}", "dialect": dialect},
        )
        assert answer.status_code == 201, answer.text
        client = Fanfare(settings.api, admin_key, answer.json()["data"]["id"])
        clients.append(client)
        return client

    yield create
    for client in clients:
        client.close()
