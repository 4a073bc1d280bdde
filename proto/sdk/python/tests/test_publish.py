"""Publishing over a proxy that loses answers. Each event must exist once."""

from __future__ import annotations

import time
import uuid

import pytest

from fanfare_sdk import Fanfare, FanfareError, models

from .conftest import Driver, Settings
from .servers import Proxy, until


def stored(fanfare: Fanfare, event_type: str, number: int = 1) -> list[models.Event]:
    """Waits for the events of a type."""

    def enough() -> list[models.Event]:
        events = list(fanfare.events.list(type=event_type))
        return events if len(events) >= number else []

    return until(enough, f"{number} events of {event_type} are listed")


def test_publish(driver: Driver, settings: Settings, fanfare: Fanfare, event_type: str) -> None:
    client = driver.client(settings.api, settings.key)
    id = str(uuid.uuid4())
    published = driver.run(client.publish(event_type, {"order": 1001}, id=id))
    again = driver.run(client.publish(event_type, {"order": 1001}, id=id))
    assert published.id.startswith("evt_") and again == published
    (event,) = stored(fanfare, event_type)
    assert (event.id, event.key) == (published.id, id)


@pytest.mark.parametrize("fault", ["drop", "lose", "html"])
def test_a_lost_answer_makes_no_second_event(
    driver: Driver, settings: Settings, fanfare: Fanfare, flaky: Proxy, event_type: str, fault: str
) -> None:
    flaky.faults = [fault, fault]
    client = driver.client(flaky.url, settings.key)
    published = driver.run(client.publish(event_type, {"order": 1001}))
    assert len(flaky.bodies) == 3 and len({body["id"] for body in flaky.bodies}) == 1
    (event,) = stored(fanfare, event_type)
    assert (event.id, event.key) == (published.id, flaky.bodies[0]["id"])


def test_the_error_of_a_publish_has_the_id_for_the_next_try(
    driver: Driver, settings: Settings, fanfare: Fanfare, flaky: Proxy, event_type: str
) -> None:
    flaky.faults = ["drop"]
    client = driver.client(flaky.url, settings.key, retries=0)
    with pytest.raises(FanfareError) as caught:
        driver.run(client.publish(event_type, {"order": 1001}))
    error = caught.value
    assert (error.code, error.status, error.id) == ("connection_failed", None, flaky.bodies[0]["id"])
    published = driver.run(client.publish(event_type, {"order": 1001}, id=error.id))
    assert len(flaky.bodies) == 2
    (event,) = stored(fanfare, event_type)
    assert event.id == published.id


def test_retry_after_is_a_lower_bound(driver: Driver, settings: Settings, flaky: Proxy, event_type: str) -> None:
    flaky.faults = ["echo"]
    flaky.errors = [(429, {"code": "too_many_events", "retry-after": "2"})]
    client = driver.client(flaky.url, settings.key)
    driver.run(client.publish(event_type, {}))
    first, second = flaky.times
    assert 2 <= second - first < 4


def test_a_wait_beyond_the_timeout_ends_the_call_at_once(
    driver: Driver, settings: Settings, flaky: Proxy, event_type: str
) -> None:
    flaky.faults = ["echo"]
    flaky.errors = [(503, {"code": "broker_unavailable", "retry-after": "60"})]
    start = time.monotonic()
    with pytest.raises(FanfareError) as caught:
        driver.run(driver.client(flaky.url, settings.key, timeout=5).publish(event_type, {}))
    assert (caught.value.code, caught.value.retry_after) == ("broker_unavailable", 60)
    assert time.monotonic() - start < 3 and len(flaky.bodies) == 1


def test_the_timeout_bounds_all_tries(driver: Driver, settings: Settings, flaky: Proxy, event_type: str) -> None:
    flaky.faults = ["html", "stall", "stall", "stall"]
    start = time.monotonic()
    with pytest.raises(FanfareError) as caught:
        driver.run(driver.client(flaky.url, settings.key, timeout=3, retries=100).publish(event_type, {}))
    assert caught.value.code == "timed_out"
    assert 2 < time.monotonic() - start < 4


def test_retries_end(driver: Driver, settings: Settings, flaky: Proxy, event_type: str) -> None:
    flaky.faults = ["html"] * 9
    with pytest.raises(FanfareError) as caught:
        driver.run(driver.client(flaky.url, settings.key, retries=2).publish(event_type, {}))
    assert (caught.value.status, caught.value.code) == (502, "unexpected_answer")
    assert len(flaky.bodies) == 3


def test_a_refused_event_is_sent_once(driver: Driver, settings: Settings, flaky: Proxy) -> None:
    with pytest.raises(FanfareError) as caught:
        driver.run(driver.client(flaky.url, settings.key).publish("not a type", {}))
    assert (caught.value.status, caught.value.code, caught.value.field) == (422, "invalid_field", "type")
    assert len(flaky.bodies) == 1


@pytest.mark.parametrize("fault", ["drop", "lose", "partial"])
def test_a_batch_with_lost_answers(
    driver: Driver, settings: Settings, fanfare: Fanfare, flaky: Proxy, event_type: str, fault: str
) -> None:
    flaky.faults = [fault]
    events = [models.NewEvent(type=event_type, data={"order": number}) for number in range(3)]
    results = driver.run(driver.client(flaky.url, settings.key).publish_batch(events))
    assert [result.success for result in results] == [True] * 3
    first, second = flaky.bodies
    assert second == (first[1:] if fault == "partial" else first)
    listed = stored(fanfare, event_type, 3)
    assert {event.id for event in listed} == {result.data.id for result in results if result.data}
    assert {event.key for event in listed} == {event["id"] for event in first}


def test_each_result_of_a_batch_has_its_own_error(
    driver: Driver, settings: Settings, flaky: Proxy, event_type: str
) -> None:
    events = [models.NewEvent(type=event_type, data={}), models.NewEvent(type="not a type", data={}, id="wrong")]
    good, bad = driver.run(driver.client(flaky.url, settings.key).publish_batch(events))
    assert good.success and good.data is not None
    assert not bad.success and bad.error is not None
    assert (bad.error.code, bad.error.field, bad.error.id) == ("invalid_field", "type", "wrong")
    assert len(flaky.bodies) == 1


def test_data_that_json_cannot_carry_are_refused(fanfare: Fanfare, event_type: str) -> None:
    for data in (float("nan"), {"rate": float("inf")}, "\ud800"):
        with pytest.raises(ValueError):
            fanfare.publish(event_type, data)
        with pytest.raises(ValueError):
            fanfare.publish_batch([models.NewEvent(type=event_type, data=data)])


def test_a_webhook_is_not_created_twice(driver: Driver, settings: Settings, fanfare: Fanfare, flaky: Proxy) -> None:
    url = f"http://127.0.0.1:9000/{uuid.uuid4().hex}"
    client = driver.client(flaky.url, settings.key)
    flaky.faults = ["drop"]
    with pytest.raises(FanfareError) as caught:
        driver.run(client.webhooks.create(models.NewWebhook(url=url, events=["sdk.none"])))
    assert caught.value.code == "connection_failed"
    (webhook,) = fanfare.webhooks.list(contains=url)
    fanfare.webhooks.delete(webhook.id)


def test_a_webhook_refused_by_a_limit_is_created_later(
    driver: Driver, settings: Settings, fanfare: Fanfare, flaky: Proxy
) -> None:
    flaky.faults = ["echo"]
    flaky.errors = [(429, {"code": "too_many_requests", "retry-after": "1"})]
    new = models.NewWebhook(url="http://127.0.0.1:9000/", events=["sdk.none"])
    webhook = driver.run(driver.client(flaky.url, settings.key).webhooks.create(new))
    assert len(flaky.bodies) == 2
    fanfare.webhooks.delete(webhook.id)


def test_a_get_is_repeated(driver: Driver, settings: Settings, flaky: Proxy) -> None:
    flaky.faults = ["drop", "echo", "html"]
    flaky.errors = [(408, {"code": "body_too_slow"})]
    client = driver.client(flaky.url, settings.key)
    assert driver.items(client.event_types.list(limit=100)) != []
    assert len(flaky.bodies) >= 4
