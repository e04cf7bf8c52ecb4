"""Images: encoded bytes in, RGB Pillow images out, with a guard against decompression bombs.

Nothing of Pillow's global state is changed, so that a host application keeps its own limits and warning filters.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ExifTags import Base as ExifTag
from PIL.Image import Transpose

from .errors import HubError, ImageDecodeError

MAX_PIXELS = 178_956_970
"""Largest image that is decoded, in pixels: the size from which Pillow itself speaks of a decompression bomb."""

MAX_BYTES = 4 * MAX_PIXELS
"""Largest image file that is read, in bytes: `MAX_PIXELS` uncompressed 8-bit pixels with transparency."""

DECODED_BUDGET = 256 * 2**20
"""Bytes of decoded pixels that one sample keeps in memory; images beyond it are decoded again when asked for."""

# The formats of image datasets, by Pillow's name. The rest of Pillow's list stays out on purpose: some have no
# signature (any bytes would do), and some run other programs (EPS).
_PLUGINS = (
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
    GifImagePlugin,
    BmpImagePlugin,
    TiffImagePlugin,
    PpmImagePlugin,
    Jpeg2KImagePlugin,
    IcoImagePlugin,
)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "ICO")
_NO_IMAGE = f"no image of a known format ({', '.join(FORMATS)})"

_ORIENTATIONS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

# Above this many pixels one image is decoded at a time: eight threads at the limit would need more than 8 GB.
_LARGE_PIXELS = 2**25
_LARGE_IMAGE_LOCK = threading.Lock()
_STRIP_PIXELS = 2**22  # pixels converted at a time where a conversion needs several copies of what it works on
_HEAD_BYTES = 2**16  # a longer file is read on only if it starts like an image


def looks_like_image(data: bytes) -> bool:
    """Return whether `data` starts with the signature of a format in `FORMATS`."""
    return any(_accepts(name, data[:16]) for name in FORMATS)


def decode_rgb(data: bytes) -> Image.Image:
    """Decode an encoded image to 8-bit RGB, with its EXIF orientation applied.

    Parameters
    ----------
    data
        The bytes of an image file in one of `FORMATS`; of an animation the first frame is taken.

    Returns
    -------
    PIL.Image.Image
        Mode ``"RGB"``; see `to_rgb` for how other modes are converted.

    Raises
    ------
    ImageDecodeError
        If the format is unknown, the data are damaged, or the header announces more than `MAX_PIXELS` pixels (found
        before any pixel is decoded). The message is the reason alone, fit for a list of skipped images.
    """
    try:
        image = _open(data)
        _check_size(*image.size)
        width, height = image.size
        with _LARGE_IMAGE_LOCK if width * height > _LARGE_PIXELS else contextlib.nullcontext():
            _load(image)
            return _upright(to_rgb(image), _orientation(image))
    except ImageDecodeError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise nearly any type
        raise ImageDecodeError(f"{type(error).__name__}: {error}") from error


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
        return _by_strips(image, lambda strip: _grey(np.asarray(strip) / 65535))
    if image.mode in ("I", "F"):
        low, high = _range(image)
        return _by_strips(image, lambda strip: _grey((_finite(strip) - low) / ((high - low) or 1.0)))
    if image.has_transparency_data:
        return _by_strips(image, _on_white)
    return image.convert("RGB")


def read_encoded(
    value: Any, *, token: str | bool | None = None, may_read: Callable[[str], bool] | None = None
) -> bytes:
    """Return the encoded bytes that a cell of an image column stands for.

    Parameters
    ----------
    value
        ``{"bytes": …, "path": …}``, bytes, or the path or address of an image file.
    token
        Hub token for addresses on the Hub.
    may_read
        Says of a path or address whether it may be opened; by default all may.

    Raises
    ------
    ImageDecodeError
        If the cell is empty, what it names may not be opened, or the file is missing, larger than `MAX_BYTES`, or no
        image; only the file's name is told, never its folder.
    HubError
        If an address cannot be reached: that is no fault of the image.
    """
    if isinstance(value, dict):
        data, path = value.get("bytes"), value.get("path")
        value = path if data is None else data
    if value is None:
        raise ImageDecodeError("no image in this row (null)")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    path = os.fspath(value)
    shown = Path(path.split("::")[0]).name
    if may_read is not None and not may_read(path):
        raise ImageDecodeError(f"{shown!r} lies outside the dataset; it is not opened")
    try:
        if "://" in path:
            return _read_remote(path, token)
        if not stat.S_ISREG((found := Path(path).stat()).st_mode):  # a pipe would be waited for, a device never ends
            raise ImageDecodeError(f"file {shown!r} cannot be read: no regular file")
        _check_bytes(found.st_size)
        with open(path, "rb") as handle:
            if found.st_size > _HEAD_BYTES and not looks_like_image(handle.read(16)):
                raise ImageDecodeError(_NO_IMAGE)
            handle.seek(0)
            return handle.read()
    except FileNotFoundError as error:
        raise ImageDecodeError(f"file {shown!r} not found") from error
    except ConnectionError as error:
        raise HubError(f"image {shown!r} cannot be fetched: {type(error).__name__}; check the connection") from error
    except OSError as error:
        raise ImageDecodeError(f"file {shown!r} cannot be read: {error.strerror or type(error).__name__}") from error


@dataclass(frozen=True)
class StoredImage:
    """One decodable image: its RGB pixels, or its encoded bytes where pixels would exceed the budget."""

    content: Image.Image | bytes
    sha256: str

    def rgb(self) -> Image.Image:
        """Return the decoded image."""
        return decode_rgb(self.content) if isinstance(self.content, bytes) else self.content


class ImageStore:
    """Checks images by decoding each once, in threads, and keeps their pixels while a budget lasts.

    Parameters
    ----------
    budget
        Bytes of decoded pixels (3 a pixel) to keep.
    """

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

        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="task2vec-decode") as pool:
            return list(pool.map(attempt, cells))


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


def _accepts(name: str, prefix: bytes) -> bool:
    if name not in Image.OPEN:  # a Pillow built without that codec
        return False
    accept = Image.OPEN[name][1]
    return accept is not None and accept(prefix) is True


def _open(data: bytes) -> ImageFile.ImageFile:
    """Do what `PIL.Image.open` does, without its warning for large images.

    That warning can only be silenced through a global (`Image.MAX_IMAGE_PIXELS`, the warning filters), which other
    threads share; the registry of formats below it is public and warns of nothing.
    """
    for name in FORMATS:
        if _accepts(name, data[:16]):
            try:
                if name == "ICO":
                    _check_icon(data)
                return Image.OPEN[name][0](io.BytesIO(data), "")
            except (SyntaxError, IndexError, TypeError, struct.error) as error:  # as in `PIL.Image.open`
                raise ImageDecodeError(f"damaged {name} header: {error}") from error
    raise ImageDecodeError(_NO_IMAGE if data else "empty file")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageDecodeError(f"{width} x {height} px is more than the limit of {MAX_PIXELS:,} px")


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ImageDecodeError(f"a file of {size:,} bytes or more is larger than the limit of {MAX_BYTES:,} bytes")


def _check_icon(data: bytes) -> None:
    """Check the size of an icon's image itself: the reader decodes it at once, whatever the table before it says."""
    start = IcoImagePlugin.IcoFile(io.BytesIO(data)).entry[0].offset
    is_png = data[start : start + 8] == b"\x89PNG\r\n\x1a\n"
    reader = PngImagePlugin.PngImageFile if is_png else BmpImagePlugin.DibImageFile
    _check_size(*reader(io.BytesIO(data[start:])).size)


def _load(image: ImageFile.ImageFile) -> None:
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.width * image.height > _LARGE_PIXELS:
        # The only reader that repeats the size warning while it decodes, and only if it has to make the canvas itself.
        image.im = Image.core.new(image.mode, image._tile_size)
    image.load()


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTag.Orientation, 1))
    except Exception:  # noqa: BLE001  # a damaged EXIF block, with whatever error, does not spoil the pixels
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    method = _ORIENTATIONS.get(orientation)
    return image if method is None else image.transpose(method)


def _strips(image: Image.Image) -> Iterator[tuple[tuple[int, int, int, int], Image.Image]]:
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        yield box, image.crop(box)


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    # The copies that `convert` makes are those of a strip: of a whole image they would be gigabytes.
    page = Image.new("RGB", image.size)
    for box, strip in _strips(image):
        page.paste(convert(strip), box)
    return page


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    page = Image.new("RGBA", layer.size, "white")
    page.alpha_composite(layer)
    return page.convert("RGB")


def _grey(values: np.ndarray) -> Image.Image:
    """RGB image of grey values in [0, 1]."""
    return Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert("RGB")


def _finite(image: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _range(image: Image.Image) -> tuple[float, float]:
    """Return the values that become black and white."""
    ends = [(float(values.min()), float(values.max())) for values in (_finite(strip) for _, strip in _strips(image))]
    low, high = min(least for least, _ in ends), max(most for _, most in ends)
    for limit in (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0):
        if low >= 0 and high <= limit:
            return 0.0, limit
    return low, high


def _read_remote(path: str, token: str | bool | None) -> bytes:
    from datasets import DownloadConfig
    from datasets.utils.file_utils import xopen

    data = bytearray()
    with xopen(path, "rb", download_config=DownloadConfig(token=token)) as handle:
        while part := handle.read(2**20):
            data += part
            _check_bytes(len(data))
    return bytes(data)
