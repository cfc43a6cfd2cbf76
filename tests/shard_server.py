"""A web server of a folder for the tests: it knows ranges, and fails as it is told."""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    """Serves `folder`; `faults` says for a file's name what to do before it is served as it should be."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.faults: dict[str, list[str]] = {}
        self.ranges = True
        self.asked: Counter[str] = Counter()
        self.starts: dict[str, list[int]] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/set"


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    wbufsize = 2**16  # head and body in one packet: else each answer waits 40 ms for an acknowledgement
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.server.asked[name] += 1
        faults = self.server.faults.get(name, [])
        fault = faults.pop(0) if faults else ""
        if fault in ("404", "500", "403"):
            self._send(int(fault), b"no")
        elif fault == "loop":
            faults.insert(0, "loop")
            self._redirect(self.path)
        elif fault == "file":
            self._redirect("file:///etc/passwd")
        elif not (path := self.server.folder / name).is_file():
            self._send(404, b"no")
        else:
            self._serve(name, path.read_bytes(), fault)

    def _serve(self, name: str, data: bytes, fault: str) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(found[1]) if found and self.server.ranges else 0
        end = (
            min(int(found[2] or len(data) - 1) + 1, len(data)) if found and self.server.ranges else len(data)
        )
        self.server.starts.setdefault(name, []).append(start)
        part = data[start:end]
        if fault == "flip":
            part = bytes([part[0] ^ 1]) + part[1:]
        if fault == "short":
            part = part[: len(part) // 2]
        self.send_response(206 if found and self.server.ranges else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if fault == "cut":
            self.wfile.write(part[: len(part) // 2])
            self.close_connection = True
        elif fault == "stall":
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            time.sleep(3)
            self.close_connection = True
        else:
            self.wfile.write(part)

    def _redirect(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Serve a folder under /set."""
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
