"""Learn the metric's parameters and put them into the index as ``metric.json``.

    python -m benchmarks.index.train_metric [--index zoo_index] [--iterations 18]

Besides the index's own scores it learns from the measured matrix (results/matrix.csv), which also holds checkpoints
that are on no Hub: those never reach the index, but they say how far tasks and kinds of pretraining matter. First it
fits the matrix alone, which is complete and of one protocol. What that says of tasks and their residuals stays; all
scores together then teach the rest: the prior, each source's slope and noise, and how sources differ. Deterministic
for a number of threads (others differ in the ninth digit). Raw output: results/metric_training.json.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from benchmarks.common import ROOT, parser, write
from benchmarks.index.matrix import with_matrix
from hf_task2vec import ZooIndex
from hf_task2vec.metric.covariance import METRIC_FILE, MetricParameters
from hf_task2vec.metric.observations import REFERENCE_SOURCE, Observations
from hf_task2vec.metric.ranking_metric import evidence
from hf_task2vec.metric.training import fit_parameters

#: What only the complete matrix of one protocol can tell: how tasks resemble each other, and how much that matters.
OF_TASKS = ("residual_smooth", "residual_own", "length_fisher", "length_moments", "lengths", "factors")
#: What sources add may explain only what the prior that they share cannot: learned last, all else being fixed. Learned
#: together, each source explains itself, and nothing is left to say of checkpoints that only others have seen.
OF_SOURCES = ("protocol_smooth", "source_smooth")
NEGLIGIBLE = 1e-6


def train(
    data: Observations, iterations: int, start: MetricParameters | None = None, *, first_iterations: int = 60
) -> tuple[MetricParameters, dict[str, object]]:
    """Fit the measured matrix, then all scores, then what single sources add; from `start`, if given, each time."""
    measured = data.rows(data.source == data.sources.index(REFERENCE_SOURCE))
    of_matrix, first = fit_parameters(measured, start, max_iterations=first_iterations)
    of_tasks = {name: getattr(of_matrix, name) for name in OF_TASKS}
    begin = replace(of_matrix if start is None else start, **of_tasks, **dict.fromkeys(OF_SOURCES, NEGLIGIBLE))
    shared, second = fit_parameters(data, begin, fixed=(*OF_TASKS, *OF_SOURCES), max_iterations=iterations)
    others = set(shared.scalars()) - set(OF_SOURCES) | {"lengths", "factors"}
    shared = replace(shared, **{name: getattr(start or MetricParameters(), name) for name in OF_SOURCES})
    parameters, report = fit_parameters(data, shared, fixed=others, max_iterations=max(1, iterations // 2))
    seconds = [part["seconds"] for part in (first, second, report)]
    report |= {"objective_before": second["objective_before"], "seconds": sum(seconds), "seconds_of_steps": seconds}
    return parameters, {**report, "sources": list(data.sources)}


def main() -> None:
    """Train and save."""
    arguments = parser(__doc__)
    arguments.add_argument("--index", type=Path, default=ROOT / "zoo_index")
    arguments.add_argument("--iterations", type=int, default=18)
    args = arguments.parse_args()
    index = ZooIndex.load(args.index)
    parameters, report = train(evidence(with_matrix(index))[1], args.iterations)
    write("metric_training", {**report, "parameters": parameters.scalars()})
    kept = {key: report[key] for key in ("n_scores", "n_tasks", "n_checkpoints", "objective_before", "objective_after")}
    ids = set(index.checkpoints["hub_id"])
    own = replace(parameters, factors={name: row for name, row in parameters.factors.items() if name in ids})
    index.with_attachments({METRIC_FILE: own.to_json(kept)}).save(args.index)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
