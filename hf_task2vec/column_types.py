"""What the types of a dataset's columns say: predicates on ``dataset.features``, without importing `datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe_columns(features: Mapping[str, Any]) -> str:
    """Return the columns and their types as one line for a message."""
    return ", ".join(f"{name} ({type_name(feature)})" for name, feature in features.items()) or "none"


def type_name(feature: Any) -> str:
    """Return a type as messages call it."""
    if isinstance(feature, Mapping):
        return "struct of " + ", ".join(feature)
    inner = element(feature)
    if inner is not None:
        return f"list of {type_name(inner)}"
    return dtype(feature) or str(getattr(feature, "_type", type(feature).__name__))


def dtype(feature: Any) -> str:
    """Return the dtype of a plain value such as ``"int64"``, nothing for any other type."""
    return str(getattr(feature, "dtype", "")) if getattr(feature, "_type", None) == "Value" else ""


def element(feature: Any) -> Any:
    """Return the type of the elements of a list feature, None for any other."""
    return feature.feature if getattr(feature, "_type", None) in ("List", "LargeList") else None


def fields_of(feature: Any) -> Mapping[str, Any]:
    """Return the fields of a struct, or of a list of structs; none for any other type."""
    inner = element(feature)
    found = feature if inner is None else inner
    return found if isinstance(found, Mapping) else {}


def is_class_label(feature: Any) -> bool:
    """Return whether `feature` is a `datasets.ClassLabel`."""
    return getattr(feature, "_type", None) == "ClassLabel"


def is_discrete(feature: Any) -> bool:
    """Return whether a cell is one class: `ClassLabel`, integer, string or bool."""
    name = dtype(feature)
    return is_class_label(feature) or name.startswith(("int", "uint", "bool")) or name.endswith("string")


def is_float(feature: Any) -> bool:
    """Return whether a cell is one floating-point or decimal number."""
    return dtype(feature).startswith(("float", "decimal"))


def is_image(feature: Any) -> bool:
    """Return whether `feature` is a `datasets.Image`."""
    return getattr(feature, "_type", None) == "Image"


def is_encoded(feature: Any) -> bool:
    """Return whether a cell is bytes, or a struct with bytes, that may be an image file."""
    if isinstance(feature, Mapping):
        return dtype(feature.get("bytes")).endswith("binary")
    return dtype(feature).endswith("binary")
