from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from resprout import models
from resprout.recipe import TeacherSection
from resprout.sources.hugging_face import from_folder
from resprout.types import ModelInfo
from tests.fuzz.conftest import Fuzz
from tests.fuzz.mutation import changed_json

pytestmark = pytest.mark.filterwarnings("ignore")  # timm and transformers warn of much that is refused
TIMM: dict[str, Any] = {
    "architecture": "resnet10t",
    "num_classes": 3,
    "label_names": ["ash", "elm", "fir"],
    "model_args": {"stem_width": 8, "act_layer": "relu"},
    "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
}
TRANSFORMERS: dict[str, Any] = {
    "architectures": ["ResNetForImageClassification"],
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
    "hidden_act": "relu",
    "num_channels": 3,
    "id2label": {"0": "ash", "1": "elm"},
}


@pytest.mark.parametrize("config", [TIMM, TRANSFORMERS], ids=["timm", "transformers"])
def test_any_configuration_is_that_of_a_network_or_refused(fuzz: Fuzz, tmp_path: Path, config: dict[str, Any]) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    save_file(models.build("cifar_resnet8", num_classes=3).state_dict(), tmp_path / "model.safetensors")

    def read(text: bytes) -> None:
        (tmp_path / "config.json").write_bytes(text)
        found = from_folder(tmp_path, TeacherSection(source=str(tmp_path)))
        names = found.class_names or ("0", "1")
        if found.architecture is not None and found.input is not None:
            ModelInfo(found.architecture, len(names), found.input, names, found.arguments)
        if found.architecture is not None:
            models.build(found.architecture, num_classes=3, arguments=found.arguments)

    fuzz(changed_json(config), read, examples=10, memory=1 << 30)
