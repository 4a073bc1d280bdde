"""The examples receive real deliveries."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from fanfare_sdk import Fanfare, models

from .servers import until

EXAMPLES = Path(__file__).parent.parent / "examples"

FASTAPI = ["-m", "uvicorn", "receive_fastapi:app", "--log-level", "warning", "--port"]
DJANGO = [
    "-c",
    "import sys; from wsgiref.simple_server import make_server; import receive_django as example; "
    "make_server('127.0.0.1', int(sys.argv[1]), example.get_wsgi_application()).serve_forever()",
]


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(command: list[str], port: int, secret: str) -> Iterator[None]:
    environment = os.environ | {"WEBHOOK_SECRET": secret, "PYTHONPATH": str(EXAMPLES)}
    process = subprocess.Popen([sys.executable, *command, str(port)], cwd=EXAMPLES, env=environment)
    try:
        until(lambda: process.poll() is not None or listens(port), "the example listens")
        assert process.poll() is None, "the example has ended"
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.mark.parametrize("command", [FASTAPI, DJANGO], ids=["fastapi", "django"])
def test_an_example_accepts_deliveries_and_refuses_others(
    command: list[str], fanfare: Fanfare, webhook: Callable[[str], models.Webhook], event_type: str
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/hooks"
    made = webhook(url)
    assert made.secret is not None
    with running(command, port, made.secret):
        event = fanfare.publish(event_type, {"order": 1001, "name": "Zoë"}, id=str(uuid.uuid4()))
        (delivery,) = until(
            lambda: list(fanfare.deliveries.list(webhook=made.id, state="delivered")), "the example accepts the event"
        )
        (attempt,) = fanfare.deliveries.get(delivery.id).attempts
        assert attempt.status == 204
        refused = httpx.post(url, json={"event": event_type, "data": {}}, headers={"webhook-id": event.id})
        assert refused.status_code == 400 and "webhook-timestamp" in refused.text
        fanfare.webhooks.rotate_secret(made.id, models.SecretRotation(overlap_seconds=0))
        tested = fanfare.webhooks.test(made.id)
        assert tested.response is not None and tested.response.status == 400
        assert "does not match" in tested.response.body
