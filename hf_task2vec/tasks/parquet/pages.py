"""The first values of a Parquet page without the rest of it.

Parquet readers fetch whole pages, and a row group of an image dataset is often a single page of many megabytes. But
the values of a page of byte strings stand one after the other, so the first bytes of a page are its first values. What
is read here is the part of the format that this needs (https://parquet.apache.org/docs/file-format/): data pages of
both versions, and dictionaries, of plain byte strings; page headers in Thrift's compact protocol, levels and dictionary
indices in the RLE/bit-packing hybrid, and the beginning of Snappy, zlib and Zstandard streams.

Files come from strangers: sizes, counts, depth and numbers are bounded, so that none is a trap.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Codecs of which a prefix can be decompressed.
CODECS = frozenset({"UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD"})
#: Encodings that are understood: of values, of dictionary indices, and of levels.
ENCODINGS = frozenset({"PLAIN", "RLE", "BIT_PACKED", "RLE_DICTIONARY", "PLAIN_DICTIONARY"})
#: Uncompressed bytes of a page beyond which it is taken for a trap.
MOST_BYTES = 1 << 30

Fetch = Callable[[int, int], bytes]
"""Returns so many bytes from an offset in the file on, fewer only at the end of what may be read."""

_DATA, _INDEX, _DICTIONARY, _DATA_V2 = range(4)
_PLAIN, _DICTIONARY_ENCODINGS = 0, (2, 8)
_HEADER = 1024  # more bytes than a page header takes, unless it holds statistics
_BOOLEANS, _STRUCT = (1, 2), 12
_MOST_DEPTH = 16  # of structs in structs; Parquet's own have a few
_MOST_WIDTH = 32  # bits of a level or dictionary index


class DamagedPageError(ValueError):
    """The bytes are no Parquet page of the kinds that are understood."""


class IncompleteError(Exception):
    """More bytes are needed, probably `missing`."""

    def __init__(self, missing: int) -> None:
        super().__init__(missing)
        self.missing = missing


@dataclass(frozen=True)
class Leaf:
    """What decoding a column chunk needs to know of it."""

    codec: str
    """One of `CODECS`."""
    max_level: int
    """Definition level of a value that is there."""
    dictionary: int | None
    """Offset of the dictionary page in the file, None without one."""
    mean: float
    """Mean size of a value in the file, bytes: how much to fetch at first."""


def first_values(fetch: Fetch, offset: int, count: int, leaf: Leaf) -> list[bytes | None]:
    """Return the first `count` values from the data page at `offset` on, and the pages that follow it.

    Raises
    ------
    DamagedPageError
        The bytes are not what they should be, or end too soon.
    """
    small = leaf.dictionary is not None  # then the page holds a few bytes a row
    length = _HEADER + 4 * count if small else expected_bytes(count, leaf.mean)
    return _growing(fetch, offset, length, lambda data: _values(data, count, leaf, fetch))


def expected_bytes(count: int, mean: float) -> int:
    """Return how many bytes to fetch for `count` values: sizes vary, and a second request is dear too."""
    return int(_HEADER + mean * (count + 0.5 * count**0.5))


def _growing(fetch: Fetch, offset: int, length: int, parse: Callable[[bytes], Any]) -> Any:
    data = b""
    while True:
        more = fetch(offset + len(data), length)
        data += more
        try:
            return parse(data)
        except IncompleteError as error:
            if not more:
                raise DamagedPageError(f"the page at byte {offset} ends too soon") from error
            length = max(error.missing, 64)
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
        content = _decompress(body, leaf.codec, stored, whole)
        if not width:
            return np.zeros(n_values, dtype=np.int64), encoding, content
        if len(content) < 4:
            raise IncompleteError(_HEADER)
        (size,) = struct.unpack_from("<I", content)
        if len(content) < 4 + size:
            raise IncompleteError(size)
        return _decode_hybrid(content[4 : 4 + size], width, n_values), encoding, content[4 + size :]
    facts = header[8]
    n_values, encoding, n_level, n_repetition = min(facts[1], wanted), facts[4], facts[5], facts[6]
    skipped = n_level + n_repetition
    _check(stored - skipped, whole - skipped, n_values, n_level, n_repetition)
    if len(body) < skipped:
        raise IncompleteError(skipped - len(body))
    codec = leaf.codec if facts.get(7, True) else "UNCOMPRESSED"
    content = _decompress(body[skipped:], codec, stored - skipped, whole - skipped)
    if not width:
        return np.zeros(n_values, dtype=np.int64), encoding, content
    return _decode_hybrid(body[n_repetition:skipped], width, n_values), encoding, content


def _decode(content: bytes, encoding: int, count: int, leaf: Leaf, fetch: Fetch, *, short: bool) -> Any:
    if encoding == _PLAIN:
        return iter(_byte_strings(content, count))
    if encoding not in _DICTIONARY_ENCODINGS or leaf.dictionary is None:
        raise DamagedPageError(f"encoding {encoding} is not understood")
    if not count:
        return iter(())
    if not content:
        raise IncompleteError(_HEADER)
    indices = _decode_hybrid(content[1:], content[0], count, short=short)
    entries = _dictionary(fetch, int(indices.max()) + 1, leaf)
    return iter([entries[index] for index in indices.tolist()])


def _dictionary(fetch: Fetch, count: int, leaf: Leaf) -> list[bytes]:
    def parse(data: bytes) -> list[bytes]:
        header, start = parse_struct(data, 0)
        _check(header[3], header[2])
        return _byte_strings(_decompress(data[start : start + header[3]], leaf.codec, header[3], header[2]), count)

    assert leaf.dictionary is not None
    found: list[bytes] = _growing(fetch, leaf.dictionary, expected_bytes(count, leaf.mean), parse)
    return found


def _byte_strings(content: bytes, count: int) -> list[bytes]:
    found, position = [], 0
    for _ in range(count):
        if len(content) < position + 4:
            raise IncompleteError(_HEADER)
        (size,) = struct.unpack_from("<I", content, position)
        end = position + 4 + size
        if len(content) < end:
            raise IncompleteError(end - len(content) + 64)
        found.append(content[position + 4 : end])
        position = end
    return found


def _decode_hybrid(data: bytes, width: int, count: int, *, short: bool = False) -> np.ndarray:
    """Decode `count` numbers of `width` bits in the RLE/bit-packing hybrid."""
    if width == 0:
        return np.zeros(count, dtype=np.int64)
    if width > _MOST_WIDTH:
        raise DamagedPageError(f"numbers of {width} bits")
    parts, have, position = [], 0, 0
    weights = 1 << np.arange(width, dtype=np.int64)
    while have < count:
        if position >= len(data):
            raise IncompleteError(_HEADER) if short else DamagedPageError("too few levels or indices")
        head, position = _varint(data, position)
        size = width * (head >> 1) if head & 1 else (width + 7) // 8
        raw = data[position : position + size]
        position += size
        if len(raw) < size and not head & 1:
            raise IncompleteError(size)
        if head & 1:
            bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), bitorder="little")
            part = bits[: len(bits) // width * width].reshape(-1, width) @ weights
        else:
            part = np.full(min(head >> 1, count), int.from_bytes(raw, "little"), dtype=np.int64)
        parts.append(part)
        have += len(part)
    return np.concatenate(parts)[:count] if parts else np.zeros(0, dtype=np.int64)


def _decompress(data: bytes, codec: str, stored: int, whole: int) -> bytes:
    """Decompress a page, or as much of it as `data` tells of."""
    if codec == "UNCOMPRESSED" or not data:
        return data
    if len(data) == stored:
        import pyarrow as pa

        return bytes(pa.Codec(codec.lower()).decompress(data, decompressed_size=whole, asbytes=True))
    if codec == "SNAPPY":
        return unpack_snappy(data)
    if codec == "GZIP":
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, whole)
    return _zstd(data, whole)


def _zstd(data: bytes, whole: int) -> bytes:
    import pyarrow as pa

    found = bytearray()
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        try:
            while len(found) < whole and (part := stream.read(1 << 10)):  # a read that hits the end gives nothing
                found += part
        except OSError:  # the end of what there is
            pass
    return bytes(found)


def unpack_snappy(data: bytes) -> bytes:
    """Decompress the beginning of a raw Snappy stream (https://github.com/google/snappy, format_description.txt)."""
    _, position = _varint(data, 0)
    found = bytearray()
    while position < len(data):
        tag = data[position]
        kind, size = tag & 3, tag >> 2
        extra = (max(size - 59, 0), 1, 2, 4)[kind]
        if position + 1 + extra > len(data):
            break
        number = int.from_bytes(data[position + 1 : position + 1 + extra], "little")
        position += 1 + extra
        if kind == 0:
            size = (number if extra else size) + 1
            found += data[position : position + size]
            position += size
            continue
        size, back = ((size & 7) + 4, number | (tag >> 5) << 8) if kind == 1 else (size + 1, number)
        if not 0 < back <= len(found):
            raise DamagedPageError("a Snappy stream refers to what is before its start")
        piece = bytes(found[-back:][:size])
        found += (piece * (size // len(piece) + 1))[:size]
    return bytes(found)


def parse_struct(data: bytes, position: int) -> tuple[dict[int, Any], int]:
    """Return a Thrift struct of the compact protocol as values by field number, and where it ends."""
    try:
        return _struct(data, position, 0)
    except IndexError:
        raise IncompleteError(_HEADER) from None


def _struct(data: bytes, position: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > _MOST_DEPTH:
        raise DamagedPageError("structs too deep in each other")
    fields: dict[int, Any] = {}
    number = 0
    while True:
        head = data[position]
        position += 1
        if head == 0:
            return fields, position
        if head >> 4:
            number += head >> 4
        else:
            number, position = _integer(data, position)
        kind = head & 15
        if kind in _BOOLEANS:
            fields[number] = kind == 1
        else:
            fields[number], position = _value(data, position, kind, depth)


def _value(data: bytes, position: int, kind: int, depth: int) -> tuple[Any, int]:
    if depth > _MOST_DEPTH:
        raise DamagedPageError("lists too deep in each other")
    if kind in (*_BOOLEANS, 3):  # of a list: a byte each
        return data[position], position + 1
    if kind in (4, 5, 6):
        return _integer(data, position)
    if kind == 7:
        return struct.unpack("<d", data[position : position + 8])[0], position + 8
    if kind == 8:
        size, position = _varint(data, position)
        if position + size > len(data):
            raise IncompleteError(position + size - len(data))
        return data[position : position + size], position + size
    if kind in (9, 10):
        head = data[position]
        size, position = (head >> 4, position + 1) if head >> 4 < 15 else _varint(data, position + 1)
        found = []
        for _ in range(size):
            item, position = _value(data, position, head & 15, depth + 1)
            found.append(item)
        return found, position
    if kind == _STRUCT:
        return _struct(data, position, depth + 1)
    raise DamagedPageError(f"Thrift type {kind} is not understood")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
        shift += 7
        if shift > 63:
            raise DamagedPageError("a number of more than 64 bits")


def _integer(data: bytes, position: int) -> tuple[int, int]:
    number, position = _varint(data, position)
    return (number >> 1) ^ -(number & 1), position
