"""Atomic writes, checksums and the cache folder."""

from __future__ import annotations

import atexit
import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "it is on a read-only file system",
    errno.EACCES: "permission denied",
    errno.EFBIG: "the file is larger than the system allows",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
}


def why(error: OSError) -> str:
    """Return the reason of an error of the operating system, without number and path."""
    return _REASONS.get(error.errno or 0) or error.strerror or " ".join(str(error).split()) or type(error).__name__


def system_cause(error: BaseException) -> OSError | None:
    """Return the innermost error behind `error` that says what is wrong with this machine's files, if one does."""
    found: OSError | None = None
    following: BaseException | None = error
    while following is not None:
        if isinstance(following, OSError) and following.errno in _REASONS:
            found = following
        following = following.__cause__ or following.__context__
    return found


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder that is renamed to `path` on success.

    A reader sees the old file or the whole new one, never a part. On an error the temporary file is removed. A device
    or pipe such as ``/dev/stdout`` is written to, not replaced.
    """
    target = Path(path)
    if target.exists() and not target.is_file() and not target.is_dir():
        yield target
        return
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


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user typed, ``~`` replaced by the home folder where one is known."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (`Path.expanduser` fails where there is none)


def cache_dir() -> Path:
    """Return the folder for cached embeddings and measurements.

    ``$HF_TASK2VEC_CACHE`` if set, else ``task2vec`` inside the Hugging Face home (``$HF_HOME``). Not created here.
    Where no home folder is known, a folder of this process stands for it.
    """
    explicit = os.environ.get("HF_TASK2VEC_CACHE")
    if explicit:
        folder = expanded(explicit)
    else:
        from huggingface_hub.constants import HF_HOME

        folder = Path(HF_HOME) / "task2vec"
    return temporary_home("no home folder is known") / "task2vec" if str(folder).startswith("~") else folder


def temporary_home(reason: str) -> Path:
    """Return a folder to keep things in until the process ends, and warn that it stands for the right one."""
    _warn_not_kept(reason)
    return temporary_folder()


@cache
def temporary_folder() -> Path:
    """Return a folder that is there until the process ends."""
    folder = tempfile.mkdtemp(prefix="task2vec-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def warn_not_kept(error: Exception) -> None:
    """Warn, once, that the cache folder cannot be written to."""
    _warn_not_kept(f"{cache_dir()} cannot be written to ({why(error) if isinstance(error, OSError) else error})")


@cache
def _warn_not_kept(reason: str) -> None:
    logger.warning("%s, so nothing is kept for the next time; set HF_HOME to a folder that can be written to", reason)
