"""Other ways to a diagonal Fisher or Gauss-Newton matrix per weight, on the networks of ``speed/fisher.py``.

BackPACK and nngeometry are optional: ``pip install backpack-for-pytorch nngeometry``.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

#: Images that the original Task2Vec code draws, with replacement, unless told otherwise (its ``num_samples``).
ORIGINAL_DRAWS = 10_000

Run = Callable[[], None]


def batch_mean_loop(model: nn.Module, images: Tensor, labels: Tensor) -> Run:
    """Prepare one step of the original loop: a sampled label an image, the square of the batch's mean gradient."""
    sums = [torch.zeros_like(parameter) for parameter in model.parameters()]

    def run() -> None:
        model.zero_grad(set_to_none=True)
        logits = model(images)
        drawn = torch.multinomial(logits.detach().softmax(dim=-1), 1).view(-1)
        nn.functional.cross_entropy(logits, drawn).backward()
        for total, parameter in zip(sums, model.parameters(), strict=True):
            if parameter.grad is not None:
                total += parameter.grad**2

    return run


def vmap_grad(model: nn.Module, images: Tensor, labels: Tensor) -> Run:
    """Prepare per-example gradients by torch.func."""
    from torch.func import functional_call, grad, vmap

    parameters = {name: value.detach() for name, value in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(model, (p, buffers), (x[None],)), y[None])

    def run() -> None:
        for value in vmap(grad(loss), in_dims=(None, 0, 0))(parameters, images, labels).values():
            value.square_().sum(0)

    return run


def backpack(model: nn.Module, images: Tensor, labels: Tensor) -> Run:
    """Prepare BackPACK's DiagGGNMC, one draw."""
    from backpack import backpack as collecting
    from backpack import extend
    from backpack.extensions import DiagGGNMC

    model, loss = extend(model, use_converter=True), extend(nn.CrossEntropyLoss())

    def run() -> None:
        model.zero_grad(set_to_none=True)
        with collecting(DiagGGNMC(mc_samples=1)):
            loss(model(images), labels).backward()

    return run


def nngeometry(model: nn.Module, images: Tensor, labels: Tensor) -> Run:
    """Prepare nngeometry's exact diagonal FIM."""
    from nngeometry.metrics import FIM
    from nngeometry.object import PMatDiag
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(images, labels), batch_size=len(images))

    def run() -> None:
        FIM(model, loader, PMatDiag, variant="classif_logits", device=images.device)

    return run


PEERS = {"batch_mean_loop": batch_mean_loop, "vmap_grad": vmap_grad, "backpack": backpack, "nngeometry": nngeometry}


def able_peers(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[dict[str, Run], dict[str, str]]:
    """Return the peers that can run this network, and why the rest cannot.

    Each gets a copy of the network: some leave hooks behind, above all where they fail.
    """
    able: dict[str, Run] = {}
    unable: dict[str, str] = {}
    for name, prepare in PEERS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run = prepare(copy.deepcopy(model), images, labels)
                run()
            able[name] = run
        except Exception as error:  # noqa: BLE001 (a peer may fail in any way; it is reported)
            unable[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
    return able, unable
