"""Bringing a network and a checkpoint together, and saying what that took."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from resprout.batchnorm import batch_norm_layers
from resprout.errors import UnsupportedModelError
from resprout.models.checks import check_has_batch_norm
from resprout.models.plain import is_reparametrised, plain
from resprout.sources.checks import check_finite
from resprout.sources.folding import FLOATS
from resprout.sources.matching import Match, best_match
from resprout.sources.misfit import misfit
from resprout.sources.names import Names
from resprout.wording import listed


def fitted(network: nn.Module, content: Any, source: str, architecture: str) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with a checkpoint's weights, in plain layers.

    Args:
        network: as its author wrote it; is changed.
        content: as for `best_match`.
        source, architecture: what messages call the checkpoint and the network.

    Returns:
        The network, and what was done to make the two fit, a sentence each.

    Raises:
        UnsupportedModelError: the weights do not fit, several sets do, they are no plain numbers, NaN or infinite, or
            the network cannot be made plain.
    """
    network, match, done = matched(network, content, source)
    check_numbers(match, network, source)
    if not match.fits:
        check_has_batch_norm(batch_norm_layers(network), architecture)  # where it has none, no other weights would help
        raise misfit(match, Names(network), source, architecture)
    check_finite(match.state, source)
    network.load_state_dict(match.state, strict=False)
    network, more = plain(network)
    return network, (*done, *_told(match), *more)


def matched(
    network: nn.Module, content: Any, source: str, *, any_size: int | None = None
) -> tuple[nn.Module, Match, tuple[str, ...]]:
    """What fits a network as it is written, or else in plain layers; that network, and what was done to it."""
    if is_reparametrised(network):  # only such a network itself knows what its parts stand for
        match = best_match(content, network, source, any_size=any_size)
        if match.fits:
            return network, match, ()
    network, done = plain(network)
    return network, best_match(content, network, source, any_size=any_size), done


def check_numbers(match: Match, network: nn.Module, source: str) -> None:
    """Refuse tensors under the network's names that are no plain numbers: quantised, on the meta device, …"""
    own = network.state_dict()
    for name, tensor in match.state.items():
        if odd := _oddity(tensor, own[name]):
            origin = match.entries[match.names[name]].origin
            raise UnsupportedModelError(
                f"{origin} in '{source}' is {odd}, where {own[name].dtype} is expected",
                why="its numbers alone are not the weights: taken as such they make another network",
                now="save plain weights: from before quantisation, or dequantised, as float32, float16 or bfloat16",
            )


def _oddity(tensor: Tensor, own: Tensor) -> str:
    if tensor.is_meta:
        return "without values, on torch's meta device"
    if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer) or tensor.is_nested:
        return f"a {type(tensor).__name__}" if not tensor.is_nested else "a nested tensor"
    if own.is_floating_point() and tensor.dtype not in FLOATS:
        return str(tensor.dtype)
    return ""


def _told(match: Match) -> Iterator[str]:
    yield from match.notes
    prefixes = [prefix.removeprefix(match.container) for prefix in (match.prefix, match.second or "")]
    if taken_off := [f"'{prefix}'" for prefix in prefixes if prefix]:
        yield f"names: {' and '.join(taken_off)} {'was' if len(taken_off) == 1 else 'were'} taken off"
    if match.lacking:
        yield f"names: '{match.lacking}' was put before"
    if match.passed_over:
        yield f"passed over, as no layer of the network: {listed(match.passed_over)}"
    if match.as_built:
        yield f"kept as the network is built, for they are not in the checkpoint: {listed(match.as_built)}"
