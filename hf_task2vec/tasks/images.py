"""Images: encoded bytes in, RGB Pillow images out, within Pillow's own limit against decompression bombs."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from PIL import Image, ImageStat, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from PIL.Image import Transpose

from hf_task2vec.errors import ImageDecodeError
from hf_task2vec.tasks.addresses import Fetcher
from hf_task2vec.tasks.sampling import Unusable

MAX_PIXELS = 178_956_970  # the size from which Pillow itself speaks of a decompression bomb
MAX_BYTES = 4 * MAX_PIXELS  # of a file: uncompressed 8-bit pixels with transparency
DECODED_BUDGET = 256 * 2**20  # bytes of pixels that a sample keeps; images beyond are decoded again when asked for

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "ICO", "AVIF")
"""The formats of image datasets, by Pillow's name. The rest of Pillow's list stays out on purpose: some have no
signature (any bytes would do), and some run other programs (EPS)."""

_ORIENTATIONS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_HEIC = {b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis")}
HEIC_CURE = "pip install hf-task2vec[heic] to read HEIC, or convert it to JPEG"
_NO_IMAGE = f"no image of a known format ({', '.join(FORMATS)})"
MayRead = Callable[[str], bool] | None  # which files and addresses a cell may name; None: any
_READ_AT_ONCE = 64  # images whose encoded bytes are in memory before they are decoded

# Above this many pixels one image is decoded at a time: eight threads at the limit would need more than 8 GB.
_LARGE_PIXELS = 2**25
_LARGE_IMAGE_LOCK = threading.Lock()


def is_heic(data: bytes) -> bool:
    """Return whether `data` starts as HEIC does, the format of phones."""
    return data[4:12] in _HEIC


@cache
def reads_heic() -> bool:
    """Return whether the package that reads HEIC is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def looks_like_image(data: bytes) -> bool:
    """Return whether `data` starts with the signature of a format in `FORMATS`, or of HEIC where that can be read."""
    if is_heic(data) and reads_heic():
        return True
    Image.init()
    accepted = (Image.OPEN[name][1] for name in FORMATS if name in Image.OPEN)  # a Pillow may lack a codec
    return any(accept is not None and accept(data[:16]) is True for accept in accepted)


class Values(NamedTuple):
    """The values that are black and white in pictures whose type of number does not say it."""

    low: float
    high: float

    def __str__(self) -> str:
        bits = int(self.high + 1).bit_length() - 1
        if self.low == 0 and bits > 8 and self.high == 2**bits - 1:
            return f"values of {bits} bits"
        return f"values {self.low:g} to {self.high:g}"


PLAIN = Values(0.0, 255.0)
_BITS = (8, 10, 12, 14, 16)
_HAIR = 1.1  # resampling, noise and bright clouds reach a little beyond the range that was meant
_DARKEST = 32  # no sample of 8-bit pictures stays below it; digits of 0 to 16 do
_RANGED = ("I", "F")
_PLANES = "task2vec planes"  # marks a grey picture whose thirds are red, green and blue
_STATED_BY_TIFF, _PLANAR_CONFIGURATION, _NO_DATA = 281, 284, 42113  # tags MaxSampleValue, …, GDAL_NODATA


def decode_rgb(data: bytes, values: Values | None = None) -> Image.Image:
    """Decode an image file to 8-bit RGB, upright; of an animation, one frame. An `ImageDecodeError` has no name."""
    return to_rgb(decode(data)[0], values)


def decode(data: bytes) -> tuple[Image.Image, Facts]:
    """Decode an image file, upright; to RGB only where that loses nothing of the values' range."""
    try:
        with _opened(data) as image:
            size = image.width * image.height
            if size > MAX_PIXELS:  # Pillow's limit may have been switched off
                raise ImageDecodeError(f"{image.width} x {image.height} px is more than the limit of {MAX_PIXELS:,} px")
            with _LARGE_IMAGE_LOCK if size > _LARGE_PIXELS else contextlib.nullcontext():
                stated, remark = _stated(image, data), _remark(image)
                if (kept := _wide(image)) is not None:
                    return kept, _range_of(kept, stated)
                image.load()
                kept = upright(_without_no_data(image))
                return (kept, _range_of(kept, stated, remark)) if has_range(kept) else _plain(kept, remark)
    except UnidentifiedImageError as error:
        raise ImageDecodeError("damaged header" if looks_like_image(data) else _why_not(data)) from error
    except ImageDecodeError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise nearly any type
        raise ImageDecodeError(f"{type(error).__name__}: {error}") from error


def _opened(data: bytes) -> Image.Image:
    if is_heic(data) and reads_heic():
        from pillow_heif import HeifImageFile  # by itself: Pillow's list of formats stays as it is

        with contextlib.suppress(SyntaxError):  # AVIF may begin in the same way
            return HeifImageFile(io.BytesIO(data))
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _why_not(start: bytes) -> str:
    return f"HEIC; {HEIC_CURE}" if is_heic(start) else not_fetched(start) or _NO_IMAGE


def not_fetched(start: bytes) -> str | None:
    """Say what a file that starts so is in place of the data, and what helps; None if it may be the data."""
    if not start:
        return "an empty file"
    if start.startswith(b"version https://"):
        return "a Git LFS pointer, not the data: git lfs pull fetches it"
    is_page = start.lstrip().lower().startswith((b"<!doctype html", b"<html", b"<head"))
    return "a web page (HTML), not the data: fetch it anew" if is_page else None


def upright(image: Image.Image) -> Image.Image:
    """Do what `PIL.ImageOps.exif_transpose` does, also where other tags than the orientation are damaged."""
    try:
        method = _ORIENTATIONS.get(int(image.getexif().get(ExifTag.Orientation, 1)))
    except Exception:  # noqa: BLE001  # a damaged EXIF block, with whatever error, does not spoil the pixels
        return image
    return image if method is None else image.transpose(method)


def has_range(image: Image.Image) -> bool:
    """Say whether the mode of a picture leaves open which of its values are black and white."""
    return image.mode in _RANGED or image.mode.startswith("I;16")


def to_rgb(image: Image.Image, values: Values | None = None) -> Image.Image:
    """Convert a Pillow image of any mode to RGB.

    * Transparency (RGBA, LA, PA, or a transparent colour of P, L and RGB) is composited on **white**: pictures with an
      alpha channel are mostly drawings and cut-outs made for white pages. Dropping the channel instead would show the
      arbitrary colours hidden below it, commonly black, where dark line art vanishes.
    * Greys of 16 or 32 bits and floats (``I;16*``, ``I``, ``F``) say nothing of the range that they use: `values` is
      black and white; None takes what suits this picture alone. NaN becomes black.
    * CMYK and the others use Pillow's conversion (no colour management).
    """
    if has_range(image):
        low, high = values or find_values([_range_of(image)])
        numbers = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=low, posinf=high, neginf=low)
        scaled = (numbers - low) / ((high - low) or 1.0) * 255
        shown = np.rint(scaled.clip(0, 255)).astype(np.uint8)
        if image.info.get(_PLANES):
            shown = np.ascontiguousarray(shown.reshape(3, -1, image.width).transpose(1, 2, 0))
        return Image.fromarray(shown).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        page.alpha_composite(layer)
        return page.convert("RGB")
    return image.convert("RGB")


def like_sample(image: Image.Image, values: Mapping[str, Sequence[float]]) -> Image.Image:
    """Convert any picture as those of a sample were, whose `values` are `Settled.values`."""
    image = _wide(image) or upright(image)
    found = values.get("float" if image.mode == "F" else "integer")
    return to_rgb(image, None if found is None else Values(*found))


@dataclass(frozen=True)
class Facts:
    """What a picture's pixels are."""

    spread: float  # standard deviation of its values, the largest of a channel's
    kind: str = "plain"  # 8 bits; or a "float" or "integer" of a range that must be found
    low: float = 0.0
    high: float = 255.0
    stated: float | None = None  # the largest value that can occur, where the file says so
    remark: str | None = None  # what was dropped


def find_values(pictures: Sequence[Facts]) -> Values:
    """Return the one range of values that all `pictures`, of one kind, are taken to use: the one that files state;
    else the first of the usual ones (0 to 1 for floats, 8 to 16 bits) that holds them, but for a hair; else what they
    reach. One float picture in a hundred may be out of the way.
    """
    floats = pictures[0].kind == "float"
    highs = [facts.high for facts in pictures]
    low = min(facts.low for facts in pictures)
    high = float(np.quantile(highs, 0.99, method="lower")) if floats else max(highs)
    usual = [1.0] * floats + [2.0**bits - 1 for bits in _BITS if high >= _DARKEST]
    stated = {facts.stated for facts in pictures}
    if len(stated) == 1 and (limit := stated.pop()) is not None:
        usual.insert(0, limit)
    for limit in usual:
        if low >= -(_HAIR - 1) * high and high <= _HAIR * limit:
            return Values(0.0, limit)
    return Values(-1.0, 1.0) if floats and low >= -_HAIR and high <= _HAIR else Values(low, high)


def _plain(image: Image.Image, remark: str | None) -> tuple[Image.Image, Facts]:
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:  # type: ignore[operator]
        remark = "transparency laid on white"
    rgb = to_rgb(image)
    rgb.info.clear()  # an orientation that has been applied
    return rgb, Facts(max(ImageStat.Stat(rgb).stddev), remark=remark)


def _range_of(image: Image.Image, stated: float | None = None, remark: str | None = None) -> Facts:
    numbers = np.asarray(image, dtype=np.float64)
    if image.mode != "F":
        return Facts(float(numbers.std()), "integer", float(numbers.min()), float(numbers.max()), stated, remark)
    finite = numbers[np.isfinite(numbers)]
    low, high = np.quantile(finite, (0.001, 0.999)).tolist() if finite.size else (0.0, 0.0)
    return Facts(float(finite.clip(low, high).std()) if finite.size else 0.0, "float", low, high, stated, remark)


def _stated(image: Image.Image, data: bytes) -> float | None:
    """Return the largest value that a file says to hold, where that is less than its numbers could."""
    limit = getattr(image, "tag_v2", {}).get(_STATED_BY_TIFF)
    if image.format == "PNG" and (at := data.find(b"sBIT", 0, 4096)) > 0:
        limit = 2 ** data[at + 4] - 1
    limit = limit[0] if isinstance(limit, tuple) else limit
    return float(limit) if isinstance(limit, (int, float)) and 0 < limit < 2**16 - 1 else None


def _wide(image: Image.Image) -> Image.Image | None:
    """Return 16-bit colours as a grey picture of three times the height, a plane for each; None if there are none.

    Pillow has no mode for them and keeps the upper 8 bits. The lower ones it reads if told that the order of the bytes
    is the other one.
    """
    modes = {_raw_mode(tile) for tile in getattr(image, "tile", ())}
    by_plane = getattr(image, "tag_v2", {}).get(_PLANAR_CONFIGURATION) == 2
    if by_plane or len(modes) != 1 or not modes <= {"RGB;16B", "RGB;16L", "RGB;16N"}:
        return None
    little = modes == {"RGB;16L"} or (modes == {"RGB;16N"} and sys.byteorder == "little")
    file: Any = image.fp  # type: ignore[attr-defined]
    halves, place = [], file.tell()
    for mode in ("RGB;16L", "RGB;16B") if little else ("RGB;16B", "RGB;16L"):
        file.seek(0)
        half: Any = Image.open(file, formats=[str(image.format)])
        half.tile = [
            tile._replace(args=mode if isinstance(tile.args, str) else (mode, *tile.args[1:])) for tile in half.tile
        ]
        halves.append(np.asarray(upright(half), dtype=np.uint16))
    file.seek(place)
    values = (halves[0] << 8) | halves[1]
    planes = Image.fromarray(np.concatenate([values[..., band] for band in range(3)]))
    planes.info[_PLANES] = True
    return planes


def _raw_mode(tile: Any) -> str:
    return str(tile.args if isinstance(tile.args, str) or not tile.args else tile.args[0])


def _remark(image: Image.Image) -> str | None:
    if image.mode == "RGBX":
        return "the fourth band dropped"
    if not has_range(image) and any(";16" in _raw_mode(tile) for tile in image.tile):  # type: ignore[attr-defined]
        return "16-bit colours read at their upper 8 bits"
    with contextlib.suppress(Exception):  # damaged further pages do not spoil the first
        if image.format == "TIFF" and image.n_frames > 1:  # type: ignore[attr-defined]
            return "the first page only"
    return None


def _without_no_data(image: Image.Image) -> Image.Image:
    """Make the value that a map has where nothing was measured, often -9999, black."""
    text = getattr(image, "tag_v2", {}).get(_NO_DATA)
    if text is None or image.mode not in _RANGED:
        return image
    numbers = np.asarray(image)
    with contextlib.suppress(ValueError):
        numbers = np.where(numbers == float(str(text).strip("\0 ")), numbers.dtype.type(0), numbers)
    return Image.fromarray(numbers)


def read_encoded(value: Any, *, fetcher: Fetcher | None = None, may_read: MayRead = None) -> bytes:
    """Return the bytes that a cell stands for: ``{"bytes": …, "path": …}``, bytes or what returns them, or the path
    or address of a file, if `may_read` says that it may be opened. An `ImageDecodeError` tells no name.
    """
    value = _content(value)
    if value is None:
        raise ImageDecodeError("no image in this row (null)")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    path = os.fspath(value)
    file = Path(path)
    if may_read is not None and not may_read(path):
        raise ImageDecodeError("lies outside the dataset; it is not opened")
    try:
        if "://" in path:
            return (fetcher or Fetcher(check=check_bytes)).fetch(path)
        if file.exists() and not file.is_file():  # a pipe would be waited for, a device never ends
            raise ImageDecodeError("cannot be read: no regular file")
        check_bytes(file.stat().st_size)
        with file.open("rb") as handle:
            start = handle.read(16)
            if not looks_like_image(start):
                raise ImageDecodeError(_why_not(start))
            return start + handle.read()
    except FileNotFoundError as error:
        raise ImageDecodeError("file not found") from error
    except (OSError, ValueError) as error:  # such as a name with a null byte
        raise ImageDecodeError(f"cannot be read: {getattr(error, 'strerror', None) or type(error).__name__}") from error


def _content(cell: Any) -> Any:
    if isinstance(cell, dict):
        cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    return cell() if callable(cell) else cell


def _name(cell: Any) -> str:
    """Return the name of a cell's file with that of its folder, if it has one."""
    path = cell.get("path") if isinstance(cell, dict) else cell
    is_path = isinstance(path, (str, os.PathLike))
    return "/".join(Path(os.fspath(path).split("::")[0]).parts[-2:]) if is_path else ""  # type: ignore[arg-type]


def check_bytes(size: int) -> None:
    """Raise an `ImageDecodeError` where a file, or what has come of it, is too large."""
    if size > MAX_BYTES:
        raise ImageDecodeError(f"a file of {size:,} bytes or more is larger than the limit of {MAX_BYTES:,} bytes")


def identify(value: Any) -> Any:
    """Return what tells a cell's content from another: a checksum of bytes; of a file, its name, size and time of
    change; of an address, the address.
    """
    try:
        value = _content(value)
    except ImageDecodeError as error:
        return str(error)
    if value is None or isinstance(value, (bytes, bytearray, memoryview)):
        return None if value is None else hashlib.sha256(value).hexdigest()
    path = Path(value)
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return os.fspath(value)
    return [path.name, facts.st_size, facts.st_mtime_ns]


@dataclass(frozen=True)
class StoredImage:
    """One decodable image: its pixels, or its encoded bytes where pixels would exceed the budget."""

    content: Image.Image | bytes
    sha256: str
    pixels: str = ""  # SHA-256 of the decoded pixels
    facts: Facts = Facts(255.0)
    values: Values | None = None

    def rgb(self) -> Image.Image:
        """Return the decoded image."""
        if isinstance(self.content, bytes):
            return decode_rgb(self.content, self.values)
        return to_rgb(self.content, self.values) if has_range(self.content) else self.content


class ImageStore:
    """Checks images by decoding each once, in threads, and keeps their pixels while a budget lasts."""

    def __init__(self, budget: int = DECODED_BUDGET, token: Any = None, may_read: MayRead = None) -> None:
        self._left, self._may_read = budget, may_read
        self._fetcher = Fetcher(token, check_bytes)
        self._lock = threading.Lock()

    def store_all(self, cells: Iterable[Any]) -> list[StoredImage | Unusable]:
        """Return for each cell the stored image, or why it is broken; a `HubError` if no address can be reached."""
        found: list[StoredImage | Unusable] = []
        cells = iter(cells)
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="task2vec-decode") as pool:
            while part := list(islice(cells, _READ_AT_ONCE)):
                found += pool.map(self._store, part)
        if found and all(isinstance(image, Unusable) for image in found):
            self._fetcher.check_all_lost(len(found))
        return found

    def _store(self, cell: Any) -> StoredImage | Unusable:
        try:
            data = read_encoded(cell, fetcher=self._fetcher, may_read=self._may_read)
            image, facts = decode(data)
        except ImageDecodeError as error:
            return Unusable(str(error), _name(cell))
        size = (3 if facts.kind == "plain" else 4) * image.width * image.height
        with self._lock:
            keep = size <= self._left
            self._left -= size if keep else 0
        pixels = hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()
        return StoredImage(image if keep else data, hashlib.sha256(data).hexdigest(), pixels, facts)


def settle(images: Sequence[StoredImage]) -> tuple[ImageSample, dict[str, Values], tuple[str, ...], tuple[str, ...]]:
    """Give the pictures of a sample one range of values; return them, the ranges that are not plain, what they are in
    words, and warnings.
    """
    values = {"plain": PLAIN}
    for kind in ("integer", "float"):
        if pictures := [image.facts for image in images if image.facts.kind == kind]:
            values[kind] = find_values(pictures)
    settled = [replace(image, values=values[image.facts.kind]) for image in images]
    flat = sum(image.facts.spread < (image.values.high - image.values.low) / 255 for image in settled if image.values)
    del values["plain"]
    notes = [str(found) for found in values.values() if found != PLAIN]
    remarks = Counter(image.facts.remark for image in images if image.facts.remark)
    notes += [f"{remark} in {count}" for remark, count in remarks.items()]
    warnings = (f"{flat} of {len(images)} pictures are nearly one colour, and show nothing",) if flat else ()
    return ImageSample(settled), values, tuple(notes), warnings


class ImageSample(Sequence[Image.Image]):
    """A sequence of RGB images.

    Immutable, so that any number of threads may read from it at once. The images are shared between readers: copy one
    before changing it in place. A slice is again an `ImageSample`, without a copy of the pixels.
    """

    def __init__(self, images: Iterable[StoredImage]) -> None:
        self._images = tuple(images)

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...

    @overload
    def __getitem__(self, index: slice) -> ImageSample: ...

    def __getitem__(self, index: int | slice) -> Image.Image | ImageSample:
        if isinstance(index, slice):
            return ImageSample(self._images[index])
        return self._images[index].rgb()

    def __repr__(self) -> str:
        return f"ImageSample({len(self)} images)"

    @property
    def sha256(self) -> tuple[str, ...]:
        """SHA-256 of each image's encoded bytes."""
        return tuple(image.sha256 for image in self._images)

    def take(self, positions: Iterable[int]) -> ImageSample:
        """Return the images at `positions`, in that order."""
        return ImageSample(self._images[position] for position in positions)
