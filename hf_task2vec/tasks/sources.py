"""Opening datasets: a Hub id or page, a local folder or file, an object, or the built-in sample, down to one split."""

from __future__ import annotations

import difflib
import fnmatch
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import ColumnError, DatasetNotFoundError, TaskError
from hf_task2vec.files import expanded
from hf_task2vec.tasks.columns import Feature, find_image_column, of_schema
from hf_task2vec.tasks.folders import ARCHIVES, Files, suffix_of, walk
from hf_task2vec.tasks.hub_datasets import open_hub
from hf_task2vec.tasks.layout import Folder
from hf_task2vec.tasks.objects import read_object
from hf_task2vec.tasks.parquet.local import LocalSplit, beside, understood
from hf_task2vec.tasks.rows import Data, Listed
from hf_task2vec.tasks.source import Reading, Sampling, Source, pick_split, shard_split, split_of
from hf_task2vec.tasks.text import listed, shown

if TYPE_CHECKING:
    import pyarrow as pa

    from hf_task2vec.tasks.labels import Warn

logger = logging.getLogger(__name__)

DIGITS = "sklearn:digits"  # the offline sample: 1,797 handwritten 8x8 digits that come with scikit-learn
# Datasets of the time before names had an organisation, to which the Hub still redirects.
_OLD_NAMES = {"mnist", "fashion_mnist", "cifar10", "cifar100", "food101", "beans", "svhn", "cats_vs_dogs"}
_OLD_NAMES |= {"imagenet-1k", "imagenet_sketch"}
_PAGE = re.compile(
    r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)?datasets/(?P<id>[\w.-]+(?:/[\w.-]+)?)"
    r"(?:@(?P<at>[\w.-]+)|/(?:tree|blob|resolve)/(?P<revision>[^/?#]+)[^?#]*|/(?:viewer|discussions)[^?#]*)?/?(?:[?#].*)?"
)


def open_source(
    dataset: Any, sampling: Sampling, token: str | bool | None = None, warn: Warn = logger.warning
) -> Source:
    """Open one split; see `Task.from_dataset` for the parameters and errors."""
    if not isinstance(dataset, (str, os.PathLike)):
        return _open_object(dataset, sampling.split)
    text = os.fspath(dataset)
    if text == DIGITS:
        return Source(DIGITS, _digits, split=pick_split(["train"], sampling.split, DIGITS))
    path = expanded(text)
    if path.exists():
        return _open_local(path.resolve(), sampling, warn)
    if isinstance(dataset, str) and (page := _PAGE.fullmatch(text)) and (text.count("/") > 2 or "://" in text):
        revision = sampling.revision or page["revision"] or page["at"]
        text, sampling = page["id"], replace(sampling, revision=revision)
    elif isinstance(dataset, os.PathLike) or _looks_like_path(text) or ("/" not in text and text not in _OLD_NAMES):
        raise _not_there(text)
    return open_hub(text, sampling, token, warn)


def _not_there(text: str) -> DatasetNotFoundError:
    """Return the error of a path, or a word that is no path and no Hub id, with names like it that are there."""
    path = Path(text)
    try:
        names = os.listdir(path.parent)  # noqa: PTH208 (names are wanted)
    except (OSError, ValueError):
        names = []
    near = [str(path.with_name(name)) for name in difflib.get_close_matches(path.name, names, cutoff=0.5)]
    hub = "" if _looks_like_path(text) else f". A dataset of the Hub is named org/name, or hf://datasets/{shown(text)}"
    return DatasetNotFoundError(
        f"no such folder: {shown(text, 120)!r} (looked from {Path.cwd()}){f'; near it: {listed(near)}' if near else ''}"
        f"{hub}"
    )


def _open_object(dataset: Any, split: str | None, folder: Path | None = None) -> Source:
    library, place = type(dataset).__module__.partition(".")[0], f"a {type(dataset).__name__}"
    chosen, others = None, tuple[str, ...]()
    if isinstance(dataset, dict) and (library == "datasets" or all(split_of(str(key)) for key in dataset)):
        chosen = pick_split([str(key) for key in dataset], split, f"the {place[2:]}")
        others = tuple(str(key) for key in dataset if key != chosen)
        dataset, split = dataset[chosen], None
    elif library == "datasets" and getattr(dataset, "split", None) is not None:
        chosen = str(dataset.split)
    if split not in (chosen, None):
        raise DatasetNotFoundError(
            f"split {split!r} was asked for, but {place} is a single split{f' ({chosen!r})' if chosen else ''}; pass a "
            "DatasetDict or dictionary of splits, or leave split out"
        )
    if type(dataset).__module__.partition(".")[0] == "datasets":
        import datasets

        if isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
            name = folder.name if folder is not None else dataset.info.dataset_name or "dataset"
            config = dataset.info.config_name
            return Source(name, lambda: dataset, config_name=config, split=chosen, other_splits=others)
    if (rows := read_object(dataset)) is None:
        raise TaskError(
            f"a {type(dataset).__name__} is no dataset; pass a Hub id, a folder, {DIGITS!r}, a Dataset or DatasetDict "
            "of `datasets`, a DataFrame or Arrow table with a column of images or paths, a torch dataset of (image, "
            "class), arrays (X, y), or a list of (image, label) pairs"
        )
    return Source("dataset", lambda: rows, split=chosen, other_splits=others)


def _open_local(path: Path, sampling: Sampling, warn: Warn) -> Source:
    """Open a folder, or a file that holds a dataset."""
    name, split, labels_from = sampling.name, sampling.split, sampling.labels_from
    if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
        import datasets

        return _open_object(datasets.load_from_disk(str(path)), split, path)
    place = f"the folder {path.name!r}" if path.is_dir() else repr(path.name)
    if path.is_dir() or suffix_of(path.name) in ARCHIVES:
        files = walk(path)
    else:
        files = Files(path.parent)
        files.add("", path.name, lambda: b"")
        if files.tables:
            files, labels_from = replace(walk(path.parent), parquet=[], arrow=[]), labels_from or path.name
        elif not (files.parquet or files.arrow):
            raise DatasetNotFoundError(
                f"{path.name!r} is a file; pass the folder that holds it, or a .parquet, .arrow, .zip, .tar or .csv "
                "file"
            )
    config, declared = _configuration(path, name, warn) if path.is_dir() else (name, {})
    others: tuple[str, ...] = ()
    chosen: str | None = None
    if list(declared) == [""]:  # no split is named: the names of files and folders tell
        files, declared = files.only(partial(_matches, declared[""])), {}
    if declared:
        chosen = pick_split(list(declared), split, place)
        files, split = files.only(partial(_matches, declared[chosen])), None
        others = tuple(key for key in declared if key != chosen)
    if files.parquet or files.arrow:
        by_split: dict[str, list[str]] = defaultdict(list)
        for file in sorted(files.parquet or files.arrow):
            by_split[(not declared and shard_split(file)) or "train"].append(file)
        at = chosen if chosen in by_split else pick_split(list(by_split), split, place)
        paths = by_split[at]
        data: Data = LocalSplit(files.root, paths) if files.parquet else _arrow(files.root, paths)
        has_images = False
        with suppress(ColumnError):
            find_image_column(data.features, None, data.first_value)
            has_images = True
        if not has_images and files.parquet:  # a table of paths
            files.tables += files.parquet
            if not path.is_dir():
                files = walk(path.parent)
                files.tables, labels_from = [path.name], labels_from or path.name
        if has_images or not (files.n_images and files.tables):
            chosen = chosen or at
            left_out = {"a picture beside the data": files.n_images} if files.n_images else {}
            said = Reading(left_out=left_out)
            others = others or tuple(key for key in by_split if key != at)
            return Source(path.name, lambda: data, config_name=config, split=chosen, other_splits=others, reading=said)
    wanted = replace(sampling, split=split, labels_from=labels_from)
    laid = replace(Folder(files, place, wanted, warn).read(), dataset=path.name, config_name=config)
    return replace(laid, split=chosen, other_splits=others) if chosen else laid


def _arrow(root: Path, paths: Iterable[str]) -> Listed:
    """Return Arrow files, mapped into memory: only what is used of them is read."""
    import pyarrow as pa

    tables: list[pa.Table] = []
    for path in paths:
        with understood(root / path):
            source = pa.memory_map(str(root / path))
            try:
                tables.append(pa.ipc.open_file(source).read_all())
            except pa.ArrowInvalid:
                source.seek(0)
                tables.append(pa.ipc.open_stream(source).read_all())
    table = pa.concat_tables(tables, promote_options="permissive")
    return Listed(table, of_schema(tables[0].schema), cell=partial(beside, root))


def _configuration(folder: Path, name: str | None, warn: Warn) -> tuple[str | None, dict[str, list[str]]]:
    """Return the configuration that a README chooses, and its patterns of files by split, none if it has none."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        text = ""
    match = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
    configs: dict[str, Any] = {}
    if match is not None and "configs:" in match[1]:
        import yaml

        try:
            found = yaml.safe_load(match[1]).get("configs") or []
            configs = {str(config["config_name"]): config for config in found}
        except yaml.MarkedYAMLError as error:
            line = f", line {error.problem_mark.line + 2}" if error.problem_mark else ""
            warn(f"README.md{line} is no valid YAML ({error.problem}); the configurations in it are not used")
        except (AttributeError, KeyError, TypeError):
            warn("the configurations in README.md are not understood and not used")
    default = [key for key, config in configs.items() if config.get("default")] or list(configs)
    if len(default) > 1 if name is None else name not in configs:
        what = "several configurations" if name is None else "no such configuration"
        raise DatasetNotFoundError(f"dataset {folder.name!r} has {what}; pass name=… with one of {list(configs)}")
    chosen = name or next(iter(default), None)
    if chosen is None:
        return None, {}
    config = configs[chosen]
    inside, declared = config.get("data_dir"), config.get("data_files") or ["**"]
    splits: dict[str, list[str]] = {}
    for item in declared if isinstance(declared, list) else [declared]:
        split, paths = (item.get("split", "train"), item.get("path")) if isinstance(item, dict) else ("", item)
        found = paths if isinstance(paths, list) else [paths]
        splits.setdefault(str(split), []).extend(f"{inside}/{path}" if inside else str(path) for path in found)
    return chosen, splits


def _matches(patterns: Iterable[str], path: str) -> bool:
    plain = (pattern.removeprefix("./").rstrip("/") for pattern in patterns)
    return any(
        path == item or path.startswith(f"{item}/") or fnmatch.fnmatch(path, item.replace("**", "*")) for item in plain
    )


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1 or text.endswith("/")


def _digits() -> Data:
    """Read the file of scikit-learn, without importing it: that and `datasets` would take a second and more."""
    from importlib.util import find_spec

    import numpy as np
    import pyarrow as pa

    place = find_spec("sklearn")
    assert place is not None  # a dependency
    assert place.origin is not None
    table = np.loadtxt(Path(place.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    # Plain PGM rather than PNG: the same bytes, and so the same fingerprint, whatever zlib is installed.
    grey = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8)
    labels = pa.table({"label": table[:, -1].astype(np.int64)})
    names = tuple(map(str, range(10)))
    features = {"image": Feature("Image"), "label": Feature("ClassLabel", "int64", names)}
    return Listed(labels, features, lambda row: {"bytes": b"P5\n8 8\n255\n" + grey[row].tobytes(), "path": None})
