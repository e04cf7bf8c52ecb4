"""Every call to the Hub: one client, a bounded wait, retries where they help, errors that say what would work.

The client of `huggingface_hub` retries some requests by itself (lists, uploads of content), others never (commits,
creation of repositories, most downloads), and waits for some answers without any limit. Here each gets both.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from hf_task2vec.errors import HubError, HubNotFoundError, HubUnavailableError
from hf_task2vec.hub.errors import Stalled, client_errors, is_unreached, proxy_of, retry_delay, translate

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)

R = TypeVar("R")
#: A token, True for the one of the login, False for none, None for the login's if there is one.
Token: TypeAlias = "str | bool | None"

TIMEOUT_VARIABLE = "HF_TASK2VEC_HUB_TIMEOUT"
#: Seconds that one push, pull or search may take, unless the variable or an argument says otherwise.
DEFAULT_TIMEOUT = 300.0
#: Seconds that one request for facts (not for files) may take.
REQUEST_TIMEOUT = 25.0
#: Tries of one call, the first included; the waits between them double from one second.
ATTEMPTS = 5
#: Seconds after which what cannot be reached, or does not answer, is not tried again: one silent request may be.
_PATIENCE = 27.0


def client(token: Token = None) -> HfApi:
    """Return the Hub client of this package; the endpoint is ``$HF_ENDPOINT``, as for all Hugging Face libraries."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import ENDPOINT

    from hf_task2vec import __version__

    if not re.match(r"https?://[^/]", ENDPOINT):
        raise HubError(f"HF_ENDPOINT is {ENDPOINT!r}, which is no address such as https://huggingface.co")
    return HfApi(token=token, library_name="hf_task2vec", library_version=__version__)


def time_limit(timeout: float | None = None) -> float:
    """Return the seconds that a push, pull or search may take: `timeout`, the variable's value, or 300."""
    given = os.environ.get(TIMEOUT_VARIABLE) or DEFAULT_TIMEOUT if timeout is None else timeout
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        name = f"${TIMEOUT_VARIABLE}" if timeout is None else "timeout"
        raise HubError(f"{name} is {given!r}; it must be a positive number of seconds")
    return seconds


class HubSession:
    """The calls about one repository (None: a search), which together may take `timeout` seconds.

    The methods of the client `api` go through :meth:`call`; messages speak of the `place`, or `where` (at a revision).
    """

    def __init__(
        self,
        repo_id: str | None,
        *,
        revision: str | None = None,
        repo_type: str = "dataset",
        token: Token = None,
        timeout: float | None = None,
    ) -> None:
        self.seconds = time_limit(timeout)
        self._end = monotonic() + self.seconds
        self.api = client(token)
        self.repo_id, self.revision, self.repo_type, self.token = repo_id or "", revision, repo_type, token
        self.place = self.api.endpoint if repo_id is None else f"{repo_type} repository {repo_id!r}"
        self.where = self.place + (f" at revision {revision!r}" if revision else "")
        self.url = f"{self.api.endpoint}/{'' if repo_type == 'model' else f'{repo_type}s/'}{repo_id}"

    @property
    def left(self) -> float:
        """Seconds that are left, ≥ 0."""
        return max(self._end - monotonic(), 0.0)

    def call(
        self,
        action: str,
        function: Callable[..., R],
        /,
        *args: Any,
        limit: float = math.inf,
        attempts: int = ATTEMPTS,
        **options: Any,
    ) -> R:
        """Return ``function(*args, **options)``, tried again after failures that may pass, or raise a `HubError`.

        One try may take `limit` seconds, if so many are left; `action` says in messages what is done.
        """
        begun = monotonic()
        for attempt in range(1, attempts + 1):
            try:
                return self._in_time(partial(function, *args, **options), min(self.left, limit))
            except client_errors() as error:
                delay = retry_delay(error, attempt)
                waited = monotonic() - begun if is_unreached(error) else 0.0
                if delay is None or attempt == attempts or delay >= self.left or waited + delay >= _PATIENCE:
                    raise translate(error, self, action) from error
                logger.info("%s failed (%s); trying again in %.0f s", action, type(error).__name__, delay)
                time.sleep(delay)
        raise AssertionError("unreachable")  # pragma: no cover

    def _in_time(self, function: Callable[[], R], seconds: float) -> R:
        """Run a call in a thread of its own, for most requests of the client know no limit of time."""
        outcome: Future[R] = Future()

        def work() -> None:
            try:
                outcome.set_result(function())
            except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
                outcome.set_exception(error)

        # A daemon: what hangs for ever must not keep the process from ending.
        threading.Thread(target=work, name="hf_task2vec-hub", daemon=True).start()
        if not wait([outcome], timeout=seconds).done:
            raise Stalled(
                f"after {seconds:.3g} s: the connection is slow or stalled, or the Hub made us wait. Try again later, "
                f"or allow more time: timeout=… or ${TIMEOUT_VARIABLE} (seconds; now {self.seconds:.3g} for the whole)"
            )
        return outcome.result()

    def get(self, action: str, address: str, read: Callable[[bytes], R], *, most: int) -> tuple[R, str | None]:
        """Return what `read` makes of what lies at an address of the Hub, and the address of the next page.

        It is given `most` bytes and one more at most. The client's own lists hide where they are, and its downloads
        know no limit.
        """
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        from hf_task2vec import __version__

        headers = build_hf_headers(token=self.token, library_name="hf_task2vec", library_version=__version__)

        def ask() -> tuple[R, str | None]:
            found = bytearray()
            with get_session().stream("GET", address, headers=headers, timeout=REQUEST_TIMEOUT) as response:
                hf_raise_for_status(response)
                for chunk in response.iter_bytes():
                    found += chunk
                    if len(found) > most:
                        break
                return read(bytes(found[: most + 1])), response.links.get("next", {}).get("url")

        return self.call(action, ask, limit=REQUEST_TIMEOUT)

    @contextmanager
    def translated(self, action: str) -> Iterator[None]:
        """Turn what the Hub's client raises into ours, for calls that other libraries make."""
        try:
            yield
        except client_errors() as error:
            raise translate(error, self, action) from error

    def download(
        self,
        filename: str,
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cached: bool = False,
    ) -> Path:
        """Return the path of a file in the Hub cache, downloaded unless it is there.

        A `revision` (default: the session's) that is a full commit hash needs no request for a file that is cached.
        With `cached`, only what is there counts.
        """
        unreached = None if cached else self._unreached
        try:
            path = self.call(
                f"downloading {filename}",
                self.api.hf_hub_download,
                self.repo_id,
                filename,
                repo_type=self.repo_type,
                revision=revision or self.revision,
                cache_dir=cache_dir,
                etag_timeout=10,
                local_files_only=cached or unreached is not None,
            )
        except HubUnavailableError as error:
            raise unreached or error from error.__cause__
        return Path(path)

    @cached_property
    def _unreached(self) -> HubUnavailableError | None:
        """Why a proxy does not lead to the Hub, if so: a download would wait for one that is silent for minutes."""
        from huggingface_hub.utils import get_session

        if not proxy_of(self.api.endpoint):
            return None
        try:
            self.call("reaching it", get_session().head, self.api.endpoint, limit=REQUEST_TIMEOUT, attempts=1)
        except HubUnavailableError as error:
            return error
        return None

    def download_first(self, filenames: Iterable[str], **options: Any) -> Path | None:
        """Return the path of the first of several files that the repository has, None if it has none.

        Of those, the first in the cache counts if the Hub cannot be reached.
        """
        from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

        unreachable = None
        for name in filenames:
            try:
                return self.download(name, **options, cached=unreachable is not None)
            except HubNotFoundError as error:
                if not isinstance(error.__cause__, RemoteEntryNotFoundError):
                    raise
                logger.debug("%s has no %s", self.place, name)
            except HubUnavailableError as error:
                if not isinstance(error.__cause__, LocalEntryNotFoundError):
                    raise
                unreachable = unreachable or error
        if unreachable is not None:
            raise unreachable
        return None
