"""Students that lost channels: stored, read again, judged and recovered."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.inspection import describe
from resprout import artifacts, figures
from resprout.channels import shrink, whole_mask, zeroed
from resprout.errors import ArtifactError, RecipeError
from resprout.evaluation import evaluate
from resprout.precision import sound_gradients
from resprout.pruning import prune
from resprout.recipe import DistillationSection, LampSection, ReconstructionSection, StructuredSection
from resprout.recovery import recover
from resprout.recovery.features import block_names, kept_features
from resprout.types import ChannelPlan, DreamSet, Student, Teacher

CPU = torch.device("cpu")


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


def test_weights_gradients_are_right_where_few_channels_are_projected_with_a_stride() -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(6, 12, 1, stride=2, bias=False)).to(memory_format=torch.channels_last)
    for _ in range(20):  # what is written past the end need not be noticed at once
        images = torch.randn(32, 6, 16, 16, generator=generator).contiguous(memory_format=torch.channels_last)
        network.zero_grad()
        with sound_gradients(network):
            network(images).sum().backward()
        seen = images[:, :, ::2, ::2].double().sum((0, 2, 3))
        for gradient in network[0].weight.grad.flatten(1):
            torch.testing.assert_close(gradient.double(), seen, rtol=1e-4, atol=1e-3)
    assert network[0].stride == (2, 2)
    assert network(images).shape == (32, 12, 8, 8)
