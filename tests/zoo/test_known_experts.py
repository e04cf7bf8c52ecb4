"""Which fine-tuned checkpoints an index, or a card, tells of."""

from __future__ import annotations

from typing import Any

import pytest

from hf_task2vec.zoo.experts import Expert, expert_of_card, experts_of
from tests.support.synthetic import with_experts, zoo


def test_the_repositories_behind_scores_of_cards() -> None:
    index = with_experts(
        zoo(), ("me/a", "org/mid", "task0"), ("me/a", "org/mid", "task1"), ("me/b", "org/small", "task2")
    )
    assert experts_of(index) == {
        "me/a": Expert("me/a", "org/mid", ("task0", "task1")),
        "me/b": Expert("me/b", "org/small", ("task2",)),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": "lora"},
        {"checkpoint_match": "likely"},
        {"source_model": "org/huge"},  # a checkpoint with evidence of its own
        {"source_model": None},
    ],
)
def test_what_is_no_checkpoint_or_has_nothing_to_inherit(changes: dict[str, Any]) -> None:
    assert experts_of(with_experts(zoo(), ("me/a", "org/mid", "task0"), **changes)) == {}


@pytest.mark.parametrize(
    ("card", "trained_on"),
    [
        ({"base_model": "org/mid", "datasets": ["org/a", "b"]}, ("org/a", "b")),
        ({"base_model": ["org/mid"], "datasets": "org/a", "base_model_relation": "finetune"}, ("org/a",)),
        ({"base_model": ["org/mid", "org/small"], "datasets": "org/a"}, None),
        ({"base_model": "org/mid", "datasets": "org/a", "base_model_relation": "adapter"}, None),
        ({"base_model": "org/mid"}, None),
        ({"base_model": {"x": 1}, "datasets": [3, None]}, None),
    ],
)
def test_cards(card: dict[str, Any], trained_on: tuple[str, ...] | None) -> None:
    assert expert_of_card("me/a", card) == (trained_on and Expert("me/a", "org/mid", trained_on))
