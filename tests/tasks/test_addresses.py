"""Images by address: silent hosts, dead ones, missing files and missing packages end soon, and are told apart."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from hf_task2vec.errors import HubError
from hf_task2vec.tasks import Task, addresses
from tests.support.pictures import number, png


class _Pictures(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.strip("/").removesuffix(".png")
        self.send_response(200 if name.isdigit() else 404)
        self.end_headers()
        if name.isdigit():
            self.wfile.write(png(int(name)))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pictures) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def task_of(places: list[str]) -> Task:
    return Task.from_dataset([({"path": place}, "ab"[i % 2]) for i, place in enumerate(places)])


def test_images_by_address(web: str) -> None:
    task = task_of([f"{web}/{i}.png" for i in range(8)] + [f"{web}/gone.png"])
    assert sorted(map(number, task.images)) == list(range(8))
    assert [image.reason for image in task.skipped] == ["not at its address: status 404"]


def test_a_silent_host_is_given_up(web: str, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "SECONDS_EACH", 4.0)
    with pytest.raises(
        HubError, match=r"none of 40 images given by address could be fetched: 127.0.0.1:\d+ did not an"
    ):
        len(task_of([f"{silent}/{i}.png" for i in range(40)]))
    task = task_of([f"{web}/{i}.png" for i in range(8)] + [f"{silent}/{i}.png" for i in range(8)])
    assert len(task) == 8
    assert len(task.skipped) == 8, "what was read so far counts"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:9/{}.png", r"127.0.0.1:9 cannot be reached"),
        ("s3://bucket/{}.png", r"s3 addresses need pip install s3fs"),
    ],
)
def test_other_causes_are_named(address: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        len(task_of([address.format(i) for i in range(6)]))
