"""The command line in process, with the library behind it replaced: options, forms of the answer, errors, help."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import httpx
import numpy as np
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from hf_task2vec import errors
from hf_task2vec.cli import cli
from hf_task2vec.cli.options import Quantity
from hf_task2vec.embedding.distance import DISTANCES, pairwise
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.metric import METRICS
from hf_task2vec.metric.observations import PROTOCOLS
from hf_task2vec.metric.task_space import KINDS
from hf_task2vec.zoo.index import ZooIndex
from tests.support.cli_stub import RANKING, FakeRanking, candidate, run, stub
from tests.support.doc_blocks import parse_only
from tests.support.synthetic import embedding, zoo


def stub_select(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Replace `select_backbone` by one that gives an answer, or raises an error."""

    def select_backbone(dataset: str, **options: Any) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    stub(monkeypatch, "selection", select_backbone=select_backbone)


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


# ------------------------------------------------------------------------------------------------------- the answer


def test_pipe_gets_tab_separated_values_and_the_notes(calls: list[dict[str, Any]]) -> None:
    result = run("select", "sklearn:digits")
    assert result.exit_code == 0
    read, heading, *rows = [line.split("\t") for line in result.stdout.split("\n\n")[0].splitlines()]
    assert read == [RANKING.read]
    assert heading == ["#", "checkpoint", "accuracy", "80 % interval", "params", "licence", "GMACs", "px"]
    assert [row[1] for row in rows] == [candidate.hub_id for candidate in RANKING]
    assert rows[1][2:4] == ["85.1", "75.1–93.1"]
    assert rows[2][4:] == ["?", "?", "?", "?"]
    assert result.stdout.endswith("\n\n3 candidates were ranked.\n")
    assert "warning: only 3 images have a label" in result.stderr


def test_measured_accuracies_get_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_select(monkeypatch, FakeRanking([candidate(1, "timm/a", 0.9, measured=0.923), candidate(2, "timm/b", 0.8)]))
    lines = [line.split("\t") for line in run("select", "x").stdout.splitlines()]
    assert [line[4] for line in lines[1:4]] == ["measured", "92.3", ""]


def test_json_is_one_document_and_nothing_else(calls: list[dict[str, Any]]) -> None:
    result = run("select", "sklearn:digits", "--json")
    assert json.loads(result.stdout) == RANKING.to_dict()
    assert "noise of another library" in result.stderr


def test_quiet_prints_hub_ids_only(calls: list[dict[str, Any]]) -> None:
    result = run("select", "sklearn:digits", "-q")
    assert result.stdout.split("\n") == [*(candidate.hub_id for candidate in RANKING), ""]
    assert "warning" not in result.stderr


def test_report_is_written_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Reported(FakeRanking):
        def report(self, path: Path, *, images: bool = True) -> Path:
            path.write_text(f"images={images}", encoding="utf-8")
            return path

    stub_select(monkeypatch, Reported(RANKING))
    page = tmp_path / "report.html"
    assert run("select", "x", "--report", str(page)).stdout.endswith(f"\n\nThe report is in {page}.\n")
    assert page.read_text(encoding="utf-8") == "images=True"
    result = run("select", "x", "--report", str(page), "--no-images", "--json")
    assert json.loads(result.stdout) == RANKING.to_dict()
    assert page.read_text(encoding="utf-8") == "images=False"


def test_a_report_that_fails_in_the_end_costs_no_ranking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Unwritable(FakeRanking):
        def report(self, path: Path, *, images: bool = True) -> Path:
            raise errors.SelectionError(f"the report cannot be written to {path}: No space left on device")

    stub_select(monkeypatch, Unwritable(RANKING))
    result = run("select", "x", "--report", str(tmp_path / "page.html"), "-q")
    assert result.exit_code == 8
    assert result.stdout.split() == [candidate.hub_id for candidate in RANKING]
    assert "error: the report cannot be written to" in result.stderr


def test_names_cannot_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = FakeRanking([candidate(1, "timm/a\x1b[2Jb", 0.9)])
    ranking.summary = ranking.read = "classes \x1b]0;title\x07 and \u202e"
    ranking.warnings = ("class \x1b[31mred\x9b",)
    stub_select(monkeypatch, ranking)
    result = run("select", "x")
    assert not set("\x1b\x07\x9b\u202e") & set(result.stdout + result.stderr)
    assert "\\x1b[2Jb" in result.stdout


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("pass label_column=… or a larger max_samples", "pass --label-column … or a larger --max-samples"),
        ("max_samples=1: at least 2; pass split='train'", "--max-samples 1: at least 2; pass --split 'train'"),
        ("the file has no column file_name=label", "the file has no column file_name=label"),
    ],
)
def test_messages_speak_of_options(monkeypatch: pytest.MonkeyPatch, said: str, expected: str) -> None:
    stub_select(monkeypatch, errors.TaskError(said))
    assert run("select", "x").stderr == f"error: {expected}\n"


def test_a_message_is_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_select(monkeypatch, errors.ColumnError("columns found: " + ", ".join(f"column{i}" for i in range(784))))
    assert len(run("select", "x").stderr) <= 410


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


# ------------------------------------------------------------------------------------------------------- the options


def commands(command: click.Command = cli, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield names, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, *names, name)


ALL = dict(commands())


# A value of each type of option: as typed, and as the library gets it.
VALUES: dict[str, tuple[str, Any]] = {
    "Quantity": ("30M", 30_000_000),
    "IntRange": ("7", 7),
    "CountOrAll": ("all", None),
    "IntParamType": ("7", 7),
    "FloatRange": ("0.5", 0.5),
    "FloatParamType": ("0.5", 0.5),
    "StringParamType": ("word", "word"),
    "Path": ("place", "place"),
}


def typed(options: list[click.Option]) -> tuple[list[str], dict[str, Any]]:
    """Return words that give each option a value, and the arguments they stand for."""
    words, expected = [], {}
    for option in options:
        words.append(option.opts[0])
        if option.is_flag:
            expected[option.name] = not option.opts[0].startswith("--no-")
        elif option.multiple:
            words += ["a,b", option.opts[0], "c"]
            expected[option.name] = ["a", "b", "c"]
        else:
            choices = getattr(option.type, "choices", None)
            word, expected[option.name] = (choices[-1],) * 2 if choices else VALUES[type(option.type).__name__]
            words.append(word)
    return words, expected


@pytest.mark.parametrize(
    ("command", "function", "others"),
    [
        ("select", "selection.select_backbone", {"report", "images", "index"}),
        ("embed", "tasks.Task.from_dataset", {"output", "probe", "device", "batch_size"}),
        ("push", "embedding.TaskEmbedding.push_to_hub", set()),
        ("pull", "hub.HubSession", {"output", "overwrite"}),
        ("search", "sharing.search_hub", {"near"}),
        ("index build", "evidence.build_index", {"base", "ray_address", "gpus_per_cell", "cpus_per_cell"}),
        ("index add-score", "evidence.add_score", set()),
    ],
)
def test_options_arrive_at_the_parameters_of_their_names(
    monkeypatch: pytest.MonkeyPatch, command: str, function: str, others: set[str]
) -> None:
    """What a command does not use itself reaches the library; what is not typed has the library's own default."""
    module, *path = function.split(".")
    holder = importlib.import_module(f"hf_task2vec.{module}")
    for name in path[:-1]:
        holder = getattr(holder, name)
    signature = inspect.signature(getattr(holder, path[-1]))
    calls: list[dict[str, Any]] = []

    def arrive(*args: Any, **options: Any) -> None:
        calls.append(signature.bind(*args, **options).arguments)
        raise errors.TaskError("this is far enough")

    monkeypatch.setattr(holder, path[-1], arrive)
    monkeypatch.setattr("hf_task2vec.cli.hub_commands._load", lambda path: embedding(0))
    names = command.split()
    parameters = ALL[tuple(names)].params
    places = ["a/b" for parameter in parameters if isinstance(parameter, click.Argument)]
    options = [p for p in parameters if isinstance(p, click.Option) and p.expose_value]
    everything = typed([p for p in options if p.required or p.name not in others])
    needed = typed([p for p in options if p.required])
    for words, _ in (everything, needed):
        result = run(*names, *places, *words)
        assert (result.exit_code, len(calls) > 0) == (3, True), result.output
    first, second = calls
    assert {name: value for name, value in first.items() if name in everything[1].keys() - others} == {
        name: value for name, value in everything[1].items() if name not in others
    }
    for name in (everything[1].keys() & second.keys()) - needed[1].keys():
        assert second[name] == signature.parameters[name].default, name


@pytest.mark.parametrize("arguments", ["--json index info", "index --json info", "index info --json"])
def test_common_options_stand_anywhere(arguments: str) -> None:
    assert json.loads(run(*arguments.split()).stdout)["counts"]["tasks"] > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--json select x -q", "--json and --quiet exclude each other"),
        ("select", "Missing argument 'DATASET'"),
        ("select x --max-params many", "'many' is not a positive number such as 30M, 1.2B or 5e6"),
        ("select x --max-params 0", "'0' is not a positive number"),
        ("select x --endpoint huggingface.co", "'huggingface.co' is no address such as https://"),
        ("select x --top-k 0", "0 is not in the range x>=1"),
        ("select x --no-images", "--no-images goes with --report"),
        ("distance a", "A distance needs two tasks or more"),
        ("distance a b --kind euclid", "'euclid' is not one of 'log_correlation', 'cosine'"),
        ("embed x", "Missing option '-o'"),
        ("choose x", "No such command 'choose'"),
    ],
)
def test_wrong_usage(calls: list[dict[str, Any]], arguments: str, message: str) -> None:
    result = run(*arguments.split())
    assert (result.exit_code, result.stdout, calls) == (2, "", [])
    assert message in result.stderr


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("30M", 30_000_000),
        ("1.2B", 1_200_000_000),
        ("5e6", 5_000_000),
        ("500k", 500_000),
        ("0.5 g", 500_000_000),
        ("8GB", 8_000_000_000),
    ],
)
def test_quantity(text: str, number: int) -> None:
    assert Quantity().convert(text, None, None) == number


@pytest.mark.parametrize("text", ["", "M", "30MM", "-1", "nan", "inf", "1e999", "3O", "0x10", "1,5M", "0.2"])
def test_quantity_refuses(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a positive number"):
        Quantity().convert(text, None, None)


# -------------------------------------------------------------------------------------------------- errors, messages


def code_of(error: type) -> int:
    """The exit code that the documentation promises for a class of errors."""
    kinds = {errors.TaskError: 3, errors.SelectionError: 6, errors.HubError: 5}
    return next((code for kind, code in kinds.items() if issubclass(error, kind)), 4)


KEPT = "finished downloads and measurements are kept, and nothing is half-written"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        *(
            (
                kind("columns found: a, b;\npass label_column=…"),
                code_of(kind),
                "error: columns found: a, b; pass --label-c",
            )
            for kind in vars(errors).values()
            if isinstance(kind, type)
        ),
        *((kind("no route"), 5, "error: no route") for kind in (ConnectionError, TimeoutError, httpx.ConnectError)),
        (ZeroDivisionError("oops"), 1, "error: unexpected ZeroDivisionError: oops (--debug shows the traceback)"),
        (KeyboardInterrupt(), 130, f"interrupted: {KEPT}"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, told: str) -> None:
    stub_select(monkeypatch, error)
    result = run("select", "x", "--json")
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(told)


@pytest.mark.parametrize("error", [errors.ColumnError("no image column"), ZeroDivisionError("oops")])
def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    stub_select(monkeypatch, error)
    result = run("--debug", "select", "x")
    assert "Traceback (most recent call last)" in result.stderr
    assert "in select_backbone" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(("flags", "shown"), [("", "W"), ("-q", ""), ("-v", "IW"), ("-v -v", "DIW")])
def test_verbosity(monkeypatch: pytest.MonkeyPatch, flags: str, shown: str) -> None:
    def select_backbone(dataset: str, **options: Any) -> FakeRanking:
        logger = logging.getLogger("hf_task2vec.tasks.task")
        for level, name in ((logging.DEBUG, "D"), (logging.INFO, "I"), (logging.WARNING, "W")):
            logger.log(level, "<%s>", name)
        return RANKING

    stub(monkeypatch, "selection", select_backbone=select_backbone)
    logger = logging.getLogger("hf_task2vec")
    before = (list(logger.handlers), logger.level)
    stderr = run("select", "x", *flags.split()).stderr
    assert "".join(name for name in "DIW" if f"<{name}>" in stderr) == shown
    assert (logger.handlers, logger.level) == before


# ------------------------------------------------------------------------------------------------ help and completion


@pytest.mark.parametrize("names", ALL, ids=" ".join)
def test_help(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    """It fits 80 columns, and its examples are understood by the real parser."""
    result = CliRunner().invoke(cli, [*names, "-h"], terminal_width=80, prog_name="hf-task2vec")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    if isinstance(ALL[names], click.Group):
        return
    codes = {int(line.split()[0]) for line in result.stdout.split("Exit codes:")[1].splitlines() if line.strip()}
    assert codes == {*range(9), 130}
    examples = result.stdout.split("Examples:\n")[1].split("\n\n")[0].replace("\\\n", " ").splitlines()
    runner, own = parse_only(monkeypatch), 0
    for example in examples:
        program, *words = shlex.split(example, comments=True)
        assert program == "hf-task2vec"
        parsed = runner.invoke(cli, words, prog_name="hf-task2vec")
        assert parsed.exit_code == 0, parsed.output
        own += tuple(words[: len(names)]) == names
    assert own, "no example of this very command"


@pytest.mark.parametrize("name", ["distance", "map"])
def test_tasks_in_examples_are_in_the_index(name: str) -> None:
    known = set(ZooIndex.load().tasks["task"])
    lines = [line for line in (ALL[(name,)].help or "").splitlines() if f"hf-task2vec {name} " in line]
    words = [word for line in lines for word in shlex.split(line)[2:] if word.isalnum()]
    assert set(words) - {"asymmetric"} <= known


def offered(*words: str) -> list[str]:
    """Return what Tab offers for the last of the words."""
    complete = ShellComplete(cli, {}, "hf-task2vec", "_HF_TASK2VEC_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


def test_completion() -> None:
    assert offered("dis") == ["distance"]
    assert offered("index", "v") == ["validate"]
    assert "--max-params" in offered("select", "org/data", "--max")
    assert offered("distance", "--kind", "asy") == ["asymmetric"]


@pytest.mark.parametrize(
    ("command", "option", "known"),
    [
        ("distance", "kind", DISTANCES),
        ("select", "metric", METRICS),
        ("select", "protocol", PROTOCOLS),
        ("select", "domain", KINDS),
        ("evaluate", "protocol", PROTOCOLS),
    ],
)
def test_names_that_are_offered_are_those_of_the_library(command: str, option: str, known: Collection[str]) -> None:
    (found,) = (parameter for parameter in ALL[(command,)].params if parameter.name == option)
    assert isinstance(found.type, click.Choice)
    assert set(found.type.choices) == set(known)


# -------------------------------------------------------------------------------------- distances, embeddings, indexes


@pytest.fixture
def three_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return the names of a saved embedding and of two tasks of an index in the current folder."""
    monkeypatch.chdir(tmp_path)
    zoo().save("zoo")
    embedding(9, task={"dataset": "mine"}).save("mine")
    return ["mine", "task0", "task1"]


def test_distances_of_folders_and_tasks_of_the_index(three_tasks: list[str]) -> None:
    table = ZooIndex.load("zoo").embeddings
    every = [TaskEmbedding.load("mine"), table["task0"], table["task1"]]
    document = json.loads(run("distance", *three_tasks, "--index", "zoo", "--kind", "asymmetric", "--json").stdout)
    assert (document["kind"], document["tasks"]) == ("asymmetric", three_tasks)
    np.testing.assert_allclose(document["distances"], pairwise(every, "asymmetric"), rtol=1e-6)

    quiet = run("distance", *three_tasks[:2], "--index", "zoo", "-q").stdout.splitlines()
    assert [line.split("\t")[:2] for line in quiet] == [["mine", "task0"], ["task0", "mine"]]
    assert float(quiet[0].split("\t")[2]) == pytest.approx(pairwise(every[:2])[0][1], rel=1e-4)
    lines = run("distance", *three_tasks, "--index", "zoo").stdout.splitlines()
    assert lines[0].split("\t") == ["from \\ to", *three_tasks]


def test_an_embedding_may_be_made_again(three_tasks: list[str]) -> None:
    assert Path("mine").is_file()
    assert run("embed", "./absent", "-o", "mine").exit_code == 3, "the dataset is what is wrong, not the file"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("task0 nowhere", "'nowhere' is neither a file nor a task of the index, which has: task0, task1"),
        ("task0 .", ". cannot be read"),
    ],
)
def test_distances_that_cannot_be(three_tasks: list[str], arguments: str, message: str) -> None:
    result = run("distance", *arguments.split(), "--index", "zoo")
    assert (result.exit_code, result.stdout) == (4, "")
    assert message in result.stderr


def test_index_validate_lists_the_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = ["scores.csv: row 2", "tasks.csv: row 5"]
    index = SimpleNamespace(validate=lambda: problems, info=lambda: {"counts": {"tasks": 2}})
    stub(monkeypatch, "zoo", ZooIndex=SimpleNamespace(load=lambda path: index))
    result = run("index", "validate")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.splitlines()[:2] == problems
    assert result.stderr.splitlines()[2].startswith("error: 2 of the index's facts are wrong")
    problems.clear()
    result = run("index", "validate")
    assert (result.exit_code, result.stdout) == (0, "valid\tTrue\ncounts.tasks\t2\n")
