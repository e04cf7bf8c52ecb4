"""Learn the metric's parameters and put them into the index as ``metric.json``.

    python benchmarks/train_metric.py [--index zoo_index] [--iterations 40]

Besides the index's own scores it learns from the measured matrix (results/matrix.csv), which also holds checkpoints
that are on no Hub: those never reach the index, but they say how far tasks and kinds of pretraining matter.
Deterministic.
Raw output: results/metric_training.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from matrix_index import with_matrix

from hf_task2vec.metric import METRIC_FILE, dumps
from hf_task2vec.observations import TaskSpace, observations
from hf_task2vec.training import fit_parameters
from hf_task2vec.zoo import ZooIndex

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, default=ROOT / "zoo_index")
    parser.add_argument("--iterations", type=int, default=40)
    args = parser.parse_args()
    index = ZooIndex.load(args.index, verify=False)
    space = TaskSpace.fit(index.embeddings())
    data = observations(with_matrix(index), space)
    parameters, report = fit_parameters(data, max_iterations=args.iterations)
    seconds = report.pop("seconds")
    index.with_attachments({METRIC_FILE: dumps(parameters, report)}).save(args.index)
    document = {"parameters": asdict(parameters), **report, "seconds": seconds, "sources": list(data.sources)}
    path = ROOT / "benchmarks" / "results" / "metric_training.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
