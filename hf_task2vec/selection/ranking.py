"""The result of a selection: ranked candidates with their evidence."""

from __future__ import annotations

import html
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from hf_task2vec.errors import SelectionError

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.selection.explanation import Explanation
    from hf_task2vec.tasks import Task

#: Half-width of the 80 % interval of a normal distribution, in standard deviations.
HALF_WIDTH_80 = 1.2816


@dataclass(frozen=True)
class Candidate:
    """One checkpoint in a ranking.

    Attributes
    ----------
    rank
        1 for the best.
    hub_id
        Repository on the Hub.
    aliases
        Other repositories that hold the same weights.
    score
        Predicted accuracy, in [0, 1], under the protocol asked for: after fine-tuning on the dataset, or of a linear
        probe on this checkpoint's features of the sample; with several labels an image its mAP
        (:attr:`Ranking.score_name` says which).
    std
        Standard deviation of `score`.
    low, high
        Ends of the 80 % interval of that accuracy or mAP.
    prior, residual
        ``score = prior + residual``: what any task would predict, and what this task adds.
    params_m, gmacs, input_px, license, library, architecture, pretraining, in1k_top1
        Facts from the index; None where unknown.
    evidence
        Plain words on what the prediction rests on.
    measured
        Leave-one-out accuracy or mAP, in [0, 1], that a second stage measured on the sample itself, or None. `score`,
        `std` and the interval then weigh it with the prediction, and `residual` is what both add to the prior.
    values
        What is black and white in the sample's pictures, by kind of number, where they are not plain 8 bits.
    """

    rank: int
    hub_id: str
    score: float
    std: float
    low: float
    high: float
    prior: float
    residual: float
    params_m: float | None
    gmacs: float | None
    input_px: int | None
    license: str | None
    library: str
    architecture: str
    pretraining: str | None
    in1k_top1: float | None
    evidence: str
    measured: float | None = None
    aliases: tuple[str, ...] = ()
    values: Mapping[str, Sequence[float]] | None = field(default=None, repr=False, compare=False)

    def load(
        self,
        num_classes: int | None = None,
        *,
        class_names: Sequence[str] | None = None,
        revision: str | None = None,
        token: str | None = None,
    ) -> tuple[Any, Any]:
        """Download the checkpoint and return ``(model, transform)``, ready to fine-tune.

        Parameters
        ----------
        num_classes
            Outputs of the fresh head; by default as many as `class_names`.
        class_names
            Names that the model keeps for its outputs.
        revision, token
            Commit, branch or tag; access token for gated and private repositories.

        Returns
        -------
        tuple
            The ``nn.Module`` and its evaluation transform: of any picture that the selection took, which it treats
            alike, to a float32 tensor (3, H, W).
        """
        from hf_task2vec.probes import load_classifier

        return load_classifier(
            self.hub_id, num_classes, class_names=class_names, values=self.values, revision=revision, token=token
        )


@dataclass(frozen=True)
class TaskGain:
    """Whether the task matters: the first candidate against the one that is best regardless of the task.

    Attributes
    ----------
    static
        The checkpoint of the largest prior among those that met the limits; it may be the first candidate itself.
    points
        By how many points of accuracy the first candidate is predicted to be better, ≥ 0.
    std
        Standard deviation of that difference, in points; 0 if they are the same.
    """

    static: str
    points: float
    std: float


@dataclass(frozen=True, eq=False, repr=False)
class Ranking(Sequence[Candidate]):
    """Candidates, best first: a sequence of the best `top_k`.

    Attributes
    ----------
    table
        All checkpoints that met the limits, best first: what :class:`Candidate` holds, indexed by rank.
    top_k
        How many of them are candidates.
    dataset
        What was ranked for.
    summary
        A few plain sentences: what to take, how sure, whether the task matters.
    warnings
        What could make the ranking less reliable.
    provenance
        Sample, probe, index, limits and versions: all that is needed to repeat the selection.
    task_gain
        Whether the task matters.
    explanations
        By candidate: see :meth:`explain`.
    request
        What the user asked for, in plain values: see :meth:`command`. It may hold local paths, so it is in no document.
    sample
        The images, for those in a report; not kept in a pickle.
    """

    table: pd.DataFrame
    top_k: int
    dataset: str
    summary: str
    warnings: tuple[str, ...]
    provenance: dict[str, Any]
    task_gain: TaskGain | None = None
    explanations: Mapping[str, Explanation] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    sample: Task | None = None

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The best `top_k`."""
        import pandas as pd

        rows: list[dict[str, Any]] = self.table.head(self.top_k).reset_index().to_dict("records")
        aliases = [tuple(alias.hub_id for alias in row.pop("aliases")) for row in rows]
        known = [
            {name: None if pd.isna(value) else value for name, value in row.items()} | {"aliases": names}
            for row, names in zip(rows, aliases, strict=True)
        ]
        values = self.provenance.get("task", {}).get("values")
        return tuple(Candidate(**{**row, "values": values}) for row in known)

    @property
    def n_ranked(self) -> int:
        """Number of checkpoints that met the limits."""
        return len(self.table)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "sample": None}

    def __len__(self) -> int:
        return len(self.candidates)

    @overload
    def __getitem__(self, position: int) -> Candidate: ...

    @overload
    def __getitem__(self, position: slice) -> Sequence[Candidate]: ...

    def __getitem__(self, position: int | slice) -> Candidate | Sequence[Candidate]:
        return self.candidates[position]

    def head(self, k: int) -> Ranking:
        """Return the same ranking with its first `k` ≥ 1 candidates only."""
        if k < 1:
            raise SelectionError(f"k={k} must be at least 1")
        return replace(self, top_k=min(k, self.top_k))

    @property
    def read(self) -> str:
        """What was read of the dataset, in a sentence; empty where an embedding does not say."""
        return str(self.provenance.get("task", {}).get("read", ""))

    @property
    def score_name(self) -> str:
        """What the scores are: ``"accuracy"``, or ``"mAP"`` (mean average precision) with several labels an image."""
        return str(self.provenance.get("score", "accuracy"))

    @property
    def best(self) -> Candidate:
        """The first candidate."""
        return self.candidates[0]

    def explain(self, hub_id: str | None = None) -> Explanation:
        """Say which reference tasks and measurements speak for a candidate.

        Parameters
        ----------
        hub_id
            One of the candidates, by any of its names; by default the best.

        Raises
        ------
        SelectionError
            The checkpoint is not among the candidates.
        """
        hub_id = hub_id if hub_id is not None else self.best.hub_id
        hub_id = next((candidate.hub_id for candidate in self if hub_id in candidate.aliases), hub_id)
        if hub_id in self.explanations:
            return self.explanations[hub_id]
        ranks = self.table.index[self.table["hub_id"] == hub_id]
        if len(ranks):
            raise SelectionError(
                f"{hub_id!r} is number {ranks[0]} of {self.n_ranked}, but only the first {len(self.explanations)} are "
                "explained; pass a larger top_k"
            )
        raise SelectionError(
            f"{hub_id!r} was not ranked: it is not in the index or does not meet the limits; the ranking holds "
            f"{self.n_ranked} checkpoints such as {self.best.hub_id!r}"
        )

    def command(self, **changes: Any) -> str | None:
        """Return the shell command that makes this ranking again, without a token.

        Parameters
        ----------
        changes
            Options to set otherwise, by the names of :func:`~hf_task2vec.selection.select.select_backbone`.

        Returns
        -------
        str or None
            None if the dataset, the index or the probe was an object in memory.
        """
        asked = {**self.request, **changes}
        if any(asked.get(name, "") is None for name in ("dataset", "index", "probe")):
            return None
        if asked.get("max_samples", 0) is None:  # all there are
            asked["max_samples"] = self.provenance["task"]["n_rows"]
        words, dataset = [], asked.pop("dataset", None)
        for name, value in asked.items():
            flag = "--license" if name == "licenses" else "--" + name.replace("_", "-")
            if isinstance(value, (list, tuple)):
                words += [word for item in value for word in (flag, str(item))]
            elif value is True:
                words.append(flag)
            elif value is not None and value is not False:
                words += [flag, str(int(value) if name == "max_params" else value)]
        if dataset is None:
            return None
        # A name that starts with a dash would be taken for an option.
        named = [*words, "--", dataset] if dataset.startswith("-") else [dataset, *words]
        return shlex.join(["hf-task2vec", "select", *named])

    def report(self, path: str | os.PathLike[str], *, images: bool = True) -> Path:
        """Write the ranking and its evidence as one HTML page that needs nothing else: no network, no other file.

        It shows the ranked table, predicted accuracy against size and compute, the nearest reference tasks, why the
        first candidate is first, the warnings, a few images of the sample and what to run next.

        Parameters
        ----------
        path
            File to write, such as ``"report.html"``; an older one is replaced.
        images
            Show some images of the sample, at most 96 px wide and without their metadata. They are *your* data: pass
            False if they must not leave with the page. The names of the classes stay.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        SelectionError
            The file cannot be written, or the ranking holds no candidate.
        """
        from hf_task2vec.report import write_report

        return write_report(self, path, images=images)

    def to_dict(self) -> dict[str, Any]:
        """Return the ranking as plain Python objects, ready for JSON."""
        return {
            "dataset": self.dataset,
            "read": self.read,
            "summary": self.summary,
            "warnings": list(self.warnings),
            "n_ranked": self.n_ranked,
            "task_gain": None if self.task_gain is None else asdict(self.task_gain),
            "candidates": [_without_values(candidate) for candidate in self.candidates],
            "provenance": self.provenance,
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the ranking as a JSON document."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per candidate, indexed by rank; `table` holds all that were ranked."""
        return self.table.head(self.top_k)

    def __repr__(self) -> str:
        lines = [self.read] if self.read else []
        lines += [f"{self.n_ranked} checkpoints ranked for {self.dataset!r}; the best {len(self)}:"]
        rows = self._cells()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        return "\n".join([*lines, self.summary, *(f"Warning: {warning}" for warning in self.warnings)])

    def _repr_html_(self) -> str:
        header, *rows = self._cells()
        head = "".join(f"<th>{name}</th>" for name in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        notes = "".join(f"<p>⚠ {html.escape(warning)}</p>" for warning in self.warnings)
        caption = f"{html.escape(self.read)}<br>{self.n_ranked} checkpoints ranked for {html.escape(self.dataset)}"
        return (
            f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{html.escape(self.summary)}</p>{notes}"
        )

    def _cells(self) -> list[tuple[str, ...]]:
        """Return the heading and one row per candidate; accuracies in per cent."""
        with_measured = any(candidate.measured is not None for candidate in self)
        rows = [
            (
                *(str(c.rank), c.hub_id, percent(c.score), f"{percent(c.low)}–{percent(c.high)}"),
                *([percent(c.measured)] if with_measured else []),
                *("?" if c.params_m is None else f"{c.params_m:.1f}M", c.license or "?"),
            )
            for c in self
        ]
        measured = ["measured"] * with_measured
        return [("rank", "checkpoint", self.score_name, "80 % interval", *measured, "params", "licence"), *rows]


#: Columns of `Ranking.table`, whose index is the rank.
COLUMNS = tuple(f.name for f in fields(Candidate) if f.name not in ("rank", "values"))


def _without_values(candidate: Candidate) -> dict[str, Any]:
    """A candidate's own facts; the sample's are in the provenance."""
    return {name: value for name, value in asdict(candidate).items() if name != "values"}


def percent(share: float | None) -> str:
    """Write a share in [0, 1] in per cent, and None as nothing."""
    return "" if share is None else f"{100 * share:.1f}"


def known(value: float | None, form: str) -> str:
    """Write a number; one that is not known is a question mark."""
    return "?" if value is None else form.format(value)
