"""The figures of the documentation: docs/figures/*.svg.

    python benchmarks/plots.py [--only pareto noise_curve] [--png FOLDER]

The task map, the distance matrix and the layer profile are drawn from the shipped index; the Pareto plot and one noise
curve from ``sklearn:digits``, which scikit-learn holds; the other noise curves from shared tasks, if they are there. No
figure holds an image of a dataset. Equal input gives equal files. With ``--png`` also as pictures, to look at.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hf_task2vec import plots
from hf_task2vec.files import atomic_path
from hf_task2vec.selection import select_backbone
from hf_task2vec.task import Task
from hf_task2vec.task_map import TaskMap, map_tasks
from hf_task2vec.zoo import ZooIndex

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "figures"
SHARED = ROOT.parent / "shared" / "tasks"
#: Tasks of the noise curves: of little, middling and much noise.
NOISE_TASKS = ("mnist", "cifar10", "dtd_10")
PROFILE_TASK = "mnist"


def shipped_tasks() -> TaskMap:
    """Compare the embedded tasks of the shipped index."""
    index = ZooIndex.load(ROOT / "zoo_index")
    table = index.embeddings()
    domain = index.tasks.set_index("task")["domain"]
    return map_tasks([table.embedding(task) for task in table.tasks], table.tasks, list(domain[list(table.tasks)]))


def layer_profile() -> Figure:
    """Draw one reference task among all of them."""
    table = ZooIndex.load(ROOT / "zoo_index").embeddings()
    return plots.layer_profile(table.embedding(PROFILE_TASK), [table.embedding(task) for task in table.tasks])


def pareto() -> Figure:
    """Rank all checkpoints of known licence for the built-in sample."""
    return plots.pareto(select_backbone("sklearn:digits", top_k=100_000))


def noise_curve() -> Figure:
    """Embed growing parts of a few samples."""
    tasks = [Task.from_dataset("sklearn:digits", max_samples=256)]
    tasks += [
        Task.from_dataset(SHARED / name, split="train", max_samples=256) for name in NOISE_TASKS if SHARED.is_dir()
    ]
    return plots.noise_curve([embedding for task in tasks for embedding in plots.embed_prefixes(task, progress=True)])


FIGURES: dict[str, Callable[[], Figure]] = {
    "task_map": lambda: plots.task_map(shipped_tasks()),
    "distance_matrix": lambda: plots.distance_matrix(shipped_tasks()),
    "layer_profile": layer_profile,
    "pareto": pareto,
    "noise_curve": noise_curve,
}


def main() -> None:
    """Draw and write."""
    import matplotlib

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--png", type=Path)
    args = parser.parse_args()
    for name in args.only:
        figure = FIGURES[name]()
        # Else ids are drawn at random, and the file says when it was made.
        with matplotlib.rc_context({"svg.hashsalt": "hf_task2vec"}), atomic_path(FOLDER / f"{name}.svg") as path:
            figure.savefig(path, format="svg", metadata={"Date": None})
        if args.png is not None:
            figure.savefig(args.png / f"{name}.png", dpi=110)
        print(f"{name}.svg: {(FOLDER / f'{name}.svg').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
