"""Is the norm of an embedding a measure of the task's difficulty, as the paper says?

    python -m benchmarks.properties.difficulty

Over the embedded tasks of the index: the norm of the Fisher values against the error of a linear probe on the same
probe's features (measured matrix, leave-one-out), and the number of classes against that error, as Spearman
correlations. Raw output: results/difficulty.json; plot: results/difficulty.png.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.common import RESULTS, parser, read_matrix, write
from hf_task2vec import ZooIndex
from hf_task2vec.probes.checkpoint_files import DEFAULT_PROBE


def difficulty() -> dict[str, Any]:
    """Norms of the index's embeddings against the probe's error."""
    table = ZooIndex.load().embeddings
    errors = {task: 1.0 - row["linear"] for (task, name), row in read_matrix().items() if name == DEFAULT_PROBE}
    rows = [
        {
            "task": name,
            "classes": int(embedding.descriptors["n_classes"]),
            "norm": float(np.linalg.norm(embedding.values.astype(np.float64))),
            "error": errors[name],
        }
        for name, embedding in zip(table.names, table, strict=True)
        if name in errors
    ]
    error = [row["error"] for row in rows]
    found = {key: spearmanr([row[key] for row in rows], error) for key in ("norm", "classes")}
    return {
        "correlation": {key: {"spearman": float(r.statistic), "p_value": float(r.pvalue)} for key, r in found.items()},
        "tasks": rows,
    }


def plot(document: dict[str, Any], path: Path) -> None:
    """Draw every task."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panel = plt.subplots(figsize=(9, 6), constrained_layout=True)
    rows, found = document["tasks"], document["correlation"]["norm"]
    x, y = ([row[key] for row in rows] for key in ("norm", "error"))
    marks = panel.scatter(x, y, c=np.log10([row["classes"] for row in rows]), s=28, zorder=2)
    panel.set_xscale("log")
    for row in sorted(rows, key=lambda row: row["error"])[-10:]:
        panel.annotate(row["task"], (row["norm"], row["error"]), (6, -3), textcoords="offset points", fontsize=7)
    ticks = [2, 5, 10, 30, 100]
    bar = figure.colorbar(marks, ax=panel, pad=0.01, ticks=np.log10(ticks), label="classes")
    bar.ax.set_yticklabels([str(tick) for tick in ticks])
    panel.grid(alpha=0.25)
    panel.set(xlabel="L2 norm of the Fisher values", ylabel="leave-one-out error of a linear probe")
    panel.set_title(f"{len(rows)} tasks: rank correlation {found['spearman']:+.2f} (p = {found['p_value']:.2g})")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run, write the raw output, and draw."""
    parser(__doc__).parse_args()
    document = difficulty()
    write("difficulty", document)
    plot(document, RESULTS / "difficulty.png")
    print(document["correlation"])


if __name__ == "__main__":
    main()
