"""Before any work, a network is tried as a run will use it; what it cannot do is told in words about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from resprout import sources
from resprout.errors import UnsupportedModelError
from resprout.progress import Progress
from resprout.recipe import InputSection, TeacherSection
from resprout.rehearsal import rehearse
from resprout.types import InputSpec, ModelInfo, Teacher
from tests.resprout import any_networks as kinds

CPU = torch.device("cpu")
SPEC = InputSpec((3, 16, 16), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
OWN = "tests.resprout.any_networks:"


def section_of(kind: str, folder: Path) -> TeacherSection:
    torch.manual_seed(0)
    network = getattr(kinds, kind)(4)
    # what was trained took the way that can be trained
    kinds.trained(network if kind not in HOPELESS else _as_chain(network))
    torch.save(network.state_dict(), folder / "w.pt")
    return TeacherSection(
        source=str(folder / "w.pt"),
        architecture=f"{OWN}{kind}",
        num_classes=4,
        allow_custom_code=True,
        input=InputSection(shape=SPEC.shape, mean=SPEC.mean, std=SPEC.std),
    )


def teacher_of(network: nn.Module) -> Teacher:
    info = ModelInfo(f"{OWN}{type(network).__name__}", 4, SPEC, tuple("abcd"), custom_code=True)
    return Teacher(info, network)


def _as_chain(network: nn.Module) -> nn.Module:
    chain = kinds.Chain(4)
    chain.load_state_dict(network.state_dict(), strict=False)
    kinds.trained(chain)
    network.load_state_dict(chain.state_dict(), strict=False)
    return chain


HOPELESS = {
    "TwoInputs": "missing 1 required positional argument: 'meta'",
    "FromDictionary": "fails on images of shape [3, 16, 16]",
    "Frozen": "it ends in features.0.0",
    "Rounding": "lets no gradient of its answers through",
    "Quantising": "lets no gradient of its answers through",
    "Detaching": "lets no gradient of its answers through",
    "Raising": "no targets were given",
    "Complex": "has complex weights: gain",
    "Remembering": "answers otherwise after it was saved and built again",
}


@pytest.mark.parametrize("kind", HOPELESS)
def test_what_a_network_cannot_do_is_told_before_any_work(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError) as refused:
        sources.fetch(section_of(kind, tmp_path))
    error = refused.value
    assert f"{OWN}{kind}" in error.what
    assert HOPELESS[kind] in f"{error.what} {error.why}"
    assert error.now


@pytest.mark.parametrize("kind", ["TwoInputs", "FromDictionary", "Raising"])
def test_a_failure_of_own_code_is_told_with_its_line(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError) as refused:
        sources.fetch(section_of(kind, tmp_path))
    if kind != "TwoInputs":  # there the call itself fails
        assert re.search(r"any_networks\.py line \d+", refused.value.why)


def test_the_module_that_failed_is_named() -> None:
    network = kinds.trained(kinds.Chain(4))
    network.features[2].append(nn.Linear(3, 3))
    with pytest.raises(UnsupportedModelError) as refused:
        rehearse(teacher_of(network), device=CPU)
    assert "in its module features.2.3" in refused.value.why


@pytest.mark.parametrize(
    "kind", ["Chain", "Viewing", "Cube", "Auxiliary", "Resolutions", "Idle", "Skipping", "Shared", "Changing", "Gated"]
)
def test_what_can_work_works(kind: str, tmp_path: Path) -> None:
    teacher = sources.fetch(section_of(kind, tmp_path))
    assert teacher.info.channels_last == (kind != "Viewing")
    said = " ".join(teacher.notes)
    assert ("contiguously" in said) == (kind == "Viewing")
    assert ("no image reaches play no part: projector.1" in said) == (kind == "Idle")
    assert ("run several times in a pass, and count with all their uses: norm (3)" in said) == (kind == "Shared")
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in teacher.network.children())


def test_a_network_that_bfloat16_does_not_suit_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resprout.precision._has_bfloat16", lambda _device: True)
    network = kinds.trained(kinds.Transforming(4))
    teacher = rehearse(teacher_of(network), device=CPU)
    assert not teacher.info.bfloat16
    assert "computes in float32" in " ".join(teacher.notes)
    network = kinds.trained(kinds.Chain(4))
    assert rehearse(teacher_of(network), device=CPU).info.bfloat16


def test_it_says_how_far_it_is_and_how_long_it_took() -> None:
    told: list[Progress] = []
    network = kinds.trained(kinds.Chain(4))
    rehearse(teacher_of(network), device=CPU, report=told.append)
    assert [each.done for each in told] == [1, 2, 3, 4]
    assert all(each.total == 4 and each.figures["seconds"] > 0 for each in told)


def test_a_layer_that_was_never_trained_matters_only_where_images_pass_it() -> None:
    network: Any = kinds.trained(kinds.Idle(4))
    network.projector[1].reset_running_stats()
    assert rehearse(teacher_of(network), device=CPU)
    network.features[1][1].reset_running_stats()
    with pytest.raises(UnsupportedModelError, match=r"never trained .*features\.1\.1"):
        rehearse(teacher_of(network), device=CPU)


def test_a_network_in_which_every_image_is_lost_is_told_so() -> None:
    network: Any = kinds.trained(kinds.Chain(4))
    network.features[1][1].running_mean += 1000
    with pytest.raises(UnsupportedModelError, match="answers all images alike"):
        rehearse(teacher_of(network), device=CPU)
