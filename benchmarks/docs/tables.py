"""Write the measured figures of the documents from the raw outputs in ``results/``.

    python -m benchmarks.docs.tables [--check]

What lies between ``<!-- figures: NAME, written by benchmarks/docs/tables.py -->`` and ``<!-- end of figures -->`` is
replaced; NAME is a function of `TABLES`. --check only says which documents are not current.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from benchmarks.common import ROOT, parser, read, read_matrix

PAGES = ("README.md", "examples/README.md", "docs/method.md", "docs/questions.md", "docs/comparison.md")
_BLOCK = re.compile(
    r"(?P<start><!-- figures: (?P<name>[\w-]+), written by benchmarks/docs/tables\.py -->\n).*?"
    r"(?=<!-- end of figures -->)",
    re.DOTALL,
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """Return a Markdown table; the first column is text and the others figures, unless `align` says ``l`` for them."""
    rule = ["---" if side == "l" else "--:" for side in (align or "l" + "r" * (len(head) - 1))]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *rows])


def by_name(rows: Sequence[dict[str, Any]], key: str = "method") -> dict[Any, dict[str, Any]]:
    """Rows by one of their fields."""
    return {row[key]: row for row in rows}


def points(share: float, digits: int = 1) -> str:
    """A share in per cent, without the sign of it."""
    return f"{100 * share:.{digits}f}"


def gain(row: dict[str, Any], digits: int) -> str:
    """A gain in points, with its interval."""
    value, low, high = (f"{100 * row[key]:+.{digits}f}" for key in ("gain", "gain_low", "gain_high"))
    return f"{value} ({low} to {high})"


def measured() -> str:
    """The main figures, for the README: what was measured, the figure, and the script."""
    rows: list[tuple[str, str, str]] = []
    cost = read("select_cost")
    for key, what in (("cold", "first run, nothing cached"), ("cached", "second run on the same data")):
        run, where = cost[key], f"`select` on `{cost['dataset']}`"
        size = f"{run['checkpoints_ranked']:,} checkpoints, {cost['cores']} cores"
        figure = f"{run['seconds']:.0f} s, {run['peak_memory_mib'] / 1024:.1f} GiB"
        rows.append((f"{where}, {size}: {what}", figure, "speed/commands.py"))
    retrieval = read("retrieval")
    halves = f"two disjoint halves of {retrieval['images_per_half']} images find each other"
    for distance, what in (
        ("log_correlation", f"{halves} among {retrieval['n_tasks']} real tasks"),
        ("symmetric", "the same with the paper's symmetric distance"),
    ):
        found = retrieval["distances"][distance]
        rows.append((what, f"top-1 {found['top1']:.3f}, AUC {found['auc']:.4f}", "properties/retrieval.py"))
    start = read("startup")["median_s"]
    for key, what in (("import", "`import hf_task2vec`"), ("help", "`hf-task2vec --help`")):
        rows.append((f"start of {what}", f"{start[key]:.2f} s", "speed/commands.py"))
    cells = read_matrix()
    size = f"{len({c for _, c in cells})} checkpoints on {len({t for t, _ in cells})} tasks"
    rows.append((f"measured matrix of linear probes: {size}", f"{len(cells)} cells", "index/matrix.py"))
    rows += [(*row, "selection/leave_one_out.py") for row in _selection()]
    rows += [_experts(), _low_data(), _fine_tuning()]
    part = read("containment")
    f1 = {name: row["f1"] for name, row in part["novel datasets"].items()}
    paper = max(value for name, value in f1.items() if "asymmetric" in name)
    figures = (
        f"{f1['learned score']:.0f} %; the paper's asymmetric distance {paper:.0f} %, "
        f"a network on both embeddings {f1['network on both embeddings']:.0f} %"
    )
    what = f"which of {part['n_tasks']} tasks contains which, on datasets not learned from: F1"
    rows.append((what, figures, "relations/containment.py"))
    alike = read("similarity")["agreement"]["minus log_correlation"]
    figure = f"Pearson {alike['pearson']['value']:.2f}, Spearman {alike['spearman']['value']:.2f}"
    what = "correlation of nearness by the default distance with how alike checkpoints rank"
    rows.append((what, figure, "relations/similarity.py"))
    what = "tasks that shuffled labels move farther than redrawn images do: {} (median ratio)"
    for kind, name in (("fisher", "Fisher vector alone"), ("selection", "what the selection uses")):
        found = read("label_sensitivity")["summary"][kind]
        share = found["share_of_tasks_where_shuffling_moves_more"]
        rows.append((what.format(name), f"{100 * share:.0f} % ({found['median_ratio']:.2f})", "properties/labels.py"))
    rows += _speed()
    lines = [(what, figure, f"[`{script.rpartition('/')[2]}`](benchmarks/{script})") for what, figure, script in rows]
    return table(("what", "measured", "script"), lines, "lll")


def _selection() -> list[tuple[str, str]]:
    document = read("selection")
    methods, refined = by_name(document["methods"]["summary"]), by_name(document["refine"]["rows"], "k")
    ours, blind = methods["trained"], methods["static"]["error_increase"]
    ranks = [row["share_of_gap"] for row in document["ranks"]]
    size = f"{document['n_tasks']} tasks, {document['n_checkpoints']} checkpoints"
    worse, published = [], 0
    for source, part in sorted(document["published"].items()):
        if "summary" in part:
            found = by_name(part["summary"])
            lead = 100 * (found["trained"]["accuracy"] - found["static"]["accuracy"])
            published += 1
            worse += [f"{source} {lead:+.1f}"] * (lead < -0.3)
    return [
        (
            f"accuracy of the first recommendation, each task predicted from the others ({size})",
            f"{points(ours['accuracy'])} %; best task-blind rule {points(methods[ours['base']]['accuracy'])} %",
        ),
        (
            "its gain over the best rule that does not look at the task, with 95 % interval over tasks",
            gain(ours, 2).replace(" (", " points (", 1),
        ),
        (
            "share of the gap between that rule and what noise allows",
            f"{points(ours['share_of_gap'], 0)} % (goal 60 %)",
        ),
        ("the same with `refine=3`", f"{points(refined[3]['share_of_gap'], 0)} % (goal 85 %)"),
        (
            "relative error increase over the best checkpoint",
            f"{points(ours['error_increase'])} %; static prior {points(blind)} % (goal: half of it)",
        ),
        (
            "the share of the gap with other numbers of factors in the metric",
            f"{points(min(ranks), 0)} to {points(max(ranks), 0)} %",
        ),
        ("80 % intervals that hold the measured accuracy", f"{points(document['coverage']['coverage'], 0)} %"),
        (
            f"published matrices ({published}) on which it is more than 0.3 points worse than the static prior",
            ", ".join(worse) or "none",
        ),
    ]


def _experts() -> tuple[str, str, str]:
    found = by_name(read("experts")["summary"])
    names = {
        "trained": "ours",
        "always:imagenet": "always ImageNet",
        "model2vec": "Model2Vec",
        "symmetric": "symmetric",
        "asymmetric": "asymmetric",
    }
    figures = ", ".join(f"{name} {points(found[key]['error_increase'])}" for key, name in names.items())
    return "choice among 14 experts and their start: relative error increase, %", figures, "selection/experts.py"


def _low_data() -> tuple[str, str, str]:
    summary = [row for row in read("low_data")["summary"] if row["judged_by"] == "obtained"]
    sizes = sorted({row["n"] for row in summary})
    gains = {(row["method"], row["n"]): 100 * row["gain_over_static"] for row in summary}
    names = {"trained": "first recommendation", "refine_3": "`refine=3`", "everything": "trying all 16 on them"}
    figures = "; ".join(f"{name} {', '.join(f'{gains[key, n]:+.1f}' for n in sizes)}" for key, name in names.items())
    what = f"with {', '.join(map(str, sizes))} labelled images in all: points over the static pick"
    return what, figures, "selection/low_data.py"


def _fine_tuning() -> tuple[str, str, str]:
    document = read("fine_tune")
    cells, found = document["cells"], document["agreement"]
    both = found["linear_against_fine_tuned"]
    size = f"{len({c['checkpoint'] for c in cells})} checkpoints on {len({c['task'] for c in cells})} tasks"
    tau, low, high = (f"{both[f'kendall_tau{end}']:.2f}" for end in ("", "_low", "_high"))
    lost, any_lost = both["points_lost_by_its_pick"], found["points_lost_by_a_random_pick"]
    figures = f"{tau} ({low} to {high}); taking the best probe loses {lost:.1f} points, any checkpoint {any_lost:.1f}"
    what = f"do linear probes rank as {document['epochs']} epochs of fine-tuning do ({size}): Kendall's τ"
    return what, figures, "selection/fine_tune.py"


def _speed() -> list[tuple[str, str, str]]:
    hub, whole = read("hub_bytes")["results"]["row groups of 100"], read("end_to_end")["torch_threads_2"]
    models, scale = read("fisher_speed_cpu")["models"], read("scale")
    ratios = ", ".join(f"{name} {entry['methods']['sketch']['ratio']:.2f}" for name, entry in models.items())
    return [
        (
            f"{hub['first']['images']} images drawn from a Hub dataset of {hub['bytes'] / 1e9:.1f} GB: transferred",
            f"{points(hub['first']['share_of_dataset'])} % (goal 3 %)",
            "speed/hub_bytes.py",
        ),
        ("Fisher pass over one plain forward and backward pass, one thread", ratios, "speed/fisher.py"),
        (
            f"`embed_task` on {whole['images']} JPEG files of {whole['side_px']} px over its network passes, 2 cores",
            f"{whole['summary']['embed_files']['ratio']:.2f} (goal {whole['target']})",
            "speed/end_to_end.py",
        ),
        (
            f"ranking {scale['checkpoints']:,} made-up checkpoints with {scale['tasks']:,} reference tasks, after load",
            f"{scale['rank_s']['median']:.2f} s, {scale['peak_memory_gib']:.1f} GiB",
            "speed/scale.py",
        ),
        ("loading the shipped index", f"{scale['load_shipped_index_s']['median']:.2f} s", "speed/scale.py"),
    ]


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


def rules() -> str:
    """All ways of choosing, on the measured matrix."""
    document = read("selection")
    best: dict[str, dict[str, Any]] = {}
    for row in document["methods"]["summary"]:
        best.setdefault(re.sub(r":.*|_\d$", "", row["method"]), row)  # the first of several permutations is their best
    rows = [
        (METHODS[name], f"{points(row['accuracy'])} %", gain(row, 1), f"{row['tau']:.2f}") for name, row in best.items()
    ]
    return table(("choice by", "accuracy of the pick", "gain", "τ"), rows) + (
        f"\n{document['n_tasks']} tasks, {document['n_checkpoints']} checkpoints, each task predicted from the others. "
        "Gain: over the best rule that does not look at the task, in points, with its 95 % interval over tasks.\n"
        "τ: weighted rank correlation with the measured accuracies.\n"
    )


def activations() -> str:
    """Fisher information against feature moments: finding halves of a task, class trees, and choosing checkpoints."""
    retrieval, trees = read("retrieval")["distances"], read("taxonomy")["trees"]
    ablations = by_name(read("selection")["ablations"]["summary"])
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
        found = f"{retrieval[distance]['d_prime']:.1f}" if distance else "–"
        agreement = [f"{tree['agreement'][distance]['spearman']:.2f}" for tree in trees.values()] if distance else ["–"]
        share = f"{points(ablations[part]['share_of_gap'], 0)} %" if part else "–"
        rows.append((title, found, ", ".join(agreement), share))
    head = ("tasks represented by", "halves found (d')", "class trees (Spearman)", "share of the gap captured")
    return table(head, rows)


PROBES = {
    "tf_efficientnet_lite0": "EfficientNet-Lite0 (default)",
    "resnet18_stages3": "ResNet-18, three stages",
    "vit_tiny_patch16_224": "ViT-Ti/16",
    "mobilenetv2_100": "MobileNetV2",
}


def probes() -> str:
    """How far probes agree on the distances between the same tasks."""
    part = read("stability")["probes"]
    titles = {name: PROBES[name.partition(".")[0]] for name in part["agreement"]}
    rows = [
        (title, *(f"{part['agreement'][a][b]:.2f}" if a != b else "1" for b in titles)) for a, title in titles.items()
    ]
    note = f"\nSpearman correlation of distances between {len(part['tasks'])} tasks, {part['images']} images each.\n"
    return table(("probe", *titles.values()), rows) + note


def few_images() -> str:
    """The embedding of few images against that of the whole sample."""
    part = read("stability")["images"]
    keys = ("same_task", "other_tasks", "top1", "spearman")
    form = {"top1": "{:.0%}"}
    rows = [
        (str(row["images"]), *(form.get(key, "{:.2f}").format(row[key]).replace("%", " %") for key in keys))
        for row in part["curve"]
    ]
    head = ("images", "distance to another draw", "to other tasks", "nearest is the same task", "agreement")
    note = "Agreement: Spearman correlation of the distances with those between embeddings of all images."
    return table(head, rows) + f"\n{len(part['tasks'])} tasks. {note}\n"


def resolution() -> str:
    """Shrunk images, and other input sizes of the probe."""
    part = read("stability")["resolution"]
    changes = [(f"images shrunk to {row['side_px']} px", row) for row in part["images_shrunk"]]
    changes += [(f"probe run at {row['input_px']} px", row) for row in part["probe_input"]]
    rows = [(change, f"{row['same_task']:.2f}", f"{row['other_tasks']:.2f}") for change, row in changes]
    return table(("change", "distance to the same task unchanged", "to other tasks"), rows)


def labels() -> str:
    """What labels do to the embedding."""
    summary = read("label_sensitivity")["summary"]
    keys = ("median_redrawn", "median_shuffled", "median_ratio")
    rows = [
        (title, *(f"{summary[kind][key]:.2f}" for key in keys))
        for kind, title in (("fisher", "the Fisher vector alone"), ("selection", "what the selection uses"))
    ]
    return table(("median distance of a task to itself with", "other images", "shuffled labels", "ratio"), rows)


def difficulty() -> str:
    """The norm of the embedding against the error of a linear probe."""
    document = read("difficulty")
    norm, classes = (document["correlation"][key]["spearman"] for key in ("norm", "classes"))
    return (
        f"Over {len(document['tasks'])} tasks, the norm of the raw embedding and the leave-one-out error of a linear "
        f"probe have a Spearman correlation of {norm:.2f}; the number of classes alone has {classes:.2f}.\n"
    )


def scores_of_features() -> str:
    """Transferability scores that need every candidate's features, on the measured matrix."""
    document = read("selection")
    tasks = {row["task"] for row in document["methods"]["rows"]}
    cells: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for cell in read_matrix().values():
        if cell["task"] in tasks:
            cells[cell["task"]].append(cell)
    n = max(map(len, cells.values()))
    found = [
        (title, n, fmean(max(candidates, key=lambda cell: cell[key])["linear"] for candidates in cells.values()))
        for key, title in (
            ("linear", "the linear probe itself, leave-one-out"),
            ("logme", "LogME"),
            ("knn", "five nearest neighbours, leave-one-out"),
            ("h_score", "H-score"),
        )
    ]
    refined = {row["k"]: row["accuracy"] for row in document["refine"]["rows"]}
    summary = {row["method"].partition(":")[0]: row["accuracy"] for row in document["methods"]["summary"]}
    found += [(f"`select --refine {k}`", k, refined[k]) for k in sorted(refined) if 0 < k < n]
    found += [("`select`", 0, summary["trained"]), (METHODS["always"], 0, summary["always"])]
    rows = [(title, str(k), f"{points(share)} %") for title, k, share in sorted(found, key=lambda row: -row[2])]
    head = ("choice by", f"candidates downloaded (of {n})", "accuracy of the pick")
    note = "the accuracy is that of the leave-one-out linear probe, which its own row also chose by."
    return table(head, rows) + f"\n{len(cells)} tasks; {note}\n"


def fisher_libraries() -> str:
    """Ratios to one plain forward and backward pass."""
    models = read("fisher_speed_cpu")["models"]
    names = {
        "sketch": "hf_task2vec, exact in expectation",
        "vmap_grad": "`torch.func`, one sampled label",
        "backpack": "BackPACK, one draw",
        "nngeometry": "NNGeometry, exact",
    }
    rows = [
        (title, *(f"{e['peers'][key]['ratio']:.1f}" if key in e["peers"] else "fails" for e in models.values()))
        for key, title in names.items()
    ]
    loops = [entry["original_loop"] for entry in models.values()]
    times = [loop["times_the_sketch_extrapolated"] for loop in loops]
    return table(("library", *(f"`{name}`" for name in models)), rows) + (
        "\nTimes one plain forward and backward pass of the same images, one CPU thread. The loop of the original code "
        f"draws {loops[0]['draws']:,} images, which takes {min(times):.0f} to {max(times):.0f} times as long as our "
        f"{loops[0]['sketch_images']}.\n"
    )


def fine_tuned_picks() -> str:
    """What picks are worth after fine-tuning."""
    found, keys = read("examples_table")["rows"], ("recommended", "static", "random")
    rows = []
    for row in found:
        recommended, static, random = (points(row["accuracy"][key]) for key in keys)
        predicted, low, high = (points(row["predicted"][key]) for key in ("score", "low", "high"))
        names = [row[key].split("/")[1] for key in keys[:2]]
        predicted = f"{predicted} ({low}–{high})"
        rows.append((row["task"], names[0], predicted, recommended, names[1], static, random))
    recommended, static, random = (points(fmean(row["accuracy"][key] for row in found)) for key in keys)
    rows.append(("mean", "", "", recommended, "", static, random))
    head = ("task", "recommended", "predicted (linear probe)", "obtained", "static pick", "obtained", "random: mean")
    return table(head, rows, "llrrlrr")


TABLES: dict[str, Callable[[], str]] = {
    make.__name__.replace("_", "-"): make
    for make in (
        *(measured, rules, activations, probes, few_images, resolution, labels, difficulty, scores_of_features),
        *(fisher_libraries, fine_tuned_picks),
    )
}


def filled(text: str) -> str:
    """Return a page with its figures written anew."""
    return _BLOCK.sub(lambda match: f"{match['start']}\n{TABLES[match['name']]()}\n", text)


def stale(*, mend: bool = False) -> list[str]:
    """Pages whose figures are not those of the raw outputs; written anew with `mend`."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        if (current := filled(text)) != text:
            found.append(page)
            if mend:
                (ROOT / page).write_text(current, encoding="utf-8")
    return found


def main() -> None:
    """Rewrite or check."""
    arguments = parser(__doc__)
    arguments.add_argument("--check", action="store_true")
    check = arguments.parse_args().check
    if (found := stale(mend=not check)) and check:
        raise SystemExit(f"not current: {', '.join(found)}; run python -m benchmarks.docs.tables")


if __name__ == "__main__":
    main()
