"""Distances between embeddings: properties, and values against formulas and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import distance as scipy_distance

from hf_task2vec.embedding import distance
from hf_task2vec.embedding.distance import DISTANCES, RELATIVE_FLOOR, pairwise
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.errors import EmbeddingError, ProbeMismatchError
from tests.support.synthetic import embedding

SIZES = np.array([2, 3, 1])
N = int(SIZES.sum())
Array = np.ndarray
# What Fisher values are: float32, never negative, often exactly zero.
VALUES = hnp.arrays(np.float32, N, elements=st.just(0.0) | st.floats(2.0**-60, 2.0**20, width=32)).map(np.float64)
POSITIVE = hnp.arrays(np.float32, N, elements=st.floats(2.0**-10, 2.0**10, width=32)).map(np.float64)
SCALES = hnp.arrays(np.float64, len(SIZES), elements=st.floats(1e-6, 1e6))
SYMMETRIC = sorted(set(DISTANCES) - {"asymmetric"})


def of(name: str, a: Array, b: Array) -> float:
    return float(DISTANCES[name](a[None], b[None], SIZES)[0, 0])


@pytest.mark.parametrize("name", SYMMETRIC)
@given(a=VALUES, b=VALUES)
def test_symmetry_range_and_identity(name: str, a: Array, b: Array) -> None:
    assert of(name, a, b) == pytest.approx(of(name, b, a), rel=1e-9, abs=1e-12)
    assert 0.0 <= of(name, a, b) <= {"log_correlation": 2.0}.get(name, 1.0) + 1e-12
    assert of(name, a, a) == pytest.approx(0.0, abs=1e-12)


@given(a=VALUES, b=VALUES, scale=SCALES)
def test_a_layers_scale_does_not_matter_to_the_default(a: Array, b: Array, scale: Array) -> None:
    scaled = of("log_correlation", a * np.repeat(scale, SIZES), b)
    assert scaled == pytest.approx(of("log_correlation", a, b), rel=1e-6, abs=1e-9)
    assert of("cosine", a * scale[0], b * scale[0]) == pytest.approx(of("cosine", a, b), abs=1e-9)


@pytest.mark.parametrize("name", sorted(DISTANCES))
@given(a=VALUES, b=VALUES, order=st.permutations(range(3)))
def test_order_of_filters_within_a_layer_does_not_matter(name: str, a: Array, b: Array, order: list[int]) -> None:
    moved = np.array([1, 0, *(2 + i for i in order), 5])
    assert of(name, a[moved], b[moved]) == pytest.approx(of(name, a, b), rel=1e-9, abs=1e-12)


@given(a=POSITIVE, b=POSITIVE)
def test_values_by_their_formulas(a: Array, b: Array) -> None:
    assert of("cosine", a, b) == pytest.approx(scipy_distance.cosine(a, b), abs=1e-12)
    total = a + b
    assert of("symmetric", a, b) == pytest.approx(scipy_distance.cosine(a / total, b / total), abs=1e-12)
    per_layer = [np.log(x / np.repeat(np.add.reduceat(x, [0, 2, 5]) / SIZES, SIZES)) for x in (a, b)]
    if all(x.std() > 1e-6 for x in per_layer):
        expected = 1.0 - np.corrcoef(*per_layer)[0, 1]
        assert of("log_correlation", a, b) == pytest.approx(expected, abs=1e-9)


def test_asymmetric_prefers_the_more_complex_of_two_equally_near_sources() -> None:
    """Two sources as near to the target; one is farther from the trivial embedding."""
    target = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 4.0])
    flat, complex_ = np.array([1.0, 1, 1, 1, 1, 1]), np.array([1.0, 1, 1, 1, 4, 4])
    assert of("symmetric", flat, target) == pytest.approx(of("symmetric", complex_, target))
    assert of("asymmetric", complex_, target) < of("asymmetric", flat, target)
    t0 = distance.trivial_embedding(complex_, SIZES)
    assert t0.tolist() == [1, 1, 2, 2, 2, 4]
    expected = of("symmetric", complex_, target) - 0.15 * of("symmetric", complex_, t0)
    assert of("asymmetric", complex_, target) == pytest.approx(expected)


def test_relative_values() -> None:
    values = np.array([[1.0, 3.0, 0.0, 0.0, 0.0, 7.0], [0.0, 4.0, 1.0, 2.0, 3.0, 0.0]])
    relative = distance.relative_fisher(values, SIZES)
    assert relative.tolist() == [[0.5, 1.5, 1, 1, 1, 1], [RELATIVE_FLOOR, 2, 0.5, 1, 1.5, 1]]
    np.testing.assert_allclose(distance.log_profile(values, SIZES), np.log(relative))


@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_layers_without_information(name: str) -> None:
    zero, one = np.zeros(N), np.array([0.0, 0, 1, 2, 3, 0])
    assert of(name, zero, zero) == 0.0
    assert math.isfinite(of(name, zero, one))
    assert of(name, zero, one) > 0.0
    assert math.isfinite(of(name, one, zero))


def test_rounding_errors_of_flat_layers_do_not_correlate() -> None:
    flat, peaked = np.full(N, 11.0), np.array([1.0, 2, 3, 4, 5, 6])
    assert of("log_correlation", flat * 1e-6, np.zeros(N)) == 0.0
    assert of("log_correlation", flat * 1e-6, peaked) == 1.0


# ---------------------------------------------------------------------- of embeddings


@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_pairwise_is_each_distance(name: str) -> None:
    tasks = [embedding(seed) for seed in range(3)]
    matrix = pairwise(tasks, name)
    alone = [[pairwise(a, name, to=b)[0, 0] for b in tasks] for a in tasks]
    np.testing.assert_allclose(matrix, alone, atol=1e-12)
    np.testing.assert_allclose(pairwise(TaskEmbedding.stack(tasks), name), matrix)
    np.testing.assert_allclose(pairwise(tasks[0], name, to=tasks[1:]), matrix[:1, 1:])


def test_small_cases() -> None:
    assert pairwise([embedding(0)]).tolist() == [[pytest.approx(0.0, abs=1e-12)]]
    with pytest.raises(EmbeddingError, match="give at least one"):
        pairwise([])
    with pytest.raises(EmbeddingError, match=r"distance 'euclid' is unknown; choose one of log_correlation, symmetric"):
        pairwise([], "euclid")


def test_other_probes_and_layers_are_refused() -> None:
    message = (
        r"'task0' was embedded with probe 'org/tiny-probe' \(weights abababababab…\) and 'task1' with "
        r"'org/tiny-probe' \(weights cdcdcdcdcdcd…\); embed both with the same probe"
    )
    with pytest.raises(ProbeMismatchError, match=message):
        pairwise([embedding(0), embedding(0), embedding(1, weights_hash="cd" * 32)])
    for other in (embedding(1, layer_names=("0", "3")), embedding(1, layer_sizes=np.array([16, 8]))):
        with pytest.raises(ProbeMismatchError, match=r"cover different layers of probe .*embed both again"):
            pairwise([embedding(0), other])
