"""The zoo index: checkpoints, reference tasks, scores and task embeddings, with their provenance.

An index is a folder (see ``zoo_index/README.md`` for its columns). Loading it never touches the network.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from hf_task2vec.embedding import TaskEmbedding
from hf_task2vec.errors import EmbeddingError, ZooIndexError
from hf_task2vec.files import atomic_path, canonical_json, json_bytes, sha256_bytes, sha256_file, why
from hf_task2vec.hub import IndexOnHub
from hf_task2vec.zoo.records import (
    MANIFEST,
    check_rows,
    key_problems,
    read_csv,
    read_manifest,
    summarise,
    union_rows,
    write_csv,
)
from hf_task2vec.zoo.schema import (
    ROW_TYPES,
    SCHEMA_VERSION,
    CheckpointRow,
    Manifest,
    ProbeEntry,
    Row,
    ScoreRow,
    SourceRow,
    TaskRow,
    column_dtype,
    is_leak,
)

if TYPE_CHECKING:
    import os

    import pandas as pd

R = TypeVar("R", bound=Row)
Rows: TypeAlias = "Iterable[Mapping[str, Any] | Row]"

EMBEDDINGS_FILE = "embeddings.safetensors"
_TABLE_OF = {row_type: name for name, row_type in ROW_TYPES.items()}


def default_index_path() -> Path:
    """Return the shipped index: package data (a wheel) or ``zoo_index/`` beside the package (a checkout)."""
    package = Path(__file__).resolve().parents[1]
    places = (package / "zoo_index", package.parent / "zoo_index")
    for place in places:
        if (place / MANIFEST).is_file():
            return place
    raise ZooIndexError(f"no zoo index found in {places[0]} or {places[1]}; reinstall hf-task2vec or pass a path")


@dataclass(frozen=True, eq=False)
class ZooIndex(IndexOnHub):
    """An immutable index; every change gives a new one.

    Parameters
    ----------
    rows
        The validated rows of ``checkpoints``, ``tasks``, ``scores`` and ``sources``.
    embedded
        Embeddings of the tasks by the index's probe, or the path of their file, read when it is first needed.
    attachments
        Other files of the index, such as a fitted metric: relative name -> bytes.
    created, package_version
        Date (YYYY-MM-DD) and version of ``hf_task2vec`` that wrote the index.
    path
        The folder that it was read from.
    """

    rows: Mapping[str, tuple[Row, ...]]
    embedded: TaskEmbedding | Path | None = None
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    created: str = "1970-01-01"
    package_version: str = "0"
    path: Path | None = None
    _manifest: Manifest | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        filled = {name: tuple(self.rows.get(name, ())) for name in ROW_TYPES}
        object.__setattr__(self, "rows", MappingProxyType(filled))
        if problems := key_problems(filled):
            raise ZooIndexError(summarise(problems))

    # ------------------------------------------------------------------ tables as frames

    @cached_property
    def checkpoints(self) -> pd.DataFrame:
        """One row per checkpoint, columns as in :class:`~hf_task2vec.zoo.schema.CheckpointRow`."""
        return self._frame("checkpoints")

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """One row per task; columns as in :class:`~hf_task2vec.zoo.schema.TaskRow`."""
        return self._frame("tasks")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per measurement; columns as in :class:`~hf_task2vec.zoo.schema.ScoreRow`."""
        return self._frame("scores")

    @cached_property
    def sources(self) -> pd.DataFrame:
        """One row per source; columns as in :class:`~hf_task2vec.zoo.schema.SourceRow`."""
        return self._frame("sources")

    def _frame(self, table: str) -> pd.DataFrame:
        import pandas as pd

        row_type, rows = ROW_TYPES[table], self.rows[table]
        return pd.DataFrame(
            {
                name: pd.Series([*map(attrgetter(name), rows)], dtype=column_dtype(row_type, name))
                for name in row_type.model_fields
            }
        )

    # ------------------------------------------------------------------ names of weights

    @cached_property
    def names(self) -> dict[str, str]:
        """Every name of every checkpoint, and the ``hub_id`` of its row."""
        return {name: row.hub_id for row in self.by_name(CheckpointRow).values() for name in row.names}

    def called(self, wanted: Iterable[str]) -> ZooIndex:
        """Return the same index with the `wanted` names as ``hub_id`` of their checkpoints, in scores too."""
        new = {self.names[name]: name for name in wanted if self.names.get(name, name) != name}
        if not new:
            return self
        rows: dict[str, tuple[Row, ...]] = {
            "checkpoints": tuple(
                row.called(new[row.hub_id]) if row.hub_id in new else row
                for row in self.by_name(CheckpointRow).values()
            ),
            "scores": tuple(
                row.model_copy(update={"checkpoint": new[row.checkpoint]}) if row.checkpoint in new else row
                for row in self.score_rows
            ),
        }
        return dataclasses.replace(self, rows={**self.rows, **rows})

    # ------------------------------------------------------------------ reading and writing

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> ZooIndex:
        """Read an index and check its rows. Checksums are the business of :meth:`validate`.

        Parameters
        ----------
        path
            The folder; by default the index shipped with the package.

        Raises
        ------
        ZooIndexError
            If the index was written in another version of the format, a file is missing or malformed, or a row is
            invalid or names an unknown task or checkpoint.
        """
        folder = default_index_path() if path is None else Path(path)
        manifest = read_manifest(folder)

        def read(name: str) -> bytes:
            try:
                return (folder / name).read_bytes()
            except OSError as error:
                raise ZooIndexError(f"{folder / name}: part of the index but not readable ({why(error)})") from None

        embeddings = folder / EMBEDDINGS_FILE if manifest.probe else None
        if embeddings is not None and not embeddings.is_file():
            raise ZooIndexError(f"{embeddings}: part of the index but not there")
        csv_names = [f"{name}.csv" for name in ROW_TYPES]
        return cls(
            rows={name: read_csv(row_type, read(f"{name}.csv"), f"{name}.csv") for name, row_type in ROW_TYPES.items()},
            embedded=embeddings,
            attachments={n: read(n) for n in sorted(manifest.files) if n not in (*csv_names, EMBEDDINGS_FILE)},
            created=manifest.created,
            package_version=manifest.package_version,
            path=folder,
            _manifest=manifest,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to folder `path`: an error while writing leaves what was there.

        Raises
        ------
        ZooIndexError
            A file cannot be written.
        """
        try:
            with ExitStack() as stack:  # all are written before the first takes its place; the manifest does so last
                for name, data in reversed(self.contents().items()):
                    stack.enter_context(atomic_path(Path(path) / name)).write_bytes(data)
        except OSError as error:
            raise ZooIndexError(f"the index cannot be written to {path}: {why(error)}") from error

    def contents(self) -> dict[str, bytes]:
        """Return the index as files: relative names -> bytes, the manifest last."""
        contents = self._contents()
        manifest = Manifest(
            created=self.created,
            package_version=self.package_version,
            files={name: sha256_bytes(contents[name]) for name in sorted(contents)},
            probe=self.probe,
            counts={name: len(rows) for name, rows in sorted(self.rows.items())},
        )
        return contents | {MANIFEST: json_bytes(manifest.model_dump())}

    def _contents(self) -> dict[str, bytes]:
        contents = {f"{name}.csv": write_csv(ROW_TYPES[name], rows) for name, rows in self.rows.items()}
        contents |= {} if self.embedded is None else {EMBEDDINGS_FILE: self.embeddings.to_bytes()}
        return contents | dict(self.attachments)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and checksums of all files: equal indexes have equal fingerprints."""
        if self._manifest is not None:
            return sha256_bytes(canonical_json(self._manifest.files))
        return sha256_bytes(canonical_json({name: sha256_bytes(data) for name, data in self._contents().items()}))

    # ------------------------------------------------------------------ embeddings

    @property
    def probe(self) -> ProbeEntry | None:
        """Name and weight hash of the network that made the embeddings; None if there are none."""
        if isinstance(self.embedded, TaskEmbedding):
            return ProbeEntry(name=self.embedded.probe["name"], weights_hash=self.embedded.weights_hash)
        return None if self._manifest is None else self._manifest.probe

    @cached_property
    def embeddings(self) -> TaskEmbedding:
        """The reference tasks' embeddings; their `names` are those of ``tasks.csv``.

        Raises
        ------
        ZooIndexError
            If there are none, or the file is malformed.
        """
        if isinstance(self.embedded, TaskEmbedding):
            return self.embedded
        if self.embedded is None:
            raise ZooIndexError("the index holds no task embeddings; add some with with_embeddings")
        try:
            found = TaskEmbedding.load(self.embedded)
        except EmbeddingError as error:
            raise ZooIndexError(str(error)) from error
        if self.probe is not None and found.weights_hash != self.probe.weights_hash:
            raise ZooIndexError(
                f"{self.embedded}: the file is of probe {found.probe['name']!r}, but {MANIFEST} says {self.probe}"
            )
        return found

    def with_embeddings(
        self, new: TaskEmbedding, names: Sequence[str] | None = None, *, replace: bool = False
    ) -> ZooIndex:
        """Add embeddings of tasks of the index; ``embedded`` in the tasks follows.

        Parameters
        ----------
        new
            Embeddings by the index's probe.
        names
            Of each the task, as in ``tasks.csv``; by default the names of its datasets.
        replace
            The new embeddings take the place of all there are; otherwise those stay, and a task with two different
            embeddings is an error.
        """
        new = TaskEmbedding.stack([new], names)
        if self.embedded is not None and not replace:
            new = _union(self.embeddings, new)
        return self._with(embedded=new.take(np.argsort(new.names).tolist()).without_file_names())

    # ------------------------------------------------------------------ changes

    def add_scores(self, rows: Rows, *, replace: bool = False) -> ZooIndex:
        """Add measurements (mappings or :class:`~hf_task2vec.zoo.schema.ScoreRow`), under any name of a checkpoint.

        A row that is there already is skipped; one with the same key and other facts is an error, or takes the old
        one's place with ``replace=True``. The same holds for the other ``add_`` methods.
        """
        new = check_rows(ScoreRow, list(rows), "new scores")
        named = [row.model_copy(update={"checkpoint": self.names.get(row.checkpoint, row.checkpoint)}) for row in new]
        return self._add("scores", named, replace=replace)

    def without_scores(self, source: str) -> ZooIndex:
        """Return the index without the scores of one source."""
        return self._with(rows={**self.rows, "scores": tuple(row for row in self.score_rows if row.source != source)})

    def add_tasks(self, rows: Rows, *, replace: bool = False) -> ZooIndex:
        """Add tasks; ``embedded`` is set from the embeddings."""
        return self._add("tasks", rows, replace=replace)

    def add_checkpoints(self, rows: Rows, *, replace: bool = False) -> ZooIndex:
        """Add checkpoints."""
        return self._add("checkpoints", rows, replace=replace)

    def add_sources(self, rows: Rows, *, replace: bool = False) -> ZooIndex:
        """Add sources; scores may only name sources that are there."""
        return self._add("sources", rows, replace=replace)

    def with_attachments(self, files: Mapping[str, bytes]) -> ZooIndex:
        """Add or replace files that belong to the index, such as ``metric.json``."""
        return self._with(attachments={**self.attachments, **files})

    def _add(self, table: str, rows: Rows, *, replace: bool) -> ZooIndex:
        new = check_rows(ROW_TYPES[table], list(rows), f"new {table}", first_row=1)
        return self._with(rows={**self.rows, table: union_rows(table, self.rows[table], new, replace=replace)})

    def _with(self, **changes: Any) -> ZooIndex:
        # What was read and not changed is passed on as it is; the manifest no longer describes the whole.
        if "embedded" not in changes and self.embedded is not None:
            changes["embedded"] = self.embeddings
        index = dataclasses.replace(self, **{"path": None, "_manifest": None, **changes})
        embedded = set() if index.embedded is None else set(index.embeddings.names)
        tasks = index.by_name(TaskRow)
        if unknown := sorted(embedded - set(tasks)):
            raise ZooIndexError(f"embeddings of unknown tasks {unknown}; add them first with add_tasks")
        marked = tuple(row.model_copy(update={"embedded": name in embedded}) for name, row in tasks.items())
        return dataclasses.replace(index, rows={**index.rows, "tasks": marked})

    # ------------------------------------------------------------------ questions

    @property
    def score_rows(self) -> tuple[ScoreRow, ...]:
        """The rows of ``scores.csv``."""
        return self.rows["scores"]  # type: ignore[return-value]

    def by_name(self, row_type: type[R]) -> dict[str, R]:
        """Return the rows of a table by name: of `TaskRow`, `CheckpointRow` or `SourceRow`."""
        if row_type not in self._by_name:
            rows = self.rows[_TABLE_OF[row_type]]
            self._by_name[row_type] = {getattr(row, row.KEY[0]): row for row in rows}
        return self._by_name[row_type]  # type: ignore[return-value]

    @cached_property
    def _by_name(self) -> dict[type[Row], dict[str, Row]]:
        return {}

    def repeated_facts(self, task: str, checkpoint: str, source: str) -> dict[str, Any]:
        """Return what the row of a score repeats of its task, checkpoint and source."""
        leak = is_leak(self.by_name(TaskRow)[task], self.by_name(CheckpointRow)[checkpoint])
        return {"leak": leak, "source_license": self.by_name(SourceRow)[source].license}

    def validate(self) -> list[str]:
        """Return everything that is wrong beyond what loading checks; an empty list if nothing is."""
        problems = [
            f"scores.csv: row {number}, column {column}: {getattr(row, column)}; the rows that it names say {fact}"
            for number, row in enumerate(self.score_rows, start=2)
            for column, fact in self.repeated_facts(row.task, row.checkpoint, row.source).items()
            if getattr(row, column) != fact
        ]
        if self.path is not None and self._manifest is not None:
            for name, expected in self._manifest.files.items():
                if (found := sha256_file(self.path / name)) != expected:
                    problems.append(
                        f"{name}: its SHA-256 is {found} but {MANIFEST} says {expected}; the file was changed or "
                        "damaged. Restore it or, if the change is meant, write the index again: load and save"
                    )
        try:
            embedded = set() if self.embedded is None else set(self.embeddings.names)
        except ZooIndexError as error:
            return [*problems, str(error)]
        tasks = self.by_name(TaskRow)
        for number, task in enumerate(tasks.values(), start=2):
            if task.embedded != (task.task in embedded):
                problems.append(f"tasks.csv: row {number}, column embedded: {task.embedded}, unlike the embeddings")
        unknown = embedded - set(tasks)
        return problems + [f"embeddings of {task!r}, which is not in tasks.csv" for task in sorted(unknown)]

    def info(self) -> dict[str, Any]:
        """Return a JSON-able summary."""
        return {
            "path": str(self.path) if self.path else None,
            "schema_version": SCHEMA_VERSION,
            "created": self.created,
            "package_version": self.package_version,
            "fingerprint": self.fingerprint,
            "counts": {name: len(rows) for name, rows in self.rows.items()},
            "scores_by_source": dict(sorted(Counter(row.source for row in self.score_rows).items())),
            "scored_checkpoints": len({row.checkpoint for row in self.score_rows}),
            "embedded_tasks": {self.probe.name: len(self.embeddings)} if self.probe else {},
            "attachments": sorted(self.attachments),
        }


def _union(old: TaskEmbedding, new: TaskEmbedding) -> TaskEmbedding:
    if old.config != new.config:
        raise ZooIndexError(f"embeddings differ in how they were made: {old.config} and {new.config}")
    for name in set(old.names) & set(new.names):
        a, b = old[name], new[name]
        if a.descriptors != b.descriptors or not np.array_equal(a.values, b.values):
            raise ZooIndexError(f"the index holds another embedding of {name!r}; pass replace=True, or another name")
    fresh = [row for row, name in enumerate(new.names) if name not in old.names]
    return TaskEmbedding.stack([old, new.take(fresh)]) if fresh else old
