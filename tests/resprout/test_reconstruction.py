from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn

from resprout.checkpoints import FolderCheckpoint
from resprout.errors import UnsupportedModelError
from resprout.masking import apply_mask
from resprout.progress import Progress
from resprout.recipe import DistillationSection, ReconstructionSection
from resprout.recovery import Recovery, recover
from resprout.recovery.reconstruction import reconstruct
from resprout.types import DreamSet, PruningMask, Student, Teacher

CPU = torch.device("cpu")
LAYERS = {
    "linear": nn.Linear(12, 5),
    "linear without bias": nn.Linear(12, 5, bias=False),
    "convolution": nn.Conv2d(3, 4, 3, padding=1),
    "strided, dilated": nn.Conv2d(3, 4, 3, stride=2, dilation=2, padding=(2, 1), bias=False),
    "padded alike": nn.Conv2d(3, 4, 3, padding="same", dilation=2),
    "reflecting": nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(4, 4, 3, groups=4, padding=1),
}


def pruned(teacher: nn.Module, share: float = 0.5) -> tuple[nn.Module, PruningMask]:
    generator = torch.Generator().manual_seed(3)
    weights = {name: weight for name, weight in teacher.named_parameters() if weight.ndim > 1}
    mask = PruningMask(
        {name: torch.rand(weight.shape, generator=generator) > share for name, weight in weights.items()}
    )
    student = copy.deepcopy(teacher)
    apply_mask(student, mask)
    return student, mask


def solve(teacher: nn.Module, images: torch.Tensor, share: float = 0.5, ridge: float = 1e-9) -> nn.Module:
    student, mask = pruned(teacher, share)
    solved, _ = reconstruct(teacher, student, mask, images, ridge=ridge, device=CPU, watch=lambda *_: None)
    return solved


def images_for(layer: nn.Module, count: int = 40) -> torch.Tensor:
    shape = (1, 3, layer.in_features) if isinstance(layer, nn.Linear) else (layer.in_channels, 7, 8)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_one_layer_is_what_numpys_least_squares_gives(layer: nn.Module) -> None:
    # the layer is linear in its weights: its answers to unit weights are the columns of the problem
    teacher = nn.Sequential(copy.deepcopy(layer)).requires_grad_(False)
    images = images_for(layer)
    solved = solve(teacher, images)
    weight, keep = solved[0].weight, pruned(teacher)[1].keep["0.weight"]
    probe = copy.deepcopy(teacher)
    probe[0].weight.zero_()
    constant = probe(images)
    target = (teacher(images) - constant).double().flatten()
    columns = []
    for position in keep.flatten().nonzero().flatten():
        probe[0].weight.view(-1)[position] = 1
        columns.append((probe(images) - constant).double().flatten())
        probe[0].weight.view(-1)[position] = 0
    expected = numpy.linalg.lstsq(torch.stack(columns, 1).numpy(), target.numpy(), rcond=None)[0]
    assert weight[keep].numpy() == pytest.approx(expected, abs=1e-4)


def test_with_nothing_pruned_the_teacher_comes_back(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    solved = solve(tiny_teacher.network, tiny_dreams.training[0].float(), share=-1.0, ridge=1e-3)
    for name, weight in solved.named_parameters():
        assert torch.allclose(weight, dict(tiny_teacher.network.named_parameters())[name], atol=1e-3), name


def test_a_strong_pull_leaves_the_teachers_weights(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    solved = solve(tiny_teacher.network, tiny_dreams.training[0].float(), ridge=1e9)
    student, _ = pruned(tiny_teacher.network)
    for name, weight in solved.named_parameters():
        assert torch.allclose(weight, dict(student.named_parameters())[name], atol=1e-5), name


def test_batches_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).requires_grad_(False)
    images = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    whole = solve(teacher, images)
    monkeypatch.setattr("resprout.patches.PATCH_ELEMENTS", 3 * 27 * 36)
    for left, right in zip(whole.parameters(), solve(teacher, images).parameters(), strict=True):
        assert torch.allclose(left, right, atol=1e-5)


def test_later_layers_make_up_for_earlier_ones(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    images, fresh = tiny_dreams.training[0].float(), tiny_dreams.held_out[0].float()
    answers = tiny_teacher.network(fresh)
    student, _ = pruned(tiny_teacher.network, 0.6)
    solved = solve(tiny_teacher.network, images, 0.6, ridge=1e-3)
    before = (student(fresh) - answers).square().sum()
    assert (solved(fresh) - answers).square().sum() < 0.3 * before


def test_a_layer_that_lost_all_and_one_that_is_a_subclass_are_left(tiny_dreams: DreamSet) -> None:
    class Doubling(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 2

    teacher = nn.Sequential(Doubling(3, 4, 3), nn.Conv2d(4, 4, 3)).requires_grad_(False)
    student, mask = pruned(teacher)
    mask.keep["1.weight"][2] = False
    apply_mask(student, mask)
    images = tiny_dreams.training[0].float()
    solved, errors = reconstruct(teacher, student, mask, images, ridge=1e-3, device=CPU, watch=lambda *_: None)
    assert list(errors) == ["1"]
    assert torch.equal(solved[0].weight, student[0].weight)
    assert torch.equal(solved[1].weight[2], torch.zeros(4, 3, 3))


def test_a_network_without_a_layer_to_solve_is_refused(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    student = replace(tiny_student, mask=PruningMask({}))
    with pytest.raises(UnsupportedModelError, match="no pruned layer is a plain"):
        recover(tiny_teacher, student, tiny_dreams, ReconstructionSection(), seed=0)


def test_recover_by_reconstruction(tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet) -> None:
    seen: list[Progress] = []
    before = [copy.deepcopy(network.state_dict()) for network in (tiny_teacher.network, tiny_student.network)]
    result = recover(tiny_teacher, tiny_student, tiny_dreams, ReconstructionSection(), seed=0, report=seen.append)
    for network, state in zip((tiny_teacher.network, tiny_student.network), before, strict=True):
        assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())
    parameters = dict(result.recovered.network.named_parameters())
    for name, kept in tiny_student.mask.keep.items():
        assert torch.equal(parameters[name] == 0, ~kept), name
    images = tiny_dreams.held_out[0].float()
    answers = tiny_teacher.network(images).argmax(1)
    agreements = [
        float((student.network(images).argmax(1) == answers).float().mean())
        for student in (tiny_student, result.recovered)
    ]
    assert agreements[1] > agreements[0] + 0.05
    assert 0 < result.metrics["relative_error"] < 1
    assert (seen[-1].done, seen[-1].unit) == (len(tiny_student.mask.keep), "layers")


def test_an_interrupted_reconstruction_goes_on_with_the_next_layer(
    tiny_teacher: Teacher,
    tiny_student: Student,
    tiny_dreams: DreamSet,
    tmp_path: Path,
    recovered_in_two_goes: Callable[..., tuple[Recovery, list[int]]],
) -> None:
    section, checkpoint = ReconstructionSection(), FolderCheckpoint(tmp_path)
    whole = recover(tiny_teacher, tiny_student, tiny_dreams, section, seed=0)
    resumed, seen = recovered_in_two_goes(section, checkpoint)
    assert seen == list(range(3, len(tiny_student.mask.keep) + 1))
    for name, tensor in whole.recovered.network.state_dict().items():
        assert torch.equal(resumed.recovered.network.state_dict()[name], tensor), name
    assert resumed.metrics == whole.metrics


def test_a_finished_reconstruction_solves_nothing_again(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    metrics = [
        recover(
            tiny_teacher,
            tiny_student,
            tiny_dreams,
            ReconstructionSection(),
            seed=0,
            checkpoint=FolderCheckpoint(tmp_path),
            report=seen.append,
        ).metrics
        for _ in range(2)
    ]
    assert metrics[0] == metrics[1]
    assert len(seen) == len(tiny_student.mask.keep)


def test_distillation_can_start_from_the_solved_layers(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    standing_still = DistillationSection(start="reconstructed", learning_rate=1e-12, epochs=1, precision="float32")
    solved, started = (
        recover(tiny_teacher, tiny_student, tiny_dreams, section, seed=0).recovered.network.state_dict()
        for section in (ReconstructionSection(), standing_still)
    )
    for name, tensor in solved.items():
        assert torch.allclose(tensor, started[name], atol=1e-7), name
