"""Servers of the tests, on 127.0.0.1: a receiver of deliveries, and a proxy that loses answers of Fanfare."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

# Longest wait for a condition, in seconds.
PATIENCE = 30.0


def until(condition: Callable[[], T], what: str) -> T:
    """Waits until the condition gives a true value, and returns the value."""
    deadline = time.monotonic() + PATIENCE
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", "0")))

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve(handler: type[Handler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Delivery:
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    url: str
    deliveries: queue.Queue[Delivery]

    def next(self) -> Delivery:
        return self.deliveries.get(timeout=PATIENCE)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver that accepts each delivery."""
    deliveries: queue.Queue[Delivery] = queue.Queue()

    class Accept(Handler):
        def do_POST(self) -> None:
            deliveries.put(Delivery(dict(self.headers.items()), self.body()))
            self.reply(204, {})

    with serve(Accept) as url:
        yield Receiver(url + "/hooks", deliveries)


@dataclass
class Proxy:
    """A proxy before Fanfare.

    Each entry of `faults` is for one request, in order; later requests pass unchanged:
    - `drop`: Fanfare gets the request, and the client gets no answer.
    - `lose`: Fanfare gets the request, and the client gets a 503 with `Retry-After: 1`.
    - `html`: the client gets a page in HTML.
    - `echo`: the client gets the status and the error that `errors` has next, and Fanfare gets nothing.
    - `stall`: the client gets no answer for the time of the test.
    - `partial`: Fanfare gets the first event of a batch, and the other events get `broker_unavailable`.
    """

    url: str = ""
    faults: list[str] = field(default_factory=list)
    errors: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def proxy(api: str) -> Iterator[Proxy]:
    state = Proxy()
    base = api.removesuffix("/api/v1")

    class Forward(Handler):
        def forward(self, body: bytes) -> httpx.Response:
            headers = {name: self.headers[name] for name in ("authorization", "content-type") if name in self.headers}
            return httpx.request(self.command, base + self.path, headers=headers, content=body, timeout=20)

        def handle_request(self) -> None:
            body = self.body()
            state.times.append(time.monotonic())
            state.bodies.append(json.loads(body) if body else None)
            fault = state.faults.pop(0) if state.faults else "pass"
            json_type = {"content-type": "application/json"}
            if fault == "html":
                self.reply(502, {"content-type": "text/html"}, b"<h1>Bad gateway</h1>")
            elif fault == "echo":
                status, headers = state.errors.pop(0)
                error = {"code": headers.pop("code"), "message": "refused by the test"}
                self.reply(status, headers | json_type, json.dumps({"success": False, "error": error}).encode())
            elif fault == "stall":
                state.ended.wait(PATIENCE)
                self.close_connection = True
            elif fault == "partial":
                events = json.loads(body)
                first = self.forward(json.dumps(events[:1]).encode()).json()["data"]
                error = {"code": "broker_unavailable", "message": "refused by the test"}
                results = first + [{"success": False, "error": error} for _ in events[1:]]
                self.reply(207, json_type, json.dumps({"success": False, "data": results}).encode())
            else:
                answer = self.forward(body)
                if fault == "drop":
                    self.close_connection = True
                elif fault == "lose":
                    error = {"code": "outcome_unknown", "message": "lost by the test"}
                    text = json.dumps({"success": False, "error": error}).encode()
                    self.reply(503, {"retry-after": "1"} | json_type, text)
                else:
                    self.reply(answer.status_code, json_type, answer.content)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_request

    with serve(Forward) as url:
        state.url = url
        try:
            yield state
        finally:
            state.ended.set()
