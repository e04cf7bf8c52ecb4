"""Datasets of the Hub: read at one commit, in parts where they are Parquet, else by `datasets`."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import DatasetNotFoundError, HubError, HubNotFoundError, HubUnavailableError, TaskError
from hf_task2vec.files import system_cause, temporary_folder, why
from hf_task2vec.hub import REQUEST_TIMEOUT, HubSession, redact
from hf_task2vec.tasks.folders import Files, add_archive
from hf_task2vec.tasks.layout import Folder
from hf_task2vec.tasks.parquet.remote import RemoteSplit, kept_listing, list_files
from hf_task2vec.tasks.source import Sampling, Source, pick_split

if TYPE_CHECKING:
    import datasets

    from hf_task2vec.tasks.labels import Warn

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_KEPT = "the Hub could not be asked, so dataset {!r} is read as kept from an earlier time{}"


def open_hub(hub_id: str, sampling: Sampling, token: Any, warn: Warn) -> Source:
    """Open one split of a dataset of the Hub; see `Task.from_dataset` for the parameters and errors."""
    import datasets.config
    import huggingface_hub.constants
    from huggingface_hub.errors import GatedRepoError

    name, split, revision = sampling.name, sampling.split, sampling.revision
    if not _HUB_ID.fullmatch(hub_id):
        raise DatasetNotFoundError(f"{hub_id!r} is neither a folder nor a Hub dataset id (org/name)")
    # Everything is read at one commit, so that the recorded revision is the one that was used.
    kept = kept_listing(hub_id, name, revision, token)
    commit, listing, unreachable = None, None, None
    try:
        commit = _ask_commit(hub_id, revision, token)
        listing = kept if kept is not None and kept.commit == commit else None
    except HubUnavailableError as error:
        listing, unreachable = kept, error
        logger.info("%s", error)
    except HubError as error:
        if not isinstance(error, HubNotFoundError) and not isinstance(error.__cause__, GatedRepoError):
            raise
        logger.debug("commit of dataset %s unknown: %s", hub_id, error)  # opening the dataset tells better

    def build() -> datasets.DatasetBuilder:
        where = {"revision": commit or revision, "token": token}
        offline = datasets.config.HF_HUB_OFFLINE or unreachable is not None  # else it would ask once more, for minutes
        with _translated(hub_id, token=token, revision=revision), _set(datasets.config, "HF_HUB_OFFLINE", offline):
            try:
                return datasets.load_dataset_builder(hub_id, name, **where)
            except OSError as error:
                if system_cause(error) is None:
                    raise
            # What it writes to be opened, such as the card, may as well lie elsewhere.
            elsewhere = str(temporary_folder())
            with _set(huggingface_hub.constants, "HF_HUB_CACHE", elsewhere):
                return datasets.load_dataset_builder(hub_id, name, cache_dir=elsewhere, **where)

    opened = partial(_open_builder, hub_id, sampling, commit, token, warn)
    if listing is None:
        try:
            builder = build()
        except HubUnavailableError as error:
            if unreachable is None:
                raise
            raise HubUnavailableError(f"dataset {hub_id!r} cannot be read from the Hub: {unreachable}") from error
        if unreachable is not None:
            warn(_KEPT.format(hub_id, ""))
        if commit is not None:
            listing = list_files(hub_id, name, revision, token, commit, builder)
        if listing is None:
            return opened(builder)
    elif unreachable is not None:
        warn(_KEPT.format(hub_id, f", at commit {listing.commit[:12]}"))
    chosen = pick_split(list(listing.splits), split, f"dataset {hub_id!r}", expressions=True)
    if chosen not in listing.splits:
        logger.info("%s is downloaded, not read in parts: %r is no single whole split", hub_id, split)
        return opened(build())
    return Source(
        hub_id,
        lambda: opened(build()).load(),
        remote=RemoteSplit(listing, chosen, hub_id, token),
        revision=listing.commit,
        config_name=listing.config_name,
        split=chosen,
        other_splits=tuple(key for key in listing.splits if key != chosen),
        may_read=_of_the_dataset,
    )


@contextmanager
def _set(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """Change for a while what a library has no option for."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _open_builder(
    dataset: str, sampling: Sampling, commit: str | None, token: Any, warn: Warn, builder: datasets.DatasetBuilder
) -> Source:
    """Open what `datasets` found, as `datasets.load_dataset` does, but WebDataset's tars as those of a folder: it takes
    one format of images in all of them.
    """
    import datasets

    place, name = f"dataset {dataset!r}", sampling.name
    urls = {str(key): [*map(str, found)] for key, found in (builder.config.data_files or {}).items()}
    packed = bool(urls) and all(url.endswith((".tar", ".tar.gz")) for found in urls.values() for url in found)
    tars = packed and not sampling.streaming
    names = [*urls] if tars else [str(key) for key in builder.info.splits or urls]
    chosen = pick_split(names, sampling.split, place, expressions=not tars)
    others = tuple(key for key in names if key != chosen)
    with _translated(dataset, token=token, revision=commit):
        if tars:
            options = datasets.DownloadConfig(token=token)
            paths = datasets.DownloadManager(download_config=options).download(urls[chosen])
            files = Files(Path(paths[0]).parent)
            for url, path in zip(urls[chosen], paths, strict=True):
                add_archive(files, path, url.rpartition("/")[2].partition(".")[0])
            source = Folder(files, place, replace(sampling, split=None), warn).read()
        else:
            if sampling.streaming:
                data = builder.as_streaming_dataset(split=chosen)
            else:
                builder.download_and_prepare()
                data = builder.as_dataset(split=chosen)
            source, name = Source(dataset, lambda: data), name or data.info.config_name
            folders = {Path(file["filename"]).parent.name for file in getattr(data, "cache_files", ())}
            if commit is None and len(folders) == 1 and all(map(_COMMIT.fullmatch, folders)):
                commit = folders.pop()  # `datasets` names the folder of a cached copy by its commit
    facts: dict[str, Any] = {"config_name": name, "revision": commit, "may_read": _of_the_dataset}
    return replace(source, dataset=dataset, split=chosen, other_splits=others, **facts)


def commit_of(hub_id: str, revision: str | None, token: Any) -> str | None:
    """Return the commit that `revision` stands for, None if the Hub does not say; opening the dataset tells why."""
    try:
        return _ask_commit(hub_id, revision, token)
    except HubError as error:
        logger.debug("commit of dataset %s unknown: %s", hub_id, error)
        return None


def _ask_commit(hub_id: str, revision: str | None, token: Any) -> str | None:
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    session = HubSession(hub_id, revision=revision, token=token)
    ask = partial(session.call, limit=REQUEST_TIMEOUT)
    info = ask(
        "finding its commit", session.api.dataset_info, hub_id, revision=revision, expand=["gated", "sha"], attempts=2
    )
    if info.gated:  # anyone may know its commit; what is in the cache is for those with access only
        ask("asking for access", session.api.auth_check, hub_id, repo_type="dataset")
    return info.sha


@contextmanager
def reading(dataset: str, token: str | bool | None = None) -> Iterator[None]:
    """Turn failures of the connection while rows are read into `HubUnavailableError`."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # the HTTP library that it was built on

    try:
        yield
    except (ConnectionError, HfHubHTTPError, httpx.HTTPError, HubUnavailableError) as error:
        raise HubUnavailableError(
            f"dataset {dataset!r} cannot be read from the Hub: {_text(error, token)} Check the connection "
            "(and HF_HUB_OFFLINE); a local folder or a dataset in the cache works without"
        ) from error


@contextmanager
def _translated(dataset: str, *, token: str | bool | None = None, revision: str | None = None) -> Iterator[None]:
    """Turn the errors of `datasets` into ours, with what would work."""
    import datasets.exceptions
    import yaml

    try:
        with reading(dataset, token):
            yield
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DatasetNotFoundError(
            f"no dataset {dataset!r}{f' at revision {revision!r}' if revision else ''}: {_text(error, token)} Check "
            "the spelling; a private or gated dataset needs token=… of an account that has access"
        ) from error
    except yaml.YAMLError as error:
        line = f", line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
        raise DatasetNotFoundError(
            f"README.md of dataset {dataset!r}{line} is no valid YAML ({getattr(error, 'problem', error)})"
        ) from error
    except RuntimeError as error:
        if "script" not in str(error):
            raise
        raise TaskError(
            f"dataset {dataset!r} is made by a Python script, which `datasets` no longer runs. What would work: "
            "revision='refs/convert/parquet' (the Hub's own Parquet copy, where there is one), or a folder of Parquet "
            "files or of images without the script"
        ) from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        if (cause := system_cause(error)) is not None:
            place = f" at {os.fsdecode(cause.filename)}" if isinstance(cause.filename, (str, bytes)) else ""
            raise TaskError(
                f"dataset {dataset!r} cannot be kept{place}: {why(cause)}. Mend that, set HF_HOME to a folder that can "
                "be written to, or pass streaming=True, which keeps nothing"
            ) from error
        text = _text(error, token)
        if match := re.search(r"(?:available configs: |not found\. Available: )(\[.*?\])", text):
            what = "has no such configuration" if "not found" in match[0] else "has several configurations"
            raise DatasetNotFoundError(f"dataset {dataset!r} {what}; pass name=… with one of {match[1]}") from error
        raise DatasetNotFoundError(
            f"dataset {dataset!r} cannot be read: {text} What would work: a Hub dataset id, or a folder with one "
            "subfolder of images a class or with parquet files"
        ) from error


def _text(error: Exception, token: str | bool | None) -> str:
    text = " ".join(str(error).split()) or type(error).__name__  # on one line
    return redact(text, token).rstrip(".") + "."


def _of_the_dataset(path: str) -> bool:
    """Say whether a row of a dataset on the Hub may name this file or address: files of the Hub, and their copies.

    A row can name any file of the machine that reads it, or any server: what lies elsewhere is nobody's image.
    """
    if "://" in path:
        return path.rpartition("::")[2].startswith("hf://")
    import datasets.config
    from huggingface_hub.constants import HF_HUB_CACHE

    caches = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return any(Path(path).resolve().is_relative_to(Path(cache).resolve()) for cache in caches)
