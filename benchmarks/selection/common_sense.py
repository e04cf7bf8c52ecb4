"""What a reader can check: the first five for typical datasets, without a limit and within three of them.

    python -m benchmarks.selection.common_sense

Each dataset is a reference task of the shipped index; its embedding and those of its near duplicates are taken out, so
that the index knows it no better than a user's. Also: of the candidates for each dataset, how many lie within the noise
of the first, and what measuring 1, 3 or 5 of them is expected to gain (the mean of the largest of draws from the
posterior, over the first's own mean). Raw output: results/common_sense.json.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from benchmarks.common import ROOT, TASKS, parser, write
from hf_task2vec import Task, ZooIndex, select_backbone
from hf_task2vec.embedding import cached_embedding
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.metric import PROTOCOLS, RankingMetric
from hf_task2vec.metric.evaluation import near_duplicates
from hf_task2vec.metric.observations import checkpoint_features
from hf_task2vec.metric.prediction import Prediction

DATASETS = {
    "grocery_store": "groceries",
    "pets": "pets",
    "flowers102": "flowers",
    "pcam": "histology patches",
    "aid": "satellite scenes",
    "ham10000": "skin lesions",
    "optdigits_8x8": "scanned digits",
    "dtd_10": "textures",
}
LIMITS = (None, 100e6, 30e6, 10e6)
DRAWS = 4000


def expected_gains(prediction: Prediction, seed: int = 0) -> dict[int, float]:
    """Points that the best of the k first is expected to lie above the first, by draws of the posterior."""
    top = np.argsort(-prediction.mean, kind="stable")[:5]
    joint = prediction.covariance(top)
    draws = np.random.default_rng(seed).multivariate_normal(prediction.mean[top], joint, DRAWS, method="eigh")
    level = expit(prediction.mean[top[0]])
    gain = {k: float((draws[:, :k].max(axis=1) - draws[:, 0]).mean()) for k in (1, 3, 5)}
    return {k: 100.0 * value * level * (1.0 - level) for k, value in gain.items()}


def main() -> None:
    """Rank for every dataset and limit, and write."""
    parser(__doc__).parse_args()
    shipped = ZooIndex.load(ROOT / "zoo_index")
    duplicates = near_duplicates(shipped)
    found: list[dict[str, Any]] = []
    for name, what in DATASETS.items():
        if not (TASKS / name).is_dir():
            raise SystemExit(f"no task {name!r} in {TASKS}")
        task = Task.from_dataset(str(TASKS / name), max_samples=256)
        embedding = cached_embedding(task)
        others = [i for i, other in enumerate(shipped.embeddings.names) if duplicates[other] != duplicates[name]]
        index = shipped.with_embeddings(shipped.embeddings.take(others), replace=True)
        metric = RankingMetric.from_index(index)
        for protocol in PROTOCOLS:
            for limit in LIMITS:
                ranking = select_backbone(embedding, index=index, max_params=limit, top_k=5, protocol=protocol)
                rows = index.checkpoints[index.checkpoints["hub_id"].isin(ranking.table["hub_id"])]
                prediction = metric.predict(embedding, rows, protocol=protocol)
                best = int(np.argmax(prediction.mean))
                behind = prediction.mean[best] - prediction.mean
                close = behind**2 <= prediction.variance_of_differences(best, np.arange(len(behind)))
                families = checkpoint_features(rows).family[close]
                found.append(
                    {
                        "dataset": name,
                        "what": what,
                        "protocol": protocol,
                        "max_params": limit,
                        "first": [
                            {"id": c.hub_id, "score": c.score, "low": c.low, "high": c.high, "params_m": c.params_m}
                            for c in ranking
                        ],
                        "within_noise": int(close.sum()),
                        "families_within_noise": len(set(families.tolist())),
                        "gain_of_measuring": expected_gains(prediction),
                    }
                )
                print(name, protocol, limit, [row["id"] for row in found[-1]["first"]], flush=True)
    write("common_sense", {"rows": found, "versions": library_versions()})


if __name__ == "__main__":
    main()
