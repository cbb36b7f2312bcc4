"""Whatever range a network takes pixels in, it is trained alike."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from resprout.checkpoints import FolderCheckpoint
from resprout.recipe import DistillationSection
from resprout.recovery import recover
from resprout.stem import step_groups
from resprout.types import DreamSet, Student, Teacher

SIZE = 64.0


class _Branches(nn.Module):
    """Two convolutions read the image, as in networks that are folded for use; a third does not."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.next = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3)
        for parameter in self.parameters():
            parameter.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.next((self.wide(images) + self.narrow(images)).relu()).mean((2, 3))
        return answers


class _Scaling(nn.Module):
    """A network that brings what it is given into its own range."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.network(images / SIZE)
        return answers


def _for_larger(network: nn.Module) -> nn.Module:
    """The same function of images that are `SIZE` times as large."""
    larger = copy.deepcopy(network)
    for module in (larger.wide, larger.narrow) if isinstance(larger, _Branches) else (larger.get_submodule("conv1"),):
        module.weight.data /= SIZE
    return larger


def _trained(network: nn.Module, images: Tensor, optimizer: Callable[..., torch.optim.Optimizer]) -> Tensor:
    network = copy.deepcopy(network).requires_grad_(True)
    adaptive = optimizer is torch.optim.AdamW
    steps = optimizer(step_groups(network, images, peak=0.01, weight_decay=0.1, adaptive=adaptive))
    for _ in range(4):
        steps.zero_grad()
        functional.cross_entropy(network(images), torch.arange(len(images)) % 4).backward()
        steps.step()
    return network(images).detach()


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("branches", [False, True])
def test_a_network_for_larger_images_is_trained_to_the_same_answers(
    tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor], optimizer: type[torch.optim.Optimizer], branches: bool
) -> None:
    network, images = _Branches() if branches else tiny_teacher.network, tiny_images[0][:32]
    images = images / images.std()
    expected = _trained(network, images, optimizer)
    found = _trained(_for_larger(network), images * SIZE, optimizer)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert (expected - network(images)).abs().max() > 0.02


def test_networks_for_usual_images_and_those_that_scale_them_step_as_one(
    tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor]
) -> None:
    network, images = tiny_teacher.network, tiny_images[0]
    normed_first = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3))
    for used, given in (
        (network, images),
        (network, images / 4),
        (_Scaling(network), images * SIZE),
        (normed_first, images * SIZE),
        (network, images[:0]),
    ):
        (group,) = step_groups(used, given, peak=0.1, adaptive=True)
        assert [id(each) for each in group["params"]] == [id(each) for each in used.parameters()]
    assert len(step_groups(network, images * SIZE, peak=0.1, adaptive=True)) == 2
    assert not any(module._forward_pre_hooks for module in network.modules() if module is not network)


class _StoppedError(Exception):
    pass


def test_a_student_for_larger_images_recovers_as_its_twin_also_in_two_goes(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet, tmp_path: Path
) -> None:
    section = DistillationSection(epochs=3, batch_size=32, start="repaired", precision="float32")
    teacher = replace(tiny_teacher, network=_for_larger(tiny_teacher.network))
    student = replace(tiny_student, network=_for_larger(tiny_student.network))
    dreams = replace(tiny_dreams, images=tiny_dreams.images * SIZE)
    twin = recover(tiny_teacher, tiny_student, tiny_dreams, section, seed=0)
    whole = recover(teacher, student, dreams, section, seed=0)
    assert whole.curves["held_out_kl"][-1] < 1.1 * twin.curves["held_out_kl"][-1]

    def stop(progress: object) -> None:
        if getattr(progress, "done", 0) == 2:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        recover(teacher, student, dreams, section, seed=0, checkpoint=FolderCheckpoint(tmp_path), report=stop)
    again = recover(teacher, student, dreams, section, seed=0, checkpoint=FolderCheckpoint(tmp_path))
    weights = again.recovered.network.state_dict()
    assert all(torch.equal(weights[name], each) for name, each in whole.recovered.network.state_dict().items())
