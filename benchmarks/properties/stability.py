"""How steady are embeddings: against the number of images, the size of images, what the probe sees, and the probe.

    python -m benchmarks.properties.stability [--tasks 5]

* ``images``: two disjoint samples of each task, ever larger,
* ``images_shrunk``, ``probe_input``: the same images shrunk, and seen by the probe at another size,
* ``probes``: rank correlation of the distances between tasks under several networks.

The first two report medians of the distance from a task to itself and to the others, the share of tasks that are
nearest to themselves, and the rank correlation of all distances with those under the reference condition. Raw output:
results/stability.json; with `--tasks`, the first so many alone, nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from benchmarks.common import parser, write
from benchmarks.index.local_checkpoints import CHECKPOINTS, load_local
from benchmarks.properties.distances import matched, rank_agreement
from benchmarks.properties.samples import at_input_size, halves_of, shared_task, shrunk
from hf_task2vec import Probe, Task, TaskEmbedding
from hf_task2vec.embedding.cache import cached_embedding
from hf_task2vec.embedding.distance import pairwise
from hf_task2vec.embedding.embed import library_versions

#: Weights that are on no Hub; no ConvNeXt is among those at hand.
OTHER_PROBES = ("resnet18_stages3.in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", "mobilenetv2_100.tv_in1k")
VARIED = (
    "aid", "cifar10", "chest_xray_pneumonia", "dtd_10", "food101_64px", "monkeys10", "omniglot", "pacs_sketch",
    "stanford_cars_24", "trashnet",
)  # fmt: skip
LARGE = ("aid", "dtd_10", "imagenette", "monkeys10", "trashnet")
Embedded = list[TaskEmbedding]
SIZES, SIDES, INPUTS = (8, 16, 32, 64), (16, 32, 64, 128), (128, 160, 192, 256)


def embedded(tasks: Sequence[Task], probe: Probe, desc: str) -> Embedded:
    """Embed, or read from the cache."""
    return [cached_embedding(task, probe) for task in tqdm(tasks, desc=desc, leave=False)]


def against(
    found: list[TaskEmbedding], others: list[TaskEmbedding], reference: list[TaskEmbedding]
) -> dict[str, float]:
    """Compare embeddings with those of the same tasks under another condition, and their distances with a reference."""
    agreement = rank_agreement(pairwise(found), pairwise(reference))
    return {**matched(pairwise(found, to=others)), "spearman": agreement}


def image_counts(names: Sequence[str], probe: Probe) -> dict[str, Any]:
    """Two disjoint samples of each task, ever larger."""
    pairs = [halves_of(shared_task(name, 2 * SIZES[-1])) for name in names]
    found = {
        size: [embedded([pair[k].subset(range(size)) for pair in pairs], probe, f"{size} images") for k in (0, 1)]
        for size in SIZES
    }
    reference = found[SIZES[-1]][1]
    return {
        "tasks": list(names),
        "curve": [{"images": size, **against(*both, reference)} for size, both in found.items()],
    }


def resolution(names: Sequence[str], probe: Probe) -> dict[str, Any]:
    """Shrink the images, and change the size that the probe sees."""
    tasks = [shared_task(name, 32) for name in names]
    full = embedded(tasks, probe, "full size")
    small = {side: embedded([shrunk(task, side) for task in tasks], probe, f"{side} px") for side in SIDES}
    seen = {side: embedded(tasks, at_input_size(probe, side), f"probe at {side} px") for side in INPUTS}
    return {
        "tasks": list(names),
        "images": 32,
        "images_shrunk": [{"side_px": side, **against(found, full, full)} for side, found in small.items()],
        "probe_input": [{"input_px": side, **against(found, full, full)} for side, found in seen.items()],
    }


def probes(names: Sequence[str], probe: Probe) -> dict[str, Any]:
    """Distances between tasks under several networks."""
    tasks = [shared_task(name, 32) for name in names]
    networks = {probe.name.removeprefix("timm/"): probe}
    networks |= {name: load_local(CHECKPOINTS / name) for name in OTHER_PROBES}
    matrices = {name: pairwise(embedded(tasks, network, name)) for name, network in networks.items()}
    return {
        "tasks": list(names),
        "images": 32,
        "agreement": {a: {b: rank_agreement(matrices[a], matrices[b]) for b in matrices} for a in matrices},
    }


def main() -> None:
    """Run, and write the raw output."""
    arguments = parser(__doc__)
    arguments.add_argument("--tasks", type=int)
    args = arguments.parse_args()
    probe, n = Probe.default(), args.tasks
    document = {
        "images": image_counts(VARIED[::2][:n], probe),
        "resolution": resolution(LARGE[:n], probe),
        "probes": probes(VARIED[:n], probe),
        "probe": probe.config,
        "versions": library_versions(),
    }
    for row in (*document["images"]["curve"], *document["resolution"]["images_shrunk"]):
        print({key: round(value, 3) for key, value in row.items()})
    if n is None:
        write("stability", document)


if __name__ == "__main__":
    main()
