"""Scores of one's own in a local index, so that its rankings learn from what was measured.

What a score teaches follows from the metric (:mod:`hf_task2vec.metric.ranking_metric`): only differences between
checkpoints within one source, protocol, metric, split and task count, so the first checkpoint of such a group teaches
nothing until a second joins it. A linear probe on the sample that a task was embedded from needs no second: the probe
network's own accuracy there is known, and joins the group by itself.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_task2vec.embedding import TaskEmbedding
from hf_task2vec.errors import EmbeddingError, ProbeMismatchError, ZooIndexError
from hf_task2vec.evidence.rows import PROTOCOL
from hf_task2vec.files import sha256_bytes
from hf_task2vec.probes import Score
from hf_task2vec.selection import check_descriptors
from hf_task2vec.zoo import (
    MANIFEST,
    ScoreRow,
    SourceRow,
    TaskRow,
    ZooIndex,
    as_slug,
    check_rows,
    default_index_path,
    like,
    resolve_candidates,
)

#: Source of scores that name none: one's own.
LOCAL_SOURCE = "local"
_HUB_SOURCE = {
    "source": "hub_model_card",
    "repo": "huggingface.co model cards",
    "protocol": "facts about checkpoints",
    "split": "none",
    "metric": "none",
    "license": "facts only",
}
_GROUP = ("source", "protocol", "metric", "split", "task")
_LOCK_SECONDS = 600


@dataclass(frozen=True)
class AddedScore:
    """What became of a score."""

    path: Path
    """Folder of the index."""
    row: ScoreRow
    """The score as it stands in ``scores.csv``."""
    new: tuple[str, ...]
    """What the index did not have before, besides the score: ``"index"``, ``"task"``, ``"embedding"``,
    ``"checkpoint"``, ``"source"``."""
    replaced: float | None
    """The score in whose place it stands, or None."""
    reference: str | None
    """Hub id of the probe if its own accuracy joined the score's group, else None."""
    comparable: int
    """Checkpoints whose scores the index can compare, this one's included. With 1 it teaches nothing yet."""
    notes: tuple[str, ...]
    """What the user should know, in plain sentences."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        facts = asdict(self)
        del facts["path"], facts["row"]
        return {"path": str(self.path), "score": self.row.model_dump(exclude_none=True), **facts}


def add_score(
    path: str | os.PathLike[str],
    *,
    task: str | os.PathLike[str] | TaskEmbedding,
    checkpoint: str,
    score: float,
    protocol: str,
    n_test: int,
    split: str = "test",
    n_train: int | None = None,
    metric: str = "top1",
    source: str = LOCAL_SOURCE,
    license: str | None = None,  # noqa: A002 (the column's own word)
    name: str | None = None,
    base: ZooIndex | str | os.PathLike[str] | None = None,
    replace: bool = False,
    look_up: bool = False,
    token: str | None = None,
) -> AddedScore:
    """Add one score to a local index. All is checked first: after an error nothing on disk has changed.

    Parameters
    ----------
    path
        Folder of the index.
    task
        A task of the index, or an embedding (an object, or what ``hf-task2vec embed`` wrote), which is added with it.
    checkpoint
        Hub id of a checkpoint of the index, by any of its names.
    score
        Share of right answers (or what `metric` says), in [0, 1].
    protocol
        How it was reached, such as ``"full_finetune"`` or ``"linear_probe_full"``. The first two words are its kind;
        protocols of one kind share what they add to a checkpoint's standing.
    n_test
        Images it was measured on, ≥ 1: they say how far to trust it.
    split, n_train, metric
        As in ``scores.csv``: see :class:`~hf_task2vec.zoo.schema.ScoreRow`.
    source, license
        Where it comes from. A name that the index does not know becomes a source, by default of an unspecified licence.
    name
        What the index shall call an embedding's task; by default, its dataset.
    base
        Index to begin with if there is none at `path`: ``"shipped"``, a folder, or an index.
    replace
        Put it in the place of a score of the same task, checkpoint, source, protocol, metric, split and `n_train`.
    look_up, token
        Ask the Hub for the facts of a checkpoint that the index does not know.

    Raises
    ------
    ZooIndexError
        There is no index and no `base`, the index is the shipped one, the task or checkpoint is unknown, a value is out
        of range, the score is there already, or the index cannot be written.
    EmbeddingError, ProbeMismatchError
        The embedding cannot be read or used, or is not of the index's probe.
    """
    folder = Path(path)
    if not 0.0 <= score <= 1.0:  # nor NaN
        hint = f"; is it in per cent? Then give {score / 100:g}" if 1.0 < score <= 100.0 else ""
        raise ZooIndexError(f"score={score:g} is out of range: a share between 0 and 1 is wanted{hint}")
    if n_test < 1:
        raise ZooIndexError(f"n_test={n_test} must be at least 1: the number of images that the score was measured on")
    with _alone(folder):
        new = [] if (folder / MANIFEST).is_file() else ["index"]
        index = open_index(folder, base)
        embedding = _embedding_of(task)
        index, slug, added = _with_task(index, str(task) if embedding is None else name, embedding)
        new += added
        checkpoint = index.names.get(checkpoint, checkpoint)
        if checkpoint not in index.names:
            index = _with_checkpoint(index, checkpoint, look_up=look_up, token=token)
            new.append("checkpoint")
        sources, facts = index.by_name(SourceRow), {"protocol": protocol, "split": split, "metric": metric}
        if source not in sources:
            about = {"repo": "own measurements", "protocol": "see scores.csv", "license": license or "unspecified"}
            index = index.add_sources([{**facts, **about, "source": source}])
            new.append("source")
        elif license not in (None, sources[source].license):
            raise ZooIndexError(f"the licence of source {source!r} is {sources[source].license!r}, not {license!r}")
        named = {"task": slug, "checkpoint": checkpoint, "source": source}
        row = _row(index, {**facts, **named, "n_train": n_train}, Score.of_share(score, n_test))
        old = next((other for other in index.score_rows if other.key == row.key), None)
        if old is not None and not replace:
            raise ZooIndexError(
                f"{folder} already holds {old.score:g} of {checkpoint} on {slug!r} ({source}, {protocol}, {metric}, "
                f"split {split}); replace=True (--replace) puts {score:g} in its place"
            )
        index = index.add_scores([row], replace=replace)
        index, reference = _with_reference(index, row, embedding)
        index.save(folder)
    comparable = len(_comparable(index, row))
    note = ""
    if row.leak:
        note = f"{checkpoint} has seen images of {slug!r}, so rankings leave this score out"
    elif comparable < 2:
        note = (
            "alone in its group (source, protocol, metric, split and task), it moves no ranking yet; a score of a "
            "second checkpoint by the same protocol makes both count"
        )
    notes = (note,) if note else ()
    return AddedScore(folder, row, tuple(new), None if old is None else old.score, reference, comparable, notes)


def open_index(path: str | os.PathLike[str], base: ZooIndex | str | os.PathLike[str] | None = None) -> ZooIndex:
    """Return the index of one's own at `path`, or where there is none the `base` to begin with.

    Raises
    ------
    ZooIndexError
        The place cannot be an index's, or there is neither.
    """
    folder = Path(path)
    if folder.exists() and folder.resolve() == default_index_path().resolve():
        raise ZooIndexError(
            f"{folder} is the index that comes with the package, which an update would overwrite; name another folder, "
            "and begin it with base='shipped' (--base shipped)"
        )
    if (folder / MANIFEST).is_file():
        return ZooIndex.load(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ZooIndexError(f"{folder} holds no index, but other files; name a new or an empty folder")
    if base is None:
        raise ZooIndexError(f"there is no index at {folder}; base='shipped' (--base shipped) begins one")
    return base if isinstance(base, ZooIndex) else ZooIndex.load(None if base == "shipped" else base)


def _embedding_of(task: str | os.PathLike[str] | TaskEmbedding) -> TaskEmbedding | None:
    """Return the embedding that `task` is, or is the place of; None for the name of a task."""
    if isinstance(task, TaskEmbedding):
        return task
    place = Path(task)
    # A folder of images may have the name of a task; only an embedding's own file tells.
    is_embedding = place.is_file() or isinstance(task, os.PathLike)
    return TaskEmbedding.load(place) if is_embedding else None


def _with_task(
    index: ZooIndex, name: str | None, embedding: TaskEmbedding | None
) -> tuple[ZooIndex, str, tuple[str, ...]]:
    """Return the index with the task and its embedding, what it calls it, and what of both is new."""
    known = index.by_name(TaskRow)
    if embedding is None:
        if name is None or name not in known:
            raise ZooIndexError(
                f"the index has no task {name!r}{like(str(name), list(known))}; give one of its tasks, or an "
                "embedding (hf-task2vec embed DATASET -o FILE)"
            )
        return index, name, ()
    check_descriptors(embedding)
    there, slug = index.embeddings, as_slug(embedding.name) if name is None else name
    if not slug:
        raise ZooIndexError(f"no name can be made of {embedding.name!r}; pass name= (--name), such as my_task")
    if (embedding.weights_hash, embedding.config) != (there.weights_hash, there.config):
        raise ProbeMismatchError(
            f"{embedding.name!r} was embedded with {embedding.probe['name']!r} and {embedding.config}, the tasks of "
            f"the index with {there.probe['name']!r} and {there.config}; embed it anew with these"
        )
    if slug in there.names:
        if not np.array_equal(there[slug].values, embedding.values):
            raise EmbeddingError(
                f"the index has another embedding of {slug!r}: name= (--name) adds yours under a name of its own; or "
                f"give task={slug!r} (--task) if it is the same task"
            )
        return index, slug, ()
    if slug not in known:
        index = index.add_tasks([_task_row(slug, embedding)])
    index = index.with_embeddings(embedding, [slug])
    return index, slug, ("embedding",) if slug in known else ("task", "embedding")


def _task_row(slug: str, embedding: TaskEmbedding) -> dict[str, Any]:
    facts, revision = embedding.descriptors, embedding.task.get("revision")
    return {
        "task": slug,
        "title": embedding.name,
        "domain": "local",
        "n_classes": int(facts["n_classes"]),
        "n_images": int(facts["n_samples"]),
        "source": embedding.name if revision else None,
        "source_revision": revision,
        "images_from": (slug,),
    }


def _with_checkpoint(index: ZooIndex, hub_id: str, *, look_up: bool, token: str | None) -> ZooIndex:
    """Return the index with facts of a checkpoint from the Hub, if it may be asked."""
    rows = resolve_candidates([hub_id], index, token=token).rows if look_up else ()
    if not rows:
        near = like(hub_id, list(index.names))
        more = "the Hub gives no facts of it either" if look_up else "look_up=True (--look-up) asks the Hub for them"
        raise ZooIndexError(f"the index has no checkpoint {hub_id!r}{near}, nor its facts; {more}")
    if _HUB_SOURCE["source"] not in index.by_name(SourceRow):
        index = index.add_sources([_HUB_SOURCE])
    return index.add_checkpoints([row.model_copy(update={"facts_source": (_HUB_SOURCE["source"],)}) for row in rows])


def _row(index: ZooIndex, facts: dict[str, Any], score: Score) -> ScoreRow:
    record = {
        **facts,
        **index.repeated_facts(facts["task"], facts["checkpoint"], facts["source"]),
        "score": score.value,
        "score_std_error": round(score.std_error, 6),
        "n_test": score.n,
        "checkpoint_match": "measured",
    }
    return check_rows(ScoreRow, [record], "the new score")[0]


def _with_reference(index: ZooIndex, row: ScoreRow, embedding: TaskEmbedding | None) -> tuple[ZooIndex, str | None]:
    """Add the probe's own accuracy on the embedded sample to a group of linear probes on it, once."""
    if row.protocol != PROTOCOL or embedding is None:
        return index, None
    probe, facts = index.names.get(embedding.probe["name"]), embedding.descriptors
    if probe is None or probe in _comparable(index, row):
        return index, None
    n = int(facts["n_samples"])
    shared = row.model_dump(include=set(_GROUP)) | {"checkpoint": probe, "n_train": n - 1}
    score = Score.of_share(facts["linear_probe_accuracy"], n)
    return index.add_scores([_row(index, shared, score)]), probe


def _comparable(index: ZooIndex, row: ScoreRow) -> set[str]:
    """The checkpoints whose scores one is compared with, its own included."""
    rows = (other for other in index.score_rows if not other.leak)
    return {r.checkpoint for r in rows if all(getattr(r, n) == getattr(row, n) for n in _GROUP)}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let others on this machine that add to the same index wait, so that no score is lost."""
    from filelock import FileLock, Timeout

    lock = f"hf_task2vec-{sha256_bytes(str(folder.resolve()).encode())[:16]}.lock"
    try:
        with FileLock(Path(tempfile.gettempdir(), lock), timeout=_LOCK_SECONDS):
            yield
    except Timeout:
        raise ZooIndexError(f"another process has been adding to {folder} for {_LOCK_SECONDS} s; try again") from None
