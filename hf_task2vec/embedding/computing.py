"""How an embedding is computed, which does not change its values beyond rounding."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_task2vec.errors import EmbeddingError, check_count


@dataclass(frozen=True)
class Computing:
    """Where and in which portions networks compute, and what may be used for it."""

    device: str | None = None
    """Torch device; None takes a GPU if there is one, and leaves a `Probe` where it is."""
    batch_size: int | None = None
    """Images per pass of the probe; None takes what suits the device."""
    token: str | None = field(default=None, repr=False)
    """Hub token for the networks."""
    cache: bool = True
    """Read and write ``embeddings/`` in `cache_dir`."""
    progress: bool = False
    """Show progress bars on stderr."""

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            check_count(EmbeddingError, 1, batch_size=self.batch_size)
