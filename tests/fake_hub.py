"""A small stand-in for the Hub's HTTP interface: what huggingface_hub asks of it, and what can go wrong."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


class FakeHub:
    """Repositories as {id: {revision: {path: bytes}}}, and every request that came as "METHOD path"."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Files]] = {}
        self.gated: set[str] = set()
        self.token: str | None = None  # what an upload must present
        self.requests: list[str] = []
        self.endpoint = ""
        self.ranges = True  # whether a download may go on in the middle
        self.faults: dict[str, list[Fault]] = {}  # what the next answers to "GET file" or "POST path" are instead
        self.over = threading.Event()  # what a stalled answer waits for

    def add(self, name: str, files: Files, revision: str = "main") -> str:
        """Store files as a revision and return its commit."""
        self.repositories.setdefault(name, {})[revision] = files
        commit = self.commit(name, revision)
        self.repositories[name][commit] = files
        return commit

    def commit(self, name: str, revision: str) -> str:
        return hashlib.sha1(f"{name} {revision}".encode()).hexdigest() if len(revision) < 40 else revision

    def fault(self, request: str) -> "Fault | None":
        """What goes wrong with this request."""
        waiting = self.faults.get(request)
        return waiting.pop(0) if waiting else None

    def downloads(self) -> list[str]:
        """The files that were sent, in order."""
        paths = [line.partition("/resolve/")[2] for line in self.requests if line.startswith("GET")]
        return [path.partition("/")[2] for path in paths if path]


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_HEAD(self) -> None:
        self.handle_get()

    def do_GET(self) -> None:
        self.handle_get()

    def handle_get(self) -> None:
        path = self.note()
        if "/resolve/" in path:
            name, _, rest = path.partition("/resolve/")
            revision, _, file = rest.partition("/")
            if self.refuse(name, revision):
                return
            commit = {"X-Repo-Commit": self.hub.commit(name, revision)}
            files = self.hub.repositories[name][revision]
            if file not in files:
                self.answer(404, {}, {"X-Error-Code": "EntryNotFound", **commit})
            else:
                headers = {"ETag": f'"{etag(file, files[file])}"', **commit}
                fault = self.hub.fault(f"{self.command} {file}")
                if fault is None:
                    self.send_file(files[file], headers)
                else:
                    fault(self, files[file], headers)
        elif "/revision/" in path:
            name, _, revision = path.removeprefix("api/models/").partition("/revision/")
            if self.refuse(name, revision):
                return
            fault = self.hub.fault("GET revision")
            if fault is None:
                names = [{"rfilename": file} for file in self.hub.repositories[name][revision]]
                self.answer(200, {"id": name, "sha": self.hub.commit(name, revision), "siblings": names})
            else:
                fault(self, b"", {})
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        path = self.note()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault := self.hub.fault(f"POST {path}"):
            fault(self, b"", {})
            return
        if path == "api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.answer(401, {"error": "Unauthorized"})
        elif path == "api/repos/create":
            sent = json.loads(body)
            name = f"{sent['organization'] or 'me'}/{sent['name']}"
            address = {"url": f"{self.hub.endpoint}/{name}"}
            if name in self.hub.repositories:
                self.answer(409, {"error": "exists", **address})
            else:
                self.hub.add(name, {})
                self.answer(200, address)
        elif "/preupload/" in path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif "/commit/" in path:
            name, _, revision = path.removeprefix("api/models/").partition("/commit/")
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    data = base64.b64decode(line["value"]["content"])
                    self.hub.repositories[name][revision][line["value"]["path"]] = data
            commit = self.hub.add(name, self.hub.repositories[name][revision])
            address = f"{self.hub.endpoint}/{name}/commit/{commit}"
            self.answer(200, {"commitUrl": address, "commitOid": commit, "pullRequestUrl": f"{address}/pr"})
        else:
            self.answer(404, {})

    def note(self) -> str:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.hub.requests.append(f"{self.command} {path}")
        return path

    def refuse(self, name: str, revision: str) -> bool:
        if name in self.hub.gated:
            self.answer(403, {}, {"X-Error-Code": "GatedRepo"})
        elif name not in self.hub.repositories:
            self.answer(401, {}, {"X-Error-Code": "RepoNotFound"})
        elif revision not in self.hub.repositories[name]:
            self.answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        else:
            return False
        return True

    def send_file(self, data: bytes, headers: dict[str, str], sent: int | None = None) -> None:
        """A file or what is left of it, but only so many bytes of that where `sent` is given."""
        start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if self.hub.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[start:][:sent])

    def answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


Fault = Callable[[Handler, bytes, dict[str, str]], None]


def busy(status: int = 503, **headers: str) -> Fault:
    """An answer such as 503 Service Unavailable; headers are said with underscores."""
    said = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda handler, data, _: handler.answer(status, {"error": "busy"}, said)


def garbage(handler: Handler, data: bytes, headers: dict[str, str]) -> None:
    """Other bytes, as many."""
    handler.send_file(bytes(255 - byte for byte in data), headers)


def breaking(handler: Handler, data: bytes, headers: dict[str, str]) -> None:
    """Half of the file, then the end of the connection."""
    handler.send_file(data, headers, len(data) // 2)
    handler.close_connection = True


def stalling(handler: Handler, data: bytes, headers: dict[str, str]) -> None:
    """A quarter of the file, then nothing more."""
    handler.send_file(data, headers, len(data) // 4)
    handler.wfile.flush()
    handler.hub.over.wait(10)
    handler.close_connection = True


def silent(handler: Handler, data: bytes, headers: dict[str, str]) -> None:
    """No answer at all."""
    handler.hub.over.wait(10)
    handler.close_connection = True


def etag(file: str, data: bytes) -> str:
    """The hash that the Hub states: sha256 of large files, and git's of the others."""
    if file.endswith((".safetensors", ".bin")):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub that answers at its `endpoint` for as long as the block lasts."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
