"""Unpacking a zip of images from a stranger: nothing outside the folder, nothing without a limit.

Of the names in the archive only that of the folder an image lies in is kept: its class. Files are numbered, links are
left out, and what is written is counted as it is written: the sizes that the archive itself tells are not believed.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from hf_task2vec.errors import TaskError
from hf_task2vec.tasks.images import looks_like_image

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".ico")
)
WHAT_WORKS = "what would work: a zip with one folder of images a class, such as cats/1.jpg and dogs/1.jpg"

_CHUNK = 2**20
_MEGABYTE = 10**6
_END = struct.Struct("<4s4H2LH")  # end of the central directory: signature, …, entries, size, offset, comment
_LOCATOR_BYTES = 20  # stands before it in an archive of the large format (zip64)


class ArchiveError(TaskError):
    """An archive cannot be used; the message says why, in words for the one who dropped it."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold; sizes in bytes.

    Attributes
    ----------
    archive
        The archive itself.
    directory
        Its list of files, which is read into memory.
    entries
        Files and folders in it.
    image, total
        One file, and all of them, unpacked.
    ratio
        How many times its own size an archive may unpack to, beyond 50 MB.
    classes
        Folders that hold images.
    """

    archive: int = 200 * _MEGABYTE
    directory: int = 8 * _MEGABYTE
    entries: int = 20_000
    image: int = 50 * _MEGABYTE
    total: int = 1000 * _MEGABYTE
    ratio: int = 50
    classes: int = 1000


@dataclass(frozen=True)
class Unpacked:
    """What came out of an archive: how many images lie in how many folders, and how many files were left out."""

    images: int
    classes: int
    ignored: int


def unpack(archive: Path, folder: Path, limits: Limits | None = None) -> Unpacked:
    """Write the images of a zip archive below `folder`.

    Parameters
    ----------
    archive
        The file.
    folder
        An empty folder. Each image becomes ``<its innermost folder in the archive>/<number>.<suffix>``; one outside any
        folder is left out.
    limits
        By default those of `Limits`.

    Raises
    ------
    ArchiveError
        The file is no readable zip archive, is encrypted, exceeds a limit, names a place outside `folder`, or holds no
        image.
    """
    limits = limits or Limits()
    size = archive.stat().st_size
    if size > limits.archive:
        raise ArchiveError(f"the archive has {_size(size)}; at most {_size(limits.archive)} are accepted")
    try:
        with archive.open("rb") as handle:
            _check_directory(handle, limits)
            with zipfile.ZipFile(handle) as opened:
                return _unpack(opened, folder, limits, min(limits.total, max(50 * _MEGABYTE, limits.ratio * size)))
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, OSError, RuntimeError) as error:
        if isinstance(error, TaskError):
            raise
        raise ArchiveError(f"the file is no readable zip archive, or is damaged; {WHAT_WORKS}") from error


def _check_directory(handle: BinaryIO, limits: Limits) -> None:
    """Bound the list of files before `zipfile` reads it into memory."""
    start = max(0, handle.seek(0, os.SEEK_END) - _LOCATOR_BYTES - _END.size - 2**16)
    handle.seek(start)
    tail = handle.read()
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or found + _END.size > len(tail):
        raise ArchiveError(f"the file is no zip archive; {WHAT_WORKS}")
    if tail[max(0, found - _LOCATOR_BYTES) :].startswith(b"PK\x06\x07"):  # sizes beyond ours: another list counts
        raise ArchiveError("the archive is of the format for more than 65,535 files or 4 GB, which is not accepted")
    *_, entries, size, _, _ = _END.unpack_from(tail, found)
    if size > limits.directory or entries > limits.entries:
        raise ArchiveError(f"the archive lists too many files ({entries:,}); at most {limits.entries:,} are accepted")


def _unpack(archive: zipfile.ZipFile, folder: Path, limits: Limits, room: int) -> Unpacked:
    infos = archive.infolist()
    if len(infos) > limits.entries:
        raise ArchiveError(f"the archive lists {len(infos):,} files; at most {limits.entries:,} are accepted")
    placed = [(info, place) for info in infos if (place := _place(info)) is not None]
    written, images = 0, Counter[PurePosixPath]()
    for number, (info, place) in enumerate(placed):
        if info.flag_bits & 0x1:
            raise ArchiveError("the archive is encrypted; make one without a password")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveError("the archive is compressed by an unusual method; make it with ordinary zip (deflate)")
        target = folder / place.parent / f"{number:06}{place.suffix.lower()}"
        written += _write(archive, info, folder, target, min(limits.image, room - written), limits)
        images[place.parent] += target.exists()
        if len(images) > limits.classes:
            raise ArchiveError(f"the archive has more than {limits.classes:,} folders of images, which is the limit")
    total = sum(images.values())
    files = sum(not info.filename.endswith("/") for info in infos)
    if not total:
        raise ArchiveError(f"the archive holds no image ({files} other files); {WHAT_WORKS}")
    return Unpacked(total, len(+images), files - total)


def _place(info: zipfile.ZipInfo) -> PurePosixPath | None:
    """Return where a file belongs inside the folder, None for what is left out: links, hidden files, no images,
    images outside any folder.

    Raises `ArchiveError` if that would be elsewhere.
    """
    name = info.filename.replace("\\", "/")  # some programs on Windows write it so
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or (parts and parts[0][1:2] == ":"):
        raise ArchiveError(f"the archive names a place outside itself, {_shown(info.filename)}, and is refused")
    kind = stat.S_IFMT(info.external_attr >> 16)
    hidden = any(part.startswith((".", "__")) for part in parts)  # "__MACOSX" among them
    if name.endswith("/") or kind not in (0, stat.S_IFREG) or hidden or len(parts) < 2:
        return None
    place = PurePosixPath(_tame(parts[-2]), parts[-1])
    return place if place.suffix.lower() in SUFFIXES else None


def _tame(name: str) -> str:
    """Return the name of a folder without what a terminal or a file system would stumble over."""
    text = "".join(sign if sign.isprintable() else "_" for sign in name)
    return text.encode()[:120].decode(errors="ignore")


def _write(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path, target: Path, room: int, limits: Limits
) -> int:
    """Write one file if it starts like an image; return its bytes."""
    with archive.open(info) as source:
        chunks = _bounded(source, info.filename, room, limits)
        first = next(chunks, b"")
        if not looks_like_image(first):
            return 0
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ArchiveError(f"the archive names a place outside itself, {_shown(info.filename)}, and is refused")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as handle:
            handle.write(first)
            for chunk in chunks:
                handle.write(chunk)
            return handle.tell()


def _bounded(source: IO[bytes], name: str, room: int, limits: Limits) -> Iterator[bytes]:
    count = 0
    while chunk := source.read(_CHUNK):
        count += len(chunk)
        if count > limits.image:
            raise ArchiveError(f"{_shown(name)} has more than {_size(limits.image)} unpacked, the limit for one image")
        if count > room:
            raise ArchiveError(
                f"the archive unpacks to too much: at most {_size(limits.total)}, and {limits.ratio} times its own "
                "size, are accepted"
            )
        yield chunk


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "…")


def _size(count: int) -> str:
    return f"{count / _MEGABYTE:,.0f} MB"
