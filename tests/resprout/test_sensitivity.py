"""The scan prunes one layer at a time, says what that costs, and leaves the teacher as it was."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from torch.nn.utils import prune as torch_prune

from resprout import artifacts, datasets
from resprout.errors import ArtifactError, DatasetError, RecipeError
from resprout.evaluation import evaluate
from resprout.heldout import with_blends
from resprout.progress import Progress
from resprout.recipe import SensitivitySection, validate
from resprout.recovery import repair
from resprout.sensitivity import one_layer_pruned, scan
from resprout.types import DreamSet, LabelledImages, PruningMask, Sensitivity, Student, Teacher

EXAMPLE = Path(__file__).parents[2] / "examples" / "resnet20-cifar10"
RAW = SensitivitySection(repair_dreams=0, sparsities=(0.5, 0.9))


@pytest.fixture
def labelled(tiny_teacher: Teacher) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 16, 16), generator=generator).byte()
    return LabelledImages(images, torch.arange(40) % 4, tiny_teacher.info.class_names)


def test_each_figure_is_what_torchs_own_pruning_of_that_layer_alone_gives(
    tiny_teacher: Teacher, tiny_dreams: DreamSet, labelled: LabelledImages
) -> None:
    found = scan(tiny_teacher, tiny_dreams, RAW, data=labelled)
    asked = with_blends(tiny_dreams.held_out[0])
    with torch.no_grad():
        expected = tiny_teacher.network(asked)
        for row, name in enumerate(found.layers):
            for column, sparsity in enumerate(found.sparsities):
                network = copy.deepcopy(tiny_teacher.network)
                layer = network.get_submodule(name.removesuffix(".weight"))
                layer.requires_grad_(True)
                torch_prune.l1_unstructured(layer, "weight", sparsity)
                logits = network(asked)
                agreement = (logits.argmax(1) == expected.argmax(1)).double().mean()
                assert float(found.agreement[row, column]) == pytest.approx(float(agreement), abs=1e-9)
                kl = functional.kl_div(
                    logits.log_softmax(1), expected.log_softmax(1), log_target=True, reduction="batchmean"
                )
                assert float(found.kl_divergence[row, column]) == pytest.approx(float(kl), rel=1e-3, abs=1e-6)
                pixels = tiny_teacher.info.input.normalise(labelled.images.float() / 255)
                right = (network(pixels).argmax(1) == labelled.labels).double().mean()
                assert found.top1 is not None
                assert float(found.top1[row, column]) == pytest.approx(float(right), abs=1e-9)


def test_what_changes_nothing_costs_nothing(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    idle = tiny_teacher.network.get_submodule("layer2.0.bn2")  # its branch adds nothing, whatever it computes
    idle.weight.zero_()
    idle.bias.zero_()
    zeroed = tiny_teacher.network.get_parameter("layer3.0.conv1.weight")
    zeroed[zeroed.shape[0] // 2 :].zero_()
    section = SensitivitySection(repair_dreams=0, sparsities=(0.001, 0.5, 0.98))
    found = scan(tiny_teacher, tiny_dreams, section)
    agreement = dict(zip(found.layers, found.agreement, strict=True))
    kl = dict(zip(found.layers, found.kl_divergence, strict=True))
    assert agreement["layer2.0.conv2.weight"].tolist() == [1, 1, 1]
    assert kl["layer2.0.conv2.weight"].tolist() == pytest.approx([0, 0, 0], abs=1e-9)
    assert agreement["layer3.0.conv1.weight"][:2].tolist() == [1, 1]
    assert agreement["layer3.0.conv1.weight"][2] < 1
    assert agreement["conv1.weight"][0] == 1  # a thousandth of 216 weights is none


def test_the_teacher_is_left_alone_and_the_same_scan_gives_the_same_figures(
    tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    before = copy.deepcopy(tiny_teacher.network.state_dict())
    section, told = SensitivitySection(sparsities=(0.9, 0.5, 0.9), repair_dreams=64, exclude=("layer*",)), []
    found = scan(tiny_teacher, tiny_dreams, section, report=told.append)
    again = scan(tiny_teacher, tiny_dreams, section)
    assert found.sparsities == (0.5, 0.9)
    assert found.layers == ("conv1.weight", "fc.weight")
    assert torch.equal(found.agreement, again.agreement)
    assert torch.equal(found.kl_divergence, again.kl_divergence)
    assert all(torch.equal(before[name], value) for name, value in tiny_teacher.network.state_dict().items())
    assert not tiny_teacher.network.training
    assert [line.done for line in told] == [1, 2, 3, 4]
    assert told[-1] == Progress("sensitivity", 4, 4, "prunings", told[-1].figures)
    assert found.num_repair_dreams == 64


def test_batchnorm_is_reestimated_where_asked_for(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    raw = scan(tiny_teacher, tiny_dreams, SensitivitySection(repair_dreams=0, sparsities=(0.9,)))
    mended = scan(tiny_teacher, tiny_dreams, SensitivitySection(repair_dreams=192, sparsities=(0.9,)))
    assert not torch.equal(raw.kl_divergence, mended.kl_divergence)
    assert (raw.num_repair_dreams, mended.num_repair_dreams) == (0, 192)
    unpruned = repair(Student(tiny_teacher.info, tiny_teacher.network, PruningMask({})), tiny_dreams)
    score = evaluate(tiny_teacher, {"unpruned": unpruned}, tiny_dreams).score("unpruned")
    assert (raw.whole_agreement, mended.whole_agreement) == (1, score.agreement)


def test_a_layer_keeps_a_weight_at_any_sparsity(tiny_teacher: Teacher) -> None:
    student = one_layer_pruned(tiny_teacher, "conv1.weight", 0.9999)
    assert student.mask.num_kept == 1
    assert int((student.network.get_parameter("conv1.weight") != 0).sum()) == 1
    nothing = one_layer_pruned(tiny_teacher, "conv1.weight", 0.0)
    for name, value in nothing.network.state_dict().items():
        assert torch.equal(value, tiny_teacher.network.state_dict()[name]), name


def test_a_real_networks_ends_are_sensitive_and_more_so_the_more_goes() -> None:
    teacher = artifacts.load_teacher(EXAMPLE / "teacher")
    images = datasets.load_labelled(EXAMPLE / "test2000", info=teacher.info, max_images=60)
    asked = teacher.info.input.normalise(images.images.float() / 255).half()
    dreams = DreamSet(asked, images.labels, num_held_out=40, num_classes=10)
    kept_whole = ("layer1.*", "layer2.*", "layer3.[01].*", "layer3.2.conv1.weight")
    section = SensitivitySection(repair_dreams=0, sparsities=(0.5, 0.98), exclude=kept_whole)
    found = scan(teacher, dreams, section)
    assert found.layers == ("conv1.weight", "layer3.2.conv2.weight", "fc.weight")
    assert (found.agreement[:, 0] >= found.agreement[:, 1]).all()
    assert (found.kl_divergence[:, 0] <= found.kl_divergence[:, 1]).all()
    assert found.ranking()[-1][0] == "layer3.2.conv2.weight"


def test_scans_that_cannot_be_made_are_refused(
    tiny_teacher: Teacher, tiny_dreams: DreamSet, labelled: LabelledImages
) -> None:
    with pytest.raises(ArtifactError, match="no dreams are held out"):
        scan(tiny_teacher, dataclasses.replace(tiny_dreams, num_held_out=0), RAW)
    with pytest.raises(ArtifactError, match="0 dreams to re-estimate BatchNorm on"):
        scan(tiny_teacher, dataclasses.replace(tiny_dreams, num_held_out=256), SensitivitySection())
    with pytest.raises(DatasetError, match=r"the teacher takes \[3, 16, 16\]"):
        scan(tiny_teacher, tiny_dreams, RAW, data=dataclasses.replace(labelled, images=labelled.images[:, :, :8]))
    with pytest.raises(RecipeError, match=r"conv9(.|\n)*matches no"):
        scan(tiny_teacher, tiny_dreams, SensitivitySection(exclude=("conv9.weight",)))
    for fields in ({"sparsities": [1.0]}, {"sparsities": []}, {"repair_dreams": -1}, {"sparsity": 0.5}):
        with pytest.raises(RecipeError):
            validate(SensitivitySection, fields, "scan")


def small() -> Sensitivity:
    agreement = torch.tensor([[0.9, 0.2], [0.8, 0.9], [0.9, 0.2]], dtype=torch.float64)
    kl = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], dtype=torch.float64)
    return Sensitivity(
        ("a.weight", "b.weight", "c.weight"), (10, 20, 30), (0.5, 0.9), agreement, kl, agreement / 2, 0.5, 64, 32
    )


def test_the_ranking_is_by_lost_answers_then_by_kl() -> None:
    assert [name for name, _ in small().ranking()] == ["c.weight", "a.weight", "b.weight"]
    assert [lost for _, lost in small().ranking()] == pytest.approx([0.45, 0.45, 0.15])
    mended = dataclasses.replace(small(), whole_agreement=0.95)
    assert [lost for _, lost in mended.ranking()] == pytest.approx([0.4, 0.4, 0.1])


@pytest.mark.parametrize("with_top1", [True, False])
def test_a_scan_comes_back_from_its_folder_with_a_table(tmp_path: Path, with_top1: bool) -> None:
    kept = small() if with_top1 else dataclasses.replace(small(), top1=None, teacher_top1=None)
    artifacts.save_sensitivity(kept, tmp_path / "scan", section=RAW, page="<p>page</p>")
    found = artifacts.load_sensitivity(tmp_path / "scan")
    for field in dataclasses.fields(Sensitivity):
        before, after = getattr(kept, field.name), getattr(found, field.name)
        assert torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after, field.name
    lines = (tmp_path / "scan" / "sensitivity.csv").read_text().splitlines()
    assert lines[1] == "a.weight,10,0.5,0.9,0.1," + ("0.45" if with_top1 else "")
    assert len(lines) == 7
    assert (tmp_path / "scan" / "sensitivity.html").read_text() == "<p>page</p>"


def test_figures_that_do_not_fit_their_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"agreement is \[2, 2\], not \[3, 2\]"):
        dataclasses.replace(small(), agreement=small().agreement[:2])
    artifacts.save_artifact(tmp_path / "x", kind="sensitivity", about={"layers": ["a"]})
    with pytest.raises(ArtifactError, match="does not describe"):
        artifacts.load_sensitivity(tmp_path / "x")
