"""The first values of a Parquet page without the rest of it.

Parquet readers fetch whole pages, and a row group of an image dataset is often a single page of many megabytes. But
the values of a page of byte strings stand one after the other, so the first bytes of a page are its first values. What
is read here is the part of the format that this needs (https://parquet.apache.org/docs/file-format/): data pages of
both versions, and dictionaries, of plain byte strings.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .parquet_bytes import (
    HEADER,
    MOST_BYTES,
    DamagedPageError,
    IncompleteError,
    decode_hybrid,
    decompress,
    parse_struct,
)

#: Encodings that are understood: of values, of dictionary indices, and of levels.
ENCODINGS = frozenset({"PLAIN", "RLE", "BIT_PACKED", "RLE_DICTIONARY", "PLAIN_DICTIONARY"})

Fetch = Callable[[int, int], bytes]
"""Returns at least so many bytes from an offset in the file on, fewer only at the end of what may be read."""

_DATA, _INDEX, _DICTIONARY, _DATA_V2 = range(4)
_PLAIN, _DICTIONARY_ENCODINGS = 0, (2, 8)


@dataclass(frozen=True)
class Leaf:
    """What decoding a column chunk needs to know of it.

    Attributes
    ----------
    codec
        One of `parquet_bytes.CODECS`.
    max_level
        Definition level of a value that is there.
    dictionary
        Offset of the dictionary page in the file, None without one.
    mean
        Mean size of a value in the file, bytes: how much to fetch at first.
    """

    codec: str
    max_level: int
    dictionary: int | None
    mean: float


def first_values(fetch: Fetch, offset: int, count: int, leaf: Leaf) -> list[bytes | None]:
    """Return the first values from a page on.

    Parameters
    ----------
    fetch
        Reads from the file.
    offset
        Where the header of a data page starts.
    count
        Values wanted; they may lie in several pages, one after the other.
    leaf
        The column chunk.

    Raises
    ------
    DamagedPageError
        The bytes are not what they should be, or end too soon.
    """
    small = leaf.dictionary is not None  # then the page holds a few bytes a row
    length = HEADER + 4 * count if small else expected_bytes(count, leaf.mean)
    return _growing(fetch, offset, length, lambda data: _values(data, count, leaf, fetch))


def expected_bytes(count: int, mean: float) -> int:
    """Return how many bytes to fetch for `count` values: sizes vary, and a second request is dear too."""
    return int(HEADER + mean * (count + 0.5 * count**0.5))


def _growing(fetch: Fetch, offset: int, length: int, parse: Callable[[bytes], Any]) -> Any:
    got = -1
    while True:
        data = fetch(offset, length)
        try:
            return parse(data)
        except IncompleteError as error:
            if len(data) <= got:
                raise DamagedPageError(f"the page at byte {offset} ends too soon") from error
            got, length = len(data), len(data) + max(error.missing, 64)
        except (LookupError, TypeError, ValueError, struct.error, zlib.error, OSError, MemoryError) as error:
            raise DamagedPageError(f"no Parquet page at byte {offset}: {error}") from error


def _values(data: bytes, count: int, leaf: Leaf, fetch: Fetch) -> list[bytes | None]:
    values: list[bytes | None] = []
    position = 0
    while len(values) < count:
        header, start = parse_struct(data, position)
        stored, whole = header[3], header[2]
        _check(stored, whole)
        body = data[start : start + stored]
        position = start + stored
        if header[1] in (_INDEX, _DICTIONARY):
            continue
        levels, encoding, content = _split(header, body, leaf, count - len(values))
        present = levels == leaf.max_level
        found = _decode(content, encoding, int(present.sum()), leaf, fetch, short=len(body) < stored)
        values += [next(found) if there else None for there in present.tolist()]
    return values


def _check(stored: int, whole: int, *counts: int) -> None:
    if min(stored, whole, *counts) < 0 or whole > MOST_BYTES:
        raise DamagedPageError(f"a page of {stored} bytes for {whole}, with counts {counts}")


def _split(header: dict[int, Any], body: bytes, leaf: Leaf, wanted: int) -> tuple[np.ndarray, int, bytes]:
    """Return the first definition levels of a data page, its encoding, and as much of its values as there is."""
    width, stored, whole = leaf.max_level.bit_length(), header[3], header[2]
    if header[1] == _DATA:
        facts = header[5]
        n_values, encoding = min(facts[1], wanted), facts[2]
        _check(stored, whole, n_values)
        content = decompress(body, leaf.codec, stored, whole)
        if not width:
            return np.zeros(n_values, dtype=np.int64), encoding, content
        if len(content) < 4:
            raise IncompleteError(HEADER)
        (size,) = struct.unpack_from("<I", content)
        if len(content) < 4 + size:
            raise IncompleteError(size)
        return decode_hybrid(content[4 : 4 + size], width, n_values), encoding, content[4 + size :]
    facts = header[8]
    n_values, encoding, n_level, n_repetition = min(facts[1], wanted), facts[4], facts[5], facts[6]
    skipped = n_level + n_repetition
    _check(stored - skipped, whole - skipped, n_values, n_level, n_repetition)
    if len(body) < skipped:
        raise IncompleteError(skipped - len(body))
    codec = leaf.codec if facts.get(7, True) else "UNCOMPRESSED"
    content = decompress(body[skipped:], codec, stored - skipped, whole - skipped)
    if not width:
        return np.zeros(n_values, dtype=np.int64), encoding, content
    return decode_hybrid(body[n_repetition:skipped], width, n_values), encoding, content


def _decode(content: bytes, encoding: int, count: int, leaf: Leaf, fetch: Fetch, *, short: bool) -> Any:
    if encoding == _PLAIN:
        return iter(_byte_strings(content, count))
    if encoding not in _DICTIONARY_ENCODINGS or leaf.dictionary is None:
        raise DamagedPageError(f"encoding {encoding} is not understood")
    if not count:
        return iter(())
    if not content:
        raise IncompleteError(HEADER)
    indices = decode_hybrid(content[1:], content[0], count, short=short)
    entries = _dictionary(fetch, int(indices.max()) + 1, leaf)
    return iter([entries[index] for index in indices.tolist()])


def _dictionary(fetch: Fetch, count: int, leaf: Leaf) -> list[bytes]:
    def parse(data: bytes) -> list[bytes]:
        header, start = parse_struct(data, 0)
        _check(header[3], header[2])
        return _byte_strings(decompress(data[start : start + header[3]], leaf.codec, header[3], header[2]), count)

    assert leaf.dictionary is not None
    found: list[bytes] = _growing(fetch, leaf.dictionary, expected_bytes(count, leaf.mean), parse)
    return found


def _byte_strings(content: bytes, count: int) -> list[bytes]:
    found, position = [], 0
    for _ in range(count):
        if len(content) < position + 4:
            raise IncompleteError(HEADER)
        (size,) = struct.unpack_from("<I", content, position)
        end = position + 4 + size
        if len(content) < end:
            raise IncompleteError(end - len(content) + 64)
        found.append(content[position + 4 : end])
        position = end
    return found
