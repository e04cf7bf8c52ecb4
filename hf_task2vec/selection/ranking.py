"""The result of a selection: ranked candidates with their evidence."""

from __future__ import annotations

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
    from hf_task2vec.selection.shortlist import Contenders
    from hf_task2vec.tasks import Task

#: Half-width of the 80 % interval of a normal distribution, in standard deviations.
HALF_WIDTH_80 = 1.2816
# Points of accuracy that a much smaller checkpoint may lack and be called nearly as good.
_NEARLY = 2.0


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
    params_m, gmacs, input_px, license, library, architecture, family, pretraining, objective, domain, in1k_top1
        Facts from the index; None where unknown.
    throughput_gpu, throughput_cpu
        Images a second, from timm's benchmarks: on an RTX 4090 in mixed precision, and one by one on a Core i9.
    evidence
        Plain words on what the prediction rests on.
    measured
        Leave-one-out accuracy or mAP, in [0, 1], that a second stage measured on the sample itself, or None. `score`,
        `std` and the interval then weigh it with the prediction, and `residual` is what both add to the prior.
    gain
        Of a fine-tuned checkpoint, where `experts` are asked for: by how many points of accuracy it is expected to be
        better than the checkpoint that it was fine-tuned from; negative where it is better to start from that one.
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
    family: str | None = None
    objective: str | None = None
    domain: str | None = None
    throughput_gpu: float | None = None
    throughput_cpu: float | None = None
    gain: float | None = None
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
class Pick:
    """A member of a short list: a candidate, and in a phrase why it is one."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True)
class BestWithin:
    """The best candidate of a size, and what is given up for that.

    Attributes
    ----------
    max_params
        Most parameters; None for any number.
    candidate
        The best of those.
    lower, low, high
        By how many points its result is expected to be lower than that of the first candidate, and the ends of the
        80 % interval of that; negative where it may be better.
    """

    max_params: float | None
    candidate: Candidate
    lower: float
    low: float
    high: float

    @property
    def name(self) -> str:
        """The size in words."""
        return "any size" if self.max_params is None else f"≤ {self.max_params / 1e6:.0f}M"

    @property
    def cost(self) -> str:
        """The points given up, and their interval."""
        ends = " to ".join(f"{end:.1f}".replace("-", "−") for end in (self.low, self.high))
        return "" if self.low == self.high else f"{self.lower:.1f} ({ends})".replace("-", "−")


@dataclass(frozen=True)
class TaskGain:
    """Whether the task matters: the first candidate against the one that is best regardless of the task.

    Attributes
    ----------
    static
        The checkpoint of the largest prior among those that met the limits; it may be the first candidate itself.
    points
        By how many points of accuracy the first candidate is predicted to be better; below 0 where the other one is of
        unknown size or licence and so not the first.
    std
        Standard deviation of that difference, in points; 0 if they are the same.
    """

    static: str
    points: float
    std: float

    @property
    def said(self) -> str:
        """The difference in words, as seen from the one that is best regardless of the task."""
        points = round(self.points, 1)
        return f"{abs(points):.1f} ± {self.std:.1f} points {'lower' if points >= 0.0 else 'higher'}"


@dataclass(frozen=True, eq=False, repr=False)
class Ranking(Sequence[Candidate]):
    """Candidates, best first: a sequence of the best `top_k`.

    One of unknown size or licence is not the first while one of which both are known is as good within the noise.

    Attributes
    ----------
    table
        All checkpoints that met the limits, best first: what :class:`Candidate` holds, indexed by rank.
    top_k
        How many of them are candidates.
    dataset
        What was ranked for.
    summary
        Three plain sentences: what to take; how sure, and what would make it surer; whether the task matters.
    warnings
        What could make the ranking less reliable.
    provenance
        Sample, probe, index, limits and versions: all that is needed to repeat the selection.
    task_gain
        Whether the task matters.
    contenders
        Those that may be best, and how their results go together; where there are none, each goes by itself.
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
    contenders: Contenders | None = None
    explanations: Mapping[str, Explanation] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    sample: Task | None = None

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The best `top_k`."""
        return self._at(range(min(self.top_k, len(self.table))))

    def _at(self, positions: Sequence[int]) -> tuple[Candidate, ...]:
        import pandas as pd

        rows: list[dict[str, Any]] = self.table.iloc[list(positions)].reset_index().to_dict("records")
        aliases = [tuple(alias.hub_id for alias in row.pop("aliases")) for row in rows]
        known = [
            {name: None if pd.isna(value) else value for name, value in row.items()} | {"aliases": names}
            for row, names in zip(rows, aliases, strict=True)
        ]
        values = self.provenance.get("task", {}).get("values")
        return tuple(Candidate(**{**row, "values": values}) for row in known)

    @cached_property
    def _contenders(self) -> Contenders:
        from hf_task2vec.selection.shortlist import Contenders

        return Contenders.independent(self.table) if self.contenders is None else self.contenders

    def shortlist(self, k: int = 5) -> tuple[Pick, ...]:
        """Return the few candidates to try: the set whose best is expected to be best.

        Chosen greedily for the expected maximum of their results under the joint posterior, beginning with the first of
        the ranking, and given in its order. Siblings count once: of a family whose members are as good one is taken,
        and of one set of weights never two. Where several add nearly as much the smallest is taken, and one of three or
        more is much smaller than the first. All that as long as the list is expected to hold no worse a best than the
        first `k` of the ranking would (siblings counted once, where only siblings of theirs come up to them).
        Looked at are the first 256 and the first 16 of each size.

        Parameters
        ----------
        k
            How many, ≥ 1; fewer where there are no more kinds.
        """
        if k < 1:
            raise SelectionError(f"k={k} must be at least 1")
        chosen = self._at([int(self._contenders.position[i]) for i in sorted(self._contenders.choose(k))])
        return tuple(Pick(c, self._reason(c, chosen[:i])) for i, c in enumerate(chosen))

    def as_good(self) -> int:
        """Return how many other families of those looked at hold one that may be as good as the first."""
        near = self._contenders
        return len(set(near.family[near.as_good[0]].tolist()) - {int(near.family[0])})

    def promised(self, k: int) -> float:
        """Return by how many points measuring a short list of `k` by linear probes is expected to better the pick."""
        near = self._contenders
        return self._points(self.best.score) * (near.after_probing(near.choose(k)) - float(near.mean[0]))

    def _reason(self, found: Candidate, before: Sequence[Candidate]) -> str:
        """Say in a phrase why a candidate is in a short list, after those before it."""
        heritage = f"; {found.evidence}" if found.gain is not None else ""
        if not before:
            passed_over = bool((self.table["score"] > found.score).any())
            return "best overall" + " of those of known size and licence" * passed_over + heritage
        if heritage:
            return found.evidence
        first, lower = before[0], 100.0 * max(before[0].score - found.score, 0.0)
        if found.domain not in (None, "general", first.domain):
            return f"encoder for {found.domain}"
        if first.params_m and found.params_m and found.params_m <= 0.4 * first.params_m:
            rivals = self.table[self.table["params_m"] < found.params_m]["score"]
            smallest = lower <= _NEARLY and not (rivals >= first.score - _NEARLY / 100.0).any()
            where = "smallest within 2 points" if smallest else f"1/{first.params_m / found.params_m:.0f} of the size"
            return f"{where}, {lower:.1f} points lower"
        return "another kind: " + " ".join(filter(None, (found.objective, found.family or found.architecture)))

    @cached_property
    def budgets(self) -> tuple[BestWithin, ...]:
        """The best overall and within 100, 30 and 10 million parameters, as far as the limits leave any."""
        from hf_task2vec.selection.shortlist import SIZES

        near, found = self._contenders, list[BestWithin]()
        for most in (None, *(size for size in SIZES if (self.table["params_m"] * 1e6 > size).any())):
            at = 0 if most is None else near.best(near.size <= most)
            if at is None:
                continue
            first, best = self.best, self._at([int(near.position[at])])[0]
            lower = 100.0 * (first.score - best.score)
            half = HALF_WIDTH_80 * self._points(0.5 * (first.score + best.score)) * near.between[0, at] ** 0.5
            found.append(BestWithin(most, best, lower, float(lower - half), float(lower + half)))
        return tuple(found)

    def _points(self, score: float) -> float:
        """Points of accuracy in a unit of the contenders' means, about a score."""
        return 100.0 * (1.0 if self.contenders is None else score * (1.0 - score))

    def folded(self) -> list[tuple[Candidate, int]]:
        """Return the best `top_k` unlike those before them, and how many more of its family each stands for.

        What was measured stands for itself, and so do all where no more than `top_k` were ranked.
        """
        if self.n_ranked <= self.top_k:
            return [(candidate, 0) for candidate in self]
        near, measured = self._contenders, self.table["measured"].notna().to_numpy()
        found = near.folded(measured[near.position].nonzero()[0].tolist())[: self.top_k]
        shown = self._at([int(near.position[i]) for i, _ in found])
        return [(candidate, more) for candidate, (_, more) in zip(shown, found, strict=True)]

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
                words += [flag, str(int(value) if name in ("max_params", "device_memory") else value)]
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
            "shortlist": [{**_without_values(pick.candidate), "reason": pick.reason} for pick in self.shortlist()],
            "budgets": [{**asdict(found), "candidate": _without_values(found.candidate)} for found in self.budgets],
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
        """Return the answer in plain text: sentences, short list, budgets, and the ranking with siblings folded."""
        picks, within, score = self.shortlist(), self.budgets, self.score_name
        facts = [(p.candidate.hub_id, percent(p.candidate.score), *_facts(p.candidate), p.reason) for p in picks]
        sizes = [(b.name, b.candidate.hub_id, percent(b.candidate.score), b.cost, *_facts(b.candidate)) for b in within]
        parts = [
            [line for line in (self.read, self.summary, *(f"Warning: {text}" for text in self.warnings)) if line],
            ["To try:", *_lines(("checkpoint", score, "params", "licence", "why"), facts)],
            ["Within a size:", *_lines(("size", "checkpoint", score, "points lower", "params", "licence"), sizes)],
            [f"{self.n_ranked} checkpoints ranked for {self.dataset!r}; the best:", *_lines(*self.cells())],
        ]
        return "\n\n".join("\n".join(part) for part in parts)

    def _repr_html_(self) -> str:
        from hf_task2vec.report import notebook_view

        return notebook_view(self)

    def cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the heading and one row for each of :meth:`folded`; accuracies in per cent."""
        folded = self.folded()
        with_measured = any(c.measured is not None for c, _ in folded)
        rows = [
            (
                *(str(c.rank), c.hub_id, percent(c.score), f"{percent(c.low)}–{percent(c.high)}"),
                *([percent(c.measured)] if with_measured else []),
                *_facts(c),
                siblings(more),
            )
            for c, more in folded
        ]
        measured = ["measured"] * with_measured
        return ("rank", "checkpoint", self.score_name, "80 % interval", *measured, "params", "licence", ""), rows


#: Columns of `Ranking.table`, whose index is the rank.
COLUMNS = tuple(f.name for f in fields(Candidate) if f.name not in ("rank", "values"))


def _without_values(candidate: Candidate) -> dict[str, Any]:
    """A candidate's own facts; the sample's are in the provenance."""
    return {name: value for name, value in asdict(candidate).items() if name != "values"}


def _facts(candidate: Candidate) -> tuple[str, str]:
    return known(candidate.params_m, "{:.1f}M"), candidate.license or "?"


def _lines(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the cells of a table."""
    table = [heading, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(heading))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def siblings(count: int) -> str:
    """Say how many more of a family there are, if any."""
    return f"and {count} more of this family" if count else ""


def percent(share: float | None) -> str:
    """Write a share in [0, 1] in per cent, and None as nothing."""
    return "" if share is None else f"{100 * share:.1f}"


def known(value: float | None, form: str) -> str:
    """Write a number; one that is not known is a question mark."""
    return "?" if value is None else form.format(value)
