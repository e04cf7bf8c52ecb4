"""The web page of `examples/space` as a visitor sees it: served by itself, used in Chromium without a screen."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.support.hub import HubServer
from tests.support.synthetic import dataset

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SPACE = Path(__file__).resolve().parents[2] / "examples" / "space"
SLOW = 500_000  # milliseconds for a whole selection on a busy machine
SECRET = "hf_abcdefghijklmnopqrstuvwxyz"


class Server:
    """The page, served by ``python app.py`` as a Space does it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.log = folder / "log"
        environment = {
            **os.environ,
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(folder / "gradio"),
            "TMPDIR": str(self.temporary),
            "HF_TOKEN": SECRET,
            "OMP_NUM_THREADS": "1",
        }
        with self.log.open("wb") as log:
            command = [sys.executable, str(SPACE / "app.py")]
            self.process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)

    def wait(self) -> None:
        end = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(self.address, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                text = self.log.read_text(encoding="utf-8")
                assert self.process.poll() is None, text
                assert time.monotonic() < end, text
                time.sleep(0.2)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def leftovers(self) -> list[str]:
        return [path.name for path in self.temporary.iterdir() if path.name.startswith("task2vec-")]


class Visit:
    """One visitor's browser, and what it asked for."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server = page, server
        self.elsewhere: list[str] = []
        self.troubles: list[str] = []
        page.on("request", lambda request: self._note(request.url))
        page.on("dialog", lambda dialog: (self.troubles.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.goto(server.address)
        page.wait_for_selector("#rank-zip", timeout=60_000)

    def _note(self, url: str) -> None:
        if not url.startswith((self.server.address, self.server.address.replace("http", "ws"), "data:", "blob:")):
            self.elsewhere.append(url)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def drop(self, path: Path) -> None:
        self.page.set_input_files("#archive input[type=file]", path)
        self.page.wait_for_selector(f"#archive :text('{path.suffix}')")
        self.page.wait_for_timeout(500)
        self.page.click("#rank-zip")

    def error(self, timeout: float = 60_000) -> str:
        self.page.wait_for_selector("#status [role=alert]", timeout=timeout)
        text = self.page.inner_text("#status [role=alert]")
        self._check()
        return text

    def stages(self) -> list[str]:
        """Wait for the result; return what was shown meanwhile."""
        self.page.wait_for_selector("#status [role=alert]", state="detached")  # of a request before
        seen: list[str] = []
        end = time.monotonic() + SLOW / 1000
        while not self.page.locator("#result").is_visible():
            assert time.monotonic() < end, self.server.log.read_text(encoding="utf-8")
            assert not self.page.locator("#status [role=alert]").count(), self.page.inner_text("#status")
            if self.page.locator("#status [role=status]").count():
                seen.append(self.page.inner_text("#status"))
            self.page.wait_for_timeout(100)
        self._check()
        return seen

    def download(self, name: str) -> bytes:
        with self.page.expect_download() as started:
            self.page.click(f"#{name}")
        return Path(started.value.path()).read_bytes()

    def _check(self) -> None:
        self.page.wait_for_timeout(300)
        assert not self.elsewhere, "the page asks nobody but its own server"
        assert not self.troubles
        deadline = time.monotonic() + 10
        while self.server.leftovers() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not self.server.leftovers(), "the folder of a request goes with it"
        assert SECRET not in self.server.log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page; not started where there is no browser to look at it."""
    found = Server(tmp_path_factory.mktemp("served"))
    try:
        found.wait()
        yield found
    finally:
        found.stop()


@pytest.fixture
def visit(server: Server, browser: Browser) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1360, "height": 950})
    yield Visit(page, server)
    page.close()


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG")
    return stream.getvalue()


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as handle:
        for name, data in files.items():
            handle.writestr(name, data)
    return path


def test_bad_archives_are_explained(visit: Visit, tmp_path: Path) -> None:
    visit.page.click("#rank-zip")
    assert visit.error() == "That did not work. Drop a zip first: one folder of images a class."
    visit.drop(archive(tmp_path / "bad.zip", {"<img src=x onerror=alert(1)>.txt": b"x"}))
    visit.page.wait_for_selector("#status :text('bad.zip')", timeout=SLOW)
    assert str(visit.server.temporary) not in visit.error()
    assert not visit.page.locator("img[src=x]").count()


def test_a_folder_of_the_server_is_no_dataset(visit: Visit) -> None:
    visit.tab("Hub dataset")
    visit.page.fill("#hub-id textarea, #hub-id input", "../..")
    visit.page.click("#rank-hub")
    visit.page.wait_for_selector("#status :text('is no id of a dataset')")


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_the_sample_from_click_to_report(visit: Visit) -> None:
    visit.tab("Sample")
    visit.page.click("#rank-sample")
    assert "embedding sklearn:digits" in "\n".join(visit.stages())
    document = json.loads(visit.download("json"))
    assert document["dataset"] == "sklearn:digits"
    said = visit.page.inner_text("#answer")
    assert document["summary"] in said
    assert all(found["hub_id"] in said for found in document["shortlist"])
    assert b"<html" in visit.download("report-file").lower()
    visit.page.click("#report-box > button")
    report = visit.page.frame_locator("#report iframe")
    assert document["candidates"][0]["hub_id"] in report.locator("body").inner_text()
    assert visit.page.locator("#report iframe").get_attribute("sandbox") == "allow-scripts"
    visit.page.set_viewport_size({"width": 390, "height": 800})
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    visit._check()


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_a_zip_of_images(visit: Visit, tmp_path: Path) -> None:
    classes = ("glass", "metal", "<b onclick=alert(1)>")
    files = {f"photos/{classes[row['label']]}/{i}.jpg": encoded(row["image"]) for i, row in enumerate(dataset(40))}
    files |= {"photos/glass/broken.jpg": b"\xff\xd8\xff\xe0 cut", "__MACOSX/photos/._1.jpg": b"x"}
    visit.drop(archive(tmp_path / "my photos.zip", files))
    visit.stages()
    assert "1 broken image skipped" in visit.page.inner_text("#answer")
    text = visit.download("json").decode()
    assert str(visit.server.temporary) not in text + visit.download("report-file").decode()
    assert not visit.page.locator("b[onclick]").count()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_datasets_of_the_hub(visit: Visit, hub: HubServer) -> None:
    stream = io.BytesIO()
    dataset(24).to_parquet(stream)
    files: dict[str, Any] = {"data/train-00000-of-00001.parquet": stream.getvalue()}
    hub.create_dataset("org/colours", files)
    hub.create_dataset("org/private", files, private=True)
    visit.tab("Hub dataset")
    visit.page.fill("#hub-id textarea, #hub-id input", "org/private")
    visit.page.click("#rank-hub")
    assert re.search(r"org/private.*(private or gated|token)", visit.error(SLOW))
    visit.page.fill("#hub-id textarea, #hub-id input", "org/colours")
    visit.page.click("#rank-hub")
    visit.stages()
    assert "24 of 24 images" in visit.page.inner_text("#answer")
    assert json.loads(visit.download("json"))["provenance"]["task"]["revision"]
    assert hub.requests
    assert not any("authorization" in entry.headers for entry in hub.requests), "no token, though there is one"


@pytest.mark.slow
def test_stop(visit: Visit) -> None:
    visit.tab("Sample")
    visit.page.click("#rank-sample")
    visit.page.wait_for_selector("#status [role=status]", timeout=60_000)
    assert visit.server.leftovers()
    visit.page.click("#stop")
    visit.page.wait_for_selector("#status :text('Stopped.')", timeout=20_000)
    visit._check()
    visit.page.click("#rank-sample")  # the queue is free again
    visit.page.wait_for_selector("#status [role=status]", timeout=60_000)
    visit.page.click("#stop")
    visit.page.wait_for_selector("#status :text('Stopped.')", timeout=20_000)
