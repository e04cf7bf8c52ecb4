"""What a folder of images means: which of its folders are splits and which are classes, and which table has labels.

The first level below the place named is the classes, as torchvision's `ImageFolder` has it, unless all of it is splits
(``train``, ``val``, ``test`` …) or numbered parts (``fold0`` …); splits may also lie in every class. A table beside the
images counts where there are no class folders, or none with a name that says anything. What was chosen and what else
was possible goes into a `Reading`.
"""

from __future__ import annotations

import csv
import logging
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from hf_task2vec.errors import ColumnError, DatasetNotFoundError, LabelError, TaskError
from hf_task2vec.tasks.columns import Feature, LabelChoice, find_label_column, of_arrow
from hf_task2vec.tasks.folders import CURES, MASKS, Files, text
from hf_task2vec.tasks.tables import SIDES, Names, Sheet, read_sheet, side_files
from hf_task2vec.tasks.text import listed

if TYPE_CHECKING:
    import pyarrow as pa

    from hf_task2vec.tasks.labels import Warn

logger = logging.getLogger(__name__)

_SPLITS = {
    "train": "train|training|trn",
    "validation": "val|valid|validation|dev|eval|evaluation",
    "test": "test|testing|tst",
    "unlabelled": "pred|predict|prediction|unlabell?ed|submission|holdout|extra",
}
_SPLIT = re.compile(
    r"(?P<before>(?:\w*[_-])?)(?:"
    + "|".join(f"(?P<{name}>{words})" for name, words in _SPLITS.items())
    + r")(?:[-_. ]?(?:set|data|images?|imgs?|pictures?|folder|split|dir))*(?P<number>[-_]?\d*)",
    re.IGNORECASE,
)
_SHARD_SPLIT = re.compile(
    r"(?:^|[-_./ ])(train(?:ing)?|val(?:id(?:ation)?)?|dev|test(?:ing)?)(?=$|[-_./ ]|\d)", re.IGNORECASE
)
_PART = re.compile(r"(?:.*[-_ ])?(?:fold|part|batch|chunk|shard|cv|session)s?[-_ ]?\d+", re.IGNORECASE)
_NO_CLASS = re.compile(
    r"(?:.*[-_ ])?(?:images?|imgs?|pictures?|pics?|photos?|data|files?|jpe?gs?|pngs?"
    r"|(?:part|batch|chunk|shard|set)?[-_ ]?\d+)",
    re.IGNORECASE,
)
_MOST_TABLES = 64  # tables of a folder that are looked at


@dataclass
class Reading:
    """What was read of a dataset, and what was not."""

    labels_from: str = ""
    alternatives: tuple[str, ...] = ()
    """Other interpretations that were possible, and how to ask for them."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Files or rows that were left out, by reason."""
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The first few of them, by reason."""
    warnings: tuple[str, ...] = ()


class Paths(Sequence[str]):
    """The images of some folders, in order, without a text for each."""

    def __init__(self, files: Files, folders: Sequence[str]) -> None:
        self._folders, self._names = folders, [files.images[folder] for folder in folders]
        self._ends = list(accumulate(map(len, self._names)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = bisect_right(self._ends, index)
        if at >= len(self._ends):
            raise IndexError(index)
        name = self._names[at][index - self._ends[at]]  # counted from the end, as `_ends` is
        return f"{self._folders[at]}/{name}" if self._folders[at] else name


@dataclass(frozen=True)
class Laid:
    """One split of a folder: its images and its label columns."""

    images: Sequence[str]
    columns: pa.Table
    features: Mapping[str, Any]
    split: str | None
    other_splits: tuple[str, ...]
    choice: LabelChoice | None = None


def split_of(word: str) -> str | None:
    """Return which split a name stands for: ``train``, ``validation``, ``test`` or ``unlabelled``; None for none."""
    match = _SPLIT.fullmatch(word)
    return None if match is None else next(name for name in _SPLITS if match[name])


def shard_split(path: str) -> str | None:
    """Return which split the path of a file of data tells: ``data/train-00000-of-00002.parquet``."""
    found = [match[1].lower() for match in _SHARD_SPLIT.finditer(path.rpartition(".")[0])]
    return (
        {"valid": "validation", "val": "validation", "training": "train", "testing": "test"}.get(found[-1], found[-1])
        if found
        else None
    )


def pick_split(names: Sequence[str], requested: str | None, place: str, *, expressions: bool = False) -> str:
    """Return the split asked for, by its name or what it stands for; else the one to train on, or the only one.

    With `expressions`, one of `datasets` (``"train[:10%]+test"``) is returned as it is if its splits are there.
    """
    by_meaning = {split_of(name) or name: name for name in reversed(names)} | {name: name for name in names}
    if requested is not None:
        parts = [re.sub(r"\[.*?\]|\(.*?\)", "", part).strip() for part in requested.split("+")]
        if parts == [requested] and requested not in names:
            parts = [by_meaning.get(split_of(requested) or "", requested)]
        unknown = [part for part in parts if part not in names and part != "all"]
        if unknown:
            raise DatasetNotFoundError(f"no split {unknown[0]!r} in {place}; splits found: {', '.join(names)}")
        if not expressions and (len(parts) > 1 or "[" in requested or parts[0] not in names):
            raise DatasetNotFoundError(
                f"{place} is read a whole split at a time, not {requested!r}; pass one of {', '.join(names)}"
            )
        return parts[0] if len(parts) == 1 and "[" not in requested else requested
    if "train" in by_meaning or len(names) == 1:
        chosen = by_meaning.get("train", names[0])
        logger.info("split %r of %s is used; splits found: %s", chosen, place, ", ".join(names))
        return chosen
    raise DatasetNotFoundError(
        f"{place} has no split 'train' to take by default; pass split=… (splits found: {', '.join(names) or 'none'})"
    )


def _name(folder: str) -> str:
    return folder.rpartition("/")[2]


class _Tree:
    """The folders that hold images, at any depth."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._kids: dict[str, list[str]] = defaultdict(list)
        self._below: dict[str, list[str]] = defaultdict(list)
        for folder in sorted(files.folders):
            if folder:
                self._kids[folder.rpartition("/")[0]].append(folder)
        for folder in sorted(files.images):
            parent = folder
            while parent:
                self._below[parent].append(folder)
                parent = parent.rpartition("/")[0]
            self._below[""].append(folder)

    def kids(self, folder: str) -> list[str]:
        """Return the folders right below that have images at any depth."""
        return [kid for kid in self._kids[folder] if kid in self._below]

    def without(self, folder: str) -> list[str]:
        """Return the folders right below that have no image."""
        return [kid for kid in self._kids[folder] if kid not in self._below]

    def below(self, folder: str) -> list[str]:
        """Return the folders at or below that have images."""
        return self._below[folder]

    def inside(self, folder: str) -> str:
        """Go down while there is one folder only, and it holds folders: what a download or a zip wraps things in."""
        while len(kids := self.kids(folder)) == 1:
            meaning = split_of(_name(kids[0]))
            again = meaning is not None and meaning == split_of(_name(folder))  # seg_train/seg_train/<class>
            alone = len(self._kids[folder]) == 1 or _NO_CLASS.fullmatch(_name(kids[0]))  # images/ beside meta/
            holds = self.kids(kids[0]) and kids[0] not in self.files.images and not _splits(kids)
            if not (again or (alone and holds)):
                break
            folder = kids[0]
        return folder


def _splits(folders: Sequence[str]) -> dict[str, list[str]]:
    """Return the folders by split if all are splits, and several are one only as its numbered parts; else none."""
    matches = {folder: _SPLIT.fullmatch(folder.rpartition("/")[2]) for folder in folders}
    found: dict[str, list[str]] = defaultdict(list)
    for folder, match in matches.items():
        if match is not None:
            meaning = split_of(match[0]) or ""
            found[meaning if match["number"] else match[0]].append(folder)
    meanings = [split_of(name) or "" for name in found]
    alike = len({match["before"].lower() for match in matches.values() if match is not None}) == 1
    if None in matches.values() or len(set(meanings)) < len(found) or not alike or set(meanings) <= {"unlabelled"}:
        return {}
    order = [*_SPLITS]
    return dict(sorted(found.items(), key=lambda item: order.index(split_of(item[0]) or "")))


@dataclass
class _ClassFolders:
    """How class folders would be read."""

    splits: dict[str | None, dict[str, list[str]]]
    """Folders of images of each class of each split."""
    flat: dict[str, list[str]]
    """Splits without classes, and their folders."""
    empty: list[str]
    strays: list[str]
    """Folders whose images lie in no class."""
    note: str = ""
    copies: list[str] = field(default_factory=list)
    """Folders that hold the same again."""
    inside: list[str] = field(default_factory=list)
    """Names of folders that every class has."""

    @property
    def names(self) -> list[str]:
        """All classes of all splits."""
        return sorted({name for classes in self.splits.values() for name in classes})

    def split_at(self, path: str) -> str | None:
        """Return the split whose folder a path lies in."""
        found = ((name, f"{folder}/") for name, folders in self.flat.items() for folder in folders)
        return next((name for name, folder in found if path.startswith(folder)), None)


def _class_folders(tree: _Tree, *, splits_too: bool) -> _ClassFolders:
    top = tree.inside("")
    kids = tree.kids(top)
    copies = _copies(tree, kids) if splits_too else []
    kids = [kid for kid in kids if kid not in copies]
    splits = _splits(kids) if splits_too else {}
    parts = None if splits or not kids or not all(_PART.fullmatch(kid.rpartition("/")[2]) for kid in kids) else kids
    if parts and not all(len(tree.kids(part)) > 1 for part in parts):
        parts = None
    roots: dict[str | None, list[str]] = {None: parts or [top]}
    if splits:
        roots = {name: [tree.inside(folder) for folder in found] for name, found in splits.items()}
    elif splits_too and kids and not any(kid in tree.files.images for kid in kids):
        inner = [folder for kid in kids for folder in tree.kids(kid)]
        names = sorted({folder.rpartition("/")[2] for folder in inner})
        if names and _splits(names):
            found: dict[str | None, dict[str, list[str]]] = {name: {} for name in names}
            for folder in inner:
                kid, _, name = folder.rpartition("/")
                found[name][text(kid.rpartition("/")[2])] = tree.below(folder)
            return _ClassFolders(found, {}, tree.without(top), [top], "splits inside the class folders")
    result = _ClassFolders({}, {}, [], [] if top in {folder for found in roots.values() for folder in found} else [top])
    for split, folders in roots.items():
        classes: dict[str, list[str]] = defaultdict(list)
        for folder in folders:
            for kid in tree.kids(folder):
                if kid not in copies:
                    classes[text(_name(kid))] += tree.below(kid)
            result.empty += tree.without(folder)
        if len(classes) == 1 and split is not None and _NO_CLASS.fullmatch(next(iter(classes))):
            classes.clear()  # test/images/ is no class
        if classes or split is None:
            result.strays += folders
            result.splits[split] = dict(sorted(classes.items()))
        else:
            result.flat[split] = folders
    if splits:
        left_out = (f"{place}/" for left in tree.files.left_out.values() for place in left.folders)
        used = [*tree.files.tables, *left_out]
        result.empty += [kid for kid in tree.without(top) if not any(path.startswith(f"{kid}/") for path in used)]
    result.copies = copies
    result.inside = [] if splits or parts else _same_inside(tree, kids)
    if parts:
        result.note = f"{listed(part.rpartition('/')[2] for part in parts)} taken together as parts"
    return result


def _copies(tree: _Tree, kids: Sequence[str]) -> list[str]:
    """Return those of some folders that hold all the others once more: what was packed twice."""
    names = {kid: {_name(inner) for inner in tree.kids(kid)} for kid in kids}
    return [kid for kid in kids if len(kids) > 2 and {_name(k) for k in kids if k != kid} <= names[kid]]


def _same_inside(tree: _Tree, kids: Sequence[str]) -> list[str]:
    """Return the names of the folders that all of some folders hold, which may be the classes: ``color/<class>``."""
    inner = [{_name(found) for found in tree.kids(tree.inside(kid))} for kid in kids]
    common = sorted(set.intersection(*inner)) if len(inner) > 1 else []
    several = len(common) > 1 and all(len(names) <= len(common) + 1 for names in inner)
    return common if several and not all(map(_NO_CLASS.fullmatch, common)) else []


def lay_out(
    files: Files,
    *,
    place: str,
    split: str | None,
    labels_from: str | None,
    label_column: str | None,
    reading: Reading,
    warn: Warn,
) -> Laid:
    """Decide what the images and labels of a folder are; see `Task.from_dataset` for the arguments."""
    if labels_from != "folders":
        files = files.without_masks()
    tree = _Tree(files)
    folders = _class_folders(tree, splits_too=True)
    if labels_from == "folders" and not any(len(classes) > 1 for classes in folders.splits.values()):
        folders = _class_folders(tree, splits_too=False)
    named = labels_from not in (None, "folders") and labels_from in {
        *files.tables,
        *(t.rpartition("/")[2] for t in files.tables),
    }
    wanted_sheet = labels_from if named else None
    if labels_from not in (None, "folders") and not named:
        label_column = labels_from
    options: list[tuple[float, str, Callable[[], Laid]]] = []
    usable = max((len(classes) for classes in folders.splits.values()), default=0) > 1
    if usable and wanted_sheet is None and label_column is None:
        mute = all(_NO_CLASS.fullmatch(n) and (files.sides or not n.isdigit()) for n in folders.names)
        options.append((1.5 if mute else 3.0, "the folders", lambda: _of_folders(folders, files, split, place, warn)))
    said: list[str] = []
    errors: list[str] = []
    if labels_from != "folders":
        for rank, title, build in _of_sheets(
            files, folders, split, wanted_sheet, label_column, place, said, errors, warn
        ):
            options.append((rank, title, build))
    if not options and errors:
        raise ColumnError(max(errors, key=len) if label_column is None else errors[0])
    if not options:
        raise _no_labels(files, tree, folders, said, place)
    options.sort(key=lambda option: -option[0])
    _, title, build = options[0]
    laid = build()
    reading.labels_from = title + (f" ({folders.note})" if title == "the folders" and folders.note else "")
    reading.alternatives = tuple(other for _, other, _ in options[1:])
    if title == "the folders":
        said += [f"{other} has no name of a label" for rank, other, _ in options[1:] if rank < 2]
        for remark in said:
            warn(f"{remark}; labels are taken from the folders")
    return laid


def _of_folders(folders: _ClassFolders, files: Files, split: str | None, place: str, warn: Warn) -> Laid:
    import pyarrow as pa

    labelled = [name for name, classes in folders.splits.items() if classes and name is not None]
    chosen: str | None = None
    if labelled or folders.flat:
        chosen = pick_split([*labelled, *(folders.flat if split is not None else ())], split, place)
        if chosen in folders.flat:
            raise LabelError(
                f"split {chosen!r} of {place} has no class folders, so no labels; pass split={labelled[0]!r}"
            )
    elif split is not None and split_of(split) != "train":
        raise DatasetNotFoundError(f"no split {split!r} in {place}; splits found: none")
    classes = folders.splits[chosen]
    order = [(name, folder) for name, below in classes.items() for folder in below]
    names = folders.names
    counts = [len(files.images[folder]) for _, folder in order]
    codes = np.repeat(np.array([names.index(name) for name, _ in order], dtype=np.int64), counts)
    _warn_of_classes(folders, files, warn)
    for folder in folders.strays:
        if found := files.images.get(folder, []):
            files.leave_out("in no class folder", f"{folder}/{found[0]}" if folder else found[0], len(found))
    if "in no class folder" in files.left_out:
        strays = files.left_out["in no class folder"]
        warn(f"{strays.count} images lie beside the class folders and are left out: {listed(strays.names)}, …")
    if folders.flat:
        warn(f"{listed(folders.flat)} have no class folders, so no labels, and are not used")
    for copy in folders.copies:
        n = sum(len(found) for folder, found in files.images.items() if f"{folder}/".startswith(f"{copy}/"))
        files.leave_out("in a folder that holds the others again", copy, n)
        warn(f"{text(copy)!r} holds the folders beside it once more and is left out ({n} images)")
    if folders.inside:
        warn(
            f"each of the classes {listed(names)} holds the folders {listed(folders.inside)}; if those are the "
            "classes, pass one of the outer folders by itself"
        )
    return Laid(
        Paths(files, [folder for _, folder in order]),
        pa.table({"label": codes}),
        {"image": Feature("Image"), "label": Feature("ClassLabel", names=tuple(names))},
        chosen or "train",
        tuple(name for name in [*labelled, *folders.flat] if name != chosen),
    )


def _warn_of_classes(folders: _ClassFolders, files: Files, warn: Warn) -> None:
    """Name the class folders without an image, and why."""
    if not folders.empty:
        return
    reasons = []
    for folder in folders.empty:
        why = [
            f"{sum(n for place, n in left.folders.items() if f'{place}/'.startswith(f'{folder}/'))} {reason}"
            for reason, left in files.left_out.items()
            if any(f"{place}/".startswith(f"{folder}/") for place in left.folders)
        ]
        reasons.append(f"{text(folder)!r} ({', '.join(why) or 'empty'})")
    heic = CURES["HEIC"] if "HEIC" in files.left_out else ""
    warn(f"no image that can be read in {len(reasons)} folders, which are no classes then: {listed(reasons)}{heic}")


def _of_sheets(
    files: Files,
    folders: _ClassFolders,
    split: str | None,
    wanted: str | None,
    label_column: str | None,
    place: str,
    said: list[str],
    errors: list[str],
    warn: Warn,
) -> Iterable[tuple[float, str, Callable[[], Laid]]]:
    """Yield how the tables of a folder could be read; `said` and `errors` take why the others could not."""
    from pyarrow.types import is_nested

    names = Names(files)
    paths = sorted(files.tables, key=lambda path: (path.count("/"), path))[:_MOST_TABLES]
    sheets = []
    for path in paths:
        if wanted is not None and wanted not in (path, path.rpartition("/")[2]):
            continue
        try:
            sheets.append(read_sheet(files, names, path))
        except (ValueError, OSError, csv.Error) as error:
            if not path.lower().endswith((".txt", ".json")) or "not supported" in str(error):
                said.append(f"{text(path)} cannot be read as a table ({str(error)[:80]})")
    if files.sides and wanted is None and (sides := side_files(files, warn)) is not None:
        sheets.append(sides)
    groups: dict[Any, list[Sheet]] = defaultdict(list)
    choices: dict[str, LabelChoice] = {}
    for sheet in sheets:
        few = sheet.n_found < max(1, min(len(sheet.images), files.n_images or len(sheet.images)) // 2)
        if sheet.file_column is None or few:
            if not sheet.path.lower().endswith((".txt", ".json")):
                none = "has no rows" if not sheet.images else "names no image here"
                said.append(
                    f"{text(sheet.path)} {none}: columns {listed(sheet.columns.column_names)}; one of them must hold "
                    "the images' file names"
                )
            continue
        features = {name: of_arrow(sheet.columns.schema.field(name).type) for name in sheet.columns.column_names}
        if label_column is None and _is_of_boxes(sheet):
            errors.append(f"{text(sheet.path)} of {place} holds boxes: object detection is not supported")
            said.append(errors[-1])
            continue
        try:
            choices[sheet.path] = find_label_column(features, label_column, sheet.file_column, sheet.columns.column)
        except ColumnError as error:
            errors.append(f"{text(sheet.path)} of {place}: {error}")
            said.append(
                f"{text(sheet.path)} has no label column ({str(error).partition(';')[0]}; columns {listed(features)})"
            )
            continue
        labels = sheet.columns.column(choices[sheet.path].columns[0])
        if label_column is None and not is_nested(labels.type) and len(labels.drop_null().unique()) < 2:
            said.append(f"{text(sheet.path)} has one label only")
            continue
        name = sheet.path.rpartition("/")[2]
        key = "split" if split_of(name.partition(".")[0]) else name
        groups[key, tuple(sheet.columns.column_names)].append(sheet)
    for (key, _), group in groups.items():
        choice = choices[group[0].path]
        title = f"column {choice.name!r} of {listed(sheet.path for sheet in group)}"
        rank = (4.0 if key == SIDES else 2.0) if choice.by_name else 1.0
        yield (
            rank + 0.1 * (key == "split" or key.startswith(("metadata", "label"))),
            title,
            _builder(group, choice, files, folders, split, place, warn),
        )


def _is_of_boxes(sheet: Sheet) -> bool:
    """Return whether the rows are boxes, of which an image has several."""
    boxes = {"xmin", "x_min", "x1", "bbox", "bbox_x1"} & {name.lower() for name in sheet.columns.column_names}
    return bool(boxes) and len(set(sheet.images)) < len(sheet.images)


def _builder(
    group: list[Sheet],
    choice: LabelChoice,
    files: Files,
    folders: _ClassFolders,
    split: str | None,
    place: str,
    warn: Warn,
) -> Callable[[], Laid]:
    def build() -> Laid:
        import pyarrow as pa

        columns = pa.concat_tables([sheet.columns for sheet in group], promote_options="permissive")
        images = [image for sheet in group for image in sheet.images]
        stems = {sheet.path: split_of(sheet.path.rpartition("/")[2].partition(".")[0]) for sheet in group}
        by_table = len(set(stems.values())) > 1
        own = next((name for name in columns.column_names if name.lower() in ("split", "subset", "set", "fold")), None)
        by_column = own is not None and all(
            split_of(str(value)) for value in columns.column(own).unique().to_pylist() if value is not None
        )
        if by_table:
            where: list[str | None] = [stems[sheet.path] for sheet in group for _ in sheet.images]
        elif by_column:
            where = [None if value is None else str(value) for value in columns.column(own).to_pylist()]
        else:
            where = [None if image is None else folders.split_at(image) for image in images]
        there = [i for i, image in enumerate(images) if image is not None]
        labelled = columns.column(choice.columns[0]).is_valid().to_pylist()
        found = [name for name in dict.fromkeys(where[i] for i in there if labelled[i]) if name is not None]
        chosen = pick_split(found, split, place) if found else None
        if chosen is None and split is not None and split_of(split) != "train":
            raise DatasetNotFoundError(f"no split {split!r} in {place}; splits found: none")
        kept = [i for i in there if chosen is None or where[i] == chosen]
        if lost := len(images) - len(there):
            file_column = group[0].file_column
            names = columns.column(file_column).to_pylist() if file_column else []
            missing = [str(names[i]) for i, image in enumerate(images) if image is None][:3]
            files.leave_out("named in the table but not there", missing[0] if missing else "", lost)
            warn(f"{lost} of {len(images)} rows of {group[0].path} name files that are not there: {listed(missing)}")
        unnamed = files.n_images - len({images[i] for i in there})
        others = {name for name in folders.flat if name not in found}
        if unnamed > 0 and not others:
            files.leave_out("not named in the table", "", unnamed)
            warn(f"{unnamed} of {files.n_images} images are not named in {group[0].path} and are left out")
        elif others:
            warn(f"{listed(others)} have no labels and are not used")
        table = columns.take(kept)
        features: dict[str, Any] = {"image": Feature("Image")}
        rename = [f"{name} (column)" if name == "image" else name for name in table.column_names]
        table = table.rename_columns(rename)
        features |= {name: of_arrow(table.schema.field(name).type) for name in rename}
        return Laid(
            [image for i in kept if (image := images[i]) is not None],
            table,
            features,
            chosen or "train",
            tuple(name for name in [*found, *others] if name != chosen),
            choice,
        )

    return build


def _no_labels(files: Files, tree: _Tree, folders: _ClassFolders, said: list[str], place: str) -> TaskError:
    """Say why nothing in a folder has labels, and what would work."""
    left = [f"{left.count} {reason} ({listed(left.names)})" for reason, left in files.left_out.items()]
    found = "; ".join(["", *said[:2], *left[:3]])[:170]
    if MASKS in files.left_out:
        return ColumnError(
            f"{place} holds pictures and their masks ({listed(files.left_out[MASKS].names)}, …) and no class folders, "
            "which looks like segmentation and is not supported. What would work: one subfolder of images a class"
        )
    if not files.n_images:
        if not left and not files.tables:
            return DatasetNotFoundError(
                f"{place} is empty; what would work: one subfolder of images a class, or parquet files"
            )
        heic = CURES["HEIC"] if "HEIC" in files.left_out else ""
        return DatasetNotFoundError(
            f"{place} holds no image that can be read{found}{heic}. What would work: one subfolder of images a class"
        )
    if folders.flat:
        names = listed(map(repr, folders.flat))
        single = "".join(f"; {name!r} has one class only" for name, found in folders.splits.items() if found and name)
        empty = f"; without images: {listed(map(text, folders.empty))}" if folders.empty else ""
        return LabelError(
            f"images without labels in {place}: {names} are splits and hold no class folders{single}{empty}{found}. "
            "What would work: train/<class>/…, a table of names and labels; labels_from='folders' if they are classes"
        )
    classes = [folder for found in folders.splits.values() for below in found.values() for folder in below[:1]]
    said_classes = f"only one class folder, {text(classes[0])!r}" if len(classes) == 1 else "images without labels"
    empty = f"; without images: {listed(map(text, folders.empty))}" if folders.empty else ""
    return LabelError(
        f"{said_classes}; a folder needs at least two subfolders of images, one a class (or a table with columns "
        f"file_name and label). Subfolders found: {listed(map(text, classes)) or 'none'}{empty}{found}"
    )
