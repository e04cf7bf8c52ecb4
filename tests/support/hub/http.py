"""Requests, responses, the route table and the access rules of the loopback Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote, unquote, urlencode

from .store import ApiError, Kind, Repo, User

if TYPE_CHECKING:
    from .server import HubServer

Need = Literal["metadata", "files", "propose", "write"]
_SEGMENTS = {
    "kind": "models|datasets|spaces",
    "prefix": "(?:datasets/|spaces/)?",
    "id": "[^/]+/[^/]+",
    "path": ".+",
    "tail": "(?:/.*)?",
}


@dataclass
class Request:
    """A request as the handlers see it; `groups` are the unquoted parts that the route's pattern names."""

    hub: HubServer
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Message  # compares names without case
    body: bytes
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else {}

    def flag(self, name: str) -> bool:
        return self.query.get(name, ["false"])[-1].lower() in ("1", "true")

    @property
    def kind(self) -> Kind:
        kind = (self.groups.get("kind") or self.groups.get("prefix") or "models").rstrip("/").removesuffix("s")
        return cast(Kind, kind)

    @property
    def user(self) -> User | None:
        """The user of the bearer token, None if there is none; a wrong token is an error as on the real Hub."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        if token not in self.hub.store.users:
            raise ApiError(401, None, "Invalid credentials in Authorization header")
        return self.hub.store.users[token]

    def writer(self) -> User:
        """The user, if the token may write at all."""
        if self.user is None:
            raise ApiError(401, None, "Invalid username or password.")
        if self.user.role != "write":
            raise ApiError(403, None, "Forbidden: you must use a token with write access for this operation")
        return self.user

    def repo(self, need: Need) -> Repo:
        """Return the repository of the route if the user may do with it what is needed."""
        user = self.user
        repo = self.hub.store.repos.get((self.kind, self.groups["id"]))
        if repo is None or (repo.private and not repo.has_member(user)):
            raise ApiError(401 if user is None else 404, "RepoNotFound", "Repository not found")
        member = repo.has_member(user)
        if need == "files" and repo.gated and not member and (user is None or user.name not in repo.allowed):
            message = f"Access to {repo.kind} {repo.id} is restricted and you are not in the authorized list."
            raise ApiError(401 if user is None else 403, "GatedRepo", message)
        if need in ("propose", "write"):
            self.writer()
        if need == "write" and not member:
            raise ApiError(403, None, f"Forbidden: you don't have the rights to write to {repo.id}")
        return repo


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    chunks: Iterable[bytes] = ()
    length: int = 0


def reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with JSON."""
    body = json.dumps(document).encode()
    return Response(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, [body], len(body))


def error_response(error: ApiError) -> Response:
    """Answer with an error in the Hub's form: JSON and the headers that the clients go by."""
    headers = {"X-Error-Message": error.message, **error.headers}
    if error.code:
        headers["X-Error-Code"] = error.code
    return reply({"error": error.message}, error.status, headers)


def paged(request: Request, items: list[Any], size: int | None = None) -> Response:
    """Answer with one page of a list and the link to the next."""
    start = int(request.query.get("cursor", ["0"])[0])
    stop = start + min(size or request.hub.page_size, request.hub.page_size)
    headers = {}
    if stop < len(items):
        query = urlencode({**request.query, "cursor": str(stop)}, doseq=True)
        headers["Link"] = f'<{request.hub.endpoint}{request.path}?{query}>; rel="next"'
    return reply(items[start:stop], headers=headers)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return start and stop of a single-range ``Range`` header, None if there is none; 416 if it is outside."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        raise ApiError(416, None, "Range Not Satisfiable", {"Content-Range": f"bytes */{size}"})
    return start, stop


def url_of(request: Request, repo: Repo) -> str:
    prefix = "" if repo.kind == "model" else f"{repo.kind}s/"
    return f"{request.hub.endpoint}/{prefix}{quote(repo.id)}"


Handler = Callable[[Request], Response]
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []


def route(method: str, template: str) -> Callable[[Handler], Handler]:
    """Register a handler for ``"GET"`` (and so HEAD) and ``"/api/{kind}/{id}/tree/{rev}"``."""
    pattern = re.sub(r"\\{(\w+)\\}", lambda m: f"(?P<{m[1]}>{_SEGMENTS.get(m[1], '[^/]+')})", re.escape(template))

    def register(handler: Handler) -> Handler:
        ROUTES.extend((name, re.compile(pattern), handler) for name in {"GET": ("GET", "HEAD")}.get(method, (method,)))
        return handler

    return register


def dispatch(request: Request) -> Response:
    """Find the route by the raw path, so that a quoted slash stays inside its segment, and answer."""
    for method, pattern, handler in ROUTES:
        if method == request.method and (match := pattern.fullmatch(request.path)):
            request.groups = {name: unquote(value) for name, value in match.groupdict().items()}
            return handler(request)
    if re.match(r"/api/(models|datasets|spaces)/|.*/resolve/", request.path):
        raise ApiError(404, "RepoNotFound", "Repository not found")
    raise ApiError(404, None, f"no such route: {request.method} {request.path}")
