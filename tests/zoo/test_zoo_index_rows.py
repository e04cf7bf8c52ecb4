"""Every row of the shipped index."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.index import checkpoints, facts
from hf_task2vec.metric.ranking_metric import RankingMetric
from hf_task2vec.selection.limits import Constraints
from hf_task2vec.zoo.index import ZooIndex, default_index_path
from hf_task2vec.zoo.schema import ROW_TYPES, CheckpointRow, SourceRow, TaskRow

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="module")
def index() -> ZooIndex:
    return ZooIndex.load()


def test_size(index: ZooIndex) -> None:
    counts = index.info()["counts"]
    assert counts["checkpoints"] >= 1600
    assert counts["scores"] >= 11_000
    assert counts["tasks"] >= 115
    for name in ROW_TYPES:
        assert (default_index_path() / f"{name}.csv").stat().st_size < 2 << 20


def test_its_metric_is_solved_by_whatever_names_checkpoints_go(index: ZooIndex) -> None:
    """Asked for the names that transformers loads, nothing is solved again, and what was learned of each is kept."""
    by_one, by_other = index, Constraints(library="transformers").in_their_names(index)
    assert set(by_one.checkpoints["hub_id"]) != set(by_other.checkpoints["hub_id"])
    one, other = (RankingMetric.from_index(zoo) for zoo in (by_one, by_other))
    assert one.solved is not None
    assert other.solved is not None
    factors = [metric.parameters.factors(metric.data.checkpoints.ids) for metric in (one, other)]
    assert factors[0].any()
    order = [[by_one.names[name] for name in metric.data.checkpoints.ids] for metric in (one, other)]
    assert dict(zip(order[0], factors[0].tolist(), strict=True)) == dict(
        zip(order[1], factors[1].tolist(), strict=True)
    )


def test_every_row_is_sorted_and_round_trips(index: ZooIndex, tmp_path: Path) -> None:
    assert index.validate() == []
    index.save(tmp_path)
    for name in ROW_TYPES:
        keys = [row.key for row in index.rows[name]]
        assert keys == sorted(set(keys))
        assert (tmp_path / f"{name}.csv").read_bytes() == (default_index_path() / f"{name}.csv").read_bytes()


def test_every_checkpoint_is_on_the_hub_and_plausible(index: ZooIndex) -> None:
    for row in index.by_name(CheckpointRow).values():
        assert not row.hub_id.startswith("local:"), row.hub_id
        assert row.pretraining is not None, row.hub_id
        assert row.domain is not None, row.hub_id
        assert (row.objective is None) == (row.pretraining == "other" and row.hub_id == "encord-team/ebind-full"), row
        assert row.params_m is None or 0.1 < row.params_m < 20_000, row.hub_id
        if row.in1k_top1 is not None:
            assert "imagenet1k" in row.trained_on, row.hub_id
            assert 0.2 < row.in1k_top1 < 0.95, row.hub_id
            assert (row.gmacs, row.input_px, row.params_m) != (None, None, None), row.hub_id
        if row.hub_id.startswith("timm/") and row.library == "timm":
            assert row.pretrain_tag is not None, row.hub_id
        assert row.license not in ("unknown", "other"), row.hub_id


def test_every_score_has_its_evidence(index: ZooIndex) -> None:
    tasks = index.by_name(TaskRow)
    for row in index.score_rows:
        assert row.checkpoint_match != "none", row
        whole = "fewer_classes" not in tasks[row.task].flags or tasks[row.task].benchmark_name == row.task
        assert whole or row.checkpoint_match == "measured", row


def test_reduced_copies_have_no_published_scores(index: ZooIndex) -> None:
    published = {row.task for row in index.score_rows if row.checkpoint_match != "measured"}
    for name in ("food101_64px", "dtd_10", "caltech101_60", "stanford_cars_24", "tf_flowers_32px"):
        assert name not in published
    assert {"food101", "dtd", "caltech101", "cars", "cifar10"} <= published


def test_near_duplicate_groups(index: ZooIndex) -> None:
    groups = index.tasks.groupby("near_duplicate_group")["task"].agg(set)
    assert groups["pacs"] == {"pacs_art_painting", "pacs_cartoon", "pacs_photo", "pacs_sketch"}
    assert {"imagenette", "tin_food", "tin_dogs_cats", "tin_insects_spiders", "tiny_imagenet_100"} <= groups[
        "tiny_imagenet"
    ]
    assert groups["mnist_like"] == {"mnist", "notmnist", "kannada_mnist", "optdigits_8x8", "fashion_mnist"}
    assert groups["cifar"] == {"cifar10", "cifar100"}


def test_known_facts(index: ZooIndex) -> None:
    """A few figures looked up by hand in the published checkpoints."""
    by_id = index.by_name(CheckpointRow)
    eva = by_id["timm/eva_giant_patch14_560.m30m_ft_in22k_in1k"]
    assert (eva.params_m, eva.in1k_top1, eva.input_px) == (1014.45, 0.8979, 560)
    assert eva.pretraining == "mim_ft_in21k_ft_in1k"
    resnet = by_id["timm/resnet50.tv_in1k"]
    assert (resnet.family, resnet.pretraining, resnet.license) == ("resnet", "in1k_supervised", "bsd-3-clause")
    assert by_id["timm/tf_efficientnet_lite0.in1k"].input_px == 224
    assert by_id["timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"].trained_on == ("imagenet1k", "imagenet21k")
    found = {
        (r.task, r.metric, r.score, r.split) for r in index.score_rows if r.source_model == "BAAI/bge-visualized-base"
    }
    assert ("birdsnap", "top1", 0.451648, "test") in found
    metrics = {r.task: r.metric for r in index.score_rows if r.source == "mlcd_lp"}
    assert metrics["hateful_memes"] == "auc"
    assert metrics["voc2007"] == "map_11point"
    assert metrics["pets"] == "mean_per_class"
    assert metrics["cifar10"] == "top1"


def test_the_manifest_describes_the_files(index: ZooIndex) -> None:
    manifest = json.loads((default_index_path() / "manifest.json").read_text())
    assert index.probe is not None
    assert manifest["probe"] == {"name": index.embeddings.probe["name"], "weights_hash": index.embeddings.weights_hash}
    files = {path.name for path in default_index_path().iterdir()}
    assert set(manifest["files"]) == files - {"manifest.json", "README.md"}


def test_card_is_up_to_date(index: ZooIndex) -> None:
    card = (ROOT / "zoo_index" / "README.md").read_text(encoding="utf-8")
    assert card == facts.render_card(index), "run: python -m benchmarks.index.facts --card-only"
    assert card.startswith("---\nlicense: ")


def test_every_published_score_is_here_or_counted_as_left_out(index: ZooIndex) -> None:
    """The index says how many rows it read of each source; whatever lies beside the checkout does not matter."""
    here = Counter(row.source for row in index.score_rows if row.checkpoint_match != "measured" and not row.address)
    for source in index.by_name(SourceRow).values():
        assert here[source.source] + source.n_left_out == (source.n_published or 0), source.source
        assert (source.published_sha256 is None) == (source.n_published is None)
    assert set(here) == {source.source for source in index.by_name(SourceRow).values() if source.n_published}


def unchanged_sources(index: ZooIndex) -> dict[str, list[dict[str, str]]]:
    """Published rows of the sources that are still what the index was made from."""
    if not (SHARED / "published").is_dir():
        pytest.skip("../shared/published is not here")
    published = facts.by_source(facts.read(SHARED / "published" / "transfer_scores.csv"))
    known = {row.source: row.published_sha256 for row in index.by_name(SourceRow).values() if row.published_sha256}
    same = {name: rows for name, rows in published.items() if known.get(name) == facts.published_hash(rows)}
    if not same:
        pytest.skip("../shared/published has other versions of all the sources of the index")
    return same


def test_published_scores_are_copied_exactly(index: ZooIndex) -> None:
    for name, rows in unchanged_sources(index).items():
        expected = sorted(float(row["score"]) / 100 for row in rows if row["hub_id"])
        assert sorted(row.score for row in index.score_rows if row.source == name) == pytest.approx(expected, abs=1e-12)


def test_outcomes_of_model_cards_are_copied_exactly(index: ZooIndex) -> None:
    harvested = [row for row in index.score_rows if row.source == "hub_cards"]
    assert len(harvested) > 300
    for row in harvested:
        assert (row.address or "").startswith("https://huggingface.co/"), row
    if not (SHARED / "cards").is_dir():
        pytest.skip("../shared/cards is not here")
    stated = {
        (row["url"], row["repo_id"], float(row["value"])) for row in facts.read(SHARED / "cards" / "outcomes.csv")
    }
    assert {(row.address, row.source_model, row.score) for row in harvested} <= stated


def test_every_timm_name_is_in_the_registry(index: ZooIndex) -> None:
    """A name that timm loads is an entry of the installed registry, or declared as weights that it lacks."""
    models = pytest.importorskip("timm.models")
    known = {f"timm/{name}" for name in models.list_pretrained()}
    known |= {models.get_pretrained_cfg(name).hf_hub_id for name in models.list_pretrained()}
    lacking = [row.hub_id for row in checkpoints.declared(checkpoints.Weights, "weights.csv")]
    for row in index.by_name(CheckpointRow).values():
        names = [(row.hub_id, row.library), *((alias.hub_id, alias.library) for alias in row.aliases)]
        for name, library in names:
            if library == "timm":
                assert name in known or any(re.fullmatch(pattern, name) for pattern in lacking), name


def test_domain_encoders_have_seen_the_tissue_that_they_are_judged_by(index: ZooIndex) -> None:
    leaks = {(row.checkpoint, row.task) for row in index.score_rows if row.leak}
    assert ("owkin/phikon", "tcga_uniform") in leaks
    assert ("MahmoodLab/UNI", "tcga_uniform") not in leaks
    assert ("imageomics/bioclip", "inat2021") in leaks


def test_suspicious_sources_are_marked(index: ZooIndex) -> None:
    sources = index.by_name(SourceRow)
    assert "pooling_differs" in sources["mieb_lp16"].flags
    assert "pooling_differs" in sources["biobench_probe"].flags
    assert not sources["dinov2_paper_lp"].flags


def test_what_sounds_alike_is_not_the_same(index: ZooIndex) -> None:
    names = index.names
    assert names["google/vit-base-patch16-224"] == names["timm/vit_base_patch16_224.orig_in21k_ft_in1k"]
    assert names["google/vit-base-patch16-224"] != names["timm/vit_base_patch16_224.augreg_in21k_ft_in1k"]
    assert names["facebook/convnext-tiny-224"] == names["timm/convnext_tiny.fb_in1k"]
    assert names["microsoft/resnet-50"] == names["timm/resnet50.a1_in1k"]
    rows = index.by_name(CheckpointRow)
    assert rows[names["microsoft/resnet-50"]].name_in("transformers") == "timm/resnet50.a1_in1k", "only likely the same"
    assert rows[names["timm/vit_base_patch16_dinov3.lvd1689m"]].name_in("transformers") is not None
    assert rows[names["facebook/dinov2-small"]].name_in("timm") == "timm/vit_small_patch14_dinov2.lvd142m"


def test_every_published_checkpoint_and_every_base_is_here(index: ZooIndex) -> None:
    if not (SHARED / "published").is_dir():
        pytest.skip("../shared/published is not here")
    named = {row["hub_id"] for row in checkpoints.read(SHARED / "published" / "transfer_scores.csv")} - {""}
    named |= {row["hub_id"] for row in checkpoints.read(SHARED / "cards" / "bases.csv")}
    twins = checkpoints.read(SHARED / "published" / "hub_twins.csv")
    assert named - index.names.keys() == set()
    for twin in twins:
        assert index.names[twin["hub_id"]] == index.names[twin["same_weights_hub_id"]], twin


@pytest.mark.slow
def test_the_published_facts_are_reproduced(index: ZooIndex) -> None:
    """The script gives the shipped scores and their checkpoints again, from the sources that are unchanged."""
    pytest.importorskip("timm")
    same = unchanged_sources(index)
    built = facts.build(SHARED, index.created, only=set(same))
    expected = {row for row in index.score_rows if row.source in same}
    assert set(built.rows["scores"]) == expected
    scored = {row.checkpoint for row in expected}
    assert {row for row in index.by_name(CheckpointRow).values() if row.hub_id in scored} <= set(
        built.rows["checkpoints"]
    )
