"""From a teacher on this machine to a gate on what was published: what is submitted is executed, as it was uploaded.

The fake KFP keeps what it is sent. Here kfp.local executes that: the uploaded version, with the parameters as KFP's
database gives them back. Teacher and result go through a real object store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from google.protobuf import json_format, struct_pb2
from kfp import components
from torch import Tensor

from pipeline import local_kfp
from resprout import artifacts, datasets
from resprout.types import LabelledImages, Teacher
from tests.pipeline.cluster.argo import pod_of
from tests.pipeline.cluster.conftest import Resprout
from tests.pipeline.cluster.fake_kfp import FakeKfp, Scene
from tests.pipeline.warm import forked

RECIPE = {
    "synthesis": {"num_images": 32, "num_held_out": 16, "group_size": 16, "iterations": 4},
    "recovery": {"epochs": 1, "batch_size": 16},
    "pruning": {"sparsity": 0.6},
    "gate": {"min_sparsity": 0.55},
}


def as_stored(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as KFP hands them on: what is inside a dictionary went through protobuf, which knows no integers."""

    def through(value: Any) -> Any:
        message = struct_pb2.Value()
        json_format.ParseDict(value, message)
        return json_format.MessageToDict(message)

    return {name: through(value) if isinstance(value, dict | list) else value for name, value in parameters.items()}


class Names(local_kfp.Listener):
    def __init__(self) -> None:
        self.ended_well: list[str] = []
        self.logs: dict[str, list[str]] = defaultdict(list)

    def said(self, task: local_kfp.Task, line: str) -> None:
        self.logs[task.name].append(line)

    def ended(self, task: local_kfp.Task, exit_code: int) -> None:
        if exit_code == 0:
            self.ended_well.append(task.name)


@pytest.mark.slow
@pytest.mark.usefixtures("storage_configured")
def test_what_is_submitted_runs_and_what_it_publishes_passes_the_gate(
    kfp: FakeKfp, resprout: Resprout, tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    prefix = f"s3://resprout/tests/{tmp_path.name}"
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    pixels = (tiny_teacher.info.input.to_pixels(tiny_images[0][:64]) * 255).round().to(torch.uint8)
    test_set = LabelledImages(pixels, tiny_images[1][:64], tiny_teacher.info.class_names)
    datasets.save_labelled(test_set, tmp_path / "test.safetensors")
    recipe = tmp_path / "tiny.yaml"
    sections = {
        "teacher": {"source": f"{prefix}/teacher"},
        "evaluation": {"data": f"{prefix}/test.safetensors"},
        "publishing": {"to": f"{prefix}/models", "version": "1"},
        "placement": {"gpus": 0, "num_shards": 2, "checkpoints": f"{prefix}/checkpoints"},
    }
    recipe.write_text(yaml.safe_dump(RECIPE | sections))

    for name in ("teacher", "test.safetensors"):
        stored = resprout("storage", "put", tmp_path / name, f"{prefix}/{name}")
        assert stored.exit_code == 0, stored.output
    submitted = resprout("submit", recipe)
    assert submitted.exit_code == 0, submitted.output
    (run,), (version,) = kfp.runs.values(), kfp.versions.values()
    names = Names()
    with (tmp_path / "log").open("w") as log:
        ended_well = local_kfp.run(
            components.load_component_from_text(yaml.safe_dump(version.pipeline_spec["pipeline_spec"])),
            as_stored(run.runtime_config.parameters),
            root=tmp_path / "work",
            log=log,
            listener=names,
            execute=forked(),
        )
    assert ended_well, (tmp_path / "log").read_text()
    kfp.plays(Scene("SUCCEEDED", {name.replace("_", "-"): "SUCCEEDED" for name in names.ended_well}))
    kfp.logs = {pod_of(name): "\n".join(names.logs[name]) for name in ("gate", "publish")}
    waited = resprout("runs", "show", run.run_id, "--wait")
    judged = resprout("gate", recipe, f"{prefix}/models/tiny/1")
    too_strict = resprout("gate", recipe, f"{prefix}/models/tiny/1", "--set", "gate.min_sparsity=0.9")

    assert names.ended_well.count("synthesize") == 2
    assert names.ended_well[-1] == "publish"
    assert (waited.exit_code, judged.exit_code, too_strict.exit_code) == (0, 0, 1), waited.output + judged.output
    assert f"gate       1 of 1 limits are kept\npublished  {prefix}/models/tiny/1" in waited.output
    assert any(line.startswith("recovered ") and line.count("%") == 2 for line in waited.output.splitlines())
