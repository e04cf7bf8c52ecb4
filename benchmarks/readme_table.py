"""Write the README's table of measured figures from the raw outputs in ``results/``.

    python benchmarks/readme_table.py [--check]

Everything between the two marks in README.md is replaced; --check only says whether it is current.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- measured: written by benchmarks/readme_table.py -->", "<!-- end of measured -->"


def rows() -> list[tuple[str, str, str]]:
    """What was measured, the figure, and the script."""
    found = []
    cost = _read("select_cost.json")
    for key, what in (("cold", "first run, nothing cached"), ("cached", "second run on the same data")):
        run = cost[key]
        found.append(
            (
                (
                    f"`select` on `{cost['dataset']}`, {run['checkpoints_ranked']:,} checkpoints, "
                    f"{cost['cores']} cores: {what}"
                ),
                f"{run['seconds']:.0f} s, {run['peak_memory_mib'] / 1024:.1f} GiB",
                "select_cost.py",
            )
        )
    retrieval = _read("retrieval.json")
    best, n = retrieval["distances"]["log_correlation"], retrieval["images_per_half"]
    found.append(
        (
            f"two disjoint halves of {n} images find each other among {retrieval['n_tasks']} real tasks",
            f"top-1 {best['top1']:.3f}, AUC {best['auc']:.4f}",
            "retrieval.py",
        )
    )
    paper = retrieval["distances"]["symmetric"]
    found.append(
        (
            "the same with the paper's symmetric distance",
            f"top-1 {paper['top1']:.3f}, AUC {paper['auc']:.4f}",
            "retrieval.py",
        )
    )
    startup = _read("startup.json")
    for key, what in (("import", "`import hf_task2vec`"), ("help", "`hf-task2vec --help`")):
        found.append((f"start of {what}", f"{startup['median_s'][key]:.2f} s", "startup.py"))
    with (RESULTS / "matrix.csv").open(encoding="utf-8", newline="") as handle:
        cells = list(csv.DictReader(handle))
    size = f"{len({c['checkpoint'] for c in cells})} checkpoints on {len({c['task'] for c in cells})} tasks"
    found.append((f"measured matrix of linear probes: {size}", f"{len(cells)} cells", "score_matrix.py"))
    return found


def table() -> str:
    """Return the section between the marks."""
    lines = ["| what | measured | script |", "|---|---|---|"]
    lines += [f"| {what} | {figure} | [`{script}`](benchmarks/{script}) |" for what, figure, script in rows()]
    return "\n".join([START, *lines, END])


def _read(name: str) -> dict[str, dict]:  # type: ignore[type-arg]
    document: dict[str, dict] = json.loads((RESULTS / name).read_text(encoding="utf-8"))  # type: ignore[type-arg]
    return document


def main() -> None:
    """Rewrite or check."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    current = before + table() + after
    if "--check" in sys.argv:
        raise SystemExit(0 if current == text else "README.md is not current: run python benchmarks/readme_table.py")
    path.write_text(current, encoding="utf-8")


if __name__ == "__main__":
    main()
