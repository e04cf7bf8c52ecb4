"""Pages made to trap a reader: each ends in a DamagedPageError, soon and in little memory."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import tracemalloc
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_task2vec.tasks.parquet.pages import MOST_BYTES, DamagedPageError, Leaf, first_values, parse_struct


def varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def page(body: bytes, *, whole: int, stored: int | None = None, n_values: int = 3, kind: int = 0) -> bytes:
    """A data page of the first version: Thrift fields 1 (kind), 2, 3 (sizes) and 5 (its own header)."""

    def number(value: int) -> bytes:
        return b"\x15" + varint(value << 1 if value >= 0 else (-value << 1) - 1)

    sizes = number(kind) + number(whole) + number(len(body) if stored is None else stored)
    return sizes + b"\x2c" + number(n_values) + number(0) + number(3) + number(3) + b"\x00\x00" + body


def read(data: bytes, codec: str = "UNCOMPRESSED", max_level: int = 0, count: int = 3) -> list[bytes | None]:
    return first_values(lambda at, n: data[at : at + n], 0, count, Leaf(codec, max_level, None, 10.0))


VALUES = b"".join(struct.pack("<I", 1) + letter for letter in (b"a", b"b", b"c"))


def test_an_honest_page() -> None:
    assert read(page(VALUES, whole=len(VALUES))) == [b"a", b"b", b"c"]
    assert read(page(zlib.compress(VALUES), whole=len(VALUES)), "GZIP") == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    "data",
    [
        page(VALUES, whole=MOST_BYTES + 1),
        page(VALUES, whole=-1),
        page(VALUES, whole=15, stored=-40, kind=1),  # would lead back to its own start
        page(VALUES, whole=15, n_values=-5),
        page(VALUES, whole=15, n_values=0) * 3,
        b"\x15" + b"\xff" * 4000,  # a number without end
        b"\x1c" * 4000,  # structs in structs
        b"\x19" + b"\x19" * 4000,  # lists in lists
    ],
    ids=["huge", "negative", "backwards", "fewer than none", "empty", "long number", "structs", "lists"],
)
def test_traps(data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(DamagedPageError):
        read(data)
    assert time.process_time() - started < 5.0  # milliseconds; without limits, minutes or for ever


@pytest.mark.parametrize("codec", ["GZIP", "ZSTD", "SNAPPY"])
def test_a_bomb_takes_little_memory(codec: str) -> None:
    """A page of 100 MB of zeros that claims to be of 20 bytes; whole, and cut."""
    packed = pa.compress(bytes(100_000_000), codec=codec.lower(), asbytes=True)
    tracemalloc.start()
    for body in (packed, packed[: len(packed) // 2]):
        with contextlib.suppress(DamagedPageError):
            assert read(page(body, whole=20, stored=len(packed)), codec) == [b"", b"", b""]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * len(packed) + (1 << 20)  # Snappy cannot do worse than 32 bytes for one


def test_a_page_of_billions_of_values_decodes_what_is_wanted() -> None:
    levels = varint(2_000_000_000 << 1) + b"\x01"  # one run
    body = struct.pack("<I", len(levels)) + levels + VALUES
    assert read(page(body, whole=len(body), n_values=2_000_000_000), max_level=1) == [b"a", b"b", b"c"]


def valid_page() -> tuple[bytes, int]:
    stream = io.BytesIO()
    column = pa.array([bytes([65 + i]) * 9 * i for i in range(20)], pa.binary())
    pq.write_table(pa.table({"image": column}), stream, compression="gzip", use_dictionary=False)
    chunk = pq.read_metadata(stream).row_group(0).column(0)
    return stream.getvalue()[: chunk.data_page_offset + chunk.total_compressed_size], chunk.data_page_offset


WHOLE, OFFSET = valid_page()


@settings(deadline=5000, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(st.lists(st.tuples(st.integers(OFFSET, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for position, byte in changes:
        data[position] = byte
    with contextlib.suppress(DamagedPageError):
        found = first_values(lambda at, n: bytes(data[at : at + n]), OFFSET, 20, Leaf("GZIP", 1, None, 90.0))
        assert len(found) == 20


def test_nesting_of_the_format_itself_is_understood() -> None:
    assert parse_struct(b"\x1c\x1c\x1c\x15\x02\x00\x00\x00\x00", 0)[0] == {1: {1: {1: {1: 1}}}}
