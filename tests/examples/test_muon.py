from __future__ import annotations

import pytest
import torch
from muon import QUINTIC, Muon, orthogonalise
from torch import Tensor


def by_svd(weight: Tensor) -> Tensor:
    """What three Newton-Schulz iterations do, in closed form: the quintic thrice on the singular values, in float64."""
    matrix = weight.double().flatten(1)
    left, values, right = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(3):
        values = QUINTIC[0] * values + QUINTIC[1] * values**3 + QUINTIC[2] * values**5
    applied: Tensor = left @ values.diag() @ right
    return applied.reshape(weight.shape)


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (16, 1, 3, 3), (12, 12), (1, 5)])
def test_orthogonalise_applies_the_quintic_to_the_singular_values(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))

    torch.testing.assert_close(orthogonalise(weight).double(), by_svd(weight), rtol=1e-4, atol=1e-5)


def test_orthogonalised_singular_values_are_near_one() -> None:
    weight = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(2))

    values = torch.linalg.svdvals(orthogonalise(weight).flatten(1))

    assert values.min() > 0.5
    assert values.max() < 1.3


def test_two_steps_follow_the_description() -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.nn.Parameter(torch.randn(6, 2, 3, 3, generator=generator))
    expected, momentum = weight.detach().double(), torch.zeros(6, 2, 3, 3, dtype=torch.float64)
    optimiser = Muon([weight], learning_rate=0.1, momentum=0.9)

    for _ in range(2):
        weight.grad = torch.randn(weight.shape, generator=generator)
        optimiser.step()
        momentum = 0.9 * momentum + weight.grad
        expected = expected * 6**0.5 / expected.norm() - 0.1 * by_svd(weight.grad + 0.9 * momentum)

    torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-4, atol=1e-5)


def test_a_gradient_of_any_scale_gives_the_same_step() -> None:
    gradient = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(4))
    steps = []
    for scale in (1.0, 1000.0):
        weight = torch.nn.Parameter(torch.ones(4, 3, 3, 3))
        weight.grad = scale * gradient
        Muon([weight], learning_rate=0.1, momentum=0.9).step()
        steps.append(weight.detach())

    torch.testing.assert_close(*steps)
