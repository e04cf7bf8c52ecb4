from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hf_task2vec.tasks.sampling import Draw, Unusable


def sample(labels: Sequence[int], size: int | None, seed: int = 0, broken: frozenset[int] = frozenset()):
    known = np.flatnonzero(np.asarray(labels) >= 0)
    draw = Draw(known, np.asarray(labels)[known], size, seed)
    filled = draw.fill(lambda rows: [Unusable(f"{r} broken") if r in broken else (r,) for r in rows])
    return filled.rows, filled.loaded, filled.skipped


def water_level(counts: Sequence[int], size: int) -> list[int]:
    """Plain oracle: pour one unit at a time into the classes that are lowest and not full."""
    quota = [0] * len(counts)
    for _ in range(min(size, sum(counts))):
        open_classes = [c for c in range(len(counts)) if quota[c] < counts[c]]
        quota[min(open_classes, key=lambda c: quota[c])] += 1
    return quota


label_lists = st.lists(st.integers(-1, 5), min_size=1, max_size=80)


@given(label_lists, st.integers(1, 100), st.integers(0, 2**32))
def test_every_prefix_is_water_filled(labels: list[int], size: int, seed: int) -> None:
    rows, loaded, skipped = sample(labels, size, seed)
    assert loaded == [(row,) for row in rows]
    assert not skipped
    assert len(set(rows)) == len(rows) == min(size, sum(label >= 0 for label in labels))
    counts = [labels.count(c) for c in range(6)]
    for length in range(len(rows) + 1):
        drawn = Counter(labels[row] for row in rows[:length])
        assert sorted(drawn[c] for c in range(6)) == sorted(water_level(counts, length))
        assert all(drawn[c] <= counts[c] for c in range(6))


@given(label_lists, st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_a_smaller_sample_begins_a_larger_one(labels: list[int], first: int, second: int, seed: int) -> None:
    small, large = sorted([first, second])
    assert sample(labels, large, seed)[0][:small] == sample(labels, small, seed)[0][:large]


@given(label_lists, st.integers(0, 99))
def test_none_takes_all_and_the_seed_decides(labels: list[int], seed: int) -> None:
    rows = sample(labels, None, seed)[0]
    assert sorted(rows) == [row for row, label in enumerate(labels) if label >= 0]
    assert rows == sample(labels, None, seed)[0]


def test_known_sample() -> None:
    """Pins the draws, which must not depend on the platform."""
    assert sample([0] * 10 + [1] * 10, 6, seed=7)[0] == [8, 10, 17, 0, 12, 9]


def test_label_sorted_data_are_not_cut_off() -> None:
    rows = np.array(sample([0] * 1000 + [1] * 1000, 100)[0])
    assert np.count_nonzero(rows >= 1000) == 50
    for part in (rows[rows < 1000], rows[rows >= 1000] - 1000):
        assert part.min() < 150, "rows of the whole class"
        assert part.max() > 850


def test_every_row_is_as_likely() -> None:
    drawn = Counter(row for seed in range(600) for row in sample([0] * 12 + [1] * 3, 6, seed)[0])
    assert min(drawn[row] for row in range(12)) > 100  # expected 150
    assert max(drawn[row] for row in range(12)) < 205
    assert all(drawn[row] == 600 for row in range(12, 15))


@given(label_lists, st.sets(st.integers(0, 79)), st.integers(1, 60), st.integers(0, 99))
def test_broken_rows_are_replaced_by_their_class(labels: list[int], bad: set[int], size: int, seed: int) -> None:
    broken = frozenset(row for row in bad if row < len(labels) and labels[row] >= 0)
    rows, _, skipped = sample(labels, size, seed, broken)
    usable = [row for row, label in enumerate(labels) if label >= 0 and row not in broken]
    assert len(set(rows)) == len(rows) == min(size, len(usable))
    assert set(rows) <= set(usable)
    assert set(skipped) <= broken
    assert all(image.reason == f"{row} broken" for row, image in skipped.items())
    # A class has fewer images than an unbroken sample would give it only if it has no more.
    without, drawn = Counter(labels[r] for r in sample(labels, size, seed)[0]), Counter(labels[r] for r in rows)
    for label in set(labels) - {-1}:
        left = sum(labels[row] == label for row in usable)
        assert drawn[label] >= min(without[label], left)


def test_all_broken() -> None:
    rows, loaded, skipped = sample([0, 1, 0, 1], 3, broken=frozenset(range(4)))
    assert rows == loaded == []
    assert sorted(skipped) == [0, 1, 2, 3]


def test_a_draw_can_be_filled_again() -> None:
    draw = Draw(np.arange(20), np.arange(20) % 2, 6, seed=0)
    first, again = (draw.fill(lambda rows: ["broken" if r < 9 else r for r in rows]) for _ in range(2))
    assert first == again
    assert len(first.rows) == 6
    assert len(draw.rows) == 6


label_sets = st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=40)


@given(label_sets, st.integers(1, 60), st.integers(0, 99))
def test_multi_label_draws_for_the_rarest_label(sets: list[set[int]], size: int, seed: int) -> None:
    pairs = [(row, label) for row, labels in enumerate(sets) for label in sorted(labels or {5})]
    rows, classes = (np.array(column) for column in zip(*pairs, strict=True))
    taken: list[int] = []
    counts: Counter[int] = Counter()
    for row, label in Draw(rows, classes, size, seed).slots:
        assert row not in taken
        assert label in (sets[row] or {5})
        left = {other for r, other in pairs if r not in taken}
        assert counts[label] == min(counts[other] for other in left)
        taken.append(row)
        counts.update(sets[row] or {5})
    assert len(taken) == min(size, len(sets))
    if len(taken) >= 6:  # as many rows as classes: a label seen once is there
        assert set(counts) == {label for _, label in pairs}
