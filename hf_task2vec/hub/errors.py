"""What the Hub's clients raise, in our words: what failed, what would work, and whether to try again."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from hf_task2vec.errors import (
    HubAccessError,
    HubConflictError,
    HubError,
    HubNotFoundError,
    HubUnavailableError,
)

if TYPE_CHECKING:
    from hf_task2vec.hub.client import HubSession

#: Statuses after which the same request may succeed.
RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_DELAY = 8.0
_TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{20,}")  # a folder may be called hf_pictures
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
_LOGIN = "pass token=…, set HF_TOKEN, or run `hf auth login`"
_OFFLINE = " (HF_HUB_OFFLINE=1, --offline): switch it off once, or use local files"


class Stalled(TimeoutError):
    """No answer came in the time there was."""


def client_errors() -> tuple[type[Exception], ...]:
    """Return what a call of the client may raise: its own errors, the transport's, those of files and of bad input.

    ``hf_xet``, which transfers large files, raises plain RuntimeErrors; a proxy may need a package.
    """
    from huggingface_hub.utils import httpx  # the HTTP library that it was built on

    return OSError, ValueError, RuntimeError, ImportError, httpx.HTTPError, httpx.InvalidURL


def retry_delay(error: Exception, attempt: int) -> float | None:
    """Return the seconds to wait before the next try, None if another would fail alike.

    It is what ``Retry-After`` asks for, else 1, 2, 4, 8 seconds.
    """
    from huggingface_hub import errors

    error = _root(error)
    if isinstance(error, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)):
        return None  # offline, or the client has tried for long
    backoff = min(2.0 ** (attempt - 1), _LONGEST_DELAY)
    if isinstance(error, errors.HfHubHTTPError):
        if error.response.status_code not in RETRIED_STATUSES:
            return None
        asked = _retry_after(error)
        return backoff if asked is None else max(asked, 0.0)
    return backoff if _broke_off(error) or isinstance(error, RuntimeError) else None


def _root(error: Exception) -> Exception:
    """Return what is behind the client's ``RuntimeError("Error while uploading …")``, or the error itself."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, client_errors()) else error


def _broke_off(error: Exception) -> bool:
    """Say whether the connection failed, or what came is too short or no JSON (a proxy's page, or damaged)."""
    from huggingface_hub.utils import httpx

    transport = (httpx.TransportError, ConnectionError, TimeoutError, json.JSONDecodeError, UnicodeDecodeError)
    return isinstance(error, transport) or (isinstance(error, OSError) and "Consistency check failed" in str(error))


def is_unreached(error: Exception) -> bool:
    """Say whether there was no connection, or no answer: the client, or the time limit, has waited for that long."""
    from huggingface_hub.utils import httpx

    return isinstance(_root(error), (Stalled, httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError))


def _retry_after(error: Exception) -> float | None:
    """Return the seconds of a ``Retry-After`` header, given as a number or as a date, or until a limit is reset."""
    headers = getattr(error, "response").headers  # noqa: B009 (typed in part only)
    text: str = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    if reset := re.search(r"\bt=(\d+)", headers.get("RateLimit", "")):  # the Hub's own: "api";r=0;t=55
        return float(reset[1]) + 1.0
    try:
        return (parsedate_to_datetime(text) - datetime.now(timezone.utc)).total_seconds()
    except (TypeError, ValueError):
        return None


def translate(error: Exception, session: HubSession, action: str) -> HubError:
    """Return our error for one of the client's; it holds no token.

    It is ``HubAccessError`` (401, 403, gated, read-only token), ``HubNotFoundError`` (repository, revision, file),
    ``HubConflictError`` (409, 412), ``HubUnavailableError`` (offline, no connection, 408, 429, 5xx), or the plain
    class for anything else, such as a full disk.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    error, doing = _root(error), f"{action} on {session.where}"
    proxy = proxy_of(session.api.endpoint)
    if isinstance(error, Stalled):
        return HubUnavailableError(f"{doing}{f' through the proxy {proxy}' if proxy else ''} was not done {error}")
    if isinstance(error, errors.LocalEntryNotFoundError):
        cause, absent = error.__cause__, f"{session.where} is not in the local Hub cache"
        if not isinstance(cause, Exception) or isinstance(cause, errors.OfflineModeIsEnabled):
            return HubUnavailableError(f"{absent}, and offline mode is on{_OFFLINE}")
        why = translate(cause, session, action)
        return type(why)(f"{absent} and the Hub cannot be reached: {why}")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnavailableError(f"{doing} needs a connection, but offline mode is on{_OFFLINE}")
    if isinstance(error, errors.LocalTokenNotFoundError):
        return HubAccessError(f"{doing} needs a token: {_LOGIN}")
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(error, session, doing)
    if isinstance(error, errors.HFValidationError):
        return HubNotFoundError(f"{session.repo_id!r} is no valid id of a Hub repository, such as 'org/name'")
    said = f"{type(error).__name__}: {redact(error, session.token)}"
    if proxy and isinstance(error, (ImportError, ValueError, httpx.ConnectError, httpx.ProxyError, httpx.InvalidURL)):
        return HubUnavailableError(
            f"{doing} failed: {session.api.endpoint} cannot be reached through the proxy {proxy} ({said}). Correct or "
            "unset that variable, or list the host in NO_PROXY"
        )
    if _broke_off(error) or isinstance(error, httpx.InvalidURL):
        return HubUnavailableError(
            f"{doing} failed: {session.api.endpoint} cannot be reached, or broke off ({said}). Check the connection "
            "and the endpoint, and try again; what was downloaded is kept"
        )
    if isinstance(error, OSError):
        return HubError(
            f"{doing} failed on this machine: {said}. Nothing half-written is left; make room or set HF_HOME to a "
            "folder that can be written, and try again"
        )
    return HubError(f"{doing} failed: {said}")


def proxy_of(endpoint: str) -> str:
    """Return the proxy that requests to an endpoint go through, and where it is set; "" without one."""
    parts = urlsplit(endpoint)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return ""
    for scheme in (parts.scheme, "all"):
        if address := getproxies().get(scheme):
            return f"{address.rpartition('@')[2]!r} ({scheme.upper()}_PROXY)"  # without a password
    return ""


def _refused(error: Exception, session: HubSession, doing: str) -> HubError:
    """Return our error for an answer with an error status."""
    from huggingface_hub import errors

    assert isinstance(error, errors.HfHubHTTPError)
    if isinstance(error, errors.GatedRepoError):
        terms = session.url.replace(session.api.endpoint, "https://huggingface.co")  # mirrors have no page for that
        return HubAccessError(
            f"{session.place} is gated: accept its terms at {terms} and pass token=… of that account "
            "(or run `hf auth login`)"
        )
    status = error.response.status_code
    if status == 401 and "authorization" in error.response.request.headers:  # also of public repositories
        said = redact(error.server_message or "no valid token", session.token)
        return HubAccessError(
            f"{doing}: the token is wrong or expired, says the Hub ({said}). What would work: another one ({_LOGIN}), "
            "or none for what is public"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubNotFoundError(
            f"No Hub repository {session.repo_id!r} (or it is private and the token has no access) among the "
            f"{session.repo_type}s of {session.api.endpoint}. Check the spelling; for a private one {_LOGIN}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubNotFoundError(
            f"{session.place} has no revision {session.revision!r}; pass a branch, a tag or a full commit hash"
        )
    answer, said = f"{doing}: the Hub answered {status}", redact(error.server_message or error, session.token)
    if status in (404, 410):
        return HubNotFoundError(f"{answer} ({said})")
    if status == 401:
        return HubAccessError(f"{answer}, no valid token ({said}). What would work: {_LOGIN}")
    if status == 403:
        return HubAccessError(
            f"{answer}, not allowed ({said}). What would work: a token with the right to write, of an account with "
            "access to the repository"
        )
    if status in (409, 412):
        return HubConflictError(f"{answer}, another change came first ({said}). Try again")
    if status in RETRIED_STATUSES:
        after = _retry_after(error)
        wait = "later" if after is None else f"in {max(after, 0):.0f} s"
        why = ", too many requests" if status == 429 else ", it has a problem of its own"
        return HubUnavailableError(f"{answer}{why} ({said}). Try again {wait}")
    return HubError(f"{answer} ({said})")


def without_tokens(text: str, *tokens: str | bool | None) -> str:
    """Return `text` without the `tokens` (those that are texts) and whatever else looks like one.

    Nothing that this package says or writes holds a token.
    """
    for token in tokens:
        if isinstance(token, str) and token:
            text = text.replace(token, "***")
    return _TOKEN.sub("***", text)


def redact(error: object, token: str | bool | None = None) -> str:
    """Return the first line of an error's message without tokens and without the signatures of addresses."""
    from huggingface_hub import get_token

    line = next(iter(str(error).strip().splitlines()), "")
    return _QUERY.sub(r"\1?…", without_tokens(line, token, get_token()))
