"""Receivers of all dialects behind an HTTP server on 127.0.0.1. Each receiver verifies deliveries by the platform's
documented procedure and by the official Standard Webhooks library, and checks body and headers.

stdin:  for each receiver a line {"path": "/...", "dialect": name, "secret": text, "format"?: "raw"}
stdout: {"port": number} once the server listens, and {"path"} for each receiver, once ready.
        At the end of stdin, for each path {"path", "verified": requests, "refused": requests, "faults": the first
        faults, "data": for each event the SHA-256 of the data's bytes}

Answers a valid POST with 200, any other with 400, and the body {"faults": [texts]}.
"""

import base64
import hashlib
import hmac
import json
import re
import sys
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook

SHOWN_FAULTS = 5

# The members of each body, in order. None stands for the data.
MEMBERS = {
    "incenta": {"event": "type", "data": None, "timestamp": "milliseconds"},
    "incentable": {"id": "evt", "type": "type", "created_at": "seconds", "data": None},
    "nudj": {"id": "evt", "event": "type", "timestamp": "milliseconds", "data": None},
    "reward": {"id": "we", "type": "type", "time": "milliseconds", "data": None},
    "ploints": {"id": "evt", "type": "type", "timestamp": "seconds", "data": None},
    "standard": {"type": "type", "timestamp": "milliseconds", "data": None},
    "cloudevents": {
        "specversion": "version",
        "id": "evt",
        "source": "source",
        "type": "type",
        "time": "milliseconds",
        "data": None,
    },
    "acme": {
        "meta": {"id": "acme", "kind": "type", "app": "app"},
        "sent": "unix",
        "payload": {"content": None},
    },
}

FORMS = {
    "type": r"[A-Za-z0-9_.:/-]+",
    "milliseconds": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
    "seconds": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "unix": r"\d{10}",
    "version": r"1\.0",
    "source": r"/applications/app_[0-7][0-9a-hjkmnp-tv-z]{25}",
} | {prefix: prefix + r"_[0-7][0-9a-hjkmnp-tv-z]{25}" for prefix in ("evt", "we", "acme", "app")}

HEADERS_OF = {
    "incenta": ["x-webhook-signature"],
    "incentable": ["x-incentable-signature"],
    "nudj": ["x-nudj-signature", "x-nudj-event", "x-nudj-delivery-id"],
    "ploints": ["x-ploints-signature"],
    "acme": ["x-acme-signature", "x-acme-event", "x-acme-attempt"],
}


class Fault(Exception):
    pass


def insist(condition, fault):
    if not condition:
        raise Fault(fault)


def sign(key, message):
    return hmac.new(key, message, hashlib.sha256)


def same(given, expected):
    insist(hmac.compare_digest(given.encode(), expected.encode()), "the signatures differ")


def over_the_body(name):
    """The documented procedure of three platforms: hex digest over the raw body, keyed with the text of the secret."""

    def verify(secret, raw, values, headers):
        same(headers[name], sign(secret.encode(), raw).hexdigest())

    return verify


def nudj(secret, raw, values, headers):
    same(headers["x-nudj-signature"], "sha256=" + sign(secret.encode(), raw).hexdigest())
    insist(headers["x-nudj-event"] == values["type"], "X-Nudj-Event differs from the body's event")
    insist(headers["x-nudj-delivery-id"], "X-Nudj-Delivery-Id is empty")


def acme(secret, raw, values, headers):
    parts = dict(part.split("=", 1) for part in headers["x-acme-signature"].split(","))
    insist(parts["t"] == headers["webhook-timestamp"], "t differs from webhook-timestamp")
    digest = sign(base64.b64decode(secret.removeprefix("whsec_")), parts["t"].encode() + b"." + raw).digest()
    same(parts["v1"], base64.b64encode(digest).decode())
    insist(headers["x-acme-event"] == values["type"], "X-Acme-Event differs from the body's kind")
    insist(re.fullmatch(r"[1-9]\d*", headers["x-acme-attempt"]), "X-Acme-Attempt is no number")


OWN = {
    "incenta": over_the_body("x-webhook-signature"),  # Verifies the raw body, as Fanfare sends Node's text.
    "incentable": over_the_body("x-incentable-signature"),
    "nudj": nudj,
    "ploints": over_the_body("x-ploints-signature"),
    "acme": acme,
}


def read_members(members, body, start, values):
    """Reads an object with exactly these members and no whitespace, from `start` on. Returns the end of the object.
    Stores each value under the name of its form, and the text of the data under "data"."""
    at, opening = start, "{"
    for key, form in members.items():
        name = f"{opening}{json.dumps(key)}:"
        insist(body.startswith(name, at), f"{name} is missing at {at}")
        at, opening = at + len(name), ","
        if isinstance(form, dict):
            at = read_members(form, body, at, values)
            continue
        value, end = json.JSONDecoder().raw_decode(body, at)
        if form is None:
            values["data"] = body[at:end]
        else:
            insist(isinstance(value, int if form == "unix" else str), f"{key} is {value!r}")
            insist(re.fullmatch(FORMS[form], str(value)), f"{key} is {value!r}")
            values[form] = value
        at = end
    insist(body.startswith("}", at), f"text follows the value of {key}")
    return at + 1


def read_body(dialect, raw, headers):
    body, values = raw.decode(), {}
    end = read_members(MEMBERS[dialect], body, 0, values)
    insist(end == len(body), "text follows the body")
    for form in ("milliseconds", "seconds"):
        if form in values:
            datetime.fromisoformat(values[form].replace("Z", "+00:00"))
    for prefix in ("evt", "we", "acme"):
        if prefix in values:
            about = values[prefix].removeprefix(prefix + "_")
            insist(headers["webhook-id"] == "evt_" + about, f"has the id {about}, but webhook-id differs")
    return values


def check_headers(dialect, headers):
    content_type = "application/cloudevents+json; charset=utf-8" if dialect == "cloudevents" else "application/json"
    insist(headers["content-type"] == content_type, "content-type is " + headers["content-type"])
    insist(re.fullmatch(FORMS["evt"], headers["webhook-id"]), "webhook-id is no event id")
    insist(re.fullmatch(r"\d{10}", headers["webhook-timestamp"]), "webhook-timestamp is no time in seconds")
    for other, names in HEADERS_OF.items():
        foreign = [name for name in names if other != dialect and name in headers]
        insist(not foreign, f"{foreign} is a header of {other}")


def examine(receiver, headers, raw):
    """The faults of a delivery, and the values of the body."""
    faults = []

    def attempt(name, check, *arguments):
        try:
            return check(*arguments)
        except Exception as error:
            faults.append(f"{name}: {error!r}" if isinstance(error, KeyError) else f"{name}: {error}")
            return {}

    dialect, secret = receiver["dialect"], receiver["secret"]
    values = attempt("body", read_body, dialect, raw, headers)
    attempt("headers", check_headers, dialect, headers)
    if dialect in OWN:
        attempt("own", OWN[dialect], secret, raw, {"type": None} | values, headers)
    library = secret.encode() if receiver.get("format") == "raw" else secret
    attempt("standard", lambda: Webhook(library).verify(raw, headers))
    return faults, values


receivers = {}
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver = receivers.get(self.path)
        faults, values = examine(receiver, headers, raw) if receiver else ([f"no receiver at {self.path}"], {})
        with lock:
            if receiver and not faults:
                receiver["verified"] += 1
                receiver["data"][headers["webhook-id"]] = hashlib.sha256(values["data"].encode()).hexdigest()
            elif receiver:
                receiver["refused"] += 1
                if len(receiver["faults"]) < SHOWN_FAULTS:
                    receiver["faults"].append(f"{'; '.join(faults)}, of {raw[:2000].decode(errors='replace')}")
        answer = json.dumps({"faults": faults}).encode()
        self.send_response(400 if faults else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def report(what):
    print(json.dumps(what), flush=True)


server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
report({"port": server.server_port})
# `for line in sys.stdin` would read ahead.
for line in iter(sys.stdin.readline, ""):
    receiver = json.loads(line)
    receivers[receiver["path"]] = receiver | {"verified": 0, "refused": 0, "faults": [], "data": {}}
    report({"path": receiver["path"]})
with lock:
    for path, receiver in receivers.items():
        report({"path": path} | {key: receiver[key] for key in ("verified", "refused", "faults", "data")})
