"""Facts that stand in more than one file of the repository agree: version, licence, Python versions, extras."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import yaml

import hf_task2vec
from tests.support.doc_blocks import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="Python 3.10 has no TOML reader")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return settings


def test_citation(project: dict[str, Any]) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # all that the format requires
    assert (citation["version"], citation["license"]) == (hf_task2vec.__version__, project["license"])


def test_workflows(project: dict[str, Any]) -> None:
    paths = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    workflows = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}
    assert all(workflow["permissions"] == "read-all" for workflow in workflows.values())
    (job,) = workflows["tests"]["jobs"].values()
    versions = job["strategy"]["matrix"]["python"]
    assert all(isinstance(version, str) for version in versions)  # 3.10 as a number is 3.1
    assert project["requires-python"] == f">={versions[0]}"
    assert {f"Programming Language :: Python :: {version}" for version in versions} <= set(project["classifiers"])
    steps = [step for workflow in workflows.values() for job in workflow["jobs"].values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    asked = {extra for found in re.findall(r"\.\[([\w,]+)\]", commands) for extra in found.split(",")}
    assert asked
    assert asked <= set(project["optional-dependencies"])


def test_every_benchmark_is_in_their_list() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[`\w+\.py`\]\(([\w/]+\.py)\): ", text, re.MULTILINE)
    folder = ROOT / "benchmarks"
    scripts = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")} - {"__init__.py"}
    assert sorted(listed) == sorted(scripts)
