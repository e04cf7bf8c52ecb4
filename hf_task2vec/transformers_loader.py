"""Call transformers' ``from_pretrained`` for one checkpoint: same files, float32, errors that say what would work."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from hf_task2vec.checkpoint_files import CheckpointSource, hub_errors
from hf_task2vec.errors import ProbeError
from hf_task2vec.hub_errors import brief

# No feature depends on these: the counter is for training, the token for masked pre-training.
_UNUSED = re.compile(r"(^|\.)(num_batches_tracked|mask_token)$")


@dataclass(frozen=True)
class TransformersLoader:
    """Loads the parts of one transformers checkpoint.

    Attributes
    ----------
    source
        Where it lies; Hub files are taken at the commit of its ``config.json``.
    token
        Hub token or None.
    trust_remote_code
        Whether Python code of the repository may run.
    """

    source: CheckpointSource
    token: str | None
    trust_remote_code: bool

    def load(self, cls: Any, **options: Any) -> Any:
        """Return ``cls.from_pretrained`` of the checkpoint.

        Raises
        ------
        ProbeError
            If transformers cannot load it.
        HubError
            If a file cannot be downloaded.
        """
        location = self.source.repo_id or str(self.source.folder)
        if self.source.repo_id is not None:
            options |= {"revision": self.source.revision, "token": self.token}
        with self._errors(cls), _without_load_report():
            return cls.from_pretrained(location, trust_remote_code=self.trust_remote_code, **options)

    def load_model(self, cls: Any, **options: Any) -> tuple[Any, set[str]]:
        """Return the float32 network and the names of the tensors that the checkpoint lacks and features may need.

        transformers fills such tensors at random, so the caller has to refuse or remove them.
        """
        # Without dtype=, half-precision checkpoints would stay so.
        model, info = self.load(cls, dtype=torch.float32, output_loading_info=True, **options)
        missing = set(info["missing_keys"])
        for name in filter(_UNUSED.search, missing):
            model.get_parameter_or_buffer(name).data.zero_()  # otherwise the hash would change from load to load
        return model, {name for name in missing if not _UNUSED.search(name)}

    @contextmanager
    def _errors(self, cls: Any) -> Iterator[None]:
        import transformers

        try:
            yield
        # A bad config, misfitting weights, an unknown model type: transformers raises a dozen types for them.
        except Exception as error:
            hub_failure = _hub_failure(error)
            if hub_failure is not None:
                with hub_errors(self.source.name, self.source.revision, self.token):
                    raise hub_failure from error
            hint = "A newer transformers may know it."
            if "Unrecognized configuration class" in str(error):
                hint = "It has no such head for this model type: put a linear layer after load_checkpoint(…).module."
            if "trust_remote_code" in str(error) and not self.trust_remote_code:
                hint = "It runs its own code: read that, and pass trust_remote_code=True if you trust it."
            raise ProbeError(
                f"{cls.__name__} of transformers {transformers.__version__} cannot load {self.source.name!r}: "
                f"{type(error).__name__}: {brief(error, self.token)} {hint}"
            ) from error


def _hub_failure(error: BaseException | None) -> BaseException | None:
    """Return the Hub client's error behind a transformers one; transformers turns it into a plain OSError."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    while error is not None:
        if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx.HTTPError)):
            # A file the repository lacks is the checkpoint's fault, not the connection's.
            return None if isinstance(error, errors.RemoteEntryNotFoundError) else error
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Keep transformers from logging its table of unexpected and missing tensors.

    Heads and text towers are left out on purpose, and a missing tensor is refused or removed by our own check: the
    table would only alarm. Other messages of that logger pass.
    """

    def is_no_report(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(is_no_report)
