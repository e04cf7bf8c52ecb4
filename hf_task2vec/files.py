"""Atomic writes, checksums and the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder that is renamed to `path` on success.

    A reader sees the old file or the whole new one, never a part. On an error the temporary file is removed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    # Some writers replace the file by a private one of their own; the result gets the mode of any new file.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], document: Any) -> None:
    """Write `document` as indented JSON, atomically; NaN and infinities are refused."""
    data = json_bytes(document)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def json_bytes(document: Any) -> bytes:
    """Return `document` as indented JSON for people to read; NaN and infinities are refused."""
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def canonical_json(document: Any) -> bytes:
    """Return the one byte string that stands for `document` (sorted keys, no spaces), for hashing."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_bytes(data: bytes | memoryview) -> str:
    """Return the hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        digest = hashlib.sha256()
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def cache_dir() -> Path:
    """Return the folder for cached embeddings and measurements.

    ``$HF_TASK2VEC_CACHE`` if set, else ``task2vec`` inside the Hugging Face home (``$HF_HOME``). Not created here.
    """
    if explicit := os.environ.get("HF_TASK2VEC_CACHE"):
        return Path(explicit).expanduser()
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "task2vec"
