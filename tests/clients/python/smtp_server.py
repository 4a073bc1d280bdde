"""An SMTP server (aiosmtpd) on 127.0.0.1. Prints lines of JSON: first {"port": ...}, then {"heard": ...} for whatever is
said to it, and {"mail": ...} for each mail that it takes. Recipients that begin with "refused" do not exist here, and
to those that begin with "denied" it relays nothing. Ends when its standard input does.

Without a certificate it offers no encryption; with one it insists on STARTTLS, or with --tls on TLS from the start.
With a user it insists on that user's password, which it would also hear unencrypted. With --later nobody gets through
to its port before a line comes in.
"""

import argparse
import asyncio
import email
import email.policy
import json
import logging
import socket
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

arguments = argparse.ArgumentParser()
arguments.add_argument("--later", action="store_true")
arguments.add_argument("--certificate")
arguments.add_argument("--key")
arguments.add_argument("--tls", action="store_true")
arguments.add_argument("--user")
arguments.add_argument("--password")
arguments = arguments.parse_args()


def report(what):
    print(json.dumps(what), flush=True)


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused"):
            return f"550 5.1.1 <{address}>: no such mailbox"
        if address.startswith("denied"):
            return f"550 5.7.1 <{address}>: relaying denied"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        report({"mail": {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "is_encrypted": server.transport.get_extra_info("sslcontext") is not None,
            "is_authenticated": bool(session.authenticated),
            "headers": {name.lower(): str(value) for name, value in mail.items()},
            "text": mail.get_content(),
        }})
        return "250 taken"


class Session(SMTP):
    # What was encrypted comes in here as plain text, and the handshakes do not.
    def data_received(self, data):
        report({"heard": data.decode("latin-1")})
        super().data_received(data)


def authenticate(server, session, envelope, mechanism, data):
    is_right = (data.login.decode(), data.password.decode()) == (arguments.user, arguments.password)
    return AuthResult(success=is_right, handled=False)


def session():
    insists_on_starttls = context is not None and not arguments.tls
    return Session(
        Handler(),
        tls_context=context if insists_on_starttls else None,
        require_starttls=insists_on_starttls,
        authenticator=authenticate,
        auth_required=arguments.user is not None,
        auth_require_tls=insists_on_starttls,
    )


async def serve():
    # The port is its own from here on, and refuses until somebody listens.
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    listening = {"sock": bound, "ssl": context if arguments.tls else None}
    if not arguments.later:
        server = await asyncio.get_running_loop().create_server(session, **listening)
    report({"port": bound.getsockname()[1]})
    if arguments.later:
        await asyncio.to_thread(sys.stdin.readline)
        server = await asyncio.get_running_loop().create_server(session, **listening)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


# What fails here is meant to, and the tests see that it did.
logging.disable()

context = None
if arguments.certificate:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.certificate, arguments.key)
asyncio.run(serve())
