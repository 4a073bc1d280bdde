"""An SMTP server (aiosmtpd) on 127.0.0.1. Prints lines of JSON: first {"port": ...}, then {"heard": ...} for all
received text, and {"mail": ...} for each accepted mail. Refuses recipients that begin with "refused" as unknown, and
recipients that begin with "denied" as a forbidden relay. Ends with the end of standard input.

Without a certificate, the server offers no encryption. With a certificate, the server requires STARTTLS, or with --tls
TLS from the start. With a user, the server requires the password, and without a certificate accepts the password
unencrypted. With --later, the port refuses connections until a line arrives on standard input.
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
    # Receives the decrypted text, without the TLS handshakes.
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
    # The bound port is reserved, and refuses connections until the server listens.
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


# The tests provoke failures and check them: aiosmtpd's log would only confuse.
logging.disable()

context = None
if arguments.certificate:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.certificate, arguments.key)
asyncio.run(serve())
