"""Verification of real deliveries."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone

import pytest

from fanfare_sdk import Dialect, Fanfare, ReceivedEvent, SignatureError, digest_of, models, verify

from .servers import Delivery, Receiver

DIALECTS: list[Dialect] = ["standard", "cloudevents", "incenta", "incentable", "nudj", "reward", "ploints"]
OWN_HEADERS: dict[Dialect, str] = {
    "incenta": "x-webhook-signature",
    "incentable": "x-incentable-signature",
    "nudj": "x-nudj-signature",
    "ploints": "x-ploints-signature",
}
DATA = {"order": 1001, "name": "Zoë", "total": 12.5, "big": 2**53 + 1}


@dataclass
class Subscription:
    """A webhook of an application, and a receiver."""

    dialect: Dialect
    fanfare: Fanfare
    webhook: str
    secret: str
    hooks: Receiver

    def deliver(self) -> Delivery:
        """Publishes an event, and returns the delivery."""
        at = datetime(2026, 6, 18, 12, tzinfo=timezone.utc)
        data = {**DATA, "big": 1} if self.dialect == "incenta" else DATA
        self.fanfare.publish("order.created", data, id=str(uuid.uuid4()), time=at)
        return self.hooks.next()

    def verify(self, delivery: Delivery, *secrets: str) -> ReceivedEvent:
        return verify(delivery.body, delivery.headers, secrets or self.secret, dialect=self.dialect)

    def refuse(self, delivery: Delivery, *secrets: str) -> SignatureError:
        with pytest.raises(SignatureError) as caught:
            self.verify(delivery, *secrets)
        return caught.value


@pytest.fixture
def subscribe(of_dialect: Callable[[Dialect], Fanfare], hooks: Receiver) -> Callable[..., Subscription]:
    def create(dialect: Dialect, secret: str | None = None) -> Subscription:
        fanfare = of_dialect(dialect)
        new = models.NewWebhook(url=hooks.url, events=["*"], secret=secret)
        webhook = fanfare.webhooks.create(new)
        return Subscription(dialect, fanfare, webhook.id, secret or webhook.secret or "", hooks)

    return create


@pytest.fixture(params=DIALECTS)
def subscription(request: pytest.FixtureRequest, subscribe: Callable[..., Subscription]) -> Iterator[Subscription]:
    yield subscribe(request.param)


def changed(delivery: Delivery, **headers: str | None) -> Delivery:
    """A delivery with other headers. `None` removes a header; `_` in a name stands for `-`."""
    new = {name.lower(): value for name, value in delivery.headers.items()}
    for name, value in headers.items():
        new.pop(name.replace("_", "-"), None)
        if value is not None:
            new[name.replace("_", "-")] = value
    return Delivery(new, delivery.body)


def signed_at(delivery: Delivery, secret: str, at: int) -> Delivery:
    """The delivery, with a right `webhook-signature` of another time."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    id = changed(delivery).headers["webhook-id"]
    digest = hmac.new(key, f"{id}.{at}.".encode() + delivery.body, hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(digest).decode()
    return changed(delivery, webhook_timestamp=str(at), webhook_signature=signature)


def test_a_delivery_is_verified(subscription: Subscription) -> None:
    delivery = subscription.deliver()
    event = subscription.verify(delivery)
    assert event.id == changed(delivery).headers["webhook-id"] and event.id.startswith("evt_")
    assert (event.type, event.time) == ("order.created", datetime(2026, 6, 18, 12, tzinfo=timezone.utc))
    assert event.data == {**DATA, "big": 1} if subscription.dialect == "incenta" else DATA
    assert abs(time.time() - event.sent_at.timestamp()) < 60 and event.replay is None


def test_faults_are_named(subscription: Subscription) -> None:
    delivery = subscription.deliver()
    secret, refuse = subscription.secret, subscription.refuse
    now = int(time.time())
    wrong = "whsec_" + base64.b64encode(b"x" * 32).decode()
    own = OWN_HEADERS.get(subscription.dialect)

    assert refuse(delivery, wrong).reason == "no_signature_matches"
    assert refuse(replace(delivery, body=delivery.body.replace(b"1001", b"1002"))).reason == "no_signature_matches"
    parsed = json.dumps(json.loads(delivery.body)).encode()
    assert refuse(replace(delivery, body=parsed)).reason == "no_signature_matches"
    assert refuse(replace(delivery, body=b"\xff" + delivery.body)).reason == "no_signature_matches"
    error = refuse(changed(delivery, webhook_id="evt_other"))
    assert error.reason == "no_signature_matches" and "webhook-id" in str(error)

    assert refuse(changed(delivery, webhook_timestamp=str(now - 1))).reason == "no_signature_matches"
    assert refuse(changed(delivery, webhook_timestamp="yesterday")).reason == "invalid_header"
    assert refuse(signed_at(delivery, secret, now - 310)).reason == "too_old"
    assert refuse(signed_at(delivery, secret, now + 310)).reason == "too_new"
    subscription.verify(signed_at(delivery, secret, now - 200))

    for name in ("webhook-id", "webhook-timestamp", "webhook-signature", *([own] if own else [])):
        error = refuse(changed(delivery, **{name: None}))
        assert error.reason == "missing_header" and name in str(error)
    for malformed in ("nonsense", "v1", "v1,%%%", "v1a,AAAA", "v1,é"):
        assert refuse(changed(delivery, webhook_signature=malformed)).reason == "invalid_header"
    good = changed(delivery).headers["webhook-signature"]
    subscription.verify(changed(delivery, webhook_signature=f"nonsense v1a,AAAA v1,AAAA {good}"))
    if own is not None:
        error = refuse(changed(delivery, **{own: "sha256=é"}))
        assert error.reason == "no_signature_matches" and own in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.reason, str(copy)) == (error.reason, str(error))


def test_a_rotation(subscription: Subscription) -> None:
    old = subscription.secret
    new = subscription.fanfare.webhooks.rotate_secret(subscription.webhook).secret
    during = subscription.deliver()
    assert len(changed(during).headers["webhook-signature"].split(" ")) == 2
    subscription.verify(during, old)
    subscription.verify(during, old, new)
    subscription.verify(during, new, old)
    if subscription.dialect in OWN_HEADERS:
        error = subscription.refuse(during, new)
        assert error.reason == "no_signature_matches" and "previous secret" in str(error)
    else:
        subscription.verify(during, new)
    subscription.fanfare.webhooks.end_rotation(subscription.webhook)
    after = subscription.deliver()
    subscription.verify(after, new)
    assert subscription.refuse(after, old).reason == "no_signature_matches"


@pytest.mark.parametrize(
    "secret", ["not base64 at all!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "abcdefgh", "abcdefghi=="]
)
def test_given_secrets(subscribe: Callable[..., Subscription], secret: str) -> None:
    for dialect in ("standard", "nudj"):
        subscription = subscribe(dialect, secret)
        subscription.verify(subscription.deliver())
        subscription.hooks.deliveries.queue.clear()
        subscription.fanfare.webhooks.delete(subscription.webhook)


def test_another_dialect_is_named(subscribe: Callable[..., Subscription]) -> None:
    incenta = subscribe("incenta")
    delivery = incenta.deliver()
    with pytest.raises(SignatureError, match="standard") as caught:
        verify(delivery.body, delivery.headers, incenta.secret)
    assert caught.value.reason == "unexpected_body"
    with pytest.raises(SignatureError, match="x-nudj-signature") as caught:
        verify(delivery.body, delivery.headers, incenta.secret, dialect="nudj")
    assert caught.value.reason == "missing_header"


def test_a_delivery_of_the_given_application(
    fanfare: Fanfare, hooks: Receiver, webhook: Callable[[str], models.Webhook], event_type: str
) -> None:
    """Needs no admin key: the application has the default dialect."""
    secret = webhook(hooks.url).secret
    assert secret is not None
    published = fanfare.publish(event_type, {"order": 1001})
    delivery = hooks.next()
    event = verify(delivery.body, delivery.headers, secret, dialect="incenta")
    assert (event.id, event.type, event.data) == (published.id, event_type, {"order": 1001})


def test_invalid_arguments_are_refused() -> None:
    for secret in ("", [], ["", "x"]):
        with pytest.raises(ValueError, match="secret"):
            verify(b"{}", {}, secret)
    with pytest.raises(ValueError, match="dialect"):
        verify(b"{}", {}, "secret", dialect="other")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="received bytes"):
        verify("{}", {}, "secret")  # type: ignore[arg-type]


def test_a_digest_hashes_sorted_lines() -> None:
    first, second = "evt_01h455vb4pex5vsknk084sn02q", "evt_01h455vb4pex5vsknk084sn02r"
    expected = "e3d7994ad3870edd3693e956cdf118ea785a9a4002642477103be320bfe32017"
    assert digest_of([second, first, second]) == digest_of({first, second}) == expected
    assert digest_of([]) == hashlib.sha256().hexdigest()
