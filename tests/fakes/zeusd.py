"""A zeusd: the discovery and cumulative-energy responses that Zeus' own client requests."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Zeusd:
    """Two GPUs whose counters the test sets; ``fail`` makes it answer 500."""

    def __init__(self) -> None:
        self.energy_mj = {0: 1000, 1: 2000}
        self.fail = False
        self.port = 0

    def answer(self, path: str) -> tuple[int, object]:
        if self.fail:
            return 500, {"error": "no"}
        if path.startswith("/discover"):
            gpus = [{"id": i, "name": f"MI300X {i}"} for i in self.energy_mj]
            return 200, {"gpus": gpus, "cpus": [], "enabled_api_groups": ["gpu-read"], "auth_required": False}
        return 200, {str(i): {"energy_mj": mj} for i, mj in self.energy_mj.items()}


@contextmanager
def zeusd() -> Iterator[Zeusd]:
    """Listen on a free port of 127.0.0.1."""
    daemon = Zeusd()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = daemon.answer(self.path)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        daemon.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield daemon
        finally:
            server.shutdown()
            thread.join()
