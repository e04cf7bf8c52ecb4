"""The variational estimator: its optimum where that is known, and what must not matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from hf_task2vec.errors import FisherError
from hf_task2vec.fisher.diagonal import FisherSums, diagonal_fisher
from hf_task2vec.fisher.head import Head
from hf_task2vec.fisher.variational import variational_fisher
from tests.support.fisher_oracle import Bare, bare, batches, brute_force, noise, random_head, randomise


class Normalised(nn.Module):
    """Convolutions with a BatchNorm that folds and one that does not, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6)
        self.depthwise, self.bn2 = nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.stem(x)).tanh()
        return self.fc(self.bn2(self.depthwise(x).tanh()).mean((2, 3)))


IMAGES = noise(8, 3, 11, 11)


def estimate(probe: Bare, images: Tensor, head: Head, *, size: int = 3, **options: Any) -> FisherSums:
    def fisher_of(network: Bare) -> FisherSums:
        return diagonal_fisher(network, batches(images, size), head=head, label_sampling="exact")  # type: ignore[arg-type]

    return variational_fisher(probe, fisher_of, **options)  # type: ignore[arg-type]


def make() -> Bare:
    return bare(randomise(Normalised()), IMAGES)


HEAD = random_head(5)


class One(nn.Module):
    """A single weight: the mean of the image times it."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.conv.weight.data.fill_(weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


@pytest.mark.parametrize("beta", [0.03, 0.1])
def test_logistic_regression_has_the_optimal_noise(beta: float) -> None:
    """Against the minimum of the paper's objective, by quadrature over the noise and a search over its variance."""
    images = noise(12, 1, 1, 1, seed=3) + 0.5
    x, y = images.flatten().numpy(), np.arange(12) % 2
    slope, offset, mean, prior_scale = 3.0, 0.4, 0.8, 2.0
    head = Head(np.array([[0.0], [slope]]), np.array([0.0, offset]))
    probe = bare(One(mean), images)
    nodes, masses = np.polynomial.hermite_e.hermegauss(60)
    masses = masses / masses.sum()
    prior = (prior_scale * mean) ** 2

    def objective(log_variance: float) -> float:
        variance = np.exp(log_variance)
        logits = slope * (mean + np.sqrt(variance) * nodes)[:, None] * x + offset
        loss = masses @ (np.logaddexp(0, logits) - y * logits).mean(axis=1)
        return float(loss + beta * 0.5 * (variance / prior - 1 - log_variance + np.log(prior)))

    best = minimize_scalar(objective, bounds=(-12, 3), method="bounded", options={"xatol": 1e-10})
    expected = beta * (np.exp(-best.x) - 1 / prior)
    found = estimate(probe, images, head, size=12, beta=beta, prior_scale=prior_scale, rounds=400).mean()[0]
    plain = diagonal_fisher(probe, [(images, np.arange(12))], head=head).mean()[0]  # type: ignore[arg-type]
    assert found == pytest.approx(expected, rel=0.03)
    assert abs(np.log(plain / expected)) > 0.1  # or plain Fisher information would do as well


def test_little_noise_leaves_the_fisher_information() -> None:
    probe = make()
    plain = brute_force(probe, IMAGES, HEAD)
    distances = [
        # The median, because a filter that hardly matters gets all the noise there is.
        np.median(np.abs(np.log(estimate(probe, IMAGES, HEAD, beta=beta, prior_scale=1.0).mean() / plain)))
        for beta in (1e-8, 1e-4, 1e-2)
    ]
    assert distances[0] < 0.01 < distances[1] < distances[2]
    smoothed = estimate(probe, IMAGES, HEAD, beta=1e-3, prior_scale=1.0, rounds=8).mean()
    assert np.corrcoef(np.log(smoothed), np.log(plain))[0, 1] > 0.9


def test_batches_do_not_matter_the_seed_does_and_the_network_stays() -> None:
    probe = make()
    before = {name: value.clone() for name, value in probe.module.state_dict().items()}
    state = torch.get_rng_state()
    settings: dict[str, Any] = {"beta": 1e-3, "rounds": 2}
    expected = estimate(probe, IMAGES, HEAD, **settings, seed=3)
    np.testing.assert_array_equal(expected.counts, [4, 4])
    for size in (1, 3, 8):
        actual = estimate(probe, IMAGES, HEAD, **settings, seed=3, size=size)
        np.testing.assert_allclose(actual.sums, expected.sums, rtol=1e-9)
    assert (estimate(probe, IMAGES, HEAD, **settings, seed=1).sums != expected.sums).all()
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in probe.module.state_dict().items():  # running statistics of BatchNorm among them
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"prior_scale": -1.0}, {"rounds": 0}, {"beta": float("nan")}])
def test_arguments_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(FisherError, match=r"must be positive, and rounds=\d at least 1"):
        estimate(make(), IMAGES, HEAD, **wrong)
