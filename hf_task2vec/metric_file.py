"""Write and read ``metric.json``, the trained metric's parameters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from hf_task2vec.covariance import SHARES, TABLES, MetricParameters
from hf_task2vec.errors import MetricError, SchemaVersionError
from hf_task2vec.task_space import TASK_DESCRIPTORS

SCHEMA_VERSION = 2
METRIC_FILE = "metric.json"
MAX_FACTORS = 16


def dumps(parameters: MetricParameters, report: dict[str, Any] | None = None) -> bytes:
    """Return ``metric.json`` as bytes; `report` (of the training) is kept beside the parameters."""
    values = {**parameters.scalars(), **{name: dict(getattr(parameters, name)) for name in TABLES}}
    document = {"schema_version": SCHEMA_VERSION, "parameters": values, "training": report or {}}
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def loads(data: bytes) -> MetricParameters:
    """Read ``metric.json``.

    Raises
    ------
    SchemaVersionError
        The file was written by another version of the format.
    MetricError
        The file is malformed.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MetricError(f"{METRIC_FILE} cannot be read as JSON: {error}") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise SchemaVersionError(f"{METRIC_FILE} has schema version {version!r}, this version reads {SCHEMA_VERSION}")
    values, names = document.get("parameters"), {f.name for f in fields(MetricParameters)}
    if not isinstance(values, dict) or values.keys() != names:
        raise MetricError(f"{METRIC_FILE} must give exactly the parameters {', '.join(sorted(names))}")
    parsed: dict[str, Any] = {name: _positive(name, value) for name, value in values.items() if name not in TABLES}
    for name in TABLES:
        parsed[name] = _table(name, values[name], _loadings if name == "factors" else _positive)
    if unknown := sorted(set(parsed["lengths"]) - set(TASK_DESCRIPTORS)):
        raise MetricError(f"{METRIC_FILE}: lengths names unknown descriptors: {', '.join(unknown)}")
    if len({len(row) for row in parsed["factors"].values()}) > 1:
        raise MetricError(f"{METRIC_FILE}: factors must give every checkpoint the same number of loadings")
    return MetricParameters(**parsed)


def _table(name: str, values: Any, parse: Callable[[str, Any], Any]) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise MetricError(f"{METRIC_FILE}: {name} must be a table, found {type(values).__name__}")
    return {key: parse(f"{name}[{key}]", value) for key, value in values.items()}


def _loadings(name: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or not 0 < len(values) <= MAX_FACTORS:
        raise MetricError(f"{METRIC_FILE}: {name} must be a list of 1 to {MAX_FACTORS} numbers")
    return tuple(_number(name, value, -1e6, 1e6) for value in values)


def _positive(name: str, value: Any) -> float:
    return _number(name, value, 0.0, 1.0 if name in SHARES else 1e6)


def _number(name: str, value: Any, low: float, high: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low < value < high:
        raise MetricError(f"{METRIC_FILE}: {name}={value!r} should be a number between {low:g} and {high:g}")
    return float(value)
