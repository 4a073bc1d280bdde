"""Publishes an event to Fanfare with aio-pika, and waits for the confirm."""

import asyncio
import json
import os
import sys
import time

import aio_pika

TRY_TIMEOUT = 10
MAX_BACKOFF = 10

try:
    broker, exchange_name, application = (os.environ[name] for name in ("BROKER", "EXCHANGE", "APPLICATION"))
    event_type, event_id, data = sys.argv[1:]
    body = json.dumps({"data": json.loads(data)}).encode()
    give_up_after = float(os.environ.get("GIVE_UP_AFTER", 60))
except (KeyError, ValueError) as error:
    print(repr(error), file=sys.stderr)
    usage = "<type> <id> <data as JSON>, with BROKER, EXCHANGE and APPLICATION set"
    print(f"usage: python aio_pika_publish.py {usage}", file=sys.stderr)
    sys.exit(2)


async def publish_once():
    """Connects, publishes and waits for the confirm. A service keeps connection and channel for further events."""
    async with await aio_pika.connect(broker) as connection:
        channel = await connection.channel(publisher_confirms=True)
        # Without a declaration: Fanfare has declared the exchange.
        exchange = await channel.get_exchange(exchange_name, ensure=False)
        message = aio_pika.Message(
            body,
            message_id=event_id,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            content_type="application/json",
        )
        # Returns after the confirm. Raises after a nack, and when channel or connection end.
        await exchange.publish(message, f"{application}.{event_type}", mandatory=False)


async def main():
    deadline = time.monotonic() + give_up_after
    backoff = 0.5
    while True:
        try:
            await asyncio.wait_for(publish_once(), TRY_TIMEOUT)
            break
        except Exception as error:
            late = isinstance(error, asyncio.TimeoutError)
            reason = f"no confirm within {TRY_TIMEOUT} s" if late else repr(error)
            if time.monotonic() + backoff >= deadline:
                sys.exit(f"{event_id} is not confirmed: {reason}. Publish again later, under the same id.")
            print(f"{reason}; next try in {backoff} s", file=sys.stderr)
        # The same id again: Fanfare recognises an event that did arrive.
        await asyncio.sleep(backoff)
        backoff = min(2 * backoff, MAX_BACKOFF)
    print("confirmed", event_id)


asyncio.run(main())
