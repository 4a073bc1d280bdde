"""Verification of asymmetric signatures (`v1a`) by the key set of an application, by proto/signatures.md.

Needs the package `cryptography`: install `fanfare-sdk[asymmetric]`.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

from .receiving import FORMS, Dialect, ReceivedEvent, SignatureError, decode_base64, header, read, timestamp

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# The time for which a key set is used, and the least time between two fetches, in seconds.
CACHED = 300
REFETCH_AFTER = 60

# The time for which a key set is used while its address does not answer, in seconds.
KEPT = 3600

# The least time between two fetches without keys to use, in seconds.
BACK_OFF = 10

PREFIX = "v1a,"


class StaleKeysError(Exception):
    """No key matches, and the key set is older than the request: a new key may be missing. Answer with a 503."""


class KeySet:
    """The public keys of an application, fetched from its address and kept for five minutes.

    A request without a right signature makes a new fetch, at most once a minute. While the address does not answer, the
    last keys stay in use for an hour. Threads may share a key set. `close` ends the connection.
    """

    def __init__(self, url: str, *, client: httpx.Client | None = None) -> None:
        load_ed25519()
        self._url = url
        self._client = client or httpx.Client(timeout=10)
        self._owns_client = client is None
        # Guards all members below. No thread holds the lock during a fetch.
        self._changed = threading.Condition()
        self._keys: list[Ed25519PublicKey] = []
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._error: Exception | None = None
        self._is_fetching = False

    def verifies(self, signed: bytes, signatures: list[bytes]) -> bool:
        """True if one of the signatures is right for the text.

        Raises `StaleKeysError` if no key matches and the set could not be fetched again, and `httpx.HTTPError` if no
        keys can be fetched.
        """
        asked_at = time.monotonic()
        for max_age in (CACHED, REFETCH_AFTER):
            keys, fetched_at = self._current(max_age)
            if any_is_right(keys, signed, signatures):
                return True
            if fetched_at is not None and fetched_at >= asked_at:
                return False
        raise StaleKeysError(
            "no key matches, and the key set was not fetched since the request: answer with a 503, so that Fanfare "
            "repeats the delivery"
        )

    def close(self) -> None:
        if self._owns_client:
            self._client.close()

    def _current(self, max_age: float) -> tuple[list[Ed25519PublicKey], float | None]:
        """The keys and the time of their fetch, fetched again if older than `max_age` seconds.

        One thread fetches. Meanwhile the others use the last keys, or wait without keys to use.
        """
        with self._changed:
            age = self._since(self._fetched_at)
            if age >= KEPT and self._is_fetching:
                self._changed.wait_for(lambda: not self._is_fetching)
                age = self._since(self._fetched_at)
            if age < max_age or (age < KEPT and (self._is_fetching or self._since(self._tried_at) < REFETCH_AFTER)):
                return self._keys, self._fetched_at
            if self._error is not None and self._since(self._tried_at) < BACK_OFF:
                raise self._error
            self._is_fetching, self._tried_at = True, time.monotonic()
        return self._fetch(is_past_caches=max_age < CACHED)

    def _fetch(self, *, is_past_caches: bool) -> tuple[list[Ed25519PublicKey], float | None]:
        """Fetches the keys. A set without a match is fetched past the caches."""
        begun_at = time.monotonic()
        keys, error = None, None
        try:
            headers = {"cache-control": "no-cache"} if is_past_caches else {}
            keys = parse(self._client.get(self._url, headers=headers).raise_for_status().json())
        except (httpx.HTTPError, ValueError) as caught:
            error = caught
        finally:
            with self._changed:
                self._is_fetching = False
                self._error = error
                if keys is not None:
                    self._keys, self._fetched_at = keys, begun_at
                self._changed.notify_all()
        with self._changed:
            if error is not None and self._since(self._fetched_at) >= KEPT:
                raise error
            return self._keys, self._fetched_at

    @staticmethod
    def _since(moment: float | None) -> float:
        return float("inf") if moment is None else time.monotonic() - moment


def load_ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise ImportError("KeySet needs the package cryptography: install fanfare-sdk[asymmetric]") from None
    return ed25519


def parse(document: Any) -> list[Ed25519PublicKey]:
    """The Ed25519 keys of a key set. Other keys are left out. Raises `ValueError` for another document."""
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("the address has no key set: check the URL of the application's jwks.json")
    ed25519 = load_ed25519()
    keys = []
    for key in document["keys"]:
        if isinstance(key, dict) and key.get("kty") == "OKP" and key.get("crv") == "Ed25519":
            encoded = str(key.get("x"))
            keys.append(ed25519.Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(encoded + "=")))
    return keys


def any_is_right(keys: list[Ed25519PublicKey], signed: bytes, signatures: list[bytes]) -> bool:
    from cryptography.exceptions import InvalidSignature

    for key in keys:
        for signature in signatures:
            try:
                key.verify(signature, signed)
            except InvalidSignature:
                continue
            return True
    return False


def verify_asymmetric(
    body: bytes, headers: Mapping[str, str], keys: KeySet, *, dialect: Dialect = "standard"
) -> ReceivedEvent:
    """Verifies a delivery by the application's public keys, and returns the event. The receiver needs no secret.

    `body` is the received bytes. The webhook must have `asymmetric`. An asynchronous receiver calls the function in a
    thread: the key set may be fetched.

    Raises `SignatureError`, and `ValueError` for an unknown dialect or a malformed key set. Raises `StaleKeysError` if no
    key matches and the set could not be fetched again, and `httpx.HTTPError` if no keys can be fetched: answer with a 503
    then, so that Fanfare repeats the delivery.
    """
    if not isinstance(body, bytes):
        raise TypeError(f"body must be the received bytes, not {type(body).__name__}")
    if dialect not in FORMS:
        raise ValueError(f"dialect must be one of {', '.join(FORMS)}, not {dialect!r}")
    given = {name.lower(): value for name, value in headers.items()}
    id, sent_at = header(given, "webhook-id"), timestamp(given)
    parts = header(given, "webhook-signature").split(" ")
    decoded = [decode_base64(part.removeprefix(PREFIX)) for part in parts if part.startswith(PREFIX)]
    signatures = [signature for signature in decoded if signature is not None and len(signature) == 64]
    if not signatures:
        raise SignatureError(
            "invalid_header",
            "the header webhook-signature has no signature `v1a,<base64>`: turn on `asymmetric` for the webhook",
        )
    signed = b".".join([id.encode(), given["webhook-timestamp"].encode(), body])
    if not keys.verifies(signed, signatures):
        raise SignatureError(
            "no_signature_matches",
            "no asymmetric signature matches: the key set is of another application, or the body, webhook-id or "
            "webhook-timestamp was changed. Verify the received bytes, before any parser",
        )
    return read(FORMS[dialect], dialect, body, id, sent_at, given.get("fanfare-replay"))
