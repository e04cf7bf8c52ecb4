"""The package as others get it: lazy names, declared facts, and (slow) what a wheel and an editable install hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import hf_task2vec

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "numpy", "torch", "pandas", "timm", "transformers", "datasets", "sklearn", "scipy", "matplotlib", "PIL", "rich",
    "pydantic", "huggingface_hub", "accelerate", "evaluate", "pyarrow", "safetensors",
}  # fmt: skip
INDEX_FILES = ["manifest.json", "checkpoints.csv", "tasks.csv", "scores.csv", "embeddings.safetensors", "README.md"]


def imported_by(code: str) -> set[str]:
    """Return the top-level modules in memory after `code` ran in a fresh interpreter."""
    report = "\nimport sys; sys.stderr.write('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(result.stderr.splitlines()[-1].split())


def test_import_is_light() -> None:
    loaded = imported_by("import hf_task2vec; dir(hf_task2vec); hf_task2vec.__version__")
    assert "hf_task2vec" in loaded
    assert not loaded & (HEAVY | {"click"})


@pytest.mark.parametrize("arguments", [["select", "--help"], ["--version"], ["select"]])
def test_help_is_light(arguments: list[str]) -> None:
    run = f"from hf_task2vec.cli import cli\ntry: cli({arguments!r})\nexcept SystemExit: pass"
    loaded = imported_by(run)
    assert "click" in loaded
    assert not loaded & HEAVY


def test_public_names_exist() -> None:
    for name in hf_task2vec.__all__:
        assert getattr(hf_task2vec, name) is not None
    for_type_checkers = re.findall(
        r"^    from \.\w+ import (\w+) as \1$", Path(hf_task2vec.__file__).read_text("utf-8"), re.MULTILINE
    )
    assert sorted(for_type_checkers) == sorted(set(hf_task2vec.__all__) - {"__version__"})
    with pytest.raises(AttributeError, match="No hf_task2vec attribute select_backbones"):
        hf_task2vec.select_backbones  # noqa: B018


def test_one_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", hf_task2vec.__version__)
    assert f"## [{hf_task2vec.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert hf_task2vec.__version__ not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_console_script() -> None:
    (script,) = (e for e in metadata.entry_points(group="console_scripts") if e.name == "hf-task2vec")
    assert script.value == "hf_task2vec.cli:main"
    # As an `hf` extension the repository must not hold a file of that name at its root.
    assert not (ROOT / "hf-task2vec").exists()


# ------------------------------------------------------------------------------------------------------------- slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel, built from the sdist as a package index would serve it."""
    folder = tmp_path_factory.mktemp("dist")
    build = "from hatchling.build import build_{0}; build_{0}({1!r})"
    subprocess.run([sys.executable, "-c", build.format("sdist", str(folder))], cwd=ROOT, check=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    subprocess.run([sys.executable, "-c", build.format("wheel", str(folder))], cwd=source, check=True)
    return folder


@pytest.mark.slow
def test_wheel_holds_the_index_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        index = {name: archive.read(name) for name in names if name.startswith("hf_task2vec/zoo_index/")}
    files = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "zoo_index").rglob("*") if path.is_file()}
    assert {f"zoo_index/{file}" for file in INDEX_FILES} <= set(files)
    assert index == {f"hf_task2vec/{name}": path.read_bytes() for name, path in files.items()}
    assert "hf_task2vec/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"hf_task2vec", f"hf_task2vec-{hf_task2vec.__version__}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "__pycache__" in name]


def install(environment: Path, *what: str) -> Path:
    """Make a virtual environment that sees this one's libraries and install `what` in it; return its Python."""
    venv.create(environment, with_pip=False)
    (library,) = environment.glob("lib/python*/site-packages")
    # The libraries of this environment come last, so that the package itself is found in the new one.
    (library / "zz_libraries.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", *what], check=True)
    return python


def index_seen_by(python: Path, cwd: Path) -> dict[str, str]:
    code = (
        "import json, hf_task2vec; from hf_task2vec.zoo.index import ZooIndex, default_index_path;"
        "print(json.dumps([hf_task2vec.__file__, str(default_index_path()), ZooIndex.load().fingerprint]))"
    )
    result = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=cwd)
    return dict(zip(("package", "index", "fingerprint"), json.loads(result.stdout), strict=True))


@pytest.mark.slow
def test_installed_wheel_finds_its_own_index(built: Path, tmp_path: Path) -> None:
    from hf_task2vec.zoo.index import ZooIndex

    python = install(tmp_path / "venv", str(next(built.glob("*.whl"))))
    seen = index_seen_by(python, tmp_path)
    assert Path(seen["index"]) == Path(seen["package"]).parent / "zoo_index"
    assert Path(seen["index"]).is_relative_to(tmp_path)
    assert seen["fingerprint"] == ZooIndex.load().fingerprint
    script = subprocess.run([python, "-I", python.with_name("hf-task2vec"), "index", "info"], cwd=tmp_path, check=False)
    assert script.returncode == 0


@pytest.mark.slow
def test_editable_install_reads_the_index_of_the_checkout(tmp_path: Path) -> None:
    python = install(tmp_path / "venv", "--editable", str(ROOT))
    seen = index_seen_by(python, tmp_path)
    assert Path(seen["package"]).parent == ROOT / "hf_task2vec"
    assert Path(seen["index"]) == ROOT / "zoo_index"
    # No copy from the day of the install lies about.
    assert not list((tmp_path / "venv").rglob("checkpoints.csv"))
