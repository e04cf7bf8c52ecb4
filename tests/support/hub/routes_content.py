"""Routes about content: uploads, LFS, commits, downloads, discussions and pull requests."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from . import views
from .http import Request, Response, byte_range, reply, route, url_of
from .store import ApiError, Blob, stored_as_lfs


@route("POST", "/api/{kind}/{id}/preupload/{rev}")
def preupload(request: Request) -> Response:
    repo = request.repo("propose" if _proposal(request) else "write")
    present = repo.resolve(request.groups["rev"]).tree
    answers = []
    for item in request.json["files"]:
        path, blob = item["path"], present.get(item["path"])
        mode = "lfs" if stored_as_lfs(path, item["size"]) else "regular"
        answer = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        if blob is not None:
            answer["oid"] = blob.sha256 if blob.lfs else blob.oid
        answers.append(answer)
    return reply({"files": answers})


def _proposal(request: Request) -> bool:
    return request.flag("create_pr") or request.groups["rev"].startswith("refs/pr/")


@route("POST", "/{prefix}{id}.git/info/lfs/objects/batch")
def lfs_batch(request: Request) -> Response:
    repo, hub = request.repo("propose"), request.hub
    objects = []
    for item in request.json["objects"]:
        answer = {"oid": item["oid"], "size": item["size"]}
        if hub.store.lfs_object(item["oid"]) is None:
            upload = {"href": f"{hub.cdn_endpoint}/lfs/{item['oid']}", "header": {}}
            verify = {"href": f"{url_of(request, repo)}.git/info/lfs/verify", "header": {}}
            answer["actions"] = {"upload": upload, "verify": verify}
        objects.append(answer)
    return reply({"transfer": "basic", "objects": objects})


@route("PUT", "/lfs/{oid}")
def lfs_upload(request: Request) -> Response:
    oid = request.groups["oid"]
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise ApiError(400, None, "the content does not match its SHA-256")
    request.hub.store.lfs[oid] = Blob(request.body, lfs=True)
    return reply({})


@route("POST", "/{prefix}{id}.git/info/lfs/verify")
def lfs_verify(request: Request) -> Response:
    request.repo("propose")
    blob = request.hub.store.lfs_object(request.json["oid"])
    if blob is None or blob.size != request.json["size"]:
        raise ApiError(404, None, "LFS object not found")
    return reply({})


@route("POST", "/api/{kind}/{id}/commit/{rev}")
def commit(request: Request) -> Response:
    repo, revision = request.repo("propose" if _proposal(request) else "write"), request.groups["rev"]
    head = repo.resolve(revision)
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    if header.get("parentCommit") not in (None, head.oid):
        raise ApiError(412, None, "A commit has happened since. Please refresh and try again.")
    changes: dict[str, bytes | Blob | None] = {}
    for line in lines:
        changes |= _changes(request, head.tree, line["key"], line["value"])
    answer = {}
    if request.flag("create_pr"):
        number = repo.open_pull_request(header["summary"], revision)
        revision = f"refs/pr/{number}"
        answer["pullRequestUrl"] = f"{url_of(request, repo)}/discussions/{number}"
    oid = repo.commit(changes, header["summary"], revision=revision)
    return reply({**answer, "commitOid": oid, "commitUrl": f"{url_of(request, repo)}/commit/{oid}"})


def _changes(request: Request, present: Any, key: str, value: Any) -> dict[str, bytes | Blob | None]:
    """Return the changes that one line of a commit asks for."""
    path = value.get("path")
    if key == "file":
        content = base64.b64decode(value["content"])
        if path == "README.md" and (errors := views.card_errors(content.decode())):
            raise ApiError(400, None, f"Invalid metadata in README.md. {errors[0]}".replace("\n", " "))
        return {path: content}
    if key == "lfsFile":
        blob = request.hub.store.lfs_object(value["oid"])
        if blob is None:
            raise ApiError(400, None, f"LFS object {value['oid']} of {path} was not uploaded")
        return {path: blob}
    if key in ("deletedFile", "deletedFolder"):
        gone = [name for name in present if name == path or name.startswith(f"{path.rstrip('/')}/")]
        if not gone:
            raise ApiError(404, "EntryNotFound", f"{path} does not exist")
        return dict.fromkeys(gone)
    if key != "header":
        raise ApiError(400, None, f"unknown operation {key!r}")
    return {}


# Downloads


@route("GET", "/{prefix}{id}/resolve/{rev}/{path}")
def resolve(request: Request) -> Response:
    repo = request.repo("files")
    commit, path = repo.resolve(request.groups["rev"]), request.groups["path"]
    headers = {"X-Repo-Commit": commit.oid}
    if path not in commit.tree:
        raise ApiError(404, "EntryNotFound", f"{path} does not exist in {repo.id} at {commit.oid}", headers)
    blob = commit.tree[path]
    if blob.lfs and request.hub.lfs_redirect:
        headers |= {"X-Linked-ETag": blob.etag, "X-Linked-Size": str(blob.size)}
        return Response(302, headers | {"Location": f"{request.hub.cdn_endpoint}/lfs/{blob.sha256}"})
    return _content(request, blob, headers)


@route("GET", "/lfs/{oid}")
def lfs_download(request: Request) -> Response:
    if "Authorization" in request.headers:
        raise ApiError(400, None, "the token was sent to another origin")
    blob = request.hub.store.lfs_object(request.groups["oid"])
    if blob is None:
        raise ApiError(404, None, "no such object")
    return _content(request, blob, {})


def _content(request: Request, blob: Blob, headers: dict[str, str]) -> Response:
    headers |= {"ETag": blob.etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    part = byte_range(request.headers.get("Range"), blob.size)
    if part is None:
        return Response(200, headers, blob.chunks(), blob.size)
    start, stop = part
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
    return Response(206, headers, blob.chunks(start, stop), stop - start)
