"""Optimal Brain Surgeon in each layer, against removals that are tried out one by one."""

from __future__ import annotations

import copy
import dataclasses
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn
from torch.nn import functional

from resprout import recipe
from resprout.patches import Layer
from resprout.progress import silent
from resprout.pruning import prune, score
from resprout.pruning.elimination import removal_errors
from resprout.pruning.guidance import tempered
from resprout.pruning.optimal_brain import moments_of
from resprout.pruning.subject import Subject
from resprout.recipe import GlobalMagnitudeSection, OptimalBrainSection, ReconstructionSection
from resprout.recovery import recover
from resprout.types import DreamSet, Teacher

CPU = torch.device("cpu")
criterion = sys.modules[moments_of.__module__]  # the package gives its name to the function in it


def problem(rows: int, fan_in: int, seed: int, groups: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, grams of inputs that go together, and which weights are there."""
    drawn = torch.Generator().manual_seed(seed)
    inputs = torch.randn(groups, 3 * fan_in, fan_in, generator=drawn, dtype=torch.float64)
    inputs = inputs @ torch.randn(fan_in, fan_in, generator=drawn, dtype=torch.float64)
    alive = torch.rand(rows, fan_in, generator=drawn) > 0.25
    weights = torch.randn(rows, fan_in, generator=drawn, dtype=torch.float64) * alive
    return weights, inputs.mT @ inputs / inputs.shape[1], alive


def least_error(weights: Tensor, gram: Tensor, stay: list[int]) -> float:
    """What a row's output lacks at least, when only these places may be used: by solving the normal equations."""
    best = torch.zeros_like(weights)
    if stay:
        best[stay] = torch.linalg.solve(gram[stay][:, stay], gram[stay] @ weights)
    return float((best - weights) @ gram @ (best - weights))


def tried_out(weights: Tensor, gram: Tensor, alive: Tensor) -> Tensor:
    """The errors of a row whose weights go one by one, each time the one without which least is lacking."""
    left, error, reached = alive.nonzero().flatten().tolist(), 0.0, 0.0
    found = torch.zeros_like(weights)
    while left:
        without = {place: least_error(weights, gram, [other for other in left if other != place]) for place in left}
        place = min(without, key=without.__getitem__)
        reached = max(reached, without[place] - error)
        found[place], error = reached, without[place]
        left.remove(place)
    return found


@settings(max_examples=20, deadline=None)
@given(rows=some.integers(1, 4), fan_in=some.integers(1, 9), seed=some.integers(0, 2**31))
def test_one_by_one_it_is_what_trying_out_gives(rows: int, fan_in: int, seed: int) -> None:
    weights, grams, alive = problem(2 * rows, fan_in, seed, groups=2)
    found = removal_errors(weights, grams, alive, steps=fan_in)
    expected = [tried_out(weights[row], grams[row // rows], alive[row]) for row in range(2 * rows)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-6, atol=1e-9)


def test_rows_that_do_not_fit_into_memory_together_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, grams, alive = problem(6, 12, seed=3, groups=2)
    whole = removal_errors(weights, grams, alive)
    monkeypatch.setattr("resprout.pruning.elimination.MEMORY", 2 * 12 * 12 * 8)
    torch.testing.assert_close(removal_errors(weights, grams, alive), whole)


def test_some_at_a_time_lose_in_all_what_the_row_gives() -> None:
    """However many go at a time, what is lacking in the end is all that there was: wᵀ H w."""
    weights, grams, alive = problem(1, 30, seed=5)
    found = removal_errors(weights, grams, alive, steps=7)
    whole = float(weights[0] @ grams[0] @ weights[0])
    assert float(found.sum()) >= whole * (1 - 1e-9), "errors are raised where they would fall, and never lowered"
    assert float(found.sum()) < 1.5 * whole
    assert (found[alive] > 0).all()
    assert (found[~alive] == 0).all()


def test_long_rows_are_judged_block_by_block(
    tiny_teacher: Teacher, tiny_dreams: DreamSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of layer1.0.conv1, with 8 channels of 3x3, the weights of 4 channels can make up for each other."""
    section, name = OptimalBrainSection(num_images=64, gradient_power=1), "layer1.0.conv1.weight"
    whole = score(tiny_teacher, section, seed=0, dreams=tiny_dreams, device=CPU)
    monkeypatch.setattr(criterion, "BLOCK", 36)
    blocks = score(tiny_teacher, section, seed=0, dreams=tiny_dreams, device=CPU)
    layer = tiny_teacher.network.get_submodule(name.removesuffix(".weight"))
    assert isinstance(layer, nn.Conv2d)
    found = moments_of(
        subject_of(tiny_teacher.network, tiny_dreams.training[0][:64], tiny_teacher),
        {name: layer},
        tiny_dreams.training[0][:64].float(),
    )[name].inputs
    assert found.shape == (2, 36, 36)
    size = found.diagonal(dim1=1, dim2=2).mean(1)
    rows = layer.weight.double().reshape(8, 2, 36)
    for block in range(2):
        gram = found[block] + section.ridge * size[block] * torch.eye(36, dtype=torch.float64)
        alone = removal_errors(rows[:, block], gram[None], torch.ones(8, 36, dtype=torch.bool))
        ratio = blocks[name].reshape(8, 2, 36)[:, block] / alone
        assert float(ratio.std(1).max() / ratio.mean()) < 1e-6, "but for what a channel counts"
    assert not torch.equal(whole[name], blocks[name])
    torch.testing.assert_close(blocks["conv1.weight"], whole["conv1.weight"])


def test_blocks_that_are_not_full_leave_no_trace(
    tiny_teacher: Teacher, tiny_dreams: DreamSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(criterion, "BLOCK", 20)
    scores = score(tiny_teacher, OptimalBrainSection(num_images=64), seed=0, dreams=tiny_dreams, device=CPU)
    for name, found in scores.items():
        assert found.shape == tiny_teacher.network.get_parameter(name).shape
        assert (found > 0).all()


def subject_of(network: nn.Module, images: Tensor, teacher: Teacher) -> Subject:
    dreams = DreamSet(images.half(), torch.zeros(len(images)).long(), 0, teacher.info.num_classes)
    return Subject(teacher, network, {}, True, dreams, 0, CPU, silent)


def test_moments_are_those_of_each_layers_inputs_and_of_its_outputs_gradients(tiny_teacher: Teacher) -> None:
    network = copy.deepcopy(tiny_teacher.network).eval().requires_grad_(False)
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    layers: dict[str, Layer] = {
        f"{name}.weight": layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    found = moments_of(subject_of(network, images, tiny_teacher), layers, images)
    patches = functional.unfold(images, 3, padding=1).movedim(1, 0).flatten(1).double()
    torch.testing.assert_close(
        found["conv1.weight"].inputs[0], patches @ patches.T / patches.shape[1], rtol=1e-4, atol=1e-5
    )
    # the last layer's outputs are the logits; per image, (softmax - drawn) / temperature
    logits = network(images) / 4
    squares = [(logits.softmax(1) - functional.one_hot(torch.full((5,), label), 4)).square() / 16 for label in range(4)]
    low, high = torch.stack(squares).amin((0, 1)), torch.stack(squares).amax((0, 1))
    fisher = found["fc.weight"].fisher
    assert ((fisher > low) & (fisher < high)).all()
    variance = network.conv1(images).double().var((0, 2, 3), correction=0).mean()
    torch.testing.assert_close(found["conv1.weight"].variance, variance, rtol=1e-4, atol=1e-6)
    assert set(found) == set(layers)


def test_less_is_lost_than_where_the_smallest_weights_go(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    chosen = prune(tiny_teacher, OptimalBrainSection(sparsity=0.8), seed=0, dreams=tiny_dreams, device=CPU)
    smallest = prune(tiny_teacher, GlobalMagnitudeSection(sparsity=0.8), seed=0)
    images = tiny_dreams.held_out[0].float()
    answers = tiny_teacher.network(images)
    lost = []
    for student in (chosen, smallest):
        solved = recover(tiny_teacher, student, tiny_dreams, ReconstructionSection(), seed=0, device=CPU).recovered
        lost.append(float((solved.network(images) - answers).square().mean()))
    assert lost[0] < 0.7 * lost[1]


def test_a_share_counts_more_the_less_its_channel_has_left(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    section, name = OptimalBrainSection(num_images=64, gradient_power=0), "layer1.0.conv1.weight"
    layer, images = tiny_teacher.network.get_submodule("layer1.0.conv1"), tiny_dreams.training[0][:64]
    assert isinstance(layer, nn.Conv2d)
    found = moments_of(subject_of(tiny_teacher.network, images, tiny_teacher), {name: layer}, images.float())[name]
    gram = found.inputs + section.ridge * found.inputs[0].diagonal().mean() * torch.eye(72, dtype=torch.float64)
    scores = score(tiny_teacher, section, seed=0, dreams=tiny_dreams, device=CPU)[name].flatten(1)
    alone = removal_errors(layer.weight.double().flatten(1), gram, torch.ones(8, 72, dtype=torch.bool))
    for row, errors in zip(scores, alone.tolist(), strict=True):
        order = sorted(range(72), key=errors.__getitem__)
        left = [sum(errors[other] for other in order[place:]) for place in range(72)]
        expected = [errors[weight] * left[0] / left[place] / found.variance for place, weight in enumerate(order)]
        torch.testing.assert_close(row[order], torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=0.0)


def test_a_weight_whose_input_another_carries_too_goes_first(tiny_teacher: Teacher) -> None:
    """Two inputs that are the same: what one weight did the other can do, however large both are."""
    weights = torch.tensor([[5.0, 5.0, 0.5]], dtype=torch.float64)
    twins = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    found = removal_errors(weights, (twins + 1e-6 * torch.eye(3, dtype=torch.float64))[None], weights != 0, steps=3)
    assert int(found.argmin()) in (0, 1)
    assert int(found.argmax()) in (0, 1)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_layers_of_another_kind_are_scored_by_each_weight_alone(
    tiny_teacher: Teacher, tiny_dreams: DreamSet, power: float
) -> None:
    class Twice(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input)

    section, name = OptimalBrainSection(num_images=64, gradient_power=power), "layer1.0.conv1.weight"
    plain = score(tiny_teacher, section, seed=0, dreams=tiny_dreams, device=CPU)
    tiny_teacher.network.get_submodule("layer1.0.conv1").__class__ = Twice
    found = score(tiny_teacher, section, seed=0, dreams=tiny_dreams, device=CPU)
    torch.testing.assert_close(found.pop("fc.weight"), plain["fc.weight"])
    weight = tiny_teacher.network.get_parameter(name)
    assert found[name].shape == weight.shape
    assert (found[name] > 0).all()
    # of about the size that it has where the others may make up for it, so that one threshold serves both
    assert 0.1 < float(found[name].median() / plain[name].median()) < 100


def test_a_network_without_a_plain_layer_has_scores_too(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    section = OptimalBrainSection(num_images=64, exclude=("fc.*",))
    for layer in tiny_teacher.network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.__class__ = type("Other", (nn.Conv2d,), {})
    scores = score(tiny_teacher, section, seed=0, dreams=tiny_dreams, device=CPU)
    assert len(scores) > 1
    assert all((found > 0).any() for found in scores.values())


def test_a_weight_that_is_used_without_its_layer_being_run_has_scores(
    tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    class Own(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network, self.mixed = network, nn.Linear(4, 4)

        def forward(self, images: Tensor) -> Tensor:
            return functional.linear(self.network(images), self.mixed.weight)

    torch.manual_seed(0)
    teacher = dataclasses.replace(tiny_teacher, network=Own(tiny_teacher.network).eval().requires_grad_(False))
    scores = score(teacher, OptimalBrainSection(num_images=32), seed=0, dreams=tiny_dreams, device=CPU)
    assert (scores["mixed.weight"] > 0).all()


def test_a_layer_that_runs_twice_counts_both_times(tiny_teacher: Teacher) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.last = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(3, 4)

        def forward(self, images: Tensor) -> Tensor:
            first = self.shared(input=images)
            return self.last(self.shared(first.relu()).mean((2, 3)))

    torch.manual_seed(0)
    network = Twice().eval().requires_grad_(False)
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = moments_of(subject_of(network, images, tiny_teacher), {"shared.weight": network.shared}, images)
    taken = torch.cat([images, network.shared(images).relu()]).movedim(1, 0).flatten(1).double()
    torch.testing.assert_close(found["shared.weight"].inputs[0], taken @ taken.T / taken.shape[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["optimal_brain", "fisher", "taylor", "teacher_guided"])
def test_a_teacher_whose_softmax_is_all_but_one_class_is_pruned(
    method: str, tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    tiny_teacher.network.fc.weight.mul_(3000)  # logits thousands apart
    fields = {"training_steps": 0} if method == "teacher_guided" else {}
    section = recipe.section("pruning", {"method": method, "num_images": 16, **fields})
    scores = score(tiny_teacher, section, seed=0, dreams=tiny_dreams, device=CPU)
    assert all((found > 0).any() and found.isfinite().all() for found in scores.values())
    mask = prune(tiny_teacher, section, seed=0, dreams=tiny_dreams, scores=scores).mask
    assert mask.sparsity == pytest.approx(0.75, abs=1e-3)


def test_logits_are_softened_further_only_where_their_softmax_has_no_slope() -> None:
    logits = torch.tensor([[47.0, 0, -3], [48.5, 0, -3], [5000.0, 0, 4900], [1.0, 2, 3]], requires_grad=True)
    found = tempered(logits, 4.0)
    assert torch.equal(found[[0, 3]], logits[[0, 3]] / 4)
    torch.testing.assert_close(found[1:3].topk(2).values.diff(dim=1), torch.full((2, 1), -12.0))
    loss = functional.cross_entropy(found, found.argmax(1), reduction="sum")
    assert (torch.autograd.grad(loss, logits)[0].abs().amax(1) > 1e-9).all()


def test_a_branch_without_effect_loses_its_least_share_first_and_keeps_its_floor(
    tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    block, name = tiny_teacher.network.get_submodule("layer2.0"), "layer2.0.conv2.weight"
    block.bn2.weight.zero_()
    section = OptimalBrainSection(num_images=32, sparsity=0.7)
    scores = score(tiny_teacher, section, seed=0, dreams=tiny_dreams, device=CPU)
    alone = score(
        tiny_teacher, section.model_copy(update={"gradient_power": 0.0}), seed=0, dreams=tiny_dreams, device=CPU
    )
    assert torch.equal(scores[name].flatten().argsort(), alone[name].flatten().argsort()), "by its share alone"
    assert scores[name].max() < scores["fc.weight"].min()
    kept = prune(tiny_teacher, section, seed=0, dreams=tiny_dreams, scores=scores).mask.keep[name]
    assert int(kept.sum()) == 1
    assert kept.flatten()[alone[name].argmax()]


def test_answers_that_depend_on_nothing_leave_the_shares_to_decide(
    tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    tiny_teacher.network.fc.weight.zero_()
    section = OptimalBrainSection(num_images=16)
    mask = prune(tiny_teacher, section, seed=0, dreams=tiny_dreams, device=CPU).mask
    assert mask.sparsity == pytest.approx(0.75, abs=1e-3)
