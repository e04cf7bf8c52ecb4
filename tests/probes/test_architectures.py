"""Every architecture of `architectures.py`, with random weights, gives a sound embedding, right by plain autograd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.fisher.cotangents import logit_cotangents
from hf_task2vec.fisher.diagonal import diagonal_fisher
from hf_task2vec.fisher.head import Head
from hf_task2vec.probes.layers import trace_layers
from hf_task2vec.probes.probe import Probe
from hf_task2vec.tasks.task import Task
from tests.support.architectures import TIMM_ARCHITECTURES, TRANSFORMERS_CASES, timm_input_size
from tests.support.fisher_oracle import Bare, noise, random_head

# Weights of two or more dimensions that no embedding entry covers, in architectures that have any.
UNCOVERED = {
    # The position embedding is a convolution of fixed sines: its input has no image in it.
    "xcit_nano_12_p16_224": {"pos_embed.token_projection.weight": "the first dimension of its input"},
    # The pooling head is an nn.MultiheadAttention, which computes everything in one fused call.
    "siglip": {
        "model.head.attention.in_proj_weight": "not read directly",
        "model.head.attention.out_proj.weight": "not read directly",
    },
}
UNCOVERED["siglip_vision"] = UNCOVERED["siglip"]
# The longest of those of a kind (hierarchical transformers, many small layers).
SLOW = ("maxvit_pico_rw_256", "levit_128s", "densenet121")


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.from_dataset("sklearn:digits", max_samples=10)


def liven(module: nn.Module, size: tuple[int, int, int]) -> None:
    """Give BatchNorms the statistics of noise and a scale of one, as random weights alone leave dead branches."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.weight.fill_(1.0)
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        module(noise(6, *size).float())
    module.eval()


def timm_probe(architecture: str) -> Probe:
    import timm

    size = timm_input_size(architecture)

    def transform(image: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.asarray(image.resize(size[1:]), np.float32))
        return pixels.permute(2, 0, 1) / 127.5 - 1

    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=0, **TIMM_ARCHITECTURES[architecture]).eval()
    model.requires_grad_(False)
    liven(model, size)
    dim = model(torch.zeros(1, *size)).shape[1]
    return Probe.wrap(model, transform=transform, feature_dim=dim, input_size=size, name=architecture)


def transformers_probe(case: str, folder: Path) -> Probe:
    torch.manual_seed(0)
    probe = Probe.from_pretrained(str(TRANSFORMERS_CASES[case](folder / case)))
    liven(probe.module, probe.input_size)
    return probe


def per_example(module: nn.Module, images: Tensor, names: list[str], head: Head) -> np.ndarray:
    """Squared gradients of one backward pass of plain autograd for each image."""
    weights = dict(module.named_parameters())
    covered = [weights[name if name in weights else f"{name}.weight"] for name in names]
    for weight in covered:
        weight.requires_grad_(True)
    total = np.zeros(sum(len(weight) for weight in covered))
    for i, image in enumerate(images):
        # Twice, as torch's BatchNorm has wrong gradients for a batch of one; the second gets a gradient of zero.
        features = module(image.expand(2, -1, -1, -1).clone())
        logits = head.logits(features[:1].detach().numpy())
        (cotangent,) = logit_cotangents("categorical", logits, np.array([i]), "sketch")
        cotangent = np.concatenate([cotangent, np.zeros_like(cotangent)])
        gradients = torch.autograd.grad(features, covered, torch.from_numpy(cotangent @ head.weight), allow_unused=True)
        squares = [
            torch.zeros(len(w)) if g is None else g.square().flatten(1).mean(1)
            for w, g in zip(covered, gradients, strict=True)
        ]
        total += torch.cat(squares).numpy()
    for weight in covered:
        weight.requires_grad_(False)
    return total / len(images)


def check(name: str, probe: Probe, task: Task) -> None:
    embedding = embed_task(task, probe)
    (values,) = embedding.values
    assert values.shape == (sum(layer.n_filters for layer in probe.layers),) == (embedding.layer_sizes.sum(),)
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    # Filters whose activation never passes its threshold on ten digits have no information.
    assert (values > 0).mean() > 0.5
    assert np.std(np.log(values[values > 0])) > 0.1

    owners = {p: n for n, p in probe.module.named_parameters() if p.dim() >= 2}
    uncovered = {u.name: u.reason for u in probe.uncovered}
    listed = {n: reason for n, reason in uncovered.items() if not reason.startswith("not a filter")}
    expected = UNCOVERED.get(name, {})
    assert listed.keys() == expected.keys()
    assert all(listed[n].startswith(reason) for n, reason in expected.items())
    # Every convolution and linear weight is either covered or listed with a reason of its own.
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    weights = {owners[m.weight] for m in probe.module.modules() if isinstance(m, kinds)}
    covered = {layer.name for layer in probe.layers}
    assert {w for w in weights if w.removesuffix(".weight") not in covered} <= expected.keys()

    module = probe.module.double()
    images = noise(3, *probe.input_size, seed=1)
    layers = trace_layers(module, images[:1]).layers
    assert layers == probe.layers
    head = random_head(probe.feature_dim)
    actual = diagonal_fisher(Bare(module, layers), [(images.clone(), np.arange(3))], head=head).mean()  # type: ignore[arg-type]
    oracle = per_example(module, images, [layer.name for layer in layers], head)
    np.testing.assert_allclose(actual, oracle, rtol=1e-6, atol=1e-9 * oracle.max())


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in TIMM_ARCHITECTURES],
)
def test_timm(architecture: str, digits: Task) -> None:
    check(architecture, timm_probe(architecture), digits)


@pytest.mark.parametrize("case", TRANSFORMERS_CASES)
def test_transformers(case: str, tmp_path: Path, digits: Task) -> None:
    check(case, transformers_probe(case, tmp_path), digits)
