"""Parquet files on this machine, read where they lie: images by row group, nothing copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import DatasetNotFoundError
from hf_task2vec.tasks.folders import start_of
from hf_task2vec.tasks.images import not_fetched
from hf_task2vec.tasks.parquet.pages import DamagedPageError, first_values
from hf_task2vec.tasks.parquet.split import Entry, ParquetPart, ParquetSplit, UseDownload, leaf_of

if TYPE_CHECKING:
    import pyarrow.parquet as pq

EXACT_BYTES = 2 << 30  # up to so many to read, the sample may be drawn from anywhere in the files
_ROWS, _BYTES, _BUFFER = 64, 1 << 20, 1 << 20  # rows and bytes that are decoded, and bytes that are read, at a time


class LocalSplit(ParquetSplit):
    """Parquet files at some paths as one split."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        super().__init__([_LocalFile(root, path) for path in paths], EXACT_BYTES)
        facts = [(path, (root / path).stat()) for path in paths]
        # Tells whether the files have changed, without reading an image.
        self.stamp = [[path, found.st_size, found.st_mtime_ns] for path, found in facts]


class _LocalFile(ParquetPart):
    def __init__(self, root: Path, path: str) -> None:
        self.path, self._place = path, root / path

    @cached_property
    def metadata(self) -> pq.FileMetaData:
        import pyarrow.parquet as pq

        with understood(self._place):
            return pq.read_metadata(self._place)

    @contextmanager
    def open(self) -> Iterator[pq.ParquetFile]:
        """Open it such that a row group is decoded as it is needed."""
        import pyarrow.parquet as pq

        how: dict[str, Any] = {"buffer_size": _BUFFER, "pre_buffer": False}
        with understood(self._place), pq.ParquetFile(self._place, metadata=self.metadata, **how) as handle:
            yield handle

    def entries(self, name: str, first: int) -> Iterator[Entry]:
        for number in range(self.metadata.num_row_groups):
            group = self.metadata.row_group(number)
            chunks = (group.column(i) for i in range(group.num_columns))
            size = sum(c.total_compressed_size for c in chunks if c.path_in_schema.partition(".")[0] == name)
            if group.num_rows:
                mean = size / group.num_rows
                at_once = max(1, min(_ROWS, int(_BYTES / max(mean, 1))))
                yield Entry(first, group.num_rows, mean, partial(self._cells, number, name, at_once))
            first += group.num_rows

    def _cells(self, group: int, name: str, at_once: int, positions: Sequence[int]) -> list[Any]:
        """Return cells of a row group, of which no more is read than up to the last one wanted."""
        try:
            cells = self._first(group, name, positions)
        except (UseDownload, DamagedPageError):  # such as other codecs, and pages of more than a gigabyte
            cells = self._decoded(group, name, at_once, positions)
        return [beside(self._place.parent, cell) for cell in cells]

    def _first(self, group: int, name: str, positions: Sequence[int]) -> list[Any]:
        """Read them from the beginning of the pages."""
        _, leaf, offset, end = leaf_of(self, name, group)
        with understood(self._place), self._place.open("rb") as handle:

            def fetch(start: int, length: int) -> bytes:
                handle.seek(start)
                return handle.read(min(length, end - start))

            values = first_values(fetch, offset, max(positions) + 1, leaf)
        paths = (self.metadata.schema.column(i).path for i in range(self.metadata.num_columns))
        others = [path for path in paths if path.startswith(f"{name}.") and path != f"{name}.bytes"]
        if not others:
            return [values[position] for position in positions]
        with self.open() as parquet:
            names = parquet.read_row_group(group, columns=others).column(name)
        return [(names[position].as_py() or {}) | {"bytes": values[position]} for position in positions]

    def _decoded(self, group: int, name: str, at_once: int, positions: Sequence[int]) -> list[Any]:
        """Let pyarrow read them, a few at a time."""
        wanted, start = set(positions), 0
        found: dict[int, Any] = {}
        with self.open() as handle:
            for batch in handle.iter_batches(at_once, row_groups=[group], columns=[name], use_threads=False):
                cells = batch.column(0)
                found |= {start + i: cells[i].as_py() for i in range(len(cells)) if start + i in wanted}
                start += len(cells)
                if len(found) == len(wanted):
                    break
        return [found[position] for position in positions]


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
        what = not_fetched(start_of(path))
        why = f"is {what}" if what else f"is damaged: {next(iter(str(error).splitlines()), '')[:120]}"
        raise DatasetNotFoundError(f"{path.name!r} {why}") from error
