"""Write the measured figures in docs/*.md from the raw outputs in ``results/``.

    python benchmarks/docs_tables.py [--check]

What lies between ``<!-- figures: NAME, written by benchmarks/docs_tables.py -->`` and ``<!-- end of figures -->`` is
replaced; --check only says whether it is current. NAME is a key of `TABLES`.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("docs/method.md", "docs/questions.md", "docs/comparison.md")
END = "<!-- end of figures -->"
_BLOCK = re.compile(
    rf"(?P<start><!-- figures: (?P<name>[\w-]+), written by benchmarks/docs_tables\.py -->\n).*?(?={END})", re.DOTALL
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first column is text and whose others are figures."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *rows])


def read(name: str) -> Any:
    """Return a raw output."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


METHODS = {
    "trained": "the trained metric (default)",
    "always": "always the one checkpoint that is best over these tasks, known in hindsight",
    "ridge_on_descriptors": "ridge regression on the descriptors",
    "best_imagenet": "best ImageNet accuracy",
    "nearest_asymmetric": "nearest task, the paper's asymmetric distance",
    "static": "mean standing on the other tasks",
    "nearest_symmetric": "nearest task, the paper's symmetric distance",
    "model2vec": "the paper's Model2Vec",
    "share_of_wins": "share of wins on the other tasks",
    "permuted": "the trained metric, embeddings given to the wrong tasks",
}


def _gain(row: dict[str, Any]) -> str:
    return f"{100 * row['gain']:+.1f} ({100 * row['gain_low']:+.1f} to {100 * row['gain_high']:+.1f})"


def rules() -> str:
    """All ways of choosing, on the measured matrix."""
    document = read("selection")
    rows, seen = [], set()
    for row in document["methods"]["summary"]:
        name = re.sub(r":.*|_\d$", "", row["method"])
        if name not in seen:  # of several permutations, the first in the table, which is the best of them
            seen.add(name)
            figures = (f"{100 * row['accuracy']:.1f} %", _gain(row), f"{row['tau']:.2f}")
            rows.append((METHODS[name], *figures))
    note = (
        f"\n{document['n_tasks']} tasks, {document['n_checkpoints']} checkpoints, each task predicted from the others. "
        "Gain: over the best rule that does not look at the task, in points, with its 95 % interval over tasks.\n"
        "τ: weighted rank correlation with the measured accuracies.\n"
    )
    return table(("choice by", "accuracy of the pick", "gain", "τ"), rows) + note


def activations() -> str:
    """Fisher information against feature moments: finding halves of a task, class trees, and choosing checkpoints."""
    retrieval, trees = read("retrieval")["distances"], read("properties")["taxonomy"]
    ablations = {row["method"]: row for row in read("selection")["ablations"]["summary"]}
    rows = []
    for title, distance, part in (
        ("Fisher information, default distance", "log_correlation", "fisher"),
        ("Fisher information, the paper's symmetric distance", "symmetric", None),
        ("means and variances of the features", "feature_moments", "moments"),
        ("both", None, "fisher+moments"),
        ("Fisher information and descriptors", None, "fisher+descriptors"),
        ("means, variances and descriptors", None, "moments+descriptors"),
        ("all three (default)", None, "all"),
    ):
        found = retrieval[distance] if distance else None
        agreement = [f"{tree['agreement'][distance]['spearman']:.2f}" for tree in trees.values()] if distance else ["–"]
        share = f"{100 * ablations[part]['share_of_gap']:.0f} %" if part else "–"
        rows.append((title, f"{found['d_prime']:.1f}" if found else "–", ", ".join(agreement), share))
    head = (
        "tasks represented by",
        "halves found (d')",
        "class trees (Spearman)",
        "share of the gap captured",
    )
    return table(head, rows)


PROBES = {
    "tf_efficientnet_lite0": "EfficientNet-Lite0 (default)",
    "resnet18_stages3": "ResNet-18, three stages",
    "vit_tiny_patch16_224": "ViT-Ti/16",
    "mobilenetv2_100": "MobileNetV2",
}


def probes() -> str:
    """How far probes agree on the distances between the same tasks."""
    part = read("properties")["probes"]
    titles = {name: PROBES[name.partition(".")[0]] for name in part["agreement"]}
    rows = [
        (title, *(f"{part['agreement'][a][b]['spearman']:.2f}" if a != b else "1" for b in titles))
        for a, title in titles.items()
    ]
    note = f"\nSpearman correlation of distances between {len(part['tasks'])} tasks, {part['images']} images each.\n"
    return table(("probe", *titles.values()), rows) + note


def few_images() -> str:
    """The embedding of few images against that of the whole sample."""
    part = read("properties")["images"]
    rows = [
        (
            str(row["images"]),
            f"{row['same_task']:.2f}",
            f"{row['other_tasks']:.2f}",
            f"{100 * row['top1']:.0f} %",
            f"{row['spearman']:.2f}",
        )
        for row in part["curve"]
    ]
    head = ("images", "distance to another draw", "to other tasks", "nearest is the same task", "agreement")
    note = "Agreement: Spearman correlation of the distances with those between embeddings of all images."
    return table(head, rows) + f"\n{len(part['tasks'])} tasks. {note}\n"


def resolution() -> str:
    """Shrunk images, and other input sizes of the probe."""
    part = read("properties")["resolution"]
    rows = [
        (f"images shrunk to {row['side_px']} px", f"{row['same_task']:.2f}", f"{row['other_tasks']:.2f}")
        for row in part["images_shrunk"]
    ]
    rows += [
        (f"probe run at {row['input_px']} px", f"{row['same_task']:.2f}", f"{row['other_tasks']:.2f}")
        for row in part["probe_input"]
    ]
    return table(("change", "distance to the same task unchanged", "to other tasks"), rows)


def labels() -> str:
    """What labels do to the embedding."""
    summary = read("label_sensitivity")["summary"]
    rows = [
        (title, f"{part['median_redrawn']:.2f}", f"{part['median_shuffled']:.2f}", f"{part['median_ratio']:.2f}")
        for title, part in (
            ("the Fisher vector alone", summary["fisher"]),
            ("what the selection uses", summary["selection"]),
        )
    ]
    return table(("median distance of a task to itself with", "other images", "shuffled labels", "ratio"), rows)


def difficulty() -> str:
    """The norm of the embedding against the error of a linear probe."""
    part = read("properties")["difficulty"]
    found = part["correlation"]["raw_l2"]
    return (
        f"Over {len(part['tasks'])} tasks, the norm of the raw embedding and the test error of a linear probe have a "
        f"Spearman correlation of {found['spearman']:.2f}; the number of classes alone has "
        f"{part['classes_alone']:.2f}.\n"
    )


def scores_of_features() -> str:
    """Transferability scores that need every candidate's features, on the measured matrix."""
    tasks = {row["task"] for row in read("selection")["methods"]["rows"]}
    cells: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (RESULTS / "matrix.csv").open(encoding="utf-8", newline="") as handle:
        for cell in csv.DictReader(handle):
            if cell["task"] in tasks:
                cells[cell["task"]].append(cell)
    n = max(map(len, cells.values()))

    def pick(key: str) -> float:
        best = (max(candidates, key=lambda cell: float(cell[key])) for candidates in cells.values())
        return fmean(float(cell["linear"]) for cell in best)

    found = [
        ("the linear probe itself, leave-one-out", n, pick("linear")),
        ("LogME", n, pick("logme")),
        ("five nearest neighbours, leave-one-out", n, pick("knn")),
        ("H-score", n, pick("h_score")),
    ]
    document = read("selection")
    summary = {row["method"].partition(":")[0]: row["accuracy"] for row in document["methods"]["summary"]}
    refined = {row["k"]: row["accuracy"] for row in document["refine"]["rows"]}
    found += [(f"`select --refine {k}`", k, refined[k]) for k in sorted(refined) if 0 < k < n]
    found += [("`select`", 0, summary["trained"]), (METHODS["always"], 0, summary["always"])]
    found.sort(key=lambda row: -row[2])
    head = ("choice by", f"candidates downloaded (of {n})", "accuracy of the pick")
    note = (
        f"{len(cells)} tasks; the accuracy is that of the leave-one-out linear probe, which its own row also chose by."
    )
    return table(head, [(title, str(k), f"{100 * share:.1f} %") for title, k, share in found]) + f"\n{note}\n"


def fisher_libraries() -> str:
    """Ratios to one plain forward and backward pass."""
    models = read("fisher_speed_cpu")["models"]
    names = {
        "sketch": "hf_task2vec, exact in expectation",
        "vmap_grad": "`torch.func`, one sampled label",
        "backpack": "BackPACK, one draw",
        "nngeometry": "NNGeometry, exact",
    }

    def ratio(entry: dict[str, Any], key: str) -> str:
        return f"{entry['peers'][key]['ratio']:.1f}" if key in entry["peers"] else "fails"

    rows = [(title, *(ratio(entry, key) for entry in models.values())) for key, title in names.items()]
    times = [entry["original_loop"]["times_the_sketch_extrapolated"] for entry in models.values()]
    draws = next(iter(models.values()))["original_loop"]
    note = (
        "\nTimes one plain forward and backward pass of the same images, one CPU thread. The loop of the original code "
        f"draws {draws['draws']:,} images, which takes {min(times):.0f} to {max(times):.0f} times as long as our "
        f"{draws['sketch_images']}.\n"
    )
    return table(("library", *(f"`{name}`" for name in models)), rows) + note


TABLES: dict[str, Callable[[], str]] = {
    "rules": rules,
    "activations": activations,
    "probes": probes,
    "few-images": few_images,
    "resolution": resolution,
    "labels": labels,
    "difficulty": difficulty,
    "scores-of-features": scores_of_features,
    "fisher-libraries": fisher_libraries,
}


def filled(text: str) -> str:
    """Return a page with its figures written anew."""
    return _BLOCK.sub(lambda match: f"{match['start']}\n{TABLES[match['name']]()}\n", text)


def main() -> None:
    """Rewrite or check."""
    stale = []
    for page in PAGES:
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        if (current := filled(text)) != text:
            stale.append(page)
            if "--check" not in sys.argv:
                path.write_text(current, encoding="utf-8")
    if "--check" in sys.argv and stale:
        raise SystemExit(f"not current: {', '.join(stale)}; run python benchmarks/docs_tables.py")


if __name__ == "__main__":
    main()
