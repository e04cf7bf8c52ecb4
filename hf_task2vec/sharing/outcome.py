"""The end of a training: predicted against obtained, the card of the model, and the index that learns from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_task2vec.evidence import Choice, Parts, add_score
from hf_task2vec.files import write_json
from hf_task2vec.probes import linear_probe
from hf_task2vec.sharing.cards import escape


@dataclass(frozen=True)
class Outcome:
    """What came of training a chosen checkpoint.

    Attributes
    ----------
    parts, choice
        The images, and the checkpoint with what was predicted of it.
    metrics
        ``accuracy`` and ``f1_macro`` on the test images, and what else is to be kept.
    protocol, how
        How it was reached: as in ``scores.csv``, and in words.
    seed
        Of the division and the training.
    """

    parts: Parts
    choice: Choice
    metrics: Mapping[str, Any]
    protocol: str = "full_finetune"
    how: str = "all weights fine-tuned"
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        candidate, ranking, n_test = self.choice.candidate, self.choice.ranking, len(self.parts.test)
        share = self.metrics["accuracy"]
        return {
            "dataset": self.parts.test.dataset,
            "checkpoint": self.choice.hub_id,
            "protocol": self.protocol,
            **self.metrics,
            "std_error": float(np.sqrt(share * (1.0 - share) / n_test)),
            "predicted": None if candidate is None else {k: v for k, v in asdict(candidate).items() if v is not None},
            "n_ranked": None if ranking is None else ranking.n_ranked,
            "n_train": len(self.parts.train),
            "n_validation": len(self.parts.validation),
            "n_test": n_test,
            "seed": self.seed,
        }

    def text(self) -> str:
        """Say what was predicted and what was obtained."""
        result, candidate = self.to_dict(), self.choice.candidate
        if candidate is None:
            lines = [f"checkpoint        {self.choice.hub_id} (the index does not know it, so nothing was predicted)"]
        else:
            predicted = (
                f"predicted         {100 * candidate.score:.1f} % (80 % interval {100 * candidate.low:.1f} to "
                f"{100 * candidate.high:.1f}) after fine-tuning, from a sample of the training images"
            )
            lines = [
                f"checkpoint        {self.choice.hub_id} (rank {candidate.rank} of {result['n_ranked']})",
                predicted,
            ]
        lines.append(
            f"obtained          {100 * result['accuracy']:.1f} % ± {100 * result['std_error']:.1f} on "
            f"{result['n_test']} test images, {self.how} on {result['n_train']} (macro F1 {result['f1_macro']:.3f})"
        )
        return "\n".join(lines)

    def write(self, folder: Path, *, library: str = "transformers") -> None:
        """Write ``result.json``, the embedding of the sample, and the card in ``model``."""
        write_json(folder / "result.json", self.to_dict())
        self.choice.embedding.save(folder / "task-embedding")
        (folder / "model").mkdir(parents=True, exist_ok=True)
        self._card(folder, library).save(folder / "model" / "README.md")

    def _card(self, folder: Path, library: str) -> Any:
        from huggingface_hub import EvalResult, ModelCard, ModelCardData

        train, test, choice, result = self.parts.train, self.parts.test, self.choice, self.to_dict()
        on_hub = train.revision is not None
        # What `hf-task2vec index harvest` reads, besides base model, data and values (docs/growing.md).
        how_measured = {name: result[name] for name in ("protocol", "n_train", "n_test", "seed")}
        facts = ModelCardData(
            model_name=folder.name,
            base_model=choice.hub_id,
            datasets=[train.dataset] if on_hub else None,
            license=choice.candidate.license if choice.candidate else None,
            library_name=library,
            pipeline_tag="image-classification",
            tags=["image-classification", "task2vec"],
            eval_results=[
                EvalResult(
                    task_type="image-classification",
                    dataset_type=train.dataset if on_hub else "local",
                    dataset_name=train.dataset,
                    dataset_config=test.config_name,
                    dataset_split=test.split,
                    dataset_revision=test.revision,
                    dataset_args=how_measured,
                    metric_type=name,
                    metric_value=value,
                )
                for name, value in (("accuracy", self.metrics["accuracy"]), ("f1", self.metrics["f1_macro"]))
            ],
        )
        return ModelCard.from_template(
            facts,
            template_path=str(Path(__file__).parent / "templates" / "model.md.j2"),
            how=self.how,
            result=result,
            candidate=choice.candidate,
            ranking=choice.ranking,
            explanation=choice.ranking.explain(choice.hub_id) if choice.ranking and choice.candidate else None,
            names=[escape(name) for name in self.parts.names],
            dataset=escape(train.dataset),
            escape=escape,
        )

    def teach(
        self,
        index: str | os.PathLike[str],
        *,
        name: str | None = None,
        base: Any = "shipped",
        companions: Mapping[str, float] | None = None,
    ) -> list[str]:
        """Add the result, and the checkpoint's linear probe on the sample, to a local index; say what was added.

        A fine-tuned accuracy can only be compared with others of its kind. The linear probe joins the probe network's
        own, which is known: so the index learns from the first run on. `companions` are accuracies of other checkpoints
        by the same protocol on the same images.
        """
        parts, hub_id = self.parts, self.choice.hub_id
        linear = linear_probe(hub_id, parts.sample)
        reached = {**(companions or {}), hub_id: self.metrics["accuracy"]}
        rows = [(i, value, self.protocol, "test", len(parts.train), len(parts.test)) for i, value in reached.items()]
        drawn = len(parts.sample)
        rows.append((hub_id, linear.value, "linear_probe_loo", "sample", drawn - 1, drawn))
        said = []
        for i, value, by, split, n_train, n_test in rows:
            added = add_score(
                index, task=self.choice.embedding, checkpoint=i, score=value, protocol=by, split=split,
                n_train=n_train, n_test=n_test, base=base, replace=True, name=name,
            )  # fmt: skip
            said.append(f"added             {i} on {added.row.task}: {100 * value:.1f} % by {by}, to {index}")
        return said
