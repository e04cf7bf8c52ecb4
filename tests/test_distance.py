"""Distances between embeddings: properties, and values against formulas and scipy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import distance as scipy_distance
from synthetic import embedding

from hf_task2vec import distance
from hf_task2vec.distance import DEFAULT_DISTANCE, DISTANCES, RELATIVE_FLOOR, pairwise
from hf_task2vec.errors import EmbeddingError, ProbeMismatchError

SIZES = np.array([2, 3, 1])
N = int(SIZES.sum())
Array = np.ndarray
# What Fisher values are: float32, never negative, often exactly zero.
VALUES = hnp.arrays(np.float32, N, elements=st.just(0.0) | st.floats(2.0**-60, 2.0**20, width=32)).map(np.float64)
POSITIVE = hnp.arrays(np.float32, N, elements=st.floats(2.0**-10, 2.0**10, width=32)).map(np.float64)
SCALES = hnp.arrays(np.float64, len(SIZES), elements=st.floats(1e-6, 1e6))
FUNCTIONS: dict[str, Callable[[Array, Array, Array], float]] = distance._ARRAY_DISTANCES
SYMMETRIC = sorted(set(DISTANCES) - {"asymmetric", "kl"})
UPPER = {"log_correlation": 2.0, "cosine": 1.0, "symmetric": 1.0, "jensen_shannon": math.inf, "kl": math.inf}


@pytest.mark.parametrize("name", SYMMETRIC)
@given(a=VALUES, b=VALUES)
def test_symmetry(name: str, a: Array, b: Array) -> None:
    assert FUNCTIONS[name](a, b, SIZES) == pytest.approx(FUNCTIONS[name](b, a, SIZES), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", sorted(UPPER))
@given(a=VALUES, b=VALUES)
def test_range_and_identity(name: str, a: Array, b: Array) -> None:
    function = FUNCTIONS[name]
    assert 0.0 <= function(a, b, SIZES) <= UPPER[name] + 1e-12
    assert function(a, a, SIZES) == pytest.approx(0.0, abs=1e-12)


@given(a=VALUES, b=VALUES)
def test_asymmetric_lies_below_symmetric_by_at_most_alpha(a: Array, b: Array) -> None:
    gap = distance.symmetric(a, b) - distance.asymmetric(a, b, SIZES)
    assert -1e-12 <= gap <= distance.ALPHA + 1e-12
    assert distance.asymmetric(a, b, SIZES, alpha=0.0) == distance.symmetric(a, b)


@pytest.mark.parametrize("name", ["log_correlation", "kl", "jensen_shannon"])
@given(a=VALUES, b=VALUES, scale=SCALES)
def test_a_layers_scale_does_not_matter(name: str, a: Array, b: Array, scale: Array) -> None:
    scaled = FUNCTIONS[name](a * np.repeat(scale, SIZES), b, SIZES)
    assert scaled == pytest.approx(FUNCTIONS[name](a, b, SIZES), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["cosine", "symmetric"])
@given(a=POSITIVE, b=POSITIVE, scale=st.floats(1e-6, 1e6))
def test_common_scale_does_not_matter(name: str, a: Array, b: Array, scale: float) -> None:
    assert FUNCTIONS[name](a * scale, b * scale, SIZES) == pytest.approx(FUNCTIONS[name](a, b, SIZES), abs=1e-9)


@pytest.mark.parametrize("name", sorted(DISTANCES))
@given(a=VALUES, b=VALUES, order=st.permutations(range(3)))
def test_order_of_filters_within_a_layer_does_not_matter(name: str, a: Array, b: Array, order: list[int]) -> None:
    moved = np.array([1, 0, *(2 + i for i in order), 5])
    found = FUNCTIONS[name](a[moved], b[moved], SIZES)
    assert found == pytest.approx(FUNCTIONS[name](a, b, SIZES), rel=1e-9, abs=1e-12)


@given(a=POSITIVE, b=POSITIVE)
def test_values_against_scipy(a: Array, b: Array) -> None:
    assert distance.cosine(a, b) == pytest.approx(scipy_distance.cosine(a, b), abs=1e-12)
    total = a + b
    assert distance.symmetric(a, b) == pytest.approx(scipy_distance.cosine(a / total, b / total), abs=1e-12)
    per_layer = [np.log(x / np.repeat(np.add.reduceat(x, [0, 2, 5]) / SIZES, SIZES)) for x in (a, b)]
    if all(x.std() > 1e-6 for x in per_layer):
        expected = 1.0 - np.corrcoef(*per_layer)[0, 1]
        assert distance.log_correlation(a, b, SIZES) == pytest.approx(expected, abs=1e-9)


def test_kl_and_jensen_shannon_of_gaussians() -> None:
    """Per filter: zero-mean Gaussians whose precisions are the relative values, integrated numerically."""
    a, b = np.array([1.0, 3.0, 2.0, 2.0, 5.0, 1.0]), np.array([2.0, 2.0, 1.0, 4.0, 4.0, 9.0])
    p, q = (np.concatenate([x[:2] / x[:2].mean(), x[2:5] / x[2:5].mean(), [1.0]]) for x in (a, b))
    x = np.linspace(-60, 60, 400_001)

    def divergence(first: float, second: float) -> float:
        f, g = (np.sqrt(w / (2 * np.pi)) * np.exp(-0.5 * w * x**2) for w in (first, second))
        inside = f > 0
        ratio = 0.5 * np.log(first / second) - 0.5 * (first - second) * x[inside] ** 2
        return float(np.sum(f[inside] * ratio) * (x[1] - x[0]) + 0 * g.sum())

    expected = np.mean([divergence(*pair) for pair in zip(p, q, strict=True)])
    assert distance.kl(a, b, SIZES) == pytest.approx(expected, rel=1e-6)
    middle = [(s + t) / 2 for s, t in zip(p, q, strict=True)]
    halves = [divergence(s, m) + divergence(t, m) for s, t, m in zip(p, q, middle, strict=True)]
    assert distance.jensen_shannon(a, b, SIZES) == pytest.approx(np.mean(halves) / 2, rel=1e-6)


def test_asymmetric_prefers_the_more_complex_of_two_equally_near_sources() -> None:
    """Two sources as near to the target; one is farther from the trivial embedding."""
    target = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 4.0])
    flat, complex_ = np.array([1.0, 1, 1, 1, 1, 1]), np.array([1.0, 1, 1, 1, 4, 4])
    assert distance.symmetric(flat, target) == pytest.approx(distance.symmetric(complex_, target))
    assert distance.asymmetric(complex_, target, SIZES) < distance.asymmetric(flat, target, SIZES)
    t0 = distance.trivial_embedding(complex_, SIZES)
    assert t0.tolist() == [1, 1, 2, 2, 2, 4]
    expected = distance.symmetric(complex_, target) - 0.15 * distance.symmetric(complex_, t0)
    assert distance.asymmetric(complex_, target, SIZES) == pytest.approx(expected)


def test_relative_values() -> None:
    values = np.array([[1.0, 3.0, 0.0, 0.0, 0.0, 7.0], [0.0, 4.0, 1.0, 2.0, 3.0, 0.0]])
    relative = distance.relative_fisher(values, SIZES)
    assert relative.tolist() == [[0.5, 1.5, 1, 1, 1, 1], [RELATIVE_FLOOR, 2, 0.5, 1, 1.5, 1]]
    assert np.array_equal(distance.log_profile(values, SIZES), np.log(relative))


@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_layers_without_information(name: str) -> None:
    zero, one = np.zeros(N), np.array([0.0, 0, 1, 2, 3, 0])
    assert FUNCTIONS[name](zero, zero, SIZES) == 0.0
    assert math.isfinite(FUNCTIONS[name](zero, one, SIZES))
    assert FUNCTIONS[name](zero, one, SIZES) > 0.0
    assert math.isfinite(FUNCTIONS[name](one, zero, SIZES))


def test_rounding_errors_of_flat_layers_do_not_correlate() -> None:
    flat, peaked = np.full(N, 11.0), np.array([1.0, 2, 3, 4, 5, 6])
    assert distance.log_correlation(flat * 1e-6, np.zeros(N), SIZES) == 0.0
    assert distance.log_correlation(flat * 1e-6, peaked, SIZES) == 1.0


# ---------------------------------------------------------------------- of embeddings


def changed(**changes: Any) -> Any:
    return embedding(1, **changes)


@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_pairwise_is_each_distance(name: str) -> None:
    tasks = [embedding(seed) for seed in range(3)]
    matrix = pairwise(tasks, name)
    assert matrix.shape == (3, 3)
    for i, a in enumerate(tasks):
        for j, b in enumerate(tasks):
            assert matrix[i, j] == DISTANCES[name](a, b)
    assert (matrix == matrix.T).all() == (name in SYMMETRIC)


def test_default_and_small_cases() -> None:
    tasks = [embedding(0), embedding(1)]
    assert np.array_equal(pairwise(tasks), pairwise(tasks, DEFAULT_DISTANCE))
    assert pairwise([]).shape == (0, 0)
    assert pairwise(tasks[:1]).tolist() == [[pytest.approx(0.0)]]
    assert DISTANCES["kl"].__name__ == "kl"
    assert all(function.__doc__ for function in DISTANCES.values())


def test_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(EmbeddingError, match=r"distance 'euclid' is unknown; choose one of log_correlation, symmetric"):
        pairwise([], "euclid")


@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_other_probes_are_refused(name: str) -> None:
    a, other = embedding(0), changed(weights_hash="cd" * 32)
    message = (
        r"'task0' was embedded with probe 'org/tiny-probe' \(weights abababababab…\) and 'task1' with "
        r"'org/tiny-probe' \(weights cdcdcdcdcdcd…\); embed both with the same probe"
    )
    with pytest.raises(ProbeMismatchError, match=message):
        DISTANCES[name](a, other)
    with pytest.raises(ProbeMismatchError, match=message):
        pairwise([a, a, other], name)


def test_other_layers_are_refused() -> None:
    for other in (changed(layer_names=("0", "3")), changed(layer_sizes=np.array([16, 8]))):
        with pytest.raises(ProbeMismatchError, match=r"cover different layers of probe .*embed both again"):
            pairwise([embedding(0), other])
