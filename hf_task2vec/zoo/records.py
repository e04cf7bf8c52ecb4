"""Rows of a zoo index as files: CSV in and out, key and reference checks, the manifest."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from hf_task2vec.errors import ZooIndexError
from hf_task2vec.zoo.schema import ROW_TYPES, SCHEMA_VERSION, Alias, CheckpointRow, Manifest, Row

MANIFEST = "manifest.json"
MAX_REPORTED_PROBLEMS = 5
# (table, column, table whose key the column's values name)
REFERENCES = (
    ("scores", "task", "tasks"),
    ("scores", "checkpoint", "checkpoints"),
    ("scores", "source", "sources"),
    ("checkpoints", "facts_source", "sources"),
    ("checkpoints", "aliases", "sources"),
)
R = TypeVar("R", bound=Row)


@cache
def _adapter(row_type: type[Row]) -> TypeAdapter[Any]:
    return TypeAdapter(list[row_type])  # type: ignore[valid-type]


def check_rows(row_type: type[R], records: Sequence[object], where: str, first_row: int = 1) -> tuple[R, ...]:
    """Validate `records` (mappings or rows)."""
    try:
        return tuple(_adapter(row_type).validate_python(records))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise ZooIndexError(f"{where}: " + summarise([_describe(e, first_row) for e in found])) from None


def summarise(problems: Sequence[str]) -> str:
    """Join the first few problems and say how many more there are."""
    more = len(problems) - MAX_REPORTED_PROBLEMS
    return "; ".join(problems[:MAX_REPORTED_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _describe(error: Any, first_row: int) -> str:
    row, *column = error["loc"]
    name = str(column[0]) if column else "?"
    if error["type"] == "missing":
        return f"row {row + first_row}, column {name}: the cell is empty but a value is required"
    return f"row {row + first_row}, column {name}: found {error['input']!r}; {error['msg']}"


def read_csv(row_type: type[R], data: bytes, where: str) -> tuple[R, ...]:
    """Parse and validate a CSV table; row numbers in errors count the header as row 1."""
    columns = list(row_type.model_fields)
    try:
        lines = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ZooIndexError(f"{where}: not a CSV file in UTF-8 ({error})") from None
    header = lines[0] if lines else []
    if header != columns:
        unknown = [name for name in header if name not in columns]
        missing = [name for name in columns if name not in header]
        raise ZooIndexError(
            f"{where}: row 1 does not name the columns of schema version {SCHEMA_VERSION}: unknown {unknown}, "
            f"missing {missing}; expected, in this order: {', '.join(columns)}"
        )
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(columns):
            raise ZooIndexError(f"{where}: row {number} has {len(cells)} cells; expected {len(columns)}")
    records = [{name: cell for name, cell in zip(columns, cells, strict=True) if cell} for cells in lines[1:]]
    return check_rows(row_type, records, where, first_row=2)


def write_csv(row_type: type[R], rows: Iterable[R]) -> bytes:
    """Return the one CSV text of `rows`, sorted by key (the same rows always give the same bytes)."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    columns = list(row_type.model_fields)
    writer.writerow(columns)
    writer.writerows([_cell(getattr(row, name)) for name in columns] for row in sorted(rows, key=lambda r: r.key))
    return out.getvalue().encode("utf-8")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ";".join(map(str, value)) if isinstance(value, tuple) else str(value)


def key_problems(tables: Mapping[str, Sequence[Row]]) -> list[str]:
    """List repeated keys and references to unknown keys, with row numbers as in the CSV file (the header is 1)."""
    problems, known = list[str](), dict[str, set[str]]()
    for name, rows in tables.items():
        first = dict[Any, int]()
        key = attrgetter(*ROW_TYPES[name].KEY)
        for number, row in enumerate(rows, start=2):
            if (earlier := first.setdefault(key(row), number)) != number:
                problems.append(f"{name}.csv: row {number} repeats the key of row {earlier}: {_key_text(row)}")
        known[name] = set(map(attrgetter(ROW_TYPES[name].KEY[0]), rows))
    for name, column, target in REFERENCES:
        for number, value in enumerate(map(attrgetter(column), tables[name]), start=2):
            for item in value if isinstance(value, tuple) else (value,):
                item = item.source if isinstance(item, Alias) else item
                if item not in known[target]:
                    near = like(item, sorted(known[target]))
                    problems.append(f"{name}.csv: row {number}, column {column}: {item!r} is not in {target}.csv{near}")
    return [*problems, *_shared_names(tables["checkpoints"])]


def _shared_names(checkpoints: Sequence[Row]) -> list[str]:
    """List names that several rows claim, or one row twice; a repeated key is told already."""
    owners = {row.key[0]: [number] for number, row in enumerate(checkpoints, start=2)}
    for number, row in enumerate(checkpoints, start=2):
        assert isinstance(row, CheckpointRow)
        for alias in row.aliases:
            owners.setdefault(alias.hub_id, []).append(number)
    return [
        f"checkpoints.csv: row {numbers[-1]}, column aliases: {name!r} is a name of the weights of row {numbers[0]} too"
        for name, numbers in owners.items()
        if len(numbers) > 1
    ]


def like(wanted: str, known: Sequence[str]) -> str:
    """Say which known names are close to one, by the whole or by what follows the last slash."""
    ends = {name.rsplit("/", 1)[-1].lower(): name for name in known}
    by_end = difflib.get_close_matches(wanted.rsplit("/", 1)[-1].lower(), ends, n=3)
    close = difflib.get_close_matches(wanted, known, n=3) or [ends[end] for end in by_end]
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


def union_rows(table: str, old: Sequence[R], new: Sequence[R], *, replace: bool = False) -> tuple[R, ...]:
    """Return the rows of both, sorted by key; equal rows are kept once. ``embedded`` of tasks is not compared."""
    merged = {row.key: row for row in old}
    for row in new:
        known = merged.get(row.key)
        columns = [n for n in type(row).model_fields if n != "embedded" and getattr(row, n) != getattr(known, n, None)]
        if known is not None and columns and not replace:
            found = "; ".join(f"{name}: {getattr(known, name)!r} and {getattr(row, name)!r}" for name in columns)
            raise ZooIndexError(f"{table}: two different facts about {_key_text(row)} ({found}); pass replace=True")
        if known is None or columns:
            merged[row.key] = row
    return tuple(merged[key] for key in sorted(merged))


def _key_text(row: Row) -> str:
    return ", ".join(f"{name}={getattr(row, name)!r}" for name in row.KEY if getattr(row, name) is not None)


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``manifest.json``."""
    try:
        document = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ZooIndexError(f"{folder} is no zoo index: it holds no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise ZooIndexError(f"{folder / MANIFEST}: not readable as JSON ({error})") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise ZooIndexError(
            f"{folder / MANIFEST}: schema version {version!r}; this release reads version {SCHEMA_VERSION} "
            "(update hf-task2vec, or use an index written for this release)"
        )
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc']))}: found {e['input']!r}; {e['msg']}" for e in error.errors()]
        raise ZooIndexError(f"{folder / MANIFEST}: {summarise(found)}") from None
    required = {f"{name}.csv" for name in ROW_TYPES}
    if missing := sorted(required - set(manifest.files)):
        raise ZooIndexError(f"{folder / MANIFEST}: files lists no checksum of {missing}")
    return manifest
