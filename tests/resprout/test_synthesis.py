from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resprout import statistics as bn_statistics
from resprout.batchnorm import capture_moments
from resprout.checkpoints import FolderCheckpoint
from resprout.errors import ArtifactError, DivergedError, RecipeError
from resprout.progress import Progress
from resprout.recipe import DeepInversionSection, ImagesSection, PaperSynthesisSection, SynthesisSection
from resprout.synthesis import METHODS, merge, synthesize, synthesize_shard
from resprout.synthesis.groups import notes_on, plan, shard
from resprout.synthesis.losses import matched, normalised_batch_norm_distance, total_variation
from resprout.types import BNStatistics, DreamSet, Teacher

SMALL = DeepInversionSection(num_images=24, num_held_out=8, group_size=8, iterations=4, precision="float32")


@pytest.fixture
def statistics(tiny_teacher: Teacher) -> BNStatistics:
    return bn_statistics.extract(tiny_teacher)


def _distance(teacher: Teacher, statistics: BNStatistics, images: torch.Tensor) -> float:
    with torch.no_grad(), capture_moments(teacher.network) as moments:
        teacher.network(images)
    return float(normalised_batch_norm_distance(*matched(moments, statistics)))


def test_dreams_carry_the_teachers_statistics_and_the_classes_asked_for(
    tiny_teacher: Teacher, statistics: BNStatistics
) -> None:
    # a teacher this small is sure of nothing: it takes more of the target loss than the default
    section = DeepInversionSection(num_images=32, num_held_out=0, group_size=32, iterations=80, target_weight=1.0)
    dreams = synthesize(tiny_teacher, statistics, section, seed=0)
    noise = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = dreams.images.float()
    assert _distance(tiny_teacher, statistics, images) < 0.5 * _distance(tiny_teacher, statistics, noise)
    agreement = (tiny_teacher.network(images).argmax(1) == dreams.targets).float().mean()
    assert agreement > 0.9


def test_targets_are_balanced_and_every_dream_is_a_possible_image(
    tiny_teacher: Teacher, statistics: BNStatistics
) -> None:
    dreams = synthesize(tiny_teacher, statistics, SMALL, seed=3)
    assert dreams.targets.bincount().tolist() == [8, 8, 8, 8]
    assert dreams.num_held_out == 8
    pixels = dreams.images.float() * torch.tensor(tiny_teacher.info.input.std).view(3, 1, 1)
    pixels = pixels + torch.tensor(tiny_teacher.info.input.mean).view(3, 1, 1)
    assert pixels.min() > -1e-2
    assert pixels.max() < 1 + 1e-2


@pytest.mark.parametrize("num_shards", [2, 3, 4])
def test_the_number_of_shards_never_changes_a_dream(
    tiny_teacher: Teacher, statistics: BNStatistics, num_shards: int
) -> None:
    whole = synthesize(tiny_teacher, statistics, SMALL, seed=1)
    parts = [
        synthesize_shard(tiny_teacher, statistics, SMALL, seed=1, shard_index=index, num_shards=num_shards)
        for index in range(num_shards)
    ]
    merged = merge(parts[::-1])
    assert torch.equal(merged.images, whole.images)
    assert torch.equal(merged.targets, whole.targets)
    assert merged.num_held_out == whole.num_held_out
    assert all(torch.equal(merged.curves[name], curve) for name, curve in whole.curves.items())
    with pytest.raises(ArtifactError, match="not each of 4 once"):
        merge(parts[1:])


def test_a_seed_repeats_and_another_differs(tiny_teacher: Teacher, statistics: BNStatistics) -> None:
    first, again, other = (synthesize(tiny_teacher, statistics, SMALL, seed=seed).images for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:8], first[8:16]), "groups must not repeat each other"


class _StoppedError(Exception):
    pass


def test_an_interrupted_synthesis_resumes_to_the_same_bytes_without_redoing_finished_groups(
    tiny_teacher: Teacher, statistics: BNStatistics, tmp_path: Path
) -> None:
    whole = synthesize(tiny_teacher, statistics, SMALL, seed=2)
    checkpoint = FolderCheckpoint(tmp_path)

    def stop_in_the_third_group(progress: Progress) -> None:
        if progress.done > 2 * SMALL.iterations:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        synthesize(tiny_teacher, statistics, SMALL, seed=2, checkpoint=checkpoint, report=stop_in_the_third_group)
    seen: list[Progress] = []
    resumed = synthesize(tiny_teacher, statistics, SMALL, seed=2, checkpoint=checkpoint, report=seen.append)
    assert torch.equal(resumed.images, whole.images)
    assert all(torch.equal(resumed.curves[name], curve) for name, curve in whole.curves.items())
    assert (seen[0].resumed, seen[0].done) == (True, 2 * SMALL.iterations)
    assert min(it.done for it in seen[1:]) > 2 * SMALL.iterations
    assert not any(it.resumed for it in seen[1:])


def test_a_checkpoint_of_another_seed_or_section_is_never_used(
    tiny_teacher: Teacher, statistics: BNStatistics, tmp_path: Path
) -> None:
    checkpoint = FolderCheckpoint(tmp_path)
    synthesize(tiny_teacher, statistics, SMALL, seed=0, checkpoint=checkpoint)
    longer = SMALL.model_copy(update={"iterations": 5})
    for section, seed in ((SMALL, 1), (longer, 0)):
        fresh = synthesize(tiny_teacher, statistics, section, seed=seed)
        assert torch.equal(
            synthesize(tiny_teacher, statistics, section, seed=seed, checkpoint=checkpoint).images, fresh.images
        )


def test_the_teacher_is_left_as_it_was(tiny_teacher: Teacher, statistics: BNStatistics) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_teacher.network.state_dict().items()}
    synthesize(tiny_teacher, statistics, SMALL, seed=0)
    after = tiny_teacher.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in tiny_teacher.network.children())


def test_total_variation_weight_makes_smoother_dreams(tiny_teacher: Teacher, statistics: BNStatistics) -> None:
    def roughness(weight: float) -> float:
        section = SMALL.model_copy(update={"iterations": 20, "total_variation_weight": weight})
        return float(total_variation(synthesize(tiny_teacher, statistics, section, seed=0).images.float()).mean())

    assert roughness(1e-2) < 0.7 * roughness(0.0)


def test_a_channel_that_was_constant_in_training_does_not_keep_the_others_from_being_matched(
    tiny_teacher: Teacher,
) -> None:
    section = SMALL.model_copy(update={"num_images": 16, "num_held_out": 0, "group_size": 16, "iterations": 30})

    def distances() -> torch.Tensor:
        return synthesize(tiny_teacher, bn_statistics.extract(tiny_teacher), section, seed=0).curves["bn"][[0, -1]]

    without = distances()
    layers = [module for module in tiny_teacher.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    layers[-1].running_var[:3] = 0.0
    torch.testing.assert_close(distances(), without, rtol=0.25, atol=0.0)


def test_the_papers_recipe_runs_in_batches_of_32_and_labels_dreams_as_the_teacher_sees_them(
    tiny_teacher: Teacher, statistics: BNStatistics
) -> None:
    section = PaperSynthesisSection(num_images=32, num_held_out=0)
    dreams = synthesize(tiny_teacher, statistics, section, seed=0)
    assert set(dreams.curves) == {"bn", "entropy", "tv"}
    assert len(dreams.curves["bn"]) == 200
    assert dreams.images.abs().max() <= 3
    images = dreams.images.float()
    assert (tiny_teacher.network(images).argmax(1) == dreams.targets).float().mean() > 0.9


def test_synthesis_knows_every_method_of_the_recipe() -> None:
    sections = get_args(get_args(SynthesisSection)[0])
    synthesized = {section.model_fields["method"].default for section in sections if section is not ImagesSection}
    assert synthesized == set(METHODS)


@settings(max_examples=60, deadline=None)
@given(
    num_images=st.integers(2, 300),
    num_held_out=st.integers(0, 60).filter(lambda n: n != 1),
    group_size=st.integers(2, 64),
    num_shards=st.integers(1, 9),
)
def test_shards_cover_every_group_once_and_no_group_is_a_single_image(
    num_images: int, num_held_out: int, group_size: int, num_shards: int
) -> None:
    groups = plan(num_images, num_held_out, group_size)
    assert sum(group.size for group in groups if not group.held_out) == num_images
    assert sum(group.size for group in groups if group.held_out) == num_held_out
    assert min(group.size for group in groups) >= 2
    assert [group for index in range(num_shards) for group in shard(groups, index, num_shards)] == groups


def test_more_shards_than_groups_are_refused(tiny_teacher: Teacher, statistics: BNStatistics) -> None:
    with pytest.raises(RecipeError, match="9 shards cannot share 4 groups"):
        synthesize_shard(tiny_teacher, statistics, SMALL, seed=0, shard_index=8, num_shards=9)
    assert shard(plan(24, 8, 8), 8, 9) == []


@pytest.mark.parametrize(
    ("curve", "told"),
    [
        (torch.linspace(18.1, 17.7, 20), True),
        (torch.linspace(18.1, 30.0, 20), True),
        (torch.linspace(18.1, 17.7, 19), False),  # too few to tell
        (torch.linspace(18.1, 9.0, 20), False),
        (torch.zeros(20), False),  # of no weight
    ],
)
def test_dreams_say_that_their_batchnorm_loss_hardly_fell(curve: torch.Tensor, told: bool) -> None:
    notes = notes_on({"bn": curve})
    assert [note.partition(":")[0] for note in notes] == (
        [f"the BatchNorm loss hardly fell (18.1 to {float(curve[-1]):.3g})"] if told else []
    )
    assert all(f"synthesis.{field}" in note for note in notes for field in ("iterations", "learning_rate"))


def test_dreams_with_nan_are_refused() -> None:
    images = torch.zeros(2, 3, 4, 4, dtype=torch.float16)
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(ArtifactError, match="NaN"):
        DreamSet(images, torch.zeros(2, dtype=torch.int64), 0, 2)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_dreams_that_diverge_are_told_before_the_next_group_is_made(
    tiny_teacher: Teacher, statistics: BNStatistics, tmp_path: Path, num_devices: int
) -> None:
    network = copy.deepcopy(tiny_teacher.network)
    with torch.no_grad():
        list(network.parameters())[-1].fill_(3e38)  # its logits overflow
        list(network.parameters())[-2].mul_(3e38)
    teacher = dataclasses.replace(tiny_teacher, network=network)
    section = DeepInversionSection(num_images=12, num_held_out=0, group_size=4, iterations=20, precision="float32")
    heard: list[Progress] = []

    with pytest.raises(DivergedError, match=r"synthesis diverged in group \d of 3, iteration 2: .*ce is ") as told:
        synthesize(
            teacher,
            statistics,
            section,
            seed=0,
            report=heard.append,
            checkpoint=FolderCheckpoint(tmp_path),
            devices=num_devices * [torch.device("cpu")],
        )

    assert "lower synthesis.learning_rate, which is 0.1" in told.value.now
    assert [progress.done for progress in heard] == [0]
    assert not list(tmp_path.iterdir())
