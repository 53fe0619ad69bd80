"""A hub on this machine: the real client talks to it, over real connections."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""The newest of every repository; an older one that is asked for is served the same files."""


class Hub:
    """Serves folders as data set repositories.

    Attributes:
        repositories: id -> folder.
        gated: ids whose files need accepted terms.
        breaks: names of files whose connection breaks off in the middle.
        asked: paths of all requests.
    """

    def __init__(self):
        self.repositories, self.gated, self.breaks, self.asked = {}, set(), set(), []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self, body=True)

            def do_HEAD(self):
                hub.answer(self, body=False)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request, *, body):
        path = unquote(urlsplit(request.path).path)
        self.asked.append(path)
        repository = next((r for r in self.repositories if f"datasets/{r}" in path), None)
        if repository is None:
            return _send(request, 404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
        if repository in self.gated and "/resolve/" in path:  # what is in it anyone may know
            return _send(request, 401, b"{}", body, {"X-Error-Code": "GatedRepo"})
        folder = Path(self.repositories[repository])
        files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        pinned = re.search("/([0-9a-f]{40})(/|$)", path)
        commit = pinned[1] if pinned else COMMIT
        if "/resolve/" in path:
            name = path.split("/resolve/", 1)[1].split("/", 1)[1]
            data = (folder / name).read_bytes()
            head = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit}
            broken = body and Path(name).name in self.breaks
            return _send(request, 200, data, body, head, broken=broken)
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": f, "oid": f, "size": (folder / f).stat().st_size}
                for f in files
            ]
            return _send(request, 200, json.dumps(tree).encode(), body)
        info = {
            "id": repository,
            "sha": commit,
            "siblings": [
                {"rfilename": f, "size": (folder / f).stat().st_size, "blobId": f} for f in files
            ],
        }
        return _send(request, 200, json.dumps(info).encode(), body)


def _send(request, status, data, body, head=None, *, broken=False):
    request.send_response(status)
    for name, value in (head or {}).items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    if body:
        request.wfile.write(data[: len(data) // 2] if broken else data)
    if broken:
        request.wfile.flush()
        request.close_connection = True
        request.connection.close()
