"""A collector of OpenTelemetry: rotel, which takes OTLP over HTTP and gRPC, and passes all spans on.

Argument: the base URL of the next collector, which takes OTLP over HTTP. Prints the line {"http": PORT, "grpc": PORT},
and becomes the collector.
"""

import json
import os
import pathlib
import socket
import sys

import rotel

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
http, grpc = (each.getsockname()[1] for each in sockets)
for each in sockets:
    each.close()
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
