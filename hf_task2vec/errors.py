"""Every exception that `hf_task2vec` raises on purpose.

All derive from :class:`Task2VecError`, so ``except Task2VecError`` is enough to tell a user's mistake or a
failing service from a bug. A message says what was found and what would work.
"""

from __future__ import annotations

import numbers


class Task2VecError(Exception):
    """Base class of all errors raised by this package."""


class TaskError(Task2VecError):
    """A dataset cannot be turned into a task."""


class DatasetNotFoundError(TaskError):
    """No dataset, folder, configuration, split or revision of that name can be read."""


class ColumnError(TaskError):
    """The image or label column is missing, ambiguous or of an unusable type."""


class LabelError(TaskError):
    """The labels do not define a classification task (one class only, all missing, ...)."""


class ImageDecodeError(TaskError):
    """An image (or every image of a sample) is broken, too large or of an unknown format."""


class ProbeError(Task2VecError):
    """A checkpoint cannot be loaded or wrapped as a probe, or a gradient of it per example would silently be wrong."""


class FisherError(Task2VecError):
    """The Fisher information cannot be estimated (non-finite values, no samples, ...)."""


class EmbeddingError(Task2VecError):
    """A task embedding is malformed or cannot be read or written."""


class ProbeMismatchError(EmbeddingError):
    """Embeddings of different probes, weights or label likelihoods were compared."""


class ZooIndexError(Task2VecError):
    """A zoo index is missing, malformed, inconsistent or fails its checksums."""


class MetricError(Task2VecError):
    """A ranking metric cannot be fitted, loaded or applied."""


class SelectionError(Task2VecError):
    """A selection cannot be made: unknown argument value or no candidate left."""


class HubError(Task2VecError):
    """The Hub cannot be reached, or refused the request; the subclasses say which."""


class HubUnavailableError(HubError):
    """The Hub does not answer, or not now: no connection, time is over, rate limit, its own failure, offline mode."""


class HubAccessError(HubError):
    """The token is missing, wrong, may not write, or has no access to a gated repository."""


class HubNotFoundError(HubError):
    """There is no such repository (or it is hidden from the token), revision or file."""


class HubConflictError(HubError):
    """The repository changed meanwhile, or holds something that would be overwritten."""


class HubCorruptError(HubError):
    """A file arrived damaged, again when it was downloaded anew."""


class DistributedError(Task2VecError):
    """Another process of the same job failed; the message holds its error."""


class EvaluationError(Task2VecError):
    """A ranking cannot be judged: scores are missing, malformed or of unknown checkpoints."""


def check_count(error: type[Task2VecError], least: int, **values: object) -> None:
    """Raise `error` for a value that is no whole number of at least `least`."""
    for name, value in values.items():
        if not isinstance(value, numbers.Integral) or value < least:
            raise error(f"{name}={value!r} must be a whole number of at least {least}")
