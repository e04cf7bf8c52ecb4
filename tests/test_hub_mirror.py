"""A second, real server between the clients and the loopback Hub: olah, a mirror that caches what it passes on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub import HubServer
from hub_tables import CLASSIC, shards, sorted_labels, table

from hf_task2vec.embedding import TaskEmbedding

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def olah(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The mirror's program: the one on the PATH, or newly installed beside the tests, whose libraries differ."""
    if found := shutil.which("olah-cli"):
        return found
    folder = tmp_path_factory.mktemp("olah")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    done = subprocess.run([folder / "bin" / "pip", "install", "-q", "olah"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"olah cannot be installed: {done.stderr[-300:]}")
    return str(folder / "bin" / "olah-cli")


@pytest.fixture
def mirror(hub: HubServer, olah: str, tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    upstream, own = hub.endpoint.removeprefix("http://"), f"127.0.0.1:{port}"
    options = {"hf-scheme": "http", "hf-netloc": upstream, "hf-lfs-netloc": upstream, "mirror-netloc": own}
    options |= {"mirror-lfs-netloc": own, "host": "127.0.0.1", "port": str(port)}
    options |= {"repos-path": str(tmp_path / "repos"), "log-path": str(tmp_path / "logs")}
    log = tmp_path / "olah.log"
    with log.open("w") as output:
        process = subprocess.Popen([olah, *(f"--{k}={v}" for k, v in options.items())], stdout=output, stderr=output)
    try:
        for _ in range(300):
            if process.poll() is not None:
                pytest.fail(log.read_text()[-2000:])
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://{own}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def start(endpoint: str, *arguments: str, home: str = "home") -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key != "HF_ENDPOINT"}
        environment |= {"HF_HOME": str(tmp_path / home), "HF_TASK2VEC_CACHE": str(tmp_path / home / "task2vec")}
        command = [sys.executable, "-m", "hf_task2vec.cli", *arguments, "--endpoint", endpoint]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    return start


def test_through_the_mirror_as_from_the_hub(
    hub: HubServer, mirror: str, run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    hub.create_dataset("org/shapes", shards(table(sorted_labels(4, 60)), 3, CLASSIC))
    select = ("select", "org/shapes", "--max-samples", "48", "--json")
    direct, mirrored = run(hub.endpoint, *select, home="direct"), run(mirror, *select, home="mirrored")
    assert (direct.returncode, mirrored.returncode) == (0, 0), direct.stderr + mirrored.stderr
    answers = [json.loads(done.stdout) for done in (direct, mirrored)]
    assert answers[0]["candidates"] == answers[1]["candidates"]
    assert answers[0]["provenance"]["task"] == answers[1]["provenance"]["task"]

    embedding = tmp_path / "embedding"
    done = run(mirror, "embed", "org/shapes", "--max-samples", "48", "-o", str(embedding), home="mirrored")
    assert done.returncode == 0, done.stderr
    token = ("--token", hub.tokens.write)
    done = run(hub.endpoint, "push", str(embedding), "org/shapes-task2vec", *token, home="direct")
    assert done.returncode == 0, done.stderr
    done = run(mirror, "pull", "org/shapes-task2vec", "-o", str(tmp_path / "pulled"), home="mirrored")
    assert done.returncode == 0, done.stderr
    pushed, pulled = TaskEmbedding.load(embedding), TaskEmbedding.load(tmp_path / "pulled")
    assert pulled.values.tobytes() == pushed.values.tobytes()
    assert pulled.describe() == pushed.describe()


def test_what_a_mirror_cannot_do_is_said(
    hub: HubServer, mirror: str, run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    embedding = tmp_path / "embedding"
    done = run(hub.endpoint, "embed", "sklearn:digits", "--max-samples", "32", "-o", str(embedding))
    assert done.returncode == 0, done.stderr
    done = run(mirror, "push", str(embedding), "org/new", "--token", hub.tokens.write)
    assert done.returncode == 5
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert hub.tokens.write not in done.stderr + done.stdout
    assert ("dataset", "org/new") not in hub.repo_ids()
