"""Opening datasets: a Hub id or page, a local folder or file, an object, or the built-in sample, down to one split."""

from __future__ import annotations

import fnmatch
import io
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import ColumnError, DatasetNotFoundError, ImageDecodeError, TaskError
from hf_task2vec.tasks.columns import Feature, find_image_column, of_arrow, of_schema
from hf_task2vec.tasks.folders import ARCHIVES, CURES, TABLES, Files, suffix_of, walk
from hf_task2vec.tasks.hub_datasets import commit_of, open_hub, reading
from hf_task2vec.tasks.layout import Reading, lay_out, pick_split, shard_split
from hf_task2vec.tasks.parquet.local import LocalSplit, beside, understood
from hf_task2vec.tasks.rows import Data, Listed
from hf_task2vec.tasks.source import Source

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from hf_task2vec.tasks.labels import Warn

__all__ = ["DIGITS", "Source", "commit_of", "open_source", "reading"]

logger = logging.getLogger(__name__)

DIGITS = "sklearn:digits"
"""Name of the built-in offline sample: the 1,797 handwritten 8x8 digits that come with scikit-learn."""

_PAGE = re.compile(
    r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)?datasets/(?P<id>[\w.-]+(?:/[\w.-]+)?)"
    r"(?:@(?P<at>[\w.-]+)|/(?:tree|blob|resolve)/(?P<revision>[^/?#]+)[^?#]*|/(?:viewer|discussions)[^?#]*)?/?(?:[?#].*)?"
)


def open_source(
    dataset: Any,
    *,
    name: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    streaming: bool = False,
    label_column: str | None = None,
    labels_from: str | None = None,
    warn: Warn = logger.warning,
) -> Source:
    """Open one split; see `Task.from_dataset` for the parameters and errors."""
    if not isinstance(dataset, (str, os.PathLike)):
        return _open_object(dataset, split)
    text = os.fspath(dataset)
    if text == DIGITS:
        return Source(DIGITS, _digits, split=pick_split(["train"], split, DIGITS))
    path = Path(text).expanduser()
    if path.exists():
        return _open_local(path.resolve(), name, split, label_column, labels_from, warn)
    if isinstance(dataset, str) and (page := _PAGE.fullmatch(text)) and (text.count("/") > 2 or "://" in text):
        text, revision = page["id"], revision or page["revision"] or page["at"]
    elif isinstance(dataset, os.PathLike) or _looks_like_path(text):
        raise DatasetNotFoundError(f"no such folder: {text!r} (looked from {Path.cwd()})")
    return open_hub(text, name=name, split=split, revision=revision, token=token, streaming=streaming)


def _open_object(dataset: Any, split: str | None, folder: Path | None = None) -> Source:
    library = type(dataset).__module__.partition(".")[0]
    if library != "datasets":
        if split is not None:
            raise DatasetNotFoundError(
                f"split {split!r} was asked for, but a {type(dataset).__name__} is a single split"
            )
        data = _listed(dataset)
        return Source("dataset", lambda: data)
    import datasets

    if isinstance(dataset, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        names = [str(key) for key in dataset]
        chosen: str | None = pick_split(names, split, f"the {type(dataset).__name__}")
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
        raise _no_dataset(dataset)
    return Source(
        folder.name if folder is not None else data.info.dataset_name or "dataset",
        lambda: data,
        config_name=data.info.config_name,
        split=chosen,
        other_splits=tuple(key for key in names if key != chosen),
    )


def _no_dataset(dataset: Any) -> TaskError:
    return TaskError(
        f"a {type(dataset).__name__} is no dataset; pass a Hub id, a folder, {DIGITS!r}, a datasets.Dataset, "
        "DatasetDict or IterableDataset, a pandas.DataFrame with a column of images or paths, a torch dataset of "
        "(image, class), or a list of (image, label) pairs"
    )


def _listed(dataset: Any) -> Listed:
    """Return the rows of a DataFrame, of a torch dataset, or of a list of pairs."""
    import pyarrow as pa

    if hasattr(dataset, "columns") and hasattr(dataset, "to_dict"):
        return _of_frame(dataset)
    found = _pairs(dataset)
    if found is None:
        raise _no_dataset(dataset)
    images, labels, names = found
    plain = [label.tolist() if hasattr(label, "tolist") else label for label in labels]
    try:
        column = pa.array(plain)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TaskError(f"the labels of the {type(dataset).__name__} are of mixed types: {error}") from error
    label = Feature("ClassLabel", names=tuple(names)) if names else of_arrow(column.type)
    features = {"image": Feature("Image"), "label": label}
    return Listed(pa.table({"label": column}), features, images, as_cell)


def _of_frame(frame: Any) -> Listed:
    import pyarrow as pa

    def cells(name: Any) -> list[Any]:
        return list(frame[name])

    def looks_like_images(name: Any) -> bool:
        first = next((cell for cell in cells(name)[:100] if not _is_missing(cell)), None)
        text = isinstance(first, (str, os.PathLike)) and re.search(r"(?i)\.\w{2,5}$|://", os.fspath(first))
        drawn = hasattr(first, "getbands") or getattr(first, "ndim", 0) in (2, 3)
        return bool(text) or isinstance(first, (bytes, dict)) or drawn

    found = [name for name in frame.columns if looks_like_images(name)]
    if not found:
        raise ColumnError(
            f"no image column in the DataFrame; columns found: {', '.join(map(str, frame.columns))[:200]}. What would "
            "work: a column of paths, bytes or PIL images"
        )
    found.sort(key=lambda name: str(name).lower() not in ("image", "img", "path", "file_name", "filename"))
    image, columns = found[0], {}
    for name in frame.columns:
        if name != image:
            try:
                columns[str(name)] = pa.Array.from_pandas(frame[name])
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                columns[str(name)] = pa.array([None if cell is None else str(cell) for cell in cells(name)])
    table = pa.table({name: c if isinstance(c, pa.Array) else c.combine_chunks() for name, c in columns.items()})
    features = {str(image): Feature("Image"), **of_schema(table.schema)}
    return Listed(table, features, [None if _is_missing(cell) else cell for cell in cells(image)], as_cell)


def _is_missing(cell: Any) -> bool:
    """Return whether pandas has no value here."""
    return cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell)


def _pairs(dataset: Any) -> tuple[Sequence[Any], Sequence[Any], Sequence[str]] | None:
    """Return the images, labels and class names of a list of pairs or a torch dataset, None if it is neither.

    Labels are taken from where torchvision's datasets keep them; only where there is no such place, images are opened.
    """
    if isinstance(dataset, (list, tuple)):
        if not dataset or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in dataset):
            return None
        return [pair[0] for pair in dataset], [pair[1] for pair in dataset], ()
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")) or isinstance(dataset, (str, bytes, dict)):
        return None
    if getattr(dataset, "datasets", None) and hasattr(dataset, "cumulative_sizes"):
        return _joined([_pairs(part) for part in dataset.datasets])
    names = [str(name) for name in getattr(dataset, "classes", ())]
    changed = getattr(dataset, "target_transform", None)
    if changed is not None:  # the classes are others than the names say
        names = []
    if isinstance(samples := getattr(dataset, "samples", None), list) and samples and len(samples[0]) == 2:
        labels = [sample[1] if changed is None else changed(sample[1]) for sample in samples]
        return [sample[0] for sample in samples], labels, names
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        inner = _pairs(dataset.dataset)
        if inner is None:
            return None
        return [inner[0][i] for i in dataset.indices], [inner[1][i] for i in dataset.indices], inner[2]
    images = [partial(_item, dataset, i) for i in range(len(dataset))]
    for attribute in ("targets", "labels", "_labels"):
        found: Any = getattr(dataset, attribute, ())
        if hasattr(found, "__len__") and len(found) == len(dataset) > 0:
            return images, list(found) if changed is None else list(map(changed, found)), names
    if not len(dataset) or not isinstance(first := dataset[0], (list, tuple)) or len(first) < 2:
        return None
    return images, [dataset[i][1] for i in range(len(dataset))], names


def _joined(
    parts: Sequence[tuple[Sequence[Any], Sequence[Any], Sequence[str]] | None],
) -> tuple[Sequence[Any], Sequence[Any], Sequence[str]] | None:
    """Return several datasets as one."""
    found = [part for part in parts if part is not None]
    names = {tuple(part[2]) for part in found}
    if len(names) > 1:
        first, second = (", ".join(classes[:4]) or "no names" for classes in sorted(names)[:2])
        raise TaskError(
            f"datasets of different classes are put together ({first}; {second}), whose numbers mean different things; "
            "pass them as (image, name of the class)"
        )
    if len(found) < len(parts):
        return None
    images, labels = ([item for part in found for item in part[i]] for i in (0, 1))
    return images, labels, next(iter(names))


def _item(dataset: Any, index: int) -> Any:
    return dataset[index][0]


def as_cell(image: Any) -> Any:
    """Return an image in memory, or a way to it, as `images.read_encoded` takes it."""
    if callable(image):
        image = image()
    if isinstance(image, (bytes, dict)) or image is None:
        return image
    if isinstance(image, (str, os.PathLike)):
        return {"path": os.fspath(image)}
    from PIL import Image

    if not isinstance(image, Image.Image):
        import numpy as np

        values = np.asarray(image)
        if values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[2] not in (1, 3):
            values = values.transpose(1, 2, 0)  # torch has the channels first
        if values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1:
            values = np.rint(values * 255)
        elif values.dtype != np.uint8:
            raise ImageDecodeError(
                f"an array of {values.dtype} from {values.min():.3g} to {values.max():.3g} is no image; pass the "
                "dataset without its transform"
            )
        image = Image.fromarray(values.astype(np.uint8).squeeze())
    stream = io.BytesIO()
    image.save(stream, "TIFF" if image.mode in ("F", "CMYK", "YCbCr", "LAB", "HSV") else "PNG")
    return stream.getvalue()


def _open_local(
    path: Path, name: str | None, split: str | None, label_column: str | None, labels_from: str | None, warn: Warn
) -> Source:
    """Open a folder, or a file that holds a dataset."""
    if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
        import datasets

        return _open_object(datasets.load_from_disk(str(path)), split, path)
    place = f"the folder {path.name!r}" if path.is_dir() else repr(path.name)
    if path.is_dir():
        files = walk(path)
    elif (suffix := suffix_of(path.name)) in ("parquet", "pq", "arrow", "feather"):
        files = Files(path.parent, parquet=[path.name] if suffix in ("parquet", "pq") else [])
        files.arrow = [] if files.parquet else [path.name]
    elif suffix in TABLES:
        files, labels_from = walk(path.parent), labels_from or path.name
    elif suffix in ARCHIVES:
        files = walk(path)
    else:
        raise DatasetNotFoundError(
            f"{path.name!r} is a file; pass the folder that holds it, or a .parquet, .arrow, .zip, .tar or .csv file"
        )
    config, declared = _configuration(path, name, files, warn) if path.is_dir() else (name, {})
    others: tuple[str, ...] = ()
    chosen: str | None = None
    if declared:
        chosen = pick_split(list(declared), split, place)
        files, split = files.only(partial(_matches, declared[chosen])), None
        others = tuple(key for key in declared if key != chosen)
    said = Reading()
    if files.parquet or files.arrow:
        by_split: dict[str, list[str]] = defaultdict(list)
        for file in sorted(files.parquet or files.arrow):
            by_split[(not declared and shard_split(file)) or "train"].append(file)
        at = chosen if chosen in by_split else pick_split(list(by_split), split, place)
        paths = by_split[at]
        data: Data = LocalSplit(files.root, paths) if files.parquet else _arrow(files.root, paths)
        has_images = _has_images(data)
        if not has_images and files.parquet:  # a table of paths
            files.tables += files.parquet
            if not path.is_dir():
                files = walk(path.parent)
                files.tables, labels_from = [path.name], labels_from or path.name
        if has_images or not (files.n_images and files.tables):
            chosen = chosen or at
            said.left_out = {"a picture beside the data": files.n_images} if files.n_images else {}
            others = others or tuple(key for key in by_split if key != at)
            return Source(path.name, lambda: data, config_name=config, split=chosen, other_splits=others, reading=said)
    laid = lay_out(
        files, place=place, split=split, labels_from=labels_from, label_column=label_column, reading=said, warn=warn
    )
    for reason, left in files.left_out.items():
        if reason in CURES:
            more = ", …" if left.count > len(left.names) else ""
            warn(f"{left.count} left out: {reason} ({', '.join(left.names)}{more}){CURES[reason]}")
    said.left_out = {reason: left.count for reason, left in files.left_out.items()}
    said.examples = {reason: tuple(left.names) for reason, left in files.left_out.items()}
    listed = Listed(laid.columns, laid.features, laid.images, files.cell, laid.choice)
    return Source(
        path.name,
        lambda: listed,
        config_name=config,
        split=chosen or laid.split,
        other_splits=others or laid.other_splits,
        reading=said,
    )


def _has_images(data: Data) -> bool:
    try:
        find_image_column(data.features, None, data.first_value)
    except ColumnError:
        return False
    return True


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


def _configuration(folder: Path, name: str | None, files: Files, warn: Warn) -> tuple[str | None, dict[str, list[str]]]:
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
    if name is not None and name not in configs:
        raise DatasetNotFoundError(
            f"dataset {folder.name!r} has no such configuration; pass name=… with one of {sorted(configs)}"
        )
    default = [key for key, config in configs.items() if config.get("default")] or list(configs)
    if name is None and len(default) > 1:
        raise DatasetNotFoundError(
            f"dataset {folder.name!r} has several configurations; pass name=… with one of {list(configs)}"
        )
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
    if list(splits) == [""]:  # no split is named: the names of files and folders tell
        limited = files.only(partial(_matches, splits[""]))
        vars(files).update(vars(limited))
        return chosen, {}
    return chosen, splits


def _matches(patterns: Iterable[str], path: str) -> bool:
    plain = (pattern.removeprefix("./").rstrip("/") for pattern in patterns)
    return any(
        path == item or path.startswith(f"{item}/") or fnmatch.fnmatch(path, item.replace("**", "*")) for item in plain
    )


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1 or text.endswith("/")


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
