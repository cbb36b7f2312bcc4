from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn import functional

from resprout import models, recipe
from resprout.batchnorm import batch_norm_layers
from resprout.checkpoints import FolderCheckpoint
from resprout.errors import ArtifactError, RecipeError
from resprout.heldout import with_blends
from resprout.masking import apply_mask
from resprout.precision import sound_gradients
from resprout.recipe import DistillationSection, PaperRecoverySection, RecoverySection
from resprout.recovery import METHODS, Recovery, recover, repair
from resprout.recovery.augmentation import augment
from resprout.recovery.calibration import reestimate
from resprout.recovery.distillation import kl_divergence
from resprout.recovery.features import block_names, capture_features, feature_distance
from resprout.seeding import generator as seeded
from resprout.types import DreamSet, PruningMask, Student, Teacher

SHORT = DistillationSection(epochs=3, batch_size=32, start="repaired", precision="float32")


def _agreement(teacher: Teacher, student: Student, images: torch.Tensor) -> float:
    return float((teacher.network(images).argmax(1) == student.network(images).argmax(1)).float().mean())


@pytest.mark.parametrize("section", [SHORT, SHORT.model_copy(update={"optimizer": "sgd"}), PaperRecoverySection()])
def test_recovery_never_revives_a_pruned_weight(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet, section: DistillationSection
) -> None:
    result = recover(tiny_teacher, tiny_student, tiny_dreams, section, seed=0)
    parameters = dict(result.recovered.network.named_parameters())
    for name, kept in tiny_student.mask.keep.items():
        pruned = parameters[name][~kept]
        assert torch.equal(pruned.view(torch.int32), torch.zeros_like(pruned, dtype=torch.int32)), "not even -0.0"
    assert result.recovered.mask is tiny_student.mask


def test_recovery_brings_agreement_back(tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet) -> None:
    section = SHORT.model_copy(update={"epochs": 8, "jitter": 1})
    result = recover(tiny_teacher, tiny_student, tiny_dreams, section, seed=0)
    images = tiny_dreams.held_out[0].float()
    before = _agreement(tiny_teacher, tiny_student, images)
    assert before < 0.9, "the test needs a student that pruning hurt"
    assert _agreement(tiny_teacher, result.recovered, images) > before + 0.05


def test_inputs_of_recovery_are_left_as_they_were(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    before = [copy.deepcopy(network.state_dict()) for network in (tiny_teacher.network, tiny_student.network)]
    recover(tiny_teacher, tiny_student, tiny_dreams, SHORT, seed=0)
    for network, state in zip((tiny_teacher.network, tiny_student.network), before, strict=True):
        assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_interrupted_recovery_resumes_to_the_same_bits(
    tiny_teacher: Teacher,
    tiny_student: Student,
    tiny_dreams: DreamSet,
    tmp_path: Path,
    optimizer: str,
    recovered_in_two_goes: Callable[..., tuple[Recovery, list[int]]],
) -> None:
    section = SHORT.model_copy(update={"epochs": 4, "optimizer": optimizer, "mixup": 1.0})
    whole = recover(tiny_teacher, tiny_student, tiny_dreams, section, seed=0)
    resumed, seen = recovered_in_two_goes(section, FolderCheckpoint(tmp_path))
    assert seen == [2, 3, 4]  # where it goes on, then what it did
    for name, tensor in whole.recovered.network.state_dict().items():
        assert torch.equal(resumed.recovered.network.state_dict()[name], tensor), name
    assert all(torch.equal(resumed.curves[name], curve) for name, curve in whole.curves.items())


def test_the_papers_recipe_leaves_batch_norm_frozen(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    result = recover(tiny_teacher, tiny_student, tiny_dreams, PaperRecoverySection(), seed=0)
    before = batch_norm_layers(tiny_student.network)
    for name, layer in batch_norm_layers(result.recovered.network).items():
        assert torch.equal(layer.running_mean, before[name].running_mean)
        assert torch.equal(layer.running_var, before[name].running_var)
    assert len(result.curves["train_kl"]) == 15


def test_the_papers_recipe_is_what_it_is_by_hand_to_the_bit(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    network = copy.deepcopy(tiny_student.network).to(memory_format=torch.channels_last).requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    draws, images = seeded(0, "recovery"), tiny_dreams.training[0].float()
    with sound_gradients(network):
        for _ in range(15):
            for chosen in torch.randperm(len(images), generator=draws).tensor_split(max(1, len(images) // 32)):
                views = images[chosen].contiguous(memory_format=torch.channels_last)
                loss = kl_divergence(network(views), tiny_teacher.network(views).detach(), 3.0)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                apply_mask(network, tiny_student.mask)
    result = recover(tiny_teacher, tiny_student, tiny_dreams, PaperRecoverySection(), seed=0)
    for name, tensor in result.recovered.network.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name


def test_the_epoch_with_the_lowest_held_out_kl_is_kept(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    # a constant, too large step makes the last epoch worse than the one before it
    section = SHORT.model_copy(update={"epochs": 5, "learning_rate": 0.02, "schedule": "constant", "warmup": 0.0})
    result = recover(tiny_teacher, tiny_student, tiny_dreams, section, seed=0)
    assert 0 < int(result.curves["held_out_kl"].argmin()) < 4
    images = with_blends(tiny_dreams.held_out[0])
    kl = float(kl_divergence(result.recovered.network(images), tiny_teacher.network(images), 1.0))
    assert kl == pytest.approx(float(result.curves["held_out_kl"].min()), rel=1e-4)


def test_a_start_that_no_epoch_improves_on_is_kept(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    harmful = SHORT.model_copy(update={"learning_rate": 1.0, "schedule": "constant", "warmup": 0.0})
    result = recover(tiny_teacher, tiny_student, tiny_dreams, harmful, seed=0)
    started = result.repaired.network.state_dict()
    for name, tensor in result.recovered.network.state_dict().items():
        assert torch.equal(tensor, started[name]), name


def test_without_held_out_dreams_the_last_epoch_is_kept(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    dreams = replace(tiny_dreams, num_held_out=0)
    last = SHORT.model_copy(update={"keep": "last"})
    results = [recover(tiny_teacher, tiny_student, dreams, section, seed=0) for section in (SHORT, last)]
    assert sorted(results[0].curves) == ["train_features", "train_kl"]
    states = [result.recovered.network.state_dict() for result in results]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_dreams_of_another_shape_are_refused(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    small = DreamSet(tiny_dreams.images[:, :, :8, :8].contiguous(), tiny_dreams.targets, 0, 4)
    with pytest.raises(ArtifactError, match=r"\[3, 8, 8\].*\[3, 16, 16\]"):
        recover(tiny_teacher, tiny_student, small, SHORT, seed=0)


def test_kl_divergence_matches_torch_and_vanishes_for_twins() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 7, generator=generator)
    expected = functional.kl_div((student / 3).log_softmax(1), (teacher / 3).softmax(1), reduction="batchmean") * 9
    torch.testing.assert_close(kl_divergence(student, teacher, 3.0), expected)
    assert kl_divergence(teacher, teacher, 3.0).item() == pytest.approx(0, abs=1e-6)
    softened = torch.distributions.Categorical(logits=teacher), torch.distributions.Categorical(logits=student)
    torch.testing.assert_close(
        kl_divergence(student, teacher, 1.0), torch.distributions.kl_divergence(*softened).mean()
    )


def test_reestimated_statistics_are_those_of_the_whole_set() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.ReLU())
    network.eval()
    contrast = torch.arange(1.0, 51).view(-1, 1, 1, 1)
    images = torch.randn(50, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * contrast
    reestimate(network, images, batch_size=16)
    variance, mean = torch.var_mean(images.double(), dim=(0, 2, 3), unbiased=False)
    torch.testing.assert_close(network[0].running_mean.double(), mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network[0].running_var.double(), variance, atol=1e-2, rtol=1e-4)
    assert network[0].momentum == 0.3
    assert not network[0].training


def test_repair_changes_statistics_and_nothing_else(tiny_student: Student, tiny_dreams: DreamSet) -> None:
    repaired = repair(tiny_student, tiny_dreams)
    before, after = tiny_student.network.state_dict(), repaired.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.rsplit(".", 1)[1] in ("running_mean", "running_var") for name in changed)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("cifar_resnet20", [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]),
        ("densenet121", [f"features.denseblock{n}" for n in (1, 2, 3, 4)]),
        ("mobilenet_v2", [f"features.{n}" for n in range(19)]),
    ],
)
def test_blocks_are_found_without_knowing_the_architecture(architecture: str, expected: list[str]) -> None:
    network = models.build(architecture, num_classes=10)
    found = block_names(network)
    assert set(expected) <= set(found)
    assert len(found) <= len(expected) + 3  # DenseNet's transitions are blocks too


def test_a_plain_chain_is_matched_at_its_batch_norm_layers() -> None:
    chain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    assert block_names(chain) == ["1", "4"]


def test_feature_distance_is_relative_and_zero_for_twins(tiny_teacher: Teacher, tiny_student: Student) -> None:
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    names = block_names(tiny_teacher.network)
    with capture_features(tiny_teacher.network, names) as teacher:
        tiny_teacher.network(images)
    with capture_features(tiny_student.network, names) as student:
        tiny_student.network(images)
    distance = feature_distance(student, teacher)
    assert distance > 0
    assert feature_distance(teacher, teacher) == 0
    scaled = [{name: 5 * value for name, value in features.items()} for features in (student, teacher)]
    torch.testing.assert_close(feature_distance(*scaled), distance)


def test_feature_distance_has_the_gradient_that_autograd_finds() -> None:
    generator = torch.Generator().manual_seed(3)
    student = {name: torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64) for name in "ab"}
    teacher = {name: torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64) for name in "ab"}

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return feature_distance({"a": a, "b": b}, teacher)

    features = tuple(feature.requires_grad_() for feature in student.values())
    assert torch.autograd.gradcheck(distance, features)
    plain = [(student[name] - teacher[name]).square().mean() / teacher[name].square().mean() for name in "ab"]
    torch.testing.assert_close(distance(*features), torch.stack(plain).mean())


def _an_epoch_by_hand(
    network: nn.Module, mask: PruningMask, teacher: Teacher, dreams: DreamSet, weights: dict[str, float]
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-4, fused=True)
    draws = seeded(0, "recovery")
    images, labels = dreams.training
    blocks = block_names(network)
    views_of = {"jitter": 4, "flip": True, "mixup": 1.0, "zoom": 1.3, "rotation": 10.0, "cutmix": 0.5}
    for chosen in torch.randperm(len(images), generator=draws).tensor_split(len(images) // 32):
        one_hot = torch.eye(dreams.num_classes)[labels[chosen]]
        views, targets = augment(images[chosen].float(), one_hot, **views_of, generator=draws)
        views = views.contiguous(memory_format=torch.channels_last)
        with capture_features(teacher.network, blocks) as wanted, capture_features(network, blocks) as found:
            answers, logits = teacher.network(views), network(views)
            loss = kl_divergence(logits, answers, 16.0) + weights.get("feature_weight", 5.0) * feature_distance(
                found, {name: feature.detach() for name, feature in wanted.items()}
            )
        if weights:
            loss = loss + weights["target_weight"] * functional.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        apply_mask(network, mask)


@pytest.mark.parametrize("weights", [{}, {"target_weight": 0.7, "feature_weight": 2.0}])
def test_an_epoch_is_what_it_is_by_hand_to_the_bit(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet, weights: dict[str, float]
) -> None:
    fields = {"epochs": 1, "batch_size": 32, "schedule": "constant", "warmup": 0.0, "start": "pruned", "keep": "last"}
    section = DistillationSection.model_validate({**fields, "precision": "float32", **weights})
    result = recover(tiny_teacher, tiny_student, tiny_dreams, section, seed=0)
    network = copy.deepcopy(tiny_student.network).to(memory_format=torch.channels_last).requires_grad_(True).train()
    with sound_gradients(network):
        _an_epoch_by_hand(network, tiny_student.mask, tiny_teacher, tiny_dreams, weights)
    by_hand = network.state_dict()
    for name, tensor in result.recovered.network.state_dict().items():
        assert torch.equal(tensor, by_hand[name]), name
    assert ("train_target" in result.curves) == bool(weights)


def test_what_dreams_are_for_counts_for_nothing_unless_it_is_asked_for(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    mislabelled = replace(tiny_dreams, targets=(tiny_dreams.targets + 1) % 4)
    plain, asked = SHORT.model_copy(update={"epochs": 1}), SHORT.model_copy(update={"epochs": 1, "target_weight": 1.0})
    states = {
        (section.target_weight, dreams is mislabelled): recover(tiny_teacher, tiny_student, dreams, section, seed=0)
        for section in (plain, asked)
        for dreams in (tiny_dreams, mislabelled)
    }
    weights = {key: result.recovered.network.get_parameter("conv1.weight") for key, result in states.items()}
    assert torch.equal(weights[0, False], weights[0, True])
    assert not torch.equal(weights[1, False], weights[1, True])


def test_labels_alone_retrain_a_student_without_its_teacher(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    labels_alone = {"distillation_weight": 0.0, "feature_weight": 0.0, "target_weight": 1.0}
    section = SHORT.model_copy(update={"epochs": 4, "start": "pruned", "keep": "last", "jitter": 1, **labels_alone})
    stranger = replace(tiny_teacher, network=copy.deepcopy(tiny_teacher.network))
    for weight in stranger.network.parameters():
        weight.data.mul_(-1)
    known, unknown = (recover(of, tiny_student, tiny_dreams, section, seed=0) for of in (tiny_teacher, stranger))
    for name, tensor in known.recovered.network.state_dict().items():
        assert torch.equal(tensor, unknown.recovered.network.state_dict()[name]), name
    images, labels = tiny_dreams.held_out
    right = [
        float((network(images.float()).argmax(1) == labels).float().mean())
        for network in (tiny_student.network, known.recovered.network)
    ]
    assert right[1] > right[0] + 0.05


def test_recovery_that_minimises_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="all 0"):
        recipe.section("recovery", {"distillation_weight": 0, "feature_weight": 0})
    assert recipe.section("recovery", {"distillation_weight": 0, "feature_weight": 0, "target_weight": 1})


def test_recovery_knows_every_method_of_the_recipe() -> None:
    sections = get_args(get_args(RecoverySection)[0])
    assert {section.model_fields["method"].default for section in sections} == set(METHODS)
