"""Files where a stage keeps its state, damaged before they were sealed and after: each is used whole, or not at all."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors.torch import save
from torch import nn

from resprout.checkpoints import FolderCheckpoint
from resprout.recovery.distillation import _put_back, _State
from resprout.sealing import MAC_BYTES, Seals, State
from tests.fuzz.conftest import Fuzz
from tests.fuzz.mutation import changed, damaged

KEY, NAME, EPOCHS = b"k" * 32, "recovery-0", 4
ABOUT = {"epoch": 2, "curves": {"train_kl": [1.0, 0.5]}, "best_kl": 0.5, "kept": "epoch 2", "figures": {"kl": 0.5}}


@pytest.fixture
def state() -> _State:
    """A training of a very small network, after a step."""
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    return _State(network, optimizer, torch.Generator(), best)


@pytest.fixture
def tensors(state: _State) -> dict[str, torch.Tensor]:
    made = {f"{part}.{name}": tensor.clone() for part in ("network", "best") for name, tensor in state.best.items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        made |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    return {**made, "generator": state.generator.get_state()}


def contents(tensors: dict[str, torch.Tensor]) -> SearchStrategy[bytes]:
    """What is sealed: bytes that were damaged, or facts that were changed."""
    facts = {"about": json.dumps(ABOUT), "resumed": json.dumps(["0" * 64])}
    changes = changed(ABOUT).map(lambda about: save(tensors, {**facts, "about": json.dumps(about)}))
    return damaged(save(tensors, facts)) | changes


def bits(state: _State) -> list[Any]:
    moments = [value for each in state.optimizer.state_dict()["state"].values() for value in each.values()]
    parts = [*state.network.state_dict().values(), *state.best.values(), *moments, state.generator.get_state()]
    return [[tensor.tolist() for tensor in parts], state.epoch, state.kept, state.figures, state.curves, state.best_kl]


def test_whatever_was_sealed_is_used_whole_or_not_at_all(
    fuzz: Fuzz, tmp_path: Path, state: _State, tensors: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"{NAME}.checkpoint"

    def load(content: bytes) -> None:
        path.write_bytes(Seals(KEY)._mac(NAME, content) + content)
        fresh = copy.deepcopy(state)
        before = bits(fresh)

        def put_back(found: State) -> bool:
            _put_back(fresh, EPOCHS, *found)
            return True

        checkpoint = FolderCheckpoint(tmp_path, KEY)
        if checkpoint.load(NAME, put_back, at_most=1 << 20):
            assert 1 <= fresh.epoch <= EPOCHS
            assert checkpoint.resumed != ()
        else:
            assert bits(fresh) == before
            assert checkpoint.resumed == ()

    with caplog.at_level(logging.WARNING):
        fuzz(contents(tensors), load)
    assert not any(error in caplog.text for error in ("MemoryError", "TimeoutError")), "it was only caught"


def test_what_was_changed_after_it_was_sealed_is_never_used(
    fuzz: Fuzz, tmp_path: Path, tensors: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"{NAME}.checkpoint"
    FolderCheckpoint(tmp_path, KEY).save(NAME, tensors, ABOUT)
    valid = path.read_bytes()

    def load(content: bytes) -> None:
        path.write_bytes(content)
        checkpoint = FolderCheckpoint(tmp_path, KEY)
        found = checkpoint.load(NAME, lambda state: state, at_most=1 << 20)
        assert (found is not None) == (content == valid)
        assert bool(checkpoint.resumed) == (content == valid)

    with caplog.at_level(logging.WARNING):
        fuzz(damaged(valid) | st.binary(max_size=2 * MAC_BYTES), load)
    assert not any(error in caplog.text for error in ("MemoryError", "TimeoutError")), "it was only caught"
