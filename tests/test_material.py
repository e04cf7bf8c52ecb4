"""What a ranking keeps for its report: small pictures without their files' metadata, and the call without its token."""

from __future__ import annotations

import ast
import io
import shlex
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_data import TOKEN, call

from hf_task2vec.cli.commands import select
from hf_task2vec.material import MAX_THUMBNAILS, THUMBNAIL_PX, thumbnails, without_tokens
from hf_task2vec.task import Task

# ---------------------------------------------------------------------- the contact sheet


def photo(i: int) -> dict[str, Any]:
    """An encoded image with the metadata that a camera or a program writes."""
    image = Image.effect_noise((400, 300), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x010F], exif[0x0132] = f"Secret camera {i}", "2024:01:01 00:00:00"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif, comment=b"Secret comment", icc_profile=b"Secret profile")
    return {"bytes": stream.getvalue(), "path": f"/home/secret/{i}.jpg"}


def test_thumbnails_are_small_and_bare() -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [photo(i) for i in range(6)], "label": [0, 1] * 3}
    found = thumbnails(Task.from_dataset(datasets.Dataset.from_dict(rows, features=features)))
    assert [t.labels for t in found] == [("a",)] * 3 + [("b",)] * 3
    for thumbnail in found:
        assert (thumbnail.width, thumbnail.height, thumbnail.mime) == (96, 72, "image/jpeg")
        assert b"Secret" not in thumbnail.data
        assert b"Exif" not in thumbnail.data
        with Image.open(io.BytesIO(thumbnail.data)) as image:
            assert image.size == (96, 72)
            assert not image.getexif()
            assert not {"comment", "icc_profile", "exif"} & set(image.info)


def test_small_images_stay_as_they_are() -> None:
    task = Task.from_dataset("sklearn:digits", max_samples=100)
    found = thumbnails(task)
    assert len(found) == MAX_THUMBNAILS
    assert {t.labels for t in found} == {(str(i),) for i in range(10)}  # balanced
    assert found[0].mime == "image/png"
    assert (found[0].width, found[0].height) == (8, 8)
    sizes = [t.data for t in thumbnails(task, 10)]
    first = np.asarray(Image.open(io.BytesIO(sizes[int(task.labels[0])])))
    assert np.array_equal(first, np.asarray(task.images[0]))


def test_sheet_of_several_labels_and_of_odd_sizes() -> None:
    image = datasets.Image()
    labels = datasets.List(datasets.ClassLabel(names=["x", "y"]))
    rows = {"image": [np.full((1, 3000, 3), 9, np.uint8), np.full((60, 50, 3), 7, np.uint8)] * 4}
    rows["label"] = [[0], [0, 1], [1], [0]] * 2
    data = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": image, "label": labels}))
    found = thumbnails(Task.from_dataset(data))
    assert {t.labels for t in found} == {("x",), ("x", "y"), ("y",)}
    assert {(t.width, t.height) for t in found} == {(THUMBNAIL_PX, 1), (50, 60)}


# ---------------------------------------------------------------------- the call


def parsed(command: str) -> dict[str, Any]:
    """What our own command line understands of a command."""
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("hf-task2vec", "select")
    return select.make_context("select", words).params


ASKED = {
    "name": "de; rm -rf /",
    "split": "test",
    "image_column": "the image",
    "streaming": True,
    "max_samples": 64,
    "candidates": ["org/a", "author:timm params:<30M"],
    "max_params": 30e6,
    "max_gmacs": 4.5,
    "licenses": ("mit", "apache-2.0"),
    "library": "timm",
    "input_size": 224,
    "metric": "static",
    "seed": 3,
    "cache": False,
}


def test_the_command_is_what_was_called() -> None:
    made = call(**ASKED, token=TOKEN)
    command = made.command(refine=3)
    assert command is not None
    assert command.startswith("hf-task2vec select './my photos' --name 'de; rm -rf /' ")
    assert TOKEN not in command
    found = parsed(command)
    for name, value in ASKED.items():
        assert found[name] == (list(value) if isinstance(value, tuple) else value), name
    assert found["dataset"] == "./my photos"
    assert found["refine"] == 3
    python = made.python(refine=3)
    assert TOKEN not in python
    options = {k.arg: ast.literal_eval(k.value) for k in ast.parse(python).body[0].value.keywords}  # type: ignore[attr-defined]
    assert options == {**ASKED, "licenses": ["mit", "apache-2.0"], "refine": 3}


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.floats(1e3, 1e12))
def test_any_name_survives_the_shell(dataset: str, most: float) -> None:
    command = call(dataset, max_params=most).command()
    assert command is not None
    found = parsed(command)
    assert found["dataset"] == dataset
    assert found["max_params"] == int(most)


def test_defaults_are_not_repeated_and_all_images_are_counted() -> None:
    assert call("sklearn:digits").command() == "hf-task2vec select sklearn:digits"
    assert call("x", max_samples=None).command(n_rows=1797) == "hf-task2vec select x --max-samples 1797"
    assert call("x", max_samples=None).command() is None
    assert call(Path("a/b"), index=Path("my index")).command() == "hf-task2vec select a/b --index 'my index'"


def test_what_looks_like_a_token_is_blotted_out_and_names_are_not() -> None:
    assert without_tokens(f"x {TOKEN} y", ()) == "x *** y"
    assert without_tokens("hf_task2vec/hf_pictures2024", ()) == "hf_task2vec/hf_pictures2024"
    assert without_tokens("a b", ("b",)) == "a ***"
