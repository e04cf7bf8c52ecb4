"""Limits on candidates and on the second stage: what meets them, and what cannot be a limit."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from hf_task2vec.errors import SelectionError
from hf_task2vec.selection.limits import Budget, Constraints
from hf_task2vec.zoo.index import ZooIndex
from tests.support.synthetic import CHECKPOINTS, TINY, UNSCORED, zoo


@pytest.fixture(scope="module")
def zoo_index() -> ZooIndex:
    return zoo()


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({}, {*CHECKPOINTS, UNSCORED} - {"local:secret"}),  # which is on no Hub
        ({"max_params": 25e6}, {"org/mid", "org/hf", "org/small", TINY}),
        ({"max_gmacs": 0.4}, {"org/small", TINY}),
        ({"device_memory": 16 * 25e6}, {"org/mid", "org/hf", "org/small", TINY}),  # weights, gradients, moments
        ({"latency": 20.0}, {"org/small"}),  # 50 images a second and more
        ({"licenses": ["Apache-2.0", "mit"]}, {"org/mid", "org/hf", "org/small", TINY}),
        ({"library": "transformers"}, {*CHECKPOINTS, UNSCORED} - {"local:secret"}),  # timm's through its wrapper
        ({"library": "timm"}, {*CHECKPOINTS, UNSCORED} - {"local:secret", "org/hf"}),
        ({"input_size": 384}, {"org/huge"}),
        ({"candidates": [UNSCORED, "local:secret"]}, {UNSCORED}),
        ({"max_params": 25e6, "licenses": ("mit",), "library": "timm"}, {"org/mid"}),
    ],
)
def test_only_what_meets_every_limit_is_left(zoo_index: ZooIndex, limits: dict[str, Any], kept: set[str]) -> None:
    found = Constraints(**limits).eligible(zoo_index)
    assert set(found["hub_id"]) == kept
    assert found.index.tolist() == list(range(len(kept)))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"max_params": 999_999, "licenses": ("apache-2.0",)},
            (
                r"meets the limits \(max_params=999999, licenses=\('apache-2.0',\)\); left out: 5 more than 999,999 "
                r"parameters, 2 number of parameters unknown, 1 weights are on no Hub; loosen a limit \(the "
                "licences it knows most of: mit, "
            ),
        ),
        ({"max_gmacs": 1e-3}, "max_gmacs=0.001.*more than 0.001 GMACs.*GMACs unknown"),
        ({"licenses": ["wtfpl"]}, "licence not accepted.*licence unknown"),
        ({"device_memory": 1e3}, "Adam's moments take more than 1,000 bytes.*number of parameters unknown"),
        ({"latency": 1e-3}, "5 time for an image unknown, 2 more than 0.001 ms an image"),
        ({"library": "keras"}, "library is not keras"),
        ({"input_size": 17}, "native image size is not 17 px.*native image size unknown"),
        ({"candidates": ["local:secret"]}, "1 weights are on no Hub"),
        ({"candidates": ["org/none"]}, "1 not in the index"),
    ],
)
def test_what_was_left_out_is_counted_once_each(zoo_index: ZooIndex, limits: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        Constraints(**limits).eligible(zoo_index)


def test_unknown_candidates_are_said(zoo_index: ZooIndex, caplog: pytest.LogCaptureFixture) -> None:
    asked = Constraints(candidates=("org/none", "org/mid", "org/gone"))
    assert asked.eligible(zoo_index)["hub_id"].tolist() == ["org/mid"]
    assert "not in the index, so not ranked: org/gone, org/none" in caplog.text


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_params": 0}, "max_params=0 leaves nothing; give a positive number or None"),
        ({"max_gmacs": -1.0}, "max_gmacs=-1.0 leaves nothing"),
        ({"max_params": float("nan")}, "max_params=nan leaves nothing"),
        ({"input_size": 0}, "input_size=0 leaves nothing"),
        ({"max_params": "30M"}, "max_params='30M' is no number; give a number such as 30e6, or None for no limit"),
        ({"licenses": "mit"}, r"licenses takes a list of strings, found the string 'mit'; pass \['mit'\]"),
        ({"licenses": []}, "licenses is an empty list, which leaves nothing; pass None for no limit"),
        ({"licenses": 5}, "licenses takes a list of strings, found 5"),
        ({"candidates": [None]}, "candidates takes a list of strings, found None"),
        ({"max_bytes": 0}, "refine's max_bytes=0 leaves nothing; give a positive number or None"),
        ({"max_seconds": float("nan")}, "refine's max_seconds=nan leaves nothing"),
        ({"max_bytes": "2G"}, "refine's max_bytes='2G' is no number; give a number such as 30e6, or None for no limit"),
    ],
)
def test_unusable_limits(limits: dict[str, Any], message: str) -> None:
    kind = Budget if limits.keys() & {"max_bytes", "max_seconds"} else Constraints
    with pytest.raises(SelectionError, match=message):
        kind(**limits)


def test_any_kind_of_number_and_of_list() -> None:
    limits = Constraints(max_params=np.float64(30e6), max_gmacs=Fraction(1, 2), input_size=np.int64(224))
    assert limits.max_params == 30e6
    assert Constraints(candidates=(x for x in "ab")).candidates == ("a", "b")  # type: ignore[arg-type]
    assert hash(Constraints(licenses=["mit"])) == hash(Constraints(licenses=("mit",)))  # type: ignore[arg-type]
