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
    found.append((f"measured matrix of linear probes: {size}", f"{len(cells)} cells", "build_matrix.py"))
    return [*found, *_selection(), *_more_selection(), *_relations(), *_labels(), *_speed(), *_scale()]


def _selection() -> list[tuple[str, str, str]]:
    document = _read("selection.json")
    rows = {row["method"]: row for row in document["methods"]["summary"]}
    ours = rows["trained"]
    base = rows[ours["base"]]
    n = f"{document['n_tasks']} tasks, {document['n_checkpoints']} checkpoints"
    found = [
        (
            f"accuracy of the first recommendation, each task predicted from the others ({n})",
            f"{100 * ours['accuracy']:.1f} %; best task-blind rule {100 * base['accuracy']:.1f} %",
            "selection.py",
        ),
        (
            "its gain over the best rule that does not look at the task, with 95 % interval over tasks",
            f"{100 * ours['gain']:+.2f} points ({100 * ours['gain_low']:+.2f} to {100 * ours['gain_high']:+.2f})",
            "selection.py",
        ),
        (
            "share of the gap between that rule and what noise allows",
            f"{100 * ours['share_of_gap']:.0f} % (goal 60 %)",
            "selection.py",
        ),
    ]
    three = next(row for row in document["refine"]["rows"] if row["k"] == 3)
    found.append(("the same with `refine=3`", f"{100 * three['share_of_gap']:.0f} % (goal 85 %)", "selection.py"))
    coverage = document["coverage"]["coverage"]
    rei = f"{100 * ours['error_increase']:.1f} %; static prior {100 * rows['static']['error_increase']:.1f} %"
    found.append(("relative error increase over the best checkpoint", f"{rei} (goal: half of it)", "selection.py"))
    ranks = [row["share_of_gap"] for row in document["ranks"]]
    found.append(
        (
            "the share of the gap with other numbers of factors in the metric",
            f"{100 * min(ranks):.0f} to {100 * max(ranks):.0f} %",
            "selection.py",
        )
    )
    found.append(("80 % intervals that hold the measured accuracy", f"{100 * coverage:.0f} %", "selection.py"))
    return found


def _more_selection() -> list[tuple[str, str, str]]:
    gains = {}
    for source, part in _read("selection.json")["published"].items():
        accuracy = {row["method"]: row["accuracy"] for row in part.get("summary", ())}
        if accuracy:
            gains[source] = 100 * (accuracy["trained"] - accuracy["static"])
    worse = ", ".join(f"{name} {gain:+.1f}" for name, gain in sorted(gains.items()) if gain < -0.3)
    found = [
        (
            f"published matrices ({len(gains)}) on which it is more than 0.3 points worse than the static prior",
            worse or "none",
            "selection.py",
        )
    ]
    experts = {row["method"]: row for row in _read("experts.json")["summary"]}
    names = {
        "trained": "ours",
        "always:imagenet": "always ImageNet",
        "model2vec": "Model2Vec",
        "symmetric": "symmetric",
        "asymmetric": "asymmetric",
    }
    figures = ", ".join(f"{name} {100 * experts[key]['error_increase']:.1f}" for key, name in names.items())
    found.append(("choice among 14 experts and their start: relative error increase, %", figures, "experts.py"))
    return [*found, *_low_data(), *_fine_tuning()]


def _low_data() -> list[tuple[str, str, str]]:
    summary = [row for row in _read("low_data.json")["summary"] if row["judged_by"] == "obtained"]
    sizes = sorted({row["n"] for row in summary})
    gains = {(row["method"], row["n"]): 100 * row["gain_over_static"] for row in summary}
    names = {"trained": "first recommendation", "refine_3": "`refine=3`", "everything": "trying all 16 on them"}
    figures = "; ".join(f"{name} {', '.join(f'{gains[key, n]:+.1f}' for n in sizes)}" for key, name in names.items())
    what = f"with {', '.join(map(str, sizes))} labelled images in all: points over the static pick"
    return [(what, figures, "low_data.py")]


def _fine_tuning() -> list[tuple[str, str, str]]:
    document = _read("fine_tune.json")
    agreement = document["agreement"]
    both = agreement["linear_against_fine_tuned"]
    cells = document["cells"]
    size = f"{len({c['checkpoint'] for c in cells})} checkpoints on {len({c['task'] for c in cells})} tasks"
    return [
        (
            f"do linear probes rank as {document['epochs']} epochs of fine-tuning do ({size}): Kendall's τ",
            (
                f"{both['kendall_tau']:.2f} ({both['kendall_tau_low']:.2f} to {both['kendall_tau_high']:.2f}); "
                f"taking the best probe loses {both['points_lost_by_its_pick']:.1f} points, any checkpoint "
                f"{agreement['points_lost_by_a_random_pick']:.1f}"
            ),
            "fine_tune.py",
        )
    ]


def _relations() -> list[tuple[str, str, str]]:
    document = _read("relations.json")
    part = document["containment"]
    f1 = {name: row["f1"] for name, row in part["novel datasets"].items()}
    paper = max(value for name, value in f1.items() if "asymmetric" in name)
    alike = document["similarity"]["agreement"]["minus log_correlation"]
    return [
        (
            f"which of {part['n_tasks']} tasks contains which, on datasets not learned from: F1",
            (
                f"{f1['learned score']:.0f} %; the paper's asymmetric distance {paper:.0f} %, "
                f"a network on both embeddings {f1['network on both embeddings']:.0f} %"
            ),
            "relations.py",
        ),
        (
            "correlation of nearness by the default distance with how alike checkpoints rank",
            f"Pearson {alike['pearson']['value']:.2f}, Spearman {alike['spearman']['value']:.2f}",
            "relations.py",
        ),
    ]


def _labels() -> list[tuple[str, str, str]]:
    summary = _read("label_sensitivity.json")["summary"]
    what = "tasks that shuffled labels move farther than redrawn images do: {} (median ratio)"
    names = {"fisher": "Fisher vector alone", "selection": "what the selection uses"}
    return [
        (
            what.format(name),
            (
                f"{100 * summary[kind]['share_of_tasks_where_shuffling_moves_more']:.0f} % "
                f"({summary[kind]['median_ratio']:.2f})"
            ),
            "retrieval.py",
        )
        for kind, name in names.items()
    ]


def _speed() -> list[tuple[str, str, str]]:
    models = _read("fisher_speed_cpu.json")["models"]
    figures = ", ".join(f"{name} {entry['methods']['sketch']['ratio']:.2f}" for name, entry in models.items())
    whole = _read("end_to_end.json")["torch_threads_2"]
    part = _read("hub_bytes.json")["results"]["row groups of 100"]
    return [
        (
            f"{part['first']['images']} images drawn from a Hub dataset of {part['bytes'] / 1e9:.1f} GB: transferred",
            f"{100 * part['first']['share_of_dataset']:.1f} % (goal 3 %)",
            "hub_bytes.py",
        ),
        ("Fisher pass over one plain forward and backward pass, one thread", figures, "fisher_speed.py"),
        (
            f"`embed_task` on {whole['images']} JPEG files of {whole['side_px']} px over its network passes, 2 cores",
            f"{whole['summary']['embed_files']['ratio']:.2f} (goal {whole['target']})",
            "end_to_end.py",
        ),
    ]


def _scale() -> list[tuple[str, str, str]]:
    scale = _read("scale.json")
    what = f"ranking {scale['checkpoints']:,} made-up checkpoints with {scale['tasks']:,} reference tasks, after load"
    figure = f"{scale['rank_s']['median']:.2f} s, {scale['peak_memory_gib']:.1f} GiB"
    load = f"{scale['load_shipped_index_s']['median']:.2f} s"
    return [(what, figure, "scale.py"), ("loading the shipped index", load, "scale.py")]


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
