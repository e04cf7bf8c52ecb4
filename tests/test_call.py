"""How a selection was called, said again as a command or as code, without its token."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from report_data import TOKEN, call

from hf_task2vec.cli.commands import select


def parsed(command: str) -> dict[str, Any]:
    """What our own command line understands of a command."""
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("hf-task2vec", "select")
    return select.make_context("select", words).params


ASKED = {
    "name": "de; rm -rf /",
    "split": "test",
    "image_column": "the image",
    "streaming": True,
    "max_samples": 64,
    "candidates": ["org/a", "author:timm params:<30M"],
    "max_params": 30e6,
    "max_gmacs": 4.5,
    "licenses": ("mit", "apache-2.0"),
    "library": "timm",
    "input_size": 224,
    "metric": "static",
    "seed": 3,
    "cache": False,
}


def test_the_command_is_what_was_called() -> None:
    made = call(**ASKED, token=TOKEN)
    command = made.command(refine=3)
    assert command is not None
    assert command.startswith("hf-task2vec select './my photos' --name 'de; rm -rf /' ")
    assert TOKEN not in command
    found = parsed(command)
    for name, value in ASKED.items():
        assert found[name] == (list(value) if isinstance(value, tuple) else value), name
    assert found["dataset"] == "./my photos"
    assert found["refine"] == 3
    python = made.python(refine=3)
    assert TOKEN not in python
    options = {k.arg: ast.literal_eval(k.value) for k in ast.parse(python).body[0].value.keywords}  # type: ignore[attr-defined]
    assert options == {**ASKED, "refine": 3}


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.floats(1e3, 1e12))
def test_any_name_survives_the_shell(dataset: str, most: float) -> None:
    command = call(dataset, max_params=most).command()
    assert command is not None
    found = parsed(command)
    assert found["dataset"] == dataset
    assert found["max_params"] == int(most)


def test_defaults_are_not_repeated() -> None:
    assert call("sklearn:digits").command() == "hf-task2vec select sklearn:digits"
    assert call("x", max_samples=None).command() is None
    assert call(Path("a/b"), index=Path("my index")).command() == "hf-task2vec select a/b --index 'my index'"
