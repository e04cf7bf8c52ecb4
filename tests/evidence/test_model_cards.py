"""Cards of the Hub in all the forms that people and trainers write; a letter and a number name one in forms.md."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from hf_task2vec.evidence.cards import CardError, Outcome, data_in_name, read_card, split_card
from tests.support.cards import FORMS, HOSTILE, card_of, read

B, D = "acme/vit-base-16", "acme/leaf-photos"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_forms(form: Any) -> None:
    if isinstance(form.expected, str):
        with pytest.raises(CardError, match=form.expected):
            read(form.repository, form.card, form.tags)
        return
    found = read(form.repository, form.card, form.tags)
    assert [{name: getattr(one, name) for name in want} for one, want in zip(found, form.expected, strict=True)] == [
        dict(want) for want in form.expected
    ]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_cards_are_left_out(text: str) -> None:
    with pytest.raises(CardError):
        read("acme/x", text)


def test_metadata_of_a_list_need_not_be_what_they_should() -> None:
    for junk in (None, -3, True, "x", [], {}, [{}], [[]], {"a": [1]}, float("nan"), 10**400, [None] * 1000):
        whole: dict[str, Any] = dict.fromkeys(("base_model", "datasets", "model-index", "tags", "library_name"), junk)
        inner = {"model-index": [{"results": [{"dataset": junk, "metrics": junk, "task": junk}, junk]}, junk]}
        for metadata in (whole, inner, {"base_model": B, "datasets": D, "model-index": [{"results": [
            {"metrics": [{"type": "accuracy", "value": junk}, {"type": junk, "value": 0.5}], "dataset": {"name": junk}}
        ]}]}):  # fmt: skip
            with pytest.raises(CardError):
                read_card("acme/x", metadata)


def test_the_real_outcomes_come_back_from_cards_that_state_them(shared: Path) -> None:
    """Every row of the shared table, written as its repository's card would state it."""
    with (shared / "cards" / "outcomes.csv").open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["metric"] == "accuracy" and row["base_from"] != "name"]
    reasons: list[str] = []
    for row in rows:
        try:
            found: tuple[Outcome, ...] = read(row["repo_id"], card_of(row))
        except CardError as error:
            reasons.append(str(error))
            continue
        assert [one.base for one in found] == [row["base_model"]], row
        assert found[0].value == pytest.approx(float(row["value"]), abs=1e-9), row
        assert found[0].learning_rate == (float(row["learning_rate"]) if row["learning_rate"] else None), row
        if row["dataset_id"] not in ("", "imagefolder", "image_folder", "webdataset"):
            assert found[0].dataset == row["dataset_id"], row
    assert len(reasons) < 0.1 * len(rows), reasons
    assert set(reasons) <= {
        "no base", "no dataset", "its name contradicts its base", "its base is in no repository", "a run that broke",
        "its base is itself", "accuracy on the training split only",
    }  # fmt: skip


def test_every_base_that_people_start_from_is_read_from_text(shared: Path) -> None:
    with (shared / "cards" / "bases.csv").open(encoding="utf-8", newline="") as handle:
        ids = [row["hub_id"] for row in csv.DictReader(handle)]
    for hub_id in ids:
        link = f"[{hub_id}](https://huggingface.co/{hub_id})"
        for line in (
            f"This model is a fine-tuned version of {link} on the leaves dataset.",
            f"This model is a fine-tuned version of {hub_id} on the leaves dataset.",
            f"- **Base model:** https://huggingface.co/{hub_id}",
            f"- **Finetuned from model [optional]:** {link}",
        ):
            found = read_card("acme/leaves-net", {"datasets": ["leaves"]}, f"{line}\n\n- Accuracy: 0.5\n")
            assert [one.base for one in found] == [hub_id], line


def test_a_card_without_metadata_is_all_text() -> None:
    assert split_card("# Title\n---\nx") == ({}, "# Title\n---\nx")
    assert split_card("---\n{}\n---\nText") == ({}, "\nText")


@pytest.mark.parametrize(
    ("repository", "base", "data"),
    [
        ("ann/vit-base-patch16-224-finetuned-wood-rust", "google/vit-base-patch16-224", "wood_rust"),
        ("ann/BirdSongs_ViT_v2", "google/vit-base-patch16-224", "bird_songs"),
        ("ann/stars_5x_deit_tiny_adamax_lr00001_fold3", "facebook/deit-tiny-patch16-224", "stars"),
        ("ann/swin-lesion-HAM10000-3", "microsoft/swin-tiny-patch4-window7-224", "lesion_ham10000"),
        ("ann/my_awesome_model", "google/vit-base-patch16-224", None),
    ],
)
def test_names_of_repositories(repository: str, base: str, data: str | None) -> None:
    assert data_in_name(repository, base) == data


def test_results_of_other_tasks_and_of_one_of_several_datasets() -> None:
    one = {"dataset": {"type": "org/b"}, "metrics": [{"type": "accuracy", "value": 0.8}]}
    other = {"task": {"type": "object-detection"}, "dataset": {"type": "org/a"}, "metrics": one["metrics"]}
    several = {"base_model": "org/net", "datasets": ["org/a", "org/b"]}
    (outcome,) = read_card("me/net", {**several, "model-index": [{"results": [other, one, "no result"]}]}, "")
    assert (outcome.dataset, outcome.value) == ("org/b", 0.8)
    elsewhere = {**one, "dataset": {"type": "org/c"}}
    with pytest.raises(CardError, match="several datasets"):
        read_card("me/net", {**several, "model-index": [{"results": [elsewhere]}]}, "")
