"""Parts of files of a Hub repository at one commit, kept in the cache folder: what was read once is not asked again."""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import HubError
from .files import atomic_path, cache_dir, sha256_bytes
from .hub import REQUEST_TIMEOUT, HubSession

if TYPE_CHECKING:
    from huggingface_hub.utils import httpx

logger = logging.getLogger(__name__)

MOST_KEPT = 4 << 30
"""Bytes of all parts together beyond which those of the datasets opened longest ago are dropped."""


class RemoteFiles:
    """Files of a dataset repository at one commit.

    Parameters
    ----------
    session
        Whose repository, token and time limit count.
    commit
        Full hash: what was read at it never changes, so parts are kept under it.

    Attributes
    ----------
    bytes_read
        Bytes that were transferred.
    """

    def __init__(self, session: HubSession, commit: str) -> None:
        self.session, self.commit = session, commit
        self.bytes_read = 0
        self._lock = threading.Lock()
        self._memory: dict[Path, bytes] = {}  # of what cannot be kept on disk
        self.folder = parts_folder(session, commit)

    def read(self, path: str, start: int, length: int) -> bytes:
        """Return at least `length` bytes of a file from `start` on; the file must have so many.

        Raises
        ------
        HubError
            The file cannot be read.
        """
        part = self.folder / f"{_name(path)}-{start}"
        kept = self._kept(part)
        if len(kept) >= length:
            return kept
        new = self._fetch(path, start + len(kept), start + length)
        with self._lock:
            self.bytes_read += len(new)
        whole = kept + new
        try:
            with atomic_path(part) as temporary:
                temporary.write_bytes(whole)
        except OSError as error:
            logger.debug("the cache is not usable (%s)", error)
            self._memory[part] = whole
        return whole

    def forget(self, path: str) -> None:
        """Drop what is kept of a file."""
        for part in self.folder.glob(f"{_name(path)}-*"):
            part.unlink(missing_ok=True)
        self._memory.clear()

    def open(self, path: str, size: int) -> RangeFile:
        """Return a file of `size` bytes to read from and seek in."""
        return RangeFile(lambda start, length: self.read(path, start, length), size)

    def _kept(self, part: Path) -> bytes:
        try:
            return part.read_bytes()
        except OSError:
            return self._memory.get(part, b"")

    def _fetch(self, path: str, start: int, stop: int) -> bytes:
        return self.session.call(
            f"reading a part of {path}", get_range, self.session, self.commit, path, start, stop, limit=REQUEST_TIMEOUT
        )


class RangeFile(io.RawIOBase):
    """A file of which only what is asked for is read.

    Parameters
    ----------
    fetch
        Returns so many bytes from an offset on, or more.
    size
        Length of the file in bytes.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size, self._position = fetch, size, 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it has positions."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position on."""
        length = min(len(buffer), self._size - self._position)
        if length > 0:
            buffer[:length] = self._fetch(self._position, length)[:length]
            self._position += length
        return max(length, 0)


def _name(path: str) -> str:
    return sha256_bytes(path.encode())[:24]


def parts_folder(session: HubSession, commit: str) -> Path:
    """Return the folder of what is kept of a repository's commit; not created here."""
    key = "\0".join([session.api.endpoint, str(session.repo_id), commit])
    return cache_dir() / "hub" / sha256_bytes(key.encode())[:32]


def drop_oldest(keep: Path, most: int | None = None) -> None:
    """Drop parts of the datasets opened longest ago until at most `most` (default `MOST_KEPT`) bytes are kept.

    Parameters
    ----------
    keep
        Folder of the dataset that is being opened: never dropped, and counted as opened now.
    """
    if keep.is_dir():
        os.utime(keep)
    folders = [path for path in keep.parent.glob("*") if _is_parts_folder(path)]
    sizes = {folder: sum(part.stat().st_size for part in folder.iterdir()) for folder in folders}
    total, limit = sum(sizes.values()), MOST_KEPT if most is None else most
    for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime):
        if total <= limit:
            break
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]
            logger.info("parts of a dataset opened long ago dropped from the cache: %.0f MB", sizes[folder] / 1e6)


def _is_parts_folder(path: Path) -> bool:
    return re.fullmatch("[0-9a-f]{32}", path.name) is not None and path.is_dir()


def get_range(session: HubSession, commit: str, path: str, start: int, stop: int) -> bytes:
    """Return bytes `start` to `stop` of a file; one request, and never more bytes than were asked for."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    api = session.api
    url = hf_hub_url(str(session.repo_id), path, repo_type="dataset", revision=commit, endpoint=api.endpoint)
    headers = build_hf_headers(token=api.token, library_name=api.library_name, library_version=api.library_version) | {
        "Range": f"bytes={start}-{stop - 1}",
        "Accept-Encoding": "identity",
    }
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
        hf_raise_for_status(response)
        if response.status_code != 206:
            raise HubError(f"{session.api.endpoint} sends {path} only as a whole; parts of files cannot be read")
        return _content(response, stop - start)


def _content(response: httpx.Response, length: int) -> bytes:
    data = bytes(response.read())
    if len(data) != length:
        raise ConnectionError(f"{len(data)} bytes came instead of {length}")
    return data
