"""The operations of the API, for both clients. Names and shapes follow proto/openapi.json."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from . import models
from ._exchange import PREFIX, Answer, Core, Request, Steps, Wait, body_of, encode, path_of
from .errors import FanfareError

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

# Errors of an event in a batch after which the event may be published again.
REPEATABLE_CODES = {
    "application_unavailable",
    "broker_refused",
    "broker_unavailable",
    "database_unavailable",
    "outcome_unknown",
    "overloaded",
    "too_many_events",
}

# The longest deadline of a webhook is 60 s, and a test ends with the attempt.
TEST_TIMEOUT = 65.0

# Time for the answer of a feed beyond its wait for an entry.
FEED_MARGIN = 10.0

OPTIONAL_TIME: TypeAdapter[datetime | None] = TypeAdapter(datetime | None)


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of a list. `next` is the `before` of the next page, and `None` on the last page.

    A search may give an empty page with a `next`. `searched_until` is the time back to which the search looked.
    """

    data: list[T]
    next: str | None
    searched_until: datetime | None


# Gets the page before a cursor.
PageSource = Callable[[str | None], Steps[Page[T]]]


# --- reading ------------------------------------------------------------------


def decode(request: Request, answer: Answer, read: Callable[[dict[str, Any]], T]) -> T:
    """Reads an answer. The error tells the place of a fault and no value, because values may be secret."""
    try:
        return read(json.loads(answer.body))
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        fault = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except (ValueError, TypeError, KeyError) as error:
        fault = type(error).__name__
    raise FanfareError(
        request.method,
        PREFIX + request.path,
        answer.status,
        "unexpected_answer",
        f"the answer has another form than documented ({fault}): check the URL, and update fanfare-sdk",
        id=request.event_id,
    )


def call(core: Core, request: Request, kind: type[M]) -> Steps[M]:
    answer = yield from core.exchange(request)
    return decode(request, answer, lambda body: kind.model_validate(body["data"]))


def pages(core: Core, path: str, kind: type[M], query: Mapping[str, object]) -> PageSource[M]:
    def read(body: dict[str, Any]) -> Page[M]:
        return Page(
            data=[kind.model_validate(item) for item in body["data"]],
            next=body.get("next"),
            searched_until=OPTIONAL_TIME.validate_python(body.get("searched_until")),
        )

    def page(before: str | None) -> Steps[Page[M]]:
        cursor = query if before is None else {**query, "before": before}
        request = get(path, cursor)
        answer = yield from core.exchange(request)
        return decode(request, answer, read)

    return page


# --- writing ------------------------------------------------------------------


def text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def get(path: str, query: Mapping[str, object]) -> Request:
    given = {name: text(value) for name, value in query.items() if value is not None}
    return Request("GET", path, given, repeatable=True)


def post(path: str, body: BaseModel | None = None, *, repeatable: bool = False, least_timeout: float = 0.0) -> Request:
    content = None if body is None else body_of(encode(body))
    return Request("POST", path, body=content, repeatable=repeatable, least_timeout=least_timeout)


# --- publishing ---------------------------------------------------------------


def publish(
    core: Core,
    type: str,
    data: Any,
    *,
    id: str | None = None,
    time: datetime | None = None,
    deliver_at: datetime | None = None,
    ordering_key: str | None = None,
) -> Steps[models.Published]:
    """Publishes an event. `deliver_at` is the time of delivery. Until then, `events.cancel` cancels the event. Events with
    the same `ordering_key` get consecutive numbers at each webhook.

    Each try has the same id. Without `id`, the id is a random UUID. After a `FanfareError`, `error.id` is the id under
    which to publish the event again.
    """
    event = models.NewEvent(
        type=type, data=data, id=id, time=time, deliver_at=deliver_at, ordering_key=ordering_key
    )
    body = named(event)
    request = Request("POST", "/events", body=body_of(body), repeatable=True, event_id=body["id"])
    return call(core, request, models.Published)


def named(event: models.NewEvent) -> dict[str, Any]:
    """The body of an event, with an id under which each try publishes the event."""
    # Fanfare refuses `null` as `id`, `time`, `deliver_at` or `ordering_key`.
    body = {name: value for name, value in encode(event).items() if name == "data" or value is not None}
    return {"id": str(uuid.uuid4())} | body


def publish_batch(core: Core, events: Sequence[models.NewEvent]) -> Steps[list[models.PublishedOrNot]]:
    """Publishes 1 to 1000 events. The results are in the order of the events.

    Each try has the same ids. An event without `id` gets a random UUID. Only events that a retry may help are sent
    again. The `error.id` of a result is the id under which to publish the event again. Give each event an `id` to
    publish the whole list again after a `FanfareError`.
    """
    bodies = [named(event) for event in events]
    tries = core.tries()
    results: dict[int, models.PublishedOrNot] = {}
    open = list(range(len(bodies)))
    while True:
        content = body_of([bodies[index] for index in open])
        request = Request("POST", "/events/batch", body=content, repeatable=True)
        try:
            answer = yield from core.exchange(request, tries)
            new = decode(request, answer, read_results)
            if len(new) != len(open):
                message = f"the answer has {len(new)} results for {len(open)} events"
                raise FanfareError("POST", PREFIX + request.path, answer.status, "unexpected_answer", message)
        except FanfareError:
            if not results:
                raise
            # The earlier results name the errors of the open events.
            break
        for index, result in zip(open, new):
            if result.error is not None:
                result.error.id = bodies[index]["id"]
            results[index] = result
        open = [index for index in open if may_repeat(results[index])]
        wait = tries.next_wait(None) if open else None
        if wait is None:
            break
        yield Wait(wait)
    return [results[index] for index in range(len(bodies))]


def read_results(body: dict[str, Any]) -> list[models.PublishedOrNot]:
    return [models.PublishedOrNot.model_validate(item) for item in body["data"]]


def may_repeat(result: models.PublishedOrNot) -> bool:
    return result.error is not None and result.error.code in REPEATABLE_CODES


# --- webhooks -----------------------------------------------------------------


def create_webhook(core: Core, webhook: models.NewWebhook) -> Steps[models.Webhook]:
    """Creates a webhook. Only this answer has the `secret`."""
    return call(core, post("/webhooks", webhook), models.Webhook)


def list_webhooks(
    core: Core,
    *,
    state: str | None = None,
    contains: str | None = None,
    before: str | None = None,
    limit: int | None = None,
) -> PageSource[models.Webhook]:
    """Lists webhooks. `limit` is the size of a page."""
    query = {"state": state, "contains": contains, "before": before, "limit": limit}
    return pages(core, "/webhooks", models.Webhook, query)


def show_webhook(core: Core, id: str) -> Steps[models.Webhook]:
    return call(core, get(path_of("webhooks", id), {}), models.Webhook)


def change_webhook(core: Core, id: str, change: models.WebhookChange) -> Steps[models.Webhook]:
    """Changes the fields that `change` sets. A field set to `None` returns to the default."""
    request = Request("PATCH", path_of("webhooks", id), body=body_of(encode(change)), repeatable=True)
    return call(core, request, models.Webhook)


def delete_webhook(core: Core, id: str) -> Steps[models.Deleted]:
    return call(core, Request("DELETE", path_of("webhooks", id)), models.Deleted)


def rotate_secret(core: Core, id: str, rotation: models.SecretRotation | None = None) -> Steps[models.Rotated]:
    """Rotates the secret. Only this answer has the new `secret`."""
    return call(core, post(path_of("webhooks", id, "rotate-secret"), rotation), models.Rotated)


def end_rotation(core: Core, id: str) -> Steps[models.Webhook]:
    return call(core, post(path_of("webhooks", id, "end-rotation"), repeatable=True), models.Webhook)


def list_ordering_keys(
    core: Core, id: str, *, before: str | None = None, limit: int | None = None
) -> PageSource[models.WaitingKey]:
    """Lists the ordering keys that wait at a webhook with `fifo`. `limit` is the size of a page."""
    path = path_of("webhooks", id, "ordering-keys")
    return pages(core, path, models.WaitingKey, {"before": before, "limit": limit})


def resume_ordering_keys(core: Core, id: str, key: str | None = None) -> Steps[models.ResumedKeys]:
    """Resumes a parked ordering key, or without a key all: the next deliveries are sent."""
    body = models.KeyToResume() if key is None else models.KeyToResume(key=key)
    return call(core, post(path_of("webhooks", id, "ordering-keys", "resume"), body), models.ResumedKeys)


def test_filter(core: Core, test: models.NewFilterTest) -> Steps[models.FilterTest]:
    """Tries a filter on the last events."""
    return call(core, post("/webhooks/filter-test", test, repeatable=True), models.FilterTest)


def test_template(core: Core, test: models.NewTemplateTest) -> Steps[models.TemplateTest]:
    """Renders a body template on the last events."""
    return call(core, post("/webhooks/template-test", test, repeatable=True), models.TemplateTest)


def list_webhook_templates(core: Core) -> Steps[list[models.WebhookTemplate]]:
    """Lists templates to begin with, for Slack, Teams, Discord, PagerDuty and Zapier."""
    request = get("/webhook-templates", {})
    answer = yield from core.exchange(request)
    return decode(request, answer, read_templates)


def read_templates(body: dict[str, Any]) -> list[models.WebhookTemplate]:
    return [models.WebhookTemplate.model_validate(item) for item in body["data"]]


def show_digest(core: Core, id: str, *, day: date | None = None) -> Steps[models.DayDigest]:
    """Counts the deliveries of a UTC day, to compare them with a daily digest. Default: the last day with a digest."""
    return call(core, get(path_of("webhooks", id, "digest"), {"day": day}), models.DayDigest)


def read_feed(
    core: Core,
    id: str,
    *,
    after: str | None = None,
    wait: int | None = None,
    limit: int | None = None,
    day: date | None = None,
) -> Steps[models.FeedPage]:
    """Reads a page of a webhook's feed. `after` is the `next` of the last page, `wait` up to 20 s for an entry."""
    query = {"after": after, "wait": wait, "limit": limit, "day": day}
    timeout = FEED_MARGIN + (wait or 0)
    request = replace(get(path_of("webhooks", id, "feed"), query), least_timeout=timeout, try_timeout=timeout)
    answer = yield from core.exchange(request)
    return decode(request, answer, models.FeedPage.model_validate)


def test_webhook(core: Core, id: str, test: models.NewTest | None = None) -> Steps[models.TestResult]:
    """Sends a test event once, and returns after the attempt: up to 60 s, whatever the client's timeout."""
    request = post(path_of("webhooks", id, "test"), test, least_timeout=TEST_TIMEOUT)
    return call(core, request, models.TestResult)


def enable_webhook(core: Core, id: str) -> Steps[models.Webhook]:
    return call(core, post(path_of("webhooks", id, "enable"), repeatable=True), models.Webhook)


def disable_webhook(core: Core, id: str) -> Steps[models.Webhook]:
    return call(core, post(path_of("webhooks", id, "disable"), repeatable=True), models.Webhook)


def pause_webhook(core: Core, id: str) -> Steps[models.Webhook]:
    return call(core, post(path_of("webhooks", id, "pause"), repeatable=True), models.Webhook)


# --- events -------------------------------------------------------------------


def list_events(
    core: Core,
    *,
    type: str | None = None,
    key: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    unmatched: bool | None = None,
    delayed: bool | None = None,
    cancelled: bool | None = None,
    before: str | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> PageSource[models.Event]:
    """Lists events, newest first. `key` is the publisher's id. `limit` is the size of a page."""
    query = {"type": type, "key": key, "since": since, "until": until, "unmatched": unmatched}
    query = {**query, "delayed": delayed, "cancelled": cancelled}
    return pages(core, "/events", models.Event, {**query, "before": before, "after": after, "limit": limit})


def show_event(core: Core, id: str) -> Steps[models.EventDetail]:
    return call(core, get(path_of("events", id), {}), models.EventDetail)


def explain_event(core: Core, id: str, *, webhook: str | None = None) -> Steps[models.Explanation]:
    """Explains why an event did or did not arrive."""
    return call(core, get(path_of("events", id, "why"), {"webhook": webhook}), models.Explanation)


def explain_event_by_key(core: Core, key: str, *, webhook: str | None = None) -> Steps[models.Explanation]:
    """Explains why the event with the publisher's id `key` did or did not arrive."""
    return call(core, get("/events/why", {"key": key, "webhook": webhook}), models.Explanation)


def cancel_event(core: Core, id: str) -> Steps[models.CancelledEvent]:
    """Cancels a delayed event that is not yet due. A repeat changes nothing."""
    return call(core, post(path_of("events", id, "cancel"), repeatable=True), models.CancelledEvent)


def cancel_event_by_key(core: Core, key: str) -> Steps[models.CancelledEvent]:
    """Cancels the delayed event with the publisher's id `key`."""
    request = Request("POST", "/events/cancel", {"key": key}, repeatable=True)
    return call(core, request, models.CancelledEvent)


# --- deliveries and attempts --------------------------------------------------


def list_deliveries(
    core: Core,
    *,
    webhook: str | None = None,
    event: str | None = None,
    state: str | None = None,
    type: str | None = None,
    status: str | None = None,
    outcome: str | None = None,
    reason: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    contains: str | None = None,
    ids: Sequence[str] | None = None,
    before: str | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> PageSource[models.Delivery]:
    """Lists deliveries, newest first. `limit` is the size of a page."""
    query = {"webhook": webhook, "event": event, "state": state, "type": type, "status": status, "outcome": outcome}
    bounds = {"reason": reason, "since": since, "until": until, "contains": contains, "before": before, "after": after}
    listed = None if ids is None else ",".join(ids)
    return pages(core, "/deliveries", models.Delivery, {**query, **bounds, "ids": listed, "limit": limit})


def show_delivery(core: Core, id: str) -> Steps[models.DeliveryDetail]:
    return call(core, get(path_of("deliveries", id), {}), models.DeliveryDetail)


def resend_delivery(core: Core, id: str) -> Steps[models.Resent]:
    """Sends a delivery again, now, with the same `webhook-id` and the same bytes."""
    return call(core, post(path_of("deliveries", id, "resend")), models.Resent)


def resend_deliveries(core: Core, resend: models.Resend) -> Steps[models.ManyResent]:
    """Sends the selected deliveries again, at most 1000."""
    return call(core, post("/deliveries/resend", resend), models.ManyResent)


def list_attempts(
    core: Core,
    *,
    webhook: str | None = None,
    event: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    tests: bool | None = None,
    before: str | None = None,
    limit: int | None = None,
) -> PageSource[models.WebhookLog]:
    """Lists attempts, newest first. `tests=False` leaves out attempts of test events. `limit` is the size of a page."""
    query = {"webhook": webhook, "event": event, "since": since, "until": until, "tests": tests}
    return pages(core, "/attempts", models.WebhookLog, {**query, "before": before, "limit": limit})


# --- replays ------------------------------------------------------------------


def create_replay(core: Core, replay: models.NewReplay) -> Steps[models.Replay]:
    """Sends past events again."""
    return call(core, post("/replays", replay), models.Replay)


def count_replay(core: Core, replay: models.NewReplay) -> Steps[models.ReplayCount]:
    """Counts the deliveries of a replay, and sends nothing."""
    return call(core, post("/replays/dry-run", replay, repeatable=True), models.ReplayCount)


def list_replays(core: Core, *, before: str | None = None, limit: int | None = None) -> PageSource[models.Replay]:
    """Lists replays, newest first. `limit` is the size of a page."""
    return pages(core, "/replays", models.Replay, {"before": before, "limit": limit})


def show_replay(core: Core, id: str) -> Steps[models.Replay]:
    return call(core, get(path_of("replays", id), {}), models.Replay)


def pause_replay(core: Core, id: str) -> Steps[models.Replay]:
    return call(core, post(path_of("replays", id, "pause"), repeatable=True), models.Replay)


def resume_replay(core: Core, id: str) -> Steps[models.Replay]:
    return call(core, post(path_of("replays", id, "resume"), repeatable=True), models.Replay)


def cancel_replay(core: Core, id: str) -> Steps[models.Replay]:
    return call(core, post(path_of("replays", id, "cancel")), models.Replay)


# --- event types --------------------------------------------------------------


def list_event_types(
    core: Core, *, before: str | None = None, limit: int | None = None
) -> PageSource[models.DescribedType]:
    """Lists the described event types. `limit` is the size of a page."""
    return pages(core, "/event-types", models.DescribedType, {"before": before, "limit": limit})


def describe_event_type(core: Core, type: models.NewEventType) -> Steps[models.DescribedType]:
    return call(core, post("/event-types", type), models.DescribedType)


def show_event_type(core: Core, name: str) -> Steps[models.DescribedType]:
    return call(core, get(path_of("event-types", name), {}), models.DescribedType)


def remove_event_type(core: Core, name: str) -> Steps[models.Removed]:
    """Removes the description of an event type of the application."""
    return call(core, Request("DELETE", path_of("event-types", name)), models.Removed)
