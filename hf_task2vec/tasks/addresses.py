"""Images that rows name by address: fetched within a time limit, each and all together; what is lost is told apart."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar
from urllib.parse import urlsplit

from hf_task2vec.errors import HubError, ImageDecodeError

SECONDS_EACH, SECONDS_IN_ALL = 10.0, 45.0  # that one image, and the images of a sample together, may take to come
_MOST_LOST = 3  # connections of one host that fail in a row before it is asked no more
_CONNECT = 4.0
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_T = TypeVar("_T")


class Fetcher:
    """Fetches the images of one sample; safe in threads."""

    def __init__(self, token: str | bool | None = None, check: Callable[[int], None] = lambda size: None) -> None:
        self._token, self._check = token, check
        self._ends: float | None = None
        self._lost: dict[str, list[str]] = defaultdict(list)  # why, by host, since it last answered
        self._lock = threading.Lock()
        self.fetched = 0

    def fetch(self, address: str) -> bytes:
        """Return the bytes at an address; raises `ImageDecodeError` with the cause."""
        parts = urlsplit(address.rpartition("::")[2])
        host = parts.netloc.rpartition("@")[2] or parts.scheme
        now = time.monotonic()
        with self._lock:
            self._ends = self._ends or now + SECONDS_IN_ALL
            if len(lost := self._lost[host]) >= _MOST_LOST:
                raise ImageDecodeError(f"{host} is asked no more: {lost[-1]}")
        if now > self._ends:
            raise ImageDecodeError(f"not fetched within {SECONDS_IN_ALL:.0f} s in all")
        limit = min(SECONDS_EACH, self._ends - now)
        try:
            if parts.scheme in ("http", "https") and "::" not in address:
                data = self._of_web(address, time.monotonic() + limit)
            else:
                data = _within(limit, lambda: self._of_store(address))
        except (ConnectionError, TimeoutError) as error:
            with self._lock:
                lost.append(f"{host} {error}")
            raise ImageDecodeError(f"{host} {error}") from error
        with self._lock:
            lost.clear()
            self.fetched += 1
        return data

    def check_all_lost(self, n_images: int) -> None:
        """Raise an error of the connection if nothing came because no host answered."""
        last = next((lost[-1] for lost in self._lost.values() if lost), None)
        if last is not None and not self.fetched:
            raise HubError(
                f"none of {n_images} images given by address could be fetched: {last}. Check "
                "the connection and the addresses, or download the images and pass the folder"
            )

    def _of_web(self, address: str, ends: float) -> bytes:
        from huggingface_hub.utils import httpx  # the HTTP library that it was built on

        for attempt in (1, 2):
            left = ends - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"did not answer within {SECONDS_EACH:.0f} s")
            limits = httpx.Timeout(left, connect=min(left, _CONNECT))
            try:
                with (
                    httpx.Client(timeout=limits, follow_redirects=True) as client,
                    client.stream("GET", address) as response,
                ):
                    status, data = response.status_code, bytearray()
                    if (status >= 500 or status == 429) and attempt == 1:
                        time.sleep(min(0.5, left))
                        continue
                    if status >= 500 or status == 429:
                        raise ConnectionError(f"answers with status {status}")
                    if status >= 400:
                        raise ImageDecodeError(f"not at its address: status {status}")
                    for part in response.iter_bytes():
                        data += part
                        self._check(len(data))
                        if time.monotonic() > ends:
                            raise TimeoutError(f"did not send the image within {SECONDS_EACH:.0f} s")
                    return bytes(data)
            except httpx.TimeoutException as error:
                raise TimeoutError(f"did not answer within {SECONDS_EACH:.0f} s") from error
            except httpx.TransportError as error:
                if attempt == 2 or isinstance(error, httpx.ConnectError):
                    raise ConnectionError(f"cannot be reached ({str(error)[:80]})") from error
            except httpx.InvalidURL as error:
                raise ImageDecodeError(f"no valid address: {error}") from error
        raise AssertionError("unreachable")

    def _of_store(self, address: str) -> bytes:
        from datasets import DownloadConfig
        from datasets.utils.file_utils import xopen

        data = bytearray()
        try:
            with xopen(address, "rb", download_config=DownloadConfig(token=self._token)) as handle:
                while part := handle.read(2**20):
                    data += part
                    self._check(len(data))
        except (ImportError, ValueError) as error:
            package = _PACKAGES.get(address.partition("://")[0].lower())
            if package is None:
                raise
            raise ImageDecodeError(f"{address.partition('://')[0]} addresses need pip install {package}") from error
        return bytes(data)


def _within(seconds: float, function: Callable[[], _T]) -> _T:
    """Return what a function returns, or raise what it raises, if it is done in time; else it is left alone."""
    done: Future[_T] = Future()

    def run() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # noqa: BLE001  (raised by the caller)
            done.set_exception(error)

    threading.Thread(target=run, daemon=True, name="hf_task2vec-fetch").start()
    if not wait([done], seconds).done:
        raise TimeoutError(f"did not answer within {seconds:.0f} s")
    return done.result()
