"""The documentation does what it says: every block runs, links lead somewhere, and figures are those measured."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_task2vec.cli.commands import cli
from tests.support.architectures import TRANSFORMERS_CASES, files_of, save_timm
from tests.support.doc_blocks import (
    PAGES,
    ROOT,
    Block,
    arguments,
    bash,
    blocks,
    check_python,
    execute,
    lines,
    parse_only,
    shell,
)
from tests.support.hub import HubServer
from tests.support.pictures import TRAIN, parquet
from tests.support.synthetic import dataset, image_folder

#: Pages whose blocks run in order in one folder (`prepare` says what lies there) and one set of Python names.
RUN = ("tutorial", "own-probe", "own-index", "several-processes", "private-hub", "own-cases")
#: Pages whose commands run as processes of their own, because of what they set or start.
RUN_SLOWLY = ("index", "offline", "several-processes", "label-types")
#: Pages with tests of their own.
ELSEWHERE = ("README.md", "CONTRIBUTING.md", "zoo_index/README.md")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(cache))


def folders_of_images(folder: Path) -> None:
    """Make the folders of images that the pages name."""
    for seed, name in enumerate(("photos", "textures", "datasets/flowers", "datasets/textures", "datasets/parts")):
        image_folder(folder / name, 12 + 12 * (name == "photos"), seed=seed, size=(48, 40))


def prepare(hub: HubServer, folder: Path) -> Callable[[str], None]:
    """Lay out what the pages take for granted; return what puts a checkpoint on the Hub."""
    folders_of_images(folder)
    hub.create_dataset("my-org/my-dataset", {TRAIN: parquet(dataset(24))})
    save_timm(folder / "saved" / "timm")
    small = files_of(folder / "saved" / "timm")
    vit = files_of(TRANSFORMERS_CASES["vit"](folder / "saved" / "vit"))
    known = {"facebook/dinov2-small": vit}
    done: set[str] = set()

    def publish(hub_id: str) -> None:
        if hub_id not in done:
            hub.create_model(hub_id, known.get(hub_id, small))
            done.add(hub_id)

    for hub_id in ("timm/resnet18.a1_in1k", "timm/resnet26.bt_in1k", "my-org/our-backbone", *known):
        publish(hub_id)
    return publish


def write_file(block: Block, folder: Path) -> None:
    (folder / block.mark.removeprefix("file: ")).write_text(block.code, encoding="utf-8")


@pytest.mark.parametrize("name", RUN)
def test_page(hub: HubServer, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    publish = prepare(hub, tmp_path)
    names: dict[str, Any] = {}
    found = blocks(f"docs/{name}.md", "bash", "python", "text")
    for block in found:
        if block.mark.startswith("file: "):
            write_file(block, tmp_path)
        elif block.language == "bash" and not block.mark:
            shell(block, tmp_path)
        elif block.language == "python" and not block.mark:
            if "refine" in block.code or ".load(" in block.code:
                for candidate in names.get("ranking", ()):
                    publish(candidate.hub_id)
            execute(block, names)
    CHECKS.get(name, lambda names, output: None)(names, capsys.readouterr().out)


def _tutorial(names: dict[str, Any], output: str) -> None:
    assert names["ranking"].best.params_m <= 30
    assert sum(candidate.measured is not None for candidate in names["ranking"]) >= 1
    assert "accuracy on held-out images:" in output
    assert json.loads(Path("ranking.json").read_text(encoding="utf-8"))["candidates"]


def _own_index(names: dict[str, Any], output: str) -> None:
    assert output.rstrip().endswith("[]")
    assert {"photos", "textures"} <= set(names["index"].tasks["task"])
    assert set(names["index"].scores["source"]) > {"hf_task2vec_measured"}


def _private_hub(names: dict[str, Any], output: str) -> None:
    assert re.search(r"^[0-9a-f]{40}$", output, re.MULTILINE)


CHECKS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "tutorial": _tutorial,
    "own-index": _own_index,
    "private-hub": _private_hub,
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RUN_SLOWLY)
def test_page_in_processes(hub: HubServer, tmp_path: Path, name: str) -> None:
    if name != "label-types":  # it makes its own folder of images
        prepare(hub, tmp_path)
    ran = [bash(block.code, tmp_path) for block in blocks(f"docs/{name}.md", "bash") if block.runs]
    assert ran


def test_every_page_with_blocks_is_run() -> None:
    """A new page cannot be forgotten."""
    run = {f"docs/{name}.md" for name in (*RUN, *RUN_SLOWLY)} | set(ELSEWHERE)
    waiting = [page for page in PAGES if page not in run and any(b.runs for b in blocks(page, "bash", "python"))]
    assert not waiting, f"add to RUN in this file: {', '.join(waiting)}"


@pytest.mark.parametrize("page", PAGES)
def test_blocks_that_do_not_run_say_why_and_are_understood(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = parse_only(monkeypatch)
    for block in blocks(page, "bash", "python"):
        if not block.runs and block.mark not in ("main-command", "test-command"):
            assert re.fullmatch(r"not run(?: by tests)?: \w.*", block.mark), f"{block.place}: {block.mark}"
        if block.language == "python":
            check_python(block)
            continue
        for words, line in lines(block):
            given = arguments(words)
            if given is not None:
                result = runner.invoke(cli, given, prog_name="hf-task2vec")
                assert result.exit_code == 0, f"{block.place}: {line}\n{result.output}"


# ---------------------------------------------------------------------- README and other files at their own place


def test_python_of_the_readme(hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_timm(tmp_path / "checkpoint")
    names: dict[str, Any] = {}
    for block in blocks("README.md", "python"):
        if "ranking.best.load" in block.code:
            hub.create_model(names["ranking"].best.hub_id, files_of(tmp_path / "checkpoint"))
        execute(block, names)
    output = capsys.readouterr().out
    ranking = names["ranking"]
    assert "checkpoints ranked for 'sklearn:digits'; the best:" in output
    assert f"{ranking.best.hub_id}: predicted accuracy" in output
    assert all(candidate.params_m <= 30 for candidate in ranking)
    assert list(names["table"]["hub_id"]) == [candidate.hub_id for candidate in ranking]
    assert names["transform"](names["digits"].images[0]).shape == (3, 64, 64)
    assert sum(p.requires_grad for p in names["model"].parameters()) > 0
    assert (tmp_path / "digits-embedding").is_file()


def test_python_of_the_index_card() -> None:
    (block,) = blocks("zoo_index/README.md", "python")
    names: dict[str, Any] = {}
    execute(block, names)
    assert len(names["small"])


@pytest.mark.slow
@pytest.mark.timeout(1200)  # each command is a process that imports PyTorch
def test_shell_of_the_readme(hub: HubServer, tmp_path: Path) -> None:
    folders_of_images(tmp_path)
    (scores,) = [block for block in blocks("docs/own-cases.md", "text") if block.mark.startswith("file: ")]
    write_file(scores, tmp_path)
    hub.create_dataset("my-org/my-dataset", {TRAIN: parquet(dataset(24))})
    save_timm(tmp_path / "checkpoint")
    (block,) = [block for block in blocks("README.md", "bash") if not block.mark]
    outputs = {}
    for words, line in lines(block):
        if "--refine" in words or "finetune" in words:
            limit = "--max-params 100M --library transformers" if "finetune" in words else ""
            ranked = json.loads(bash(f"hf-task2vec select ./photos {limit} --top-k 300 --json", tmp_path))
            for found in ranked["candidates"]:
                hub.create_model(found["hub_id"], files_of(tmp_path / "checkpoint"))
        outputs[line.partition("#")[0].strip()] = bash(line, tmp_path)
    refined = outputs["hf-task2vec select ./photos --refine 3"]
    assert "3 candidates measured on the sample" in refined
    assert (tmp_path / "photos-embedding").is_file()
    assert "trashnet" in outputs["hf-task2vec distance photos-embedding trashnet cifar10"]
    limited = outputs["hf-task2vec select ./photos --max-params 30M --license apache-2.0"].splitlines()
    rows = [line for line in limited if line.partition("\t")[0].isdecimal()]
    assert len(rows) == 10
    assert all("\tapache-2.0\t" in row for row in rows)


@pytest.mark.slow
def test_shell_of_contributing(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "zoo_index", tmp_path / "zoo_index")
    (block,) = [block for block in blocks("CONTRIBUTING.md", "bash") if not block.mark]
    assert "True" in bash(block.code, tmp_path)


# ---------------------------------------------------------------------- what the text says


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), f"{page} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page} links to {target}"


def test_names_of_the_documentation_are_those_of_the_package() -> None:
    import hf_task2vec

    public = set(hf_task2vec.__all__)
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/index.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == public - {"__version__"}
    reference = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    prefix = r"(?:hf_task2vec\.(?:embedding\.distance\.)?)?"
    described = set(re.findall(rf"^\.\. (?:auto\w+|py:data):: {prefix}(\w+)$", reference, re.MULTILINE))
    assert described == public | {"errors"}


def test_modules_named_in_the_method_exist() -> None:
    text = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(modules) > 5
    assert [module for module in modules if not any((ROOT / at / module).is_file() for at in ("hf_task2vec", ""))] == []


def test_measured_figures_are_those_of_the_raw_outputs() -> None:
    from benchmarks.docs.tables import PAGES as WITH_FIGURES
    from benchmarks.docs.tables import macros, stale

    assert not stale(), "run: python -m benchmarks.docs.tables"
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in WITH_FIGURES]
    assert {name for text in texts for name in re.findall(r"<!-- figures: ([\w-]+),", text)} == set(macros())


@pytest.mark.parametrize(
    "name", ["tutorial", "questions", "comparison", "method", "own-index", "own-cases", "own-probe"]
)
def test_no_measured_figure_is_typed_by_hand(name: str) -> None:
    """Shares and points stand in generated blocks only; what a word like "80 % interval" names is no figure."""
    text = (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    text = re.sub(r"<!-- figures: .*?<!-- end of figures -->|^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    typed = re.findall(r".{20}(?<!near )\b\d[\d.,]* ?(?:%|points|times)(?! intervals?).{0,20}", text)
    assert not typed


def test_the_picture_of_the_rooms_is_drawn_from_the_imports() -> None:
    pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    from benchmarks.docs.architecture import PICTURE, draw, rooms

    assert PICTURE.read_text(encoding="utf-8") == draw(rooms()), "run python -m benchmarks.docs.architecture"
