"""The weekly workflow of GitHub, its own shell steps, run against the loopback Hub on a part of the shipped index."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_task2vec.zoo.index import ZooIndex
from hf_task2vec.zoo.schema import HUB_CARDS, CheckpointRow, TaskRow
from tests.evidence.test_harvest import classifiers, plant  # noqa: F401 (a fixture)
from tests.evidence.test_hub_tasks import pictures
from tests.support.cards import index, readme
from tests.support.hub import HubServer

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/harvest.yml").read_text(encoding="utf-8"))
JOB = WORKFLOW["jobs"]["harvest"]
PARTS = ("hf_task2vec", "benchmarks", "zoo_index", "pyproject.toml")
GH = '#!/bin/sh\nprintf "%s\\n" "$@" > "$CALLED"\n'


def a_part(zoo: ZooIndex) -> ZooIndex:
    """The linear probes of the shipped index, and what they name: small enough to be learned from in seconds."""
    scores = tuple(row for row in zoo.score_rows if row.source == "hf_task2vec_measured")
    tasks, ids = {row.task for row in scores}, {row.checkpoint for row in scores}
    rows = {
        **zoo.rows,
        "scores": scores,
        "tasks": tuple(row for row in zoo.rows["tasks"] if isinstance(row, TaskRow) and row.task in tasks),
        "checkpoints": tuple(r for r in zoo.rows["checkpoints"] if isinstance(r, CheckpointRow) and r.hub_id in ids),
    }
    table = zoo.embeddings.take([i for i, name in enumerate(zoo.embeddings.names) if name in tasks])
    return dataclasses.replace(zoo, rows=rows, embedded=table, path=None, _manifest=None)


def shell(text: str, folder: Path, **more: str) -> str:
    """Run a step as the runner does, after filling in what it fills in."""
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def filled(settings: dict[str, Any]) -> dict[str, str]:
    known = {"secrets.HF_TOKEN": "", "inputs.max || '20000'": "20000", "github.token": "gh-token"}
    return {name: re.sub(r"\$\{\{ (.*?) \}\}", lambda m: known[m[1]], value) for name, value in settings.items()}


@pytest.mark.slow
def test_the_steps_of_the_workflow(classifiers: HubServer, tmp_path: Path) -> None:  # noqa: F811
    checkout, bare, called = tmp_path / "checkout", tmp_path / "origin.git", tmp_path / "called"
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        checkout.mkdir(exist_ok=True)
        copy(ROOT / part, checkout / part)
    zoo = a_part(ZooIndex.load(checkout / "zoo_index"))
    zoo.save(checkout / "zoo_index")
    git = "git -c user.name=me -c user.email=me@localhost"
    shell(f"git init -q && git add . && {git} commit -qm start && git init -q --bare {bare}", checkout)
    shell(f"git remote add origin {bare}", checkout)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "gh").write_text(GH)
    (programs / "gh").chmod(0o755)

    bases = [row.hub_id for row in zoo.by_name(CheckpointRow).values() if not row.hub_id.startswith("local:")][:3]
    classifiers.create_dataset("org/leaves", pictures(license="cc-by-4.0"))
    for i, base in enumerate(bases):
        stated = index(0.9 + i / 100, type="org/leaves", name="Leaves")
        plant(classifiers, f"user/net{i}", readme(base_model=base, datasets=["org/leaves"], model_index=stated))

    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    runner = {"PATH": path, "PYTHONPATH": str(checkout), "GITHUB_RUN_ID": "7", "CALLED": str(called)}
    steps = [step for step in JOB["steps"] if "run" in step and not step["run"].startswith("pip install")]
    assert len(steps) == 4
    for step in steps:
        shell(step["run"], checkout, **runner, **filled(JOB["env"]), **filled(step.get("env", {})))

    harvested, judged = (json.loads((checkout / f"{name}.json").read_text()) for name in ("harvest", "grow"))
    assert (harvested["outcomes"], harvested["embedded"]) == (3, 1)
    assert judged["worse"] is False
    assert judged["new task"]["n"] > 20
    title, body = (called.read_text().splitlines()[i] for i in (3, 5))
    assert title.startswith("Outcomes stated on the Hub until 20")
    assert '"outcomes": 3' in (checkout / body).read_text()
    assert '"worse": false' in (checkout / body).read_text()
    shell(f"git clone -q -b harvest-7 {bare} pulled", tmp_path)
    changed = shell("git diff --name-only HEAD~1", tmp_path / "pulled").split()
    assert set(changed) >= {
        "zoo_index/scores.csv",
        "zoo_index/tasks.csv",
        "zoo_index/metric.json",
        "zoo_index/README.md",
    }
    assert all(name.startswith("zoo_index/") for name in changed)
    grown = ZooIndex.load(tmp_path / "pulled/zoo_index")
    assert {row.source_model for row in grown.score_rows if row.source == HUB_CARDS} == {
        f"user/net{i}" for i in range(3)
    }
    assert "leaves" in " ".join(grown.embeddings.names)
