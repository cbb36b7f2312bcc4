from __future__ import annotations

import pytest
import torch

from resprout.heldout import with_blends


def test_blends_follow_the_dreams_and_one_dream_alone_has_none() -> None:
    dreams = torch.stack([torch.full((1, 2, 2), value, dtype=torch.float16) for value in (0.0, 1.0, 4.0)])
    assert with_blends(dreams)[:, 0, 0, 0].tolist() == pytest.approx([0, 1, 4, 1.2, 0.7, 3.1, 2, 0.5, 2.5])
    assert torch.equal(with_blends(dreams[:1]), dreams[:1].float())
    assert len(with_blends(dreams[:0])) == 0
