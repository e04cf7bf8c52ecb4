"""Images: encoded bytes in, RGB Pillow images out, within Pillow's own limit against decompression bombs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from PIL.Image import Transpose

from hf_task2vec.errors import HubError, ImageDecodeError

MAX_PIXELS = 178_956_970
"""Largest image that is decoded, in pixels: the size from which Pillow itself speaks of a decompression bomb."""

MAX_BYTES = 4 * MAX_PIXELS
"""Largest image file that is read, in bytes: `MAX_PIXELS` uncompressed 8-bit pixels with transparency."""

DECODED_BUDGET = 256 * 2**20
"""Bytes of decoded pixels that one sample keeps in memory; images beyond it are decoded again when asked for."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "ICO")
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
_NO_IMAGE = f"no image of a known format ({', '.join(FORMATS)})"
_READ_AT_ONCE = 64  # images whose encoded bytes are in memory before they are decoded

# Above this many pixels one image is decoded at a time: eight threads at the limit would need more than 8 GB.
_LARGE_PIXELS = 2**25
_LARGE_IMAGE_LOCK = threading.Lock()


def looks_like_image(data: bytes) -> bool:
    """Return whether `data` starts with the signature of a format in `FORMATS`."""
    Image.init()
    accepted = (Image.OPEN[name][1] for name in FORMATS if name in Image.OPEN)  # a Pillow may lack a codec
    return any(accept is not None and accept(data[:16]) is True for accept in accepted)


def decode_rgb(data: bytes) -> Image.Image:
    """Decode the bytes of an image file to 8-bit RGB, with its EXIF orientation applied; of an animation, one frame.

    An `ImageDecodeError` has the reason alone, fit for a list of skipped images.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            size = image.width * image.height
            if size > MAX_PIXELS:  # Pillow's limit may have been switched off
                raise ImageDecodeError(f"{image.width} x {image.height} px is more than the limit of {MAX_PIXELS:,} px")
            with _LARGE_IMAGE_LOCK if size > _LARGE_PIXELS else contextlib.nullcontext():
                image.load()
                return to_rgb(_upright(image))
    except UnidentifiedImageError as error:
        known = looks_like_image(data)
        raise ImageDecodeError("damaged header" if known else _NO_IMAGE if data else "empty file") from error
    except ImageDecodeError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise nearly any type
        raise ImageDecodeError(f"{type(error).__name__}: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Do what `PIL.ImageOps.exif_transpose` does, also where other tags than the orientation are damaged."""
    try:
        method = _ORIENTATIONS.get(int(image.getexif().get(ExifTag.Orientation, 1)))
    except Exception:  # noqa: BLE001  # a damaged EXIF block, with whatever error, does not spoil the pixels
        return image
    return image if method is None else image.transpose(method)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image of any mode to RGB.

    * Transparency (RGBA, LA, PA, or a transparent colour of P, L and RGB) is composited on **white**: pictures with an
      alpha channel are mostly drawings and cut-outs made for white pages. Dropping the channel instead would show the
      arbitrary colours hidden below it, commonly black, where dark line art vanishes.
    * 16-bit greys (``I;16*``) are scaled from 0..65535 to 0..255; Pillow's own conversion clips them to white.
    * ``I`` (32-bit) and ``F`` say nothing of their range. It is taken from the values: 0..1 (``F`` only), 0..255 or
      0..65535, whichever is the first to hold them all, else the image's own minimum and maximum. NaN becomes black.
    * CMYK and the others use Pillow's conversion (no colour management).
    """
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image, dtype=np.float64), 0.0, 65535.0)
    if image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        for limit in (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0):
            if low >= 0 and high <= limit:
                return _grey(values, 0.0, limit)
        return _grey(values, low, high)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        page.alpha_composite(layer)
        return page.convert("RGB")
    return image.convert("RGB")


def _grey(values: np.ndarray, low: float, high: float) -> Image.Image:
    """RGB image of grey values, `low` being black and `high` white."""
    scaled = (values - low) / ((high - low) or 1.0) * 255
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def read_encoded(
    value: Any, *, token: str | bool | None = None, may_read: Callable[[str], bool] | None = None
) -> bytes:
    """Return the bytes that a cell stands for: ``{"bytes": …, "path": …}``, bytes, or the path or address of a file.

    `may_read` says of a path or address whether it may be opened; by default all may. An `ImageDecodeError` tells only
    the file's name, never its folder; an address that cannot be reached is no fault of the image, but a `HubError`.
    """
    value = _content(value)
    if value is None:
        raise ImageDecodeError("no image in this row (null)")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    path = os.fspath(value)
    file, shown = Path(path), Path(path.split("::")[0]).name
    if may_read is not None and not may_read(path):
        raise ImageDecodeError(f"{shown!r} lies outside the dataset; it is not opened")
    try:
        if "://" in path:
            return _read_remote(path, token)
        if file.exists() and not file.is_file():  # a pipe would be waited for, a device never ends
            raise ImageDecodeError(f"file {shown!r} cannot be read: no regular file")
        _check_bytes(file.stat().st_size)
        with file.open("rb") as handle:
            start = handle.read(16)
            if not looks_like_image(start):
                raise ImageDecodeError(_NO_IMAGE if start else "empty file")
            return start + handle.read()
    except FileNotFoundError as error:
        raise ImageDecodeError(f"file {shown!r} not found") from error
    except ConnectionError as error:
        raise HubError(f"image {shown!r} cannot be fetched: {type(error).__name__}; check the connection") from error
    except (OSError, ValueError) as error:  # such as a name with a null byte
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ImageDecodeError(f"file {shown!r} cannot be read: {reason}") from error


def _content(cell: Any) -> Any:
    if isinstance(cell, dict):
        return cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    return cell


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ImageDecodeError(f"a file of {size:,} bytes or more is larger than the limit of {MAX_BYTES:,} bytes")


def identify(value: Any) -> Any:
    """Return what tells a cell's content from another, as JSON, without opening an image file.

    That is a checksum of bytes; of a file, its name, size and time of change; of an address, the address.
    """
    value = _content(value)
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
    """One decodable image: its RGB pixels, or its encoded bytes where pixels would exceed the budget."""

    content: Image.Image | bytes
    sha256: str

    def rgb(self) -> Image.Image:
        """Return the decoded image."""
        return decode_rgb(self.content) if isinstance(self.content, bytes) else self.content


class ImageStore:
    """Checks images by decoding each once, in threads, and keeps their pixels (3 bytes each) while a budget lasts."""

    def __init__(self, budget: int = DECODED_BUDGET) -> None:
        self._left = budget
        self._lock = threading.Lock()

    def store(self, data: bytes) -> StoredImage:
        """Decode one image and return it in the form in which it is kept; raises `ImageDecodeError`."""
        image = decode_rgb(data)
        size = 3 * image.width * image.height
        with self._lock:
            keep = size <= self._left
            self._left -= size if keep else 0
        return StoredImage(image if keep else data, hashlib.sha256(data).hexdigest())

    def store_all(
        self,
        cells: Iterable[Any],
        *,
        token: str | bool | None = None,
        may_read: Callable[[str], bool] | None = None,
    ) -> list[StoredImage | str]:
        """Return for each cell of an image column the stored image, or the reason why it is broken."""

        def attempt(cell: Any) -> StoredImage | str:
            try:
                return self.store(read_encoded(cell, token=token, may_read=may_read))
            except ImageDecodeError as error:
                return str(error)

        found: list[StoredImage | str] = []
        cells = iter(cells)
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="task2vec-decode") as pool:
            while part := list(islice(cells, _READ_AT_ONCE)):
                found += pool.map(attempt, part)
        return found


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


def _read_remote(path: str, token: str | bool | None) -> bytes:
    from datasets import DownloadConfig
    from datasets.utils.file_utils import xopen

    data = bytearray()
    with xopen(path, "rb", download_config=DownloadConfig(token=token)) as handle:
        while part := handle.read(2**20):
            data += part
            _check_bytes(len(data))
    return bytes(data)
