"""HTTP transport of the loopback Hub, its request log, and the interface for tests."""

from __future__ import annotations

import re
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from . import routes_content, routes_repos  # noqa: F401 - importing them fills the route table
from .faults import Dropped, Fault, FaultInjector
from .http import Request, Response, dispatch, error_response
from .store import ApiError, Kind, Repo, Store, Tokens

if TYPE_CHECKING:
    pass


@dataclass
class LoggedRequest:
    """One request: header names in lower case, `status` 0 while there is no answer, `bytes_sent` without headers."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    status: int = 0
    bytes_sent: int = 0


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    hub: HubServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            self.hub.errors.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version = "LoopbackHub"

    def log_message(self, *args: Any) -> None:
        """Requests are in `HubServer.requests`; nothing goes to stderr."""

    def _handle(self) -> None:
        hub = self.server.hub
        body = self._read_body()
        entry = LoggedRequest(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        hub.log(entry)
        try:
            fault = hub.faults.take(self.command, self.path, in_body=False)
            if fault and fault.delay:
                hub.faults.wait(fault.delay)
            if fault and fault.reset:
                raise Dropped(reset=True)
            response = self._respond(body, fault)
            if fault:
                response.headers.update(fault.headers)
            self._send(response, entry)
        except Dropped as dropped:
            self.close_connection = True
            if dropped.reset:
                self._reset()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _respond(self, body: bytes, fault: Fault | None) -> Response:
        if fault and fault.status is not None:
            return error_response(ApiError(fault.status, None, f"injected fault {fault.status}"))
        hub = self.server.hub
        split = urlsplit(self.path)
        query = parse_qs(split.query, keep_blank_values=True)
        try:
            with hub.store.lock:
                return dispatch(Request(hub, self.command, split.path, query, self.headers, body))
        except ApiError as error:
            return error_response(error)
        except Exception:  # noqa: BLE001 - a bug must fail the test, not hang its client
            hub.errors.append(traceback.format_exc())
            return error_response(ApiError(500, None, "bug in the loopback Hub"))

    def _send(self, response: Response, entry: LoggedRequest) -> None:
        faults = self.server.hub.faults
        has_body = self.command != "HEAD" and response.length > 0
        entry.status = response.status
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(response.length))
        chunks: Iterable[bytes] = response.chunks
        fault = None
        if has_body and response.status < 300:
            fault = faults.take(self.command, self.path, in_body=True)
        if fault:
            for name, value in fault.headers.items():
                self.send_header(name, value)
            chunks = faults.disturb(chunks, response.length, fault)
        self.end_headers()
        if not has_body:
            return
        for chunk in chunks:
            # Counted before it is sent, so that a client which has the whole answer never reads a stale log.
            entry.bytes_sent += len(chunk)
            self.wfile.write(chunk)

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _reset(self) -> None:
        time.sleep(0.02)  # let the client read what was sent before the reset discards it
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class HubServer:
    """A Hub on two loopback ports: the site itself and, for LFS content, another origin as on the real one.

    Attributes
    ----------
    endpoint, cdn_endpoint, dead_endpoint
        URLs without trailing slash; nothing ever listens on the last.
    tokens
        `write` and `read` of alice, member of ``org``; `other` of bob.
    errors
        Tracebacks of the server's own bugs; the `hub` fixture fails a test that leaves any.
    page_size
        Length of one page of every paged answer.
    lfs_redirect
        Whether LFS files are served by a redirect to `cdn_endpoint` (then a pattern for their bytes is ``^/lfs/``).
    """

    tokens: ClassVar[Tokens] = Tokens()

    def __init__(self) -> None:
        self.store = Store()
        self.faults = FaultInjector()
        self.inject = self.faults.inject
        self.errors: list[str] = []
        self._log: list[LoggedRequest] = []
        self._servers = [self._listen(), self._listen()]
        self.endpoint, self.cdn_endpoint = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        self._dead = socket.socket()  # bound, never listening: connections are refused and the port stays ours
        self._dead.bind(("127.0.0.1", 0))
        self.dead_endpoint = f"http://127.0.0.1:{self._dead.getsockname()[1]}"
        self.reset()

    def _listen(self) -> _Server:
        server = _Server(("127.0.0.1", 0), _Handler)
        server.hub = self
        threading.Thread(target=server.serve_forever, args=(0.1,), name="loopback-hub", daemon=True).start()
        return server

    def reset(self) -> None:
        """Forget repositories, faults, log and settings; requests that wait in a fault go on."""
        self.faults.clear()
        self.store.clear()
        self.errors.clear()
        self._log.clear()
        self.page_size = 1000
        self.lfs_redirect = False

    def stop(self) -> None:
        """Shut the server down and close the clients' connections to it."""
        self.faults.clear()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._dead.close()
        if "huggingface_hub" in sys.modules:
            from huggingface_hub import close_session

            close_session()

    def log(self, entry: LoggedRequest) -> None:
        self._log.append(entry)

    @property
    def requests(self) -> list[LoggedRequest]:
        """All requests since the last reset, in order of arrival."""
        return list(self._log)

    def requested(self, pattern: str = "", method: str | None = None) -> list[LoggedRequest]:
        """Return the logged requests whose path and query match a regular expression."""
        return [entry for entry in self.requests if method in (None, entry.method) and re.search(pattern, entry.path)]

    def forget_requests(self) -> None:
        """Empty the request log."""
        self._log.clear()

    @property
    def bytes_sent(self) -> int:
        """Bytes of response bodies since the last reset or `forget_requests`."""
        return sum(entry.bytes_sent for entry in self.requests)

    def create_model(self, repo_id: str, *args: Any, **settings: Any) -> str:
        """Make a model repository; see :meth:`create`."""
        return self.create("model", repo_id, *args, **settings)

    def create_dataset(self, repo_id: str, *args: Any, **settings: Any) -> str:
        """Make a dataset repository; see :meth:`create`."""
        return self.create("dataset", repo_id, *args, **settings)

    def create(
        self,
        kind: Kind,
        repo_id: str,
        files: Mapping[str, bytes | Path] | None = None,
        *,
        private: bool = False,
        gated: bool | str = False,
    ) -> str:
        """Make a repository whose first commit holds `files` and return that commit's hash.

        A file given as a Path is served from disk, so that datasets larger than memory can be had.
        """
        with self.store.lock:
            repo = self.store.create(kind, repo_id, private=private, gated=gated)
            return repo.commit(files or {}, "initial commit")

    def repo(self, repo_id: str, kind: Kind | None = None) -> Repo:
        """Return a repository for inspection, changes and commits; `kind` is needed only where two share an id."""
        found = [repo for (k, name), repo in self.store.repos.items() if name == repo_id and kind in (None, k)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} repositories {repo_id!r} of kind {kind or 'any'}; have {self.repo_ids()}")
        return found[0]

    def repo_ids(self) -> list[tuple[Kind, str]]:
        return sorted(self.store.repos)
