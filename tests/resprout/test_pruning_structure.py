"""Masks with a structure: n of every m neighbours, which sparse tensor cores skip, and whole blocks."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from resprout import recipe
from resprout.errors import RecipeError
from resprout.masking import whole_layers
from resprout.pruning import prune
from resprout.pruning.block import block
from resprout.pruning.semi_structured import in_groups
from resprout.pruning.semi_structured import semi_structured as in_groups_of
from resprout.types import InputSpec, ModelInfo, Student, Teacher


def teacher_of(*layers: nn.Module) -> Teacher:
    info = ModelInfo("custom", 2, InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3), ("a", "b"))
    torch.manual_seed(0)
    for layer in layers:
        for module in layer.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return Teacher(info, nn.Sequential(*layers).eval().requires_grad_(False))


def pruned(teacher: Teacher, **fields: Any) -> Student:
    return prune(teacher, recipe.section("pruning", fields), seed=0)


def random_weight(*shape: int, seed: int, levels: int = 5) -> Tensor:
    """Of few distinct magnitudes, so that ties are common."""
    return torch.randint(-levels, levels + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def as_matrix(weight: Tensor) -> Tensor:
    """What a sparse tensor core multiplies by: (out, in), or (out, height * width * in) in channels_last."""
    memory = weight.contiguous(memory_format=torch.channels_last) if weight.ndim == 4 else weight
    return torch.as_strided(memory, (len(weight), weight[0].numel()), (weight[0].numel(), 1))


def semi_structured(weight: Tensor, kept: int = 2, group: int = 4) -> Tensor:
    return in_groups_of({"weight": weight}, kept=kept, group=group)["weight"]


def blocks(
    weights: dict[str, Tensor], sparsity: float, shape: tuple[int, int], norm: str = "l1", relative: bool = False
) -> dict[str, Tensor]:
    alive = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    due = round(sparsity * sum(weight.numel() for weight in weights.values()))
    return block(weights, due, alive, dict.fromkeys(weights, 0), shape=shape, norm=norm, relative=relative)


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 4),
    kernel=st.sampled_from([(), (1, 1), (2, 3)]),
    seed=st.integers(0, 99),
    sizes=st.sampled_from([(2, 4), (1, 2), (1, 4), (3, 8)]),
)
def test_every_group_along_a_matrix_row_keeps_exactly_its_largest(
    rows: int, columns: int, kernel: tuple[int, ...], seed: int, sizes: tuple[int, int]
) -> None:
    kept, group = sizes
    weight = random_weight(rows, columns * group, *kernel, seed=seed)
    keep = semi_structured(weight, kept, group)
    assert torch.equal(keep, semi_structured(weight, kept, group))
    for row, chosen in zip(as_matrix(weight).tolist(), as_matrix(keep).tolist(), strict=True):
        for start in range(0, len(row), group):
            order = sorted(range(group), key=lambda place: (abs(row[start + place]), place))
            stays = [place in order[group - kept :] for place in range(group)]
            assert chosen[start : start + group] == stays


def test_groups_are_input_channels_of_one_kernel_position() -> None:
    weight = torch.zeros(1, 4, 1, 2)
    weight[0, :, 0, 0] = torch.tensor([4.0, 3, 2, 1])
    weight[0, :, 0, 1] = torch.tensor([1.0, -2, 3, -4])
    assert semi_structured(weight)[0, :, 0].T.tolist() == [[True, True, False, False], [False, False, True, True]]


def test_layers_that_do_not_split_stay_whole_and_are_not_counted() -> None:
    teacher = teacher_of(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 6, 1, bias=False),
        nn.ConvTranspose2d(6, 4, 2, 2),
        nn.Linear(4, 4),
        nn.Flatten(2),
        nn.Linear(16, 2, bias=False),
        nn.Linear(2, 2),
    )
    student = pruned(teacher, method="semi_structured")
    assert set(student.mask.keep) == {"2.weight", "3.weight", "5.weight", "7.weight"}
    assert student.mask.sparsity == 0.5
    assert whole_layers(student.network.state_dict(), student.mask) == ["0.weight", "1.weight", "4.weight", "8.weight"]
    for name, weight in student.network.state_dict().items():
        original = teacher.network.state_dict()[name]
        kept = student.mask.keep.get(name, torch.ones_like(weight, dtype=torch.bool))
        assert torch.equal(weight, torch.where(kept, original, torch.zeros_like(weight))), name
    again = in_groups(
        teacher.network, {"4.weight": teacher.network[4].weight, "5.weight": teacher.network[5].weight}, 4
    )
    assert set(again) == {"5.weight"}


def test_a_network_in_which_nothing_splits_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"multiple of pruning.group = 4(.|\n)*smaller pruning.group"):
        pruned(teacher_of(nn.Conv2d(3, 4, 3), nn.Linear(6, 2)), method="semi_structured")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kept": 4}, "pruning.kept: is 4 of groups of 4"),
        ({"sparsity": 0.9}, "pruning.sparsity: is 0.9, and semi_structured has no sparsity"),
        ({"kept": 0}, "kept: input should be greater than or equal to 1"),
    ],
)
def test_groups_that_make_no_sense_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe.section("pruning", {"method": "semi_structured", **fields})


def test_what_follows_from_the_groups_is_the_sections_sparsity() -> None:
    section = recipe.section("pruning", {"method": "semi_structured", "kept": 1, "group": 8})
    assert section.sparsity == 0.875
    assert recipe.section("pruning", section.model_dump()) == section


@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([(), (1,), (2, 2)])), min_size=1, max_size=4
    ),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    sparsity=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
    norm=st.sampled_from(["l1", "l2"]),
)
def test_blocks_go_whole_smallest_first_and_to_half_a_block_as_many_as_asked(
    shapes: list[tuple[int, int, tuple[int, ...]]],
    shape: tuple[int, int],
    sparsity: float,
    seed: int,
    norm: str,
) -> None:
    weights = {f"{i}": random_weight(out, into, *kernel, seed=seed + i) for i, (out, into, kernel) in enumerate(shapes)}
    keep = blocks(weights, sparsity, shape, norm)
    stays, goes, largest = [], [], 0
    for name, weight in weights.items():
        corners = itertools.product(range(0, weight.shape[0], shape[0]), range(0, weight.shape[1], shape[1]))
        for row, column in corners:
            place = (slice(row, row + shape[0]), slice(column, column + shape[1]))
            kept, inside = keep[name][place], weight[place].double().abs()
            assert kept.all() or not kept.any()
            score = float(inside.mean() if norm == "l1" else inside.square().mean().sqrt())
            (stays if kept.all() else goes).append(score)
            largest = max(largest, inside.numel())
    if stays and goes:
        assert max(goes) <= min(stays) + 1e-12
    removed = sum(int((~kept).sum()) for kept in keep.values())
    asked = round(sparsity * sum(weight.numel() for weight in weights.values()))
    assert abs(removed - asked) <= largest / 2
    assert all(
        torch.equal(kept, other)
        for kept, other in zip(keep.values(), blocks(weights, sparsity, shape, norm).values(), strict=True)
    )


@given(sparsity=st.floats(0.1, 0.9), norm=st.sampled_from(["l1", "l2"]))
def test_relative_scores_know_no_scale_of_a_layer(sparsity: float, norm: str) -> None:
    weights = {"a": random_weight(10, 7, 3, 3, seed=1), "b": random_weight(6, 10, seed=2)}
    scaled = {"a": weights["a"] / 1024, "b": weights["b"]}
    one, other = (blocks(each, sparsity, (2, 2), norm, relative=True) for each in (weights, scaled))
    assert all(torch.equal(one[name], other[name]) for name in weights)
    assert not blocks(scaled, 0.95, (2, 2), norm, relative=False)["a"].any()


@given(low=st.floats(0.01, 0.99), high=st.floats(0.01, 0.99))
def test_block_masks_nest(low: float, high: float) -> None:
    low, high = sorted((low, high))
    weights = {"a": random_weight(10, 7, 3, 3, seed=1), "b": random_weight(6, 10, seed=2)}
    fewer, more = blocks(weights, low, (4, 4)), blocks(weights, high, (4, 4))
    assert not any((more[name] & ~fewer[name]).any() for name in weights)


def test_the_norm_decides_between_a_peak_and_a_plain() -> None:
    peak, plain = torch.tensor([[0.0, 0, 0, 5]]), torch.tensor([[1.5, 1.5, 1.5, 1.5]])
    weights = {"peak": peak, "plain": plain}
    assert {name: bool(kept.any()) for name, kept in blocks(weights, 0.5, (1, 4), "l1").items()} == {
        "peak": False,
        "plain": True,
    }
    assert {name: bool(kept.any()) for name, kept in blocks(weights, 0.5, (1, 4), "l2").items()} == {
        "peak": True,
        "plain": False,
    }


def test_a_student_of_blocks_keeps_the_teachers_weights_in_the_others() -> None:
    teacher = teacher_of(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 5), nn.Flatten(), nn.Linear(128, 8))
    before = copy.deepcopy(teacher.network.state_dict())
    student = pruned(teacher, method="block", shape=[4, 4], sparsity=0.5)
    assert student.mask.sparsity == pytest.approx(0.5, abs=200 / student.mask.num_weights)
    for name, weight in student.network.state_dict().items():
        kept = student.mask.keep.get(name, torch.ones_like(weight, dtype=torch.bool))
        assert torch.equal(weight, torch.where(kept, before[name], torch.zeros_like(weight))), name
        assert torch.equal(teacher.network.state_dict()[name], before[name]), name


@pytest.mark.parametrize("shape", [[0, 4], [4], "4x4"])
def test_a_block_must_have_two_sizes(shape: Any) -> None:
    with pytest.raises(RecipeError, match="pruning, shape"):
        recipe.section("pruning", {"method": "block", "shape": shape})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="sparse tensor cores need an NVIDIA GPU")
def test_sparse_tensor_cores_take_the_mask_and_compute_the_same() -> None:
    from torch.sparse import to_sparse_semi_structured

    student = pruned(teacher_of(nn.Conv2d(64, 128, 3), nn.Linear(256, 128)), method="semi_structured")
    for name in ("0.weight", "1.weight"):
        dense = as_matrix(student.network.get_parameter(name)).half().cuda()
        sparse = to_sparse_semi_structured(dense)
        assert torch.equal(sparse.to_dense(), dense)
        inputs = torch.randn(dense.shape[1], 64, device="cuda", dtype=torch.half)
        torch.testing.assert_close(sparse @ inputs, dense @ inputs, rtol=1e-2, atol=1e-2)
