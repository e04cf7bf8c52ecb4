"""Helpers of the command line's tests: run it in process, with modules of the library replaced."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hf_task2vec.cli import cli

# Variables that the command line sets for its own process; they get their old values back.
_VARIABLES = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")


def run(*arguments: str) -> Result:
    """Run the command line without a terminal."""
    return CliRunner(env=dict.fromkeys(_VARIABLES)).invoke(cli, arguments)


def stub(monkeypatch: pytest.MonkeyPatch, module: str, **names: Any) -> None:
    """Replace module `hf_task2vec.<module>` by one that holds `names` only."""
    replacement = ModuleType(f"hf_task2vec.{module}")
    vars(replacement).update(names)
    monkeypatch.setitem(sys.modules, replacement.__name__, replacement)
