"""Which Parquet files a dataset on the Hub consists of."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec.files import cache_dir, canonical_json, sha256_bytes, warn_not_kept, write_json
from hf_task2vec.hub import HubSession
from hf_task2vec.tasks.parquet.split import NotCheap

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

_PATHS_AT_ONCE = 500


@dataclass(frozen=True)
class Listing:
    """The Parquet files of a configuration at one commit, by split."""

    commit: str
    config_name: str
    splits: dict[str, list[str]]
    sizes: dict[str, int]
    features: dict[str, Any] | None
    """As in the dataset's card; None if only the files tell."""


def kept_listing(hub_id: str, name: str | None, revision: str | None, token: Any) -> Listing | None:
    """Return the listing kept from the last time that the dataset was opened, None if there is none."""
    try:
        return Listing(**json.loads(_listing_path(hub_id, name, revision, token).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def list_files(
    hub_id: str, name: str | None, revision: str | None, token: Any, commit: str, builder: datasets.DatasetBuilder
) -> Listing | None:
    """Return which Parquet files a dataset consists of at the commit that `revision` stands for, None if of none."""
    try:
        listing = _list(HubSession(hub_id, revision=commit, token=token), commit, builder)
    except NotCheap as why:
        logger.info("%s is downloaded, not read in parts: %s", hub_id, why)
        return None
    try:
        write_json(_listing_path(hub_id, name, revision, token), asdict(listing))
    except OSError as error:
        warn_not_kept(error)
    return listing


def _listing_path(hub_id: str, name: str | None, revision: str | None, token: Any) -> Path:
    key = canonical_json([HubSession(hub_id, token=token).api.endpoint, hub_id, name, revision])
    return cache_dir() / "hub" / "listings" / f"{sha256_bytes(key)[:32]}.json"


def _list(session: HubSession, commit: str, builder: datasets.DatasetBuilder) -> Listing:
    from datasets.packaged_modules.parquet.parquet import Parquet

    if not isinstance(builder, Parquet) or not builder.config.data_files:
        raise NotCheap(
            "its files are not Parquet (those of revision='refs/convert/parquet' are, where the Hub made a copy)"
        )
    if getattr(builder.config, "columns", None) or getattr(builder.config, "filters", None):
        raise NotCheap("its card chooses columns or rows")
    start = f"hf://datasets/{session.repo_id}@{commit}/"
    splits: dict[str, list[str]] = {}
    for split, places in builder.config.data_files.items():
        if not all(place.startswith(start) and "::" not in place for place in map(str, places)):
            raise NotCheap("its files lie elsewhere")
        splits[str(split)] = [str(place)[len(start) :] for place in places]
    paths = sorted({path for found in splits.values() for path in found})
    sizes: dict[str, int] = {}
    for at in range(0, len(paths), _PATHS_AT_ONCE):
        infos = session.call(
            "listing its files",
            session.api.get_paths_info,
            str(session.repo_id),
            paths[at : at + _PATHS_AT_ONCE],
            revision=commit,
            repo_type="dataset",
        )
        sizes |= {info.path: getattr(info, "size", 0) for info in infos}
    if set(sizes) != set(paths):
        raise NotCheap("its files are not all listed")
    features = builder.info.features
    declared = None if features is None else json.loads(json.dumps(features.to_dict()))
    return Listing(commit, builder.config.name, splits, sizes, declared)


def of_the_dataset(path: str) -> bool:
    """Say whether a row of a dataset on the Hub may name this file or address: files of the Hub, and their copies.

    A row can name any file of the machine that reads it, or any server: what lies elsewhere is nobody's image.
    """
    if "://" in path:
        return path.rpartition("::")[2].startswith("hf://")
    import datasets.config
    from huggingface_hub.constants import HF_HUB_CACHE

    caches = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return any(Path(path).resolve().is_relative_to(Path(cache).resolve()) for cache in caches)
