"""What pruning finds gone or out of reach: zeros of a sparse teacher, weights that no image reaches."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune as torch_prune

from resprout import artifacts, recipe
from resprout.errors import RecipeError, UnsupportedModelError
from resprout.pruning import METHODS, prune
from resprout.pruning.candidates import reached_weights
from resprout.recipe import DistillationSection, ReconstructionSection
from resprout.recovery import recover
from resprout.rounds import prune_on_dreams
from resprout.types import DreamSet, Teacher

MASKING = sorted({*METHODS} - {"semi_structured"})
SHORT = DistillationSection(epochs=2, batch_size=64)


def section(method: str, sparsity: float = 0.5, **fields: Any) -> Any:
    extra = {"training_steps": 5} if method == "teacher_guided" else {}
    return recipe.section("pruning", {"method": method, "sparsity": sparsity, **extra, **fields})


def few(dreams: DreamSet) -> DreamSet:
    return dataclasses.replace(dreams, images=dreams.images[-96:], targets=dreams.targets[-96:])


def sparse(teacher: Teacher, share: float) -> Teacher:
    """The teacher after torch's own pruning, each layer alike."""
    for layer in teacher.network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            torch_prune.l1_unstructured(layer, "weight", share)
            torch_prune.remove(layer, "weight")
    teacher.network.requires_grad_(False)
    return teacher


class WithIdleLayers(nn.Module):
    """A network with a projector, an auxiliary head that runs to no end, and weights that are used from outside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.projector = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        self.auxiliary = nn.Linear(4, 2)
        self.functional = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        images = functional.conv2d(images, self.functional.weight - self.functional.weight.mean(), padding=1)
        logits = self.network(images)
        self.auxiliary(logits)
        return logits + self.attention(logits[None], logits[None], logits[None])[0][0]


@pytest.fixture
def partly_idle(tiny_teacher: Teacher) -> Teacher:
    torch.manual_seed(0)
    network = WithIdleLayers(tiny_teacher.network).eval().requires_grad_(False)
    return dataclasses.replace(tiny_teacher, network=network)


IDLE = {"projector.0.weight", "projector.2.weight", "auxiliary.weight"}


@pytest.mark.parametrize("method", MASKING)
def test_weights_that_no_image_reaches_stay_and_do_not_count(
    method: str, partly_idle: Teacher, tiny_dreams: DreamSet
) -> None:
    student = prune(partly_idle, section(method), seed=0, dreams=few(tiny_dreams))
    maskable = {name for name, weight in partly_idle.network.named_parameters() if weight.ndim > 1}
    assert set(student.mask.keep) == maskable - IDLE - {"attention.in_proj_weight"}
    assert {"functional.weight", "attention.out_proj.weight"} <= set(student.mask.keep)
    assert student.notes == (
        "not pruned, since no image reaches it: projector.0.weight, projector.2.weight, auxiliary.weight",
    )
    for name in IDLE:
        assert torch.equal(student.network.get_parameter(name), partly_idle.network.get_parameter(name))


def test_an_exclusion_may_name_what_no_image_reaches(partly_idle: Teacher) -> None:
    assert prune(partly_idle, section("lamp", exclude=["projector.*"]), seed=0)
    with pytest.raises(RecipeError, match="nothing is left to prune"):
        prune(partly_idle, section("lamp", exclude=["network.*", "functional.*", "attention.*"]), seed=0)


def test_looking_for_what_images_reach_changes_nothing(partly_idle: Teacher) -> None:
    before = {name: value.clone() for name, value in partly_idle.network.state_dict().items()}
    state = torch.get_rng_state()
    reached = reached_weights(partly_idle.network, partly_idle.info.input.shape)
    assert not reached & IDLE
    assert torch.equal(state, torch.get_rng_state())
    for name, parameter in partly_idle.network.named_parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None, name
    assert all(torch.equal(value, before[name]) for name, value in partly_idle.network.state_dict().items())


def test_a_block_that_training_skips_at_random_counts_as_reached() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, images: Tensor) -> Tensor:
            first = self.first(images)
            return first if self.training else first + self.second(first)

    assert reached_weights(Skips().train(), (3,)) == {"first.weight", "second.weight"}


class Experts(nn.Module):
    """Sends each image to one of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.route, self.last = nn.Linear(8, 4), nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, images: Tensor) -> Tensor:
        found = self.norm(self.first(images)).relu().mean((2, 3))
        share, chosen = self.route(found).softmax(1).max(1)
        mixed = [self.experts[int(expert)](each) for expert, each in zip(chosen, found, strict=True)]
        return cast(Tensor, self.last(share[:, None] * torch.stack(mixed)))


@pytest.mark.parametrize("method", MASKING)
def test_layers_that_only_some_images_reach_end_no_criterion(
    method: str, tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    torch.manual_seed(1)
    teacher = dataclasses.replace(tiny_teacher, network=Experts().eval().requires_grad_(False))
    student = prune(teacher, section(method), seed=0, dreams=few(tiny_dreams))
    assert student.mask.sparsity == pytest.approx(0.5, abs=0.05)
    assert {"first.weight", "route.weight", "last.weight"} <= set(student.mask.keep)


def test_a_network_whose_only_layers_are_out_of_reach_is_refused(partly_idle: Teacher) -> None:
    class Projects(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.projector = nn.Parameter(torch.ones(1)), nn.Linear(3, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.scale * images.mean((2, 3))

    teacher = dataclasses.replace(partly_idle, network=Projects().eval())
    with pytest.raises(UnsupportedModelError, match="no answer depends on the weights"):
        prune(teacher, section("lamp"), seed=0)


@pytest.mark.parametrize("method", MASKING)
def test_a_sparse_teachers_zeros_stay_and_count(method: str, tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    teacher = sparse(tiny_teacher, 0.4)
    fields = {"shape": [1, 1]} if method == "block" else {}
    student = prune(teacher, section(method, 0.7, **fields), seed=0, dreams=few(tiny_dreams))
    assert student.mask.sparsity == pytest.approx(0.7, abs=1e-3)
    for name, kept in student.mask.keep.items():
        assert not (kept & (teacher.network.get_parameter(name) == 0)).any(), name
    (note,) = student.notes
    assert note == "40.0 % of the teacher's weights are zero already, and stay so"


@pytest.mark.parametrize("method", MASKING)
def test_nothing_more_goes_from_a_teacher_that_is_sparser_than_asked(
    method: str, tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    teacher = sparse(tiny_teacher, 0.8)
    student = prune(teacher, section(method, 0.5), seed=0, dreams=few(tiny_dreams))
    for name, kept in student.mask.keep.items():
        assert torch.equal(kept, teacher.network.get_parameter(name) != 0), name
    assert student.notes == ("the teacher is sparser (80.0 %) than asked (50 %): its zeros stay, nothing more goes",)


@pytest.mark.parametrize("recovery", [SHORT, ReconstructionSection()])
def test_recovery_revives_no_zero_of_a_sparse_teacher_nor_of_a_layer_that_is_excluded(
    recovery: Any, tiny_teacher: Teacher, tiny_dreams: DreamSet, tmp_path: Path
) -> None:
    teacher = sparse(tiny_teacher, 0.3)
    zeros = {name: weight == 0 for name, weight in teacher.network.named_parameters() if weight.ndim > 1}
    student = prune(teacher, section("lamp", 0.6, exclude=["fc.*"]), seed=0)
    assert torch.equal(student.mask.keep["fc.weight"], ~zeros["fc.weight"])
    recovered = recover(teacher, student, few(tiny_dreams), recovery, seed=0).recovered
    artifacts.save_student(recovered, tmp_path / "student", kind="recovered")
    loaded = artifacts.load_student(tmp_path / "student")
    assert loaded.notes == student.notes != ()
    for name, zero in zeros.items():
        assert (loaded.network.get_parameter(name)[zero] == 0).all(), name


def test_rounds_go_on_from_a_sparse_teacher(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    teacher, dreams = sparse(tiny_teacher, 0.6), few(tiny_dreams)
    for asked, expected in ((0.7, 0.7), (0.5, 0.6)):
        rounds = section("lamp", asked, rounds=3, round_epochs=1, exclude=["fc.*"])
        student = prune_on_dreams(teacher, dreams, rounds, SHORT, seed=0).student
        covered = [kept for name, kept in student.mask.keep.items() if name != "fc.weight"]
        gone = sum(int((~kept).sum()) for kept in covered) / sum(kept.numel() for kept in covered)
        assert gone == pytest.approx(expected, abs=1e-3)


def test_a_sparse_teacher_in_groups_keeps_its_zeros_and_loses_the_pattern(tiny_teacher: Teacher) -> None:
    teacher = sparse(tiny_teacher, 0.3)
    student = prune(teacher, recipe.section("pruning", {"method": "semi_structured"}), seed=0)
    for name, kept in student.mask.keep.items():
        assert not (kept & (teacher.network.get_parameter(name) == 0)).any(), name
        if name != "conv1.weight":
            assert float(kept.float().mean()) <= 0.5
    assert student.notes == ("30.0 % of the teacher's weights are zero already, and stay so",)
    assert "conv1.weight" in student.mask.keep, "held, though its 3 channels make no group"


def test_channels_of_a_sparse_teacher_go_and_its_zeros_stay(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    teacher = sparse(tiny_teacher, 0.5)
    fields = {"method": "structured", "channel_ratio": 0.5, "round_to": 2}
    student = prune(teacher, recipe.section("pruning", fields), seed=0)
    zeros = {name: student.network.get_parameter(name) == 0 for name in student.mask.keep}
    recovered = recover(teacher, student, few(tiny_dreams), SHORT, seed=0).recovered
    for name, zero in zeros.items():
        assert zero.any()
        assert (recovered.network.get_parameter(name)[zero] == 0).all(), name
    assert student.notes


def test_a_few_zeros_do_not_make_a_teacher_sparse(tiny_teacher: Teacher) -> None:
    weight = tiny_teacher.network.get_parameter("layer3.0.conv2.weight")
    weight.view(-1)[-20:] = 0  # of some 19,000 in all
    student = prune(tiny_teacher, section("random", 0.5), seed=0)
    assert student.notes == ()
    assert student.mask.keep["layer3.0.conv2.weight"].view(-1)[-20:].any()
