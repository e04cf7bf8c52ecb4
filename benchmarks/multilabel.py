"""Does the selection help where images have several labels? Measured mAP against the predicted ranking.

    python benchmarks/multilabel.py --cache DIR [--tasks trashnet dtd_10 …]

Real images, several labels each: mosaics of two by two photographs of one to three classes of a shared task, labelled
with the set of classes in them (no photograph is in two mosaics), and the built-in digits with attributes (even,
prime, has a loop, above 4). The 16 checkpoints of the measured matrix are measured by `score_features`: the mAP
of a leave-one-out linear probe. They are predicted by the trained metric from an index that lacks the scores of the
source task and its near duplicates.

Reported for every task: weighted Kendall tau of the predicted and of the task-blind (prior) order with measured mAP,
mAP of the pick, of the task-blind pick, of the probe and of the best; how far predicted mAPs, whose level comes from
the probe's own mAP, are off, and how many lie in their 80 % intervals. ``refine``: mAP of the pick after k
measurements on one half of the images, judged by the other half, the mean over ten splits. Raw output:
results/multilabel.json. Features and embeddings are kept in DIR, so that an interrupted run goes on; mosaics are made
in memory.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image
from scipy.special import expit, logit
from tqdm import tqdm

from benchmarks.common import RESULTS, TASKS
from benchmarks.index.matrix import checkpoint_names, index_name, load_frozen, with_matrix
from hf_task2vec.embedding.embed import embed_task, library_versions
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.files import atomic_path, write_json
from hf_task2vec.fisher.head import stratified_folds
from hf_task2vec.metric.evaluation import accuracy_of_pick, near_duplicates, weighted_kendall_tau, without
from hf_task2vec.metric.observations import checkpoint_features
from hf_task2vec.metric.ranking_metric import RankingMetric
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.transfer import extract_features, score_features
from hf_task2vec.selection.ranking import HALF_WIDTH_80
from hf_task2vec.selection.recommendation import probe_score
from hf_task2vec.selection.refinement import next_candidate
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex

DIGITS = "digit_attributes"
NAMES = ("trashnet", "dtd_10", "pacs_cartoon", DIGITS)
PROBE = "timm/tf_efficientnet_lite0.in1k"
TILE = 112
SPLITS = 10
REFINED = (0, 1, 2, 3, 5)
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


def features_of(task: Task, name: str, cache: Path) -> dict[str, np.ndarray]:
    """Features of every checkpoint, extracted once."""
    found = {}
    for checkpoint in tqdm(checkpoint_names(), desc=name, unit="model", leave=False):
        path = cache / f"{name}-{task.fingerprint[:12]}" / f"{checkpoint.replace('/', '--')}.npy"
        if not path.exists():
            features = extract_features(load_frozen(checkpoint), task)
            with atomic_path(path) as temporary, temporary.open("wb") as handle:
                np.save(handle, features)
        found[index_name(checkpoint)] = np.load(path)
    return found


def embedded(task: Task, cache: Path) -> TaskEmbedding:
    """Embed a task with the default probe, once."""
    path = cache / "embeddings" / task.fingerprint[:24]
    if not (path / "embedding.json").exists():
        embed_task(task, Probe.default()).save(path)
    return TaskEmbedding.load(path)


def judged(name: str, metric: RankingMetric, index: ZooIndex, cache: Path) -> dict[str, Any]:
    """Measure and predict the checkpoints on one task."""
    started = time.perf_counter()
    task = Task.from_dataset(data_of(name), max_samples=None)
    features = features_of(task, name, cache)
    embedding = embedded(task, cache)
    groups = near_duplicates(index)
    source = "optdigits_8x8" if name == DIGITS else name
    metric = without(metric, [other for other, group in groups.items() if group == groups[source]])  # type: ignore[assignment]
    frame = index.checkpoints[index.checkpoints["hub_id"].isin(list(features))].reset_index(drop=True)
    ids = tuple(frame["hub_id"])
    results = {i: score_features(features[i], task.labels) for i in ids}
    measured = np.array([results[i].value for i in ids])
    query, candidates = metric.space.of_embedding(embedding), checkpoint_features(frame)
    blind = metric.predict_features(query, candidates)
    known = metric.predict_features(query, candidates, {PROBE: probe_score(embedding.descriptors)})
    sd = np.sqrt(known.variance())
    inside = np.abs(logit(measured) - known.mean) <= HALF_WIDTH_80 * sd
    others = np.array(ids) != PROBE
    picked, blind_pick = accuracy_of_pick(known.mean, measured), accuracy_of_pick(blind.prior, measured)
    return {
        "task": name,
        "n": len(task),
        "labels": task.num_classes,
        "share_carried": float(task.labels.mean()),
        "tau": weighted_kendall_tau(known.mean, measured),
        "tau_prior": weighted_kendall_tau(blind.prior, measured),
        "pick": picked,
        "pick_prior": blind_pick,
        "probe": float(measured[ids.index(PROBE)]),
        "best": float(measured.max()),
        "mean": float(measured.mean()),
        "std_error_of_best": results[ids[int(measured.argmax())]].std_error,
        "mean_absolute_error": float(np.abs(expit(known.mean) - measured)[others].mean()),
        "inside_80": float(inside[others].mean()),
        "slope_of_logits": float(np.polyfit(known.mean, logit(measured), 1)[0]),
        "refine": refined(metric, query, candidates, features, task.labels),
        "checkpoints": [
            {"checkpoint": i, "map": float(m), "std_error": results[i].std_error, "predicted": float(p)}
            for i, m, p in zip(ids, measured, expit(known.mean), strict=True)
        ],
        "seconds": time.perf_counter() - started,
    }


def refined(
    metric: RankingMetric, query: Any, candidates: Any, features: dict[str, np.ndarray], labels: np.ndarray
) -> list[dict[str, Any]]:
    """Measure k candidates on one half of the images, each in the light of those before; judge by the other."""
    ids = candidates.ids
    picks: dict[int, list[float]] = {k: [] for k in REFINED}
    prior, best = [], []
    for seed in range(SPLITS):
        half = stratified_folds(labels, 2, seed) == seed % 2
        ours = {i: score_features(features[i][half], labels[half]) for i in ids}
        other = np.array([score_features(features[i][~half], labels[~half]).value for i in ids])
        known, chosen = {PROBE: ours[PROBE]}, []
        for k in range(max(REFINED) + 1):
            prediction = metric.predict_features(query, candidates, known)
            if k in picks:
                picks[k].append(float(other[int(np.argmax(prediction.mean))]))
            name = next_candidate(prediction, chosen, set(ids) - set(chosen) - {PROBE}, [PROBE])
            assert name is not None
            chosen.append(name)
            known[name] = ours[name]
        prior.append(float(other[int(np.argmax(metric.predict_features(query, candidates).prior))]))
        best.append(float(other[int(np.argmax([ours[i].value for i in ids]))]))
    rows = [{"k": str(k), "map": float(np.mean(found))} for k, found in picks.items()]
    return [{"k": "prior", "map": float(np.mean(prior))}, *rows, {"k": "all", "map": float(np.mean(best))}]


def main() -> None:
    """Measure, predict, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=NAMES)
    args = parser.parse_args()
    index = with_matrix(ZooIndex.load())
    metric = RankingMetric.from_index(index)
    rows = []
    for name in args.tasks:
        rows.append(judged(name, metric, index, args.cache))
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items() if k != "checkpoints"})
    numbers = ("tau", "tau_prior", "pick", "pick_prior", "probe", "best", "mean_absolute_error", "inside_80")
    summary: dict[str, Any] = {name: float(np.mean([row[name] for row in rows])) for name in numbers}
    for position, row in enumerate(rows[0]["refine"]):
        summary[f"refine_{row['k']}"] = float(np.mean([other["refine"][position]["map"] for other in rows]))
    print({name: round(value, 3) for name, value in summary.items()})
    write_json(RESULTS / "multilabel.json", {"summary": summary, "tasks": rows, "versions": library_versions()})


if __name__ == "__main__":
    main()
