"""Requests and retries without I/O.

An operation is a generator of steps. A transport performs each step and sends the reply back into the generator. The
result of the operation is the generator's return value.
"""

from __future__ import annotations

import email.utils
import json
import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, TypeAdapter

from .errors import FanfareError

T = TypeVar("T")

PREFIX = "/api/v1"

# Keeps NaN and Infinity, which `body_of` refuses. The default would send `null` instead.
ANY: TypeAdapter[Any] = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="constants"))

# Longest wait of a repeatable request for the next bytes, in seconds. A stalled try leaves time for the next try.
TRY_TIMEOUT = 10.0
FIRST_WAIT = 0.5
LONGEST_WAIT = 8.0

REPEATABLE_STATUSES = {408, 429, 502, 503, 504}


@dataclass(frozen=True)
class Request:
    """A request below `/api/v1`. `repeatable`: a second execution has the effect of a single execution."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    repeatable: bool = False
    event_id: str | None = None
    # Shortest limit of the whole call, in seconds, for answers that take long by nature.
    least_timeout: float = 0.0
    # Longest wait for the peer in a try, in seconds.
    try_timeout: float = TRY_TIMEOUT


@dataclass(frozen=True)
class Send:
    """A try. `timeout` limits each wait for the peer, in seconds; `deadline` is a time of `time.monotonic`."""

    request: Request
    timeout: float
    deadline: float


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class NoAnswer:
    """A try without a whole answer. `sent` is false if the request certainly did not reach the server."""

    code: str
    message: str
    sent: bool


Step = Send | Wait
Reply = Answer | NoAnswer | None
Steps = Generator[Step, Reply, T]


class Tries:
    """The tries of a call: number and deadline."""

    def __init__(self, retries: int, timeout: float) -> None:
        self.left = retries
        self.deadline = time.monotonic() + timeout
        self.backoff = FIRST_WAIT

    def remaining(self) -> float:
        return self.deadline - time.monotonic()

    def next_wait(self, retry_after: float | None) -> float | None:
        """The wait before the next try in seconds, or `None` if the call must end.

        `Retry-After` is a lower bound. A random part keeps clients apart that failed together.
        """
        wait = random.uniform(self.backoff / 2, self.backoff) + (retry_after or 0.0)
        if self.left <= 0 or wait >= self.remaining():
            return None
        self.left -= 1
        self.backoff = min(2 * self.backoff, LONGEST_WAIT)
        return wait


class Core:
    """Settings of a client, and the exchange of a request for an answer."""

    def __init__(self, application: str | None, retries: int, timeout: float) -> None:
        if retries < 0:
            raise ValueError(f"retries must be 0 or more, not {retries}")
        if timeout <= 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout}")
        self.application = application
        self.retries = retries
        self.timeout = timeout

    def tries(self, least_timeout: float = 0.0) -> Tries:
        return Tries(self.retries, max(self.timeout, least_timeout))

    def exchange(self, request: Request, tries: Tries | None = None) -> Steps[Answer]:
        """Sends the request until an answer is successful, or until no further try is permitted."""
        if self.application is not None:
            request = replace(request, query={**request.query, "application": self.application})
        tries = tries or self.tries(request.least_timeout)
        while True:
            remaining = max(tries.remaining(), 0.001)
            limit = min(remaining, request.try_timeout) if request.repeatable else remaining
            reply = yield Send(request, limit, tries.deadline)
            if isinstance(reply, Answer) and 200 <= reply.status < 300:
                return reply
            error = error_of(request, reply)
            wait = tries.next_wait(error.retry_after) if may_repeat(request, reply, error) else None
            if wait is None:
                raise error
            yield Wait(wait)


def may_repeat(request: Request, reply: Reply, error: FanfareError) -> bool:
    if isinstance(reply, NoAnswer):
        return request.repeatable or not reply.sent
    if error.status == 429 or error.code == "overloaded":
        # Fanfare has refused the request before any effect.
        return True
    return request.repeatable and error.status in REPEATABLE_STATUSES


def error_of(request: Request, reply: Reply) -> FanfareError:
    path = PREFIX + request.path
    if isinstance(reply, Answer):
        retry_after = seconds_until(reply.headers.get("retry-after"))
        try:
            error = json.loads(reply.body)["error"]
            code, message = str(error["code"]), str(error["message"])
        except (ValueError, TypeError, KeyError):
            return FanfareError(
                request.method,
                path,
                reply.status,
                "unexpected_answer",
                "the answer is not an answer of Fanfare: check the URL, and proxies before Fanfare",
                id=request.event_id,
                retry_after=retry_after,
            )
        id = request.event_id or error.get("id")
        return FanfareError(request.method, path, reply.status, code, message, error.get("field"), id, retry_after)
    if isinstance(reply, NoAnswer):
        return FanfareError(request.method, path, None, reply.code, reply.message, id=request.event_id)
    raise TypeError("a transport must reply to Send with Answer or NoAnswer")


def seconds_until(retry_after: str | None) -> float | None:
    """Reads `Retry-After`: seconds, or a date of HTTP."""
    if retry_after is None:
        return None
    if retry_after.strip().isascii() and retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None


def path_of(*segments: str) -> str:
    for segment in segments:
        if segment in ("", ".", ".."):
            raise ValueError(f"an id or a name in the path must not be {segment!r}")
    return "".join("/" + quote(segment, safe="") for segment in segments)


def encode(model: BaseModel) -> dict[str, Any]:
    """The fields of a body that the caller has set. A field set to `None` becomes `null`."""
    given = type(model).model_fields.keys() & model.model_fields_set
    return {name: ANY.dump_python(getattr(model, name), mode="json") for name in sorted(given)}


def body_of(value: object) -> bytes:
    """Prints JSON. Raises `ValueError` for NaN, Infinity and half surrogate pairs, which JSON cannot carry."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
