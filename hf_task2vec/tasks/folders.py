"""The files of a folder, zip or tar: one walk, which opens a file only where its name does not tell what it is.

Only names are kept, by folder: a million files take 100 MB and a few seconds. Archives look like folders named by
their stem. Links are followed, each folder once; hidden files and those of operating systems are not there.
"""

from __future__ import annotations

import lzma
import mimetypes
import os
import re
import tarfile
import threading
import weakref
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from hf_task2vec.errors import DatasetNotFoundError, ImageDecodeError
from hf_task2vec.tasks.images import FORMATS, HEIC_CURE, check_bytes, is_heic, looks_like_image, not_fetched, reads_heic
from hf_task2vec.tasks.source import split_of

_SYSTEM = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir", "lost+found"}
_SYSTEM |= {"system volume information", "icon\r"}
# Attributes of `Files`, by suffix.
_LISTS = dict.fromkeys(("csv", "tsv", "tab", "json", "jsonl", "ndjson", "manifest", "txt"), "tables")
_LISTS |= {"parquet": "parquet", "pq": "parquet", "arrow": "arrow", "feather": "arrow"}
_SIDES = ("cls", "txt", "json", "cls.txt", "label", "class")
ARCHIVES = ("zip", "tar", "tar.gz", "tgz", "tar.bz2", "tbz2", "tar.xz", "txz")
_KNOWN = {"aae", "xmp", "md", "yaml", "yml", "py", "ini", "log"}
MASKS = "a mask beside its picture"  # why pictures of segmentation are left out
_MASK_FOLDERS = {"mask", "masks", "segmentation", "segmentations", "annotations", "trimaps", "labels", "gt"}
_MASK_FOLDERS |= {"ground_truth", "groundtruth", "ground truth"}
PICTURE_FOLDERS = {"image", "images", "img", "imgs", "jpegimages"}
_MASK_WORD = re.compile(r"[-_ ](?:mask|seg|gt)", re.IGNORECASE)
_MASK_NAME = re.compile(r"(.+)[-_ ](?:mask|seg|segmentation|gt)(?:[-_ ]?\d+)?", re.IGNORECASE)
CURES = {  # reasons to leave a file out that a user should hear of, and what would help
    "HEIC": f"; {HEIC_CURE}",
    "a broken link": "",
    "cannot be read": "; check its permissions",
    "no regular file": "",
    "a link to a folder that is read already": "",
    "an archive beside the data": "; pass it by itself to read it",
    MASKS: "",
    "a spreadsheet": "; save it as CSV to use it",
    "packed": "; unpack it to use it",
    "a MATLAB file": "; save what it says of the images as CSV to use it",
    "a raw photo of a camera": "; develop it to JPEG or PNG",
    "an array of numpy": "; in Python, pass it as (X, y)",
    "a file of HDF5, TensorFlow or LMDB": "; in Python, pass its images and labels as (X, y)",
    "a medical image": "; save it as PNG, of 16 bits where it has more than 8",
    "a pickle": ", which could run anything and is not read; in Python, pass its images and labels as (X, y)",
}
_HEIC = ("heic", "heif", "hif")
_UNREAD = {"xml": "an XML file", "mat": "a MATLAB file"} | dict.fromkeys(("xlsx", "xls", "ods"), "a spreadsheet")
_UNREAD |= {"svg": "a drawing in SVG"} | dict.fromkeys(("mp4", "avi", "mov", "mkv", "webm"), "a video")
_UNREAD |= dict.fromkeys(("cr2", "cr3", "nef", "arw", "dng", "orf", "rw2", "raf"), "a raw photo of a camera")
_UNREAD |= dict.fromkeys(("npy", "npz"), "an array of numpy") | dict.fromkeys(("pkl", "pickle", "pt"), "a pickle")
_UNREAD |= dict.fromkeys(("h5", "hdf5", "tfrecord", "tfrecords", "mdb"), "a file of HDF5, TensorFlow or LMDB")
_UNREAD |= dict.fromkeys(("dcm", "dicom", "nii", "nii.gz"), "a medical image")
_UNREAD |= dict.fromkeys((*ARCHIVES, "gz", "bz2", "xz", "7z", "rar"), "packed") | dict.fromkeys(_HEIC, "HEIC")
_SAMPLED = 3  # names kept of the files left out for one reason
_BROKEN = (
    *(OSError, EOFError, RuntimeError, NotImplementedError),
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


@dataclass
class LeftOut:
    """Files that were left out for one reason."""

    count: int = 0
    names: list[str] = field(default_factory=list)  # of the first few
    folders: Counter[str] = field(default_factory=Counter)


@dataclass
class Files:
    """What lies below a place. Paths are relative to it, joined by ``/``."""

    root: Path
    images: dict[str, list[str]] = field(default_factory=dict)  # names, by folder
    folders: set[str] = field(default_factory=set)  # also empty ones
    tables: list[str] = field(default_factory=list)
    parquet: list[str] = field(default_factory=list)
    arrow: list[str] = field(default_factory=list)
    sides: dict[str, list[str]] = field(default_factory=dict)  # labels beside the images in WebDataset's tars
    left_out: defaultdict[str, LeftOut] = field(default_factory=lambda: defaultdict(LeftOut))
    archives: dict[str, _Archive] = field(default_factory=dict)

    @property
    def n_images(self) -> int:
        """How many images there are."""
        return sum(map(len, self.images.values()))

    def leave_out(self, reason: str, path: str, count: int = 1) -> None:
        """Count a file, or several beginning with `path`, as left out."""
        left = self.left_out[reason]
        left.count += count
        left.folders[path.rpartition("/")[0]] += count
        if len(left.names) < _SAMPLED:
            left.names.append(text(path))

    def only(self, matches: Callable[[str], bool]) -> Files:
        """Return the files whose path matches, in the same folders."""
        kept = {
            folder: names
            for folder, found in self.images.items()
            if (names := [name for name in found if matches(joined(folder, name))])
        }
        folders = {"", *kept, *(folder for path in kept for folder in above(path))}
        tables, parquet, arrow = ([*filter(matches, paths)] for paths in (self.tables, self.parquet, self.arrow))
        return replace(self, images=kept, folders=folders, tables=tables, parquet=parquet, arrow=arrow)

    def without_masks(self) -> Files:
        """Return the files without masks: ``masks`` beside ``images``, ``x_mask.png`` beside ``x.png``."""
        words = {folder: name_of(folder).lower() for folder in self.folders}
        pictures = {above(f)[0] for f, word in words.items() if f and (word in PICTURE_FOLDERS or split_of(word))}
        masks = {f for f, word in words.items() if word in _MASK_FOLDERS and above(f)[0] in pictures}
        images = dict(self.images)
        for folder, names in self.images.items():
            if masks.intersection((folder, *above(folder))):
                found = set(images.pop(folder))
            elif any(map(_MASK_WORD.search, names)):
                stems = {name.rpartition(".")[0] for name in names}
                found = {n for n in names if (m := _MASK_NAME.fullmatch(n.rpartition(".")[0])) and m[1] in stems}
                images[folder] = [name for name in names if name not in found]
            else:
                continue
            for name in sorted(found):
                self.leave_out(MASKS, joined(folder, name))
        return replace(self, images=images)

    def read(self, path: str) -> bytes:
        """Return the content of a file, which may lie in an archive; raises `ImageDecodeError`."""
        archives = [self.archives[folder] for folder in above(path) if folder in self.archives]
        return archives[0].read(path) if archives else (self.root / path).read_bytes()

    def cell(self, path: str) -> dict[str, Any]:
        """Return an image as `images.read_encoded` takes it: its path, or its bytes where it lies in an archive."""
        if "://" in path:
            return {"path": path}
        if self.archives:
            return {"bytes": partial(self.read, path), "path": path}
        return {"path": str(self.root / path)}

    def add(self, folder: str, name: str, start: Callable[[], bytes], *, in_tar: bool = False) -> None:
        """Sort a file by its name, or by its first bytes, with which what ``start()`` returns begins."""
        suffix, path = suffix_of(name), joined(folder, name)
        if suffix in _images() or (suffix in _HEIC and reads_heic()):
            self.images.setdefault(folder, []).append(name)
        elif suffix == "cls" or (in_tar and suffix in _SIDES):
            self.sides.setdefault(folder, []).append(name)
        elif suffix in _LISTS:
            getattr(self, _LISTS[suffix]).append(path)
        elif suffix in _UNREAD:
            self.leave_out(_UNREAD[suffix], path)
        elif suffix in _KNOWN or (suffix and mimetypes.guess_type(f"x.{suffix}")[0] is not None):
            self.leave_out("not an image", path)
        else:
            try:
                data = start()
            except (OSError, ImageDecodeError):
                self.leave_out("cannot be read", path)
                return
            if looks_like_image(data):
                self.images.setdefault(folder, []).append(name)
            else:
                self.leave_out("HEIC" if is_heic(data) else "not an image", path)


def joined(folder: str, name: str) -> str:
    """Return the path of what lies in a folder."""
    return f"{folder}/{name}" if folder else name


def name_of(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


def above(path: str) -> list[str]:
    """Return the folders that a path lies in, the innermost first and the root, "", last."""
    found = []
    while path:
        path = path.rpartition("/")[0]
        found.append(path)
    return found


def text(path: str) -> str:
    """Return a path as text that can be written anywhere: names may be any bytes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def start_of(path: str | Path) -> bytes:
    """Return the first bytes of a file, which tell what it is."""
    with open(path, "rb") as handle:
        return handle.read(16)


def walk(root: Path) -> Files:
    """List the files below a folder, or in an archive."""
    if not root.is_dir():
        files = Files(root.parent)
        add_archive(files, root.name, "")
        return files
    files, archives = Files(root), []
    seen: set[Any] = set()
    queue, links = [""], list[str]()
    while queue or links:
        # Links come last: a folder that can be reached without one keeps its own name.
        folder = queue.pop() if queue else links.pop()
        place = root / folder
        try:
            facts = place.stat()
            if (facts.st_dev, facts.st_ino) in seen:
                files.leave_out("a link to a folder that is read already", folder)
                continue
            seen.add((facts.st_dev, facts.st_ino))
            with os.scandir(place) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            files.leave_out("cannot be read", folder)
            continue
        finally:
            files.folders.add(folder)
        inner = []
        for entry in found:
            name = entry.name
            path = joined(folder, name)
            if name[0] == "." or name.lower() in _SYSTEM:
                continue
            try:
                is_file, is_folder = entry.is_file(), entry.is_dir()
            except OSError:  # links that lead to each other
                is_file = is_folder = False
            if is_file:
                if suffix_of(name) in ARCHIVES:
                    archives.append(path)
                else:
                    files.add(folder, name, partial(start_of, entry.path))
            elif is_folder and not entry.is_symlink():
                inner.append(path)
            elif is_folder:
                links.insert(0, path)
            else:
                files.leave_out("a broken link" if entry.is_symlink() else "no regular file", path)
        queue += reversed(inner)
    alone = not (files.images or files.parquet or files.arrow)
    for path in archives:
        if alone:
            add_archive(files, path, path[: -len(suffix_of(path)) - 1])
        else:
            files.leave_out("an archive beside the data", path)
    return files


def add_archive(files: Files, path: str, folder: str) -> None:
    """Add what an archive holds, as if it were the folder `folder`."""
    archive = _Archive(files.root / path)
    files.archives[folder] = archive
    files.folders.add(folder)
    try:
        for member in archive.members():
            # Some programs of Windows part folders by backslashes.
            plain = member if archive.is_tar else member.replace("\\", "/")
            parts = [part for part in PurePosixPath(plain).parts if part not in ("/", "..")]
            if not parts or any(part[0] == "." or part.lower() in _SYSTEM for part in parts):
                continue
            full = joined(folder, "/".join(parts))
            inside = above(full)
            files.folders.update(inside)
            archive.names[full] = member
            files.add(inside[0], parts[-1], partial(archive.read, full), in_tar=archive.is_tar)
    except _BROKEN as error:
        what = None if isinstance(error, PermissionError) else not_fetched(start_of(files.root / path))
        why = f"cannot be read as an archive ({' '.join(str(error).split())[:100]}); is it whole? Fetch it anew"
        raise DatasetNotFoundError(f"{archive.name!r} {f'is {what}' if what else why}") from error
    for names in files.images.values():
        names.sort()


class _Archive:
    """A zip, or a tar of any compression, whose members are read one at a time."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self.names: dict[str, str] = {}
        self.is_tar = not zipfile.is_zipfile(path)
        self._path, self.name = path, path.name
        self._places: dict[str, tuple[int, int]] = {}

    def members(self) -> Iterator[str]:
        if not self.is_tar:
            self._zip = zipfile.ZipFile(self._path)
            weakref.finalize(self, self._zip.close)
            for info in self._zip.infolist():
                if info.flag_bits & 1:
                    raise zipfile.BadZipFile("it is encrypted; unpack it")
                if not info.filename.endswith(("/", "\\")):
                    yield info.filename
            return
        if self._path.suffix.lower() == ".zip":
            raise zipfile.BadZipFile("its end is missing")
        self._tar = tarfile.open(self._path)  # noqa: SIM115  (stays open for the images drawn)
        weakref.finalize(self, self._tar.close)
        for member in self._tar:
            self._tar.members = []  # type: ignore[attr-defined]  # else a kilobyte of each stays
            if member.isfile():
                self._places[member.name] = member.offset_data, member.size
                yield member.name

    def read(self, path: str) -> bytes:
        name = self.names[path]
        size = self._places[name][1] if self.is_tar else self._zip.getinfo(name).file_size
        check_bytes(size)
        try:
            if not self.is_tar:
                return self._zip.read(name)
            with self._lock:
                handle = self._tar.fileobj
                assert handle is not None
                handle.seek(self._places[name][0])
                return handle.read(size)
        except _BROKEN as error:
            raise ImageDecodeError(f"cannot be read from {self.name!r}: {error}") from error


def suffix_of(name: str) -> str:
    """Return the ending of a name that says what a file is, in small letters: ``jpg``, ``tar.gz``."""
    parts = name.lower().rsplit(".", 2)
    if len(parts) == 3 and parts[1] in ("tar", "nii", "cls"):
        return f"{parts[1]}.{parts[2]}"
    return parts[-1] if len(parts) > 1 else ""


@cache
def _images() -> frozenset[str]:
    return frozenset(suffix[1:] for suffix, name in Image.registered_extensions().items() if name in (*FORMATS, "MPO"))
