from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor, nn

from resprout.sources.files import read_weights
from resprout.sources.fitting import fitted, matched
from tests.fuzz.conftest import Fuzz
from tests.fuzz.mutation import damaged

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of much that is refused


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


STATE: dict[str, Tensor] = network().state_dict()
CHECKPOINT = {
    "model": STATE,
    "ema": {f"module.{name}": tensor for name, tensor in STATE.items()},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 0.1}]},
    "sparse": {"4.weight": STATE["4.weight"].to_sparse()},
    "half": {name: tensor.half() for name, tensor in STATE.items()},
    "epoch": 3,
}
FILES = [saved(STATE), saved(CHECKPOINT), saved(STATE, _use_new_zipfile_serialization=False), save(STATE)]


@st.composite
def repacked(draw: st.DrawFn) -> bytes:
    """An archive whose checksums are right, of members that are damaged: the pickle, most of the time."""
    with zipfile.ZipFile(io.BytesIO(draw(st.sampled_from(FILES[:2])))) as read:
        members = {entry: read.read(entry) for entry in read.infolist()}
    pickled = [entry for entry in members if entry.filename.endswith("data.pkl")]
    chosen = draw(st.sampled_from([*pickled, *pickled, *members]))
    members[chosen] = draw(damaged(members[chosen]))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        for entry, content in members.items():
            written.writestr(entry, content)
    return file.getvalue()


def test_any_file_is_weights_or_refused(fuzz: Fuzz, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found, _ = read_weights(path, "net.pt")
        matched(network(), found, "net.pt", any_size=2)
        fitted(network(), found, "net.pt", "net")

    fuzz(repacked() | st.sampled_from(FILES).flatmap(damaged), read)
