"""Files for contributors and machines: the citation, issue forms, workflows, hooks."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import ROOT

import hf_task2vec

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="Python 3.10 has no TOML reader")

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return settings


# ---------------------------------------------------------------------- citation


def test_citation(project: dict[str, Any]) -> None:
    citation = load(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)  # all that the format requires
    assert citation["title"] == "hf_task2vec"
    assert citation["version"] == hf_task2vec.__version__
    assert citation["license"] == project["project"]["license"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in project["project"]["authors"]
    ]
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["url"].endswith("1902.03545")
    assert paper["authors"][0]["family-names"] == "Achille"


# ---------------------------------------------------------------------- workflows


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == "read-all"
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert workflow[True]  # YAML 1.1 reads the key `on` as true
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] > 0
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]), step["uses"]
        if step.get("uses", "").startswith("actions/setup-python"):
            assert step["with"]["cache"] == "pip"
            assert (ROOT / step["with"]["cache-dependency-path"]).is_file()


def test_the_test_workflow_is_ci_run_on_three_versions(project: dict[str, Any]) -> None:
    workflow = load(GITHUB / "workflows" / "tests.yml")
    (job,) = workflow["jobs"].values()
    versions = job["strategy"]["matrix"]["python"]
    assert len(versions) == 3
    assert all(isinstance(version, str) for version in versions)  # 3.10 as a number is 3.1
    assert project["project"]["requires-python"] == f">={versions[0]}"
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["project"]["classifiers"]))
    assert set(versions) <= set(named or versions)
    (run,) = (step for step in steps(workflow) if step.get("run") == ".ci/run")
    assert run["env"]["PYTHON"] == "python"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    assert any("apt-get install" in step.get("run", "") and "chromium" in step["run"] for step in steps(workflow))


def test_extras_of_the_workflows_are_declared(project: dict[str, Any]) -> None:
    declared = set(project["project"]["optional-dependencies"])
    commands = "\n".join(step.get("run", "") for path in WORKFLOWS for step in steps(load(path)))
    asked = {extra for found in re.findall(r"\.\[([\w,]+)\]", commands) for extra in found.split(",")}
    assert asked
    assert asked <= declared
    assert "sphinx-build -W --keep-going -n" in commands
    assert "pre-commit run --all-files" in commands


# ---------------------------------------------------------------------- forms and hooks


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms(path: Path) -> None:
    form = load(path)
    assert {"name", "description", "body"} <= set(form)
    identifiers = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(identifiers) == len(set(identifiers)) >= 2
    for field in form["body"]:
        assert field["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert field["attributes"]["value" if field["type"] == "markdown" else "label"]
        if field["type"] in ("dropdown", "checkboxes"):
            assert field["attributes"]["options"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_what_forms_there_are() -> None:
    assert {path.stem for path in FORMS} == {"bug", "measurement", "question"}
    assert "CHANGELOG.md" in (GITHUB / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")


def test_hooks_run_what_the_project_declares(project: dict[str, Any]) -> None:
    hooks = [hook for repo in load(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    programs = {hook["entry"].split()[0] for hook in hooks}
    assert {"ruff", "mypy", "lint-imports", "codespell"} <= programs
    assert {hook["language"] for hook in hooks} == {"system"}
    needed = {"lint-imports": "import-linter"}
    declared = {re.match(r"[\w-]+", name)[0] for name in project["project"]["optional-dependencies"]["dev"]}  # type: ignore[index]
    assert {needed.get(program, program) for program in programs - {"python"}} <= declared
    for hook in hooks:
        if hook["entry"].startswith("python "):
            script = hook["entry"].split()[1]
            assert (ROOT / script).is_file()


def test_every_benchmark_is_in_their_list() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[`(\w+\.py)`\]", text, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "benchmarks").glob("*.py"))
