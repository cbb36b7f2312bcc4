"""Fetching says on how much of a network dreams rest."""

from __future__ import annotations

from torch import nn

from resprout.sources.norms import notes_on_norms, other_norm_layers
from resprout.types import Teacher


def test_a_network_that_normalises_by_batchnorm_alone_needs_no_word(tiny_teacher: Teacher) -> None:
    assert notes_on_norms(tiny_teacher.network) == ()


def test_layers_that_keep_no_statistics_are_counted_and_named() -> None:
    class RmsNorm(nn.Module):
        """One of a user's own."""

    network = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.GroupNorm(1, 3),
        nn.Sequential(nn.LayerNorm(3), RmsNorm()),
    )
    assert set(other_norm_layers(network)) == {"1", "2", "3.0", "3.1"}
    assert notes_on_norms(network) == (
        "dreams rest on the 1 of 5 normalising layers that keep statistics; "
        "BatchNorm2d, GroupNorm, LayerNorm, … (4 in all) keep none",
    )
