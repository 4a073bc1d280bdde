"""Receives deliveries with FastAPI. Run: WEBHOOK_SECRET=whsec_… uvicorn receive_fastapi:app"""

import os

from fastapi import FastAPI, HTTPException, Request

from fanfare_sdk import ReceivedEvent, SignatureError, verify

app = FastAPI()
secret = os.environ["WEBHOOK_SECRET"]

# A real receiver keeps the events in its database, unique by id: Fanfare may send an event twice.
events: dict[str, ReceivedEvent] = {}


@app.post("/hooks", status_code=204)
async def receive(request: Request) -> None:
    try:
        event = verify(await request.body(), request.headers, secret, dialect="incenta")
    except SignatureError as error:
        raise HTTPException(400, str(error)) from error
    events.setdefault(event.id, event)
