"""Properties that the Task2Vec paper claims of task embeddings, measured on real tasks.

    python benchmarks/properties.py [--only labels classes difficulty taxonomy images probes resolution] [--cache DIR]

* ``labels``: other numbers for the same classes change nothing (exact label sampling; the sketch within its noise),
* ``classes``: embeddings of the same images under fewer, merged classes, and of subsets of the classes,
* ``difficulty``: the embedding's norm against the test error of a linear probe, over all tasks of the index,
* ``taxonomy``: task distances against class trees, for tasks cut from CIFAR-100 and Tiny ImageNet,
* ``images``, ``probes``, ``resolution``: stability against the number of images, the probe network, and the size of
  images.

Embeddings are kept in the cache folder, so a second start resumes. Raw output: results/properties.json; plots:
results/properties_*.png.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from properties_plots import plot_all
from properties_statistics import correlations, matched, matrix_agreement, tree_agreement
from properties_tasks import (
    ROOT,
    Rows,
    at_input_size,
    coarsened,
    embedded,
    halves_of,
    local_probe,
    norm_forms,
    permuted,
    shared_task,
    shrunk,
    transformed,
)
from properties_trees import CIFAR100, TINY_IMAGENET, Theme, tree_distances
from retrieval import moment_distances
from tqdm import tqdm

from hf_task2vec.embedding.distance import DISTANCES, pairwise
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.files import cache_dir, write_json
from hf_task2vec.probes.probe import Probe
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex

RESULTS = ROOT / "benchmarks" / "results"
PROBE_NAME = "timm/tf_efficientnet_lite0.in1k"
OTHER_PROBES = (
    "resnet18_stages3.in1k",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "mobilenetv2_100.tv_in1k",
)
VARIED = (
    "aid", "cifar10", "chest_xray_pneumonia", "dtd_10", "food101_64px", "monkeys10", "omniglot", "pacs_sketch",
    "stanford_cars_24", "trashnet",
)  # fmt: skip
MERGED = ("cifar100", "omniglot", "tiny_imagenet_100")
LARGE = ("aid", "dtd_10", "imagenette", "monkeys10", "trashnet")
COUNTS = (2, 4, 8, 16)


class Study:
    """The default probe, a folder of embeddings, and the experiments."""

    def __init__(self, cache: Path, images: int) -> None:
        self.cache, self.images, self.probe = cache, images, Probe.default()

    def embed(self, task: Task, probe: Probe | None = None, **settings: Any) -> TaskEmbedding:
        """Embed, or read from the cache."""
        return embedded(task, probe or self.probe, self.cache, **settings)

    def labels(self) -> dict[str, Any]:
        """Permute the numbers of the classes."""
        found = []
        for name in ("trashnet", "pacs_sketch", "weather5"):
            task = shared_task(name, 24)
            for sampling in ("exact", "sketch"):
                a, b = (self.embed(one, label_sampling=sampling) for one in (task, permuted(task, seed=0)))
                total = a.values.astype(np.float64) + b.values
                known = total > 0
                difference = np.abs(a.values.astype(np.float64) - b.values)[known] / total[known]
                found.append(
                    {
                        "task": name,
                        "label_sampling": sampling,
                        "largest_relative_difference": float(difference.max()),
                        "median_relative_difference": float(np.median(difference)),
                        "distance": float(pairwise([a, b])[0, 1]),
                        "noise": a.descriptors["noise"],
                    }
                )
        return {"images": 24, "runs": found}

    def classes(self) -> dict[str, Any]:
        """Merge classes of the same images at random, and take subsets of the classes."""
        merged: dict[str, list[TaskEmbedding]] = {}
        for name in MERGED:
            task = shared_task(name, self.images)
            merged[name] = [*(self.embed(coarsened(task, count, seed=0)) for count in COUNTS), self.embed(task)]
        curves = []
        for i, count in enumerate(COUNTS):
            cross = pairwise([merged[n][i] for n in MERGED] + [merged[n][-1] for n in MERGED])[
                : len(MERGED), len(MERGED) :
            ]
            norms = [norm_forms(merged[n][i])["raw_l2"] / norm_forms(merged[n][-1])["raw_l2"] for n in MERGED]
            curves.append({"classes": count, **matched(cross), "norm_ratio": float(np.median(norms))})
        subsets = []
        for name in MERGED:
            rows = Rows.of(name)
            names = np.random.default_rng(0).permutation(sorted(set(rows.labels)))
            counts = (*COUNTS[:1], 5, 20, len(names))
            subsets.append([self.embed(rows.cut(f"{name} {c}", names[:c], self.images)) for c in counts])
        flat = [e for row in subsets for e in row]
        distance = pairwise(flat) + np.diag(np.full(len(flat), np.inf))
        source = np.repeat(np.arange(len(MERGED)), len(subsets[0]))
        same = source[:, None] == source[None, :]
        finite = np.isfinite(distance)
        return {
            "tasks": list(MERGED),
            "images": self.images,
            "length": len(flat[0]),
            "merged": curves,
            "subsets": {
                "classes": ["2", "5", "20", "all"],
                "same_dataset": float(np.median(distance[same & finite])),
                "other_dataset": float(np.median(distance[~same])),
                "nearest_is_same_dataset": float(np.mean(source[distance.argmin(axis=1)] == source)),
            },
        }

    def difficulty(self) -> dict[str, Any]:
        """Norms of the index's embeddings against the probe's test error."""
        table = ZooIndex.load().embeddings
        errors = {}
        with (RESULTS / "matrix.csv").open(encoding="utf-8") as handle:
            for row in csv.DictReader(handle):
                if row["checkpoint"] == PROBE_NAME:
                    errors[row["task"]] = 1.0 - float(row["test"])
        embeddings = {name: table[name] for name in sorted(errors)}
        forms = {name: norm_forms(e) for name, e in embeddings.items()}
        classes = [e.descriptors["n_classes"] for e in embeddings.values()]
        error = [errors[name] for name in embeddings]
        kinds = list(next(iter(forms.values())))
        return {
            "tasks": [
                {"task": n, "classes": c, "test_error": errors[n], **forms[n]}
                for n, c in zip(forms, classes, strict=True)
            ],
            "correlation": {k: correlations([np.log(f[k]) for f in forms.values()], error, classes) for k in kinds},
            "classes_alone": correlations(np.log(classes).tolist(), error, classes)["spearman"],
        }

    def taxonomy(self) -> dict[str, Any]:
        """Tasks of one theme each."""
        both = ("train", "test")
        sources = {
            "cifar100": (Rows.of("cifar100", splits=both), CIFAR100),
            "tiny_imagenet": (
                Rows.of("tiny_imagenet_100", "tin_dogs_cats", "tin_food", "tin_insects_spiders", splits=both),
                TINY_IMAGENET,
            ),
        }
        return {name: self._taxonomy(rows, themes) for name, (rows, themes) in sources.items()}

    def _taxonomy(self, rows: Rows, themes: dict[str, Theme]) -> dict[str, Any]:
        tasks = [rows.cut(name, theme.classes, self.images) for name, theme in themes.items()]
        embeddings = [self.embed(task) for task in tqdm(tasks, desc=rows.name[:20], leave=False)]
        tree = tree_distances([theme.path for theme in themes.values()])
        matrices = {kind: pairwise(embeddings, kind) for kind in DISTANCES}
        matrices["feature_moments"] = moment_distances(embeddings)
        return {
            "images": self.images,
            "themes": {name: {"path": "/".join(t.path), "classes": list(t.classes)} for name, t in themes.items()},
            "agreement": {kind: tree_agreement(matrix, tree) for kind, matrix in matrices.items()},
            "difficulty": self._difficulty_in_domain(embeddings),
            "distance": matrices["log_correlation"].round(5).tolist(),
        }

    def _difficulty_in_domain(self, embeddings: list[TaskEmbedding]) -> dict[str, Any]:
        errors = [1.0 - e.descriptors["linear_probe_accuracy"] for e in embeddings]
        classes = [e.descriptors["n_classes"] for e in embeddings]
        rows = [{"task": e.name, "error": x, **norm_forms(e)} for e, x in zip(embeddings, errors, strict=True)]
        kinds = norm_forms(embeddings[0])
        return {
            "tasks": rows,
            "correlation": {k: correlations([np.log(row[k]) for row in rows], errors, classes) for k in kinds},
        }

    def image_counts(self) -> dict[str, Any]:
        """Two disjoint samples of each task, ever larger."""
        names = VARIED[::2]
        sizes = (8, 16, 32, 64)
        pairs = [halves_of(shared_task(name, 2 * sizes[-1])) for name in names]
        found: dict[int, list[list[TaskEmbedding]]] = {}
        for size in sizes:
            found[size] = [[self.embed(pair[k].subset(range(size))) for pair in pairs] for k in (0, 1)]
        best = pairwise(found[sizes[-1]][1])
        curve = []
        for size, (left, right) in found.items():
            cross = pairwise(left + right)[: len(names), len(names) :]
            noise = float(np.median([e.descriptors["noise"] for e in left + right]))
            curve.append({"images": size, **matched(cross), "noise": noise, **matrix_agreement(pairwise(left), best)})
        return {"tasks": list(names), "curve": curve}

    def probes(self) -> dict[str, Any]:
        """Distances between tasks under several networks."""
        tasks = [shared_task(name, 32) for name in VARIED]
        others = {name: local_probe(name) for name in OTHER_PROBES}
        probes = {PROBE_NAME.removeprefix("timm/"): self.probe, **others}
        matrices = {
            name: pairwise([self.embed(task, probe) for task in tqdm(tasks, desc=name, leave=False)])
            for name, probe in probes.items()
        }
        pairs = {a: {b: matrix_agreement(matrices[a], matrices[b]) for b in matrices} for a in matrices}
        return {
            "tasks": list(VARIED),
            "images": 32,
            "agreement": pairs,
            "missing": "no ConvNeXt weights are at hand offline, so that architecture is not among the probes",
        }

    def resolution(self) -> dict[str, Any]:
        """Shrink the images, and change the size that the probe sees."""
        tasks = [shared_task(name, 32) for name in LARGE]
        full = [self.embed(task) for task in tasks]
        n = len(tasks)

        def row(what: str, value: int, embeddings: list[TaskEmbedding]) -> dict[str, float]:
            found = matched(pairwise(embeddings + full)[:n, n:])
            return {what: value, **found, **matrix_agreement(pairwise(embeddings), pairwise(full))}

        shrinking = []
        for side in (16, 32, 64, 128):
            small = [transformed(task, shrunk(side), f"{side} px") for task in tasks]
            shrinking.append(row("side_px", side, [self.embed(task) for task in small]))
        seen = []
        for side in (128, 160, 192, 256):
            probe = at_input_size(self.probe, side)
            seen.append(row("input_px", side, [self.embed(task, probe) for task in tasks]))
        return {"tasks": list(LARGE), "images": 32, "images_shrunk": shrinking, "probe_input": seen}


def main() -> None:
    """Run, merge into the raw output, and draw."""
    import datasets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("labels", "classes", "difficulty", "taxonomy", "images", "probes", "resolution")
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--cache", type=Path, default=cache_dir() / "properties")
    args = parser.parse_args()
    datasets.disable_progress_bars()
    study = Study(args.cache, args.images)
    experiments: dict[str, Callable[[], dict[str, Any]]] = {
        name: getattr(study, "image_counts" if name == "images" else name) for name in names
    }
    path = RESULTS / "properties.json"
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in tqdm(args.only):
        document[name] = experiments[name]()
        document |= {"probe": study.probe.config, "versions": library_versions()}
        write_json(path, document)
    plot_all(document, RESULTS)


if __name__ == "__main__":
    main()
