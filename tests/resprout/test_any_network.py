"""Networks as people write them go through every stage; what they do beside computing logits is settled once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resprout.batchnorm import capture_moments, mean_moments
from resprout.classifier import classifier, laid_out
from resprout.hooks import each_use
from resprout.pruning import prune
from resprout.recipe import (
    DeepInversionSection,
    DistillationSection,
    LampSection,
    OptimalBrainSection,
    ReconstructionSection,
)
from resprout.recovery import recover, repair
from resprout.statistics import extract
from resprout.synthesis import synthesize
from resprout.types import DreamSet, InputSpec, ModelInfo, Teacher
from tests.resprout import any_networks as kinds

CPU = torch.device("cpu")
SPEC = InputSpec((3, 16, 16), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SYNTHESIS = DeepInversionSection(num_images=16, num_held_out=8, group_size=8, iterations=3, precision="float32")
RECOVERY = DistillationSection(epochs=2, batch_size=4, precision="float32", start="repaired", keep="last")


def teacher_of(kind: Any, *, channels_last: bool = True) -> Teacher:
    torch.manual_seed(0)
    network = kinds.trained(kind(4))
    return Teacher(ModelInfo("own", 4, SPEC, ("a", "b", "c", "d"), channels_last=channels_last), network)


def idle_weights(teacher: Teacher) -> tuple[str, ...]:
    layers = {name: each for name, each in teacher.network.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)}
    with each_use(teacher.network, layers, lambda *_: None) as uses:
        teacher.network(torch.zeros(2, *SPEC.shape))
    return tuple(f"{name}.weight" for name in layers if name not in uses)


def dreams_of(teacher: Teacher) -> DreamSet:
    return synthesize(teacher, extract(teacher), SYNTHESIS, seed=0, devices=[CPU])


@pytest.mark.parametrize(
    "kind",
    [
        kinds.Chain,
        kinds.Cube,
        kinds.Auxiliary,
        kinds.Named,
        kinds.Wrapped,
        kinds.Namespace,
        kinds.Dictionary,
        kinds.Squeezing,
        kinds.Convolving,
        kinds.Resolutions,
        kinds.Skipping,
        kinds.Shared,
        kinds.Changing,
        kinds.Counting,
        kinds.Gated,
    ],
)
def test_it_goes_through_every_stage(kind: Any) -> None:
    teacher = teacher_of(kind)
    dreams = dreams_of(teacher)
    for section in (LampSection(sparsity=0.5), OptimalBrainSection(sparsity=0.5, exclude=idle_weights(teacher))):
        student = prune(teacher, section, seed=0, dreams=dreams, device=CPU)
        assert student.mask.sparsity == pytest.approx(0.5, abs=0.01)
    for recovery in (RECOVERY, ReconstructionSection()):
        recovered = recover(teacher, student, dreams, recovery, seed=0, device=CPU).recovered
        assert torch.isfinite(recovered.network(torch.zeros(1, *SPEC.shape))).all()


def test_one_that_wants_contiguous_features_gets_them_everywhere() -> None:
    teacher = teacher_of(kinds.Viewing, channels_last=False)
    dreams = dreams_of(teacher)
    student = prune(teacher, LampSection(sparsity=0.5), seed=0)
    assert recover(teacher, student, dreams, RECOVERY, seed=0, device=CPU).curves


def test_a_layer_that_no_image_reaches_keeps_its_statistics() -> None:
    teacher = teacher_of(kinds.Idle)
    before = copy.deepcopy(teacher.network.projector[1].running_var.fill_(2.0))
    dreams = dreams_of(teacher)
    student = prune(teacher, LampSection(sparsity=0.5), seed=0)
    recovered = recover(teacher, student, dreams, RECOVERY, seed=0, device=CPU)
    for each in (recovered.repaired, recovered.recovered):
        assert torch.equal(each.network.projector[1].running_var, before)


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (3, 3, 16, 16)])
@pytest.mark.parametrize(
    "kind",
    [kinds.Auxiliary, kinds.Named, kinds.Wrapped, kinds.Namespace, kinds.Dictionary, kinds.Squeezing, kinds.Convolving],
)
def test_the_main_logits_are_what_it_returns_in_both_modes(kind: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = kinds.trained(kind(4))
    images = torch.randn(shape)
    expected = network.fc(network.features(images).mean((2, 3), keepdim=kind is kinds.Convolving)).flatten(1)
    classifier(network, 4, channels_last=False)
    for training in (False, True):
        network.training = training  # its layers stay as they are
        assert torch.equal(network(images), expected)


def test_images_that_it_changes_in_place_are_its_own() -> None:
    found = []
    for kind in (kinds.Changing, kinds.Copying):
        teacher = teacher_of(kind)
        dreams = dreams_of(teacher)
        student = prune(teacher, LampSection(sparsity=0.5), seed=0)
        result = recover(teacher, student, dreams, RECOVERY, seed=0, device=CPU)
        found.append((dreams.images, result.curves["train_kl"], result.recovered.network(torch.zeros(1, *SPEC.shape))))
    for changing, copying in zip(*found, strict=True):
        assert torch.equal(changing, copying)


def test_a_layer_that_is_used_several_times_has_the_statistics_of_all_its_uses() -> None:
    teacher = teacher_of(kinds.Shared)
    images = torch.randn(128, *SPEC.shape, generator=torch.Generator().manual_seed(1))
    norm = copy.deepcopy(teacher.network.norm).train()
    norm.momentum = None  # what torch itself keeps: the mean over all uses
    norm.reset_running_stats()
    taken: list[Tensor] = []
    handle = teacher.network.norm.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    with capture_moments(teacher.network) as moments:
        teacher.network(images)
    handle.remove()
    for each in taken:
        norm(each)
    assert len(moments["norm"]) == 3
    pooled = mean_moments(moments["norm"])
    torch.testing.assert_close(pooled.mean, norm.running_mean)
    torch.testing.assert_close(pooled.variance, norm.running_var, rtol=1e-3, atol=1e-4)  # torch's is unbiased


def test_statistics_that_are_estimated_anew_on_the_same_images_keep_the_answers() -> None:
    torch.manual_seed(0)
    network = kinds.Shared(4)
    images = torch.randn(256, *SPEC.shape, generator=torch.Generator().manual_seed(1))
    for each in network.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.momentum = None
    with torch.no_grad():
        network.train()(images)
    info = ModelInfo("own", 4, SPEC, ("a", "b", "c", "d"))
    teacher = Teacher(info, network.eval().requires_grad_(False))
    student = prune(teacher, LampSection(sparsity=0.01), seed=0)
    student.network.load_state_dict(teacher.network.state_dict())
    dreams = DreamSet(images.half(), torch.zeros(256, dtype=torch.int64), 0, 4)
    again = repair(student, dreams, CPU).network(images)
    assert (again.argmax(1) == network(images).argmax(1)).float().mean() > 0.97


def test_weights_lie_as_images_come() -> None:
    for wanted in (True, False):
        network = classifier(kinds.Chain(4), 4, channels_last=wanted)
        assert network.features[0][0].weight.is_contiguous()
        seen: list[Tensor] = []
        network.features.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        network(torch.zeros(2, 3, 16, 16))
        weight = laid_out(network).features[0][0].weight
        assert seen[0].is_contiguous(memory_format=torch.channels_last) == wanted
        assert weight.is_contiguous(memory_format=torch.channels_last) == wanted
