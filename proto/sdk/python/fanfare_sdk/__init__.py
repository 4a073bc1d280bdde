"""Client of Fanfare: publish events, manage webhooks, verify deliveries."""

from . import models
from ._operations import Page
from ._transport import AsyncPages, Pages
from .client import AsyncFanfare, Fanfare
from .errors import FanfareError
from .key_set import KeySet, StaleKeysError, verify_asymmetric
from .receiving import Dialect, ReceivedEvent, SignatureError, digest_of, verify

__all__ = [
    "AsyncFanfare",
    "AsyncPages",
    "Dialect",
    "Fanfare",
    "FanfareError",
    "KeySet",
    "Page",
    "Pages",
    "ReceivedEvent",
    "SignatureError",
    "StaleKeysError",
    "digest_of",
    "models",
    "verify",
    "verify_asymmetric",
]
