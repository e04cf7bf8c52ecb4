"""Repositories of the loopback Hub: files, commits, references, pull requests, users."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

Kind = Literal["model", "dataset"]
Role = Literal["write", "read"]
Changes = Mapping[str, "bytes | Path | Blob | None"]

CHUNK = 1 << 16
LFS_MIN_SIZE = 10 << 20
_LFS_SUFFIXES = (
    ".arrow .bin .gz .jpeg .jpg .npy .npz .onnx .parquet .pkl .png .pt .pth .safetensors .tar .tif .tiff .webp .zip"
)
LFS_SUFFIXES = frozenset(_LFS_SUFFIXES.split())


class ApiError(Exception):
    """An error answer: HTTP status, the Hub's ``X-Error-Code`` (None: no such header) and its message."""

    def __init__(self, status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})


def stored_as_lfs(path: str, size: int) -> bool:
    """Say whether a file is kept in LFS, as a default ``.gitattributes`` would."""
    return size > LFS_MIN_SIZE or PurePosixPath(path).suffix.lower() in LFS_SUFFIXES


@dataclass(frozen=True, eq=False)
class Blob:
    """Content of a file, in memory or (for large ones) on disk."""

    source: bytes | Path
    lfs: bool

    @cached_property
    def size(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """The git-lfs pointer file that git keeps instead of the content."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @cached_property
    def oid(self) -> str:
        """Git's blob hash: of the content, or of the pointer file."""
        content = self.pointer if self.lfs else self.read()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return f'"{self.sha256 if self.lfs else self.oid}"'

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start` to `stop`."""
        stop = self.size if stop is None else stop
        if isinstance(self.source, bytes):
            for offset in range(start, stop, CHUNK):
                yield self.source[offset : min(offset + CHUNK, stop)]
            return
        with self.source.open("rb") as handle:
            handle.seek(start)
            for offset in range(start, stop, CHUNK):
                yield handle.read(min(CHUNK, stop - offset))

    def read(self) -> bytes:
        return b"".join(self.chunks())


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    date: str
    tree: Mapping[str, Blob]


@dataclass(frozen=True)
class User:
    name: str
    role: Role
    orgs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tokens:
    """Three tokens: `write` and `read` of user ``alice`` (member of ``org``), `other` of user ``bob`` (may write)."""

    write: str = "hf_loopback_alice_write"
    read: str = "hf_loopback_alice_read"
    other: str = "hf_loopback_bob_write"


class Clock:
    """Dates and serial numbers that only grow, so that no two commits share a hash and runs are repeatable."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    def tick(self) -> tuple[int, str]:
        number = next(self._ticks)
        moment = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=number)
        return number, moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


class Repo:
    """One repository. Tests may read every attribute and set `private`, `gated`, `downloads`, `likes`, `allowed`."""

    def __init__(self, kind: Kind, repo_id: str, clock: Clock, *, private: bool = False, gated: object = False) -> None:
        self.kind: Kind = kind
        self.id = repo_id
        self.private = private
        self.gated: object = "auto" if gated is True else gated
        self.allowed: set[str] = set()  # users granted access to a gated repository
        self.downloads = 0
        self.likes = 0
        self.refs: dict[str, Commit] = {}  # "refs/heads/main", "refs/tags/v1", "refs/pr/1"
        self.commits: dict[str, Commit] = {}
        self.pull_requests: dict[int, tuple[str, Commit]] = {}  # title, and the commit that it was made from
        self._clock = clock
        self.created_at = clock.tick()[1]

    @property
    def namespace(self) -> str:
        return self.id.partition("/")[0]

    @property
    def sha(self) -> str:
        """The head of ``main``."""
        return self.resolve("main").oid

    def has_member(self, user: User | None) -> bool:
        return user is not None and self.namespace in (user.name, *user.orgs)

    def resolve(self, revision: str) -> Commit:
        """Return the commit of a branch, tag, full reference name or full hash."""
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in self.refs:
                return self.refs[name]
        if revision in self.commits:
            return self.commits[revision]
        raise ApiError(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def branch_name(self, revision: str) -> str:
        """Return the full name of a reference that can be committed to."""
        name = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
        if name not in self.refs or name.startswith("refs/tags/"):
            raise ApiError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return name

    def commit(self, changes: Changes, title: str = "Update", *, revision: str = "main") -> str:
        """Add, replace and (None) delete files on a branch or ``refs/pr/<num>``; return the new commit's hash."""
        name = self.branch_name(revision) if self.refs else "refs/heads/main"
        number, date = self._clock.tick()
        tree = dict(self.refs[name].tree) if name in self.refs else {}
        for path, content in changes.items():
            if content is None:
                del tree[path]
            elif isinstance(content, Blob):
                tree[path] = content
            else:
                size = len(content) if isinstance(content, bytes) else content.stat().st_size
                tree[path] = Blob(content, lfs=stored_as_lfs(path, size))
        oid = hashlib.sha1(f"{self.kind}:{self.id}:{number}".encode()).hexdigest()
        self.commits[oid] = self.refs[name] = Commit(oid, title, date, tree)
        return oid

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Return every file of a revision."""
        return {path: blob.read() for path, blob in self.resolve(revision).tree.items()}

    def read(self, path: str, revision: str = "main") -> bytes:
        return self.resolve(revision).tree[path].read()

    def open_pull_request(self, title: str, revision: str = "main") -> int:
        """Return the number of a new pull request; its head is ``refs/pr/<number>``."""
        number = len(self.pull_requests) + 1
        self.pull_requests[number] = (title, self.resolve(revision))
        self.refs[f"refs/pr/{number}"] = self.resolve(revision)
        return number

    def merge(self, number: int) -> str:
        """Apply the changes of a pull request to ``main``; return the hash of the merge commit."""
        title, commit = self.pull_requests[number]
        base, head = commit.tree, self.refs[f"refs/pr/{number}"].tree
        changes = {path: head.get(path) for path in base.keys() | head.keys() if base.get(path) is not head.get(path)}
        return self.commit(changes, f"{title} (#{number})")


class Store:
    """All repositories, LFS objects and users. Hold `lock` while touching it from a request."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clock = Clock()
        self.repos: dict[tuple[Kind, str], Repo] = {}
        self.lfs: dict[str, Blob] = {}
        tokens = Tokens()
        self.users = {
            tokens.write: User("alice", "write", ("org",)),
            tokens.read: User("alice", "read", ("org",)),
            tokens.other: User("bob", "write"),
        }

    def clear(self) -> None:
        with self.lock:
            self.repos.clear()
            self.lfs.clear()

    def create(self, kind: Kind, repo_id: str, *, private: bool = False, gated: object = False) -> Repo:
        repo = Repo(kind, repo_id, self.clock, private=private, gated=gated)
        self.repos[kind, repo_id] = repo
        return repo

    def lfs_object(self, oid: str) -> Blob | None:
        """Find an LFS object by its SHA-256, uploaded or placed in a repository by a test."""
        if oid not in self.lfs:
            for repo in self.repos.values():
                for commit in repo.commits.values():
                    self.lfs.update({blob.sha256: blob for blob in commit.tree.values() if blob.lfs})
        return self.lfs.get(oid)
