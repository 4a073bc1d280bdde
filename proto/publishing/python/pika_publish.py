"""Publishes an event to Fanfare with pika, and waits for the confirm."""

import contextlib
import json
import os
import sys
import threading
import time

import pika

TRY_TIMEOUT = 10
MAX_BACKOFF = 10

try:
    broker, exchange, application = (os.environ[name] for name in ("BROKER", "EXCHANGE", "APPLICATION"))
    event_type, event_id, data = sys.argv[1:]
    body = json.dumps({"data": json.loads(data)}).encode()
    give_up_after = float(os.environ.get("GIVE_UP_AFTER", 60))
except (KeyError, ValueError) as error:
    print(repr(error), file=sys.stderr)
    usage = "<type> <id> <data as JSON>, with BROKER, EXCHANGE and APPLICATION set"
    print(f"usage: python pika_publish.py {usage}", file=sys.stderr)
    sys.exit(2)

parameters = pika.URLParameters(broker)
parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = TRY_TIMEOUT


def publish_once():
    """Connects, publishes and waits for the confirm. A service keeps connection and channel for further events."""
    connection = pika.BlockingConnection(parameters)
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties(
            message_id=event_id,
            delivery_mode=pika.DeliveryMode.Persistent,
            content_type="application/json",
        )
        # Returns after the confirm. Raises after a nack, and when channel or connection end.
        channel.basic_publish(exchange, f"{application}.{event_type}", body, properties)
    finally:
        with contextlib.suppress(pika.exceptions.AMQPError):
            connection.close()


def publish_in_time():
    """Bounds a try: pika itself waits for a confirm without a limit. A late thread ends by itself."""
    outcome = [TimeoutError(f"no confirm within {TRY_TIMEOUT} s")]

    def run():
        try:
            publish_once()
            outcome[0] = None
        except Exception as error:
            outcome[0] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TRY_TIMEOUT)
    if outcome[0]:
        raise outcome[0]


deadline = time.monotonic() + give_up_after
backoff = 0.5
while True:
    try:
        publish_in_time()
        break
    except Exception as error:
        if time.monotonic() + backoff >= deadline:
            sys.exit(f"{event_id} is not confirmed: {error!r}. Publish again later, under the same id.")
        print(f"{error!r}; next try in {backoff} s", file=sys.stderr)
    # The same id again: Fanfare recognises an event that did arrive.
    time.sleep(backoff)
    backoff = min(2 * backoff, MAX_BACKOFF)
print("confirmed", event_id)
