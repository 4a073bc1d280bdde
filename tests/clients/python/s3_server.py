"""An S3 server with the bucket `archive`, in memory.

Prints a JSON line with the port, which refuses connections. After a line on standard input, the server listens, and
prints a second line. The end of standard input ends the server.
"""

import json
import logging
import socket
import sys
import threading
import urllib.request

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


def report(fact):
    print(json.dumps(fact), flush=True)


# The tests provoke failures and check them: the server's log would only confuse.
logging.disable()

# The bound port is reserved, and refuses connections until the server listens.
bound = socket.socket()
bound.bind(("127.0.0.1", 0))
port = bound.getsockname()[1]
report({"port": port})
sys.stdin.readline()
bound.listen()
application = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", port, application, threaded=True, fd=bound.fileno())
threading.Thread(target=server.serve_forever, daemon=True).start()
create = urllib.request.Request(f"http://127.0.0.1:{port}/archive", method="PUT")
with urllib.request.urlopen(create) as created:
    report({"created": created.status})
sys.stdin.read()
