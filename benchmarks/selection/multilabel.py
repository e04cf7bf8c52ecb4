"""Does the selection help where images have several labels? Measured mAP against the predicted ranking.

    python -m benchmarks.selection.multilabel --cache DIR [--tasks trashnet dtd_10 …] [--checkpoints …]

Real images, several labels each: mosaics of two by two photographs of one to three classes of a shared task, labelled
with the set of classes in them (no photograph is in two mosaics), and the built-in digits with attributes (even,
prime, has a loop, above 4). The checkpoints of the measured matrix are measured by `score_features`: the mAP of a
leave-one-out linear probe. They are predicted by the trained metric from an index that lacks the scores of the source
task and its near duplicates.

Reported for every task: weighted Kendall tau of the predicted and of the task-blind (prior) order with measured mAP,
mAP of the pick, of the task-blind pick, of the probe and of the best; how far predicted mAPs, whose level comes from
the probe's own mAP, are off, how many lie in their 80 % intervals, and the slope of measured on predicted logits. Raw
output: results/multilabel.json; with `--tasks` or `--checkpoints` (the probe among them) nothing is written. Features
are kept in DIR, so that an interrupted run goes on; mosaics are made in memory.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image
from scipy.special import expit, logit
from tqdm import tqdm

from benchmarks.common import TASKS, parser, write
from benchmarks.index.matrix import checkpoint_names, index_name, load_frozen, with_matrix
from hf_task2vec import Task, ZooIndex
from hf_task2vec.embedding.cache import cached_embedding
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.files import atomic_path
from hf_task2vec.metric.evaluation import accuracy_of_pick, near_duplicates, weighted_kendall_tau, without
from hf_task2vec.metric.observations import checkpoint_features
from hf_task2vec.metric.ranking_metric import RankingMetric
from hf_task2vec.probes.checkpoint_files import DEFAULT_PROBE
from hf_task2vec.probes.transfer import extract_features, score_features
from hf_task2vec.selection.ranking import HALF_WIDTH_80
from hf_task2vec.selection.recommendation import probe_score

DIGITS = "digit_attributes"
NAMES = ("trashnet", "dtd_10", "pacs_cartoon", DIGITS)
TILE = 112
ATTRIBUTES = {
    "even": (0, 2, 4, 6, 8),
    "prime": (2, 3, 5, 7),
    "has a loop": (0, 4, 6, 8, 9),
    "above 4": (5, 6, 7, 8, 9),
}


def data_of(name: str) -> datasets.Dataset:
    """Return images with a column ``labels``, a list of classes."""
    images, labels, names = digits() if name == DIGITS else mosaics(name)
    cells = []
    for image in images:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        cells.append({"bytes": stream.getvalue(), "path": None})
    features = datasets.Features({"image": datasets.Image(), "labels": datasets.List(datasets.ClassLabel(names=names))})
    return datasets.Dataset.from_dict({"image": cells, "labels": labels}, features=features)


def digits() -> tuple[list[Any], list[list[int]], list[str]]:
    """256 of the built-in digits, labelled with their attributes."""
    task = Task.from_dataset("sklearn:digits", max_samples=256)
    has = [[i for i, found in enumerate(ATTRIBUTES.values()) if digit in found] for digit in task.labels]
    return [task.images[i] for i in range(len(task))], has, list(ATTRIBUTES)


def mosaics(name: str, seed: int = 0) -> tuple[list[Any], list[list[int]], list[str]]:
    """Squares of four photographs of one to three classes, each photograph used once."""
    rng = np.random.default_rng(seed)
    splits = [Task.from_dataset(TASKS / name, split=split, max_samples=None) for split in ("train", "test")]
    names = list(splits[0].label_names)
    left: dict[int, list[Any]] = {c: [] for c in range(len(names))}
    for task in splits:
        for i, label in enumerate(task.labels):
            left[int(label)].append((task, i))
    for found in left.values():
        rng.shuffle(found)  # type: ignore[arg-type]
    images, labels = [], []
    while True:
        there = [c for c, found in left.items() if found]
        wanted = int(rng.integers(1, 4))
        if len(there) < wanted:
            break
        weights = np.array([len(left[c]) for c in there], dtype=float)
        chosen = rng.choice(there, wanted, replace=False, p=weights / weights.sum())
        classes = [*chosen, *rng.choice(chosen, 4 - wanted)]
        if any(classes.count(c) > len(left[c]) for c in chosen):
            break
        tiles = [left[int(c)].pop() for c in rng.permutation(classes)]
        square = Image.new("RGB", (2 * TILE, 2 * TILE))
        for k, (task, i) in enumerate(tiles):
            square.paste(task.images[i].resize((TILE, TILE)), (TILE * (k % 2), TILE * (k // 2)))
        images.append(square)
        labels.append(sorted(map(int, chosen)))
    return images, labels, names


def features_of(task: Task, name: str, checkpoints: list[str], cache: Path) -> dict[str, np.ndarray]:
    """Features of every checkpoint, extracted once."""
    found = {}
    for checkpoint in tqdm(checkpoints, desc=name, unit="model", leave=False):
        path = cache / f"{name}-{task.fingerprint[:12]}" / f"{checkpoint.replace('/', '--')}.npy"
        if not path.exists():
            features = extract_features(load_frozen(checkpoint), task)
            with atomic_path(path) as temporary, temporary.open("wb") as handle:
                np.save(handle, features)
        found[index_name(checkpoint)] = np.load(path)
    return found


def judged(name: str, metric: RankingMetric, index: ZooIndex, checkpoints: list[str], cache: Path) -> dict[str, Any]:
    """Measure and predict the checkpoints on one task."""
    task = Task.from_dataset(data_of(name), max_samples=None)
    features = features_of(task, name, checkpoints, cache)
    groups = near_duplicates(index)
    source = "optdigits_8x8" if name == DIGITS else name
    left = without(metric, [other for other, group in groups.items() if group == groups[source]])
    frame = index.checkpoints[index.checkpoints["hub_id"].isin(list(features))].reset_index(drop=True)
    ids = tuple(frame["hub_id"])
    results = [score_features(features[i], task.labels) for i in ids]
    measured = np.array([result.value for result in results])
    embedding = cached_embedding(task)
    query, candidates = left.space.of_embedding(embedding), checkpoint_features(frame)
    blind = left.predict_features(query, candidates)
    known = left.predict_features(query, candidates, {DEFAULT_PROBE: probe_score(embedding.descriptors)})
    inside = np.abs(logit(measured) - known.mean) <= HALF_WIDTH_80 * np.sqrt(known.variance())
    others = np.array(ids) != DEFAULT_PROBE
    return {
        "task": name,
        "n": len(task),
        "labels": task.num_classes,
        "share_carried": float(task.labels.mean()),
        "tau": weighted_kendall_tau(known.mean, measured),
        "tau_prior": weighted_kendall_tau(blind.prior, measured),
        "pick": accuracy_of_pick(known.mean, measured),
        "pick_prior": accuracy_of_pick(blind.prior, measured),
        "probe": float(measured[ids.index(DEFAULT_PROBE)]),
        "best": float(measured.max()),
        "mean_absolute_error": float(np.abs(expit(known.mean) - measured)[others].mean()),
        "inside_80": float(inside[others].mean()),
        "slope_of_logits": float(np.polyfit(known.mean, logit(measured), 1)[0]),
        "checkpoints": [
            {"checkpoint": i, "map": result.value, "std_error": result.std_error, "predicted": float(p)}
            for i, result, p in zip(ids, results, expit(known.mean), strict=True)
        ],
    }


def main() -> None:
    """Measure, predict, compare."""
    arguments = parser(__doc__)
    arguments.add_argument("--cache", type=Path, required=True)
    arguments.add_argument("--tasks", nargs="*", choices=NAMES, default=NAMES)
    arguments.add_argument("--checkpoints", nargs="*", default=checkpoint_names())
    args = arguments.parse_args()
    index = with_matrix(ZooIndex.load())
    metric = RankingMetric.from_index(index)
    rows = []
    for name in args.tasks:
        rows.append(judged(name, metric, index, args.checkpoints, args.cache))
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items() if k != "checkpoints"})
    numbers = [key for key, value in rows[0].items() if isinstance(value, float) and key != "share_carried"]
    summary = {key: float(np.mean([row[key] for row in rows])) for key in numbers}
    print({key: round(value, 3) for key, value in summary.items()})
    if args.tasks == NAMES and args.checkpoints == checkpoint_names():
        write("multilabel", {"summary": summary, "tasks": rows, "versions": library_versions()})


if __name__ == "__main__":
    main()
