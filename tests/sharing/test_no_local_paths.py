"""What others may see names no folder of the machine that it was made on."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_task2vec.embedding import TaskEmbedding, embed_task
from hf_task2vec.evidence import add_score
from hf_task2vec.report import map_page, map_tasks
from hf_task2vec.selection import select_backbone
from hf_task2vec.tasks import Task
from hf_task2vec.zoo import ZooIndex
from tests.support.hub import HubServer
from tests.support.pictures import png
from tests.support.synthetic import tiny_probe, zoo

CLASSES = ("glass", "metal")
HOME, WORK, TEMPORARY = "the-home-of-one", "where-one-works", "what-is-temporary"
REPO = "org/shared"


def pictures(root: Path) -> list[Path]:
    """Write class folders, of whose files the first ones of a class are broken, each in another way."""
    faults = [b"<html>", b"", b"version https://git-lfs.github.com/spec/v1\noid", png(0)[:60]]
    paths = []
    for label in CLASSES:
        (root / label).mkdir(parents=True)
        for i in range(len(faults) + 3):
            paths.append(root / label / f"{i}.png")
            paths[-1].write_bytes(faults[i] if i < len(faults) else png(len(paths)))
    return paths


def as_folders(root: Path, paths: list[Path]) -> Any:
    return root


def as_zip(root: Path, paths: list[Path]) -> Any:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in paths:
            archive.write(path, path.relative_to(root))
    return root.with_suffix(".zip")


def as_tar(root: Path, paths: list[Path]) -> Any:
    with tarfile.open(root / "photos.tar", "w") as archive:
        for path in paths:
            archive.add(path)  # with its folders
    return root / "photos.tar"


def frame(paths: list[Path]) -> pd.DataFrame:
    """A table of absolute paths, of which one leads nowhere, and a column that names folders."""
    found = [*paths, paths[-1].with_name("absent.png")]
    labels = [path.parent.name for path in found]
    return pd.DataFrame({"image": map(str, found), "label": labels, "folder": [str(p.parent) for p in found]})


def as_frame(root: Path, paths: list[Path]) -> Any:
    return frame(paths)


def as_csv(root: Path, paths: list[Path]) -> Any:
    (root.parent / "tables").mkdir()
    frame(paths).to_csv(root.parent / "tables" / "list.csv", index=False)
    return root.parent / "tables"


def as_list_file(root: Path, paths: list[Path]) -> Any:
    frame(paths).to_csv(root / "list.csv", index=False)
    return root / "list.csv"


def as_parquet(root: Path, paths: list[Path]) -> Any:
    (root.parent / "parquet").mkdir()
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    cells = pa.array([{"bytes": None, "path": str(path)} for path in paths], kind)
    table = pa.table({"image": cells, "label": [path.parent.name for path in paths]})
    pq.write_table(table, root.parent / "parquet" / "data.parquet")
    return root.parent / "parquet"


def as_pairs(root: Path, paths: list[Path]) -> Any:
    return [(path, path.parent.name) for path in paths]


def as_saved(root: Path, paths: list[Path]) -> Any:
    import datasets

    cells = {"image": [str(path) for path in paths], "label": [path.parent.name for path in paths]}
    data = datasets.Dataset.from_dict(cells).cast_column("image", datasets.Image())
    data.save_to_disk(root.parent / "saved")
    return root.parent / "saved"


def labels_are_folders(root: Path, paths: list[Path]) -> Any:
    return frame(paths).drop(columns="label")


PATHS = [as_folders, as_zip, as_tar, as_csv, as_list_file, as_parquet, as_saved]
OBJECTS = [as_frame, as_pairs, labels_are_folders]


@pytest.mark.parametrize(
    ("form", "relative"), [*((form, True) for form in PATHS), *((form, False) for form in [*PATHS, *OBJECTS])]
)
def test_nothing_that_others_see_names_a_folder(
    form: Callable[[Path, list[Path]], Any], relative: bool, tmp_path: Path, hub: HubServer
) -> None:
    home = tmp_path / HOME
    root = home / WORK / "photos"
    root.mkdir(parents=True)
    (home / TEMPORARY).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("TMPDIR", str(home / TEMPORARY))
        patch.setenv("HF_TASK2VEC_CACHE", str(home / TEMPORARY / "cache"))
        patch.setattr(tempfile, "tempdir", None)
        patch.chdir(home)
        data = form(root, pictures(root))
        if relative:
            data = Path("..") / HOME / data.relative_to(home)
        for name, content in artefacts(data, hub, home).items():
            for place in (HOME, WORK, TEMPORARY):
                at = content.find(place.encode())
                assert at < 0, f"{name}: {content[max(0, at - 200) : at + 100]!r}"


def artefacts(data: Any, hub: HubServer, home: Path) -> dict[str, bytes]:
    """Everything about a dataset that is made to be given away."""
    task, probe = Task.from_dataset(data), tiny_probe()
    embedding = embed_task(task, probe)
    index = zoo({"twin": embedding}, weights_hash=probe.weights_hash)
    index.save(home / TEMPORARY / "index")
    ranking = select_backbone(data, index=str(home / TEMPORARY / "index"), probe=probe)
    asked = {**ranking.request, "probe": str(home / "probe")}  # as if it had been a path too
    replace(ranking, request=asked).report(home / "report.html")
    embedding.save(home / "embedding")
    saved = TaskEmbedding.load(home / "embedding")
    saved.push_to_hub(REPO, token=hub.tokens.write, index=index)
    add_score(
        *(home / "own",), task=saved, checkpoint=ranking.best.hub_id, score=0.5, protocol="probe", n_test=9, base=index
    )
    ZooIndex.load(home / "own").push_to_hub(f"{REPO}-index", token=hub.tokens.write)
    pushed = {f"{repo}/{name}": content for repo in (REPO, f"{REPO}-index") for name, content in files(hub, repo)}
    own = {path.name: path.read_bytes() for path in (home / "own").iterdir() if path.is_file()}
    said = [task.read, repr(task), *task.warnings, *task.label_names, repr(ranking), ranking._repr_html_()]
    return {
        **pushed,
        **{f"index/{name}": content for name, content in own.items()},
        "report": (home / "report.html").read_bytes(),
        "map": map_page(map_tasks([saved, index.embeddings["task1"]])).encode(),
        "json": ranking.to_json().encode(),
        "provenance": str(task.describe()).encode(),
        "saved": (home / "embedding").read_bytes(),
        "said": "\n".join(said).encode(),
    }


def files(hub: HubServer, repo: str) -> list[tuple[str, bytes]]:
    return list(hub.repo(repo, "dataset").files().items())
