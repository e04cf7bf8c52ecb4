"""What the scripts share: where things lie, and how a raw output is read and written."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SHARED = ROOT.parent / "shared"
TASKS = SHARED / "tasks"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A command line that is described by the script's docstring."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def task_names() -> list[str]:
    """Names of the shared tasks, in the order of their manifest."""
    return [row["name"] for row in json.loads((TASKS / "MANIFEST.json").read_text(encoding="utf-8"))]


def read(name: str) -> Any:
    """Return a raw output; an empty one if there is none yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(name: str, document: Any) -> None:
    """Write a raw output."""
    from hf_task2vec.files import write_json

    write_json(RESULTS / f"{name}.json", document)


def read_matrix(folder: Path = RESULTS) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows of a measured matrix, by task and checkpoint; none if there is no matrix yet."""
    texts, counts = ("task", "checkpoint"), ("n", "n_train", "n_test", "dim")
    if not (folder / "matrix.csv").exists():
        return {}
    with (folder / "matrix.csv").open(encoding="utf-8", newline="") as handle:
        return {
            (row["task"], row["checkpoint"]): {
                name: value if name in texts else int(value) if name in counts else float(value)
                for name, value in row.items()
            }
            for row in csv.DictReader(handle)
        }


def records(frame: Any) -> Any:
    """Return the rows of a table, ready for JSON."""
    return json.loads(frame.to_json(orient="records", double_precision=5))
