"""Routes about repositories as such: users, creation, settings, lists, trees, references."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from . import views
from .http import Request, Response, paged, reply, route, url_of
from .store import ApiError

_SORT_KEYS = {"downloads", "likes", "lastModified", "createdAt", "trendingScore"}


@route("POST", "/api/validate-yaml")
def validate_yaml(request: Request) -> Response:
    errors = [{"message": message} for message in views.card_errors(request.json["content"])]
    return reply({"errors": errors, "warnings": []}, 400 if errors else 200)


# Repositories


@route("POST", "/api/repos/create")
def create_repo(request: Request) -> Response:
    user, document = request.writer(), request.json
    namespace = document.get("organization") or user.name
    if namespace not in (user.name, *user.orgs):
        raise ApiError(403, None, f"You don't have the rights to create a repository under the namespace {namespace}")
    kind, repo_id, store = document.get("type") or "model", f"{namespace}/{document['name']}", request.hub.store
    known = store.repos.get((kind, repo_id))
    if known is not None:
        return reply({"url": url_of(request, known), "error": "You already created this repo"}, 409)
    private = document.get("visibility") == "private" or bool(document.get("private"))
    repo = store.create(kind, repo_id, private=private)
    repo.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, "initial commit")
    return reply({"url": url_of(request, repo), "name": repo_id})


@route("GET", "/api/{kind}/{id}/auth-check{tail}")
def auth_check(request: Request) -> Response:
    request.repo("files")
    if request.groups["tail"] == "/write":
        request.repo("write")
    return reply({})


@route("GET", "/api/{kind}")
def list_repos(request: Request) -> Response:
    query = request.query
    infos = []
    for (kind, _), repo in sorted(request.hub.store.repos.items()):
        if kind == request.kind and (not repo.private or repo.has_member(request.user)):
            info = views.repo_info(repo, repo.resolve("main"))
            if _selected(info, query):
                infos.append(info)
    if query.get("sort", [""])[0] in _SORT_KEYS:
        infos.sort(key=lambda info: info[query["sort"][0]], reverse=True)
    shape = {"full": request.flag("full"), "card": request.flag("cardData"), "config": request.flag("config")}
    items = [views.listed(info, expand=query.get("expand", []), **shape) for info in infos]
    return paged(request, items, int(query.get("limit", ["0"])[0]))


def _selected(info: views.Json, query: Any) -> bool:
    """Apply the filters of a list request; repeated ones must all hold."""
    if not set(query.get("filter", [])) <= set(info["tags"]):
        return False
    if "author" in query and info["author"] != query["author"][0]:
        return False
    if not all(term.lower() in info["id"].lower() for term in query.get("search", [])):
        return False
    if "gated" in query and bool(info["gated"]) is not (query["gated"][0].lower() == "true"):
        return False
    if "pipeline_tag" in query and info.get("pipeline_tag") != query["pipeline_tag"][0]:
        return False
    return _within(info.get("safetensors", {}).get("total"), query.get("num_parameters", [""])[0])


def _within(count: int | None, bounds: str) -> bool:
    """Compare a parameter count with ``"min:6B,max:128B"``."""
    limits = dict(part.split(":") for part in bounds.split(",") if part)
    factors = {"K": 1e3, "M": 1e6, "B": 1e9}
    values = {name: float(text.rstrip("KMB")) * factors.get(text[-1], 1) for name, text in limits.items()}
    if not values:
        return True
    return count is not None and values.get("min", 0) <= count <= values.get("max", float("inf"))


@route("GET", "/api/{kind}/{id}")
@route("GET", "/api/{kind}/{id}/revision/{rev}")
def repo_info(request: Request) -> Response:
    repo = request.repo("metadata")
    info = views.repo_info(repo, repo.resolve(request.groups.get("rev", "main")), blobs=request.flag("blobs"))
    if expand := request.query.get("expand"):
        info = views.listed(info, expand=expand, full=False, card=False, config=False)
    return reply(info)


@route("GET", "/api/{kind}/{id}/tree/{rev}")
@route("GET", "/api/{kind}/{id}/tree/{rev}/{path}")
def tree(request: Request) -> Response:
    commit = request.repo("metadata").resolve(request.groups["rev"])
    folder = request.groups.get("path", "").strip("/")
    flags = {"recursive": request.flag("recursive"), "expand": request.flag("expand")}
    entries = views.tree_entries(commit, folder, **flags)
    if entries is None:
        message = f"{folder} does not exist on {request.groups['rev']!r}"
        raise ApiError(404, "EntryNotFound", message, {"X-Repo-Commit": commit.oid})
    return paged(request, entries)


@route("POST", "/api/{kind}/{id}/paths-info/{rev}")
def paths_info(request: Request) -> Response:
    commit = request.repo("metadata").resolve(request.groups["rev"])
    form = parse_qs(request.body.decode())
    expand = form.get("expand", ["false"])[0].lower() == "true"
    entries = []
    for path in form.get("paths", []):
        if path in commit.tree:
            entries.append(views.file_entry(path, commit.tree[path], commit, expand=expand))
        elif any(name.startswith(f"{path}/") for name in commit.tree):
            entries.append(views.folder_entry(path, commit, expand=expand))
    return reply(entries)


@route("POST", "/api/{kind}/{id}/branch/{name}")
def create_branch(request: Request) -> Response:
    repo, name = request.repo("write"), f"refs/heads/{request.groups['name']}"
    commit = repo.resolve(request.json.get("startingPoint") or "main")
    if name in repo.refs:
        raise ApiError(409, None, f"Reference already exists: {name}")
    repo.refs[name] = commit
    return reply({})
