"""The web page of `examples/space` without a browser: what a visitor may ask for, its process, what is shown."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

SPACE = Path(__file__).resolve().parents[2] / "examples" / "space"
NOWHERE: dict[str, str | None] = {}


@pytest.fixture(scope="module")
def app() -> ModuleType:
    async def imported() -> ModuleType:  # without a running loop Gradio makes some, and leaves them open
        spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Gradio's own dependencies
        return asyncio.run(imported())


# What may be asked for


@pytest.mark.parametrize(
    "dataset",
    ["", ".", "..", "../x", "/etc", "~", "~/x", "a/b/c", "a b", "org/..", "-x", "C:\\x", "http://x/y", "a/.b"],
)
def test_only_ids_of_the_hub_are_asked_for(app: ModuleType, dataset: str) -> None:
    with pytest.raises(app.RequestError, match="is no id of a dataset on the Hub; one looks like org/name"):
        app.arguments(dataset, NOWHERE, None, [])


@pytest.mark.parametrize("name", ["name", "split", "revision"])
@pytest.mark.parametrize("value", ["../x", "a/../b", "/etc", "a\nb", "x" * 200, "--token"])
def test_other_names_are_checked(app: ModuleType, name: str, value: str) -> None:
    with pytest.raises(app.RequestError, match=f"{name} .* holds signs"):
        app.arguments("org/name", {name: value}, None, [])


def test_the_command_of_a_request(app: ModuleType) -> None:
    from hf_task2vec.cli.commands import select

    words = app.arguments(
        "org/my.data_set-1", {"name": None, "split": "train[:10%]"}, 30e6, ["mit", "apache-2.0"], "linear-probe"
    )
    asked = select.make_context("select", words[1:]).params
    assert (asked["dataset"], asked["split"], asked["name"]) == ("org/my.data_set-1", "train[:10%]", None)
    assert (asked["max_params"], asked["licenses"]) == (30_000_000, ["mit", "apache-2.0"])
    assert asked["protocol"] == "linear-probe"
    assert (asked["streaming"], asked["images"], asked["cache"]) == (True, False, False)
    assert "--streaming" not in app.arguments(app.DIGITS, NOWHERE, None, [])


def test_no_secret_reaches_a_request(app: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "hf_abcdefghijkl")
    found = app.environment(tmp_path)
    assert "hf_abcdefghijkl" not in "".join(found.values())
    assert found["HF_HUB_DISABLE_IMPLICIT_TOKEN"] == "1"
    caches = [value for name, value in found.items() if name.startswith("HF_") and name.endswith(("HOME", "CACHE"))]
    assert len(caches) >= 4
    assert all(value.startswith(str(tmp_path)) for value in caches)


# The process of a request


@pytest.fixture
def request_of(app: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Let a script of a few lines be the command line."""
    (tmp_path / "job").mkdir()

    def start(body: str, seconds: float = 20) -> Iterator[Any]:
        monkeypatch.setattr(app, "_LIMITED", f"import os, sys, time\n{body}".replace("{", "{{").replace("}", "}}"))
        return app.run(["select", "/drop/x.zip"], tmp_path / "job", seconds)

    return start


def test_what_a_request_tells(request_of: Any) -> None:
    body = "print('reading', file=sys.stderr, flush=True); time.sleep(1.5); print('{\"a\": 1}')"
    found = list(request_of(body))
    assert found[-1] == {"a": 1}
    assert found.count("reading") > 1, "something is yielded while nothing happens, so that the page can be left"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print(f'error: {os.getcwd()}/a.png and /drop/x.zip are broken', file=sys.stderr); sys.exit(3)",
         "a.png and x.zip are broken"),
        ("print('error: unexpected KeyError: 1', file=sys.stderr); sys.exit(1)", "Something went wrong here"),
        ("os.kill(os.getpid(), 9)", "Something went wrong here"),
        ("sys.exit(3)", "Something went wrong here"),
    ],
    ids=["told", "unexpected", "killed", "silent"],
)  # fmt: skip
def test_errors_of_a_request(app: ModuleType, request_of: Any, body: str, said: str) -> None:
    with pytest.raises(app.RequestError, match=f"^{said}"):
        list(request_of(body))


def test_a_request_is_ended_when_its_time_is_over(app: ModuleType, request_of: Any) -> None:
    with pytest.raises(app.RequestError, match=r"took longer than 1 seconds"):
        list(request_of("time.sleep(600)", seconds=1))


def test_a_process_ends_with_its_request(request_of: Any) -> None:
    messages = request_of("print(os.getpid(), file=sys.stderr, flush=True); time.sleep(60)")
    pid = next(message for message in messages if message != "starting")
    assert Path(f"/proc/{pid}").exists()
    messages.close()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is enforced there")
def test_memory_is_bounded(app: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MEMORY", 2**20)
    with pytest.raises(app.RequestError):
        list(app.run(app.arguments(app.DIGITS, NOWHERE, None, []), tmp_path))


def test_an_archive_writes_nothing_and_leads_nowhere(app: ModuleType, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.effect_noise((8, 8), 60).save(stream, "PNG")
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as handle:
        for name in ("../x.png", "/etc/y.png", "../../z/1.png"):
            handle.writestr(name, stream.getvalue())
    (tmp_path / "job").mkdir()
    with pytest.raises(app.RequestError) as caught:
        list(app.run(app.arguments(str(tmp_path / "bad.zip"), NOWHERE, None, []), tmp_path / "job"))
    assert str(tmp_path) not in str(caught.value)
    left = {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("*") if p.is_file()}
    assert left <= {"bad.zip", "job"}


# The page

TROUBLE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"


def test_whatever_is_shown_is_escaped(app: ModuleType) -> None:
    facts = {"hub_id": TROUBLE, "score": 0.9, "params_m": None, "license": TROUBLE}
    document = {
        "read": TROUBLE,
        "summary": TROUBLE,
        "warnings": [TROUBLE],
        "shortlist": [{**facts, "reason": TROUBLE}],
        "budgets": [{"max_params": None, "candidate": facts, "lower": 0.0, "low": 0.0, "high": 0.0}],
    }
    for text in (app.alert(TROUBLE), app.shown(document), app.frame(TROUBLE)):
        assert "<script" not in text
        assert "<img" not in text
        assert "&lt;script&gt;alert(1)" in text.lower()
    frame = app.frame('</iframe><script>"')
    assert frame.count('"') == 2 * frame.count('="'), "no quote of the report ends the attribute"
    assert 'sandbox="allow-scripts"' in frame
    assert "same-origin" not in frame


def test_the_page_offers_no_interface_to_programs_and_tells_nobody(app: ModuleType) -> None:
    config = app.demo.config
    assert {dependency["api_visibility"] for dependency in config["dependencies"]} == {"private"}
    assert not app.demo.get_api_info()["named_endpoints"]
    assert app.demo.analytics_enabled is False
    assert app.THEME._stylesheets == []
    queued = [dependency for dependency in app.demo.fns.values() if dependency.queue]
    assert {(entry.concurrency_limit, entry.concurrency_id) for entry in queued} == {(1, "selection")}


def test_the_card_of_the_space(app: ModuleType) -> None:
    import gradio
    import yaml

    head = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (head["sdk"], head["app_file"]) == ("gradio", "app.py")
    assert int(head["sdk_version"].split(".")[0]) <= int(gradio.__version__.split(".")[0])
    assert len(head["short_description"]) <= 60
