"""Verification of real deliveries by the key set of an application."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook

from fanfare_sdk import Dialect, Fanfare, KeySet, SignatureError, StaleKeysError, key_set, models, verify, verify_asymmetric
from fanfare_sdk.receiving import decode_base64

from .conftest import Settings
from .servers import Delivery, Receiver

FOREIGN = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}, {"kty": "RSA"}]}


@pytest.fixture
def url(settings: Settings) -> str:
    return f"{settings.api}/applications/{settings.application}/jwks.json"


@pytest.fixture
def dialect(fanfare: Fanfare, settings: Settings) -> Dialect:
    answer = httpx.get(
        f"{settings.api}/applications/{settings.application}", headers={"authorization": f"Bearer {settings.key}"}
    )
    return answer.json()["data"]["dialect"]  # type: ignore[no-any-return]


@pytest.fixture
def delivered(fanfare: Fanfare, hooks: Receiver, url: str) -> tuple[str, str, Delivery]:
    """Id, secret and request of a delivery to a webhook with asymmetric signatures."""
    event_type = f"sdk.{uuid.uuid4().hex}"
    webhook = fanfare.webhooks.create(models.NewWebhook(url=hooks.url, events=[event_type], asymmetric=True))
    published = fanfare.publish(event_type, {"text": "Zoë"})
    delivery = hooks.next()
    fanfare.webhooks.delete(webhook.id)
    end = time.monotonic() + 30
    while httpx.get(url).status_code != 200:
        assert time.monotonic() < end, "no key set within 30 s"
        time.sleep(0.05)
    return published.id, webhook.secret or "", delivery


class Counted(httpx.BaseTransport):
    """Counts requests, and answers by a function."""

    def __init__(self, answer: Callable[[int], httpx.Response]) -> None:
        self.count = 0
        self.answer = answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        return self.answer(self.count)


def test_a_delivery_is_verified_by_the_public_keys(
    delivered: tuple[str, str, Delivery], url: str, dialect: Dialect
) -> None:
    id, secret, delivery = delivered
    document = httpx.get(url).json()
    transport = Counted(lambda _: httpx.Response(200, json=document))
    keys = KeySet(url, client=httpx.Client(transport=transport))
    for _ in range(3):
        event = verify_asymmetric(delivery.body, delivery.headers, keys, dialect=dialect)
        assert (event.id, event.data) == (id, {"text": "Zoë"})
    assert transport.count == 1
    real = KeySet(url)
    assert verify_asymmetric(delivery.body, delivery.headers, real, dialect=dialect).id == id
    real.close()
    # The same request verifies by the secret, too, here and with the official library.
    assert verify(delivery.body, delivery.headers, secret, dialect=dialect).id == id
    headers = {name.lower(): value for name, value in delivery.headers.items()}
    Webhook(secret).verify(delivery.body, headers)


def test_a_client_of_key_sets_from_pypi_finds_the_key(delivered: tuple[str, str, Delivery], url: str) -> None:
    _, _, delivery = delivered
    given = {name.lower(): value for name, value in delivery.headers.items()}
    signed = f"{given['webhook-id']}.{given['webhook-timestamp']}.".encode() + delivery.body
    parts = [part[4:] for part in given["webhook-signature"].split(" ") if part.startswith("v1a,")]

    def verifies(key: Ed25519PublicKey, signature: bytes) -> bool:
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    found = jwt.PyJWKClient(url).get_signing_keys()
    assert found and all(key.algorithm_name == "EdDSA" for key in found)
    assert any(verifies(key.key, decode_base64(part) or b"") for key in found for part in parts)


def test_a_changed_request_is_refused(delivered: tuple[str, str, Delivery], url: str, dialect: Dialect) -> None:
    _, _, delivery = delivered
    given = {name.lower(): value for name, value in delivery.headers.items()}
    v1 = " ".join(part for part in given["webhook-signature"].split(" ") if part.startswith("v1,"))
    for body, headers, reason in [
        (delivery.body + b" ", given, "no_signature_matches"),
        (delivery.body, {**given, "webhook-id": "evt_00000000000000000000000000"}, "no_signature_matches"),
        (delivery.body, {**given, "webhook-signature": v1}, "invalid_header"),
    ]:
        with pytest.raises(SignatureError) as caught:
            verify_asymmetric(body, headers, KeySet(url), dialect=dialect)
        assert caught.value.reason == reason


def test_a_foreign_key_set_is_fetched_again_once_a_minute(
    delivered: tuple[str, str, Delivery], url: str, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, delivery = delivered
    right = httpx.get(url).json()
    transport = Counted(lambda count: httpx.Response(200, json=FOREIGN if count == 1 else right))
    keys = KeySet(url, client=httpx.Client(transport=transport))
    with pytest.raises(SignatureError):
        verify_asymmetric(delivery.body, delivery.headers, keys, dialect=dialect)
    for _ in range(4):
        with pytest.raises(StaleKeysError):
            verify_asymmetric(delivery.body, delivery.headers, keys, dialect=dialect)
    assert transport.count == 1
    monkeypatch.setattr(key_set, "REFETCH_AFTER", 0)
    verify_asymmetric(delivery.body, delivery.headers, keys, dialect=dialect)
    assert transport.count == 2


def test_keys_stay_in_use_while_the_address_is_away(
    delivered: tuple[str, str, Delivery], url: str, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, delivery = delivered
    document = httpx.get(url).json()
    transport = Counted(lambda count: httpx.Response(200, json=document) if count == 1 else httpx.Response(503))
    keys = KeySet(url, client=httpx.Client(transport=transport))
    monkeypatch.setattr(key_set, "CACHED", 0)
    monkeypatch.setattr(key_set, "REFETCH_AFTER", 0)
    for _ in range(2):
        verify_asymmetric(delivery.body, delivery.headers, keys, dialect=dialect)
    assert transport.count == 2
    monkeypatch.setattr(key_set, "KEPT", 0)
    monkeypatch.setattr(key_set, "BACK_OFF", 0)
    with pytest.raises(httpx.HTTPStatusError):
        verify_asymmetric(delivery.body, delivery.headers, keys, dialect=dialect)
    empty = KeySet(url, client=httpx.Client(transport=Counted(lambda _: httpx.Response(200, json={}))))
    with pytest.raises(ValueError, match="no key set"):
        verify_asymmetric(delivery.body, delivery.headers, empty, dialect=dialect)


def test_the_recipe_of_the_page_verifies(
    delivered: tuple[str, str, Delivery], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, delivery = delivered
    page = Path(__file__).parents[3] / "signatures.md"
    code = re.search(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert code is not None
    monkeypatch.setenv("KEY_SET", url)
    recipe: dict[str, Any] = {}
    exec(code[1], recipe)
    given = {name.lower(): value for name, value in delivery.headers.items()}
    assert recipe["verifies"](given, delivery.body)
    assert not recipe["verifies"](given, b"{}")
    for name, value in [("webhook-timestamp", "1"), ("webhook-timestamp", "x"), ("webhook-signature", "v1a,a ")]:
        assert not recipe["verifies"]({**given, name: value}, delivery.body)
    assert not recipe["verifies"]({}, delivery.body)
