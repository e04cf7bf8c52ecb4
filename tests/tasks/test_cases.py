"""Datasets as people have them that once went wrong: every row is a public report, and stands for its kind.

Each is built small, with pictures that tell their number, and read. The numbers are those of the collection of reports
that the cases come from; L stands for everyday layouts.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import re
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from hf_task2vec.errors import ColumnError, DatasetNotFoundError, ImageDecodeError, LabelError, TaskError
from hf_task2vec.tasks import Task
from hf_task2vec.tasks.images import reads_heic
from tests.support.hub import HubServer
from tests.support.pictures import png

CLASSES = ("glass", "metal", "paper")
NUMBERS = itertools.count()  # no two pictures are the same
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


def write(root: Path, files: Iterable[str], content: bytes | None = None) -> None:
    """Write pictures that differ, or the same content, at some paths."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(png(next(NUMBERS)) if content is None else content)


def classes(root: Path, pattern: str = "{c}/{i}.png", n: int = 4, names: Iterable[str] = CLASSES) -> None:
    write(root, [pattern.format(c=c, i=i) for c in names for i in range(n)])


def table(root: Path, text: str, name: str = "metadata.csv", encoding: str = "utf-8") -> None:
    (root / name).write_bytes(text.encode(encoding))


def rows(
    file: str = "{c}{i}.png", label: str = "{c}", mark: str = ",", head: str = "file_name,label", n: int = 4
) -> str:
    lines = [f"{file.format(c=c, i=i)}{mark}{label.format(c=c, i=i)}" for c in CLASSES for i in range(n)]
    return "\n".join([head.replace(",", mark), *lines]) + "\n"


def splits(left_out: str = "") -> str:
    """A table of splits of the pictures that `classes` writes."""
    every = rows("{c}/{i}.png", "train", head="file_name,split").replace("3.png,train", "3.png,test")
    return "".join(line for line in every.splitlines(keepends=True) if not left_out or left_out not in line)


def cub(line: str) -> str:
    """A line for each of the pictures that `classes` writes, in the form of CUB-200's lists."""
    each = [(k, c, i) for k, c in enumerate(CLASSES, 1) for i in range(4)]
    return "".join(f"{line.format(n=n, k=k, c=c, i=i, t=int(i < 3))}\n" for n, (k, c, i) in enumerate(each, 1))


def rows_by_number(line: str, head: str = "id,label", n: int = 12) -> str:
    """A line each of numbered files, of three classes in turn: {c} is the class, {f} its flags, {s} a split."""
    flags = ("1 -1 -1", "-1 1 -1", "-1 -1 1")
    facts = [{"i": i, "c": CLASSES[i % 3], "f": flags[i % 3], "s": i // 9} for i in range(n)]
    return "".join(f"{text}\n" for text in [*filter(None, [head]), *(line.format(**fact) for fact in facts)])


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def packed(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def encrypted(path: Path) -> None:
    packed(path, pictures())
    data = path.read_bytes().replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")
    path.write_bytes(data)


def pictures(pattern: str = "{c}/{i}.png", n: int = 4) -> dict[str, bytes]:
    return {pattern.format(c=c, i=i): png(next(NUMBERS)) for c in CLASSES for i in range(n)}


def shard(start: int, side: Callable[[int], tuple[str, bytes]], kind: Callable[[int], str]) -> dict[str, bytes]:
    members = {}
    for i in range(start, start + 6):
        image = io.BytesIO()
        Image.new("RGB", (8, 8), (20 * i, 255 - 20 * i, 0)).save(
            image, {"jpg": "JPEG", "png": "PNG", "JPG": "JPEG"}[kind(i)]
        )
        ending, content = side(i % 3)
        members |= {f"s{i:03d}.{kind(i)}": image.getvalue(), f"s{i:03d}.{ending}": content}
    return members


@dataclass
class Case:
    """A folder, and how it is to be read."""

    build: Callable[[Path], object]
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 4))
    labels_from: str = "the folders"
    split: str = "train"
    said: tuple[str, ...] = ()
    """Texts that the warnings have."""
    left_out: dict[str, int] = field(default_factory=dict)


def several(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: [step(root) for step in steps]


METADATA = "column 'label' of metadata.csv"
READ = {
    "01 names with split words": Case(
        lambda r: write(r, [f"{c}/{n}" for c in CLASSES for n in ("val-1.png", "test_1.png", "train.png", "x.png")])
    ),
    "24 classes with split words": Case(
        lambda r: classes(r, names=("test_tube", "flask", "train")), {"flask": 4, "test_tube": 4, "train": 4}
    ),
    "02 a test split without classes": Case(
        several(lambda r: classes(r, "train/{c}/{i}.png"), lambda r: write(r, ["test/0.png", "test/1.png"])),
        said=("test have no class folders, so no labels",),
    ),
    "03 a stray picture": Case(
        several(classes, lambda r: write(r, ["overview.png"])),
        said=("1 images lie beside the class folders and are left out: overview.png",),
        left_out={"in no class folder": 1},
    ),
    "03 batches inside the classes": Case(lambda r: classes(r, "{c}/batch{i}/{i}.png")),
    "04 files of operating systems": Case(
        several(
            classes,
            lambda r: write(r, [f"__MACOSX/{c}/._0.png" for c in CLASSES] + ["glass/._1.png"], b"\0\5\x16\7"),
            lambda r: write(r, ["glass/Thumbs.db", ".DS_Store", ".ipynb_checkpoints/x.png"], b"x"),
        )
    ),
    "06 classes that are links": Case(
        several(
            lambda r: classes(r.parent / "store"),
            lambda r: [(r / c).symlink_to(r.parent / "store" / c) for c in CLASSES],
            lambda r: (r.parent / "store" / "glass" / "again").symlink_to(r),
        ),
        said=("a link to a folder that is read already",),
        left_out={"a link to a folder that is read already": 1},
    ),
    "06 pictures that are links": Case(
        several(
            lambda r: classes(r.parent / "pool"),
            lambda r: [(r / c).mkdir() for c in CLASSES],
            lambda r: [(r / p).symlink_to(r.parent / "pool" / p) for p in pictures()],
        )
    ),
    "06 links that lead to each other": Case(
        several(classes, lambda r: (r / "a").symlink_to("b"), lambda r: (r / "b").symlink_to("a")),
        said=("2 left out: a broken link (a, b)",),
        left_out={"a broken link": 2},
    ),
    "07 HEIC": Case(
        several(classes, lambda r: write(r, ["glass/a.HEIC", "metal/b"], HEIC)),
        said=("2 left out: HEIC (glass/a.HEIC, metal/b); pip install hf-task2vec[heic] to read HEIC, or convert",),
        left_out={"HEIC": 2},
    ),
    "07 no suffix, and others": Case(
        several(
            lambda r: classes(r, "{c}/{i}", names=["paper"]),
            lambda r: classes(r, "{c}/{i}.PNG", names=["glass"]),
            lambda r: classes(r, "{c}/{i}.photo", names=["metal"]),
        )
    ),
    "08 WebDataset, mixed formats": Case(
        lambda r: [
            tar(
                r / f"train-{n:03d}.tar",
                shard(6 * n, lambda k: ("cls", b"%d" % k), lambda i: "png" if i % 2 else "jpg"),
            )
            for n in range(2)
        ],
        {"0": 4, "1": 4, "2": 4},
        "column 'cls' of the side files",
    ),
    "16 WebDataset, json": Case(
        lambda r: tar(
            r / "0000.tar",
            shard(0, lambda k: ("json", json.dumps({"label": CLASSES[k], "id": 7}).encode()), lambda i: "JPG"),
        ),
        dict.fromkeys(CLASSES, 2),
        "column 'label' of the side files",
    ),
    "09 empty class folders": Case(
        several(classes, lambda r: (r / "plastic").mkdir(), lambda r: write(r, ["card/x.npy"], b"x")),
        said=("no image that can be read in 2 folders", "'plastic' (empty)", "'card' (1 an array of numpy)"),
        left_out={"an array of numpy": 1},
    ),
    "10 no suffix in the table": Case(
        several(lambda r: classes(r, "{c}{i}.png"), lambda r: table(r, rows("{c}{i}"))), labels_from=METADATA
    ),
    "10 semicolons, UTF-16": Case(
        several(lambda r: classes(r, "{c}{i}.png"), lambda r: table(r, rows(mark=";"), encoding="utf-16")),
        labels_from=METADATA,
    ),
    "10 a byte order mark, another name": Case(
        several(
            lambda r: classes(r, "{c}{i}.png"), lambda r: table(r, rows(head="filename,label"), encoding="utf-8-sig")
        ),
        labels_from=METADATA,
    ),
    "10 paths of another machine": Case(
        several(lambda r: classes(r, "{c}{i}.png"), lambda r: table(r, rows("C:\\ana\\{c}{i}.png"))),
        labels_from=METADATA,
    ),
    "10 lost files": Case(
        several(lambda r: classes(r, "{c}{i}.png"), lambda r: table(r, rows(n=6))),
        labels_from=METADATA,
        said=("6 of 18 rows of metadata.csv name files that are not there: glass4.png",),
        left_out={"named in the table but not there": 6},
    ),
    "11 classes that look alike": Case(
        several(
            lambda r: classes(r, "{c}{i}.png"),
            lambda r: table(r, rows().replace("0.png,glass", "0.png,Glass").replace("1.png,glass", "1.png,glass ")),
        ),
        {"Glass": 1, "glass": 2, "glass ": 1, "metal": 4, "paper": 4},
        METADATA,
        said=("classes differ only by blanks, case or Unicode form: 'Glass', 'glass', 'glass '",),
    ),
    "12 a table of other facts": Case(
        several(
            classes, lambda r: table(r, rows("{c}/{i}.png", "{i}", head="file_name,photographer").replace("3\n", "0\n"))
        ),
        said=("column 'photographer' of metadata.csv: it has no name of a label; labels are taken from the folders",),
    ),
    "12 a table without a label": Case(
        several(classes, lambda r: table(r, rows("{c}/{i}.png", "2026-01-0{i}", head="file_name,taken_at"))),
        said=("metadata.csv: no label column",),
    ),
    "19 a clone and a download": Case(
        several(classes, lambda r: write(r, [".git/index", ".cache/huggingface/x.metadata", ".gitattributes"], b"x"))
    ),
    "21 one-hot floats": Case(
        several(
            lambda r: classes(r, "{c}{i}.png"),
            lambda r: table(
                r,
                "image,MEL,NV\n"
                + "".join(f"{c}{i},{float(c == 'glass')},{float(c != 'glass')}\n" for c in CLASSES for i in range(4)),
            ),
        ),
        {"MEL": 4, "NV": 8},
        "column 'MEL,NV' of metadata.csv",
    ),
    "L1 images and a table": Case(
        several(lambda r: classes(r, "images/{c}{i}.png"), lambda r: table(r, rows(), "train.csv")),
        labels_from="column 'label' of train.csv",
    ),
    "L1 train, test, and a submission": Case(
        several(
            lambda r: classes(r, "train/{c}{i}.png"),
            lambda r: write(r, ["test/a.png", "test/b.png"]),
            lambda r: table(r, rows("{c}{i}", head="id,label"), "train.csv"),
            lambda r: table(r, "id\na\nb\n", "test.csv"),
            lambda r: table(r, "id,label\na,glass\nb,glass\n", "sample_submission.csv"),
        ),
        labels_from="column 'label' of train.csv",
        said=("test have no labels",),
    ),
    "L1 lines of JSON in folders of parts": Case(
        several(
            lambda r: classes(r, "images/part{i}/{c}{i}.png"),
            lambda r: table(
                r, "\n".join(json.dumps({"image": f"{c}{i}.png", "y": c}) for c in CLASSES for i in range(4)), "a.jsonl"
            ),
        ),
        labels_from="column 'y' of a.jsonl",
    ),
    "L1 a list without heading": Case(
        several(
            lambda r: classes(r, "images/{c}{i}.png"), lambda r: table(r, rows(mark=" ").partition("\n")[2], "list.txt")
        ),
        labels_from="column 'column 2' of list.txt",
        said=("only because its values repeat",),
    ),
    "L1 a table of splits": Case(
        several(
            lambda r: classes(r, "images/{c}{i}.png", n=6),
            lambda r: table(r, rows(), "train.csv"),
            lambda r: table(r, rows("{c}4.png"), "val.csv"),
        ),
        labels_from="column 'label' of train.csv, val.csv",
        said=("not named",),
        left_out={"not named in the table": 3},
    ),
    "L2 a zip": Case(lambda r: packed(r / "photos.zip", pictures("photos/{c}/{i}.png"))),
    "L2 a zip a class": Case(
        lambda r: [packed(r / f"{c}.zip", {"0.png": png(next(NUMBERS))}) for c in CLASSES],
        dict.fromkeys(CLASSES, 1),
    ),
    "L2 a compressed tar": Case(lambda r: tar(r / "photos.tar.gz", pictures(), "w:gz")),
    "L3 Training and Testing": Case(
        lambda r: classes(r, "Training/{c}/{i}.png") or write(r, ["Testing/glass/9.png"]), split="Training"
    ),
    "L3 splits in the classes": Case(
        several(lambda r: classes(r, "{c}/train/{i}.png"), lambda r: classes(r, "{c}/test/{i}.png", n=2)),
        labels_from="the folders (splits inside the class folders)",
    ),
    "L3 a folder around it": Case(
        several(lambda r: classes(r, "data/set/train/{c}/{i}.png"), lambda r: classes(r, "data/set/val/{c}/{i}.png"))
    ),
    "more: splits in folders of their own names": Case(
        several(
            lambda r: classes(r, "seg_train/seg_train/{c}/{i}.png"),
            lambda r: classes(r, "seg_test/seg_test/{c}/{i}.png"),
            lambda r: write(r, ["seg_pred/seg_pred/0.png"]),
        ),
        split="seg_train",
        said=("seg_pred have no class folders",),
    ),
    "more: a folder of images is no class of a split": Case(
        lambda r: classes(r, "train/{c}/images/{i}.png") or write(r, ["val/images/0.png", "test/images/1.png"]),
        said=("val, test have no class folders",),
    ),
    "more: packed twice": Case(
        lambda r: [
            classes(r, f"{top}/{s}/{{c}}/{{i}}.png") for top in ("xray", "xray/xray") for s in ("train", "test", "val")
        ],
        said=("'xray/xray' holds the folders beside it once more and is left out (36 images)",),
        left_out={"in a folder that holds the others again": 36},
    ),
    "more: classes beside what is said of them": Case(
        lambda r: classes(r, "food/images/{c}/{i}.png") or write(r, ["food/meta/classes.md"], b"glass"),
        left_out={"not an image": 1},
    ),
    "more: the same in several forms above the classes": Case(
        lambda r: classes(r, "grey/{c}/{i}.png") or classes(r, "color/{c}/{i}.png", n=3),
        dict.fromkeys(CLASSES, 3),
        split="color",
        said=("color, grey hold the same classes in several forms, of which one is read; split=",),
    ),
    "more: classes called as forms": Case(
        lambda r: classes(r, "{c}/{i}.png", names=("color", "grey")),
        {"color": 4, "grey": 4},
    ),
    "more: names of numbered folders in JSON": Case(
        lambda r: (
            classes(r, "train/{c}/{i}.png", names="123")
            or table(r, json.dumps(dict(zip("123", CLASSES, strict=True))), "cat_to_name.json")
        ),
    ),
    "more: names of numbered folders in a list": Case(
        lambda r: classes(r, "{c}/{i}.png", names=("00", "01", "02")) or table(r, "\n".join(CLASSES), "labels.txt"),
    ),
    "more: names of numbers in a table": Case(
        lambda r: (
            classes(r, "train_images/{c}{i}.png")
            or table(r, "file,label\n" + "".join(f"{c}{i}.png,{k}\n" for k, c in enumerate(CLASSES) for i in range(4)))
            or table(r, json.dumps({str(k): c for k, c in enumerate(CLASSES)}), "label_num_to_disease_map.json")
        ),
        labels_from=METADATA,
        split="train_images",
    ),
    "more: a list that names other things": Case(
        lambda r: classes(r, "{c}/{i}.png", names="012") or table(r, "one\ntwo\n", "labels.txt"),
        dict.fromkeys("012", 4),
    ),
    "more: lists that number the images": Case(
        lambda r: (
            classes(r, "{c}/{i}.png", names="012")
            or table(r, "".join(f"{i} word{i}\n" for i in range(12)), "captions.txt")
            or table(r, "".join(f"{i} {'abc'[i]}.png\n" for i in range(3)), "images.txt")
        ),
        dict.fromkeys("012", 4),
    ),
    "more: names beside numbers": Case(
        lambda r: classes(r, "{c}{i}.png") or table(r, rows(label="{i},{c}", head="file,label,label_name")),
        labels_from="column 'label_name' of metadata.csv",
    ),
    "more: one folder a year": Case(
        several(lambda r: classes(r, "202{i}/{c}{i}.png"), lambda r: table(r, rows(head="file,species"))),
        labels_from="column 'species' of metadata.csv",
    ),
    "more: one folder a camera": Case(
        several(lambda r: classes(r, "camera_{i}/{c}{i}.png"), lambda r: table(r, rows(head="file,species"))),
        labels_from="column 'species' of metadata.csv",
    ),
    "more: a class of another split": Case(
        several(lambda r: classes(r, "train/{c}/{i}.png"), lambda r: write(r, ["test/wolf/0.png"])),
        dict.fromkeys(CLASSES, 4) | {"wolf": 0},
        said=("no image of wolf in split 'train'",),
    ),
    "more: side files of WebDataset, unpacked": Case(
        several(
            lambda r: classes(r, "{c}{i}.png"),
            lambda r: [write(r, [f"{c}{i}.cls"], c.encode()) for c in CLASSES for i in range(4)],
        ),
        labels_from="column 'cls' of the side files",
    ),
    "more: raw photographs beside their JPEG": Case(
        several(classes, lambda r: write(r, ["glass/0.CR2"], b"II*\0CR")),
        said=("1 left out: a raw photo of a camera (glass/0.CR2); develop it to JPEG or PNG",),
        left_out={"a raw photo of a camera": 1},
    ),
    "more: an archive beside the classes": Case(
        several(classes, lambda r: packed(r / "glass.zip", pictures())),
        said=("1 left out: an archive beside the data (glass.zip); pass it by itself to read it",),
        left_out={"an archive beside the data": 1},
    ),
    "more: what systems put into archives": Case(
        lambda r: packed(r / "all.zip", pictures() | {"__MACOSX/glass/._0.png": b"x", "glass/.DS_Store": b"x"}),
    ),
    "more: pairs in JSON, and other JSON": Case(
        several(
            lambda r: classes(r, "{c}{i}.png"),
            lambda r: table(r, json.dumps([[f"{c}{i}.png", c] for c in CLASSES for i in range(4)]), "pairs.json"),
            lambda r: table(r, "{broken", "config.json"),
        ),
        labels_from="column 'label' of pairs.json",
    ),
    "more: a side file that is no JSON": Case(
        lambda r: tar(
            r / "0.tar",
            shard(
                0,
                lambda k: ("json", json.dumps({"label": CLASSES[k]}).encode()),
                lambda i: "png",
            )
            | {"s000.json": b"{"},
        ),
        {"glass": 1, "metal": 2, "paper": 2},
        "column 'label' of the side files",
        said=("s000.json is no JSON and is left out",),
        left_out={"not named in the table": 1},
    ),
    "more: JSON by file": Case(
        lambda r: (
            classes(r, "{c}{i}.png")
            or table(
                r, json.dumps({f"{c}{i}.png": {"class": c, "age": i} for c in CLASSES for i in range(4)}), "a.json"
            )
        ),
        labels_from="column 'class' of a.json",
    ),
    "more: lines of SageMaker, whose addresses lie here too": Case(
        lambda r: (
            classes(r, "{c}{i}.png")
            or table(
                r,
                "\n".join(
                    json.dumps(
                        {
                            "source-ref": f"s3://bucket/{c}{i}.png",
                            "what": CLASSES.index(c),
                            "what-metadata": {"class-name": c, "confidence": 0.5 + i / 9},
                        }
                    )
                    for c in CLASSES
                    for i in range(4)
                ),
                "output.manifest",
            )
        ),
        labels_from="column 'what-metadata.class-name' of output.manifest",
    ),
    "more: splits in a table without a heading": Case(
        lambda r: (
            classes(r, "imgs/{c}{i}.png")
            or table(
                r,
                "".join(
                    f"{split},gs://bucket/imgs/{c}{i}.png,{c}\n"
                    for c in CLASSES
                    for i, split in enumerate(("TRAIN", "TEST", "TRAIN", "VALIDATION"))
                ),
            )
        ),
        dict.fromkeys(CLASSES, 2),
        "column 'column 3' of metadata.csv",
        split="TRAIN",
        said=("labels are taken from column 'column 3'",),
    ),
    "more: masks in the classes": Case(
        lambda r: classes(r, "{c}/images/{i}.png") or classes(r, "{c}/masks/{i}.png"),
        said=("12 left out: a mask beside its picture (glass/masks/0.png",),
        left_out={"a mask beside its picture": 12},
    ),
    "more: masks by their names": Case(
        lambda r: classes(r, "{c}/{c} ({i}).png") or classes(r, "{c}/{c} ({i})_mask_1.png"),
        said=("12 left out: a mask beside its picture",),
        left_out={"a mask beside its picture": 12},
    ),
    "more: masks above the classes": Case(
        lambda r: classes(r, "images/{c}/{i}.png") or classes(r, "segmentations/{c}/{i}.png"),
        said=("12 left out: a mask beside its picture",),
        left_out={"a mask beside its picture": 12},
    ),
    "more: a table of other suffixes, case and Unicode": Case(
        lambda r: (
            write(r, [f"{c}e\u0301{i}.PNG" for c in CLASSES for i in range(4)])
            or table(r, rows("C:\\data\\{c}\u00e9{i}.jpg"))
        ),
        labels_from=METADATA,
    ),
    "more: a table a split, whose names repeat": Case(
        lambda r: [
            classes(r, f"{split}/{{c}}{{i}}.png") or table(r, rows("{c}{i}"), f"{split}.csv")
            for split in ("train", "test")
        ],
        labels_from="column 'label' of test.csv, train.csv",
    ),
    **{
        f"more: JSON, {form}": Case(
            several(
                lambda r: classes(r, "{c}{i}.png"),
                lambda r, rows=rows_of: table(r, json.dumps(rows), "labels.json"),  # type: ignore[misc]
            ),
            labels_from="column 'label' of labels.json",
        )
        for form, rows_of in {
            "rows in an object": {"data": [{"file": f"{c}{i}.png", "label": c} for c in CLASSES for i in range(4)]},
            "pairs": {"labels": [[f"{c}{i}.png", c] for c in CLASSES for i in range(4)]},
            "files by class": {c: [f"{c}{i}.png" for i in range(4)] for c in CLASSES},
            "columns": {
                "file": [f"{c}{i}.png" for c in CLASSES for i in range(4)],
                "label": [c for c in CLASSES for _ in range(4)],
            },
        }.items()
    },
    "more: ids without their zeros": Case(
        lambda r: write(r, [f"images/{i:04d}.png" for i in range(12)]) or table(r, rows_by_number("{i},{c}"), "a.csv"),
        labels_from="column 'label' of a.csv",
    ),
    "more: CelebA": Case(
        lambda r: (
            write(r, [f"img/{i:06d}.png" for i in range(12)])
            or table(r, "12\nglass metal paper \n" + rows_by_number("{i:06d}.png {f}", head=""), "list_attr.txt")
            or table(r, rows_by_number("{i:06d}.png {s}", head=""), "list_eval_partition.txt")
        ),
        {"glass": 4, "metal": 4, "paper": 4},
        "column 'glass,metal,paper' of list_attr.txt",
    ),
    "more: a comma too few, and one in brackets": Case(
        lambda r: (
            write(r, [f"images_{i // 6:03d}/images/{i:08d}.png" for i in range(12)])
            or table(r, rows_by_number("{i:08d}.png,{c},1,", head="Image Index,Finding Labels,Spacing[x,y],"), "d.csv")
        ),
        labels_from="column 'Finding Labels' of d.csv",
    ),
    "more: remarks above the heading, decimals with commas, words of other languages": Case(
        lambda r: (
            write(r, [f"{i}.png" for i in range(12)])
            or table(r, rows_by_number("{i}.png;1,{i};{c}", head="# of a scale\n\nDatei;Gewicht;Klasse"), "d.csv")
        ),
        labels_from="column 'Klasse' of d.csv",
    ),
    "more: JSON of Label Studio": Case(
        lambda r: (
            write(r, [f"images/{i:08x}-{i}.png" for i in range(12)])
            or table(
                r,
                json.dumps(
                    [
                        {
                            "id": i,
                            "annotations": [{"id": i, "result": [{"value": {"choices": [CLASSES[i % 3]]}}]}],
                            "data": {"image": f"/data/upload/1/{i:08x}-{i}.png"},
                        }
                        for i in range(12)
                    ]
                ),
                "project.json",
            )
        ),
        labels_from="column 'annotations.result.value.choices' of project.json",
    ),
    "more: classes in COCO's form": Case(
        lambda r: (
            write(r, [f"train/{i}.png" for i in range(12)])
            or table(
                r,
                json.dumps(
                    {
                        "images": [{"id": 100 + i, "file_name": f"train/{i}.png"} for i in range(12)],
                        "annotations": [{"id": i, "image_id": 100 + i, "category_id": i % 3} for i in range(12)],
                        "categories": [{"id": i, "name": c} for i, c in enumerate(CLASSES)],
                    }
                ),
                "train.json",
            )
        ),
        labels_from="column 'label' of train.json",
    ),
    "more: a table of names of the classes beside one of the images": Case(
        lambda r: (
            write(r, [f"train_images/{i}.png" for i in range(12)] + ["test_images/99.png"])
            or table(r, rows_by_number("{i}.png,{c}", head="image_id,label"), "train.csv")
            or table(r, "image_id,label\n99.png,glass\n", "sample_submission.csv")
            or table(r, json.dumps(dict(enumerate(CLASSES))), "label_num_to_disease_map.json")
        ),
        labels_from="column 'label' of train.csv",
        split="train_images",
        said=("test_images have no labels",),
    ),
    "more: a table of splits beside one of guessed labels": Case(
        lambda r: (
            write(r, [f"{i}.png" for i in range(12)])
            or table(r, rows_by_number("{i}.png {s}", head=""), "eval_partition.txt")
            or table(r, rows_by_number("{i}.png {c}", head=""), "who.txt")
        ),
        labels_from="column 'column 2' of who.txt",
        said=("only because its values repeat",),
    ),
    "more: a table of other classes than the folders": Case(
        lambda r: classes(r) or table(r, rows("{c}/{i}.png", "{i}").replace("3\n", "0\n"), "kinds.csv"),
        said=(
            "kinds.csv: they may be the labels; labels_from='kinds.csv' takes them; labels are taken from the folders",
        ),
    ),
    "more: true pictures beside the splits are masks": Case(
        lambda r: [classes(r, f"{part}/{{c}}/{{i}}.png") for part in ("train", "test", "ground_truth")],
        said=("12 left out: a mask beside its picture (ground_truth/glass/0.png",),
        left_out={"a mask beside its picture": 12},
    ),
    "more: classes of classes": Case(
        lambda r: classes(r, "a/{c}/{i}.png", names=["x", "y"]) or classes(r, "b/{c}/{i}.png", names=["z"]),
        {"a": 8, "b": 4},
        said=("the classes a, b hold folders of their own (x, y, z); if those are the classes, pass labels_from='sub",),
    ),
    "more: a zip with backslashes": Case(lambda r: packed(r / "photos.zip", pictures("set\\{c}\\{i}.png"))),
    "more: CUB-200's lists, without class folders": Case(
        lambda r: (
            write(r, [f"images/bird_{i}.png" for i in range(12)])
            or table(r, "".join(f"{i + 1} 00{i % 3}.x/bird_{i}.png\n" for i in range(12)), "images.txt")
            or table(r, "".join(f"{i + 1} {i % 3 + 1}\n" for i in range(12)), "image_class_labels.txt")
            or table(r, "".join(f"{i + 1} {i % 2}\n" for i in range(12)), "train_test_split.txt")
            or table(r, "".join(f"{i} {c}\n" for i, c in enumerate(CLASSES, 1)), "classes.txt")
        ),
        counts=dict.fromkeys(CLASSES, 2),  # those for training
        labels_from="column 'label' of images.txt",
    ),
    "more: CUB-200 as it is unpacked": Case(
        lambda r: (
            classes(r, "images/{c}/{c}_{i}.png")
            or table(r, cub("{n} {c}/{c}_{i}.png"), "images.txt")
            or table(r, cub("{n} {k}"), "image_class_labels.txt")
            or table(r, cub("{n} {t}"), "train_test_split.txt")
            or table(r, "".join(f"{i} {c}\n" for i, c in enumerate(CLASSES, 1)), "classes.txt")
        ),
        counts=dict.fromkeys(CLASSES, 3),  # those for training
        labels_from="the folders (splits from images.txt)",
    ),
    "more: Food-101's lists": Case(
        lambda r: (
            classes(r, "images/{c}/{i}.png")
            or (r / "meta").mkdir()
            or (
                [
                    table(r, "".join(f"{c}/{i}\n" for c in CLASSES for i in part), f"meta/{name}.txt")
                    for name, part in (("train", range(3)), ("test", (3,)))
                ]
                and table(r, "glass\nmetal\npaper\n", "meta/classes.txt")
            )
        ),
        counts=dict.fromkeys(CLASSES, 3),
        labels_from="the folders (splits from meta/test.txt, meta/train.txt)",
    ),
    "more: lists of pictures and the numbers of their classes": Case(
        lambda r: (
            classes(r)
            or table(r, "".join(f"{c}/{i}.png {k}\n" for k, c in enumerate(CLASSES) for i in range(3)), "train.txt")
            or table(r, "".join(f"{c}/3.png {k}\n" for k, c in enumerate(CLASSES)), "val.txt")
        ),
        counts=dict.fromkeys(CLASSES, 3),
        labels_from="the folders (splits from train.txt, val.txt)",
    ),
    "more: the textures' numbered lists": Case(
        lambda r: (
            classes(r, "images/{c}/{c}_{i}.png")
            or (r / "labels").mkdir()
            or [
                table(
                    r,
                    "".join(f"{c}/{c}_{(i + turn) % 4}.png\n" for c in CLASSES for i in part),
                    f"labels/{name}{turn}.txt",
                )
                for turn in (1, 2)
                for name, part in (("train", (0, 1)), ("val", (2,)), ("test", (3,)))
            ]
        ),
        counts=dict.fromkeys(CLASSES, 2),
        labels_from="the folders (splits from labels/test1.txt, labels/train1.txt, labels/val1.txt)",
    ),
    "more: a table of splits beside class folders": Case(
        lambda r: (
            classes(r)
            or table(
                r,
                splits(),
                "splits.csv",
            )
        ),
        counts=dict.fromkeys(CLASSES, 3),
        labels_from="the folders (splits from splits.csv)",
    ),
    "more: a table of splits that lacks a picture": Case(
        lambda r: classes(r) or table(r, splits("glass/0"), "splits.csv"),
        counts={"glass": 2, "metal": 3, "paper": 3},
        labels_from="the folders (splits from splits.csv)",
        said=("1 of 12 images are in no split of splits.csv and are left out; labels_from='folders' takes all",),
        left_out={"in no list of a split": 1},
    ),
    "more: a table of splits that knows half the pictures": Case(
        lambda r: (
            classes(r, n=8)
            or table(
                r,
                splits(),
                "splits.csv",
            )
        ),
        counts=dict.fromkeys(CLASSES, 8),
        said=("splits.csv: no label column; labels are taken from the folders",),
    ),
    "more: Tiny ImageNet": Case(
        lambda r: (
            classes(r, "train/n0000000{c}/images/{i}.png", names=map(str, range(3)))
            or classes(r, "val/images/{c}_{i}.png", names=map(str, range(3)))
            or (
                [
                    table(r / "train" / f"n0000000{c}", f"{c}.png\t0\t32\t44\t62\n", f"n0000000{c}_boxes.txt")
                    for c in range(3)
                ]
                and table(r, "n00000000\nn00000001\nn00000002\n", "wnids.txt")
            )
            or table(r, "n00000002\tcrane\nn00000001\tpaper, newsprint\nn00000000\tcrane\n", "words.txt")
        ),
        {"crane (n00000000)": 4, "paper, newsprint": 4, "crane (n00000002)": 4},
        said=("val have no class folders",),
    ),
    "L3 folds": Case(
        lambda r: classes(r, "fold{i}/{c}/{i}.png"),
        labels_from="the folders (fold0, fold1, fold2, fold3 taken together as parts)",
    ),
}


@pytest.fixture(autouse=True, scope="module")
def without_heic() -> Iterator[None]:
    """Whether or not the extra is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        reads_heic.cache_clear()
        yield
    reads_heic.cache_clear()


@pytest.mark.parametrize("case", READ.values(), ids=READ)
def test_what_is_read(case: Case, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    case.build(root)
    task = Task.from_dataset(root, max_samples=None)
    assert dict(zip(task.label_names, task.class_counts.tolist(), strict=True)) == case.counts
    assert len(task) == sum(case.counts.values())
    assert (task.reading.labels_from, task.split) == (case.labels_from, case.split)
    warned = "\n".join(task.reading.warnings)
    assert all(text in warned for text in case.said), warned
    assert bool(task.reading.warnings) == bool(case.said), warned
    assert dict(task.reading.left_out) == case.left_out
    assert str(tmp_path) not in json.dumps(task.describe())


REFUSED: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "02 splits without classes": (
        lambda r: write(r, ["train/0.png", "train/1.png", "test/2.png"]),
        LabelError,
        "'train', 'test' are splits and hold no class folders",
    ),
    "07 HEIC only": (
        lambda r: write(r, ["a/0.heic", "b/1.heic"], HEIC),
        DatasetNotFoundError,
        r"holds no image that can be read; 2 HEIC \(a/0.heic, b/1.heic\); pip install hf-task2vec\[heic\]",
    ),
    "09 one class": (
        lambda r: classes(r, names=["metal"]) or (r / "glass").mkdir(),
        LabelError,
        "only one class folder, 'metal'.*without images: glass",
    ),
    "10 a table that names nothing": (
        lambda r: write(r, ["0.png", "1.png"]) or table(r, "name,label\nx.png,a\ny.png,b\n"),
        LabelError,
        r"metadata.csv: it names no image here \(columns name, label; one must hold names of the images",
    ),
    "15 LFS pointers": (
        lambda r: write(r, ["train-00000-of-00001.parquet"], LFS),
        DatasetNotFoundError,
        "'train-00000-of-00001.parquet' is a Git LFS pointer, not the data: git lfs pull",
    ),
    "19 configurations": (
        lambda r: (
            classes(r, "small/{c}/{i}.png")
            or table(
                r,
                "---\nconfigs:\n- config_name: small\n  data_files: 'small/**'\n- config_name: full\n---\n",
                "README.md",
            )
        ),
        DatasetNotFoundError,
        r"several configurations; pass name=… with one of \['small', 'full'\]",
    ),
    "21 several columns would do": (
        lambda r: classes(r, "{c}{i}.png") or table(r, rows(label="{c},{c}", head="file_name,defect,operator")),
        ColumnError,
        "metadata.csv of the folder 'photos': several label columns: defect, operator; pass label_column=",
    ),
    "23 other files": (
        lambda r: write(r, ["a/0.npy", "b/1.dcm"], b"x"),
        DatasetNotFoundError,
        r"holds no image that can be read; 1 an array of numpy \(a/0.npy\); in Python, pass it as .* 1 a medical image",
    ),
    "more: a damaged tar": (
        lambda r: (
            tar(r / "all.tar.xz", {"a/0.png": random.Random(0).randbytes(99_000)} | pictures(), "w:xz")
            or (r / "all.tar.xz").write_bytes((r / "all.tar.xz").read_bytes()[:90_000] + bytes(9_000))
        ),
        DatasetNotFoundError,
        r"'all.tar.xz' cannot be read as an archive \(Corrupt input data\); is it whole",
    ),
    "more: an encrypted zip": (
        lambda r: encrypted(r / "all.zip"),
        DatasetNotFoundError,
        r"'all.zip' cannot be read as an archive \(it is encrypted; unpack it\)",
    ),
    "more: a spreadsheet": (
        lambda r: write(r, ["0.png", "1.png"]) or write(r, ["labels.xlsx", "labels.csv.gz"], b"x"),
        LabelError,
        r"1 packed \(labels.csv.gz\); unpack it to use it; 1 a spreadsheet \(labels.xlsx\); save it as CSV",
    ),
    "more: a table of boxes": (
        lambda r: classes(r, "{c}{i}.png") or table(r, 2 * rows(label="{c},{i}", head="file,class,xmin")),
        ColumnError,
        "metadata.csv of the folder 'photos': boxes of object detection, which is not supported",
    ),
    "more: boxes in JSON": (
        lambda r: (
            write(r, ["train/0.png"])
            or table(r, json.dumps({"images": [], "annotations": [], "categories": []}), "train/_annotations.coco.json")
        ),
        ColumnError,
        "_annotations.coco.json of the folder 'photos': boxes of object detection, which is not supported",
    ),
    "more: pictures and masks": (
        lambda r: classes(r, "images/{c}{i}.png") or classes(r, "masks/{c}{i}.png"),
        ColumnError,
        "the folder 'photos' holds pictures and their masks .*which looks like segmentation",
    ),
    "more: boxes of YOLO": (
        lambda r: [
            write(r, [f"{s}/images/{i}.png" for i in range(3)])
            or write(r, [f"{s}/labels/{i}.txt" for i in range(3)], b"0 0.5 0.5 0.1 0.2\n1 0.4 0.4 0.1 0.1\n")
            for s in ("train", "valid")
        ],
        ColumnError,
        r"the folder 'photos' holds boxes \(train/labels/0.txt, …\): object detection is not supported. What would",
    ),
    "more: boxes of Pascal VOC": (
        lambda r: (
            write(r, [f"JPEGImages/{i:06d}.png" for i in range(3)])
            or write(r, [f"Annotations/{i:06d}.xml" for i in range(3)], b"<annotation/>")
            or write(r, ["ImageSets/Main/train.txt"], b"000000\n000001\n")
        ),
        ColumnError,
        r"holds boxes \(Annotations/000000.xml, …\): object detection is not supported",
    ),
    "more: labels in a file of MATLAB": (
        lambda r: write(r, ["cars/0.png", "cars/1.png"]) or write(r, ["devkit/cars_annos.mat"], b"MATLAB 5.0"),
        LabelError,
        r"1 a MATLAB file \(devkit/cars_annos.mat\); save what it says of the images as CSV",
    ),
    "more: classes in the names of files": (
        lambda r: [write(r, [f"train/{c}.{i}.png" for i in range(4)]) for c in ("cat", "big_dog")],
        LabelError,
        r"The names of the files may hold the classes \(big_dog, cat\): labels_from='names' takes them from there",
    ),
    "L2 a damaged zip": (
        lambda r: write(r, ["photos.zip"], b"PK\3\4 cut"),
        TaskError,
        "'photos.zip' cannot be read as an archive",
    ),
}


@pytest.mark.parametrize(("build", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_and_why(
    build: Callable[[Path], object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    build(root)
    with pytest.raises(error, match=message) as caught:
        Task.from_dataset(root)
    assert len(str(caught.value)) < 400


def test_another_interpretation_can_be_asked_for(tmp_path: Path) -> None:
    classes(tmp_path)
    table(tmp_path, rows("{c}/{i}.png", "{i}", head="file_name,photographer").replace("3\n", "0\n"))
    assert Task.from_dataset(tmp_path).reading.alternatives == ("column 'photographer' of metadata.csv",)
    for labels_from in ("metadata.csv", "photographer"):
        assert Task.from_dataset(tmp_path, labels_from=labels_from).label_names == ("0", "1", "2")
    assert Task.from_dataset(tmp_path, label_column="photographer").label_names == ("0", "1", "2")
    assert Task.from_dataset(tmp_path, labels_from="folders").label_names == CLASSES
    assert Task.from_dataset(tmp_path / "metadata.csv").label_names == ("0", "1", "2")


def test_innermost_folders_and_names_of_files_are_classes_where_that_is_asked_for(tmp_path: Path) -> None:
    classes(tmp_path / "deep", "train/a/{c}/images/{i}.png", names=["x", "y"])
    classes(tmp_path / "deep", "train/b/{c}/{i}.png", names=["x", "z"])
    classes(tmp_path / "deep", "test/b/{c}/{i}.png", names=["z"])
    task = Task.from_dataset(tmp_path / "deep", labels_from="subfolders")
    assert dict(zip(task.label_names, task.class_counts.tolist(), strict=True)) == {"x": 8, "y": 4, "z": 4}
    assert (task.split, task.reading.labels_from) == ("train", "the folders (the innermost)")
    write(tmp_path / "flat", ["train/cat.1.png", "train/cat (2).png", "train/big_dog_01.png", "train/big_dog-3.png"])
    write(tmp_path / "flat", ["train/logo.png", "test/1.png"])
    task = Task.from_dataset(tmp_path / "flat", labels_from="names")
    assert dict(zip(task.label_names, task.class_counts.tolist(), strict=True)) == {"big_dog": 2, "cat": 2}
    assert (task.split, task.n_unlabelled) == ("train", 1)
    assert (
        "labels from the names of the files, split 'train' of train, test; 1 left out: 1 without a label" in task.read
    )


def test_a_table_may_name_pictures_that_lie_elsewhere(tmp_path: Path) -> None:
    classes(tmp_path / "pictures", "{c}{i}.png")
    (tmp_path / "tables").mkdir()
    for place in ("../pictures", f"{tmp_path}/pictures"):
        table(tmp_path / "tables", rows(place + "/{c}{i}.png"))
        task = Task.from_dataset(tmp_path / "tables" / "metadata.csv")
        assert (task.label_names, len(task)) == (CLASSES, 12)
        assert str(tmp_path) not in json.dumps(task.describe())


def test_parquet_may_be_a_table_of_paths(tmp_path: Path) -> None:
    files = [f"{c}{i}.png" for c in CLASSES for i in range(4)]
    write(tmp_path / "images", files)
    frame = pa.table({"path": files, "label": pa.array([file[:5] for file in files]).dictionary_encode()})
    pq.write_table(frame.slice(0, 11), tmp_path / "train.parquet")
    pq.write_table(frame.slice(11), tmp_path / "test.parquet")
    for place, counts in ((tmp_path, [4, 4, 3]), (tmp_path / "train.parquet", [4, 4, 3])):
        task = Task.from_dataset(place)
        assert (task.label_names, task.class_counts.tolist(), len(task)) == (CLASSES, counts, 11)


@pytest.mark.parametrize("kinds", [("jpg", "png"), ("png", "jpg", "jpg", "jpg", "jpg", "jpg")], ids=["mixed", "late"])
def test_webdataset_of_the_hub_with_several_formats(hub: HubServer, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    for n, split in enumerate(("train", "train", "test")):
        members = shard(6 * n, lambda k: ("cls", b"%d" % k), lambda i: kinds[::-1][i % len(kinds)])
        tar(tmp_path / f"{split}-{n:05d}.tar", members)
    files = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    commit = hub.create_dataset("org/shards", files)
    task = Task.from_dataset("org/shards")
    assert (task.n_rows, task.label_names, task.other_splits, task.revision) == (12, ("0", "1", "2"), ("test",), commit)
    assert task.reading.labels_from == "column 'cls' of the side files"
    assert Task.from_dataset("org/shards", split="test", label_column="cls").n_rows == 6


def test_a_class_of_broken_pictures_is_named(tmp_path: Path) -> None:
    classes(tmp_path)
    write(tmp_path, ["plastic/0.png", "plastic/1.png"], b"")
    task = Task.from_dataset(tmp_path)
    assert len(task) == 12
    assert any("no picture of plastic can be read" in warning for warning in task.warnings)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (LFS, "a Git LFS pointer, not the data: git lfs pull fetches it"),
        (b"<!DOCTYPE html>\n<p>404", "a web page (HTML), not the data: fetch it anew"),
        (b"", "an empty file"),
    ],
    ids=["15 LFS pointers", "15 HTML", "23 nothing"],
)
def test_what_lies_in_place_of_pictures_is_said_once_with_their_names(
    content: bytes, cause: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "photos"
    classes(root)
    write(root, ["glass/a.jpg", "glass/b.jpg"], content)
    task = Task.from_dataset(root, max_samples=None)
    assert {image.name for image in task.skipped} == {"glass/a.jpg", "glass/b.jpg"}
    assert f".jpg: {cause})" in next(line for line in caplog.messages if line.startswith("2 broken images of photos"))
    write(tmp_path / "all", [f"{c}/{i}.jpg" for c in CLASSES for i in range(40)], content)
    whole = rf"all 120 images of 'all' are broken \(.*117 more: {re.escape(cause)}\)$"
    with pytest.raises(ImageDecodeError, match=whole):
        len(Task.from_dataset(tmp_path / "all", max_samples=8))
    write(tmp_path, ["photos.zip", "x.parquet"], content)
    for file in ("photos.zip", "x.parquet"):
        with pytest.raises(DatasetNotFoundError, match=rf"^'{file}' is {re.escape(cause)}$"):
            Task.from_dataset(tmp_path / file)


def test_a_table_that_is_named_is_told_what_it_lacks(tmp_path: Path) -> None:
    write(tmp_path, ["0.png", "1.png", "broken.parquet"])
    for name, content in (("list.json", "{"), ("list.csv", "file,label\n7.png,a\n8.png,b\n")):
        table(tmp_path, content, name)
        with pytest.raises(LabelError, match=rf"^{name} has no labels: (Expecting|it names no image here)"):
            Task.from_dataset(tmp_path / name)


def test_a_folder_is_read_a_whole_split_at_a_time(tmp_path: Path) -> None:
    classes(tmp_path, "train/{c}/{i}.png")
    classes(tmp_path, "val/{c}/{i}.png")
    assert Task.from_dataset(tmp_path, split="validation").split == "val"
    for split in ("train+val", "train[:50%]", "all"):
        with pytest.raises(DatasetNotFoundError, match=r"a whole split at a time.*pass one of train, val"):
            Task.from_dataset(tmp_path, split=split)


def test_the_first_line_of_an_answer(tmp_path: Path) -> None:
    classes(tmp_path, "train/{c}/{i}.png")
    write(tmp_path, ["test/glass/0.png", "test/metal/0.png"])
    write(tmp_path, ["train/glass/a.heic"], HEIC)
    write(tmp_path, ["train/glass/notes.md"], b"x")
    assert Task.from_dataset(tmp_path, max_samples=6).read == (
        "6 of 12 images (seed 0), 3 classes (glass, metal, paper), labels from the folders, "
        "split 'train' of train, test; 2 left out: 1 HEIC, 1 not an image"
    )


NAMES = st.sampled_from(
    [
        "glass",
        "test_tube",
        "train",
        "val",
        "Testing",
        "a b",
        "batch1",
        "0",
        "images",
        "É",
        "[x]",
        "dev",
        "*",
        "x.jpg",
        "~",
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    folders=st.dictionaries(NAMES, st.lists(NAMES, max_size=2), min_size=2, max_size=5),
    strays=st.integers(0, 2),
    raw=st.booleans(),
    link=st.booleans(),
    empty=st.sampled_from([None, "plastic"]),
)
def test_every_class_folder_is_a_class_or_named(
    tmp_path_factory: pytest.TempPathFactory,
    folders: dict[str, list[str]],
    strays: int,
    raw: bool,
    link: bool,
    empty: str | None,
) -> None:
    """Whatever they are called, nested and mixed with: folders with a picture are classes, or a warning names them."""
    root = tmp_path_factory.mktemp("photos")
    for name, nested in folders.items():
        write(root, [f"{name}/{'/'.join(nested[:depth])}/{depth}.png" for depth in range(len(nested) + 1)])
    write(root, [f"stray{i}.png" for i in range(strays)])
    if raw:
        place = bytes(root) + b"/\xff\xfe"
        Path(place.decode("utf-8", "surrogateescape")).mkdir()
        (Path(place.decode("utf-8", "surrogateescape")) / "0.png").write_bytes(png(1))
    if link:
        (root / "linked").symlink_to(root / next(iter(folders)))
    if empty:
        (root / empty).mkdir()
    try:
        task = Task.from_dataset(root, max_samples=None)
    except LabelError as error:
        said = [str(error)]
    else:
        said = [*task.reading.warnings, task.reading.labels_from]
        left_out = sum(task.reading.left_out.values()) - task.reading.left_out.get(
            "a link to a folder that is read already", 0
        )
        pictures = sum(1 for path in root.rglob("*.png") if path.parts[len(root.parts)] != "linked")
        if not task.other_splits:
            assert task.class_counts.sum() + left_out == pictures
        said += [f"{name!r}" for name in (*task.label_names, task.split, *task.other_splits)]
    for name in [*folders, *(["plastic"] if empty else []), *(["linked"] if link else []), *(["��"] if raw else [])]:
        # By itself, not as a part of another name or word.
        assert any(re.search(rf"(?<![^\s'(]){re.escape(name)}(?![^\s',;)/.])", text) for text in said), (name, said)
    assert str(root) not in "".join(said)
