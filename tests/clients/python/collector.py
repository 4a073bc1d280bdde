"""A collector of OpenTelemetry: rotel, which takes OTLP over HTTP and gRPC, and passes all spans on.

Argument: the base URL of the next collector, which takes OTLP over HTTP. Prints the line {"http": PORT, "grpc": PORT},
and becomes the collector.
"""

import json
import os
import pathlib
import random
import socket
import sys

import rotel


def free_port():
    """A port below the range of outgoing connections, which no other program takes by chance."""
    while True:
        port = random.randrange(20000, 32000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return port
        except OSError:
            continue


http, grpc = free_port(), free_port()
print(json.dumps({"http": http, "grpc": grpc}), flush=True)
agent = pathlib.Path(rotel.__file__).with_name("rotel-agent")
arguments = [
    "start",
    f"--otlp-http-endpoint=127.0.0.1:{http}",
    f"--otlp-grpc-endpoint=127.0.0.1:{grpc}",
    "--exporter=otlp",
    f"--otlp-exporter-endpoint={sys.argv[1]}",
    "--otlp-exporter-protocol=http",
    "--disable-batching",
]
# Standard output belongs to the line above.
os.dup2(2, 1)
os.execv(agent, [agent, *arguments])
