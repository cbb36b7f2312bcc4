"""Dreams are pictures: however a teacher wants its pixels, it dreams the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from resprout import statistics
from resprout.checkpoints import FolderCheckpoint
from resprout.recipe import DeepInversionSection
from resprout.synthesis import synthesize
from resprout.types import DreamSet, InputSpec, Teacher

SECTION = DeepInversionSection(num_images=16, num_held_out=0, group_size=16, iterations=20, precision="float32")
RANGES = {
    "0..1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "0..255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "0..255, less the mean": ((0.41, 0.46, 0.48), (1 / 255, 1 / 255, 1 / 255)),
    "-1..1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "each channel its own": ((0.3, 0.6, 0.1), (0.1, 1.0, 1 / 255)),
}


class _Rescaled(nn.Module):
    """A network for pixels that were normalised otherwise than it was trained on."""

    def __init__(self, network: nn.Module, trained: InputSpec, given: InputSpec) -> None:
        super().__init__()
        self.network = network
        given_mean, given_std, mean, std = (
            torch.tensor(values).view(-1, 1, 1) for values in (given.mean, given.std, trained.mean, trained.std)
        )
        self.register_buffer("factor", given_std / std)
        self.register_buffer("offset", (given_mean - mean) / std)

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.network(images * self.factor + self.offset)
        return answers


def _twin(teacher: Teacher, mean: Sequence[float], std: Sequence[float]) -> Teacher:
    """A teacher that answers every picture alike, and takes it in another range."""
    given = InputSpec(teacher.info.input.shape, tuple(mean), tuple(std))
    network = _Rescaled(teacher.network, teacher.info.input, given).eval().requires_grad_(False)
    return replace(teacher, info=replace(teacher.info, input=given), network=network)


def _dream(teacher: Teacher) -> tuple[Tensor, DreamSet]:
    dreams = synthesize(teacher, statistics.extract(teacher), SECTION, seed=0)
    return teacher.info.input.to_pixels(dreams.images.float()), dreams


@pytest.mark.parametrize("range", RANGES)
def test_a_teacher_dreams_the_same_pictures_whatever_range_it_takes_pixels_in(
    tiny_teacher: Teacher, range: str
) -> None:
    expected, dreams = _dream(tiny_teacher)
    pixels, of_twin = _dream(_twin(tiny_teacher, *RANGES[range]))
    # Adam's first steps go by a gradient's sign: where it is about 0, rounding decides
    assert (pixels - expected).abs().quantile(0.99) < 0.005
    for name, curve in dreams.curves.items():
        torch.testing.assert_close(of_twin.curves[name], curve, rtol=0.01, atol=1e-3)
    assert pixels.std() > 0.1


def test_dreams_under_another_normalisation_are_made_anew(tiny_teacher: Teacher, tmp_path: object) -> None:
    checkpoint, found = FolderCheckpoint(str(tmp_path)), statistics.extract(tiny_teacher)
    synthesize(tiny_teacher, found, SECTION, seed=0, checkpoint=checkpoint)
    other = replace(tiny_teacher.info.input, mean=(0.5, 0.5, 0.5))
    corrected = replace(tiny_teacher, info=replace(tiny_teacher.info, input=other))
    fresh = synthesize(corrected, found, SECTION, seed=0)
    assert torch.equal(synthesize(corrected, found, SECTION, seed=0, checkpoint=checkpoint).images, fresh.images)
