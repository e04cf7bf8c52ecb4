"""The second stage: measure the best few candidates on the user's own sample, and rank them again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from hf_task2vec.cache import default_device
from hf_task2vec.errors import LabelError, Task2VecError
from hf_task2vec.observations import logit
from hf_task2vec.ranking import HALF_WIDTH_80, Candidate, Ranking, percent
from hf_task2vec.transfer import measure

if TYPE_CHECKING:
    from hf_task2vec.task import Task

logger = logging.getLogger(__name__)


def check_refinable(task: Task) -> None:
    """Raise LabelError if candidates cannot be measured on a task: it must have one label an image."""
    if task.label_kind != "single_label":
        raise LabelError(
            f"refine measures tasks with one label an image; {task.label_column!r} of {task.dataset!r} holds several. "
            "Leave refine at 0, or pass a label_column with one label"
        )


def refine_ranking(
    ranking: Ranking,
    task: Task,
    k: int,
    *,
    device: str | None = None,
    token: str | None = None,
    progress: bool = False,
) -> Ranking:
    """Measure candidates from the first on until `k` are measured, and rank all again.

    A linear probe on a candidate's frozen features gives its leave-one-out accuracy on the sample (see
    :func:`~hf_task2vec.transfer.measure`); :func:`combine` weighs it with the prediction. A candidate that cannot be
    loaded or measured keeps its prediction, with the reason among the warnings, and the next one is tried.

    Parameters
    ----------
    ranking
        First-stage ranking; candidates beyond the first `k` are there to replace those that fail.
    task
        The single-label sample that the ranking is for.
    k
        Candidates to download and measure, ≥ 1.
    device
        Torch device of the candidates; None takes a GPU if there is one.
    token, progress
        As in :func:`~hf_task2vec.selection.select_backbone`.

    Raises
    ------
    LabelError
        The task is multi-label.
    """
    check_refinable(task)
    device = device if device is not None else default_device()
    refined: list[Candidate] = []
    failures: dict[str, str] = {}
    left = k
    with tqdm(total=k, desc="measuring", unit="model", disable=not progress, leave=False) as bar:
        for candidate in ranking:
            if not left:
                refined.append(candidate)
                continue
            try:
                transfer = measure(candidate.hub_id, task, device=device, token=token, progress=progress)
            except Task2VecError as error:
                logger.info("%s cannot be measured: %s", candidate.hub_id, error)
                failures[candidate.hub_id] = f"{candidate.hub_id} was not measured: {error}"
                refined.append(candidate)
                continue
            refined.append(combine(candidate, transfer.linear.accuracy, transfer.n_samples))
            left -= 1
            bar.update()
    order = sorted(refined, key=lambda candidate: (-candidate.score, candidate.rank))
    candidates = tuple(replace(candidate, rank=i) for i, candidate in enumerate(order, start=1))
    summary = _summary(candidates, ranking, tuple(failures))
    return replace(ranking, candidates=candidates, summary=summary, warnings=(*ranking.warnings, *failures.values()))


def combine(candidate: Candidate, measured: float, n: int) -> Candidate:
    """Weigh a candidate's prediction and its measured accuracy on `n` images by their precisions, in logits.

    The two are taken as independent. The measured share of right answers is smoothed by half an image, so that its
    logit and the variance of that, ``1 / (n p (1 − p))``, are finite.
    """
    spread = max(candidate.score * (1.0 - candidate.score), 1e-9)  # d score / d logit
    smoothed = (measured * n + 0.5) / (n + 1.0)
    logits = logit([np.clip(candidate.score, 1e-9, 1.0 - 1e-9), smoothed])
    precisions = 1.0 / np.maximum([(candidate.std / spread) ** 2, 1.0 / (n * smoothed * (1.0 - smoothed))], 1e-9)
    mean, sd = float(precisions @ logits / precisions.sum()), float(precisions.sum() ** -0.5)
    score, low, high = (_expit(mean + z * sd) for z in (0.0, -HALF_WIDTH_80, HALF_WIDTH_80))
    return replace(
        candidate,
        score=score,
        std=score * (1.0 - score) * sd,
        low=low,
        high=high,
        residual=score - candidate.prior,
        measured=measured,
    )


def _expit(z: float) -> float:
    return float(1.0 / (1.0 + np.exp(-z)))


def _summary(candidates: tuple[Candidate, ...], before: Ranking, failed: Sequence[str]) -> str:
    measured = [candidate for candidate in candidates if candidate.measured is not None]
    if not measured:
        return f"No candidate could be measured. {before.summary}"
    best = candidates[0]
    text = f"{len(measured)} candidate{'s' * (len(measured) > 1)} measured on the sample. Take {best.hub_id}: "
    if best.measured is not None:
        text += f"accuracy {percent(best.measured)} % measured, {_accuracy(best)} with the prediction."
    else:
        why = "it could not be measured (see the warnings)" if best.hub_id in failed else "it was not measured itself"
        text += f"accuracy {_accuracy(best)} predicted, but {why}. The best of those measured is {measured[0].hub_id}: "
        text += f"{_accuracy(measured[0])}."
    if best.hub_id != before.best.hub_id:
        text += f" Before measuring, {before.best.hub_id} was first."
    return text


def _accuracy(candidate: Candidate) -> str:
    interval = f"80 % interval {percent(candidate.low)} to {percent(candidate.high)}"
    return f"{percent(candidate.score)} % ({interval})"
