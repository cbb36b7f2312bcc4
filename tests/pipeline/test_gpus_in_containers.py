"""A container that was handed a GPU computes on it, or its stage fails: never for hours on the processor instead."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline import containers, local_kfp, runners
from pipeline.run_folder import RunFolder
from pipeline.watch import PlainScreen
from resprout.recipe import Recipe


@pytest.mark.parametrize(
    ("driver", "asked", "in_containers", "required"),
    [(True, 1, True, 1), (True, 4, True, 1), (True, 0, True, 0), (False, 1, True, 0), (True, 1, False, 0)],
)
def test_stages_ask_for_the_gpu_that_their_containers_are_handed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: bool, asked: int, in_containers: bool, required: int
) -> None:
    seen: list[int] = []

    def run(_: Any, inputs: dict[str, Any], **__: Any) -> bool:
        seen.append(inputs["placement"]["gpus"])
        raise KeyboardInterrupt

    monkeypatch.setattr(containers, "NVIDIA_DRIVER", tmp_path if driver else tmp_path / "not there")
    monkeypatch.setattr(containers, "containers", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(local_kfp, "run", run)
    monkeypatch.setattr("pipeline.embedded_storage.installed", lambda: False)
    recipe = Recipe.model_validate({"teacher": {"source": "torchvision://resnet18"}, "placement": {"gpus": asked}})
    screen = PlainScreen(Console(file=io.StringIO()))
    with pytest.raises(KeyboardInterrupt):
        runners.run(recipe, RunFolder(tmp_path / "run"), screen, in_containers=in_containers)
    assert seen == [required]
