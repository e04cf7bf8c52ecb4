"""Opening datasets: a Hub id, a local folder, an object of `datasets`, or the built-in sample, down to one split."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import DatasetNotFoundError, HubError, HubUnavailableError, TaskError
from hf_task2vec.hub import REQUEST_TIMEOUT, HubSession, redact
from hf_task2vec.tasks.parquet.remote import RemoteSplit, kept_listing, list_files, of_the_dataset

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

DIGITS = "sklearn:digits"
"""Name of the built-in offline sample: the 1,797 handwritten 8x8 digits that come with scikit-learn."""

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """One split of a dataset, and where it came from."""

    dataset: str
    """Hub id, folder name, `DIGITS`, or for objects the name they carry, else "dataset". Never an absolute path."""
    load: Callable[[], datasets.Dataset | datasets.IterableDataset]
    """Returns all its rows."""
    remote: RemoteSplit | None = None
    """Returns those of its rows that are needed."""
    revision: str | None = None
    config_name: str | None = None
    split: str | None = None
    other_splits: tuple[str, ...] = ()
    folder: Path | None = None
    token: str | bool | None = None
    may_read: Callable[[str], bool] | None = None
    """Says which files and addresses its rows may name; None: any, for the user's own folders and objects."""

    def __str__(self) -> str:
        return f"split {self.split!r} of {self.dataset!r}" if self.split else f"{self.dataset!r}"

    @property
    def advice(self) -> str:
        """The other splits, as the end of an error that another one may not have."""
        return f"; other splits: {', '.join(self.other_splits)}" if self.other_splits else ""


def open_source(
    dataset: Any,
    *,
    name: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    streaming: bool = False,
) -> Source:
    """Open one split; see `Task.from_dataset` for the parameters and errors."""
    if not isinstance(dataset, (str, os.PathLike)):
        return _open_object(dataset, split)
    text = os.fspath(dataset)
    if text == DIGITS:
        return Source(DIGITS, _digits, split=_pick_split(["train"], split, DIGITS))
    path = Path(text).expanduser()
    if path.exists():
        return _open_folder(path, name=name, split=split, streaming=streaming)
    if isinstance(dataset, os.PathLike) or _looks_like_path(text):
        raise DatasetNotFoundError(f"no such folder: {text!r} (looked from {Path.cwd()})")
    return _open_hub(text, name=name, split=split, revision=revision, token=token, streaming=streaming)


def _open_object(dataset: Any, split: str | None, folder: Path | None = None) -> Source:
    import datasets

    if isinstance(dataset, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        names = [str(key) for key in dataset]
        chosen: str | None = _pick_split(names, split, f"the {type(dataset).__name__}")
        data = dataset[chosen]
    elif isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
        data, names = dataset, []
        chosen = None if data.split is None else str(data.split)
        if split is not None and split != chosen:
            raise DatasetNotFoundError(
                f"split {split!r} was asked for, but a {type(dataset).__name__} is a single split"
                f"{f' ({chosen!r})' if chosen else ''}; pass the DatasetDict, or leave split out"
            )
    else:
        raise TaskError(
            f"a {type(dataset).__name__} is no dataset; pass a Hub id, a folder, {DIGITS!r}, or a datasets.Dataset, "
            "DatasetDict or IterableDataset (datasets.Dataset.from_dict and from_generator make one)"
        )
    return Source(
        folder.name if folder is not None else data.info.dataset_name or "dataset",
        lambda: data,
        config_name=data.info.config_name,
        split=chosen,
        other_splits=tuple(key for key in names if key != chosen),
        folder=folder,
    )


def _open_folder(path: Path, *, name: str | None, split: str | None, streaming: bool) -> Source:
    import datasets

    path = path.resolve()  # an absolute path is never taken for a Hub id
    if not path.is_dir():
        raise DatasetNotFoundError(f"{path.name!r} is a file; pass the folder that holds it")
    if not any(path.iterdir()):
        raise DatasetNotFoundError(
            f"the folder {path.name!r} is empty; what would work: one subfolder of images a class, or parquet files"
        )
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _open_object(datasets.load_from_disk(str(path)), split, path)
    with _translated(path.name):
        builder = datasets.load_dataset_builder(str(path), name)
    return _open_builder(
        builder, path.name, split, streaming, f"the folder {path.name!r}", config_name=name, folder=path
    )


def _open_hub(
    hub_id: str, *, name: str | None, split: str | None, revision: str | None, token: Any, streaming: bool
) -> Source:
    import datasets

    if not _HUB_ID.fullmatch(hub_id):
        raise DatasetNotFoundError(f"{hub_id!r} is neither a folder nor a Hub dataset id (org/name)")
    # Everything is read at one commit, so that the recorded revision is the one that was used.
    kept = kept_listing(hub_id, name, revision, token)
    commit = None
    try:
        commit = _ask_commit(hub_id, revision, token)
        listing = kept if kept is not None and kept.commit == commit else None
    except HubUnavailableError as error:
        logger.info("%s", error)
        listing = kept
    except HubError as error:  # opening the dataset tells better
        logger.debug("commit of dataset %s unknown: %s", hub_id, error)
        listing = None

    def build() -> datasets.DatasetBuilder:
        where = {"revision": commit or revision, "token": token}
        with _translated(hub_id, token=token, revision=revision):
            return datasets.load_dataset_builder(hub_id, name, **where)

    def opened(builder: datasets.DatasetBuilder) -> Source:
        facts = {"config_name": name, "revision": commit, "token": token, "may_read": of_the_dataset}
        return _open_builder(builder, hub_id, split, streaming, f"dataset {hub_id!r}", **facts)

    if listing is None:
        builder = build()
        if commit is not None:
            listing = list_files(hub_id, name, revision, token, commit, builder)
        if listing is None:
            return opened(builder)
    chosen = _pick_split(list(listing.splits), split, f"dataset {hub_id!r}")
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
        token=token,
        may_read=of_the_dataset,
    )


def _open_builder(
    builder: datasets.DatasetBuilder, dataset: str, split: str | None, streaming: bool, place: str, **facts: Any
) -> Source:
    """Open what `datasets` found, as `datasets.load_dataset` does."""
    names = [str(key) for key in builder.info.splits or builder.config.data_files or ()]
    chosen = _pick_split(names, split, place)
    token = facts.get("token")
    with _translated(dataset, token=token, revision=facts.get("revision")):
        if streaming:
            data = builder.as_streaming_dataset(split=chosen)
        else:
            builder.download_and_prepare()
            data = builder.as_dataset(split=chosen)
    if facts.get("folder") is None:
        facts["config_name"] = facts["config_name"] or data.info.config_name
        facts["revision"] = facts["revision"] or _commit_of_cache(data)
    others = tuple(key for key in names if key != chosen)
    return Source(dataset, lambda: data, split=chosen, other_splits=others, **facts)


def _pick_split(names: list[str], requested: str | None, place: str) -> str:
    if requested is not None:
        parts = [re.sub(r"\[.*?\]|\(.*?\)", "", part).strip() for part in requested.split("+")]
        unknown = [part for part in parts if part not in names and part != "all"]
        if unknown:
            raise DatasetNotFoundError(f"no split {unknown[0]!r} in {place}; splits found: {', '.join(names)}")
        return requested
    if "train" in names or len(names) == 1:
        chosen = "train" if "train" in names else names[0]
        logger.info("split %r of %s is used; splits found: %s", chosen, place, ", ".join(names))
        return chosen
    raise DatasetNotFoundError(
        f"{place} has no split 'train' to take by default; pass split=… (splits found: {', '.join(names) or 'none'})"
    )


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1 or text.endswith("/")


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
    info = session.call(
        "finding its commit",
        session.api.dataset_info,
        hub_id,
        revision=revision,
        expand=["gated", "sha"],
        limit=REQUEST_TIMEOUT,
        attempts=2,
    )
    if info.gated:  # anyone may know its commit; what is in the cache is for those with access only
        session.call("asking for access", session.api.auth_check, hub_id, repo_type="dataset", limit=REQUEST_TIMEOUT)
    return info.sha


def _commit_of_cache(data: Any) -> str | None:
    """Return the commit that a cached copy was made of: `datasets` names its folder by it."""
    folders = {Path(file["filename"]).parent.name for file in getattr(data, "cache_files", ())}
    return folders.pop() if len(folders) == 1 and all(map(_COMMIT.fullmatch, folders)) else None


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

    try:
        with reading(dataset, token):
            yield
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DatasetNotFoundError(
            f"no dataset {dataset!r}{f' at revision {revision!r}' if revision else ''}: {_text(error, token)} Check "
            "the spelling; a private or gated dataset needs token=… of an account that has access"
        ) from error
    except RuntimeError as error:
        if "script" not in str(error):
            raise
        raise TaskError(
            f"dataset {dataset!r} is made by a Python script, which `datasets` no longer runs. What would work: "
            "revision='refs/convert/parquet' (the Hub's own Parquet copy, where there is one), or a folder of Parquet "
            "files or of images without the script"
        ) from error
    except (FileNotFoundError, ValueError, datasets.exceptions.DatasetsError) as error:
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


def _digits() -> datasets.Dataset:
    import datasets
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Plain PGM rather than PNG: the same bytes, and so the same fingerprint, whatever zlib is installed.
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    cells = [{"bytes": b"P5\n8 8\n255\n" + image.tobytes(), "path": None} for image in grey]
    names = [str(name) for name in digits.target_names]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    return datasets.Dataset.from_dict({"image": cells, "label": digits.target.tolist()}, features=features)
