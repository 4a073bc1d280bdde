"""Webhooks, lists and errors of a running Fanfare."""

from __future__ import annotations

import pickle
import traceback
import uuid
from datetime import datetime, timedelta, timezone

import pytest

from fanfare_sdk import Fanfare, FanfareError, models

from .conftest import Driver, Settings
from .servers import Receiver, until


def test_the_life_of_a_webhook(driver: Driver, settings: Settings, hooks: Receiver, event_type: str) -> None:
    client = driver.client(settings.api, settings.key)
    run, webhooks = driver.run, client.webhooks
    made = run(webhooks.create(models.NewWebhook(url=hooks.url, events=[event_type], timeout_ms=5000)))
    assert made.secret is not None and made.secret.startswith("whsec_")
    assert run(webhooks.get(made.id)).secret is None
    assert run(webhooks.change(made.id, models.WebhookChange(name="orders"))).timeout_ms == 5000
    changed = run(webhooks.change(made.id, models.WebhookChange(timeout_ms=None)))
    assert (changed.name, changed.timeout_ms) == ("orders", None)
    assert run(webhooks.pause(made.id)).status == "paused"
    assert run(webhooks.disable(made.id)).status == "disabled"
    assert run(webhooks.enable(made.id)).status == "enabled"
    tested = run(webhooks.test(made.id, models.NewTest(data={"test": True})))
    assert tested.delivered and tested.response is not None and tested.response.status == 204
    rotated = run(webhooks.rotate_secret(made.id, models.SecretRotation(overlap_seconds=60)))
    assert rotated.secret != made.secret
    assert run(webhooks.end_rotation(made.id)).previous_secret_expires_at is None
    assert run(webhooks.change(made.id, models.WebhookChange(fifo="park"))).fifo == "park"
    assert driver.items(webhooks.ordering_keys(made.id)) == []
    assert run(webhooks.resume_keys(made.id)).resumed == 0
    with pytest.raises(FanfareError) as unparked:
        run(webhooks.resume_keys(made.id, "a"))
    assert (unparked.value.status, unparked.value.field) == (404, "key")
    assert made.id in [webhook.id for webhook in driver.items(webhooks.list(contains="orders"))]
    assert run(webhooks.delete(made.id)).deleted
    with pytest.raises(FanfareError) as caught:
        run(webhooks.get(made.id))
    assert (caught.value.status, caught.value.code) == (404, "not_found")


def test_filter_template_order_feed_and_digest(
    driver: Driver, settings: Settings, hooks: Receiver, event_type: str
) -> None:
    client = driver.client(settings.api, settings.key)
    run, webhooks = driver.run, client.webhooks
    filter = "data.amount > 100"
    tried = run(webhooks.test_filter(models.NewFilterTest(filter=filter, events=[event_type])))
    assert (tried.tried_on, tried.passed) == ("samples", 0)
    new = models.NewWebhook(
        url=hooks.url,
        events=[event_type],
        filter=filter,
        template={"text": "paid {{ data.amount }}"},
        feed="copy",
        digest=True,
        fifo="block",
    )
    webhook = run(webhooks.create(new))
    for amount in (120, 20, 130):
        run(client.publish(event_type, {"amount": amount}, ordering_key="customer-7"))
    until(lambda: len(run(webhooks.feed(webhook.id, wait=1)).data) == 2, "two entries in the feed")
    page = run(webhooks.feed(webhook.id))
    assert [entry.body for entry in page.data] == ['{"text":"paid 120"}', '{"text":"paid 130"}']
    assert [dict(entry.headers)["webhook-sequence"] for entry in page.data] == ["1", "2"]
    assert run(webhooks.feed(webhook.id, after=page.next)).data == []
    today = datetime.now(timezone.utc).date()
    # The first digest is that of tomorrow.
    with pytest.raises(FanfareError) as early:
        run(webhooks.digest(webhook.id, day=today))
    assert (early.value.status, early.value.field) == (422, "day")
    template = models.NewTemplateTest(template={"text": "{{ data.amount }}"}, events=[event_type])
    rendered = run(webhooks.test_template(template))
    assert (rendered.tried_on, rendered.rendered, rendered.save_error) == ("events", 3, None)
    assert "slack" in [template.name for template in run(webhooks.templates())]
    assert run(webhooks.delete(webhook.id)).deleted


def test_lists_follow_the_cursor(driver: Driver, settings: Settings, event_type: str) -> None:
    client = driver.client(settings.api, settings.key)
    keys = [f"{event_type}-{number}" for number in range(7)]
    events = [models.NewEvent(type=event_type, id=key, data={}) for key in keys]
    assert all(result.success for result in driver.run(client.publish_batch(events)))
    pages = client.events.list(type=event_type, limit=3)
    until(lambda: len(driver.items(pages)) == 7, "seven events are listed")
    listed = driver.items(pages)
    assert sorted(event.key or "" for event in listed) == keys
    by_page = driver.collect(client.events.list(type=event_type, limit=3).by_page())
    assert len([page for page in by_page if page.data]) >= 3
    assert by_page[-1].next is None and all(page.next for page in by_page[:-1])
    rest = driver.items(client.events.list(type=event_type, limit=3, before=by_page[0].next))
    assert len(rest) == 7 - len(by_page[0].data)


def test_a_delivery_from_publish_to_resend(
    driver: Driver, settings: Settings, hooks: Receiver, event_type: str
) -> None:
    client = driver.client(settings.api, settings.key)
    run = driver.run
    webhook = run(client.webhooks.create(models.NewWebhook(url=hooks.url, events=[event_type])))
    key = str(uuid.uuid4())
    event = run(client.publish(event_type, {"order": 1}, id=key, time=datetime(2026, 6, 18, 12, tzinfo=timezone.utc)))
    assert hooks.next().headers["webhook-id"] == event.id
    (delivery,) = until(
        lambda: driver.items(client.deliveries.list(webhook=webhook.id, state="delivered")), "the delivery arrives"
    )
    detail = run(client.deliveries.get(delivery.id))
    assert [attempt.status for attempt in detail.attempts] == [204]
    assert [attempt.event_id for attempt in driver.items(client.attempts.list(webhook=webhook.id))] == [event.id]
    assert run(client.events.get(event.id)).key == key
    for explanation in (run(client.events.why(event.id, webhook=webhook.id)), run(client.events.why_by_key(key))):
        assert explanation.event == event.id and explanation.steps
    assert run(client.deliveries.resend(delivery.id)).id == delivery.id
    assert hooks.next().headers["webhook-id"] == event.id
    until(lambda: run(client.deliveries.get(delivery.id)).state == "delivered", "the delivery is delivered again")
    many = run(client.deliveries.resend_many(models.Resend(deliveries=[delivery.id], count_only=True)))
    assert [resent.id for resent in many.deliveries] == [delivery.id]
    run(client.webhooks.delete(webhook.id))


def test_a_replay(driver: Driver, settings: Settings, hooks: Receiver, event_type: str) -> None:
    client = driver.client(settings.api, settings.key)
    run = driver.run
    since = datetime.now(timezone.utc) - timedelta(minutes=5)
    event = run(client.publish(event_type, {"order": 1}))
    until(lambda: driver.items(client.events.list(type=event_type)), "the event is listed")
    webhook = run(client.webhooks.create(models.NewWebhook(url=hooks.url, events=[event_type])))
    new = models.NewReplay(since=since, webhook=webhook.id, types=[event_type])
    assert run(client.replays.dry_run(new)).deliveries == 1
    replay = run(client.replays.create(new))
    delivery = hooks.next()
    assert (delivery.headers["webhook-id"], delivery.headers["fanfare-replay"]) == (event.id, replay.id)
    until(lambda: run(client.replays.get(replay.id)).state == "done", "the replay is done")
    assert replay.id in [listed.id for listed in driver.items(client.replays.list())]
    with pytest.raises(FanfareError) as caught:
        run(client.replays.cancel(replay.id))
    assert caught.value.code == "replay_ended"
    run(client.webhooks.delete(webhook.id))


def test_a_paused_replay_goes_on(driver: Driver, settings: Settings, event_type: str) -> None:
    client = driver.client(settings.api, settings.key)
    run = driver.run
    events = [models.NewEvent(type=event_type, data={}) for _ in range(50)]
    run(client.publish_batch(events))
    until(lambda: len(driver.items(client.events.list(type=event_type))) == 50, "the events are listed")
    webhook = run(client.webhooks.create(models.NewWebhook(url="http://127.0.0.1:9000/", events=[event_type])))
    since = datetime.now(timezone.utc) - timedelta(minutes=5)
    replay = run(
        client.replays.create(models.NewReplay(since=since, webhook=webhook.id, types=[event_type], rate_per_second=1))
    )
    assert run(client.replays.pause(replay.id)).state == "paused"
    assert run(client.replays.resume(replay.id)).state == "running"
    assert run(client.replays.cancel(replay.id)).state == "cancelled"
    run(client.webhooks.delete(webhook.id))


def test_event_types(driver: Driver, settings: Settings, event_type: str) -> None:
    client = driver.client(settings.api, settings.key)
    described = driver.run(client.event_types.describe(models.NewEventType(name=event_type, sample={"order": 1})))
    assert driver.run(client.event_types.get(event_type)) == described
    assert event_type in [listed.name for listed in driver.items(client.event_types.list(limit=10))]
    assert driver.run(client.event_types.remove(event_type)).deleted


@pytest.mark.parametrize("key", ["wrong-key-5f2a", "ff_wrong.key-5f2a"])
def test_a_wrong_key(driver: Driver, settings: Settings, key: str) -> None:
    client = driver.client(settings.api, key)
    with pytest.raises(FanfareError) as caught:
        driver.run(client.webhooks.get("wh_01h455vb4pex5vsknk084sn02q"))
    error = caught.value
    assert (error.status, error.code) == (401, "invalid_key")
    assert str(error).startswith("GET /api/v1/webhooks/wh_01h455vb4pex5vsknk084sn02q: 401 invalid_key: ")
    assert "5f2a" not in "".join(traceback.format_exception(error)) + repr(client) + repr(vars(error))


def test_an_error_names_the_field(driver: Driver, settings: Settings) -> None:
    client = driver.client(settings.api, settings.key)
    with pytest.raises(FanfareError) as caught:
        driver.run(client.webhooks.create(models.NewWebhook(url="ftp://example.com", events=["*"])))
    error = caught.value
    assert (error.status, error.code, error.field) == (422, "invalid_url", "url")
    assert str(error).startswith("POST /api/v1/webhooks: 422 invalid_url: ") and "`url`" in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_a_server_that_is_away(driver: Driver, settings: Settings) -> None:
    client = driver.client("http://127.0.0.1:9", settings.key, retries=1)
    with pytest.raises(FanfareError) as caught:
        driver.run(client.webhooks.delete("wh_1"))
    assert (caught.value.status, caught.value.code) == (None, "connection_failed")
    assert str(caught.value).startswith("DELETE /api/v1/webhooks/wh_1: connection_failed: ")


def test_an_admin_key_names_the_application(driver: Driver, settings: Settings, event_type: str) -> None:
    if settings.admin_key is None:
        pytest.skip("FANFARE_ADMIN_KEY is not set")
    with pytest.raises(FanfareError) as caught:
        driver.run(driver.client(settings.api, settings.admin_key).publish(event_type, {}))
    assert caught.value.code == "missing_application"
    client = driver.client(settings.api, settings.admin_key, settings.application)
    assert driver.run(client.publish(event_type, {})).id.startswith("evt_")
    assert driver.items(client.webhooks.list(limit=1)) is not None


def test_invalid_arguments_are_refused(settings: Settings, fanfare: Fanfare) -> None:
    for url in ("fanfare.example.com", "ftp://fanfare.example.com", "https://user:secret-5f2a@fanfare.example.com"):
        with pytest.raises(ValueError, match="url") as caught:
            Fanfare(url, settings.key)
        assert "5f2a" not in str(caught.value)
    for key in ("", "with space-5f2a", "line\nbreak-5f2a", "ключ-5f2a"):
        with pytest.raises(ValueError, match="key") as caught:
            Fanfare(settings.api, key)
        assert "5f2a" not in str(caught.value)
    with pytest.raises(ValueError, match="retries"):
        Fanfare(settings.api, settings.key, retries=-1)
    with pytest.raises(ValueError, match="timeout"):
        Fanfare(settings.api, settings.key, timeout=0)
    for id in ("", ".", ".."):
        with pytest.raises(ValueError, match="path"):
            fanfare.webhooks.get(id)
    with pytest.raises(FanfareError) as refused:
        fanfare.webhooks.get("../keys?x=1#y")
    assert refused.value.path == "/api/v1/webhooks/..%2Fkeys%3Fx%3D1%23y" and refused.value.status == 422
