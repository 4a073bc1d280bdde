"""Client of Fanfare: publish events, manage webhooks, verify deliveries."""

from . import models
from ._operations import Page
from ._transport import AsyncPages, Pages
from .client import AsyncFanfare, Fanfare
from .errors import FanfareError
from .receiving import Dialect, ReceivedEvent, SignatureError, digest_of, verify

__all__ = [
    "AsyncFanfare",
    "AsyncPages",
    "Dialect",
    "Fanfare",
    "FanfareError",
    "Page",
    "Pages",
    "ReceivedEvent",
    "SignatureError",
    "digest_of",
    "models",
    "verify",
]
