"""Places for points of which only distances are known, and for the labels beside crowded points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_task2vec.plots.layout import LEAST_FOR_TSNE, euclidean, lay_out
from hf_task2vec.plots.places import anchor, place_labels


def test_few_points_of_the_plane_are_found_again() -> None:
    points = np.random.default_rng(2).normal(size=(8, 2))
    positions, method = lay_out(euclidean(points))
    assert method == "mds"
    np.testing.assert_allclose(euclidean(positions), euclidean(points), atol=2e-3)
    np.testing.assert_allclose(positions.mean(axis=0), 0.0, atol=1e-9)
    assert np.ptp(positions[:, 0]) > np.ptp(positions[:, 1])


def test_many_points_keep_their_neighbours() -> None:
    rng = np.random.default_rng(3)
    centres = np.eye(6) * 3
    points = np.repeat(centres, 5, axis=0) + 0.3 * rng.normal(size=(30, 6))
    distances = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    before = distances.copy()
    positions, method = lay_out(distances)
    assert method == "tsne"
    np.testing.assert_array_equal(distances, before)
    drawn = euclidean(positions) + np.diag(np.full(30, np.inf))
    assert (drawn.argmin(axis=1) // 5 == np.arange(30) // 5).all()
    np.testing.assert_array_equal(positions, lay_out(distances)[0])


@pytest.mark.parametrize("n", [2, 3, LEAST_FOR_TSNE - 1, LEAST_FOR_TSNE, 20])
def test_equal_tasks_are_no_trouble(n: int) -> None:
    distances = np.ones((n, n)) - np.eye(n)
    distances[0, 1] = distances[1, 0] = 0.0
    for matrix in (distances, np.zeros((n, n))):
        positions, _ = lay_out(matrix)
        assert positions.shape == (n, 2)
        assert np.isfinite(positions).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(20, 400))
def test_labels_cover_neither_points_nor_each_other(seed: int, n: int, side: float) -> None:
    rng = np.random.default_rng(seed)
    points = rng.random((n, 2)) * [side, side / 2]
    sizes = np.column_stack([rng.uniform(10, 60, n), np.full(n, 10.0)])
    wall = np.array([[0.0, 0.0, side / 4, side / 4]])
    centres = place_labels(points, sizes, (side, side / 2), np.full(n, 3.0), wall)
    placed = ~np.isnan(centres).any(axis=1)
    low, high = (centres - sizes / 2)[placed], (centres + sizes / 2)[placed]
    assert (low >= 0).all()
    assert (high <= [side, side / 2]).all()
    marks = np.concatenate([np.hstack([points - 3.0, points + 3.0]), wall])
    for k, (a, b) in enumerate(zip(low, high, strict=True)):
        others = np.concatenate([marks, np.delete(np.hstack([low, high]), k, axis=0)])
        overlap = (a < others[:, 2:] - 1e-9) & (others[:, :2] + 1e-9 < b)
        assert not overlap.all(axis=1).any()
    for point, centre, size in zip(points[placed], centres[placed], sizes[placed], strict=True):
        assert (np.abs(anchor(point, centre, size) - centre) <= size / 2 + 1e-9).all()


def test_a_lone_label_stands_beside_its_point() -> None:
    centre = place_labels(np.array([[50.0, 50.0]]), np.array([[30.0, 10.0]]), (100.0, 100.0), np.array([4.0]))[0]
    assert centre[1] == pytest.approx(50.0)
    assert 4 <= centre[0] - 15 - 50 < 8
    assert place_labels(np.empty((0, 2)), np.empty((0, 2)), (9.0, 9.0), np.empty(0)).shape == (0, 2)
