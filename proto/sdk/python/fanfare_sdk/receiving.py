"""Verification of deliveries, by the contract in proto/receiving.md."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, cast

from standardwebhooks import Webhook, WebhookVerificationError

Dialect = Literal["standard", "cloudevents", "incenta", "incentable", "nudj", "reward", "ploints"]

Reason = Literal[
    "missing_header",
    "invalid_header",
    "too_old",
    "too_new",
    "no_signature_matches",
    "unexpected_body",
]

# The tolerance of Standard Webhooks, in seconds.
TOLERANCE = 300

SECRET_PREFIX = "whsec_"


class SignatureError(Exception):
    """A request that is no delivery of this webhook. `reason` is a code for programs.

    - `missing_header`, `invalid_header`: a header of the signature is missing or malformed.
    - `too_old`, `too_new`: `webhook-timestamp` is further than five minutes from the clock.
    - `no_signature_matches`: the secret is wrong, or body, id or time were changed.
    - `unexpected_body`: a signature matches, but the body has the form of another dialect.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[SignatureError], tuple[object, ...]]:
        """Allows pickle, which task queues use."""
        return type(self), (self.reason, str(self))


@dataclass(frozen=True)
class ReceivedEvent:
    """A verified event.

    A repeat has the same `id`. `time` is the event's time, `sent_at` the time of this attempt. `replay` is the id of
    the replay that sent the delivery, and is not signed.
    """

    id: str
    type: str
    data: Any
    time: datetime
    sent_at: datetime
    replay: str | None


@dataclass(frozen=True)
class Form:
    """A dialect: names of the members for type and time, and the dialect's own header."""

    type: str
    time: str
    header: str | None = None
    value: str = "{}"


FORMS: dict[Dialect, Form] = {
    "standard": Form("type", "timestamp"),
    "cloudevents": Form("type", "time"),
    "incenta": Form("event", "timestamp", "x-webhook-signature"),
    "incentable": Form("type", "created_at", "x-incentable-signature"),
    "nudj": Form("event", "timestamp", "x-nudj-signature", "sha256={}"),
    "reward": Form("type", "time"),
    "ploints": Form("type", "timestamp", "x-ploints-signature"),
}


def verify(
    body: bytes, headers: Mapping[str, str], secret: str | Sequence[str], *, dialect: Dialect = "standard"
) -> ReceivedEvent:
    """Verifies a delivery and returns the event.

    `body` is the received bytes. During a rotation, `secret` is a list of the previous and the new secret. `dialect` is
    the dialect of the application. The dialect's own header signs the body alone. `webhook-signature`, which all
    deliveries have, also signs id and time. Both must match.

    Raises `SignatureError`, and `ValueError` for an empty secret or an unknown dialect.
    """
    if not isinstance(body, bytes):
        raise TypeError(f"body must be the received bytes, not {type(body).__name__}")
    secrets = [secret] if isinstance(secret, str) else list(secret)
    if not secrets or not all(secrets):
        raise ValueError("secret must be the webhook's signing secret, or a list of secrets, none of them empty")
    if dialect not in FORMS:
        raise ValueError(f"dialect must be one of {', '.join(FORMS)}, not {dialect!r}")
    form = FORMS[dialect]
    given = {name.lower(): value for name, value in headers.items()}
    id, sent_at = header(given, "webhook-id"), timestamp(given)
    verify_own(form, body, given, secrets)
    verify_standard(body, given, secrets)
    return read(form, dialect, body, id, sent_at, given.get("fanfare-replay"))


def header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise SignatureError("missing_header", f"the header {name} is missing: Fanfare sends this header always")
    return value


def timestamp(headers: Mapping[str, str]) -> datetime:
    value = header(headers, "webhook-timestamp")
    if not re.fullmatch(r"[0-9]{1,12}", value):
        raise SignatureError("invalid_header", "the header webhook-timestamp is no time in seconds")
    age = time.time() - int(value)
    if age > TOLERANCE:
        raise SignatureError("too_old", f"webhook-timestamp is {age:.0f} s old: at most {TOLERANCE} s are accepted")
    if age < -TOLERANCE:
        fault = f"webhook-timestamp is {-age:.0f} s in the future: at most {TOLERANCE} s are accepted; check the clock"
        raise SignatureError("too_new", fault)
    return datetime.fromtimestamp(int(value), tz=timezone.utc)


def verify_own(form: Form, body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> None:
    """The dialect's own header: hex of HMAC-SHA256 over the body. The key is the secret's whole text."""
    if form.header is None:
        return
    value = header(headers, form.header).encode()
    for secret in secrets:
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        if hmac.compare_digest(value, form.value.format(digest).encode()):
            return
    raise SignatureError(
        "no_signature_matches",
        f"{form.header} does not match: the secret is wrong, or the body was changed. During a rotation, only the "
        "previous secret signs this header",
    )


def digest_of(ids: Iterable[str]) -> str:
    """The hash of a daily digest over the `webhook-id`s of a day, in any order. A repeated id counts once.

    Compare the hash with `hash` of the day in the event `fanfare.digest`.
    """
    digest = hashlib.sha256()
    for id in sorted(set(ids)):
        digest.update(f"{id}\n".encode())
    return digest.hexdigest()


def verify_standard(body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> None:
    # The library raises other errors for malformed signatures, which other versions of the standard may send.
    signatures = [part for part in header(headers, "webhook-signature").split(" ") if is_signature(part)]
    if not signatures:
        raise SignatureError("invalid_header", "the header webhook-signature has no signature `v1,<base64>`")
    signed = {
        "webhook-id": headers["webhook-id"],
        "webhook-timestamp": headers["webhook-timestamp"],
        "webhook-signature": " ".join(signatures),
    }
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise SignatureError("no_signature_matches", "the body is not UTF-8, and thus was changed") from None
    for secret in secrets:
        try:
            Webhook(signing_key(secret)).verify(text, signed, json_parse=False)
            return
        except WebhookVerificationError:
            continue
    raise SignatureError(
        "no_signature_matches",
        "webhook-signature does not match: the secret is wrong, or the body, webhook-id or webhook-timestamp was "
        "changed. Verify the received bytes, before any parser",
    )


def is_signature(part: str) -> bool:
    version, _, encoded = part.partition(",")
    return version == "v1" and bool(decode_base64(encoded))


def signing_key(secret: str) -> bytes:
    """The key of `webhook-signature`: the decoded base64, or else the bytes of the secret."""
    decoded = decode_base64(secret.removeprefix(SECRET_PREFIX))
    return decoded or secret.encode()


def decode_base64(text: str) -> bytes | None:
    """Decodes canonical base64 only, as Fanfare does."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if base64.b64encode(decoded).decode() == text else None


def read(form: Form, dialect: Dialect, body: bytes, id: str, sent_at: datetime, replay: str | None) -> ReceivedEvent:
    try:
        members = cast(Any, json.loads(body))
        type, data, at = members[form.type], members["data"], members[form.time]
        moment = datetime.fromisoformat(at.replace("Z", "+00:00"))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise SignatureError(
            "unexpected_body",
            f"the body has another form than the dialect {dialect}: a body has `{form.type}`, `data` and "
            f"`{form.time}`. Give `verify` the application's dialect",
        ) from None
    return ReceivedEvent(id=id, type=type, data=data, time=moment, sent_at=sent_at, replay=replay)
