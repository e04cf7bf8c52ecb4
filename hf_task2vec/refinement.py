"""The second stage: measure the best few candidates on the user's own sample, and rank them again."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from hf_task2vec.errors import LabelError, Task2VecError
from hf_task2vec.observations import logit
from hf_task2vec.ranking import Candidate, Ranking
from hf_task2vec.transfer import measure

if TYPE_CHECKING:
    from hf_task2vec.task import Task

logger = logging.getLogger(__name__)


def refine_ranking(
    ranking: Ranking,
    task: Task,
    k: int,
    *,
    device: str | None = None,
    token: str | None = None,
    progress: bool = False,
) -> Ranking:
    """Measure the first `k` candidates on a sample and rank all candidates again.

    A linear probe on a candidate's features gives its leave-one-out accuracy on the sample; the new score weighs that
    and the prediction by their precisions, in logits. A candidate that cannot be loaded or measured keeps its
    prediction, with the reason among the warnings.

    Parameters
    ----------
    ranking
        First-stage ranking of at least `k` candidates.
    task
        The single-label sample that the ranking is for.
    k
        Candidates to download and measure.
    device, token, progress
        As in :func:`~hf_task2vec.selection.select_backbone`.

    Raises
    ------
    LabelError
        The task is multi-label.
    """
    if task.label_kind != "single_label":
        raise LabelError("refine measures single-label tasks only; leave refine at 0 for multi-label ones")
    refined: list[Candidate] = []
    failures: list[str] = []
    for candidate in tqdm(ranking.candidates, desc="measuring", unit="model", disable=not progress, leave=False):
        if len(refined) >= k:
            refined.append(candidate)
            continue
        try:
            transfer = measure(candidate.hub_id, task, device=device, token=token)
        except Task2VecError as error:
            failures.append(f"{candidate.hub_id} was not measured: {error}")
            logger.warning("%s", failures[-1])
            refined.append(candidate)
            continue
        refined.append(combine(candidate, transfer.linear.accuracy, transfer.n_samples))
    order = sorted(refined, key=lambda candidate: (-candidate.score, candidate.rank))
    ranked = tuple(replace(candidate, rank=i) for i, candidate in enumerate(order, start=1))
    best = ranked[0]
    how = "measured and predicted" if best.measured is not None else "predicted"
    summary = (
        f"After measuring {sum(c.measured is not None for c in ranked)} candidates on the sample, take {best.hub_id}: "
        f"{how} linear-probe accuracy {100 * best.score:.1f} % "
        f"(80 % interval {100 * best.low:.0f} to {100 * best.high:.0f}). First-stage advice: {ranking.summary}"
    )
    return replace(ranking, candidates=ranked, summary=summary, warnings=(*ranking.warnings, *failures))


def combine(candidate: Candidate, measured: float, n: int) -> Candidate:
    """Weigh a candidate's prediction and its measured accuracy on `n` images by their precisions, in logits."""
    predicted = float(logit(np.clip(candidate.score, 1e-6, 1 - 1e-6)))
    smoothed = (measured * n + 0.5) / (n + 1.0)
    variances = np.array(
        [
            (candidate.std / max(candidate.score * (1.0 - candidate.score), 1e-9)) ** 2,
            1.0 / (n * smoothed * (1.0 - smoothed)),
        ]
    )
    weights = 1.0 / variances / np.sum(1.0 / variances)
    mean = float(weights @ [predicted, float(logit(smoothed))])
    sd = float(np.sqrt(1.0 / np.sum(1.0 / variances)))
    score, low, high = (float(1.0 / (1.0 + np.exp(-z))) for z in (mean, mean - 1.2816 * sd, mean + 1.2816 * sd))
    return replace(
        candidate,
        score=score,
        std=score * (1.0 - score) * sd,
        low=low,
        high=high,
        residual=score - candidate.prior,
        measured=measured,
    )
