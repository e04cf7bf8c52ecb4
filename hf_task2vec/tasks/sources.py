"""Opening datasets: a Hub id or page, a local folder or file, an object, or the built-in sample, down to one split."""

from __future__ import annotations

import fnmatch
import io
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import ColumnError, DatasetNotFoundError, ImageDecodeError, TaskError
from hf_task2vec.tasks.columns import Feature, find_image_column, of_arrow, of_schema
from hf_task2vec.tasks.folders import ARCHIVES, CURES, TABLES, Files, suffix_of, walk
from hf_task2vec.tasks.hub_datasets import commit_of, open_hub, reading
from hf_task2vec.tasks.layout import Reading, lay_out, pick_split, shard_split, split_of
from hf_task2vec.tasks.parquet.local import beside, local_split, understood
from hf_task2vec.tasks.rows import Data, Listed
from hf_task2vec.tasks.source import Sampling, Source
from hf_task2vec.tasks.text import listed

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
    from PIL import Image

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
    dataset: Any, sampling: Sampling, token: str | bool | None = None, warn: Warn = logger.warning
) -> Source:
    """Open one split; see `Task.from_dataset` for the parameters and errors."""
    if not isinstance(dataset, (str, os.PathLike)):
        return _open_object(dataset, sampling.split)
    text = os.fspath(dataset)
    if text == DIGITS:
        return Source(DIGITS, _digits, split=pick_split(["train"], sampling.split, DIGITS))
    path = Path(text).expanduser()
    if path.exists():
        return _open_local(path.resolve(), sampling, warn)
    if isinstance(dataset, str) and (page := _PAGE.fullmatch(text)) and (text.count("/") > 2 or "://" in text):
        revision = sampling.revision or page["revision"] or page["at"]
        text, sampling = page["id"], replace(sampling, revision=revision)
    elif isinstance(dataset, os.PathLike) or _looks_like_path(text):
        raise DatasetNotFoundError(f"no such folder: {text!r} (looked from {Path.cwd()})")
    return open_hub(text, sampling, token, warn)


def _open_object(dataset: Any, split: str | None, folder: Path | None = None) -> Source:
    library, place = type(dataset).__module__.partition(".")[0], f"a {type(dataset).__name__}"
    chosen, others = None, tuple[str, ...]()
    if isinstance(dataset, dict) and (library == "datasets" or all(split_of(str(key)) for key in dataset)):
        chosen = pick_split([str(key) for key in dataset], split, f"the {place[2:]}")
        others = tuple(str(key) for key in dataset if key != chosen)
        dataset = dataset[chosen]
    elif library == "datasets" and getattr(dataset, "split", None) is not None:
        chosen = str(dataset.split)
    if split is not None and not others and split not in (chosen, None):
        raise DatasetNotFoundError(
            f"split {split!r} was asked for, but {place} is a single split{f' ({chosen!r})' if chosen else ''}; pass a "
            "DatasetDict or dictionary of splits, or leave split out"
        )
    if type(dataset).__module__.partition(".")[0] != "datasets":
        rows = _listed(dataset)
        return Source("dataset", lambda: rows, split=chosen, other_splits=others)
    import datasets

    if not isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
        raise _no_dataset(dataset)
    name = folder.name if folder is not None else dataset.info.dataset_name or "dataset"
    return Source(name, lambda: dataset, config_name=dataset.info.config_name, split=chosen, other_splits=others)


def _no_dataset(dataset: Any) -> TaskError:
    return TaskError(
        f"a {type(dataset).__name__} is no dataset; pass a Hub id, a folder, {DIGITS!r}, a Dataset or DatasetDict of "
        "`datasets`, a DataFrame or Arrow table with a column of images or paths, a torch dataset of (image, class), "
        "arrays (X, y), or a list of (image, label) pairs"
    )


def _listed(dataset: Any) -> Listed:
    """Return the rows of a table, of a torch dataset, or of a list of pairs."""
    import pyarrow as pa

    if hasattr(dataset, "columns") and hasattr(dataset, "to_dict"):  # pandas, whose cells may be any objects
        return _of_columns({name: dataset[name] for name in dataset.columns}, "the DataFrame")
    if hasattr(dataset, "__arrow_c_stream__"):  # Arrow, polars, DuckDB …
        table = pa.table(dataset)
        known = of_schema(table.schema)
        return _of_columns({name: table.column(name) for name in table.column_names}, "the table", known)
    if isinstance(dataset, dict):
        return _of_columns(dataset, "the dictionary")
    found = _pairs(dataset)
    if found is None:
        if _is_map(dataset) and len(dataset) and isinstance(first := dataset[0], Mapping):
            return _of_columns(_items(dataset, first), "the items")
        raise _no_dataset(dataset)
    images, labels, names = found
    try:
        column = pa.array(map(_plain, labels))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TaskError(f"the labels of the {type(dataset).__name__} are of mixed types: {error}") from error
    label = Feature("ClassLabel", names=tuple(names)) if names else of_arrow(column.type)
    features = {"image": Feature("Image"), "label": label}
    return Listed(pa.table({"label": column}), features, images, as_cell)


def _of_columns(columns: Mapping[Any, Any], place: str, known: Mapping[str, Any] | None = None) -> Listed:
    """Return the rows of columns, of which one holds images, ways to them, or their paths."""
    import pyarrow as pa

    def looks_like_images(cells: Any) -> bool:
        first = next((cell for cell in map(_plain, cells[:100]) if not _is_missing(cell)), None)
        text = isinstance(first, (str, os.PathLike)) and re.search(r"(?i)\.\w{2,5}$|://", os.fspath(first))
        return bool(text) or isinstance(first, (bytes, dict)) or callable(first) or _is_drawn(first)

    def as_arrow(cells: Any) -> Any:
        try:
            return cells if known else pa.array(map(_plain, cells), from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return pa.array([None if cell is None else str(cell) for cell in cells])

    columns = {str(name): cells if known else list(cells) for name, cells in columns.items()}
    found = [name for name, cells in columns.items() if looks_like_images(cells)]
    if not found:
        raise ColumnError(
            f"no image column in {place}; columns found: {listed(columns)}. What would work: a column of paths, bytes "
            "or PIL images"
        )
    found.sort(key=lambda name: name.lower() not in ("image", "img", "path", "file_name", "filename"))
    image = found[0]
    table = pa.table({name: as_arrow(cells) for name, cells in columns.items() if name != image})
    features = {**of_schema(table.schema), **(known or {}), image: Feature("Image")}
    return Listed(table, features, columns[image], as_cell)


def _items(dataset: Any, first: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the items of a torch dataset that are dictionaries, in columns; of the image a way to it."""
    image = next((name for name, value in first.items() if _is_drawn(value) or isinstance(value, bytes)), None)
    columns: dict[str, list[Any]] = {name: [] for name in first}
    for i in range(len(dataset)):
        item = first if i == 0 else dataset[i]
        for name, cells in columns.items():
            cells.append(partial(_item, dataset, i, name) if name == image else item.get(name))
    return columns


def _plain(cell: Any) -> Any:
    """Return a cell of Arrow, numpy or torch as Python has it, but for pictures."""
    if hasattr(cell, "as_py"):
        return cell.as_py()
    return cell.tolist() if hasattr(cell, "tolist") and not _is_drawn(cell) else cell


def _is_drawn(value: Any) -> bool:
    return hasattr(value, "getbands") or getattr(value, "ndim", 0) in (2, 3)


def _is_missing(cell: Any) -> bool:
    """Return whether pandas has no value here."""
    return cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell)


def _is_map(dataset: Any) -> bool:
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and not isinstance(dataset, (str, bytes))


def _pairs(dataset: Any) -> tuple[Sequence[Any], Sequence[Any], Sequence[str]] | None:
    """Return the images, labels and class names of a list of pairs or a torch dataset, None if it is neither.

    Labels are taken from where torchvision's datasets keep them; only where there is no such place, images are opened.
    """
    if not _is_map(dataset) or isinstance(dataset, dict) or not len(dataset):
        return None
    if isinstance(dataset, tuple) and len(dataset) == 2 and all(map(_is_map, dataset)):  # (X, y)
        arrays = all(hasattr(part, "shape") for part in dataset)
        if len(dataset[0]) == len(dataset[1]) > (0 if arrays else 2):
            return dataset[0], dataset[1], ()
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
    for attribute in ("targets", "labels", "_labels"):
        found: Any = getattr(dataset, attribute, ())
        if hasattr(found, "__len__") and len(found) == len(dataset) > 0:
            images = [partial(_item, dataset, i, 0) for i in range(len(dataset))]
            return images, list(found) if changed is None else list(map(changed, found)), names
    first = dataset[0]
    if not isinstance(first, (list, tuple)) or len(first) < 2:
        return None
    image = next((i for i, part in enumerate(first) if _is_drawn(part)), 0)
    label = next((i for i, part in enumerate(first) if i > image and not _is_drawn(part)), None)
    if label is None or (isinstance(dataset, list) and any(len(row) != len(first) for row in dataset)):
        return None
    images = [partial(_item, dataset, i, image) for i in range(len(dataset))]
    return images, [dataset[i][label] for i in range(len(dataset))], names


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


def _item(dataset: Any, index: int, part: Any) -> Any:
    return dataset[index][part]


def as_cell(image: Any) -> Any:
    """Return an image in memory, or a way to it, as `images.read_encoded` takes it."""
    image = image() if callable(image) else image
    image = image.as_py() if hasattr(image, "as_py") else image
    if isinstance(image, (bytes, dict)) or _is_missing(image):
        return None if _is_missing(image) else image
    if isinstance(image, (str, os.PathLike)):
        return {"path": os.fspath(image)}
    from PIL import Image

    image = image if isinstance(image, Image.Image) else _drawn(image)
    stream = io.BytesIO()
    image.save(stream, "TIFF" if image.mode in ("F", "CMYK", "YCbCr", "LAB", "HSV") else "PNG")
    return stream.getvalue()


def _drawn(pixels: Any) -> Image.Image:
    """Return an array as a picture; greys of any numbers keep them, since the sample shows what they mean."""
    import numpy as np
    from PIL import Image

    values = np.asarray(pixels)
    if values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[2] not in (1, 3):
        values = values.transpose(1, 2, 0)  # torch has the channels first
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim not in (2, 3) or not values.size or values.dtype.kind not in "biuf":
        raise ImageDecodeError(
            f"an array of {values.dtype} and shape {values.shape} is no image; reshape to (height, width) or "
            "(height, width, 3)"
        )
    values = values * np.uint8(255) if values.dtype.kind == "b" else values
    low, high = values.min(), values.max()
    if values.ndim == 2 and low >= 0 and values.dtype.itemsize > 1:
        return Image.fromarray(values.astype("uint16" if values.dtype == np.uint16 else "float32"))
    if values.dtype.kind == "f" and low >= 0 and high <= 255:
        values = np.rint(values * (255 if high <= 1 else 1))
    elif values.dtype.kind == "f" or low < 0 or high > 255:
        raise ImageDecodeError(
            f"an array of {values.dtype} from {low:.3g} to {high:.3g} is no image; pass the dataset without its "
            "transform"
        )
    return Image.fromarray(values.astype(np.uint8))


def _open_local(path: Path, sampling: Sampling, warn: Warn) -> Source:
    """Open a folder, or a file that holds a dataset."""
    name, split, labels_from = sampling.name, sampling.split, sampling.labels_from
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
        data: Data = local_split(files.root, paths) if files.parquet else _arrow(files.root, paths)
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
        files,
        place=place,
        split=split,
        labels_from=labels_from,
        label_column=sampling.label_column,
        reading=said,
        warn=warn,
    )
    for reason, left in files.left_out.items():
        if reason in CURES:
            more = ", …" if left.count > len(left.names) else ""
            warn(f"{left.count} left out: {reason} ({', '.join(left.names)}{more}){CURES[reason]}")
    said.left_out = {reason: left.count for reason, left in files.left_out.items()}
    said.examples = {reason: tuple(left.names) for reason, left in files.left_out.items()}
    rows = Listed(laid.columns, laid.features, laid.images, files.cell, laid.choice)
    return Source(
        path.name,
        lambda: rows,
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
