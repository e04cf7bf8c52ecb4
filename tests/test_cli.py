"""The command line in process, with the library behind it replaced: options, output modes, errors, exit codes."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from cli_stub import run, stub
from hypothesis import given
from hypothesis import strategies as st

from hf_task2vec import __version__, errors
from hf_task2vec.cli.console import plain_table, ranking_report
from hf_task2vec.cli.options import Quantity


class FakeRanking(list):
    """What the command line uses of a `Ranking`."""

    warnings = ("only 3 images have a label",)
    summary = "3 candidates were ranked."
    score_name = "accuracy"

    def to_dict(self) -> dict[str, Any]:
        return {"dataset": "sklearn:digits", "candidates": [vars(candidate) for candidate in self]}


def candidate(rank: int, hub_id: str, score: float, **facts: Any) -> SimpleNamespace:
    prediction = {"rank": rank, "hub_id": hub_id, "score": score, "low": score - 0.1, "high": score + 0.08}
    defaults = {"measured": None, "params_m": 5.0, "gmacs": 0.4, "input_px": 224, "license": "apache-2.0"}
    return SimpleNamespace(**{**prediction, **defaults, **facts})


RANKING = FakeRanking(
    [
        candidate(1, "timm/a.in1k", 0.91),
        candidate(2, "timm/a_much_longer_architecture_name.augreg_in21k_ft_in1k", 0.8512345),
        candidate(3, "org/no-facts", 0.5, params_m=None, gmacs=None, input_px=None, license=None),
    ]
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace `select_backbone` by one that notes its arguments."""
    calls: list[dict[str, Any]] = []

    def select_backbone(dataset: str, **options: Any) -> FakeRanking:
        calls.append({"dataset": dataset, **options})
        print("noise of another library")
        return RANKING

    stub(monkeypatch, "selection", select_backbone=select_backbone)
    return calls


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def select_backbone(dataset: str, **options: Any) -> None:
        raise error

    stub(monkeypatch, "selection", select_backbone=select_backbone)


def test_piped_table_is_aligned_and_cuts_nothing(calls: list[dict[str, Any]]) -> None:
    result = run("select", "sklearn:digits")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert " ".join(lines[0].split()) == "# checkpoint accuracy 80 % interval params GMACs px licence"
    assert [line.split()[1] for line in lines[1:4]] == [candidate.hub_id for candidate in RANKING]
    assert lines[2].split()[2:4] == ["85.1", "75.1–93.1"]
    assert lines[3].split()[4:] == ["?", "?", "?", "?"]
    assert len({line.index(".", 60) for line in lines[1:4]}) == 1
    assert lines[4:] == ["", "3 candidates were ranked."]
    assert "warning: only 3 images have a label" in result.stderr


def test_measured_accuracies_get_a_column() -> None:
    refined = FakeRanking([candidate(1, "timm/a", 0.9, measured=0.923), candidate(2, "timm/b", 0.8)])
    report = ranking_report(refined)
    position = [column.title for column in report.columns].index("measured")
    assert [row[position] for row in report.rows] == ["92.3", ""]
    *_, first, second = plain_table(report.columns, report.rows).splitlines()
    cells = [re.split(" {2,}", line.strip()) for line in (first, second)]
    assert [row[position] for row in cells] == ["92.3", "-"], "no cell is empty, or columns could not be told apart"


def test_json_is_one_document_and_nothing_else(calls: list[dict[str, Any]]) -> None:
    result = run("select", "sklearn:digits", "--json")
    assert json.loads(result.stdout) == RANKING.to_dict()
    assert "noise of another library" in result.stderr


def test_quiet_prints_hub_ids_only(calls: list[dict[str, Any]]) -> None:
    result = run("select", "sklearn:digits", "-q")
    assert result.stdout.split("\n") == [*(candidate.hub_id for candidate in RANKING), ""]
    assert "warning" not in result.stderr


def test_every_option_of_select_arrives(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    # fmt: off
    given_options = [
        "--split", "test", "--name", "small", "--revision", "main", "--image-column", "photo", "--label-column", "kind",
        "--streaming", "--max-samples", "64", "--probe", "timm/resnet18.a1_in1k", "--index", str(tmp_path),
        "--candidates", "timm/a,timm/b", "--candidates", "org/c", "--max-params", "30M", "--max-gmacs", "5",
        "--license", "apache-2.0", "--license", "mit, bsd", "--library", "timm", "--input-size", "224", "--top-k", "5",
        "--refine", "3", "--refine-bytes", "2G", "--refine-seconds", "90", "--metric", "static", "--seed", "7",
        "--device", "cpu", "--token", "hf_x", "--batch-size", "16", "--no-cache",
    ]
    # fmt: on
    assert run("select", "org/data", *given_options).exit_code == 0
    assert calls == [
        {
            "dataset": "org/data", "split": "test", "name": "small", "revision": "main", "image_column": "photo",
            "label_column": "kind", "streaming": True, "max_samples": 64, "probe": "timm/resnet18.a1_in1k",
            "index": str(tmp_path), "candidates": ["timm/a", "timm/b", "org/c"], "max_params": 30_000_000,
            "max_gmacs": 5.0, "licenses": ["apache-2.0", "mit", "bsd"], "library": "timm", "input_size": 224,
            "top_k": 5, "refine": 3, "refine_bytes": 2_000_000_000, "refine_seconds": 90.0, "metric": "static",
            "seed": 7, "device": "cpu", "token": "hf_x", "batch_size": 16, "cache": False,
            "progress": False,
        }
    ]  # fmt: skip


def test_what_is_not_given_is_left_to_the_library(calls: list[dict[str, Any]]) -> None:
    run("select", "org/data")
    defaults = {"streaming": False, "max_samples": 256, "top_k": 10, "refine": 0, "seed": 0, "cache": True}
    assert calls == [{"dataset": "org/data", "progress": False, **defaults}]


@pytest.mark.parametrize("arguments", [("--json", "select", "x"), ("select", "--json", "x"), ("select", "x", "--json")])
def test_common_options_stand_anywhere(calls: list[dict[str, Any]], arguments: tuple[str, ...]) -> None:
    assert json.loads(run(*arguments).stdout)["dataset"] == "sklearn:digits"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "select", "x", "-q"], "--json and --quiet exclude each other"),
        (["select"], "Missing argument 'DATASET'"),
        (["select", "x", "--max-params", "many"], "'many' is not a positive number such as 30M, 1.2B or 5e6"),
        (["select", "x", "--max-params", "0"], "'0' is not a positive number"),
        (["select", "x", "--endpoint", "huggingface.co"], "'huggingface.co' is no address such as https://"),
        (["select", "x", "--top-k", "0"], "0 is not in the range x>=1"),
        (["select", "x", "--no-images"], "--no-images goes with --report"),
        (["distance", "a"], "A distance needs two tasks or more"),
        (["embed", "x"], "Missing option '-o'"),
        (["choose", "x"], "No such command 'choose'"),
    ],
)
def test_wrong_usage(calls: list[dict[str, Any]], arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout, calls) == (2, "", [])
    assert message in result.stderr


@pytest.mark.parametrize(
    ("text", "number"),
    [("30M", 30_000_000), ("1.2B", 1_200_000_000), ("5e6", 5_000_000), ("500k", 500_000), ("0.5 g", 500_000_000)],
)
def test_quantity(text: str, number: int) -> None:
    assert Quantity().convert(text, None, None) == number


@given(st.integers(1, 2**53))
def test_quantity_without_unit_is_itself(number: int) -> None:
    assert Quantity().convert(str(number), None, None) == number


@given(st.sampled_from(["", "M", "30MM", "-1", "nan", "inf", "1e999", "3O", "0x10", "1,5M", "0.2"]))
def test_quantity_refuses(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a positive number"):
        Quantity().convert(text, None, None)


EXIT_CODES = {
    "Task2VecError": 4, "TaskError": 3, "DatasetNotFoundError": 3, "ColumnError": 3, "LabelError": 3,
    "ImageDecodeError": 3, "ProbeError": 4, "UnsupportedLayerError": 4, "FisherError": 4, "EmbeddingError": 4,
    "ProbeMismatchError": 4, "ZooIndexError": 4, "SchemaVersionError": 4, "MetricError": 4, "SelectionError": 6,
    "HubError": 5, "HubUnavailableError": 5, "HubAccessError": 5, "HubNotFoundError": 5, "HubConflictError": 5,
    "HubCorruptError": 5, "DistributedError": 4, "EvaluationError": 4,
}  # fmt: skip


def test_every_error_has_an_exit_code() -> None:
    assert {name for name, value in vars(errors).items() if isinstance(value, type)} == set(EXIT_CODES)


@pytest.mark.parametrize("name", EXIT_CODES)
def test_user_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fail_with(monkeypatch, getattr(errors, name)("columns found: a, b;\npass label_column=…"))
    result = run("select", "x", "--json")
    assert (result.exit_code, result.stdout) == (EXIT_CODES[name], "")
    assert result.stderr == "error: columns found: a, b; pass label_column=…\n"


@pytest.mark.parametrize("error", [ConnectionError("no route"), TimeoutError("no route")])
def test_network_errors(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fail_with(monkeypatch, error)
    result = run("select", "x")
    assert (result.exit_code, result.stderr) == (5, "error: no route\n")


def test_errors_of_the_hub_client_are_network_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import httpx

    fail_with(monkeypatch, httpx.ConnectError("refused"))
    assert run("select", "x").exit_code == 5


def test_unexpected_error_names_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ZeroDivisionError("division by zero"))
    result = run("select", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: unexpected ZeroDivisionError: division by zero (--debug shows the traceback)\n"


@pytest.mark.parametrize("error", [errors.ColumnError("no image column"), ZeroDivisionError("oops")])
def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fail_with(monkeypatch, error)
    result = run("--debug", "select", "x")
    assert "Traceback (most recent call last)" in result.stderr
    assert "in select_backbone" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    result = run("select", "x")
    kept = "downloads and finished steps are kept; started again, the same command goes on where it was"
    assert (result.exit_code, result.stderr) == (130, f"interrupted (starting): {kept}\n")
    assert run("select", "x", "--no-cache").stderr.endswith(": with --no-cache, only what was downloaded is kept\n")


@pytest.mark.parametrize(
    ("flags", "shown"), [([], ["W"]), (["-q"], []), (["-v"], ["I", "W"]), (["-v", "-v"], ["D", "I", "W"])]
)
def test_verbosity(monkeypatch: pytest.MonkeyPatch, flags: list[str], shown: list[str]) -> None:
    def select_backbone(dataset: str, **options: Any) -> FakeRanking:
        logger = logging.getLogger("hf_task2vec.task")
        for level, name in ((logging.DEBUG, "D"), (logging.INFO, "I"), (logging.WARNING, "W")):
            logger.log(level, "<%s>", name)
        return RANKING

    stub(monkeypatch, "selection", select_backbone=select_backbone)
    before = list(logging.getLogger("hf_task2vec").handlers)
    stderr = run("select", "x", *flags).stderr
    assert [name for name in "DIW" if f"<{name}>" in stderr] == shown
    assert logging.getLogger("hf_task2vec").handlers == before


def test_help_documents_exit_codes() -> None:
    for arguments in (
        ["--help"],
        ["select", "-h"],
        ["embed", "-h"],
        ["distance", "-h"],
        ["evaluate", "-h"],
        ["index", "info", "-h"],
    ):
        result = run(*arguments)
        assert result.exit_code == 0
        documented = result.stdout.split("Exit codes:")[1].split("\n")
        codes = {int(line.split()[0]) for line in documented if line.strip()}
        assert codes >= {0, 1, 2, 130, *EXIT_CODES.values()}


def test_version() -> None:
    assert __version__ in run("--version").stdout


# ------------------------------------------------------------------------------------------------------- the report


def test_report_is_written_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Reported(FakeRanking):
        def report(self, path: Path, *, images: bool = True) -> Path:
            path.write_text(f"images={images}", encoding="utf-8")
            return path

    stub(monkeypatch, "selection", select_backbone=lambda dataset, **options: Reported(RANKING))
    page = tmp_path / "report.html"
    result = run("select", "x", "--report", str(page), "--json")
    assert json.loads(result.stdout) == RANKING.to_dict()
    assert result.stderr.splitlines()[-1] == f"report: {page}"
    assert page.read_text(encoding="utf-8") == "images=True"
    result = run("select", "x", "--report", str(page), "--no-images", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    assert page.read_text(encoding="utf-8") == "images=False"


@pytest.mark.parametrize(
    ("path", "message"),
    [("nowhere/report.html", "there is no folder '{}/nowhere'; make it first."), ("", "is a directory")],
)
def test_report_that_cannot_be_written_is_told_before_the_work(
    calls: list[dict[str, Any]], tmp_path: Path, path: str, message: str
) -> None:
    result = run("select", "x", "--report", str(tmp_path / path))
    assert (result.exit_code, calls) == (2, [])
    assert message.format(tmp_path) in " ".join(result.stderr.split())
