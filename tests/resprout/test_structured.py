"""Whole channels: those go that should, what is left computes what it should, and it loads without torch-pruning."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from resprout import models
from resprout.channels import shrink, whole_mask, zeroed
from resprout.cost import count_weight_uses, model_cost
from resprout.errors import RecipeError, UnsupportedModelError
from resprout.latency import measure_latency
from resprout.progress import silent
from resprout.pruning import prune, structured
from resprout.pruning.groups import Group, find_groups, plan_of
from resprout.pruning.guidance import DRAWN_AT
from resprout.pruning.importance import magnitudes, taylor_scores
from resprout.pruning.selection import Budget, Step, budget_of, kept_after, removal_order, steps_within
from resprout.recipe import StructuredSection
from resprout.types import ChannelPlan, DreamSet, InputSpec, Latency, ModelInfo, Teacher

CPU = torch.device("cpu")
NETWORKS = {
    "residual": ("cifar_resnet8", {"width": 8}, (3, 8, 8)),
    "chain": ("cifar_vgg11_bn", {"width": 0.1}, (3, 32, 32)),
    "depthwise": ("cifar_mobilenet_v2", {"width_mult": 0.2}, (3, 16, 16)),
}


def network_of(kind: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """An untrained network whose BatchNorm layers do something all the same."""
    architecture, arguments, shape = NETWORKS[kind]
    network = models.build(architecture, num_classes=4, arguments=arguments).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.weight.uniform_(0.5, 1.5, generator=generator)
            layer.bias.normal_(0, 0.5, generator=generator)
    return network, shape


def teacher_of(network: nn.Module, shape: tuple[int, int, int] = (3, 8, 8), classes: int = 4) -> Teacher:
    info = ModelInfo("tests:net", classes, InputSpec(shape, (0.5,) * 3, (0.5,) * 3), tuple("abcdefgh"[:classes]))
    return Teacher(info, network.eval().requires_grad_(False))


def random_kept(groups: Sequence[Group], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    kept = [torch.rand(group.channels, generator=generator) < 0.6 for group in groups]
    for stays in kept:
        stays[0] = True
    return kept


def masked_outputs(network: nn.Module, plan: ChannelPlan, images: Tensor) -> Tensor:
    """What a dense network answers when everything that the plan's layers give and take is masked as it passes."""

    def shaped(kept: Tensor, values: Tensor) -> Tensor:
        return values * (kept if values.ndim == 2 else kept[:, None, None])

    masked = copy.deepcopy(network)
    for name, kept in plan.outputs.items():
        masked.get_submodule(name).register_forward_hook(lambda _, __, out, kept=kept: shaped(kept, out))
    for name, kept in plan.inputs.items():
        masked.get_submodule(name).register_forward_pre_hook(lambda _, args, kept=kept: (shaped(kept, args[0]),))
    with torch.no_grad():
        answer: Tensor = masked(images)
    return answer


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_cut_computes_what_the_whole_does_with_these_channels_masked(kind: str) -> None:
    network, shape = network_of(kind)
    groups = find_groups(network, shape)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    for seed in range(3):
        plan = plan_of(network, groups, random_kept(groups, seed))
        small = shrink(network, plan)
        assert sum(p.numel() for p in small.parameters()) < 0.8 * sum(p.numel() for p in network.parameters())
        expected = masked_outputs(network, plan, images)
        torch.testing.assert_close(small(images), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(zeroed(network, plan)(images), expected, rtol=1e-4, atol=1e-4)


def test_layers_whose_outputs_are_added_lose_the_same_channels() -> None:
    network, shape = network_of("residual")
    groups = find_groups(network, shape)
    stage = next(group for group in groups if group.name == "conv1")
    names = {(member.layer, member.inputs) for member in stage.members}
    assert {("conv1", False), ("layer1.0.conv2", False), ("layer2.0.conv1", True)} <= names
    assert ("layer1.0.conv1", False) not in names
    assert not any(member.layer == "fc" and not member.inputs for group in groups for member in group.members)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_budget_counts_what_the_cut_network_multiplies(kind: str) -> None:
    network, shape = network_of(kind)
    groups = find_groups(network, shape)
    kept = random_kept(groups, 5)
    steps = [Step(number, int((~stays).sum())) for number, stays in enumerate(kept)]
    budget = budget_for(network, groups, shape)
    assert budget.macs() == model_cost(network, shape, ()).dense_macs
    small = shrink(network, plan_of(network, groups, kept))
    assert budget.after(steps).macs() == model_cost(small, shape, ()).dense_macs


def budget_for(network: nn.Module, groups: Sequence[Group], shape: tuple[int, int, int]) -> Budget:
    with count_weight_uses(network) as uses, torch.no_grad():
        network(torch.zeros(1, *shape))
    return budget_of(network, groups, uses)


@settings(max_examples=15, deadline=None)
@given(ratio=st.floats(0.2, 0.95), round_to=st.integers(1, 8), by_macs=st.booleans())
def test_the_target_is_met_and_no_step_that_it_does_not_need_is_taken(
    ratio: float, round_to: int, by_macs: bool
) -> None:
    network, shape = network_of("residual")
    groups = find_groups(network, shape)
    budget, scores = budget_for(network, groups, shape), magnitudes(network, groups)
    order = removal_order(budget, scores, round_to, by_macs=by_macs)
    most = ratio * budget.macs()
    steps = steps_within(budget, order, Budget.macs, most)
    if budget.after(order).macs() > most:
        assert steps == order
        return
    assert budget.after(steps).macs() <= most
    last = {step.group: step for step in steps}
    for step in last.values():
        fewer = [other for other in steps if other is not step]
        assert budget.after(fewer).macs() > most
    for group, kept in zip(groups, kept_after(steps, scores), strict=True):
        left = int(kept.sum())
        assert left == group.channels or (left > 0 and left % round_to == 0)


def test_the_lowest_scores_go_first() -> None:
    scores = [torch.tensor([3.0, 1.0, 2.0, 1.0]), torch.tensor([5.0, 4.0])]
    kept = kept_after([Step(0, 1), Step(1, 1), Step(0, 2)], scores)
    assert [stays.tolist() for stays in kept] == [[True, False, False, False], [True, False]]


def test_magnitudes_sum_over_all_layers_that_a_channel_runs_through() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 3, 1), nn.Flatten())
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, 2.0])[:, None, None, None])
        network[1].weight.copy_(torch.tensor([3.0, 1.0]))
        network[3].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 2.0], [1.0, 0.0]])[:, :, None, None])
    (group,) = find_groups(network, (1, 1, 1))
    (found,) = magnitudes(network, [group])
    totals = torch.tensor([1 + 9 + 3, 4 + 1 + 4], dtype=torch.float64)
    torch.testing.assert_close(found, totals / totals.mean())


def test_taylor_scores_are_squared_slopes_of_the_loss_in_each_channel() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(32, 3)).eval()
    images = torch.randn(5, 3, 8, 8)
    groups = find_groups(network, (3, 8, 8))
    assert [group.channels for group in groups] == [4, 2]
    found = taylor_scores(
        network, groups, images, generator=torch.Generator().manual_seed(3), device=CPU, report=silent
    )

    exact = copy.deepcopy(network).double()
    with torch.no_grad():
        softened = exact(images.double()) / DRAWN_AT
    labels = torch.multinomial(softened.softmax(1).float(), 1, generator=torch.Generator().manual_seed(3)).squeeze(1)

    def losses(layer: int, columns: slice, factor: float) -> Tensor:
        changed = copy.deepcopy(exact)
        with torch.no_grad():
            changed[layer].weight[:, columns] *= factor
            return functional.cross_entropy(changed(images.double()) / DRAWN_AT, labels, reduction="none")

    step = 1e-5
    for scores, layer, width in ((found[0], 2, 1), (found[1], 4, 16)):  # 16 positions of a channel were flattened
        for channel, score in enumerate(scores):
            columns = slice(channel * width, (channel + 1) * width)
            slopes = (losses(layer, columns, 1 + step) - losses(layer, columns, 1 - step)) / (2 * step)
            assert float(score) == pytest.approx(float(slopes.square().mean()), rel=1e-3)


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_a_pruned_student_is_the_teacher_without_channels(
    tiny_teacher: Teacher, tiny_dreams: DreamSet, importance: str
) -> None:
    before = copy.deepcopy(tiny_teacher.network.state_dict())
    section = StructuredSection(macs_ratio=0.5, round_to=4, importance=importance)
    student = prune(tiny_teacher, section, seed=0, dreams=tiny_dreams)
    assert all(torch.equal(value, before[name]) for name, value in tiny_teacher.network.state_dict().items())
    assert student.channels is not None
    cut = shrink(tiny_teacher.network, student.channels).state_dict()
    assert all(torch.equal(value, cut[name]) for name, value in student.network.state_dict().items())
    macs = [model_cost(net, (3, 16, 16), ()).dense_macs for net in (tiny_teacher.network, student.network)]
    assert 0.35 * macs[0] < macs[1] <= 0.5 * macs[0]
    assert student.network.fc.out_features == 4
    weights = [sum(w.numel() for w in whole_mask(net).keep.values()) for net in (tiny_teacher.network, student.network)]
    assert student.kept.num_weights == weights[0]
    assert student.kept.num_kept == weights[1]
    again = prune(tiny_teacher, section, seed=0, dreams=tiny_dreams)
    assert all(
        torch.equal(value, again.network.state_dict()[name]) for name, value in student.network.state_dict().items()
    )


def test_as_many_channels_stay_as_the_recipe_says(tiny_teacher: Teacher) -> None:
    student = prune(tiny_teacher, StructuredSection(channel_ratio=0.75, round_to=1), seed=0)
    groups = find_groups(tiny_teacher.network, (3, 16, 16))
    assert student.channels is not None
    left = [int(student.channels.outputs.get(group.name, torch.ones(group.channels)).sum()) for group in groups]
    assert sum(left) == int(0.75 * sum(group.channels for group in groups))


def test_a_latency_target_is_measured(tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_macs(
        network: nn.Module, teacher: nn.Module, shape: tuple[int, int, int], *, batch_size: int, device: torch.device
    ) -> Latency:
        assert (batch_size, device) == (7, CPU)
        mine, whole = (model_cost(each, shape, ()).dense_macs for each in (network, teacher))
        return Latency(mine / whole, batch_size, 1, "cpu")

    assert structured.measure_latency is measure_latency
    monkeypatch.setattr(structured, "measure_latency", by_macs)
    section = StructuredSection(latency_ratio=0.6, latency_batch_size=7, round_to=2)
    student = prune(tiny_teacher, section, seed=0, device=CPU)
    assert 0.45 < by_macs(student.network, tiny_teacher.network, (3, 16, 16), batch_size=7, device=CPU).ratio <= 0.6
    with pytest.raises(RecipeError, match=r"latency_ratio: 0.001 is out of reach"):
        prune(tiny_teacher, section.model_copy(update={"latency_ratio": 0.001}), seed=0, device=CPU)


def test_excluded_layers_stay_whole(tiny_teacher: Teacher) -> None:
    section = StructuredSection(channel_ratio=0.6, round_to=1, exclude=("conv1.weight", "fc.*"))
    student = prune(tiny_teacher, section, seed=0)
    assert student.network.conv1.weight.shape == tiny_teacher.network.conv1.weight.shape
    assert student.network.fc.weight.shape == tiny_teacher.network.fc.weight.shape
    with pytest.raises(RecipeError, match="matches no convolution"):
        prune(tiny_teacher, section.model_copy(update={"exclude": ("conv9.weight",)}), seed=0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"macs_ratio": 1e-4}, "macs_ratio: 0.0001 is out of reach"),
        ({"macs_ratio": 0.5, "round_to": 32}, "the widest layers that may be cut have 32"),
        ({"macs_ratio": 0.5, "importance": "taylor"}, "looks at images, and there are none"),
    ],
)
def test_what_cannot_be_done_is_refused(tiny_teacher: Teacher, changes: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        prune(tiny_teacher, StructuredSection(**changes), seed=0)


@pytest.mark.parametrize("fields", [{}, {"macs_ratio": 0.5, "channel_ratio": 0.5}])
def test_one_target_is_needed(fields: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="set one of channel_ratio, macs_ratio and latency_ratio"):
        StructuredSection(**fields)


def test_grouped_convolutions_keep_their_channels_and_the_others_lose_theirs() -> None:
    torch.manual_seed(0)
    grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), grouped, nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 4)]
    teacher = teacher_of(nn.Sequential(*layers, nn.Flatten()))
    student = prune(teacher, StructuredSection(channel_ratio=0.5, round_to=1), seed=0)
    assert [tuple(student.network[at].weight.shape[:2]) for at in (0, 2, 4, 6)] == [(8, 3), (8, 4), (3, 8), (4, 3)]


class Counting(nn.Module):
    """Counts on its number of channels in its own code."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.first(images).relu().view(len(images), 8, -1).mean(2))


class Shifting(Counting):
    """Mixes channels by position, which a dependency between whole layers does not show."""

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.first(images).relu().mean((2, 3)).roll(3, 1))


@pytest.mark.parametrize("kind", [Counting, Shifting])
def test_a_network_that_cannot_be_followed_is_refused_and_not_broken(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    with pytest.raises(UnsupportedModelError, match=r"cannot be (cut along its channels|followed)"):
        prune(teacher_of(kind()), StructuredSection(channel_ratio=0.5, round_to=1), seed=0)


def test_without_torch_pruning_the_way_to_get_it_is_named(
    tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(UnsupportedModelError, match=r"pip install torch-pruning"):
        prune(tiny_teacher, StructuredSection(macs_ratio=0.5), seed=0)


def test_a_network_whose_auxiliary_head_loses_its_inputs_is_refused(tiny_teacher: Teacher) -> None:
    class WithHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.auxiliary = tiny_teacher.network, nn.Linear(32, 4)

        def forward(self, images: Tensor) -> Tensor:
            features: list[Tensor] = []
            with self.network.layer3.register_forward_hook(lambda *seen: features.append(seen[2])):
                logits: Tensor = self.network(images)
            if self.training:
                logits = logits + self.auxiliary(features[0].mean((2, 3)))
            return logits

    teacher = dataclasses.replace(tiny_teacher, network=WithHead().eval().requires_grad_(False))
    with pytest.raises(UnsupportedModelError, match=r"cannot be cut along its channels: mat1 and mat2"):
        prune(teacher, StructuredSection(channel_ratio=0.5, round_to=2), seed=0)
