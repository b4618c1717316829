"""A hub on this machine: as much of its interface as `huggingface_hub` needs to create, commit, list and download."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "hf_of_a_test"
Files = dict[str, bytes]


@dataclass
class FakeHub:
    """Repositories by name: branches by name, files by path. `asked` are the requests, `refuses` is for all of them.

    Files that end in `large` go by the protocol of Git LFS: asked for by hash, sent apart, then named in the commit.
    """

    address: str = ""
    repos: dict[str, dict[str, Files]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    refuses: int | None = None
    large: str | None = None
    stored: Files = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """Status, body (bytes or what becomes JSON) and headers."""
        if self.refuses is not None:
            return self.refuses, {"error": "Not today"}, {}
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if parts == ["api", "validate-yaml"]:
            return 200, {"errors": [], "warnings": []}, {}
        if parts[:2] == ["api", "models"]:
            return self._api("/".join(parts[2:4]), parts[4:], body)
        if parts[2:] == ["info", "lfs", "objects", "batch"]:
            return self._batch(json.loads(body))
        if method == "PUT" and parts[0] == "stored":
            self.stored[parts[1]] = body
            return 200, {}, {}
        if parts[2:3] == ["resolve"]:
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return 404, {"error": path}, {}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        name = f"{asked['organization'] or 'me'}/{asked['name']}"
        status = 409 if name in self.repos else 200
        if status == 200 and (asked.get("visibility") == "private" or asked.get("private")):
            self.private.add(name)
        self.repos.setdefault(name, {"main": {}})
        return status, {"url": f"{self.address}/{name}", "name": name}, {}

    def _batch(self, asked: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        objects = [
            one | {"actions": {"upload": {"href": f"{self.address}/stored/{one['oid']}"}}} for one in asked["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}, {}

    def _mode(self, path: str) -> str:
        return "lfs" if self.large is not None and path.endswith(self.large) else "regular"

    def _api(self, name: str, rest: list[str], body: bytes) -> tuple[int, Any, dict[str, str]]:
        if name not in self.repos:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        branches = self.repos[name]
        if rest[:1] == ["branch"]:
            return (409 if branches.setdefault(rest[1], {}) else 200), {}, {}
        if rest[:1] == ["preupload"]:
            files = [{"path": one["path"], "uploadMode": self._mode(one["path"])} for one in json.loads(body)["files"]]
            return 200, {"files": [one | {"shouldIgnore": False} for one in files]}, {}
        if rest[:1] == ["commit"]:
            return self._commit(name, branches[rest[1]], body)
        revision = rest[1] if rest else "main"
        branch = {_commit_of(one): one for one in branches}.get(revision, revision)
        if branch not in branches:
            return 404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"}
        if rest[:1] == ["tree"]:
            return 200, [_entry(path, content) for path, content in branches[branch].items()], {}
        about = {"id": name, "sha": _commit_of(branch), "siblings": [], "private": name in self.private}
        return 200, about, {}

    def _commit(self, name: str, files: Files, body: bytes) -> tuple[int, Any, dict[str, str]]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        return 200, {"commitUrl": f"{self.address}/{name}/commit/1", "commitOid": "1" * 40}, {}

    def _file(self, name: str, revision: str, path: str) -> tuple[int, Any, dict[str, str]]:
        branch = {_commit_of(one): one for one in self.repos[name]}.get(revision, revision)
        content = self.repos[name][branch][path]
        return 200, content, {"ETag": f'"{_entry(path, content)["oid"]}"', "X-Repo-Commit": _commit_of(branch)}


def _commit_of(branch: str) -> str:
    return hashlib.sha1(branch.encode()).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return {"type": "file", "path": path, "size": len(content), "oid": oid}


@contextmanager
def fake_hub(patch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that the client of this process asks, with a token at hand."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            hub.asked.append(f"{self.command} {path}")
            status, said, headers = hub.answer(self.command, path, body)
            content = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = respond  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    patch.setattr(constants, "ENDPOINT", hub.address)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setenv("HF_TOKEN", TOKEN)
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
