"""A stand-in for a Service of Kubernetes: probes pods, and forwards connections in turn to the ready pods."""

import contextlib
import socket
import threading


class Service:
    """Listens on a port of 127.0.0.1. Probes each member every `period` seconds; after `threshold` failed probes, a
    member gets no new connections. Connections in use stay, as in Kubernetes.
    """

    def __init__(self, period, threshold):
        self.period, self.threshold = period, threshold
        self.lock, self.end = threading.Lock(), threading.Event()
        # Failed probes of each member since the last success.
        self.failures = {}
        # Connections for which no ready pod listened.
        self.refused = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        for work in [self.accept, self.watch]:
            threading.Thread(target=work, daemon=True).start()

    def add(self, pod):
        """Adds a ready pod."""
        with self.lock:
            self.failures[pod] = 0

    def remove(self, pod):
        with self.lock:
            del self.failures[pod]

    def close(self):
        self.end.set()
        # Ends the wait for a connection, which a mere close would not.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def watch(self):
        while not self.end.wait(self.period):
            with self.lock:
                pods = list(self.failures)
            for pod in pods:
                is_ready = pod.is_ready()
                with self.lock:
                    if pod in self.failures:
                        self.failures[pod] = 0 if is_ready else self.failures[pod] + 1

    def accept(self):
        turn = 0
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                ready = [pod for pod, failures in self.failures.items() if failures < self.threshold]
            turn += 1
            try:
                pod = socket.create_connection(("127.0.0.1", ready[turn % len(ready)].ports["api"]), timeout=5)
            except (OSError, ZeroDivisionError):
                # The client sees a closed connection, as from a Service without a ready pod.
                self.refused += 1
                client.close()
                continue
            threading.Thread(target=forward, args=(client, pod), daemon=True).start()


def forward(client, pod):
    with client, pod:
        pod.settimeout(None)
        back = threading.Thread(target=copy, args=(pod, client), daemon=True)
        back.start()
        copy(client, pod)
        back.join()


def copy(source, target):
    """Copies until `source` ends, and passes the end on."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
