"""The Fisher information against brute force, and what it must not depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_task2vec.errors import FisherError, ProbeError
from hf_task2vec.fisher.diagonal import FisherSums, diagonal_fisher
from hf_task2vec.fisher.head import Head
from hf_task2vec.probes.layers import FilterLayer
from tests.support.fisher_oracle import Bare, bare, batches, brute_force, noise, random_head, randomise

# torch says so once per process of one layer of `Classic`.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
DIM = 6


class Classic(nn.Module):
    """Strided, dilated, grouped, depthwise, 1x1 and 'same' convolutions, BatchNorms, in-place and residual parts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 16, 5, padding=2, groups=8)
        self.bn2 = nn.BatchNorm2d(16, affine=False)
        self.point = nn.Conv2d(16, 8, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(8, eps=1e-2)
        self.short = nn.Conv2d(8, 8, 1, stride=1)
        self.dilated = nn.Conv2d(8, 12, 3, 1, 2, dilation=2, groups=4, padding_mode="circular")
        self.same = nn.Conv2d(12, DIM, (2, 3), padding="same")
        self.valid = nn.Conv2d(DIM, DIM, 2, padding="valid", stride=(2, 1))
        self.idle = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.bn1(self.stem(x)))
        y = F.silu(self.bn2(self.depthwise(x)), inplace=True)
        y = self.bn3(self.point(y))
        y += self.short(x)
        self.idle(y)
        y = F.gelu(self.same(self.dilated(y.tanh())))
        return self.valid(y).mean((2, 3))


class Attention(nn.Module):
    """Tokens, own query, key and value layers, a class token and a layer over the patch grid."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 8)
        self.out, self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 20), nn.Linear(20, 8)
        self.fc = nn.Linear(8, DIM)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), 1, 8), x], 1)
        q, k, v = (f(self.norm(x)).unflatten(2, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.fc(x[:, 0])


class Windows(nn.Module):
    """Layers that see an image as several inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.mlp = nn.Linear(4, 5)
        self.flat = nn.Linear(5, 5)
        self.grid = nn.Conv2d(5, DIM, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        x = self.stem(x).unflatten(2, (2, 6)).unflatten(4, (2, 6)).permute(0, 2, 4, 3, 5, 1)  # B, 2, 2, 6, 6, C
        x = torch.tanh(self.mlp(x.reshape(n * 4, 36, 4)))
        x = torch.tanh(self.flat(x.reshape(n * 144, 5)))
        x = self.grid(x.reshape(n * 4, 6, 6, 5).permute(0, 3, 1, 2)).relu()
        return x.reshape(n, 4, DIM, 36).mean((1, 3))


class Lines(nn.Module):
    """One and three spatial dimensions, and the first layer a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = nn.Linear(12, 10)
        self.line = nn.Conv1d(36, 8, 3, stride=2, padding=1, groups=2)
        self.volume = nn.Conv3d(2, 3, (2, 1, 2))
        self.bn = nn.BatchNorm3d(3)
        self.fc = nn.Linear(3, DIM)

    def forward(self, x: Tensor) -> Tensor:
        x = self.line(self.columns(x).tanh().flatten(1, 2)).tanh()  # B, 8, 5
        return self.fc(self.bn(self.volume(x.view(-1, 2, 2, 2, 5))).relu().mean((2, 3, 4)))


class NormedTokens(nn.Module):
    """A BatchNorm read as tokens: the layout whose gradient torch's own backward gets wrong for a single image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.pool, self.late, self.flat = nn.AvgPool2d(2), nn.BatchNorm2d(8), nn.BatchNorm1d(8)
        self.fc = nn.Linear(8, DIM)

    def forward(self, x: Tensor) -> Tensor:
        x = self.late(self.pool(self.bn(self.stem(x)).tanh())).flatten(2).transpose(1, 2)
        return self.fc(self.flat(x.flatten(0, 1)).view_as(x).tanh()).mean(1)


class SharedNorm(nn.Module):
    """One BatchNorm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.bn = nn.Conv2d(3, DIM, 3), nn.Conv2d(DIM, DIM, 1), nn.BatchNorm2d(DIM)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.b(self.bn(self.a(x)).tanh())).tanh().mean((2, 3))


NETWORKS = {net.__name__: net for net in (Classic, Attention, Windows, Lines, NormedTokens, SharedNorm)}
IMAGES = noise(5, 3, 12, 12)


def make(name: str, dtype: torch.dtype = torch.float64) -> Bare:
    return bare(randomise(NETWORKS[name]()), IMAGES.to(dtype))


def fisher(probe: Bare, images: Tensor = IMAGES, head: Head | None = None, **options: Any) -> FisherSums:
    size, order = options.pop("size", 3), options.pop("order", None)
    return diagonal_fisher(probe, batches(images, size, order), head=head or random_head(DIM), **options)  # type: ignore[arg-type]


def close(actual: np.ndarray, expected: np.ndarray, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * expected.max())


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli"])
@pytest.mark.parametrize("name", NETWORKS)
def test_exact_equals_brute_force(name: str, likelihood: str) -> None:
    probe, head = make(name), random_head(DIM, likelihood=likelihood)
    covered = {layer.name for layer in probe.layers}
    assert covered == {
        n for n, m in probe.module.named_modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))
    }
    expected = brute_force(probe, IMAGES, head)
    actual = fisher(probe, head=head, label_sampling="exact").mean()
    assert actual.dtype == np.float64
    close(actual, expected)
    ends = np.cumsum([layer.n_filters for layer in probe.layers])
    for layer, part in zip(probe.layers, np.split(actual, ends[:-1]), strict=True):
        assert (part > 0).any() != (layer.name == "idle")


def test_which_batch_norms_the_oracle_folds() -> None:
    folded = {name: {layer.name: layer.batch_norm for layer in make(name).layers} for name in NETWORKS}
    assert {k: v for k, v in folded["Classic"].items() if v} == {"stem": "bn1", "depthwise": "bn2", "point": "bn3"}
    assert folded["Lines"]["volume"] == "bn"
    assert folded["SharedNorm"] == {"a": "bn", "b": "bn"}


@pytest.mark.parametrize("scale", [0.0, -1.5])
def test_folding_a_batch_norm_with_zero_or_negative_scale(scale: float) -> None:
    probe = make("Classic")
    probe.module.get_submodule("bn1").weight.fill_(scale)  # type: ignore[union-attr, operator]
    head = random_head(DIM)
    expected = brute_force(probe, IMAGES, head)
    close(fisher(probe, label_sampling="exact").mean(), expected)
    assert (expected[:8] == 0).all() == (scale == 0)


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli"])
@pytest.mark.parametrize("sampling", ["sketch", "monte_carlo"])
def test_random_samplings_are_unbiased(sampling: str, likelihood: str) -> None:
    probe, head = make("Attention"), random_head(DIM, likelihood=likelihood)
    expected = brute_force(probe, IMAGES, head)
    runs = np.stack([fisher(probe, head=head, label_sampling=sampling, seed=s, size=5).mean() for s in range(150)])
    standard_error = runs.std(0, ddof=1) / np.sqrt(len(runs))
    z = (runs.mean(0) - expected) / standard_error
    assert np.abs(z).max() < 5  # the entries are correlated: far fewer than 82 independent tests
    assert np.abs(np.median(runs.mean(0) / expected) - 1) < 0.1
    # The estimates vary, or the test would show nothing.
    assert (standard_error > 1e-4 * expected).all()


def test_sketch_is_exact_for_two_classes() -> None:
    probe, head = make("Classic"), random_head(DIM, classes=2)
    close(fisher(probe, head=head).mean(), brute_force(probe, IMAGES, head))


@pytest.mark.parametrize("sampling", ["sketch", "exact", "monte_carlo"])
@pytest.mark.parametrize("name", NETWORKS)
def test_batch_size_and_order_do_not_matter(name: str, sampling: str) -> None:
    probe = make(name)
    expected = fisher(probe, label_sampling=sampling, size=5)
    for size, order in ((1, None), (2, np.array([4, 1, 0, 3, 2])), (4, None)):
        actual = fisher(probe, label_sampling=sampling, size=size, order=order)
        close(actual.sums, expected.sums)
        np.testing.assert_array_equal(actual.counts, expected.counts)


def test_halves() -> None:
    probe, head = make("Classic"), random_head(DIM)
    sums = fisher(probe, label_sampling="exact")
    np.testing.assert_array_equal(sums.counts, [3, 2])
    even, odd = sums.halves()
    close(even, brute_force(probe, IMAGES[::2], head))
    close(odd, brute_force(probe, IMAGES[1::2], head))
    close((3 * even + 2 * odd) / 5, sums.mean())
    chosen = fisher(probe, label_sampling="exact", halves=np.array([1, 1, 1, 1, 0]))
    np.testing.assert_array_equal(chosen.counts, [1, 4])
    close(chosen.halves()[0], brute_force(probe, IMAGES[4:], head))
    close(chosen.mean(), sums.mean())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_single_precision(name: str, layout: torch.memory_format) -> None:
    head = random_head(DIM)
    expected = brute_force(make(name), IMAGES, head)
    single = make(name, torch.float32)
    images = IMAGES.float().contiguous(memory_format=layout)
    close(fisher(single, images, label_sampling="exact").mean(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "around",
    [torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16)],
    ids=lambda around: type(around).__name__,
)
def test_what_is_around_has_no_effect_and_nothing_around_is_changed(around: Any) -> None:
    probe, images = make("Classic", torch.float32), IMAGES.float()
    before = {name: value.clone() for name, value in probe.module.state_dict().items()}
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    expected = fisher(probe, images).sums
    given = images.clone()
    with around:
        found = diagonal_fisher(probe, [(given, np.arange(5))], head=random_head(DIM))  # type: ignore[arg-type]
        assert torch.is_grad_enabled() == isinstance(around, torch.autocast)
    close(found.sums, expected, rtol=1e-6)
    assert torch.equal(given, images)
    assert all(torch.equal(value, before[name]) for name, value in probe.module.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in probe.module.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in probe.module.modules())
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002


# What is refused.


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, DIM, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x).mean((2, 3))


def overwrite(net: Any, x: Tensor) -> Tensor:
    x = net.first(x).tanh()
    y = net.second(x)
    x.zero_()
    return y


def without_grad(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        x = net.first(x)
    return net.second(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (overwrite, "the input of layer 'second' was overwritten in place after use"),
        (without_grad, r"layer 'first' runs under torch\.no_grad\(\)"),
        (lambda net, x: net.second(net.first(x)).detach(), r"no gradient leads from the features.*remove \.detach\(\)"),
    ],
)
def test_networks_whose_gradients_would_be_wrong(function: Any, message: str) -> None:
    probe = bare(randomise(Function(function)), IMAGES)
    with pytest.raises(ProbeError, match=message):
        fisher(probe)


def test_input_normalised_in_place_is_refused_or_right() -> None:
    probe = bare(randomise(Function(lambda net, x: net.second(net.first(x.sub_(0.5)).relu_()))), IMAGES)
    expected = brute_force(probe, IMAGES.clone(), random_head(DIM))
    close(fisher(probe, label_sampling="exact").mean(), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_weights(bad: float) -> None:
    probe = make("Classic")
    probe.module.get_submodule("point").weight[0] = bad  # type: ignore[index]
    with pytest.raises(FisherError, match="the probe's features are not finite; check its weights"):
        fisher(probe)


def test_non_finite_gradients_name_the_layer() -> None:
    # The square root has a finite value at 0, but an infinite slope.
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.second((0 * net.first(x)).sqrt())

    probe = bare(randomise(Function(forward)), IMAGES)
    with pytest.raises(FisherError, match="the gradients of layer 'first' are not finite"):
        fisher(probe)


def test_a_non_finite_head_is_refused() -> None:
    head = random_head(DIM)
    head.bias[1] = np.nan
    with pytest.raises(FisherError, match="head's logits are not finite"):
        fisher(make("Attention"), head=head)


@pytest.mark.parametrize("empty", [[], [(IMAGES[:0], np.arange(0))]])
def test_too_few_examples(empty: list[Any]) -> None:
    with pytest.raises(FisherError, match="no examples were seen"):
        diagonal_fisher(make("Attention"), empty, head=random_head(DIM)).mean()  # type: ignore[arg-type]
    one = fisher(make("Attention"), IMAGES[:1])
    assert np.isfinite(one.mean()).all()
    with pytest.raises(FisherError, match=r"at least one image \(two for halves\)"):
        one.halves()


def test_unknown_options_are_named() -> None:
    with pytest.raises(FisherError, match="label_sampling='rademacher' is unknown; choose one of sketch, exact, monte"):
        fisher(make("Attention"), label_sampling="rademacher")
    with pytest.raises(FisherError, match="likelihood 'poisson' is unknown; choose one of categorical, bernoulli"):
        fisher(make("Attention"), head=random_head(DIM, likelihood="poisson"))


def test_a_layer_that_changes_its_layout_with_the_batch_is_refused() -> None:
    layer = FilterLayer("second", "conv2d", DIM, 4)

    def forward(net: Any, x: Tensor) -> Tensor:
        return net.second(net.first(x).mean(0, keepdim=True)).expand(len(x), -1, -1, -1)

    module = randomise(Function(forward)).double().eval().requires_grad_(False)
    with pytest.raises(ProbeError, match="layer 'second' got 1 inputs for a batch of 3 images"):
        fisher(Bare(module, (layer,)))
