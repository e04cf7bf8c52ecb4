"""Tables beside images: CSV with any separator, encoding and heading, JSON, lines of JSON, WebDataset's side files."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from hf_task2vec.errors import ColumnError
from hf_task2vec.tasks.folders import Files, above, joined, name_of, text

if TYPE_CHECKING:
    import pyarrow as pa

FILE_NAMES = ("file_name", "filename", "file", "image", "image_path", "image_name", "path", "img", "image_id", "id")
"""Names of columns that name files, the likeliest first."""

SIDES = "the side files"
"""What the labels in WebDataset's tars are called, in place of the name of a table."""

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_MISSING = ("NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A", "<NA>")
_ADDRESS = re.compile(r"(https?|s3|gs|hf|az)://", re.IGNORECASE)
_UPLOADED = re.compile(r"[0-9a-f]{8}-")  # what Label Studio writes before a name
_PICTURE = re.compile(r"\.(?:jpe?g|png|gif|webp|tiff?|bmp|avif|ppm|jp2)$", re.IGNORECASE)
_WORD = re.compile(r"train|val|test")
_LIST_OF_CLASSES = re.compile(r"(?:.*[-_ ])?(?:class|label|categor|name)\w*\.txt", re.IGNORECASE)
_PROBED = 1000  # rows of a column in which names of files are looked for at first


@dataclass(frozen=True)
class Sheet:
    """A table, and the image that each of its rows is about."""

    path: str
    columns: pa.Table
    file_column: str | None  # which names files; None if none does
    images: list[str | None]  # path in the folder, or address, for each row; None where there is no such file


class Names:
    """The images of a folder, found by what a table calls them: with or without folders, suffix, escapes."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._tails = {name_of(folder) for folder in files.images if folder}

    @cached_property
    def _by_name(self) -> dict[Any, list[str]]:
        images = self._files.images.items()
        return _grouped((name, [joined(folder, name)]) for folder, names in images for name in names)

    @cached_property
    def _by_stem(self) -> dict[Any, list[str]]:
        return _grouped((name.rpartition(".")[0] or name, paths) for name, paths in self._by_name.items())

    @cached_property
    def _alike(self) -> dict[Any, list[str]]:
        return _grouped((_plain(stem), paths) for stem, paths in self._by_stem.items())

    @cached_property
    def _by_number(self) -> dict[Any, list[str]]:
        stems = self._by_stem.items()
        return _grouped((number, paths) for stem, paths in stems if (number := _number(stem)) is not None)

    def knows(self, stem: str) -> bool:
        """Return whether an image, at any place, is called so but for its suffix."""
        return stem in self._by_stem

    def find(self, value: Any, table: str) -> str | None:
        """Return the image that `value`, in a cell of a table, stands for."""
        value = str(value).strip().replace("\\", "/").rpartition("?d=")[2]
        folder, _, name = value.rpartition("/")
        for exact in (joined(above(table)[0], value), value):
            if exact in self._by_name.get(name, ()):
                return exact
        for spelling in (name, unquote(name), _UPLOADED.sub("", name, count=1)):
            if paths := self._by_name.get(spelling) or self._by_stem.get(spelling):
                return self._nearest(paths, folder.strip("/").split("/"), table)
        stem = name.rpartition(".")[0] if _PICTURE.search(name) else name
        # .jpg for .JPG or .png, other forms of Unicode, 7 for 0007
        if name and (paths := self._alike.get(_plain(stem)) or self._by_number.get(_number(stem))):
            return self._nearest(paths, folder.strip("/").split("/"), table)
        if "/" not in value or not _PICTURE.search(value) or self._files.archives:
            return None
        path = str((self._files.root / table).parent / value)  # elsewhere on this machine: ../images/1.png
        return path if os.path.isfile(path) else None  # noqa: PTH113  (a name too long is no file either)

    def _nearest(self, paths: list[str], folders: list[str], table: str) -> str | None:
        """Return the path that lies in most of the folders named, None where that is not one."""
        words = _WORD.findall(name_of(table).lower())[:1]
        if len(paths) == 1 and folders[-1] not in self._tails:
            return paths[0]

        def agreement(path: str) -> tuple[int, bool, bool]:
            own = path.split("/")[-2::-1]
            pairs = zip(own, [part for part in reversed(folders) if part not in ("", ".")], strict=False)
            common = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(own), len(folders)))
            named = any(part.lower().startswith(word) for part in own for word in words)  # test.csv is about test/
            return common, above(path)[0] == above(table)[0], named

        ranked = sorted(((agreement(path), path) for path in paths), reverse=True)
        if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            return None
        (common, here, named), best = ranked[0]
        return best if common or here or named or folders[-1] not in self._tails else None


def _grouped(items: Iterable[tuple[Any, list[str]]]) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = defaultdict(list)
    for key, paths in items:
        found[key] += paths
    return found


def read_sheet(files: Files, names: Names, path: str) -> Sheet:
    """Read a table and find the column that names images, here or by address; `ValueError` where it is no table."""
    if path.lower().endswith((".parquet", ".pq")):
        columns = _from_parquet(files, path)
    elif (columns := _from_lists(files, path)) is None:
        content = _decode(files.read(path))
        is_json = path.lower().rpartition(".")[2].startswith(("json", "ndjson", "manifest"))
        columns = _from_json(content) if is_json else _from_csv(content, lambda x: names.find(x, path) is not None)
    n = columns.num_rows
    best: tuple[float, int, str] | None = None
    for name in columns.column_names:
        probed = [cell for cell in columns.column(name)[:: max(1, n // _PROBED)].to_pylist() if cell is not None]
        if not probed or not isinstance(probed[0], (str, int)):
            continue
        hits = sum(names.find(cell, path) is not None or bool(_ADDRESS.match(str(cell))) for cell in probed)
        known = FILE_NAMES.index(name.lower()) if name.lower() in FILE_NAMES else len(FILE_NAMES)
        rank = (hits / len(probed), -known, name)
        if hits and (best is None or rank[:2] > best[:2]):
            best = rank
    if best is None:
        return Sheet(path, columns, None, [None] * n)
    cells = columns.column(best[2]).to_pylist()
    found = [names.find(cell, path) for cell in cells]
    if found.count(None) > n // 2:  # no copies of them lie here
        found = [cell if _ADDRESS.match(str(cell)) else here for cell, here in zip(cells, found, strict=True)]
    return Sheet(path, columns, best[2], found)


def side_files(files: Files, warn: Callable[[str], object]) -> Sheet | None:
    """Return what WebDataset's tars say beside images of the same key, None where they say nothing."""
    rows: list[dict[str, Any]] = []
    images: list[str | None] = []
    for folder, sides in files.sides.items():
        by_key: dict[str, dict[str, Any]] = defaultdict(dict)
        for name in sides:
            key, _, kind = name.partition(".")
            content = _decode(files.read(joined(folder, name)))
            if kind.lower() != "json":
                by_key[key][kind.lower().removesuffix(".txt")] = content.strip() or None
                continue
            try:
                said = json.loads(content)
                by_key[key] |= said if isinstance(said, dict) else {"label": said}
            except ValueError:
                warn(f"{text(name)} is no JSON and is left out")
        for name in files.images.get(folder, ()):
            if (key := name.partition(".")[0]) in by_key:
                rows.append(by_key[key])
                images.append(joined(folder, name))
    return Sheet(SIDES, _typed(from_rows(rows)), "", images) if rows else None


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _number(stem: str) -> int | None:
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 19 else None


def _decode(data: bytes) -> str:
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), None)
    if encoding is None and data[:4096].count(0) > len(data[:4096]) // 4:
        encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    try:
        return data.decode(encoding or "utf-8", "replace" if encoding else "strict").lstrip("\ufeff")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def pairs(files: Files, path: str) -> dict[str, str]:
    """Return the lines of a list, each a word and what it stands for."""
    found = (line.split(None, 1) for line in _decode(files.read(path)).splitlines())
    return {pair[0]: pair[1].strip() for pair in found if len(pair) == 2}


def names_of_numbers(files: Files, path: str, numbers: Sequence[str]) -> list[str]:
    """Return what a list calls classes that are numbers, none if it is about something else.

    A dictionary in JSON; lines of a number and a name, as in ImageNet's words.txt; ``classes.txt`` with a name a line.
    """
    if path.endswith(".json"):
        try:
            found = json.loads(_decode(files.read(path)))
        except ValueError:
            return []
        words = found if isinstance(found, dict) else {}
    else:
        words = pairs(files, path)
        lines = [line.strip() for line in _decode(files.read(path)).splitlines() if line.strip()]
        first = min(map(int, numbers)) if all(map(str.isdigit, numbers)) else None
        if _LIST_OF_CLASSES.fullmatch(name_of(path)) and first in (0, 1) and len(lines) == len(numbers) > len(words):
            words = {number: lines[int(number) - first] for number in numbers if int(number) - first < len(lines)}
    if len(words) > 2 * len(numbers) and numbers[0].isdigit():  # it numbers something else, such as the images
        return []
    names = [words.get(number) for number in numbers]
    told = [x for x in names if isinstance(x, str) and x and not x[0].isdigit() and not _PICTURE.search(x)]
    return told if len(told) == len(numbers) else []


def _from_lists(files: Files, path: str) -> pa.Table | None:
    """Return CUB-200's lists (image, its class, name of the class, whether for training), each after a number."""
    import pyarrow as pa

    folder = path.removesuffix("images.txt")
    lists = [path, *(f"{folder}{name}.txt" for name in ("image_class_labels", "classes", "train_test_split"))]
    if folder == path or lists[1] not in files.tables:
        return None
    images, classes, names, training = (pairs(files, each) if each in files.tables else {} for each in lists)
    labels = [names.get(number, number) if (number := classes.get(image)) else None for image in images]
    splits = {"split": [{"1": "train", "0": "test"}.get(training.get(image, "")) for image in images]}
    return pa.table({"file_name": [*images.values()], "label": labels} | (splits if training else {}))


def _from_parquet(files: Files, path: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(io.BytesIO(files.read(path))) as handle:
            table = handle.read([field.name for field in handle.schema_arrow if not pa.types.is_binary(field.type)])
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    plain = [(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(plain))


def _from_json(content: str) -> pa.Table:
    try:
        found = json.loads(content)
    except ValueError:
        found = [json.loads(line) for line in content.splitlines() if line.strip()]
    return from_rows(_rows(found))


def _rows(found: Any) -> list[dict[str, Any]]:
    """Return the rows of any of the usual forms; raises `ValueError` for others."""
    if isinstance(found, dict):
        values = list(found.values())
        lists = [value for value in values if isinstance(value, list)]
        if "annotations" in found and "categories" in found:
            return _of_coco(found)
        if values and all(isinstance(value, (str, int)) for value in values):  # {file: class}
            return [{"file_name": name, "label": value} for name, value in found.items()]
        if values and all(isinstance(value, dict) for value in values):  # {file: row}
            return [{"file_name": name} | dict(_flat(value)) for name, value in found.items()]
        if len(lists) == 1 and "labels" not in found:  # {"data": [row, …]}
            return _rows(lists[0])
        if isinstance(found.get("labels"), (dict, list)) and set(found) <= {"classes", "labels"}:
            return _rows(found["labels"])
        if lists and len(lists) == len(values):
            if any(re.fullmatch(rf"(?i){name}s?", key) for key in found for name in FILE_NAMES):  # columns
                return [dict(zip(found, row, strict=False)) for row in zip(*values, strict=False)]
            return [{"file_name": file, "label": name} for name, files in found.items() for file in files]
    if isinstance(found, list) and found:
        if all(isinstance(row, dict) for row in found):
            return [dict(_flat(row)) for row in found]
        if all(isinstance(row, list) and len(row) == 2 for row in found):
            return [{"file_name": row[0], "label": row[1]} for row in found]
    raise ValueError("no list of rows")


def _of_coco(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the classes of whole images, as iNaturalist and camera traps have them in COCO's form."""
    annotations = found["annotations"]
    if not annotations or any("bbox" in row or "segmentation" in row for row in annotations):
        raise ColumnError("boxes of object detection, which is not supported")
    names = {row.get("id"): row.get("name") for row in found["categories"] or ()}
    files = {row.get("id"): row.get("file_name") for row in found.get("images") or ()}
    return [
        {"file_name": files.get(row.get("image_id")), "label": names.get(row.get("category_id"))} for row in annotations
    ]


def _flat(row: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the cells of a row, of dictionaries in it and of lists of one by the names on the way."""
    for name, value in row.items():
        while isinstance(value, list) and len(value) == 1 and (before or isinstance(value[0], dict)):
            value = value[0]
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def from_rows(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Make a table of dictionaries; a column of mixed types becomes text."""
    import pyarrow as pa

    rows = list(rows)
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(str(name) for row in rows for name in row):
        values = [row.get(name) for row in rows]
        if any(isinstance(x, list) for x in values):
            values = [x if x is None or isinstance(x, list) else [x] for x in values]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[name] = pa.array([x if x is None or isinstance(x, str) else json.dumps(x) for x in values])
    return pa.table(columns)


def _from_csv(content: str, is_file: Callable[[str], bool]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv

    declared = content[:4].lower() == "sep="  # the first line that spreadsheets may write
    mark, content = (content[4:5], content.partition("\n")[2]) if declared else (_separator(content), content)
    content = re.sub(r"\A(?:#[^\n]*\n|\s*\n)*(?:\d+\s*\n(?=.*\D))?", "", content)  # remarks, how many rows there are
    if mark == " ":
        content = re.sub(r"(?m)[ \t]+$|^[ \t]+", "", re.sub(r"[ \t]+", " ", content))
    first = csv.reader(io.StringIO(content), delimiter=mark)
    head, second = next(first, []), next(first, [])
    if len(second) == len(head) + 1 and is_file(second[0]):  # no word above the files
        content, head = f"{mark}{content}", ["", *head]
    heading = not any(map(is_file, filter(None, head)))
    names = [name.strip() if heading and name.strip() else f"column {i + 1}" for i, name in enumerate(head)]
    names = [name if names.index(name) == i else f"{name} ({i + 1})" for i, name in enumerate(names)]
    as_text = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    ragged = []

    def skip(row: Any) -> str:
        ragged.append(row)
        return "skip"

    shape = pa.csv.ParseOptions(delimiter=mark, newlines_in_values=True, invalid_row_handler=skip)
    data = io.BytesIO(content.encode("utf-8", "replace"))
    try:
        table = pa.csv.read_csv(data, pa.csv.ReadOptions(column_names=names, skip_rows=int(heading)), shape, as_text)
    except pa.ArrowInvalid as error:
        raise ValueError(str(error)) from error
    if ragged:  # a comma too many or too few
        rows = [row for row in csv.reader(io.StringIO(content), delimiter=mark) if any(row)][int(heading) :]
        cells = ([cell or None for cell in column] for column in zip_longest(*rows, fillvalue=""))
        table = pa.table({name: pa.array(column, pa.string()) for name, column in zip(names, cells, strict=False)})
    return _typed(table)


def _typed(table: pa.Table) -> pa.Table:
    """Turn columns of text that are numbers into numbers.

    ``NA``, ``null`` and the like are cells without a value, unless others are truly empty: then someone meant a class.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for i, name in enumerate(table.column_names):
        column = table.column(name)
        if not pa.types.is_string(column.type):
            continue
        if not column.null_count:
            column = pc.if_else(pc.is_in(column, pa.array(_MISSING)), pa.scalar(None, pa.string()), column)
        padded = pc.any(pc.match_substring_regex(column, r"^\s*-?0\d")).as_py()  # "007" is a name
        for kind in () if padded else (pa.int64(), pa.float64()):
            try:
                trimmed = pc.utf8_trim_whitespace(column)
                column = pc.replace_substring_regex(trimmed, r"^(-?\d+),(\d+)$", r"\1.\2").cast(kind)
                break
            except pa.ArrowInvalid:
                continue
        table = table.set_column(i, name, column)
    return table


def _separator(content: str) -> str:
    """Return what cuts most of the first lines into the same number of columns, above one."""
    lines = [line for line in content[:100_000].splitlines()[:20] if line.strip()]
    votes = {}
    for mark in (",", ";", "\t", "|", " "):
        counts = Counter(len(row) for row in csv.reader(lines, delimiter=mark))
        columns, times = max(counts.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        votes[mark] = times if columns > 1 else 0
    return max(votes, key=lambda mark: votes[mark])
