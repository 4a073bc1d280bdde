"""Clients of the Fanfare API: `Fanfare` blocks, `AsyncFanfare` awaits. Both have the same methods."""

from __future__ import annotations

from types import TracebackType

import httpx

from . import _operations as operations
from ._exchange import Core
from ._transport import Address, AsyncRunner, Runner, async_method, async_paged, method, paged

RETRIES = 5
TIMEOUT = 30.0


# --- blocking -----------------------------------------------------------------


class Webhooks(Runner):
    create = method(operations.create_webhook)
    list = paged(operations.list_webhooks)
    get = method(operations.show_webhook)
    change = method(operations.change_webhook)
    delete = method(operations.delete_webhook)
    rotate_secret = method(operations.rotate_secret)
    end_rotation = method(operations.end_rotation)
    ordering_keys = paged(operations.list_ordering_keys)
    resume_keys = method(operations.resume_ordering_keys)
    feed = method(operations.read_feed)
    digest = method(operations.show_digest)
    test_filter = method(operations.test_filter)
    test_template = method(operations.test_template)
    templates = method(operations.list_webhook_templates)
    test = method(operations.test_webhook)
    enable = method(operations.enable_webhook)
    disable = method(operations.disable_webhook)
    pause = method(operations.pause_webhook)


class Events(Runner):
    list = paged(operations.list_events)
    get = method(operations.show_event)
    why = method(operations.explain_event)
    why_by_key = method(operations.explain_event_by_key)
    cancel = method(operations.cancel_event)
    cancel_by_key = method(operations.cancel_event_by_key)


class Deliveries(Runner):
    list = paged(operations.list_deliveries)
    get = method(operations.show_delivery)
    resend = method(operations.resend_delivery)
    resend_many = method(operations.resend_deliveries)


class Attempts(Runner):
    list = paged(operations.list_attempts)


class Replays(Runner):
    create = method(operations.create_replay)
    dry_run = method(operations.count_replay)
    list = paged(operations.list_replays)
    get = method(operations.show_replay)
    pause = method(operations.pause_replay)
    resume = method(operations.resume_replay)
    cancel = method(operations.cancel_replay)


class EventTypes(Runner):
    list = paged(operations.list_event_types)
    describe = method(operations.describe_event_type)
    get = method(operations.show_event_type)
    remove = method(operations.remove_event_type)

class Fanfare(Runner):
    """Blocking client of Fanfare.

    `url` is the base URL, with or without `/api/v1`. `application` is required with an admin key. A call is repeated up
    to `retries` times, if a repeat cannot have a second effect. `timeout` bounds a call in seconds, tries and waits
    together; an answer that arrives piece by piece can end one wait for a piece later. `http` is an own client of
    httpx, for proxies and certificates, and is closed by the caller.
    """

    publish = method(operations.publish)
    publish_batch = method(operations.publish_batch)

    def __init__(
        self,
        url: str,
        key: str,
        application: str | None = None,
        *,
        retries: int = RETRIES,
        timeout: float = TIMEOUT,
        http: httpx.Client | None = None,
    ) -> None:
        core, address = Core(application, retries, timeout), Address(url, key)
        client = http or httpx.Client()
        self._owned = None if http else client
        super().__init__(core, address, client)
        self.webhooks = Webhooks(core, address, client)
        self.events = Events(core, address, client)
        self.deliveries = Deliveries(core, address, client)
        self.attempts = Attempts(core, address, client)
        self.replays = Replays(core, address, client)
        self.event_types = EventTypes(core, address, client)

    def close(self) -> None:
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Fanfare:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- awaiting -----------------------------------------------------------------


class AsyncWebhooks(AsyncRunner):
    create = async_method(operations.create_webhook)
    list = async_paged(operations.list_webhooks)
    get = async_method(operations.show_webhook)
    change = async_method(operations.change_webhook)
    delete = async_method(operations.delete_webhook)
    rotate_secret = async_method(operations.rotate_secret)
    end_rotation = async_method(operations.end_rotation)
    ordering_keys = async_paged(operations.list_ordering_keys)
    resume_keys = async_method(operations.resume_ordering_keys)
    feed = async_method(operations.read_feed)
    digest = async_method(operations.show_digest)
    test_filter = async_method(operations.test_filter)
    test_template = async_method(operations.test_template)
    templates = async_method(operations.list_webhook_templates)
    test = async_method(operations.test_webhook)
    enable = async_method(operations.enable_webhook)
    disable = async_method(operations.disable_webhook)
    pause = async_method(operations.pause_webhook)


class AsyncEvents(AsyncRunner):
    list = async_paged(operations.list_events)
    get = async_method(operations.show_event)
    why = async_method(operations.explain_event)
    why_by_key = async_method(operations.explain_event_by_key)
    cancel = async_method(operations.cancel_event)
    cancel_by_key = async_method(operations.cancel_event_by_key)


class AsyncDeliveries(AsyncRunner):
    list = async_paged(operations.list_deliveries)
    get = async_method(operations.show_delivery)
    resend = async_method(operations.resend_delivery)
    resend_many = async_method(operations.resend_deliveries)


class AsyncAttempts(AsyncRunner):
    list = async_paged(operations.list_attempts)


class AsyncReplays(AsyncRunner):
    create = async_method(operations.create_replay)
    dry_run = async_method(operations.count_replay)
    list = async_paged(operations.list_replays)
    get = async_method(operations.show_replay)
    pause = async_method(operations.pause_replay)
    resume = async_method(operations.resume_replay)
    cancel = async_method(operations.cancel_replay)


class AsyncEventTypes(AsyncRunner):
    list = async_paged(operations.list_event_types)
    describe = async_method(operations.describe_event_type)
    get = async_method(operations.show_event_type)
    remove = async_method(operations.remove_event_type)

class AsyncFanfare(AsyncRunner):
    """Awaiting client of Fanfare.

    `url` is the base URL, with or without `/api/v1`. `application` is required with an admin key. A call is repeated up
    to `retries` times, if a repeat cannot have a second effect. `timeout` bounds a call in seconds, tries and waits
    together; an answer that arrives piece by piece can end one wait for a piece later. `http` is an own client of
    httpx, for proxies and certificates, and is closed by the caller.
    """

    publish = async_method(operations.publish)
    publish_batch = async_method(operations.publish_batch)

    def __init__(
        self,
        url: str,
        key: str,
        application: str | None = None,
        *,
        retries: int = RETRIES,
        timeout: float = TIMEOUT,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        core, address = Core(application, retries, timeout), Address(url, key)
        client = http or httpx.AsyncClient()
        self._owned = None if http else client
        super().__init__(core, address, client)
        self.webhooks = AsyncWebhooks(core, address, client)
        self.events = AsyncEvents(core, address, client)
        self.deliveries = AsyncDeliveries(core, address, client)
        self.attempts = AsyncAttempts(core, address, client)
        self.replays = AsyncReplays(core, address, client)
        self.event_types = AsyncEventTypes(core, address, client)

    async def aclose(self) -> None:
        if self._owned is not None:
            await self._owned.aclose()

    async def __aenter__(self) -> AsyncFanfare:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
