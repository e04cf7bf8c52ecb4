"""Outcomes as rows of an index: which are comparable, and which tell nothing."""

from __future__ import annotations

from typing import Any

import pytest

from hf_task2vec.evidence.cards import Outcome
from hf_task2vec.evidence.outcomes import Added, add_outcomes
from hf_task2vec.zoo.index import ZooIndex
from hf_task2vec.zoo.schema import HUB_CARDS, ScoreRow, TaskRow
from tests.support.synthetic import zoo


@pytest.fixture(scope="module")
def base() -> ZooIndex:
    tasks = [{"task": name, "title": name, "domain": "other", "images_from": (name,)} for name in ("food101", "dogs")]
    return zoo().add_tasks(tasks)


def outcome(repository: str = "ann/net", **facts: Any) -> Outcome:
    return Outcome(**{"repository": repository, "base": "org/mid", "dataset": "org/leaves", "value": 0.8, **facts})


def rows(added: Added) -> dict[str, ScoreRow]:
    return {str(row.source_model): row for row in added.index.score_rows if row.source == HUB_CARDS}


def groups(added: Added) -> set[frozenset[str]]:
    """Repositories that the metric compares with each other."""
    found = rows(added)
    key = {name: (row.task, row.split, row.metric, row.protocol) for name, row in found.items()}
    return {frozenset(name for name in key if key[name] == one) for one in key.values()}


def test_of_a_series_the_best_of_each_base_counts(base: ZooIndex) -> None:
    tried = [("org/mid", 0.3), ("org/mid", 0.9), ("org/small", 0.7), ("org/small", 0.2)]
    runs = [
        outcome(f"ann/run{i}", base=hub_id, value=value, learning_rate=10.0**-i, address=f"https://x/{i}")
        for i, (hub_id, value) in enumerate(tried)
    ]
    added = add_outcomes(base, runs)
    assert rows(added).keys() == {"ann/run1", "ann/run2"}
    assert rows(added)["ann/run1"].address == "https://x/1"
    assert added.skipped == {"another run of a series": 2}
    assert added.index.validate() == []
    again = add_outcomes(added.index, runs)
    assert (again.rows, again.tasks, len(again.index.score_rows)) == (0, (), len(added.index.score_rows))

    better = add_outcomes(
        added.index, [outcome("ann/run9", value=0.95), outcome("ann/run8", base="org/small", value=0.1)]
    )
    assert rows(better).keys() == {"ann/run9", "ann/run2"}
    worse = add_outcomes(better.index, [outcome("ann/run9", value=0.5)])  # its card has changed
    assert {name: row.score for name, row in rows(worse).items()} == {"ann/run9": 0.5, "ann/run2": 0.7}


def test_an_author_with_several_bases_is_compared_with_nobody_else(base: ZooIndex) -> None:
    added = add_outcomes(base, [
        outcome("ann/a"), outcome("ann/b", base="org/small"), outcome("bob/a", value=0.81),
        outcome("cy/a", base="org/hf"),
        outcome("cy/f1", base="org/hf", metric="f1"), outcome("dan/a", method="adapter", value=0.82),
        outcome("dan/b", dataset="org/other"),
    ])  # fmt: skip
    assert groups(added) == {
        frozenset({"ann/a", "ann/b"}), frozenset({"bob/a", "cy/a"}), frozenset({"cy/f1"}), frozenset({"dan/a"}),
        frozenset({"dan/b"}),
    }  # fmt: skip


def test_data_that_only_a_name_tells_are_their_authors_own(base: ZooIndex) -> None:
    named = {"dataset": "flower", "dataset_from": "name"}
    added = add_outcomes(base, [
        outcome("ann/a", **named), outcome("ann/b", base="org/small", **named), outcome("bob/a", **named, value=0.7)
    ])  # fmt: skip
    task = added.index.by_name(TaskRow)["ann_flower"]
    assert task.flags == ("named_by_card", "named_by_repository")
    assert groups(added) == {frozenset({"ann/a", "ann/b"})}
    assert list(added.skipped) == ["nothing to compare with: only the repository names its data"]
    later = add_outcomes(added.index, [outcome("bob/a", **named), outcome("bob/b", base="org/small", **named)])
    assert later.tasks == ("bob_flower",)


def test_the_same_outcomes_again_change_nothing(base: ZooIndex) -> None:
    """Also where a card calls its data what names of repositories call other data."""
    said = [
        outcome("ann/a", dataset="flower"), outcome("bob/b", dataset="flower", base="org/small"),
        outcome("cy/c", dataset="flower", dataset_from="name"),
        outcome("cy/d", dataset="flower", dataset_from="name", base="org/small"),
        outcome("dan/e", dataset="dan/flower"), outcome("eve/f", dataset="ethz/food101"),
    ]  # fmt: skip
    once = add_outcomes(base, said)
    again = add_outcomes(once.index, said)
    assert (again.rows, again.tasks, again.skipped) == (0, (), once.skipped)
    assert again.index.rows == once.index.rows
    assert {row.task for row in rows(once).values()} == {"flower", "cy_flower", "dan_flower", "food101"}


@pytest.mark.parametrize(
    ("dataset", "config", "task"),
    [
        ("food101", None, "food101"),
        ("ethz/food101", "default", "food101"),
        ("Food-101", None, "food101"),
        ("stanford-dogs", None, "dogs"),
        ("somebody/dogs", None, "somebody_dogs"),  # anybody's dogs
        ("medleaf-v2", "food101", "food101"),
        ("medleaf-v2", "twigs", "medleaf-v2_twigs"),
        ("AI-Lab-Makerere/beans", None, "beans"),
    ],
)
def test_tasks_are_known_by_several_names(base: ZooIndex, dataset: str, config: str | None, task: str) -> None:
    (row,) = rows(add_outcomes(base, [outcome(dataset=dataset, config=config)])).values()
    assert row.task == task


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"n_test": 12}, "a tiny test set"),
        ({"value": 1.0, "split": "train"}, "a perfect score on a training split"),
        ({"method": "multitask"}, "trained for several datasets"),
        ({"base": "org/unheard-of"}, "a base that the index does not know"),
        ({"dataset": "eurosat", "dataset_from": "name", "value": 0.9712}, "a name left over from a notebook"),
        ({"dataset": "eurosat", "dataset_from": "name", "value": 0.97123456789}, "a name left over from a notebook"),
    ],
)
def test_what_tells_nothing(base: ZooIndex, facts: dict[str, Any], reason: str) -> None:
    added = add_outcomes(base, [outcome(**facts)])
    assert (rows(added), added.skipped) == ({}, {reason: 1})


def test_a_name_of_a_notebook_that_fits_the_data(base: ZooIndex) -> None:
    named = {"dataset": "eurosat", "dataset_from": "name"}
    added = add_outcomes(
        base, [outcome(value=2622 / 2700, **named), outcome("ann/b", base="org/hf", value=2611 / 2700, **named)]
    )
    assert len(rows(added)) == 2


def test_a_word_of_a_name_may_tell_the_task(base: ZooIndex) -> None:
    named = {"dataset": "lesion_food101_ah", "dataset_from": "name"}
    assert {row.task for row in rows(add_outcomes(base, [outcome(**named)])).values()} == {"food101"}


def test_copies_of_cards_count_once(base: ZooIndex) -> None:
    how = {"learning_rate": 1e-4, "epochs": 3.0, "value": 0.9123}
    added = add_outcomes(base, [
        outcome("ann/leaf-net"), outcome("bob/leaf-net"), outcome("cy/a", **how), outcome("dan/b", **how),
        outcome("eve/own", value=0.8),
    ])  # fmt: skip
    assert rows(added).keys() == {"ann/leaf-net", "cy/a", "eve/own"}
    assert added.skipped == {"a copy of another card": 2}
