"""``metric.json``: what is written is read back, and nothing malformed gets through or crashes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hf_task2vec.errors import MetricError, SchemaVersionError
from hf_task2vec.metric.covariance import SCHEMA_VERSION, SHARES, TABLES, MetricParameters
from hf_task2vec.metric.task_space import TASK_DESCRIPTORS

_positive = st.floats(1e-6, 1e5)
_names = st.text(min_size=1, max_size=8)


@st.composite
def parameters(draw: st.DrawFn) -> MetricParameters:
    scalars = {
        name: draw(st.floats(0.001, 0.999) if name in SHARES else _positive) for name in MetricParameters().scalars()
    }
    rank = draw(st.integers(1, 16))
    loadings = st.lists(st.floats(-100, 100), min_size=rank, max_size=rank).map(tuple)
    return MetricParameters(
        **scalars,
        lengths=draw(st.dictionaries(st.sampled_from(TASK_DESCRIPTORS), _positive)),
        factors=draw(st.dictionaries(_names, loadings, max_size=3)),
        slopes=draw(st.dictionaries(_names, _positive, max_size=3)),
        noises=draw(st.dictionaries(_names, _positive, max_size=3)),
    )


@given(parameters())
def test_round_trip(values: MetricParameters) -> None:
    written = values.to_json({"n_scores": 3})
    assert MetricParameters.from_json(written) == values
    assert written.endswith(b"}\n")


def document(**changes: Any) -> dict[str, Any]:
    return {**json.loads(MetricParameters(factors={"org/a": (0.1, 0.2)}).to_json()), **changes}


def changed(**changes: Any) -> bytes:
    """Return a file with other parameters."""
    found = document()
    found["parameters"].update(changes)
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "metric.json cannot be read as JSON"),
        (b"\xff\xfe\x00", "metric.json cannot be read as JSON"),
        (b"[" * 100_000, "metric.json cannot be read as JSON"),
        (changed(offset=0.0), "offset = 0.0: Input should be greater than 0"),
        (changed(offset=float("nan")), "offset = nan: "),
        (changed(offset=10**400), "offset = "),
        (changed(offset="4"), "offset = '4': Input should be a valid number"),
        (changed(offset=True), "offset = True: "),
        (changed(family_shared=1.0), "family_shared = 1.0: Input should be less than 1"),
        (changed(slopes=[1.0]), r"slopes = \[1.0\]: Input should be "),
        (changed(noises={"lab": "low"}), r"noises.lab = 'low': Input should be a valid number"),
        (changed(lengths={"colour": 1.0}), "lengths names unknown descriptors: colour"),
        (changed(factors={"a": []}), r"factors.a = \[\]: "),
        (changed(factors={"a": [0.0] * 17}), r"factors.a = .* at most 16 items"),
        (changed(factors={"a": [0.1, None]}), r"factors.a.1 = None: Input should be a valid number"),
        (changed(factors={"a": [0.1], "b": [0.1, 0.2]}), "factors must give every checkpoint the same number"),
        (changed(length_descriptors=3.0), "length_descriptors = 3.0: Unexpected keyword argument"),
        (json.dumps(document(parameters=[])).encode(), "parameters = "),
    ],
)
def test_malformed_files(data: bytes, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        MetricParameters.from_json(data)


@pytest.mark.parametrize("version", [1, SCHEMA_VERSION + 1, None, "2", [2]])
def test_other_versions(version: Any) -> None:
    message = f"has schema version .*this version reads {SCHEMA_VERSION}"
    with pytest.raises(SchemaVersionError, match=message):
        MetricParameters.from_json(json.dumps(document(schema_version=version)).encode())
    with pytest.raises(SchemaVersionError, match=message):
        MetricParameters.from_json(b"[]")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(name=st.sampled_from([*MetricParameters().scalars(), *TABLES]), value=_json)
@example("slopes", {"": 10**30})
def test_any_value_is_read_or_refused(name: str, value: Any) -> None:
    try:
        found = MetricParameters.from_json(changed(**{name: value}))
    except MetricError:
        return
    assert MetricParameters.from_json(found.to_json()) == found


@given(st.binary(max_size=200) | _json.map(lambda value: json.dumps(value).encode()))
def test_any_file_is_refused(data: bytes) -> None:
    with pytest.raises((MetricError, SchemaVersionError)):
        MetricParameters.from_json(data)
