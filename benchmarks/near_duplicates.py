"""When are two tasks near duplicates: where the threshold comes from, and which pairs of the index it finds.

    python benchmarks/near_duplicates.py

**Samples of one task.** Each shared task gives two disjoint, class-balanced samples of 64 images (every fourth task
also two of 128), each embedded by itself with the default probe, as in ``retrieval.py``. The noise ratio of a pair is
its log-correlation distance over the mean noise of both embeddings. Reported: the ratios of pairs of one task; at the
package's threshold the share of them that it finds, and how many pairs of two different tasks; and the same for the
95 % quantile of the other tasks' ratios, each task judged by the quantile found without it.

**Groups of the index.** ``near_duplicate_group`` of ``tasks.csv`` says which tasks must be left out together in an
evaluation: they share images, classes or a source. That is another relation, so the figures say how far the two agree:
precision and recall of the threshold; the same of the distance with the largest F1, each pair judged by a distance
chosen without all pairs that touch a group of its tasks; and the areas under the ROC curves.

Raw output: results/near_duplicates.json. Resumable: embeddings are kept in the package's cache.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from properties_statistics import upper
from retrieval import TASKS, halves
from scipy.stats import rankdata
from tqdm import tqdm

from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.files import write_json
from hf_task2vec.probes.probe import Probe
from hf_task2vec.report.task_map import DUPLICATE_RATIO, TaskMap, map_tasks
from hf_task2vec.zoo.index import ZooIndex

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "benchmarks" / "results" / "near_duplicates.json"
#: Images of a sample -> every how many tasks.
SAMPLES = {64: 1, 128: 4}
COVERAGE = 0.95

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def area(values: Array, positive: Mask) -> float:
    """Area under the ROC curve of small `values` as a sign of `positive`."""
    ranks, n = rankdata(values), int(positive.sum())
    return float(1.0 - (ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(values) - n)))


def counts(found: Mask, positive: Mask) -> dict[str, float | int | None]:
    """Precision and recall, None where nothing is found."""
    right = int((found & positive).sum())
    precision = right / int(found.sum()) if found.any() else None
    return {"found": int(found.sum()), "right": right, "precision": precision, "recall": right / int(positive.sum())}


def same_task(names: list[str], images: int, probe: Probe) -> dict[str, Any]:
    """Judge the threshold on pairs of samples of one task against pairs of two."""
    embeddings = [
        half for name in tqdm(names, desc=f"{images} images") for half in halves(name, images, probe, "fisher")
    ]
    samples = map_tasks(embeddings, [f"{name}[{k}]" for name in names for k in (0, 1)])
    task = np.repeat(np.arange(len(names)), 2)
    same = upper(task[:, None] == task[None, :])
    ratios = upper(samples.noise_ratios)
    own = ratios[same]
    without = np.array([np.quantile(np.delete(own, k), COVERAGE) for k in range(len(own))])
    first, second = (task[index] for index in np.triu_indices(len(task), 1))
    confused = [
        {"tasks": [names[first[k]], names[second[k]]], "noise_ratio": float(ratios[k])}
        for k in np.argsort(ratios)
        if not same[k] and ratios[k] <= DUPLICATE_RATIO
    ]
    return {
        "images": images,
        "tasks": len(names),
        "noise_ratio": dict(zip(names, own.tolist(), strict=True)),
        "quantiles": {str(q): float(np.quantile(own, q)) for q in (0.0, 0.05, 0.5, 0.95, 1.0)},
        "pairs_of_two_tasks": int((~same).sum()),
        "at_threshold": {"recall": float((own <= DUPLICATE_RATIO).mean()), "other_pairs_found": len(confused)},
        "left_out_quantile": {
            "lowest": float(without.min()),
            "highest": float(without.max()),
            "recall": float((own <= without).mean()),
            "other_pairs_found": int((ratios[~same] <= without.max()).sum()),
        },
        "confused": confused,
        "area_under_roc": {"noise_ratio": area(ratios, same), "distance": area(upper(samples.distances), same)},
    }


def best_distance(distances: Array, positive: Mask) -> float:
    """Return the distance up to which calling pairs positive has the largest F1."""
    order = np.argsort(distances)
    right = np.cumsum(positive[order])
    return float(distances[order][np.argmax(2 * right / (np.arange(1, len(order) + 1) + positive.sum()))])


def groups_of_index(tasks: TaskMap, groups: dict[str, str | None]) -> dict[str, Any]:
    """Compare near duplicates with the groups that evaluations leave out together."""
    group = np.array([groups[name] or f"only {name}" for name in tasks.names])
    first, second = (group[index] for index in np.triu_indices(len(tasks), 1))
    known, distances, ratios = first == second, upper(tasks.distances), upper(tasks.noise_ratios)
    found = np.zeros(len(known), dtype=bool)
    chosen = []
    for a, b in {(min(pair), max(pair)) for pair in zip(first, second, strict=True)}:
        judged = ((first == a) & (second == b)) | ((first == b) & (second == a))
        others = ~np.isin(first, (a, b)) & ~np.isin(second, (a, b))
        chosen.append(best_distance(distances[others], known[others]))
        found[judged] = distances[judged] <= chosen[-1]
    return {
        "tasks": len(tasks),
        "pairs": len(known),
        "pairs_of_one_group": int(known.sum()),
        "diversity": tasks.to_dict()["diversity"],
        "near_duplicates": [[pair.first, pair.second] for pair in tasks.near_duplicates],
        "at_threshold": counts(ratios <= DUPLICATE_RATIO, known),
        "distance_chosen_without_the_groups": {"lowest": min(chosen), "highest": max(chosen), **counts(found, known)},
        "area_under_roc": {"noise_ratio": area(ratios, known), "distance": area(distances, known)},
        "nearest_pairs": [
            {
                "tasks": [pair.first, pair.second],
                "distance": pair.distance,
                "noise_ratio": pair.noise_ratio,
                "one_group": groups[pair.first] is not None and groups[pair.first] == groups[pair.second],
            }
            for pair in tasks.pairs[:30]
        ],
    }


def main() -> None:
    """Run and write the raw output."""
    index = ZooIndex.load(ROOT / "zoo_index")
    table = index.embeddings
    tasks = map_tasks(list(table), table.names)
    rows = index.tasks.set_index("task")["near_duplicate_group"]
    groups = {name: rows[name] if isinstance(rows[name], str) else None for name in tasks.names}
    probe = Probe.default()
    names = [row["name"] for row in json.loads((TASKS / "MANIFEST.json").read_text(encoding="utf-8"))]
    document = {
        "threshold": DUPLICATE_RATIO,
        "same_task": [same_task(names[::step], images, probe) for images, step in SAMPLES.items()],
        "index_groups": groups_of_index(tasks, groups),
        "probe": probe.config,
        "versions": library_versions(),
    }
    write_json(OUTPUT, document)
    for found in document["same_task"]:
        print(f"{found['images']} images, {found['tasks']} tasks: {found['quantiles']}")
        print(f"  at {DUPLICATE_RATIO}: {found['at_threshold']} of {found['pairs_of_two_tasks']}")
        print(f"  95 % quantile of the others: {found['left_out_quantile']}")
    for name in ("at_threshold", "distance_chosen_without_the_groups", "area_under_roc"):
        print(f"groups of the index, {name}: {document['index_groups'][name]}")


if __name__ == "__main__":
    main()
