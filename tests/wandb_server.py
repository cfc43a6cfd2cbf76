"""Just enough of a W&B server, on this machine, for the client to go online: and to be let down."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "someone"


class Server(ThreadingHTTPServer):
    """Keeps the lines of each run's history at the places that the client sends them to.

    What a real server makes of them, this one does not tell.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.open = threading.Event()
        self.open.set()
        self.seconds = 0.0
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: list[dict[str, Any]] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def run(self, name: str) -> dict[str, Any]:
        return self.runs.setdefault(name, {"lines": {}, "config": {}, "complete": False, "offsets": []})

    def history(self, name: str) -> list[dict[str, Any]]:
        lines = self.run(name)["lines"]
        return [json.loads(lines[number]) for number in sorted(lines)]

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is nothing to tell."""


class Handler(BaseHTTPRequestHandler):
    """Answers the few questions that the client asks."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.server.open.is_set():
            self.server.open.wait(120)  # silent: it has taken the question and says nothing
        threading.Event().wait(self.server.seconds)
        if self.path == "/graphql":
            asked = json.loads(body)
            said = {"data": self.graphql(asked["query"], asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            said = self.file_stream(self.path.split("/")[-2], json.loads(body))
        else:
            said = {}
        reply = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - http.server's names

    def graphql(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)[1]
        project = {"id": "p", "name": "kaleidogan", "entity": {"id": "e", "name": ENTITY}}
        if name == "Viewer":
            teams = {"edges": []}
            return {
                "viewer": {"id": "u", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": teams}
            }
        if name == "RunResumeStatus":
            return {"model": {**project, "bucket": self.resumed(given["name"])}}
        if name == "UpsertBucket":
            run = self.server.run(given["name"])
            run["config"] |= json.loads(given["config"] or "{}")
            told = {key: given[key] for key in ("groupName", "jobType", "tags", "sweep") if given.get(key)}
            run |= told
            bucket = {"id": "b", "name": given["name"], "project": project, "config": given["config"]}
            return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0}, "inserted": True}}
        if name == "CreateRunFiles":
            files = [{"name": f, "uploadUrl": f"{self.server.url}/upload/{f}"} for f in given["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":
            self.server.artifacts.append(given["input"])
            sequence = {"id": "s", "latestArtifact": None}
            return {
                "createArtifact": {
                    "artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}
                }
            }
        return {"serverInfo": {"features": []}, "entity": {"organization": None}}

    def resumed(self, name: str) -> dict[str, Any] | None:
        """What a client that goes on with a run is told; nothing if there is none."""
        run = self.server.runs.get(name)
        if run is None or not run["lines"]:
            return None
        last = run["lines"][max(run["lines"])]
        return {
            **{"id": "b", "name": name, "logLineCount": 0, "eventsLineCount": 0, "tags": [], "notes": ""},
            "summaryMetrics": last,
            "historyLineCount": len(run["lines"]),
            "historyTail": json.dumps([last]),
            "eventsTail": "[]",
            "config": json.dumps(run["config"]),
            "wandbConfig": "{}",
        }

    def file_stream(self, name: str, sent: dict[str, Any]) -> dict[str, Any]:
        run = self.server.run(name)
        history = (sent.get("files") or {}).get("wandb-history.jsonl")
        if history:
            run["offsets"].append(history["offset"])
            for number, line in enumerate(history["content"], history["offset"]):
                run["lines"][number] = line
        run["complete"] = run["complete"] or bool(sent.get("complete"))
        return {"exitcode": None, "limits": {}}
