"""The paper's second estimator: Fisher information smoothed by the noise that the filters bear.

Achille et al. 2019 (arXiv 1902.03545, section 2) perturb the weights by Gaussian noise, with one variance σ_c² for the
weights of a filter, and look for the noise that minimises

    E_{w ~ N(ŵ, Σ)} [ −log p(y|x, w) ]  +  β · KL( N(ŵ, Σ) ‖ N(ŵ, λ²) )

per example. By Price's theorem the derivative of an expectation over Gaussian noise with respect to its variance is
half the expected second derivative. So at the optimum, for every filter,

    σ_c² = β / (F_c + β/λ²)    with    F_c = E_{w ~ N(ŵ, Σ)} [ mean of the Hessian's diagonal over the filter ],

the Fisher information averaged over a neighbourhood of the weights, on which that neighbourhood in turn depends. The
equation is iterated to its fixed point with the exact per-example squares of `fisher.py` taken at perturbed weights:
the Hessian is replaced by the Fisher information matrix (its positive part where the network is not linear, exactly it
where it is), as in the natural-gradient scheme of Khan et al. 2018 (arXiv 1806.04854).

The paper descends the stochastic gradient of log σ_c² instead. That is a far noisier way to the same point, because
the noise of all the other filters is in every gradient: on a small convolutional network 1,000 Adam steps correlated
0.81 in logarithms with the exact Fisher information, this iteration 0.99 after 9 passes over the images. (The usual
local reparametrisation, with independent noise at every output position, gave 0.6: positions share their weights.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hf_task2vec.errors import FisherError
from hf_task2vec.fisher.diagonal import FisherSums
from hf_task2vec.probes import weight_owners

if TYPE_CHECKING:
    from hf_task2vec.probes import Probe

ROUNDS = 4


def variational_fisher(
    probe: Probe,
    fisher_of: Callable[[Probe], FisherSums],
    *,
    beta: float = 1e-7,
    prior_scale: float = 0.3,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> FisherSums:
    """Average the Fisher information over the noise that the filters bear.

    Schedule: the variances start from the Fisher information of the unperturbed weights. Each round draws one noise ε
    from `seed`, takes the Fisher information at ŵ + σε and at ŵ − σε (which cancels what is odd in ε), and averages it
    with the rounds before; the variances follow. That is ``2 · rounds + 1`` passes over the images. The network stays
    in eval mode, so BatchNorm uses its running statistics.

    Parameters
    ----------
    probe
        The probe network; its own weights are not touched.
    fisher_of
        Fisher information of a probe, for example ``lambda probe: diagonal_fisher(probe, batches, head=head)``. It is
        called with `probe` itself first, then with a copy whose weights are perturbed.
    beta
        Weight β of the divergence, > 0; more of it, more noise. As β goes to 0 the result becomes the plain Fisher
        information.
    prior_scale
        λ, the most noise a filter can get, in units of the root mean square of its layer's weights; > 0.
    rounds
        Pairs of noise draws, ≥ 1.
    seed
        Seed of the noise. The noise is the same for all images, so the result does not depend on batches or processes.

    Returns
    -------
    FisherSums
        Mean over rounds, in the units of :func:`~hf_task2vec.fisher.diagonal.diagonal_fisher`.

    Raises
    ------
    FisherError
        An argument is out of range, or the noise makes the network's outputs infinite.
    """
    if not (beta > 0 and prior_scale > 0 and rounds >= 1):
        raise FisherError(f"beta={beta} and prior_scale={prior_scale} must be positive, and rounds={rounds} at least 1")
    perturbed = replace(probe, module=copy.deepcopy(probe.module))
    clean, moved = _weights(probe), _weights(perturbed)
    prior = [max(prior_scale**2 * float(w.double().square().mean()), 1e-30) for w in clean]
    sizes = [len(w) for w in clean]
    priors = np.repeat(prior, sizes)
    fisher = fisher_of(probe).mean()
    generator = torch.Generator().manual_seed(seed)
    found: list[FisherSums] = []
    for _ in range(rounds):
        deviations = np.split(np.sqrt(beta / (fisher + beta / priors)), np.cumsum(sizes)[:-1])
        noise = [_scaled_noise(w, deviation, generator) for w, deviation in zip(clean, deviations, strict=True)]
        for sign in (1.0, -1.0):
            for target, weight, shift in zip(moved, clean, noise, strict=True):
                target.copy_(weight + sign * shift)
            found.append(fisher_of(perturbed))
        total = np.mean([part.sums for part in found], axis=0)
        mean = FisherSums(found[0].layers, total, found[0].counts)
        fisher = mean.mean()
    return mean


def _weights(probe: Probe) -> list[Tensor]:
    """Weights of the covered layers in embedding order."""
    owners = weight_owners(probe.module)
    by_name = {owners[id(p)]: p.detach() for p in probe.module.parameters() if id(p) in owners}
    return [by_name[layer.name] for layer in probe.layers]


def _scaled_noise(weight: Tensor, deviation: np.ndarray, generator: torch.Generator) -> Tensor:
    """Noise of the weight's shape, with one standard deviation for each filter."""
    noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)  # on the CPU: the same on any device
    noise *= torch.from_numpy(deviation).view(-1, *[1] * (weight.dim() - 1))
    return noise.to(device=weight.device, dtype=weight.dtype)
