"""The notebook in `examples/`: it holds what it gives, without traces of a machine, and gives it again offline."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nbformat import NotebookNode

PATH = Path(__file__).resolve().parents[2] / "examples" / "quickstart.ipynb"
# Said by tqdm where ipywidgets is not installed.
_WIDGETS = re.compile(r"[^\n]*TqdmWarning: IProgress not found[^\n]*\n[^\n]*\n")


@pytest.fixture(scope="module")
def notebook() -> NotebookNode:
    import nbformat

    found = nbformat.read(PATH, as_version=4)
    nbformat.validate(found)
    return found


def code_cells(notebook: NotebookNode) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cell: Any) -> str:
    """What a cell printed and gave, as plain text."""
    parts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return _WIDGETS.sub("", "".join(parts))


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"(?<![\w.])-?\d+\.\d+(?![\w.])", text)]


def test_stored_outputs_are_whole_and_clean(notebook: NotebookNode) -> None:
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run from top to bottom"
    for cell in cells:
        assert not cell.metadata
        assert all(output.output_type in ("execute_result", "stream") for output in cell.outputs)
        assert all(output.get("name", "stdout") == "stdout" for output in cell.outputs), "no warnings"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    source = PATH.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|tmp|Users|opt|work)/|[A-Z]:\\\\", source), "no path of a machine"
    assert "<caption>To try" in source, "the ranking is shown as a table"
    assert len(source) < 100_000


def test_links_lead_somewhere(notebook: NotebookNode) -> None:
    links = [link for cell in notebook.cells for link in re.findall(r"\]\(([^)#]+)[^)]*\)", cell.source)]
    assert links
    for link in links:
        assert (PATH.parent / link).is_file(), link


@pytest.mark.slow
@pytest.mark.timeout(400)
# Of Jupyter itself: the machine's folders, and a kernel that listens on loopback.
@pytest.mark.filterwarnings("default::DeprecationWarning", "default::ResourceWarning", "default::FutureWarning")
def test_the_notebook_gives_the_same_again(
    notebook: NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    again = copy.deepcopy(notebook)
    for cell in code_cells(again):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(again, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"], "nothing is left in the working folder"
    for before, after in zip(code_cells(notebook), code_cells(again), strict=True):
        old, new = text_of(before), text_of(after)
        assert bool(old) == bool(new), f"{before.source}\n{new}"
        # Names of checkpoints and tasks: the first ones may change places where scores are all but equal.
        ids = [set(re.findall(r"\b[\w-]+/[\w.-]{6,}", text)) for text in (old, new)]
        assert len(ids[0] & ids[1]) >= 0.6 * len(ids[0]), f"{before.source}\n{new}"
        assert numbers(new)[:3] == pytest.approx(numbers(old)[:3], abs=2.0), f"{before.source}\n{new}"
    distances = next(cell for cell in code_cells(again) if "pairwise" in cell.source)
    row = numbers(next(line for line in text_of(distances).splitlines() if line.startswith("digits")))
    assert row[0] == 0
    assert 0 < row[2] < row[3] < min(row[1], row[4]), "as the text below the table says"
    assert text_of(code_cells(again)[-1]).rstrip().endswith("(True, 'sklearn:digits', 10.0)")
