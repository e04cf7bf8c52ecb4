"""Write the measured figures of the documents from the raw outputs in ``results/``.

    python -m benchmarks.docs.tables [--check]

What lies between ``<!-- figures: NAME, written by benchmarks/docs/tables.py -->`` and ``<!-- end of figures -->`` is
replaced by what the macro of that name in ``tables.md.j2`` gives. --check only says which documents are not current.
"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2

from benchmarks.common import ROOT, parser, read, read_matrix

PAGES = ("README.md", "examples/README.md", "docs/method.md", "docs/questions.md", "docs/comparison.md",
         "docs/first-five.md", "docs/growing.md", "docs/fine-tuning.md")  # fmt: skip
_BLOCK = re.compile(
    r"(?P<start><!-- figures: (?P<name>[\w-]+), written by benchmarks/docs/tables\.py -->\n).*?"
    r"(?=<!-- end of figures -->)",
    re.DOTALL,
)
_FILTERS = {
    "f": lambda value, digits: f"{value:.{digits}f}",
    "share": lambda value, digits: f"{100 * value:.{digits}f}",
    "signed": lambda value, digits: f"{100 * value:+.{digits}f}",
    "thousands": lambda value: f"{value:,}",
    "by": lambda rows, key: {row[key]: row for row in rows},
}


def macros() -> dict[str, Any]:
    """What writes each table, by its name in the documents."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    methods = read("selection")["methods"]["summary"]
    rules: dict[str, dict[str, Any]] = {}
    for row in methods:  # of several permutations the first, which is the best of them
        rule = re.sub(r":.*|_\d$", "", row["method"])
        rules.setdefault(rule, {"rule": rule, **row})
    novel = read("containment")["novel datasets"]
    published = {name: part["summary"] for name, part in read("selection")["published"].items() if "summary" in part}
    accuracies = {name: {row["method"]: row["accuracy"] for row in rows} for name, rows in sorted(published.items())}
    environment.globals |= {
        "read": read,
        "cells": list(read_matrix().values()),
        "rules_of_choice": list(rules.values()),
        "leads": {name: found["trained"] - found["static"] for name, found in accuracies.items()},
        "few": sorted(
            (row for row in read("low_data")["summary"] if row["judged_by"] == "obtained"), key=lambda row: row["n"]
        ),
        "paper": max(row["f1"] for name, row in novel.items() if "asymmetric" in name),
        "ways_to_choose": ways_to_choose(rules),
    }
    module = environment.get_template("tables.md.j2").module
    names = ("measured", "rules", "activations", "probes", "few-images", "resolution", "labels", "difficulty",
             "scores-of-features", "fisher-libraries", "fine-tuned-picks", "common-sense",
             "answer", "experts", "cards", "outcome")  # fmt: skip
    return {name: getattr(module, name.replace("-", "_")) for name in names}


def ways_to_choose(rules: dict[str, dict[str, Any]]) -> list[tuple[str, int, float]]:
    """Ways to choose a checkpoint, how many it downloads, and the accuracy of its pick, best first.

    Scores of features need every candidate's; the metric needs none, and refinement k.
    """
    document = read("selection")
    tasks: dict[str, list[dict[str, Any]]] = {row["task"]: [] for row in document["methods"]["rows"]}
    for cell in read_matrix().values():
        tasks.get(cell["task"], []).append(cell)
    n = document["n_checkpoints"]
    found = [
        (key, n, fmean(max(cells, key=lambda cell: cell[key])["linear"] for cells in tasks.values()))
        for key in ("linear", "logme", "knn", "h_score")
    ]
    found += [("refine", row["k"], row["accuracy"]) for row in document["refine"]["rows"] if 0 < row["k"] < n]
    found += [(rule, 0, rules[rule]["accuracy"]) for rule in ("trained", "always")]
    return sorted(found, key=lambda row: -row[2])


def stale(*, mend: bool = False) -> list[str]:
    """Pages whose figures are not those of the raw outputs; written anew with `mend`."""
    found, tables = [], macros()
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        current = _BLOCK.sub(lambda match: f"{match['start']}\n{tables[match['name']]()}\n", text)
        if current != text:
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
