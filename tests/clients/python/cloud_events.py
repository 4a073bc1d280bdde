"""CloudEvents with the official SDK: published over HTTP and AMQP, and read from deliveries.

argv:   <events URL> <key> <amqp url> <exchange> <application>
stdin:  lines of one of the forms
        {"publish": event, "over": "http", "mode": "structured" | "binary"}
        {"publish": [event, ...], "over": "http", "mode": "batch"}
        {"publish": event, "over": "rabbitmq" | "amqp", "mode": "structured" | "binary"}
        {"read": {"secret", "headers", "body": base64}}
stdout: for each line, in order, {"status", "body"} of the answer, {"confirmed": true}, or the event in the JSON format

An event is an object with attributes and data. `rabbitmq` and `amqp` are bindings of the SDK: both send over AMQP 0-9-1,
with other names of headers.
"""

import base64
import json
import sys
import urllib.error
import urllib.request
from datetime import datetime

import pika
from cloudevents.core.bindings import amqp, http, rabbitmq
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from standardwebhooks import Webhook

if len(sys.argv) != 6:
    sys.exit("usage: cloud_events.py <events URL> <key> <amqp url> <exchange> <application>")
url, key, broker, exchange, application = sys.argv[1:]


def event_of(members):
    attributes = dict(members)
    data = attributes.pop("data", None)
    if "time" in attributes:
        attributes["time"] = datetime.fromisoformat(attributes["time"].replace("Z", "+00:00"))
    return CloudEvent(attributes, data)


def post(path, headers, body):
    request = urllib.request.Request(url + path, body, {**headers, "authorization": f"Bearer {key}"}, method="POST")
    try:
        with urllib.request.urlopen(request) as answer:
            return {"status": answer.status, "body": json.load(answer)}
    except urllib.error.HTTPError as answer:
        return {"status": answer.code, "body": json.load(answer)}


def over_http(publish, mode):
    if mode == "batch":
        events = [json.loads(JSONFormat().write(event_of(event))) for event in publish]
        return post("/batch", {"content-type": "application/cloudevents-batch+json"}, json.dumps(events).encode())
    to_message = http.to_binary_event if mode == "binary" else http.to_structured_event
    message = to_message(event_of(publish))
    return post("", message.headers, message.body)


def over_rabbitmq(publish, mode):
    to_message = rabbitmq.to_binary_event if mode == "binary" else rabbitmq.to_structured_event
    message = to_message(event_of(publish))
    return send(publish["type"], message.headers, message.content_type, message.body)


def over_amqp(publish, mode):
    to_message = amqp.to_binary_event if mode == "binary" else amqp.to_structured_event
    message = to_message(event_of(publish))
    content_type = message.properties["content-type"]
    return send(publish["type"], message.application_properties, content_type, message.application_data)


def send(event_type, headers, content_type, body):
    connection = pika.BlockingConnection(pika.URLParameters(broker))
    channel = connection.channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2, content_type=content_type, headers=headers)
    channel.basic_publish(exchange, f"{application}.{event_type}", body, properties)
    connection.close()
    return {"confirmed": True}


def read(secret, headers, body):
    raw = base64.b64decode(body)
    Webhook(secret).verify(raw, headers)
    event = http.from_structured_event(http.HTTPMessage(headers=headers, body=raw))
    return json.loads(JSONFormat().write(event))


OVER = {"http": over_http, "amqp": over_amqp, "rabbitmq": over_rabbitmq}

for line in sys.stdin:
    command = json.loads(line)
    if "read" in command:
        answer = read(**command["read"])
    else:
        answer = OVER[command.pop("over")](**command)
    print(json.dumps(answer), flush=True)
