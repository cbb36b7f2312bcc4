"""Pruning removes exactly as many weights as asked, the right ones, and leaves everything else alone."""

from __future__ import annotations

import copy
import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from resprout import recipe
from resprout.errors import RecipeError, UnsupportedModelError
from resprout.masking import apply_mask
from resprout.pruning import BY_LAYER, METHODS, largest_sparsity, prune
from resprout.pruning.lamp import lamp
from resprout.pruning.random import uniformly_random
from resprout.pruning.threshold import keep_best, keep_largest
from resprout.types import DreamSet, InputSpec, ModelInfo, PruningMask, Student, Teacher

SPARSITIES = st.floats(0.01, 0.9)
STRUCTURED = {"semi_structured", "block"}  # they have tests of their own
LAYER_SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def section(method: str, sparsity: float, exclude: tuple[str, ...] = ()) -> Any:
    return recipe.section("pruning", {"method": method, "sparsity": sparsity, "exclude": exclude})


def teacher_of(network: nn.Module) -> Teacher:
    info = ModelInfo("custom", 2, InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3), ("a", "b"))
    return Teacher(info, network.eval().requires_grad_(False))


def small_teacher(seed: int = 0) -> Teacher:
    torch.manual_seed(seed)
    convolutions = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, groups=2), nn.Flatten()]
    return teacher_of(nn.Sequential(*convolutions, nn.Linear(64, 2)))


def small_dreams() -> DreamSet:
    generator = torch.Generator().manual_seed(0)
    return DreamSet(torch.randn(8, 3, 8, 8, generator=generator).half(), torch.arange(8) % 2, 0, 2)


def weights_of(sizes: list[int], seed: int, levels: int = 8) -> dict[str, Tensor]:
    """Random weights of few distinct magnitudes, so that ties are common."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{i}.weight": torch.randint(-levels, levels + 1, (n,), generator=generator).float()
        for i, n in enumerate(sizes)
    }


def masks(
    method: str,
    weights: dict[str, Tensor],
    sparsity: float,
    seed: int = 0,
    alive: dict[str, Tensor] | None = None,
    least: int = 0,
) -> dict[str, Tensor]:
    """Which weights stay, with at least so many in each layer."""
    if method == "random":
        scores = uniformly_random(weights, torch.Generator().manual_seed(seed))
    else:
        scores = {name: BY_LAYER[method](weight) for name, weight in weights.items()}
    alive = alive or {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    due = round(sparsity * sum(weight.numel() for weight in weights.values()))
    return keep_best(scores, due, alive, {name: min(least, int(left.sum())) for name, left in alive.items()})


def flat(parts: dict[str, Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts.values()])


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_methods_are_those_of_the_recipe() -> None:
    union = get_args(get_args(recipe.PruningSection)[0])
    assert {*METHODS, "structured"} == {get_args(kind.model_fields["method"].annotation)[0] for kind in union}


@pytest.mark.parametrize("method", [*BY_LAYER, "random"])
@given(sizes=LAYER_SIZES, sparsity=SPARSITIES, seed=st.integers(0, 99))
def test_exactly_as_many_weights_go_as_asked(method: str, sizes: list[int], sparsity: float, seed: int) -> None:
    keep = flat(masks(method, weights_of(sizes, seed), sparsity, seed))
    assert int((~keep).sum()) == round(sparsity * sum(sizes))


@given(sizes=LAYER_SIZES, sparsity=SPARSITIES, seed=st.integers(0, 99))
def test_layer_magnitude_takes_the_same_share_of_each_layer(sizes: list[int], sparsity: float, seed: int) -> None:
    weights = weights_of(sizes, seed)
    kept = masks("layer_magnitude", weights, sparsity)
    # one share fits all layers, to half a weight
    low = max((int((~keep).sum()) - 0.5) / keep.numel() for keep in kept.values())
    high = min((int((~keep).sum()) + 0.5) / keep.numel() for keep in kept.values())
    assert low <= high + 1e-12
    for name, keep in kept.items():
        magnitudes = weights[name].abs()
        if keep.any() and not keep.all():
            assert magnitudes[keep].min() >= magnitudes[~keep].max()


@pytest.mark.parametrize("method", [*BY_LAYER, "random"])
@given(sizes=LAYER_SIZES, sparsity=SPARSITIES, seed=st.integers(0, 99), least=st.integers(0, 5))
def test_a_floor_takes_from_other_layers_what_it_gives_and_leaves_masks_that_meet_it_alone(
    method: str, sizes: list[int], sparsity: float, seed: int, least: int
) -> None:
    weights = weights_of(sizes, seed)
    without, floored = (masks(method, weights, sparsity, seed, least=count) for count in (0, least))
    if sum(min(least, size) for size in sizes) > sum(sizes) - round(sparsity * sum(sizes)):
        return
    assert int(flat(floored).sum()) == int(flat(without).sum())
    for name, keep in floored.items():
        assert int(keep.sum()) >= min(least, keep.numel())
        if int(without[name].sum()) >= least:
            assert not (keep & ~without[name]).any(), "no layer above its floor gains"
    if all(int(keep.sum()) >= min(least, keep.numel()) for keep in without.values()):
        assert torch.equal(flat(floored), flat(without))


@given(sizes=LAYER_SIZES, sparsity=SPARSITIES, seed=st.integers(0, 99))
def test_global_magnitude_keeps_nothing_smaller_than_what_it_drops(
    sizes: list[int], sparsity: float, seed: int
) -> None:
    weights = weights_of(sizes, seed)
    keep, magnitudes = flat(masks("global_magnitude", weights, sparsity)), flat(weights).abs()
    if keep.any() and not keep.all():
        assert magnitudes[keep].min() >= magnitudes[~keep].max()


@pytest.mark.parametrize("method", ["global_magnitude", "layer_magnitude", "lamp", "erk"])
@given(sizes=LAYER_SIZES, low=SPARSITIES, high=SPARSITIES, scale=st.sampled_from([-4.0, 0.125, 64.0]))
def test_magnitude_masks_nest_and_know_no_scale_or_sign(
    method: str, sizes: list[int], low: float, high: float, scale: float
) -> None:
    weights, (low, high) = weights_of(sizes, seed=3), sorted((low, high))
    fewer = flat(masks(method, weights, low))
    assert torch.equal(fewer, flat(masks(method, {name: scale * weight for name, weight in weights.items()}, low)))
    assert not (flat(masks(method, weights, high)) & ~fewer).any()


@settings(deadline=None)
@given(size=st.integers(1, 40), seed=st.integers(0, 99))
def test_lamp_scores_are_the_papers_sum_over_the_weights_that_are_not_smaller(size: int, seed: int) -> None:
    weight = weights_of([size], seed)["0.weight"].double()
    order = sorted(range(size), key=lambda index: (abs(float(weight[index])), index))
    expected = torch.zeros(size, dtype=torch.float64)
    for rank, index in enumerate(order):
        left = sum(float(weight[other]) ** 2 for other in order[rank:])
        expected[index] = float(weight[index]) ** 2 / left if left else 0.0
    torch.testing.assert_close(lamp(weight.float()), expected)


@given(sizes=LAYER_SIZES, sparsity=SPARSITIES, seed=st.integers(0, 99))
def test_lamp_empties_no_layer_while_another_has_two_weights(sizes: list[int], sparsity: float, seed: int) -> None:
    weights = {name: weight + 0.5 for name, weight in weights_of(sizes, seed).items()}  # none is zero
    left = [int(keep.sum()) for keep in masks("lamp", weights, sparsity).values()]
    if sum(left) >= len(left):
        assert min(left) >= 1


@given(sizes=LAYER_SIZES, sparsity=SPARSITIES)
def test_lamp_knows_no_scale_of_a_layer(sizes: list[int], sparsity: float) -> None:
    weights = weights_of(sizes, seed=3)
    scaled = {name: weight * 4.0**index for index, (name, weight) in enumerate(weights.items())}
    assert torch.equal(flat(masks("lamp", weights, sparsity)), flat(masks("lamp", scaled, sparsity)))


@given(
    shapes=st.lists(st.tuples(*[st.integers(1, 8)] * 4), min_size=1, max_size=5),
    sparsity=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_erk_keeps_in_proportion_to_the_sum_of_a_layers_sizes(
    shapes: list[tuple[int, ...]], sparsity: float, seed: int
) -> None:
    sizes = [math.prod(shape) for shape in shapes]
    flat_weights = weights_of(sizes, seed)
    weights = {name: weight.view(shape) for (name, weight), shape in zip(flat_weights.items(), shapes, strict=True)}
    kept = {name: int(keep.sum()) for name, keep in masks("erk", weights, sparsity).items()}
    # one scale fits all layers: what is kept of those that are not full, by the sum of sizes, to half a weight
    open_ = [(kept[name], sum(weights[name].shape)) for name in weights if kept[name] < weights[name].numel()]
    full = [(kept[name], sum(weights[name].shape)) for name in weights if kept[name] == weights[name].numel()]
    if open_:
        low, high = max((count - 0.5) / due for count, due in open_), min((count + 0.5) / due for count, due in open_)
        assert low <= high + 1e-12
        assert all((count - 0.5) / due <= high + 1e-12 for count, due in full), "full before the scale got there"


def test_erk_keeps_narrow_layers_whole() -> None:
    shapes = {"first": (16, 3, 3, 3), "wide": (64, 32, 3, 3), "wider": (64, 64, 3, 3), "last": (10, 64)}
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    density = {name: float(keep.float().mean()) for name, keep in masks("erk", weights, 0.8).items()}
    assert density["first"] == density["last"] == 1
    raw = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    assert density["wide"] / density["wider"] == pytest.approx(raw["wide"] / raw["wider"], rel=1e-3)


def test_ties_go_in_order() -> None:
    assert keep_largest(torch.tensor([1.0, 2, 1, 1, 0]), 3).tolist() == [False, True, False, True, False]
    assert keep_largest(torch.ones(4), 0).tolist() == [True] * 4
    assert keep_largest(torch.ones(4), 4).tolist() == [False] * 4


@settings(max_examples=10)
@given(sparsity=st.floats(0.05, 0.6), seed=st.integers(0, 9))
def test_global_magnitude_is_torchs_own_global_l1(sparsity: float, seed: int) -> None:
    teacher = small_teacher(seed)
    second = copy.deepcopy(teacher.network)
    layers = [module for module in second if isinstance(module, nn.Conv2d | nn.Linear)]
    torch_prune.global_unstructured(
        [(layer, "weight") for layer in layers], pruning_method=torch_prune.L1Unstructured, amount=sparsity
    )
    student = prune(teacher, section("global_magnitude", sparsity), seed=0)
    ours = [module for module in student.network if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer, expected in zip(ours, layers, strict=True):
        assert torch.equal(layer.weight, expected.weight)


@pytest.mark.parametrize("method", sorted({*METHODS} - STRUCTURED))  # which have tests of their own
def test_a_student_is_the_teacher_where_the_mask_is_true_and_zero_elsewhere(method: str) -> None:
    teacher = small_teacher()
    before = state(teacher.network)
    student = prune(teacher, section(method, 0.5), seed=1, dreams=small_dreams())
    assert set(student.mask.keep) == {"0.weight", "2.weight", "4.weight"}
    assert student.mask.sparsity == pytest.approx(0.5, abs=1 / student.mask.num_weights)
    for name, value in state(student.network).items():
        kept = student.mask.keep.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value, torch.where(kept, before[name], torch.zeros_like(value))), name
        assert torch.equal(teacher.network.state_dict()[name], before[name]), name
    assert not student.network.training


@pytest.mark.parametrize("method", ["global_magnitude", "layer_magnitude"])
def test_pruning_a_student_again_changes_nothing(method: str) -> None:
    once = prune(small_teacher(), section(method, 0.6), seed=0)
    again = prune(Teacher(once.info, once.network), section(method, 0.6), seed=0)
    assert torch.equal(flat(dict(once.mask.keep)), flat(dict(again.mask.keep)))


@pytest.mark.parametrize("method", ["global_magnitude", "lamp", "erk", "random"])
@given(sizes=LAYER_SIZES, low=SPARSITIES, high=SPARSITIES, seed=st.integers(0, 99))
def test_what_is_gone_stays_gone_and_counts(method: str, sizes: list[int], low: float, high: float, seed: int) -> None:
    weights, (low, high) = weights_of(sizes, seed), sorted((low, high))
    alive = masks("random", weights, low, seed)
    keep = flat(masks(method, weights, high, seed, alive))
    assert int((~keep).sum()) == round(high * sum(sizes))
    assert not (keep & ~flat(alive)).any()


@pytest.mark.parametrize("method", sorted({*METHODS} - STRUCTURED))
def test_pruning_further_takes_the_students_weights_and_no_more_than_asked(method: str) -> None:
    teacher = small_teacher()
    start = prune(teacher, section("layer_magnitude", 0.3), seed=0)
    for name, kept in start.mask.keep.items():
        start.network.get_parameter(name).copy_(kept * (1 + start.network.get_parameter(name).square()))
    before = state(start.network)
    student = prune(teacher, section(method, 0.6), seed=0, dreams=small_dreams(), start=start)
    assert student.mask.sparsity == pytest.approx(0.6, abs=1 / student.mask.num_weights)
    assert not (flat(dict(student.mask.keep)) & ~flat(dict(start.mask.keep))).any()
    for name, kept in student.mask.keep.items():
        assert torch.equal(student.network.get_parameter(name), before[name] * kept), name
    assert all(torch.equal(value, before[name]) for name, value in start.network.state_dict().items())


@pytest.mark.parametrize("method", sorted({*METHODS} - STRUCTURED))
def test_a_start_that_is_sparser_than_asked_is_refused(method: str) -> None:
    start = prune(small_teacher(), section("layer_magnitude", 0.6), seed=0)
    with pytest.raises(RecipeError, match=r"0\.5 is less than the 0\.6(.|\n)*stays gone"):
        prune(small_teacher(), section(method, 0.5), seed=0, dreams=small_dreams(), start=start)


def test_a_layer_that_lost_more_than_its_share_loses_no_more() -> None:
    teacher = small_teacher()
    keep = {name: torch.ones_like(w, dtype=torch.bool) for name, w in maskable(teacher).items()}
    keep["2.weight"].view(-1)[:80] = False  # of 108
    start = Student(teacher.info, teacher.network, PruningMask(keep))
    for method in ("layer_magnitude", "lamp"):
        kept = prune(teacher, section(method, 0.5), seed=0, start=start).mask
        assert not kept.keep["2.weight"].view(-1)[:80].any()
        assert kept.num_kept == kept.num_weights - round(0.5 * kept.num_weights)


def maskable(teacher: Teacher) -> dict[str, Tensor]:
    return {name: w for name, w in teacher.network.named_parameters() if w.ndim > 1}


def test_a_weight_that_is_gone_cannot_be_excluded_afterwards() -> None:
    start = prune(small_teacher(), section("global_magnitude", 0.5), seed=0)
    with pytest.raises(RecipeError, match=r"0.weight is to stay whole, and \d+ of its weights are already gone"):
        prune(small_teacher(), section("global_magnitude", 0.7, ("0.weight",)), seed=0, start=start)


def test_random_repeats_with_a_seed_differs_between_seeds_and_ignores_magnitudes() -> None:
    drawn = [prune(small_teacher(), section("random", 0.5), seed=seed).mask for seed in (0, 0, 1)]
    first, second, other = (flat(dict(mask.keep)) for mask in drawn)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    weights = {"big": torch.full((20_000,), 9.0), "small": torch.zeros(20_000)}
    shares = [float(keep.float().mean()) for keep in masks("random", weights, 0.5).values()]
    assert shares == pytest.approx([0.5, 0.5], abs=0.02)  # five standard deviations


def test_excluded_weights_stay_and_do_not_count() -> None:
    teacher = small_teacher()
    student = prune(teacher, section("global_magnitude", 0.5, ("0.*", "4.weight")), seed=0)
    assert set(student.mask.keep) == {"2.weight"}
    assert student.mask.num_kept == student.mask.num_weights - round(0.5 * 108)
    assert torch.equal(student.network[0].weight, teacher.network[0].weight)


def test_transposed_convolutions_are_maskable_and_a_shared_weight_counts_once() -> None:
    network = nn.Sequential(nn.ConvTranspose2d(3, 3, 1), nn.Linear(8, 8), nn.Linear(8, 8))
    network[2].weight = network[1].weight
    student = prune(teacher_of(network), section("global_magnitude", 0.5), seed=0)
    assert {name: kept.numel() for name, kept in student.mask.keep.items()} == {"0.weight": 9, "1.weight": 64}


def test_an_exclusion_that_matches_nothing_names_the_nearest_weight() -> None:
    with pytest.raises(RecipeError, match=r"'4.weights' matches no(.|\n)*nearest is '4.weight'"):
        prune(small_teacher(), section("random", 0.5, ("0.*", "4.weights")), seed=0)


def test_nothing_to_prune_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"matches every one of the 3(.|\n)*nothing is left"):
        prune(small_teacher(), section("random", 0.5, ("*",)), seed=0)
    with pytest.raises(UnsupportedModelError, match="no convolution and no linear layer"):
        prune(teacher_of(nn.Sequential(nn.BatchNorm2d(3))), section("random", 0.5), seed=0)


@pytest.mark.parametrize("method", sorted({*METHODS} - {"semi_structured"}))
@pytest.mark.parametrize("min_density", [0.0, 0.2])
def test_no_criterion_empties_a_layer_and_the_others_give_what_it_keeps(method: str, min_density: float) -> None:
    teacher = small_teacher()
    teacher.network[2].weight.mul_(1e-6)
    shape = {"shape": (1, 1)} if method == "block" else {}
    asked = section(method, 0.75).model_copy(update={"min_density": min_density, **shape})
    mask = prune(teacher, asked, seed=0, dreams=small_dreams()).mask
    for kept in mask.keep.values():
        assert int(kept.sum()) >= max(1, min_density * kept.numel())
    assert mask.num_weights - mask.num_kept == pytest.approx(
        0.75 * mask.num_weights, abs=20 if method == "block" else 1
    )


def test_floors_that_a_sparsity_leaves_no_room_for_are_refused_with_the_most_that_is_possible() -> None:
    network = nn.Sequential(nn.Conv2d(3, 1, 1), *[nn.Conv2d(1, 1, 1) for _ in range(4)], nn.Flatten(), nn.Linear(64, 2))
    teacher = teacher_of(network)
    asked = section("lamp", 0.97)  # 135 weights in six layers, of which four are left
    with pytest.raises(RecipeError, match=r"leaves 4 of 135 .* 6 together(.|\n)*at most 0\.955555") as refusal:
        prune(teacher, asked, seed=0)
    assert "exclude small layers" in refusal.value.now
    tight = section("lamp", 0.5).model_copy(update={"min_density": 0.6})
    with pytest.raises(RecipeError, match=r"lower pruning\.min_density"):
        prune(teacher, tight, seed=0)
    most = section("lamp", largest_sparsity(teacher, asked))
    assert prune(teacher, most, seed=0).mask.num_kept == 6


def test_floors_are_of_the_layer_as_it_was_and_never_more_than_it_has_left() -> None:
    teacher = small_teacher()
    keep = {name: torch.ones_like(w, dtype=torch.bool) for name, w in maskable(teacher).items()}
    keep["2.weight"].view(-1)[3:] = False
    start = Student(teacher.info, teacher.network, PruningMask(keep))
    asked = section("global_magnitude", 0.75).model_copy(update={"min_density": 0.2})
    kept = prune(teacher, asked, seed=0, start=start).mask.keep
    assert int(kept["2.weight"].sum()) == 3
    assert all(int(kept[name].sum()) >= 0.2 * kept[name].numel() for name in ("0.weight", "4.weight"))


def test_apply_mask_holds_a_disturbed_student_to_its_mask() -> None:
    student: Student = prune(small_teacher(), section("global_magnitude", 0.7), seed=0)
    expected = state(student.network)
    for name, kept in student.mask.keep.items():
        student.network.get_parameter(name).sub_(3.0 * ~kept)
    apply_mask(student.network, student.mask)
    for name, value in state(student.network).items():
        assert torch.equal(value, expected[name]), name
        assert not (torch.signbit(value) & (value == 0)).any(), name
