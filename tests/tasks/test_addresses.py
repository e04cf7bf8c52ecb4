"""Images by address: silent hosts, dead ones, missing files and missing packages end soon, and are told apart."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from hf_task2vec.errors import HubError, ImageDecodeError
from hf_task2vec.tasks import Task, addresses
from tests.support.pictures import number, png


class _Pictures(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind, _, name = self.path.strip("/").removesuffix(".png").rpartition("/")
        self.server.asked[self.path] += 1  # type: ignore[attr-defined]
        again = self.server.asked[self.path] > 1  # type: ignore[attr-defined]
        status = {"down": 503, "busy": 200 if again else 429}.get(kind, 200)
        if kind == "breaks" and not again:
            return  # without an answer
        self.send_response(status if name.isdigit() else 404)
        self.end_headers()
        if name.isdigit() and status == 200:
            for byte in png(int(name)) if kind == "slow" else ():
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
            self.wfile.write(png(int(name)))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pictures) as server:
        server.asked = Counter()  # type: ignore[attr-defined]
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


def test_what_passes_is_tried_again(web: str) -> None:
    task = task_of([f"{web}/busy/{i}.png" for i in range(4)] + [f"{web}/breaks/{i}.png" for i in range(4, 8)])
    assert sorted(map(number, task.images)) == list(range(8))


def test_what_stays_is_named(web: str) -> None:
    with pytest.raises(HubError, match=r"none of 6 images .* answers with status 503"):
        len(task_of([f"{web}/down/{i}.png" for i in range(6)]))


def test_a_host_that_drips_is_given_up(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "SECONDS_EACH", 1.0)
    task = task_of([f"{web}/{i}.png" for i in range(4)] + [f"{web}/slow/{i}.png" for i in range(4)])
    assert len(task) == 4
    assert {image.reason.partition(" ")[2] for image in task.skipped} <= {
        "did not send the image within 1 s", "is asked no more: " + web.removeprefix("http://")
        + " did not send the image within 1 s", "did not answer within 1 s",
    }  # fmt: skip


def test_time_in_all_is_limited(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fetcher = addresses.Fetcher(None)
    fetcher.fetch(f"{web}/1.png")
    monkeypatch.setattr(fetcher, "_ends", time.monotonic() - 1.0)
    with pytest.raises(ImageDecodeError, match="not fetched within 45 s in all"):
        fetcher.fetch(f"{web}/2.png")


def test_a_store_that_never_answers_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "SECONDS_EACH", 0.1)
    monkeypatch.setattr(addresses.Fetcher, "_of_store", lambda *_: time.sleep(1.0))
    with pytest.raises(ImageDecodeError, match="did not answer within 0 s"):
        addresses.Fetcher(None).fetch("s3://bucket/1.png")
