"""Helpers of the command line's tests: run it in process, with functions of the library replaced, and an answer."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hf_task2vec.cli import cli

# Variables that the command line sets for its own process; they get their old values back.
_VARIABLES = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")


def run(*arguments: str) -> Result:
    """Run the command line without a terminal."""
    return CliRunner(env=dict.fromkeys(_VARIABLES)).invoke(cli, arguments, prog_name="hf-task2vec")


def stub(monkeypatch: pytest.MonkeyPatch, module: str, **names: Any) -> None:
    """Replace module `hf_task2vec.<module>` by one that holds `names` only."""
    replacement = ModuleType(f"hf_task2vec.{module}")
    vars(replacement).update(names)
    monkeypatch.setitem(sys.modules, replacement.__name__, replacement)


class FakeRanking(list):
    """What the command line uses of a `Ranking`."""

    warnings = ("only 3 images have a label",)
    summary = "3 candidates were ranked."
    score_name = "accuracy"
    read = "3 of 3 images (seed 0), 2 classes (cat, dog), column 'label'"

    budgets = ()

    @property
    def n_ranked(self) -> int:
        return len(self)

    def shortlist(self) -> list[SimpleNamespace]:
        return []

    def folded(self) -> list[tuple[Any, int]]:
        return [(candidate, 0) for candidate in self]

    def to_dict(self) -> dict[str, Any]:
        return {"dataset": "sklearn:digits", "read": self.read, "candidates": [vars(candidate) for candidate in self]}


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
