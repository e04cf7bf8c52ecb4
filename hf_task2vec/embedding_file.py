"""The files of a task embedding: a folder of two files, or one safetensors file; every byte that counts is checked."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hf_task2vec.errors import EmbeddingError, SchemaVersionError
from hf_task2vec.files import atomic_path, canonical_json, sha256_bytes

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
VALUES_FILE, DOCUMENT_FILE = "embedding.safetensors", "embedding.json"
SUFFIX = ".safetensors"
TENSORS = ("values", "feature_mean", "feature_var", "layer_sizes")
_DESCRIBED = ("probe", "task", "descriptors", "config", "versions")
_DOCUMENT_KEYS = {"schema_version", *_DESCRIBED, "layers", "sha256"}
#: The one key of the metadata of a single file; its value is the document.
_METADATA_KEY = "task2vec"


def write_folder(folder: Path, arrays: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Write both files; each appears whole or not at all.

    Raises
    ------
    EmbeddingError
        The folder cannot be written.
    """
    from safetensors.numpy import save

    data = save(_plain(arrays))
    text = json.dumps({**document, "sha256": sha256_bytes(data)}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        # Both are written before either takes its place: an old embedding survives a full disk.
        with atomic_path(folder / VALUES_FILE) as values, atomic_path(folder / DOCUMENT_FILE) as description:
            values.write_bytes(data)
            description.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EmbeddingError(f"the embedding cannot be written to {folder}: {error}") from error


def write_file(path: Path, arrays: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Write the single file, atomically.

    Raises
    ------
    EmbeddingError
        It cannot be written.
    """
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(pack(arrays, document))
    except OSError as error:
        raise EmbeddingError(f"the embedding cannot be written to {path}: {error}") from error


def read(path: Path) -> dict[str, Any]:
    """Return the fields of the embedding in a folder or a single file.

    Raises
    ------
    EmbeddingError
        A file is missing, damaged or inconsistent.
    SchemaVersionError
        It was written in another version of the format.
    """
    if path.suffix == SUFFIX and path.is_file():
        try:
            return unpack(path.read_bytes(), str(path))
        except OSError as error:
            raise EmbeddingError(f"{path} cannot be read: {error}") from error
    document = _read_document(path / DOCUMENT_FILE)
    tensors = _read_values(path / VALUES_FILE, str(document["sha256"]))
    return _fields(tensors, document, str(path / DOCUMENT_FILE), VALUES_FILE)


def pack(arrays: Mapping[str, Any], document: Mapping[str, Any]) -> bytes:
    """Return the single file: tensors, and the document as its metadata; equal embeddings give equal bytes."""
    from safetensors.numpy import save

    plain, text = _plain(arrays), _text(document)
    whole = {**json.loads(text), "sha256": _checksum(plain, json.loads(text))}
    # One key only: the library writes several in arbitrary order.
    return save(plain, metadata={_METADATA_KEY: _text(whole)})


def unpack(data: bytes, where: str) -> dict[str, Any]:
    """Return the fields of the embedding in the bytes of a single file; `where` is its name for messages.

    Raises
    ------
    EmbeddingError
        The file is damaged, or no embedding.
    SchemaVersionError
        It was written in another version of the format.
    """
    tensors = _parse_tensors(data, where)
    document = _check_document(_metadata(data, where), where)
    expected = document.pop("sha256")
    try:
        found = _checksum(tensors, document)
    except (TypeError, ValueError, RecursionError) as error:
        raise EmbeddingError(f"{where}: what describes the embedding cannot be read: {error}") from error
    if found != expected:
        raise EmbeddingError(f"{where} is damaged: its content does not have the checksum it names; download it again")
    return _fields(tensors, document, where, where)


def _metadata(data: bytes, where: str) -> Any:
    try:  # the header has been read by the library by now, so the lengths are right
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return json.loads(header.get("__metadata__", {}).get(_METADATA_KEY, "null"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise EmbeddingError(f"{where}: its metadata cannot be read as JSON: {error}") from error


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, sort_keys=True)


def _plain(arrays: Mapping[str, Any]) -> dict[str, Any]:
    # The format stores raw memory: a view with strides would come back in another order.
    return {name: np.ascontiguousarray(arrays[name]) for name in TENSORS}


def _checksum(arrays: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """Return a SHA-256 over everything an embedding consists of."""
    parts = [[name, str(arrays[name].dtype), list(arrays[name].shape)] for name in TENSORS]
    raw = b"".join(arrays[name].tobytes() for name in TENSORS)
    return sha256_bytes(canonical_json([dict(document), parts]) + raw)


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (FileNotFoundError, NotADirectoryError):
        raise EmbeddingError(
            f"no embedding in {path.parent}: {path.name} is missing; make one with embed_task or `hf-task2vec embed`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise EmbeddingError(f"{path} cannot be read as JSON: {error}") from error
    return _check_document(document, str(path))


def _check_document(document: Any, where: str) -> dict[str, Any]:
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{where} has schema version {version!r}, this version of hf_task2vec reads {SCHEMA_VERSION}; "
            "upgrade the package, or make the embedding again"
        )
    if odd := sorted(_DOCUMENT_KEYS ^ document.keys()):
        raise EmbeddingError(f"{where} has missing or unknown fields: {', '.join(odd)}")
    return dict(document)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _fields(tensors: dict[str, Any], document: dict[str, Any], where: str, values_name: str) -> dict[str, Any]:
    names, sizes = _layers(document["layers"])
    if sizes != tensors["layer_sizes"].tolist():
        raise EmbeddingError(f"the layers in {where} are not those of {values_name}")
    return {**tensors, "layer_names": names, **{key: document[key] for key in _DESCRIBED}}


def _layers(layers: Any) -> tuple[tuple[str, ...], list[int]]:
    """Return names and sizes of the layers in a document."""
    if not isinstance(layers, list) or not all(
        isinstance(x, dict) and x.keys() == {"name", "n_filters"} for x in layers
    ):
        raise EmbeddingError(f"in {DOCUMENT_FILE}, layers must be a list of mappings with name and n_filters")
    names = tuple(layer["name"] for layer in layers)
    if not all(isinstance(name, str) for name in names):
        raise EmbeddingError(f"in {DOCUMENT_FILE}, a layer's name is no text")
    return names, [layer["n_filters"] for layer in layers]


def _read_values(path: Path, expected_hash: str) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise EmbeddingError(f"{path} is missing; copy or save the embedding again") from None
    except OSError as error:
        raise EmbeddingError(f"{path} cannot be read: {error}") from error
    if (found := sha256_bytes(data)) != expected_hash:
        raise EmbeddingError(
            f"{path} has sha256 {found[:12]}…, but {DOCUMENT_FILE} expects {expected_hash[:12]}…: the "
            "file is damaged or the two belong to different embeddings; save or download the embedding again"
        )
    return _parse_tensors(data, str(path))


def _parse_tensors(data: bytes, where: str) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EmbeddingError(f"{where} is no readable safetensors file: {error}") from error
    if sorted(tensors) != sorted(TENSORS):
        raise EmbeddingError(f"{where} holds tensors {sorted(tensors)}, expected {sorted(TENSORS)}")
    return dict(tensors)
