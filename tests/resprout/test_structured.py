"""Whole channels: those go that should, what is left computes what it should, and it loads without torch-pruning."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from pipeline.inspection import describe
from resprout import artifacts, figures, models
from resprout.channels import shrink, whole_mask, zeroed
from resprout.cost import count_weight_uses, model_cost
from resprout.errors import ArtifactError, RecipeError, UnsupportedModelError
from resprout.evaluation import evaluate
from resprout.latency import measure_latency
from resprout.progress import silent
from resprout.pruning import prune, structured
from resprout.pruning.groups import Group, find_groups, plan_of
from resprout.pruning.importance import TEMPERATURE, magnitudes, taylor_scores
from resprout.pruning.selection import Budget, Step, budget_of, kept_after, removal_order, steps_within
from resprout.recipe import DistillationSection, LampSection, ReconstructionSection, StructuredSection
from resprout.recovery import recover
from resprout.recovery.features import block_names, kept_features
from resprout.types import ChannelPlan, DreamSet, InputSpec, Latency, ModelInfo, Student, Teacher

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
        softened = exact(images.double()) / TEMPERATURE
    labels = torch.multinomial(softened.softmax(1).float(), 1, generator=torch.Generator().manual_seed(3)).squeeze(1)

    def losses(layer: int, columns: slice, factor: float) -> Tensor:
        changed = copy.deepcopy(exact)
        with torch.no_grad():
            changed[layer].weight[:, columns] *= factor
            return functional.cross_entropy(changed(images.double()) / TEMPERATURE, labels, reduction="none")

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
    def by_macs(network: nn.Module, teacher: nn.Module, shape: tuple[int, int, int], *, batch_size: int) -> Latency:
        assert batch_size == 7
        mine, whole = (model_cost(each, shape, ()).dense_macs for each in (network, teacher))
        return Latency(mine / whole, batch_size, 1, "cpu")

    assert structured.measure_latency is measure_latency
    monkeypatch.setattr(structured, "measure_latency", by_macs)
    section = StructuredSection(latency_ratio=0.6, latency_batch_size=7, round_to=2)
    student = prune(tiny_teacher, section, seed=0)
    assert 0.45 < by_macs(student.network, tiny_teacher.network, (3, 16, 16), batch_size=7).ratio <= 0.6
    with pytest.raises(RecipeError, match=r"latency_ratio: 0.001 is out of reach"):
        prune(tiny_teacher, section.model_copy(update={"latency_ratio": 0.001}), seed=0)


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


@pytest.fixture
def cut(tiny_teacher: Teacher) -> Student:
    """The tiny teacher with half its multiply-accumulates."""
    return prune(tiny_teacher, StructuredSection(macs_ratio=0.5, round_to=2), seed=0)


RELOAD = """
import sys
sys.modules["torch_pruning"] = None
import torch
from safetensors.torch import load_file, save_file
from resprout import artifacts
torch.set_num_threads(1)
student = artifacts.load_student(sys.argv[1])
assert student.channels is not None
save_file({"logits": student.network(load_file(sys.argv[2])["images"])}, sys.argv[3])
"""


def test_it_reloads_to_the_same_bits_where_torch_pruning_is_missing(cut: Student, tmp_path: Path) -> None:
    images = torch.randn(4, 3, 16, 16)
    artifacts.save_student(cut, tmp_path / "student", kind="model")
    artifacts.folder.save_file({"images": images}, tmp_path / "images.safetensors")
    command = [sys.executable, "-c", RELOAD, "student", "images.safetensors", "logits.safetensors"]
    subprocess.run(command, check=True, cwd=tmp_path, env={"PYTHONPATH": str(Path(__file__).parents[2])})
    found = load_file(tmp_path / "logits.safetensors")["logits"]
    assert torch.equal(found, cut.network(images))


def test_it_is_stored_whole_and_small(cut: Student, tiny_teacher: Teacher, tmp_path: Path) -> None:
    artifacts.save_student(cut, tmp_path / "student")
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    again = artifacts.load_student(tmp_path / "student")
    assert again.channels is not None
    assert cut.channels is not None
    for side in ("outputs", "inputs"):
        mine, theirs = getattr(cut.channels, side), getattr(again.channels, side)
        assert {name: kept.tolist() for name, kept in mine.items()} == {n: kept.tolist() for n, kept in theirs.items()}
    assert {name: kept.all() for name, kept in again.mask.keep.items()} == dict.fromkeys(cut.mask.keep, True)
    assert json.loads((tmp_path / "student" / "density.json").read_text())["total"]["sparsity"] == cut.kept.sparsity
    weights = [(tmp_path / name / "weights.safetensors").stat().st_size for name in ("student", "teacher")]
    assert weights[0] < 0.75 * weights[1]
    assert load_file(tmp_path / "student" / "mask.safetensors") == {}


def test_a_mask_within_the_channels_is_stored_too(cut: Student, tmp_path: Path) -> None:
    mask = dict(cut.mask.keep)
    mask["fc.weight"] = mask["fc.weight"].clone()
    mask["fc.weight"][0, 0] = False
    network = copy.deepcopy(cut.network)
    network.fc.weight[0, 0] = 0
    artifacts.save_student(replace(cut, network=network, mask=replace(cut.mask, keep=mask)), tmp_path / "student")
    again = artifacts.load_student(tmp_path / "student")
    assert torch.equal(again.mask.keep["fc.weight"], mask["fc.weight"])
    assert again.kept.num_kept == cut.kept.num_kept - 1


def test_people_are_told_which_channels_are_left(cut: Student, tmp_path: Path) -> None:
    artifacts.save_student(cut, tmp_path / "student")
    lines = list(describe(tmp_path / "student"))
    gone = f"{100 * cut.kept.sparsity:.1f} %"
    assert f"sparsity    {gone} of the teacher's weights, gone with their channels" in lines
    assert cut.channels is not None
    kept = cut.channels.outputs["layer3.0.conv1"]
    (line,) = (line for line in lines if line.startswith("layer3.0.conv1 "))
    assert line.endswith(f"  {int(kept.sum())} of {kept.numel()}")
    assert gone in figures.name_of_student("pruned", cut)["display_name"]
    assert figures.of_student(cut)["sparsity_percent"] == 100 * cut.kept.sparsity


def all_of(size: int) -> Tensor:
    return torch.tensor([True] * (size - 1) + [False])


@pytest.mark.parametrize(
    ("outputs", "inputs", "told"),
    [
        ({"conv9": all_of(8)}, {}, "names conv9, which the network lacks"),
        ({"conv1": all_of(9)}, {}, "speaks of 9 outputs of conv1, which has 8"),
        ({}, {"fc": all_of(8)}, "speaks of 8 inputs of fc, which has 32"),
        ({}, {"bn1": all_of(8)}, "cuts the inputs of bn1"),
        ({"layer1": all_of(8)}, {}, "cuts the outputs of layer1, a Sequential"),
    ],
)
def test_a_plan_of_another_network_is_refused(
    tiny_teacher: Teacher, outputs: dict[str, Tensor], inputs: dict[str, Tensor], told: str
) -> None:
    for function in (shrink, zeroed):
        with pytest.raises(ArtifactError, match=told):
            function(tiny_teacher.network, ChannelPlan(outputs, inputs))


@pytest.mark.parametrize(
    ("kept", "told"), [(torch.ones(3), "not a vector of bools"), (torch.zeros(3, dtype=torch.bool), "keeps none")]
)
def test_a_plan_that_is_none_is_refused(kept: Tensor, told: str) -> None:
    with pytest.raises(ArtifactError, match=told):
        ChannelPlan({"conv1": kept}, {})


def test_a_plan_that_the_manifest_does_not_describe_is_refused(cut: Student, tmp_path: Path) -> None:
    artifacts.save_student(cut, tmp_path / "student")
    tensors, manifest = artifacts.load_artifact(tmp_path / "student", "student")
    for packed, about in (
        ({**tensors, "channels": {}}, manifest.about),
        (tensors, {**manifest.about, "channels": {}}),
        ({name: part for name, part in tensors.items() if name != "channels"}, manifest.about),
        (tensors, {name: fact for name, fact in manifest.about.items() if name != "channels"}),
    ):
        artifacts.save_artifact(tmp_path / "forged", "student", tensors=packed, about=about)
        with pytest.raises(ArtifactError, match="lacks its channel plan"):
            artifacts.load_student(tmp_path / "forged")


def test_evaluation_counts_what_went_with_the_channels(
    cut: Student, tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    costs = evaluate(tiny_teacher, {"pruned": cut}, tiny_dreams).costs
    assert costs["pruned"].sparsity == pytest.approx(cut.kept.sparsity)
    assert costs["teacher"].sparsity == 0
    assert 0.4 < costs["pruned"].dense_macs / costs["teacher"].dense_macs <= 0.5
    assert costs["pruned"].parameters < costs["teacher"].parameters


@pytest.mark.parametrize("start", ["repaired", "reconstructed"])
def test_distillation_brings_it_back_and_keeps_its_plan(
    cut: Student, tiny_teacher: Teacher, tiny_dreams: DreamSet, start: str
) -> None:
    section = DistillationSection(start=start, epochs=4, batch_size=32, precision="float32")
    result = recover(tiny_teacher, cut, tiny_dreams, section, seed=0, device=CPU)
    for student in (result.recovered, result.repaired):
        assert student.channels is cut.channels
        shapes = {name: value.shape for name, value in cut.network.state_dict().items()}
        assert {name: value.shape for name, value in student.network.state_dict().items()} == shapes
    assert "train_features" in result.curves
    scores = evaluate(tiny_teacher, {"pruned": cut, "recovered": result.recovered}, tiny_dreams)
    assert scores.score("recovered").kl_divergence < scores.score("pruned").kl_divergence


def test_solving_makes_up_for_a_channel_that_another_one_repeats(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    with torch.no_grad():  # of a residual block's inner channels, the second is the first once more
        block = tiny_teacher.network.layer2[0]
        for layer in (block.conv1, block.bn1):
            for tensor in layer.state_dict().values():
                if tensor.ndim:
                    tensor[1] = tensor[0]
    kept = torch.ones(16, dtype=torch.bool)
    kept[1] = False
    plan = ChannelPlan({"layer2.0.conv1": kept, "layer2.0.bn1": kept}, {"layer2.0.conv2": kept})
    network = shrink(tiny_teacher.network, plan)
    student = Student(tiny_teacher.info, network, whole_mask(network), plan)
    images = tiny_dreams.held_out[0].float()
    wanted = tiny_teacher.network(images)
    assert float((network(images) - wanted).abs().max()) > 0.05
    result = recover(tiny_teacher, student, tiny_dreams, ReconstructionSection(ridge=1e-7), seed=0, device=CPU)
    assert result.metrics["relative_error"] < 1e-5
    torch.testing.assert_close(result.recovered.network(images), wanted, rtol=1e-2, atol=1e-2)


def test_features_are_matched_on_the_channels_that_stay(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    student = prune(tiny_teacher, StructuredSection(channel_ratio=0.6, round_to=1), seed=0)
    assert student.channels is not None
    names = block_names(student.network)
    found = kept_features(tiny_teacher.network, student.channels, names, tiny_dreams.images[:2].float())
    assert list(found) == ["layer1.0", "layer2.0", "layer3.0"]
    for name, index in found.items():
        assert index.tolist() == student.channels.outputs[f"{name}.bn2"].nonzero().flatten().tolist()


class Joining(nn.Module):
    """Returns a concatenation, whose channels no layer's plan lists but that of the layer that takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.left(images), self.right(images)], 1)


def test_features_are_found_where_channels_are_joined_and_left_out_where_nothing_lists_them() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Joining(), nn.Conv2d(8, 4, 1), nn.Flatten(1, 2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    first, second = torch.tensor([True, False, True, True]), torch.tensor([False, True, True, True])
    plan = ChannelPlan({"0.left": first, "0.right": second}, {"1": torch.cat([first, second])})
    images = torch.randn(2, 3, 4, 4)
    network.eval().requires_grad_(False)
    assert kept_features(network, plan, ["0", "1"], images)["0"].tolist() == [0, 2, 3, 5, 6, 7]
    hidden = ChannelPlan({"0.left": first}, {"1": torch.cat([first, torch.ones(4, dtype=torch.bool)])})
    assert list(kept_features(network, hidden, ["0.left", "0.right"], images)) == ["0.left", "0.right"]


def test_weights_of_what_is_left_can_go_after_the_channels(cut: Student, tiny_teacher: Teacher, tmp_path: Path) -> None:
    both = prune(tiny_teacher, LampSection(sparsity=0.5), seed=0, start=cut)
    assert both.channels is cut.channels
    assert both.kept.sparsity == pytest.approx(1 - 0.5 * (1 - cut.kept.sparsity), abs=1e-3)
    artifacts.save_student(both, tmp_path / "student")
    again = artifacts.load_student(tmp_path / "student")
    assert all(torch.equal(again.mask.keep[name], kept) for name, kept in both.mask.keep.items())
    with pytest.raises(RecipeError, match="cannot prune a student further"):
        prune(tiny_teacher, StructuredSection(macs_ratio=0.3), seed=0, start=cut)
