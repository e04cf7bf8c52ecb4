"""The first values of a Parquet page without the rest of it.

Parquet readers fetch whole pages, and a row group of an image dataset is often a single page of many megabytes. But
the values of a page of byte strings stand one after the other, so the first bytes of a page are its first values. What
is read here is the part of the format that this needs (https://parquet.apache.org/docs/file-format/): data pages of
both versions, and dictionaries, of plain byte strings; page headers in Thrift's compact protocol, levels and dictionary
indices in the RLE/bit-packing hybrid, and the beginning of Snappy, zlib and Zstandard streams.

Files come from strangers: sizes, counts, depth and numbers are bounded, so that none is a trap.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

CODECS = frozenset({"UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD"})  # of which a prefix can be decompressed
# Of values, of dictionary indices, and of levels.
ENCODINGS = frozenset({"PLAIN", "RLE", "BIT_PACKED", "RLE_DICTIONARY", "PLAIN_DICTIONARY"})
MOST_BYTES = 1 << 30  # uncompressed; a page of more is taken for a trap

T = TypeVar("T")
Fetch = Callable[[int, int], bytes]  # so many bytes from an offset on, fewer only at the end of what may be read

_DATA, _INDEX, _DICTIONARY = range(3)  # and 3: data of the second version
_PLAIN, _DICTIONARY_ENCODINGS = 0, (2, 8)
_HEADER = 1024  # more bytes than a page header takes, unless it holds statistics
_MORE = 256  # bytes that are fetched beyond those known to be missing
_BOOLEANS, _STRUCT = (1, 2), 12
_MOST_DEPTH = 16  # of structs in structs; Parquet's own have a few
_MOST_WIDTH = 32  # bits of a level or dictionary index


class DamagedPageError(ValueError):
    """The bytes are no Parquet page of the kinds that are understood."""


class IncompleteError(Exception):
    """More bytes are needed, probably as many as the argument says."""


@dataclass(frozen=True)
class Leaf:
    """What decoding a column chunk needs to know of it."""

    codec: str  # one of `CODECS`
    max_level: int  # definition level of a value that is there
    dictionary: int | None  # offset of the dictionary page in the file, None without one
    mean: float  # mean size of a value in the file, bytes: how much to fetch at first


def first_values(fetch: Fetch, offset: int, count: int, leaf: Leaf) -> list[bytes | None]:
    """Return the first `count` values of the data page at `offset` and those that follow, or a `DamagedPageError`."""
    small = leaf.dictionary is not None  # then the page holds a few bytes a row
    length = _HEADER + 4 * count if small else expected_bytes(count, leaf.mean)
    return _growing(fetch, offset, length, lambda data: _values(data, count, leaf, fetch))


def expected_bytes(count: int, mean: float) -> int:
    """Return how many bytes to fetch for `count` values: sizes vary, and a second request is dear too."""
    return int(_HEADER + mean * (count + 0.5 * count**0.5))


def parse_struct(data: bytes, position: int = 0) -> tuple[dict[int, Any], int]:
    """Return a Thrift struct of the compact protocol as values by field number, and where it ends."""
    reader = _Reader(data, position)
    return reader.struct(), reader.position


class _Reader:
    """Reads the numbers and structs of the format from what is there of some bytes."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data, self.position = data, position

    def take(self, size: int) -> bytes:
        start, self.position = self.position, self.position + size
        if size < 0:
            raise DamagedPageError("a size below zero")
        if self.position > len(self._data):
            raise IncompleteError(self.position - len(self._data))
        return self._data[start : self.position]

    def byte(self) -> int:
        return self.take(1)[0]

    def string(self) -> bytes:
        return self.take(int.from_bytes(self.take(4), "little"))

    def varint(self) -> int:
        number = 0
        for shift in range(0, 64, 7):
            byte = self.byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise DamagedPageError("a number of more than 64 bits")

    def integer(self) -> int:
        number = self.varint()
        return (number >> 1) ^ -(number & 1)

    def hybrid(self, width: int, count: int) -> np.ndarray:
        """Return `count` numbers of `width` bits in the RLE/bit-packing hybrid."""
        if not width or not count:
            return np.zeros(count, dtype=np.int64)
        if width > _MOST_WIDTH:
            raise DamagedPageError(f"numbers of {width} bits")
        parts, have = list[np.ndarray](), 0
        weights = 1 << np.arange(width, dtype=np.int64)
        while have < count:
            head = self.varint()
            if head & 1:
                there = len(self._data) - self.position
                raw = np.frombuffer(self.take(min(width * (head >> 1), there)), dtype=np.uint8)
                bits = np.unpackbits(raw, bitorder="little")
                part = bits[: len(bits) // width * width].reshape(-1, width) @ weights
            else:
                value = int.from_bytes(self.take((width + 7) // 8), "little")
                part = np.full(min(head >> 1, count), value, dtype=np.int64)
            parts.append(part)
            have += len(part)
        return np.concatenate(parts)[:count]

    def struct(self, depth: int = 0) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            kind = head & 15
            fields[number] = kind == 1 if kind in _BOOLEANS else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _MOST_DEPTH:
            raise DamagedPageError("structs or lists too deep in each other")
        if kind in (*_BOOLEANS, 3):  # of a list: a byte each
            return self.byte()
        if kind in (4, 5, 6):
            return self.integer()
        if kind == 7:
            return self.take(8)
        if kind == 8:
            return self.take(self.varint())
        if kind in (9, 10):
            head = self.byte()
            size = head >> 4 if head >> 4 < 15 else self.varint()
            return [self._value(head & 15, depth + 1) for _ in range(size)]
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise DamagedPageError(f"Thrift type {kind} is not understood")


def _growing(fetch: Fetch, offset: int, length: int, parse: Callable[[bytes], list[T]]) -> list[T]:
    data = b""
    while True:
        more = fetch(offset + len(data), length)
        data += more
        try:
            return parse(data)
        except IncompleteError as error:
            if not more:
                raise DamagedPageError(f"the page at byte {offset} ends too soon") from error
            length = error.args[0] + _MORE
        except (LookupError, TypeError, ValueError, zlib.error, OSError, MemoryError) as error:
            raise DamagedPageError(f"no Parquet page at byte {offset}: {error}") from error


def _values(data: bytes, count: int, leaf: Leaf, fetch: Fetch) -> list[bytes | None]:
    values: list[bytes | None] = []
    position = 0
    while len(values) < count:
        header, start = parse_struct(data, position)
        body = data[start : start + header[3]]
        position = start + header[3]
        _check(header[3], header[2])
        if header[1] in (_INDEX, _DICTIONARY):
            continue
        try:
            levels, encoding, content = _split(header, body, leaf, count - len(values))
            present = levels == leaf.max_level
            found = iter(_decode(content, encoding, int(present.sum()), leaf, fetch))
        except IncompleteError as error:
            if len(body) == header[3]:
                raise DamagedPageError("a page has fewer values than it says") from error
            raise
        values += [next(found) if there else None for there in present.tolist()]
    return values


def _check(stored: int, whole: int, *counts: int) -> None:
    if min(stored, whole, *counts) < 0 or whole > MOST_BYTES:
        raise DamagedPageError(f"a page of {stored} bytes for {whole}, with counts {counts}")


def _split(header: dict[int, Any], body: bytes, leaf: Leaf, wanted: int) -> tuple[np.ndarray, int, _Reader]:
    """Return the first definition levels of a data page, its encoding, and as much of its values as there is."""
    width, stored, whole, codec = leaf.max_level.bit_length(), header[3], header[2], leaf.codec
    if header[1] == _DATA:
        facts, levels = header[5], None
        n_values, encoding = facts[1], facts[2]
    else:  # the levels come first, and are not compressed
        facts = header[8]
        n_values, encoding, n_level, n_repetition = facts[1], facts[4], facts[5], facts[6]
        _check(n_level, n_repetition)
        reader = _Reader(body)
        reader.take(n_repetition)
        levels = _Reader(reader.take(n_level))
        body, stored, whole = body[reader.position :], stored - reader.position, whole - reader.position
        codec = codec if facts.get(7, True) else "UNCOMPRESSED"
    _check(stored, whole, n_values)
    content = _Reader(_decompress(body, codec, stored, whole))
    if levels is None:
        levels = _Reader(content.string() if width else b"")
    return levels.hybrid(width, min(n_values, wanted)), encoding, content


def _decode(content: _Reader, encoding: int, count: int, leaf: Leaf, fetch: Fetch) -> list[bytes]:
    if encoding == _PLAIN:
        return [content.string() for _ in range(count)]
    if encoding not in _DICTIONARY_ENCODINGS or leaf.dictionary is None:
        raise DamagedPageError(f"encoding {encoding} is not understood")
    if not count:
        return []
    indices = content.hybrid(content.byte(), count)
    n_entries = int(indices.max()) + 1

    def entries(data: bytes) -> list[bytes]:
        header, start = parse_struct(data)
        _check(header[3], header[2])
        found = _Reader(_decompress(data[start : start + header[3]], leaf.codec, header[3], header[2]))
        return [found.string() for _ in range(n_entries)]

    dictionary = _growing(fetch, leaf.dictionary, expected_bytes(n_entries, leaf.mean), entries)
    return [dictionary[index] for index in indices.tolist()]


def _decompress(data: bytes, codec: str, stored: int, whole: int) -> bytes:
    """Decompress a page, or as much of it as `data` tells of."""
    import pyarrow as pa

    if codec == "UNCOMPRESSED" or not data:
        return data
    if len(data) == stored:
        return bytes(pa.Codec(codec.lower()).decompress(data, decompressed_size=whole, asbytes=True))
    if codec == "SNAPPY":
        return unpack_snappy(data)
    if codec == "GZIP":
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, whole)
    found = bytearray()
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream, suppress(OSError):  # at the end of the data
        while len(found) < whole and (part := stream.read(1 << 10)):  # a read that hits the end gives nothing
            found += part
    return bytes(found)


def unpack_snappy(data: bytes) -> bytes:
    """Decompress the beginning of a raw Snappy stream (https://github.com/google/snappy, format_description.txt)."""
    start = _Reader(data)
    start.varint()
    found, position = bytearray(), start.position
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
