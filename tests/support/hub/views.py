"""The Hub's JSON: what repositories, trees, references look like in its answers."""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from math import prod
from typing import Any

from .store import Blob, Commit, Repo

Json = dict[str, Any]

_PREFIXED = {
    "model": {"license": "license", "datasets": "dataset", "base_model": "base_model"},
    "dataset": {"license": "license", "language": "language", "task_categories": "task_categories"},
}
_BARE = {"model": ("tags", "language", "library_name", "pipeline_tag"), "dataset": ("tags",)}
_LIST_FIELDS = {"tags", "downloads", "likes", "private", "createdAt", "library_name", "pipeline_tag"}
_FULL_FIELDS = _LIST_FIELDS | {"author", "sha", "lastModified", "gated", "disabled", "siblings"}


def card(**metadata: Any) -> bytes:
    """Return a README with this metadata block, for tests to put into a repository."""
    return f"---\n{json.dumps(metadata, indent=1)}\n---\n# Card\n".encode()


@cache
def _metadata(readme: str) -> Any:
    import yaml

    match = re.match(r"\s*---\r?\n(.*?)\r?\n---\s*(\n|$)", readme, re.DOTALL)
    return (yaml.safe_load(match[1]) if match else None) or {}


def card_errors(readme: str) -> list[str]:
    """Return what the Hub would object to in the metadata block of a README."""
    import yaml

    try:
        data = _metadata(readme)
    except yaml.YAMLError as error:
        return [f"YAML Metadata Error: {error}"]
    if not isinstance(data, dict):
        return ["YAML Metadata Error: metadata must be a mapping"]
    values = {name: data.get(name, []) for names in (*_PREFIXED.values(), *_BARE.values()) for name in names}
    wrong = [name for name, value in values.items() if not all(isinstance(item, str) for item in _as_list(value))]
    return [f'"{name}" must be a string or a list of strings' for name in wrong]


def card_data(tree: Mapping[str, Blob]) -> Json:
    """Return the metadata block of a revision's README, empty if there is none."""
    readme = tree["README.md"].read().decode("utf-8", "replace") if "README.md" in tree else ""
    if len(readme) > 1 << 20 or "*a" in readme.partition("\n---\n")[0]:  # no card to be had of a bomb
        return {}
    try:
        data = _metadata(readme)
    except Exception:  # noqa: BLE001 (hostile YAML)
        return {}
    return data if isinstance(data, dict) else {}


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def repo_tags(repo: Repo, tree: Mapping[str, Blob], card: Json) -> list[str]:
    """Return the tags that the list filters look at."""
    tags = [tag for name in _BARE[repo.kind] for tag in _as_list(card.get(name))]
    if repo.kind == "model" and any(path.endswith(".safetensors") for path in tree):
        tags.append("safetensors")
    for name, prefix in _PREFIXED[repo.kind].items():
        tags += [f"{prefix}:{value}" for value in _as_list(card.get(name))]
    return list(dict.fromkeys([*tags, "region:us"]))


def safetensors_summary(tree: Mapping[str, Blob]) -> Json | None:
    """Return the parameter counts by type of ``model.safetensors``, as the Hub reads them from its header."""
    try:
        content = tree["model.safetensors"].read()
        header = json.loads(content[8 : 8 + struct.unpack_from("<Q", content)[0]])
    except (KeyError, ValueError, struct.error):
        return None
    counts: Counter[str] = Counter()
    for name, tensor in header.items():
        if name != "__metadata__":
            counts[tensor["dtype"]] += prod(tensor["shape"])
    return {"parameters": counts, "total": counts.total()}


def model_config(tree: Mapping[str, Blob]) -> Json:
    """Return the part of ``config.json`` that the Hub repeats in its answers."""
    try:
        config = json.loads(tree["config.json"].read())
    except (KeyError, ValueError):
        return {}
    return {key: config[key] for key in ("architectures", "model_type", "architecture") if key in config}


def repo_info(repo: Repo, commit: Commit, *, blobs: bool = False) -> Json:
    """Return everything the Hub tells about a revision of a repository."""
    card = card_data(commit.tree)
    info: Json = {
        "_id": f"{abs(hash((repo.kind, repo.id))):024x}"[:24],
        "id": repo.id,
        "author": repo.namespace,
        "sha": commit.oid,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": repo.downloads,
        "likes": repo.likes,
        "trendingScore": 0,
        "createdAt": repo.created_at,
        "lastModified": commit.date,
        "tags": repo_tags(repo, commit.tree, card),
        "cardData": card,
        "siblings": [_sibling(path, blob, blobs=blobs) for path, blob in sorted(commit.tree.items())],
        "usedStorage": sum(blob.size for blob in commit.tree.values()),
    }
    if repo.kind == "model":
        info["modelId"] = repo.id
        info["config"] = model_config(commit.tree)
        info |= {name: card[name] for name in ("library_name", "pipeline_tag") if name in card}
        if summary := safetensors_summary(commit.tree):
            info["safetensors"] = summary
    return info


def listed(info: Json, *, expand: Iterable[str], full: bool, card: bool, config: bool) -> Json:
    """Return the part of a repository's information that a list answer holds; with `expand` only what it names."""
    keep = set(expand) or (set(_FULL_FIELDS) if full else set(_LIST_FIELDS))
    if card or (full and "modelId" not in info):
        keep.add("cardData")
    if config:
        keep.add("config")
    return {key: value for key, value in info.items() if key in keep or key in ("_id", "id", "modelId")}


def _lfs(blob: Blob, key: str) -> Json:
    return {key: blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}


def _sibling(path: str, blob: Blob, *, blobs: bool) -> Json:
    entry: Json = {"rfilename": path}
    if blobs:
        entry |= {"size": blob.size, "blobId": blob.oid}
        if blob.lfs:
            entry["lfs"] = _lfs(blob, "sha256")
    return entry


def file_entry(path: str, blob: Blob, commit: Commit, *, expand: bool) -> Json:
    """Return one file of a tree answer."""
    entry: Json = {"type": "file", "path": path, "oid": blob.oid, "size": blob.size}
    if blob.lfs:
        entry["lfs"] = _lfs(blob, "oid")
    if expand:
        entry["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": commit.date}
    return entry


def folder_entry(path: str, commit: Commit, *, expand: bool) -> Json:
    """Return one folder of a tree answer (its `oid` is no git hash, only one of the right form)."""
    entry: Json = {"type": "directory", "path": path, "oid": commit.oid, "size": 0}
    if expand:
        entry["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": commit.date}
    return entry


def tree_entries(commit: Commit, folder: str, *, recursive: bool, expand: bool) -> list[Json] | None:
    """Return the entries below `folder` ("" for the root), or None if there is no such folder."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, Json] = {}
    for path, blob in sorted(commit.tree.items()):
        if not path.startswith(prefix):
            continue
        *parents, _ = path[len(prefix) :].split("/")
        depth = len(parents) if recursive else min(len(parents), 1)
        for count in range(1, depth + 1):
            parent = prefix + "/".join(parents[:count])
            entries.setdefault(parent, folder_entry(parent, commit, expand=expand))
        if recursive or not parents:
            entries[path] = file_entry(path, blob, commit, expand=expand)
    return list(entries.values()) if entries or not folder else None
