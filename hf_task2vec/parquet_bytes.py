"""What Parquet pages are made of, read from bytes that may end too soon.

Page headers and footers in Thrift's compact protocol, levels and dictionary indices in the RLE/bit-packing hybrid, and
the beginning of Snappy, zlib and Zstandard streams.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

#: Codecs of which a prefix can be decompressed.
CODECS = frozenset({"UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD"})
#: More bytes than a page header takes, unless it holds statistics.
HEADER = 1024

#: Uncompressed bytes of a page beyond which it is taken for a trap.
MOST_BYTES = 1 << 30

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


def decode_hybrid(data: bytes, width: int, count: int, *, short: bool = False) -> np.ndarray:
    """Decode `count` numbers of `width` bits in the RLE/bit-packing hybrid."""
    if width == 0:
        return np.zeros(count, dtype=np.int64)
    if width > _MOST_WIDTH:
        raise DamagedPageError(f"numbers of {width} bits")
    parts, have, position = [], 0, 0
    weights = 1 << np.arange(width, dtype=np.int64)
    while have < count:
        if position >= len(data):
            raise IncompleteError(HEADER) if short else DamagedPageError("too few levels or indices")
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


def decompress(data: bytes, codec: str, stored: int, whole: int) -> bytes:
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
        raise IncompleteError(HEADER) from None


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
