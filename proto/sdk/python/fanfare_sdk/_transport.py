"""Transports of operations: `Runner` blocks, `AsyncRunner` awaits."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import httpx

from ._exchange import PREFIX, Answer, Core, NoAnswer, Reply, Send, Step, Steps
from ._operations import Page, PageSource

P = ParamSpec("P")
T = TypeVar("T")

# Failures before the request was sent.
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class Address:
    """URL and key of a Fanfare. The key appears in no message."""

    def __init__(self, url: str, key: str) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"url is no URL: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
            raise ValueError("url must be the base URL of Fanfare, such as https://fanfare.example.com")
        if parsed.userinfo:
            raise ValueError("url must not contain a user or a password: Fanfare takes the key alone")
        if not key or not all("!" <= character <= "~" for character in key):
            raise ValueError("key must be an API key: visible ASCII without spaces or line breaks")
        self.base = str(parsed).rstrip("/").removesuffix(PREFIX) + PREFIX
        self.headers = {
            "authorization": f"Bearer {key}",
            "accept": "application/json",
            "user-agent": "fanfare-sdk-python",
        }

    def arguments(self, step: Send) -> dict[str, Any]:
        """The arguments of httpx for a try. A redirect is not followed, because the key is for Fanfare alone."""
        request = step.request
        content_type = {} if request.body is None else {"content-type": "application/json"}
        return {
            "method": request.method,
            "url": self.base + request.path,
            "params": dict(request.query),
            "content": request.body,
            "headers": self.headers | content_type,
            "timeout": step.timeout,
            "follow_redirects": False,
        }


def no_answer(error: httpx.RequestError) -> NoAnswer:
    sent = not isinstance(error, UNSENT)
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException):
        return NoAnswer("timed_out", f"no answer in time ({reason}): check Fanfare, or raise the timeout", sent)
    return NoAnswer("connection_failed", f"{reason}: check the URL, the network and Fanfare", sent)


def too_late() -> NoAnswer:
    return NoAnswer("timed_out", "the answer took too long: check the network, or raise the timeout", sent=True)


def answer_of(response: httpx.Response, chunks: list[bytes]) -> Answer:
    return Answer(response.status_code, response.headers, b"".join(chunks))


# --- blocking -----------------------------------------------------------------


class Runner:
    """Performs operations with `httpx.Client`."""

    def __init__(self, core: Core, address: Address, http: httpx.Client) -> None:
        self._core = core
        self._address = address
        self._http = http

    def _run(self, steps: Steps[T]) -> T:
        reply: Reply = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result
            reply = self._perform(step)

    def _perform(self, step: Step) -> Reply:
        if not isinstance(step, Send):
            time.sleep(step.seconds)
            return None
        try:
            with self._http.stream(**self._address.arguments(step)) as response:
                chunks: list[bytes] = []
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    if time.monotonic() > step.deadline:
                        return too_late()
                return answer_of(response, chunks)
        except httpx.RequestError as error:
            return no_answer(error)


class Pages(Generic[T]):
    """The items of a list, page by page as the iteration goes on. Each iteration starts anew."""

    def __init__(self, runner: Runner, source: PageSource[T]) -> None:
        self._runner = runner
        self._source = source

    def __iter__(self) -> Iterator[T]:
        for page in self.by_page():
            yield from page.data

    def by_page(self) -> Iterator[Page[T]]:
        page = self._runner._run(self._source(None))
        yield page
        while page.next is not None:
            page = self._runner._run(self._source(page.next))
            yield page


# --- awaiting -----------------------------------------------------------------


class AsyncRunner:
    """Performs operations with `httpx.AsyncClient`."""

    def __init__(self, core: Core, address: Address, http: httpx.AsyncClient) -> None:
        self._core = core
        self._address = address
        self._http = http

    async def _run(self, steps: Steps[T]) -> T:
        reply: Reply = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result
            reply = await self._perform(step)

    async def _perform(self, step: Step) -> Reply:
        if not isinstance(step, Send):
            await asyncio.sleep(step.seconds)
            return None
        try:
            async with self._http.stream(**self._address.arguments(step)) as response:
                chunks: list[bytes] = []
                async for chunk in response.aiter_bytes():
                    chunks.append(chunk)
                    if time.monotonic() > step.deadline:
                        return too_late()
                return answer_of(response, chunks)
        except httpx.RequestError as error:
            return no_answer(error)


class AsyncPages(Generic[T]):
    """The items of a list, page by page as the iteration goes on. Each iteration starts anew."""

    def __init__(self, runner: AsyncRunner, source: PageSource[T]) -> None:
        self._runner = runner
        self._source = source

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.by_page():
            for item in page.data:
                yield item

    async def by_page(self) -> AsyncIterator[Page[T]]:
        page = await self._runner._run(self._source(None))
        yield page
        while page.next is not None:
            page = await self._runner._run(self._source(page.next))
            yield page


# --- operations as methods ----------------------------------------------------


def describe(method: Callable[P, T], operation: Callable[..., Any]) -> Callable[P, T]:
    """Gives a method the name, docstring and signature of an operation, for `help`."""
    signature = inspect.signature(operation)
    method.__name__ = operation.__name__
    method.__doc__ = operation.__doc__
    parameters = list(signature.parameters.values())[1:]
    setattr(method, "__signature__", signature.replace(parameters=parameters))
    return method


class method(Generic[P, T]):
    """An operation as a blocking method."""

    def __init__(self, operation: Callable[Concatenate[Core, P], Steps[T]]) -> None:
        self.operation = operation

    def __get__(self, runner: Runner, owner: type[Runner]) -> Callable[P, T]:
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            return runner._run(self.operation(runner._core, *args, **kwargs))

        return describe(run, self.operation)


class paged(Generic[P, T]):
    """A list as a method that returns an iterable."""

    def __init__(self, operation: Callable[Concatenate[Core, P], PageSource[T]]) -> None:
        self.operation = operation

    def __get__(self, runner: Runner, owner: type[Runner]) -> Callable[P, Pages[T]]:
        def run(*args: P.args, **kwargs: P.kwargs) -> Pages[T]:
            return Pages(runner, self.operation(runner._core, *args, **kwargs))

        return describe(run, self.operation)


class async_method(Generic[P, T]):
    """An operation as an awaitable method."""

    def __init__(self, operation: Callable[Concatenate[Core, P], Steps[T]]) -> None:
        self.operation = operation

    def __get__(self, runner: AsyncRunner, owner: type[AsyncRunner]) -> Callable[P, Coroutine[Any, Any, T]]:
        def run(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
            return runner._run(self.operation(runner._core, *args, **kwargs))

        return describe(run, self.operation)


class async_paged(Generic[P, T]):
    """A list as a method that returns an asynchronous iterable."""

    def __init__(self, operation: Callable[Concatenate[Core, P], PageSource[T]]) -> None:
        self.operation = operation

    def __get__(self, runner: AsyncRunner, owner: type[AsyncRunner]) -> Callable[P, AsyncPages[T]]:
        def run(*args: P.args, **kwargs: P.kwargs) -> AsyncPages[T]:
            return AsyncPages(runner, self.operation(runner._core, *args, **kwargs))

        return describe(run, self.operation)
