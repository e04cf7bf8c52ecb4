"""Parquet files on this machine, read where they lie: labels by column, images by row group, nothing copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import ColumnError, DatasetNotFoundError
from hf_task2vec.tasks.columns import of_schema
from hf_task2vec.tasks.parquet.plan import Pages

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_task2vec.tasks.labels import Labels
    from hf_task2vec.tasks.sampling import Draw

EXACT_BYTES = 2 << 30
"""Up to so many bytes to read, the sample may be drawn from anywhere in the files."""

_BATCH, _BUFFER = 64, 1 << 20  # rows and bytes in memory at a time
_LFS = b"version https://git-lfs"


class LocalSplit:
    """Parquet files that make one split."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self._root, self.paths = root, list(paths)

    @contextmanager
    def open(self, file: int) -> Iterator[pq.ParquetFile]:
        """Open a file such that a row group is decoded as it is needed; its errors become ours."""
        import pyarrow.parquet as pq

        footer = self._footers[file] if "_footers" in vars(self) else None
        with (
            understood(self._root / self.paths[file]),
            pq.ParquetFile(
                self._root / self.paths[file], metadata=footer, buffer_size=_BUFFER, pre_buffer=False
            ) as handle,
        ):
            yield handle

    @cached_property
    def _footers(self) -> list[pq.FileMetaData]:
        footers = []
        for file in range(len(self.paths)):
            with self.open(file) as handle:
                footers.append(handle.metadata)
        return footers

    @cached_property
    def _schema(self) -> pa.Schema:
        return self._footers[0].schema.to_arrow_schema()

    @cached_property
    def features(self) -> dict[str, Any]:
        """Columns and their types."""
        return of_schema(self._schema)

    def __len__(self) -> int:
        return sum(footer.num_rows for footer in self._footers)

    def column(self, name: str) -> pa.ChunkedArray:
        """Read a whole column of labels."""
        import pyarrow as pa

        kind = self._schema.field(name).type
        chunks: list[pa.Array] = []
        for file, path in enumerate(self.paths):
            with self.open(file) as handle:
                if name not in handle.schema_arrow.names:
                    raise ColumnError(f"{path} has no column {name!r}, as {self.paths[0]} has")
                chunks += handle.read([name]).column(name).cast(kind).chunks
        return pa.chunked_array(chunks, kind)

    def first_value(self, name: str) -> Any:
        """Return the first value that is not null, among a few; None if there is none."""
        with self.open(0) as handle:
            for batch in handle.iter_batches(_BATCH, columns=[name], use_threads=False):
                return next((cell.as_py() for cell in batch.column(0) if cell.is_valid), None)
        return None

    def sample(
        self, name: str, labels: Labels, size: int | None, seed: int
    ) -> tuple[Draw, Callable[[Sequence[int]], Iterator[Any]], str | None]:
        """Return `draw`, `read` and `note` of `rows.Rows`."""
        groups = []
        starts = accumulate((footer.num_rows for footer in self._footers), initial=0)
        for file, (footer, first) in enumerate(zip(self._footers, starts, strict=False)):
            for number in range(footer.num_row_groups):
                group = footer.row_group(number)
                chunks = (group.column(i) for i in range(group.num_columns))
                size_of = sum(c.total_compressed_size for c in chunks if c.path_in_schema.partition(".")[0] == name)
                if group.num_rows:
                    groups.append(_Group(self, file, number, name, first, group.num_rows, size_of / group.num_rows))
                first += group.num_rows
        pages = Pages(groups)
        draw, note = pages.draw(labels, size, seed, EXACT_BYTES)
        return draw, pages.read, note

    def folder(self, file: int) -> Path:
        """Return the folder in which a file lies."""
        return (self._root / self.paths[file]).parent


@dataclass(frozen=True)
class _Group:
    """A row group of one column."""

    split: LocalSplit
    file: int
    number: int
    column: str
    first: int
    rows: int
    mean: float

    def cost(self, count: int) -> int:
        """Return about how many bytes the first `count` rows take."""
        return int(self.mean * min(count, self.rows))

    def at(self, positions: Sequence[int]) -> list[Any]:
        """Return the cells at some positions; a few rows are in memory at a time."""
        wanted, start = set(positions), 0
        found: dict[int, Any] = {}
        with self.split.open(self.file) as handle:
            for batch in handle.iter_batches(
                _BATCH, row_groups=[self.number], columns=[self.column], use_threads=False
            ):
                cells = batch.column(0)
                found |= {start + i: cells[i].as_py() for i in range(len(cells)) if start + i in wanted}
                start += len(cells)
                if len(found) == len(wanted):
                    break
        return [beside(self.split.folder(self.file), found[position]) for position in positions]


def beside(folder: Path, cell: Any) -> Any:
    """Return a cell whose file, if it names one without saying where it lies, is the one in `folder`."""
    path = cell.get("path") if isinstance(cell, dict) else None
    if path and cell.get("bytes") is None and "://" not in path:
        return {"path": str(folder / path)}
    return cell


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Turn the errors of a file that is not what its name says into ours."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        with open(path, "rb") as handle:
            start = handle.read(len(_LFS))
        why = (
            "is a Git LFS pointer, not the data: git lfs pull fetches it"
            if start == _LFS
            else "is empty"
            if not start
            else f"is damaged: {next(iter(str(error).splitlines()), '')[:120]}"
        )
        raise DatasetNotFoundError(f"{path.name!r} {why}") from error
