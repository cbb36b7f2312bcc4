"""Channel plans in an artifact: one bit a channel, and in the manifest how many channels there were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from resprout.artifacts.folder import pack_bits, unpack_bits
from resprout.errors import ArtifactError
from resprout.types import ChannelPlan

STEM = "channels"
_SIDES = ("outputs", "inputs")


def pack_plan(plan: ChannelPlan | None) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, int]]]:
    """A plan as an artifact's tensors and as its manifest's facts, both under `channels`; nothing for None."""
    if plan is None:
        return {}, {}
    named = {f"{side}/{layer}": kept for side in _SIDES for layer, kept in getattr(plan, side).items()}
    packed = {name: pack_bits(kept.cpu()) for name, kept in named.items()}
    return {STEM: packed}, {STEM: {name: kept.numel() for name, kept in named.items()}}


def unpack_plan(
    tensors: Mapping[str, Mapping[str, Tensor]], sizes: Mapping[str, int] | None, directory: str | Path
) -> ChannelPlan | None:
    """The plan of an artifact; None where its network has its teacher's shape, as all had before there were plans.

    Raises:
        ArtifactError: the tensors and the manifest do not agree.
    """
    packed = tensors.get(STEM)
    if packed is None and sizes is None:
        return None
    if packed is None or sizes is None or set(sizes) != set(packed):
        raise ArtifactError(f"{directory} lacks its channel plan, or holds one that its manifest does not describe")
    kept = {name: unpack_bits(packed[name], [size]) for name, size in sizes.items()}
    outputs, inputs = (
        {name.removeprefix(f"{side}/"): bits for name, bits in kept.items() if name.startswith(f"{side}/")}
        for side in _SIDES
    )
    return ChannelPlan(outputs, inputs)
