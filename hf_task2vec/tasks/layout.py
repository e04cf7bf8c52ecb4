"""What a folder of images means: which of its folders are splits and which are classes, and which table has labels.

The first level below the place named is the classes, as torchvision's `ImageFolder` has it, unless all of it is splits
(``train``, ``val``, ``test`` …) or numbered parts (``fold0`` …); splits may also lie in every class. A table beside the
images counts where there are no class folders, or none with a name that says anything. What was chosen and what else
was possible goes into a `Reading`.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_task2vec.errors import ColumnError, DatasetNotFoundError, LabelError, TaskError
from hf_task2vec.tasks.columns import Feature, LabelChoice, find_label_column, of_schema
from hf_task2vec.tasks.folders import CURES, MASKS, PICTURE_FOLDERS, Files, above, joined, name_of, text
from hf_task2vec.tasks.rows import Listed
from hf_task2vec.tasks.source import Reading, Sampling, Source, by_split, form_of, pick_split, split_of, tell_splits
from hf_task2vec.tasks.tables import SIDES, Names, Sheet, names_of_numbers, read_sheet, side_files
from hf_task2vec.tasks.text import listed, without_folders

if TYPE_CHECKING:
    import pyarrow as pa

    from hf_task2vec.tasks.labels import Warn

_PART = re.compile(r"(?:.*[-_ ])?(?:fold|part|batch|chunk|shard|cv|session)s?[-_ ]?\d+", re.IGNORECASE)
_NO_CLASS = re.compile(
    r"(?:.*[-_ ])?(?:images?|imgs?|pictures?|pics?|photos?|data|files?|jpe?gs?|pngs?"
    r"|(?:part|batch|chunk|shard|set)?[-_ ]?\d+"
    r"|(?:cam(?:era)?|site|location|station|patient|subject|session|user|day|week|month|year)[-_ ]?(?:\d+|[a-z]))",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?:19|20)\d\d")
_NUMBERED = re.compile(r"(.*[^\W\d_])[-_. (\[#]*\d+[)\]]*")
_NUMBER = re.compile(r"n?\d+")  # of WordNet, or plain
_YOLO = re.compile(rb"\d+(?:[ \t]+-?[\d.]+){4,}\s*(?:\n|$)")
_OF_SPLITS = re.compile(r"(?:^|.*[-_ ])(?:split|partition|fold)s?(?:[-_ ].*)?", re.IGNORECASE)
_BOXES = {"xmin", "x_min", "x1", "bbox", "bbox_x1"}
_MOST_TABLES, _PROBED = 64, 1000  # tables of a folder, and names or files of one kind, that are looked at


def _paths(files: Files, folders: Sequence[str]) -> Callable[[int], str]:
    """Return what gives the images of some folders by their number in all, without a text for each."""
    ends = list(accumulate(len(files.images[folder]) for folder in folders))

    def path(number: int) -> str:
        at = bisect_right(ends, number)
        return joined(folders[at], files.images[folders[at]][number - ends[at]])  # from the end, as `ends` is

    return path


def _label_in(name: str) -> str | None:
    """Return what stands before the number in the name of a file: ``cat`` in ``cat_001.jpg``."""
    match = _NUMBERED.fullmatch(name.rpartition(".")[0])
    return None if match is None else text(match[1])


class _Tree:
    """The folders that hold images, at any depth."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.below: dict[str, list[str]] = defaultdict(list)  # folders with images, at or below
        for folder in sorted(files.images):
            for outer in (folder, *above(folder)):
                self.below[outer].append(folder)
        self.kids: dict[str, list[str]] = defaultdict(list)  # folders right below that have images at any depth
        self.empty: dict[str, list[str]] = defaultdict(list)  # and those that have none
        for folder in sorted(files.folders - {""}):
            (self.kids if folder in self.below else self.empty)[above(folder)[0]].append(folder)

    def inside(self, folder: str) -> str:
        """Go down while there is one folder only, and it holds folders: what a download or a zip wraps things in."""
        while len(kids := self.kids[folder]) == 1:
            meaning = split_of(name_of(kids[0]))
            again = meaning is not None and meaning == split_of(name_of(folder))  # seg_train/seg_train/<class>
            alone = not self.empty[folder] or _NO_CLASS.fullmatch(name_of(kids[0]))  # images/ beside meta/
            holds = self.kids[kids[0]] and kids[0] not in self.files.images and not by_split(kids)
            if not (again or (alone and holds)):
                break
            folder = kids[0]
        return folder


@dataclass
class _ClassFolders:
    """How class folders would be read."""

    splits: dict[str | None, dict[str, list[str]]]  # folders of images, by split and class
    flat: dict[str, list[str]]  # folders of splits without classes
    empty: list[str]
    strays: list[str]  # folders whose images lie in no class
    note: str = ""
    copies: list[str] = field(default_factory=list)  # folders that hold the same again
    forms: bool = False  # whether the splits are the same pictures in several forms

    @property
    def usable(self) -> bool:
        return any(len(classes) > 1 for classes in self.splits.values())

    @property
    def names(self) -> list[str]:
        return sorted({name for classes in self.splits.values() for name in classes})

    @property
    def innermost(self) -> _ClassFolders:
        """The same with the last folders on the way to each image as classes; ``images`` is none."""
        splits: dict[str | None, dict[str, list[str]]] = {}
        for split, classes in self.splits.items():
            found = defaultdict(list)
            for folder in (folder for below in classes.values() for folder in below):
                names = folder.split("/")
                told = [name for name in names if name.lower() not in PICTURE_FOLDERS] or names
                found[text(told[-1])].append(folder)
            splits[split] = dict(sorted(found.items()))
        return replace(self, splits=splits, note="the innermost")


def _class_folders(tree: _Tree, *, splits_too: bool) -> _ClassFolders:
    top = tree.inside("")
    kids = tree.kids[top]
    copies = []
    if splits_too and len(kids) > 2:  # what was packed twice: a folder that holds all the others once more
        every, held = set(map(name_of, kids)), {kid: set(map(name_of, tree.kids[kid])) for kid in kids}
        copies = [kid for kid in kids if every <= held[kid] | {name_of(kid)}]
    kids = [kid for kid in kids if kid not in copies]
    splits = by_split(kids) if splits_too else {}
    forms = [] if splits or not splits_too else _forms(tree, kids)
    splits = splits or {name_of(kid): [kid] for kid in forms}
    parts = kids if all(_PART.fullmatch(name_of(kid)) and len(tree.kids[kid]) > 1 for kid in kids) else []
    roots: dict[str | None, list[str]] = {None: parts or [top]}
    if splits:
        roots = {name: [tree.inside(folder) for folder in found] for name, found in splits.items()}
    elif splits_too and kids and not any(kid in tree.files.images for kid in kids):
        inner = [folder for kid in kids for folder in tree.kids[kid]]
        names = sorted({name_of(folder) for folder in inner})
        if names and by_split(names):
            found: dict[str | None, dict[str, list[str]]] = {name: {} for name in names}
            for folder in inner:
                found[name_of(folder)][text(name_of(above(folder)[0]))] = tree.below[folder]
            return _ClassFolders(found, {}, tree.empty[top], [top], "splits inside the class folders")
    result = _ClassFolders({}, {}, [], [] if top in {folder for found in roots.values() for folder in found} else [top])
    for split, folders in roots.items():
        classes: dict[str, list[str]] = defaultdict(list)
        for folder in folders:
            for kid in tree.kids[folder]:
                if kid not in copies:
                    classes[text(name_of(kid))] += tree.below[kid]
            result.empty += tree.empty[folder]
        if len(classes) == 1 and split is not None and _NO_CLASS.fullmatch(next(iter(classes))):
            classes.clear()  # test/images/ is no class
        if classes or split is None:
            result.strays += folders
            result.splits[split] = dict(sorted(classes.items()))
        else:
            result.flat[split] = folders
    if splits:
        left_out = (f"{place}/" for left in tree.files.left_out.values() for place in left.folders)
        used = {folder for path in (*tree.files.tables, *left_out) for folder in above(path)}
        result.empty += [kid for kid in tree.empty[top] if kid not in used]
    result.copies, result.forms = copies, bool(forms)
    if parts:
        result.note = f"{listed(map(name_of, parts))} taken together as parts"
    return result


def _forms(tree: _Tree, kids: Sequence[str]) -> list[str]:
    """Return folders with the same classes in several forms (colour, grey, augmented), the plainest first, or none."""
    order = [form_of(name_of(kid)) for kid in kids]
    inner = [{name_of(folder) for folder in tree.kids[kid]} for kid in kids]
    several = len(kids) > 1 and min(order) >= 0 and len(set.intersection(*inner)) > 1
    return sorted(kids, key=lambda kid: (form_of(name_of(kid)), kid)) if several else []


@dataclass(frozen=True)
class _Way:
    rank: float
    title: str
    read: Callable[[], Source]
    names: frozenset[str] = frozenset()  # the classes, alike in case and zeros in front
    tables: frozenset[str] = frozenset()


class Folder:
    """The ways in which the images and labels of a folder can be read; see `Task.from_dataset` for the arguments."""

    def __init__(self, files: Files, place: str, sampling: Sampling, warn: Warn) -> None:
        self.place, self.split, self.warn = place, sampling.split, warn
        self.table, self.label_column, self.way = None, sampling.label_column, sampling.labels_from
        if self.way in (*files.tables, *map(name_of, files.tables)):
            self.table = self.way
        elif self.way not in (None, "folders", "subfolders", "names"):
            self.label_column = self.way
        only_folders = self.way in ("folders", "subfolders")
        self.files = files if only_folders else files.without_masks()
        tree, self.names = _Tree(self.files), Names(self.files)
        self.folders = _class_folders(tree, splits_too=True)
        if only_folders and not self.folders.usable:
            self.folders = _class_folders(tree, splits_too=False)
        if self.way == "subfolders":
            self.folders = self.folders.innermost
        self.said: dict[str, list[str]] = defaultdict(list)  # tables that have no labels, by the reason
        self.errors: list[str] = []  # of these, what a user may cure by naming a column
        self.legend = ""  # the list that names the classes
        self.lists: dict[str, str] = {}  # the split of each image, where lists beside class folders tell it
        self.heeded: set[str] = set()  # these lists

    def read(self) -> Source:
        """Return the split with its labels, read in the likeliest way."""
        ways = []
        if self.way == "names":
            ways.append(_Way(1.0, "the names of the files", self._of_names))
        elif self.folders.usable and self.table is None and self.label_column is None:
            words = [n for n in self.folders.names if not _YEAR.fullmatch(n)]  # other numbers may be classes
            mute = all(_NO_CLASS.fullmatch(n) and (self.files.sides or not n.isdigit()) for n in words)
            ways.append(_Way(1.5 if mute else 3.0, "the folders", self._of_folders))
        if self.way not in ("folders", "subfolders", "names"):
            ways += self._by_tables()
        if not ways and self.errors and not self._boxes:
            raise ColumnError(max(self.errors, key=len) if self.label_column is None else self.errors[0])
        if not ways:
            raise self._no_labels()
        best, *others = sorted(ways, key=lambda way: -way.rank)
        source = best.read()
        title = best.title
        if title == "the folders":
            classes = {_plain(name) for name in self.folders.names}
            for way in others:
                if way.tables <= self.heeded and all(not name or name.isdigit() for name in way.names):
                    continue  # the numbers of the classes, of which 0 is plain as nothing
                if way.rank < 2:
                    self.said["it has no name of a label"].append(way.title)
                elif not way.names <= classes and not way.title.endswith(f" {self.legend}"):
                    table = way.title.split()[-1]
                    self.said[f"they may be the labels; labels_from={table!r} takes them"].append(way.title)
            for why, tables in self.said.items():
                if unheeded := [table for table in tables if table not in self.heeded]:
                    self.warn(f"{listed(unheeded)}: {why}; labels are taken from the folders")
            title += f" ({self.folders.note})" if self.folders.note else ""
        counts, examples = dict[str, int](), dict[str, tuple[str, ...]]()
        for reason, left in self.files.left_out.items():
            counts[reason], examples[reason] = left.count, tuple(left.names)
            if reason in CURES:
                more = ", …" if left.count > len(left.names) else ""
                self.warn(f"{left.count} left out: {reason} ({', '.join(left.names)}{more}){CURES[reason]}")
        return replace(source, reading=Reading(title, tuple(way.title for way in others), counts, examples))

    def _pick(self, splits: Sequence[str]) -> str | None:
        """Return the split to read, None if there are none."""
        if not splits and split_of(self.split or "train") == "train":
            return None
        first = splits[0] if splits and self.folders.forms else None
        return pick_split(splits, self.split or first, self.place)

    def _source(
        self,
        images: Callable[[int], str],
        columns: pa.Table,
        split: str | None,
        splits: Sequence[str],
        choice: LabelChoice | None = None,
        **known: Feature,
    ) -> Source:
        features = {"image": Feature("Image")} | of_schema(columns.schema) | known
        rows = Listed(columns, features, images, self.files.cell, choice)
        others = tuple(name for name in splits if name != split)
        return Source(self.place, lambda: rows, split=split or "train", other_splits=others)

    # --- class folders

    def _of_folders(self) -> Source:
        import pyarrow as pa

        folders, files = self.folders, self.files
        labelled = [name for name, classes in folders.splits.items() if classes and name is not None]
        splits = [*labelled, *(folders.flat if self.split is not None else ())]
        chosen = None if self.lists and not splits else self._pick(splits)
        if chosen in folders.flat:
            raise LabelError(
                f"split {chosen!r} of {self.place} has no class folders, so no labels; pass split={labelled[0]!r}"
            )
        names = folders.names
        code_of = {name: code for code, name in enumerate(names)}
        order = [(code_of[name], folder) for name, below in folders.splits[chosen].items() for folder in below]
        counts = [len(files.images[folder]) for _, folder in order]
        codes = np.repeat(np.array([code for code, _ in order], dtype=np.int64), counts)
        self._warn_of_folders()
        paths, splits = _paths(files, [folder for _, folder in order]), [*labelled, *folders.flat]
        if chosen is None and self.lists:
            where = [self.lists.get(paths(number)) for number in range(len(codes))]
            splits = sorted({split for split in where if split is not None})
            chosen = self._pick(splits)
            kept = [number for number, split in enumerate(where) if split == chosen]
            codes, paths = codes[kept], [paths(number) for number in kept].__getitem__
            if unnamed := where.count(None):
                self.files.leave_out("in no list of a split", "", unnamed)
                tables = folders.note.removeprefix("splits from ")
                self.warn(
                    f"{unnamed} of {len(where)} images are in no split of {tables} and are left out; "
                    "labels_from='folders' takes all"
                )
        if missing := [names[code] for code in np.setdiff1d(range(len(names)), codes)]:
            self.warn(f"no image of {listed(missing)} in split {chosen!r}")
        kind = Feature("ClassLabel", names=self._in_words(names))
        return self._source(paths, pa.table({"label": codes}), chosen, splits, label=kind)

    def _in_words(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return what a list beside the images, such as ImageNet's words.txt, calls classes that are numbers."""
        if all(map(_NUMBER.fullmatch, names)):
            lists = [path for path in self.files.tables if path.endswith((".txt", ".json"))]
            for path in sorted(lists, key=lambda path: (path.count("/"), path))[:_MOST_TABLES]:
                if found := names_of_numbers(self.files, path, names):
                    self.legend = path
                    return tuple(w if found.count(w) == 1 else f"{w} ({n})" for n, w in zip(names, found, strict=True))
        return tuple(names)

    def _warn_of_folders(self) -> None:
        """Name what the classes lack, and why."""
        folders, files = self.folders, self.files
        if folders.empty:
            reasons = []
            for folder in folders.empty:
                inside = {
                    reason: sum(n for place, n in left.folders.items() if folder in (place, *above(place)))
                    for reason, left in files.left_out.items()
                }
                why = ", ".join(f"{n} {reason}" for reason, n in inside.items() if n)
                reasons.append(f"{text(folder)!r} ({why or 'empty'})")
            none = f"no image that can be read in {len(reasons)} folders, which are no classes then"
            self.warn(f"{none}: {listed(reasons)}{CURES['HEIC'] if 'HEIC' in files.left_out else ''}")
        for folder in folders.strays:
            if found := files.images.get(folder, []):
                files.leave_out("in no class folder", joined(folder, found[0]), len(found))
        if "in no class folder" in files.left_out:
            strays = files.left_out["in no class folder"]
            self.warn(f"{strays.count} images lie beside the class folders and are left out: {listed(strays.names)}, …")
        if folders.flat:
            self.warn(f"{listed(folders.flat)} have no class folders, so no labels, and are not used")
        if folders.forms:
            self.warn(
                f"{listed([*folders.splits])} hold the same classes in several forms, of which one is read; split=… "
                "takes another, labels_from='folders' takes them as classes"
            )
        for copy in folders.copies:
            n = sum(len(found) for folder, found in files.images.items() if copy in (folder, *above(folder)))
            files.leave_out("in a folder that holds the others again", copy, n)
            self.warn(f"{text(copy)!r} holds the folders beside it once more and is left out ({n} images)")
        inner = folders.innermost.names
        own = set(inner) & set(folders.names) or all(_NO_CLASS.fullmatch(n) or _PART.fullmatch(n) for n in inner)
        if not own and any(len(below) > 1 for classes in folders.splits.values() for below in classes.values()):
            self.warn(
                f"the classes {listed(folders.names)} hold folders of their own ({listed(inner)}); if those are the "
                "classes, pass labels_from='subfolders'"
            )

    # --- names of files

    def _of_names(self) -> Source:
        import pyarrow as pa

        flat = self.folders.flat
        chosen = self._pick(list(flat))
        folders = [f for f in self.files.images if chosen is None or {f, *above(f)}.intersection(flat[chosen])]
        labels = [_label_in(name) for folder in folders for name in self.files.images[folder]]
        table = pa.table({"label": pa.array(labels, pa.string())})
        return self._source(_paths(self.files, folders), table, chosen, list(flat))

    # --- tables

    def _by_tables(self) -> list[_Way]:
        tables = [path for path in self.files.tables if self.table in (None, path, name_of(path))]
        if self.table is None:  # what is called as an image is about that alone
            tables = [path for path in tables if not (path.endswith(".txt") and self.names.knows(name_of(path)[:-4]))]
        readers: dict[str, Callable[[], Sheet | None]] = {
            path: partial(read_sheet, self.files, self.names, path)
            for path in sorted(tables, key=lambda path: (path.count("/"), path))[:_MOST_TABLES]
        }
        if self.files.sides and self.table is None:
            readers[SIDES] = partial(side_files, self.files, self.warn)
        groups: dict[Any, list[Sheet]] = defaultdict(list)
        choices: dict[str, LabelChoice] = {}
        of_splits: dict[Any, list[Sheet]] = defaultdict(list)
        for path, read in readers.items():
            try:
                if (sheet := read()) is None:
                    continue
                stem = path.rpartition(".")[0]  # train1.txt and test1.txt belong together, as do train.txt and test.txt
                number = stem[len(stem.rstrip("0123456789")) :]
                of_splits[(above(path)[0], number) if split_of(name_of(stem)) else path].append(sheet)
                choices[path] = self._choice(sheet)
            except (ValueError, OSError, csv.Error, ColumnError) as error:
                why = " ".join(str(error).split())[:160]
                if isinstance(error, ColumnError):
                    self.errors.append(f"{text(path)} of {self.place}: {error}")
                    why = why.partition("; ")[0]
                if self.table is not None or not path.lower().endswith((".txt", ".json")):  # which may be anything
                    self.said[why].append(text(path))
                continue
            key = "split" if split_of(name_of(path).partition(".")[0]) else name_of(path)
            groups[key, tuple(sheet.columns.column_names)].append(sheet)
        self._heed_lists(of_splits.values())
        ways = []
        for (key, _), group in groups.items():
            choice = choices[group[0].path]
            rank = (4.0 if key == SIDES else 2.0) if choice.by_name else 1.0
            rank += 0.1 * (key == "split" or key.startswith(("metadata", "label")))
            rank += 0.3 * len({image for sheet in group for image in sheet.images}) / max(self.files.n_images, 1)
            title = f"column {choice.name!r} of {listed(sheet.path for sheet in group)}"
            read_group, paths = partial(self._of_tables, group, choice), frozenset(text(sheet.path) for sheet in group)
            ways.append(_Way(rank, title, read_group, _classes(group, choice), paths))
        return ways

    def _choice(self, sheet: Sheet) -> LabelChoice:
        """Return which column has the labels; raises `ValueError` where the table is about something else."""
        columns, n = sheet.columns, len(sheet.images)
        if sheet.file_column is None or n - sheet.images.count(None) < max(1, min(n, self.files.n_images or n) // 2):
            none = "it names no image here" if n else "it has no rows"
            raise ValueError(f"{none} (columns {listed(columns.column_names)}; one must hold names of the images)")
        lower = {name.lower() for name in columns.column_names}
        boxes = _BOXES & lower or {"x", "y", "width", "height"} <= lower
        if self.label_column is None and boxes and len(set(sheet.images)) < n:  # several of an image
            raise ColumnError("boxes of object detection, which is not supported")
        features = of_schema(columns.schema)
        choice = find_label_column(features, self.label_column, sheet.file_column, columns.column)
        labels = columns.column(choice.columns[0])
        if self.label_column is None and not labels.type.num_fields and len(labels.drop_null().unique()) < 2:
            raise ValueError("it has one label only")
        guessed = not (choice.by_name or self.label_column or self.table)
        if guessed and _OF_SPLITS.fullmatch(name_of(sheet.path).partition(".")[0]):
            raise ValueError("it tells the splits")
        return choice

    def _of_tables(self, group: list[Sheet], choice: LabelChoice) -> Source:
        import pyarrow as pa

        columns, images = _together(group), [image for sheet in group for image in sheet.images]
        where = self._where(group, columns, images)
        there = [i for i, image in enumerate(images) if image is not None]
        labelled = columns.column(choice.columns[0]).is_valid().to_pylist()
        found = [name for name in dict.fromkeys(where[i] for i in there if labelled[i]) if name is not None]
        chosen = self._pick(found)
        others = [name for name in self.folders.flat if name not in found]
        self._warn_of_rows(group[0], columns, images, others)
        kept = [i for i in there if chosen is None or where[i] == chosen]
        names = [f"{name} (column)" if name == "image" else name for name in columns.column_names]
        table = columns.take(kept).rename_columns(names)
        if pa.types.is_integer((codes := columns.column(choice.columns[0])).type):
            numbers = sorted(set(codes.drop_null().to_pylist()))
            words = dict(zip(numbers, self._in_words([*map(str, numbers)]), strict=True))
            if self.legend:
                column = pa.array([words.get(code) for code in table.column(choice.columns[0]).to_pylist()])
                table = table.set_column(table.column_names.index(choice.columns[0]), choice.columns[0], column)
        paths = [path for i in kept if (path := images[i]) is not None]
        return self._source(paths.__getitem__, table, chosen, [*found, *others], choice=choice)

    def _where(self, group: list[Sheet], columns: pa.Table, images: list[str | None]) -> list[str | None]:
        """Return the split of each row: as the names of the tables tell, a column, or the folders."""
        stems = [split_of(name_of(sheet.path).partition(".")[0]) for sheet in group]
        if len(set(stems)) > 1:
            return [stem for stem, sheet in zip(stems, group, strict=True) for _ in sheet.images]
        own = [name for name in columns.column_names if name.lower() in ("split", "subset", "set", "fold")]
        own += [name for name in columns.column_names if name.startswith("column ")]  # of a table without a heading
        cells = {name: columns.column(name).to_pylist() for name in own}
        told = (v for name, v in cells.items() if tell_splits(set(v), train=name.startswith("column ")))
        if values := next(told, None):
            return [None if value is None else str(value) for value in values]
        split = {folder: name for name, folders in self.folders.flat.items() for folder in folders}
        return [next((split[outer] for outer in above(image or "") if outer in split), None) for image in images]

    def _heed_lists(self, groups: Iterable[list[Sheet]]) -> None:
        """Note the split of each image where class folders have none, but lists or a column tell it for nearly all."""
        if [*self.folders.splits] != [None]:
            return
        for group in groups:
            images = [image for sheet in group for image in sheet.images]
            where = zip(images, self._where(group, _together(group), images), strict=True)
            told = {image: split for image, split in where if image is not None and split is not None}
            if len(told) > 0.9 * self.files.n_images and tell_splits(told.values()) and len({*told.values()}) > 1:
                self.heeded = {text(sheet.path) for sheet in group}
                self.lists, self.folders.note = told, f"splits from {listed(sorted(self.heeded))}"
                return

    def _warn_of_rows(self, sheet: Sheet, columns: pa.Table, images: list[str | None], others: list[str]) -> None:
        """Name the rows without an image, and the images without a row."""
        if lost := images.count(None):
            cells = columns.column(sheet.file_column).to_pylist() if sheet.file_column else []
            missing = [str(cell) for cell, image in zip(cells, images, strict=False) if image is None]
            missing = without_folders(missing)[:3]
            self.files.leave_out("named in the table but not there", next(iter(missing), ""), lost)
            self.warn(f"{lost} of {len(images)} rows of {sheet.path} name files that are not there: {listed(missing)}")
        n = self.files.n_images
        if others:
            self.warn(f"{listed(others)} have no labels and are not used")
        elif (unnamed := n - len({*images} - {None})) > 0:
            self.files.leave_out("not named in the table", "", unnamed)
            self.warn(f"{unnamed} of {n} images are not named in {sheet.path} and are left out")

    # --- neither

    @cached_property
    def _boxes(self) -> str | None:
        """The first file of boxes as Pascal VOC and YOLO write them, one an image; None if there is none."""
        xml = self.files.left_out["an XML file"].names if "an XML file" in self.files.left_out else []
        lists = islice((path for path in self.files.tables if path.endswith(".txt")), _PROBED)
        written = [*xml, *(path for path in lists if _YOLO.match(self.files.read(path)[:200]))]
        return next((path for path in written if self.names.knows(name_of(path)[:-4])), None)

    def _no_labels(self) -> TaskError:
        """Say why nothing in a folder has labels, and what would work."""
        files, folders, place = self.files, self.folders, self.place
        if self.table is not None:
            return LabelError(f"{text(self.table)} has no labels: {next(iter(self.said), 'no table of that name')}")
        left = [
            f"{left.count} {reason} ({listed(left.names)}){CURES.get(reason, '')}"
            for reason, left in files.left_out.items()
        ]
        said = [f"{listed(tables, 3)}: {why}" for why, tables in self.said.items()]
        found = "; ".join(["", *said[:2], *left[:3]])[:170]
        works = "What would work: one subfolder of images a class"
        if MASKS in files.left_out:
            return ColumnError(
                f"{place} holds pictures and their masks ({listed(files.left_out[MASKS].names)}, …) and no class "
                f"folders, which looks like segmentation and is not supported. {works}"
            )
        if self._boxes is not None:
            return ColumnError(
                f"{place} holds boxes ({text(self._boxes)}, …): object detection is not supported. What would work: "
                "one image a box, in a subfolder of its class; or a table of file names and their classes"
            )
        if not files.n_images:
            only = f"no image, only {listed(map(text, files.tables), 3)}" if files.tables else ""
            what = f"holds no image that can be read{found}" if found else f"holds {only}" if only else "is empty"
            return DatasetNotFoundError(f"{place} {what}. {works}, or parquet files")
        names = [name for inside in files.images.values() for name in inside[:_PROBED]]
        in_names = Counter(map(_label_in, names))
        if in_names.pop(None, 0) <= len(names) // 2 and 1 < len(in_names) <= len(names) // 2:
            return LabelError(
                f"images without labels in {place}. The names of the files may hold the classes ({listed(in_names)}): "
                f"labels_from='names' takes them from there{found}"
            )
        empty = f"; without images: {listed(map(text, folders.empty))}" if folders.empty else ""
        if folders.flat:
            single = [f"; {name!r} has one class only" for name, found in folders.splits.items() if found and name]
            return LabelError(
                f"images without labels in {place}: {listed(map(repr, folders.flat))} are splits and hold no class "
                f"folders{''.join(single)}{empty}{found}. What would work: train/<class>/…, a table of names and "
                "labels; labels_from='folders' if they are classes"
            )
        classes = [text(below[0]) for found in folders.splits.values() for below in found.values()]
        what = f"only one class folder, {classes[0]!r}" if len(classes) == 1 else "images without labels"
        return LabelError(
            f"{what}; a folder needs at least two subfolders of images, one a class (or a table with columns file_name "
            f"and label). Subfolders found: {listed(classes) or 'none'}{empty}{found}"
        )


def _together(group: list[Sheet]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([sheet.columns for sheet in group], promote_options="permissive")


def _classes(group: list[Sheet], choice: LabelChoice) -> frozenset[str]:
    """Return the classes that tables name; none for lists."""
    columns = [sheet.columns.column(choice.columns[0]) for sheet in group]
    flat = [column.drop_null().unique().to_pylist() for column in columns if not column.type.num_fields]
    labels = choice.columns if len(choice.columns) > 1 else (str(label) for found in flat for label in found)
    return frozenset(map(_plain, labels))


def _plain(name: str) -> str:
    return name.strip().casefold().lstrip("0")
