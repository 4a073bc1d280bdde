"""Errors of requests to Fanfare."""

from __future__ import annotations


class FanfareError(Exception):
    """A request without a successful answer.

    `code` is a code of the API, or a code of this package:
    - `connection_failed`: no connection, or the connection ended before the answer.
    - `timed_out`: no answer within the timeout.
    - `unexpected_answer`: the answer is not an answer of Fanfare, or has another form than documented.

    `status` is `None` without an answer. `id` is the id under which to publish the event again. `retry_after` is the
    wait before a next request, in seconds, if the answer has a wait.
    """

    def __init__(
        self,
        method: str,
        path: str,
        status: int | None,
        code: str,
        message: str,
        field: str | None = None,
        id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        answer = code if status is None else f"{status} {code}"
        place = "" if field is None else f" (field `{field}`)"
        super().__init__(f"{method} {path}: {answer}: {message}{place}")
        self.method = method
        self.path = path
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.id = id
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[FanfareError], tuple[object, ...]]:
        """Allows pickle, which task queues use."""
        return type(self), (
            self.method,
            self.path,
            self.status,
            self.code,
            self.message,
            self.field,
            self.id,
            self.retry_after,
        )
