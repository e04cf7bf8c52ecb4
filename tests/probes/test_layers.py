"""Which weights count as filters, and what is listed as uncovered instead."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_task2vec.errors import ProbeError
from hf_task2vec.probes.layers import LayerTrace, trace_layers

IMAGE = torch.zeros(1, 3, 8, 8)


class Net(nn.Module):
    """A convolution that is always covered, then whatever a test adds."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **children: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        for name, child in children.items():
            setattr(self, name, child)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, self.stem(x)).flatten(1)


def trace(forward: Callable[[Any, Tensor], Tensor], **children: nn.Module) -> LayerTrace:
    torch.manual_seed(0)
    return trace_layers(Net(forward, **children).eval().requires_grad_(False), IMAGE)


def names(result: LayerTrace) -> list[str]:
    return [layer.name for layer in result.layers]


def reasons(result: LayerTrace) -> dict[str, str]:
    """Uncovered parameters but biases."""
    return {u.name: u.reason for u in result.uncovered if not u.name.endswith("bias")}


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def test_kinds_and_sizes() -> None:
    result = trace(
        lambda net, x: net.fc(net.volume(net.line(net.deep(x).flatten(2)).view(-1, 4, 2, 4, 4)).flatten(1)),
        deep=nn.Conv2d(6, 12, 5, stride=2, padding=2, groups=3),
        line=nn.Conv1d(12, 8, 1),
        volume=nn.Conv3d(4, 2, 2),
        fc=nn.Linear(18, 5, bias=False),
    )
    found = [(layer.name, layer.kind, layer.n_filters, layer.weights_per_filter) for layer in result.layers]
    assert found == [
        ("stem", "conv2d", 6, 27),
        ("deep", "conv2d", 12, 50),
        ("line", "conv1d", 8, 12),
        ("volume", "conv3d", 2, 32),
        ("fc", "linear", 5, 18),
    ]
    assert {u.name for u in result.uncovered} == {"stem.bias", "deep.bias", "line.bias", "volume.bias"}
    assert all(u.reason.startswith("not a filter") for u in result.uncovered)


def tied(first: nn.Module) -> nn.Module:
    second = nn.Linear(6, 6)
    second.weight = first.weight
    return nn.ModuleList([first, second])


TWICE, UNREAD = "used 2 times in one forward pass: its per-example gradients would", "not read directly"
ALSO = "also used outside its convolution or linear call"
NORMED = nn.utils.parametrizations


@pytest.mark.parametrize(
    ("part", "reason", "forward"),
    [
        (nn.Conv2d(6, 6, 1), TWICE, lambda part, x: part(part(x))),
        (tied(nn.Linear(6, 6)), TWICE, lambda part, x: part[1](part[0](tokens(x)))),
        (tied(nn.Embedding(6, 6)), ALSO, lambda part, x: part[1](tokens(x)) + part[0](torch.tensor([[0]]))),
        (nn.Linear(6, 6), ALSO, lambda part, x: part(tokens(x)) @ part.weight),
        (nn.Linear(6, 6), ALSO, lambda part, x: part(tokens(x)) + part.weight.mean()),
        (nn.Linear(6, 6), ALSO, lambda part, x: part(tokens(x)) + part.weight.T.mean()),
        (nn.Linear(6, 6), ALSO, lambda part, x: part(tokens(x)) + F.linear(part.weight, torch.ones(6, 6)).mean()),
        (nn.Linear(6, 6), ALSO, lambda part, x: torch.cat([part(tokens(x)), part.weight.expand(len(x), 6, 6)], 1)),
        (nn.Linear(6, 6), UNREAD, lambda part, x: x),
        (NORMED.weight_norm(nn.Linear(6, 4)), UNREAD, lambda part, x: part(tokens(x))),
        (NORMED.spectral_norm(nn.Linear(6, 4)), UNREAD, lambda part, x: part(tokens(x))),
        (nn.MultiheadAttention(6, 2, batch_first=True), UNREAD, lambda part, x: part(*[tokens(x)] * 3)[0]),
        (nn.MultiheadAttention(6, 2), UNREAD, lambda part, x: part(*[tokens(x)] * 3)[0]),
    ],
)
def test_weights_that_are_not_covered(part: nn.Module, reason: str, forward: Callable[[Any, Tensor], Tensor]) -> None:
    result = trace(lambda net, x: forward(net.part, x), part=part)
    assert names(result) == ["stem"]
    assert reasons(result)
    assert all(found.startswith(reason) for found in reasons(result).values()), reasons(result)


def test_reading_metadata_of_a_weight_is_no_use() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        weight = net.fc.weight
        assert weight.shape == (6, 6)
        assert len(weight) == weight.size(0) == weight.dim() * 3
        assert weight.is_floating_point()
        return F.linear(tokens(x).to(weight.dtype).to(weight.device), weight.to(x.dtype), net.fc.bias)

    assert names(trace(forward, fc=nn.Linear(6, 6))) == ["stem", "fc"]


def test_the_linear_layers_around_fused_attention_are_covered() -> None:
    block = nn.TransformerEncoderLayer(6, 2, dim_feedforward=10, batch_first=True)
    result = trace(lambda net, x: net.block(tokens(x)), block=block)
    assert names(result) == ["stem", "block.linear1", "block.linear2"]


def test_functional_calls_are_covered() -> None:
    class Bypass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.projection = nn.Parameter(torch.randn(4, 6))
            self.kernel = nn.Parameter(torch.randn(5, 6, 3, 3))
            self.inner = nn.Linear(4, 7)

        def forward(self, x: Tensor) -> Tensor:
            convolved = torch.conv2d(input=x, weight=self.kernel, stride=2)
            projected = F.linear(F.linear(tokens(x), self.projection), self.inner.weight, self.inner.bias)
            return torch.cat([convolved.flatten(1), projected.flatten(1)], 1)

    result = trace(lambda net, x: net.bypass(x), bypass=Bypass())
    assert names(result) == ["stem", "bypass.kernel", "bypass.projection", "bypass.inner"]


def test_timm_convolution_that_pads_by_itself_is_covered() -> None:
    from timm.layers import Conv2dSame

    result = trace(lambda net, x: net.same(x), same=Conv2dSame(6, 4, 3, stride=2))
    assert names(result) == ["stem", "same"]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weight_standardisation_is_not_covered_nor_taken_for_batch_statistics(layout: torch.memory_format) -> None:
    from timm.layers import ScaledStdConv2d, StdConv2d

    net = Net(lambda net, x: net.scaled(net.std(x)), std=StdConv2d(6, 6, 3), scaled=ScaledStdConv2d(6, 4, 3))
    net = net.eval().requires_grad_(False).to(memory_format=layout)
    result = trace_layers(net, IMAGE)
    assert names(result) == ["stem"]
    assert all(reasons(result)[f"{name}.weight"].startswith("not read directly") for name in ("std", "scaled"))


def test_quantised_modules_are_listed() -> None:
    with warnings.catch_warnings():
        # torch announces that eager-mode quantisation moves to another package.
        warnings.simplefilter("ignore")
        quantization = pytest.importorskip("torch.ao.quantization")
        supported = torch.backends.quantized.supported_engines
        if not set(supported) - {"none"}:
            pytest.skip("this torch has no quantised kernels")
        fc = quantization.quantize_dynamic(nn.Sequential(nn.Linear(6, 4)), {nn.Linear}, dtype=torch.qint8)
        result = trace(lambda net, x: net.fc(tokens(x)), fc=fc)
    assert names(result) == ["stem"]
    assert reasons(result)["fc.0"] == "quantised module Linear: its weights have no gradient"


@pytest.mark.parametrize(
    "norm",
    [
        *(nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False), nn.SyncBatchNorm(6)),
        *(nn.InstanceNorm2d(6), nn.GroupNorm(2, 6), nn.LayerNorm(8)),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_normalisation_without_the_batch_is_accepted(norm: nn.Module) -> None:
    assert names(trace(lambda net, x: net.norm(x), norm=norm)) == ["stem"]


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (nn.BatchNorm2d(6), r"normalises with batch statistics.*call \.eval\(\)"),
        (nn.BatchNorm2d(6, track_running_stats=False), "track_running_stats=True"),
    ],
)
def test_batch_statistics_are_refused(norm: nn.Module, message: str) -> None:
    net = Net(lambda net, x: net.norm(x), norm=norm).eval()
    norm.train(norm.track_running_stats)
    with pytest.raises(ProbeError, match=message):
        trace_layers(net, IMAGE)


def test_a_network_without_layers_is_refused() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten()).eval()
    with pytest.raises(ProbeError, match=r"no convolution or linear layer.*BatchNorm2d, Flatten, ReLU"):
        trace_layers(net, IMAGE)


# Which BatchNorm of a convolution can be folded into it.


def folded(forward: Callable[[Any, Tensor], Tensor], **children: nn.Module) -> dict[str, str | None]:
    return {layer.name: layer.batch_norm for layer in trace(forward, **children).layers}


@pytest.mark.parametrize("forward", [lambda net, x: net.bn(x), lambda net, x: net.bn(x).relu_()])
def test_batch_norm_after_a_convolution(forward: Callable[[Any, Tensor], Tensor]) -> None:
    from timm.layers import BatchNormAct2d

    for norm in (nn.BatchNorm2d(6), BatchNormAct2d(6)):
        assert folded(forward, bn=norm) == {"stem": "bn"}


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.bn(x) + x,
        lambda net, x: net.bn(F.relu(x)),
        lambda net, x: net.bn(F.relu_(x)),
        lambda net, x: net.bn(x.mul_(2)),
        lambda net, x: net.bn(x) + net.bn(x),
        lambda net, x: torch.cat([x, net.bn(x)]).view(len(x), -1),
        lambda net, x: torch.stack(tensors=[x, net.bn(x)]).transpose(0, 1),
        lambda net, x: net.bn(x) + x.detach(),
        lambda net, x: net.bn(x.view(x.shape)),
        lambda net, x: (net.bn(x), x)[1].mean((2, 3)),
        lambda net, x: F.conv2d(x, torch.ones(6, 6, 1, 1)) + net.bn(x),
        lambda net, x: net.bn(x) * x.sum(),
    ],
)
def test_a_convolution_with_another_reader_is_not_folded(forward: Callable[[Any, Tensor], Tensor]) -> None:
    assert folded(forward, bn=nn.BatchNorm2d(6)) == {"stem": None}


def test_reading_the_shape_does_not_prevent_folding() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        assert x.shape[1] == x.size(1) == 6
        assert (x.ndim, x.dim(), x.dtype) == (4, 4, torch.float32)
        return net.bn(x)

    assert folded(forward, bn=nn.BatchNorm2d(6)) == {"stem": "bn"}


def test_a_result_of_the_network_is_a_use() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.bn = nn.Conv2d(3, 6, 8), nn.BatchNorm2d(6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.stem(x)
            return self.bn(x), x

    (layer,) = trace_layers(Both().eval(), IMAGE).layers
    assert layer.batch_norm is None


def test_one_batch_norm_for_two_convolutions() -> None:
    result = folded(
        lambda net, x: net.bn(x) + net.bn(net.other(x.clone())), bn=nn.BatchNorm2d(6), other=nn.Conv2d(6, 6, 1)
    )
    assert result == {"stem": None, "other": "bn"}  # the stem is also cloned
    result = folded(lambda net, x: net.bn(net.other(net.bn(x))), bn=nn.BatchNorm2d(6), other=nn.Conv2d(6, 6, 1))
    assert result == {"stem": "bn", "other": "bn"}


def test_linear_layers_are_not_folded() -> None:
    result = folded(lambda net, x: net.bn(net.fc(x.flatten(1))), bn=nn.BatchNorm1d(4), fc=nn.Linear(384, 4))
    assert result == {"stem": None, "fc": None}


# Layers whose input is not laid out by example.


def windows(x: Tensor) -> Tensor:
    return x.unflatten(1, (4, 16)).flatten(0, 1)  # (4 B, 16, C)


@pytest.mark.parametrize(
    "layout",
    [
        lambda t: t,
        windows,
        lambda t: windows(t).flatten(0, 1),
        lambda t: t.mean(1),
        lambda t: t[:, None],
    ],
)
def test_examples_first(layout: Callable[[Tensor], Tensor]) -> None:
    assert names(trace(lambda net, x: net.fc(layout(tokens(x))).view(len(x), -1), fc=nn.Linear(6, 4))) == ["stem", "fc"]


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (lambda t: t.transpose(0, 1), "the first dimension of its input does not run over the images"),
        (lambda t: t.transpose(0, 1).flatten(0, 1), "its input is not laid out by image"),
        (lambda t: t.mean(0, keepdim=True), "the first dimension of its input does not run over the images"),
        (lambda t: t + t.mean(0, keepdim=True), "its input is not laid out by image, or mixes the images of a batch"),
        (lambda t: t.flip(0), "its input is not laid out by image"),
        (lambda t: torch.ones(5, 6), "the first dimension of its input does not run over the images"),
        (lambda t: torch.ones(2, 6), "the first dimension of its input does not run over the images"),
    ],
)
def test_other_layouts_are_not_covered(layout: Callable[[Tensor], Tensor], reason: str) -> None:
    result = trace(lambda net, x: x.mean() + net.fc(layout(tokens(x))).sum() + x, fc=nn.Linear(6, 4))
    assert names(result) == ["stem"]
    assert reasons(result)["fc.weight"].startswith(reason)


def test_tracing_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    net = Net(lambda net, x: x).eval()
    torch.manual_seed(3)
    trace_layers(net, IMAGE)
    assert torch.equal(torch.rand(1), expected)
