"""As much of a W&B server as the library asks for to log a run, on this machine: what it was sent can be looked at."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "P", "name": "halos", "entity": {"id": "E", "name": "me"}}


class Server(ThreadingHTTPServer):
    """Keeps the rows of one run, as JSON, and the exit codes that it ended with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.rows: list[str] = []
        self.exit_codes: list[int] = []
        self.runs: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that was killed is none."""

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Number and value of every row that has this one."""
        rows = [json.loads(row) for row in self.rows]
        return [(row["_step"], row[name]) for row in rows if name in row]

    def query(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        bucket = {"id": "B", "name": given.get("name"), "displayName": "", "config": "{}", "project": PROJECT}
        if operation == "UpsertBucket":
            self.runs.add(given["name"])
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/put"} for name in given["files"]]
            return {"createRunFiles": {"runID": "B", "uploadHeaders": [], "files": files}}
        if operation == "RunResumeStatus":
            last = self.rows[-1] if self.rows else "{}"
            counts = {"historyLineCount": len(self.rows), "eventsLineCount": 0, "logLineCount": 0}
            tails = {"historyTail": json.dumps([last]), "eventsTail": "[]", "summaryMetrics": last}
            known = {**bucket, **counts, **tails, "tags": [], "wandbConfig": '{"t": {"value": 1}}'}
            return {"model": {**PROJECT, "bucket": known if self.rows else None}}
        return {}

    def stream(self, sent: dict[str, Any]) -> None:
        history = sent.get("files", {}).get("wandb-history.jsonl")
        if history:
            self.rows[history["offset"] :] = history["content"]
        if sent.get("complete"):
            self.exit_codes.append(sent["exitcode"])


class Answers(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        sent = json.loads(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        if self.path == "/graphql":
            self._answer({"data": self.server.query(sent.get("operationName", ""), sent.get("variables") or {})})
        else:
            self.server.stream(sent)
            self._answer({})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer({})

    def do_GET(self) -> None:
        self._answer({})

    def log_message(self, *words: Any) -> None:
        """Nothing is printed."""

    def _answer(self, given: Any) -> None:
        body = json.dumps(given).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
