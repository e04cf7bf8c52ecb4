"""Test environment: a Hub on loopback, a temporary Hugging Face home, and no way to any other address.

The clients read their endpoint, cache folders and switches when they are imported, so all of it is set here, first.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support.hub import Fault, HubServer
from tests.support.hub.waits import hurried

if "huggingface_hub" in sys.modules:
    raise pytest.UsageError("huggingface_hub was imported before tests/conftest.py could point it to the loopback Hub")

settings.register_profile("any machine", deadline=None)  # no test rests on wall time
settings.load_profile("any machine")

_SERVER = HubServer()
_HOME = Path(tempfile.mkdtemp(prefix="task2vec-tests-"))
_UNSET = """
HF_TOKEN HUGGING_FACE_HUB_TOKEN HF_TOKEN_PATH HF_HUB_OFFLINE HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_ASSETS_CACHE
HF_XET_CACHE HF_DATASETS_OFFLINE HF_MODULES_CACHE TRANSFORMERS_OFFLINE TRANSFORMERS_CACHE HF_TASK2VEC_CACHE
"""
for _name in _UNSET.split():
    os.environ.pop(_name, None)
os.environ.update(
    HF_ENDPOINT=_SERVER.endpoint,
    HF_HOME=str(_HOME),
    HF_DATASETS_CACHE=str(_HOME / "datasets"),
    TORCH_HOME=str(_HOME / "torch"),
    MPLCONFIGDIR=str(_HOME / "matplotlib"),
    HF_HUB_DISABLE_XET="1",  # else every LFS upload bypasses the LFS routes
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_UPDATE_CHECK="1",
    HF_HUB_ETAG_TIMEOUT="5",
    HF_HUB_DOWNLOAD_TIMEOUT="5",
    NO_PROXY=",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1,localhost"])),
)

_outside: list[str] = []
_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


def _check(host: Any) -> None:
    """Refuse every host but loopback; `datasets` asks for a viewer at ``datasets-server.<endpoint>`` and may fail."""
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    if name in ("localhost", "::1") or (name.startswith("127.") and name.replace(".", "").isdigit()):
        return
    if not name.startswith("datasets-server."):
        _outside.append(name)
    raise socket.gaierror(socket.EAI_NONAME, f"tests may reach loopback only, not {name}")


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    def connect(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _check(address[0])
        return function(self, address)

    return connect


def _guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    _check(host)
    return _getaddrinfo(host, *args, **kwargs)


def pytest_configure() -> None:
    # A shell starts background jobs with SIGINT ignored; the programs that tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    socket.socket.connect = _guarded(_connect)  # type: ignore[method-assign]
    socket.socket.connect_ex = _guarded(_connect_ex)  # type: ignore[method-assign]
    socket.getaddrinfo = _guarded_getaddrinfo


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # huggingface_hub 2.4 itself uploads LFS content in a way that its HTTP library deprecates.
    upload = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")
    for item in items:
        if "hub" in getattr(item, "fixturenames", ()):
            item.add_marker(upload)


def pytest_unconfigure() -> None:
    _SERVER.stop()
    shutil.rmtree(_HOME, ignore_errors=True)
    socket.socket.connect, socket.socket.connect_ex = _connect, _connect_ex  # type: ignore[method-assign]
    socket.getaddrinfo = _getaddrinfo


@pytest.fixture(autouse=True)
def _loopback_only() -> Iterator[None]:
    """Fail a test that tried to reach any other address, even if the code under test swallowed the error."""
    _outside.clear()
    yield
    assert not _outside, f"not a loopback address: {_outside}"


def _clear_client_caches() -> None:
    for folder in ("hub", "datasets", "task2vec/hub"):
        shutil.rmtree(_HOME / folder, ignore_errors=True)
    if "huggingface_hub.hf_file_system" in sys.modules:
        from huggingface_hub import HfFileSystem

        HfFileSystem.clear_instance_cache()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """The loopback Hub, empty and without faults; the clients' caches on disk are empty too."""
    _SERVER.reset()
    _clear_client_caches()
    yield _SERVER
    errors = list(_SERVER.errors)
    _SERVER.reset()
    _clear_client_caches()
    assert not errors, "\n".join(errors)


@pytest.fixture
def hub_fault(hub: HubServer) -> Iterator[Callable[..., Fault]]:
    """`hub.inject` that fails the test if one of its faults never struck (then the test would show nothing)."""
    injected: list[Fault] = []

    def inject(**settings: Any) -> Fault:
        injected.append(hub.inject(**settings))
        return injected[-1]

    yield inject
    idle = [fault for fault in injected if not fault.fired]
    assert not idle, f"never struck: {idle}; requests: {hub.requests}"


@pytest.fixture
def retry_sleeps() -> Iterator[list[float]]:
    """Make every retry immediate; the list collects how long each would have slept."""
    with hurried() as sleeps:
        yield sleeps


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's cache folder of this test alone; it does not exist yet."""
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real datasets and weights beside the checkout; tests that need it are skipped without it."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not (folder / "tasks").is_dir():
        pytest.skip(f"real test data are not at {folder}")
    return folder


@pytest.fixture(
    scope="module"
)  # Playwright keeps an event loop running, beside which other modules cannot start theirs
def browser() -> Iterator[Any]:
    """The machine's Chromium, driven by Playwright; tests of pages are skipped without either."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=[*switches, "--disable-sync"])
        yield opened
        opened.close()
