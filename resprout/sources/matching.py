"""Finding, in whatever a checkpoint holds, the tensors that a network's names stand for.

Nobody's list of wrappers and prefixes is complete, so the names themselves decide: a name of the checkpoint that ends
with a name of the network has the rest as its prefix, and the prefix under which all fits is the right one. Keys of
nested mappings count as prefixes too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from resprout.errors import UnsupportedModelError
from resprout.sources.contents import Entries, Entry, entries_of, variants
from resprout.sources.names import COUNT, Names, is_statistic
from resprout.wording import listed

_AVERAGED = re.compile(r"(?:^|[^a-z])(?:ema|swa|avg|averag|shadow)|modelema", flags=re.IGNORECASE)
# Lightning's WeightAveraging keeps the averaged weights as state_dict, and beside them these
_NOT_AVERAGED = "current_model_state"
# what training leaves beside the weights
_BESIDE = re.compile(r"(?:^|[._])(?:criteri|loss|metric|optim|sched|queue|class_weight|pos_weight)", re.IGNORECASE)
_COUNTED = ("total_ops", "total_params")  # by thop, as floats
_NORMALISATION = ("mean", "std", "pixel_mean", "pixel_std")


@dataclass(frozen=True)
class Match:
    """The names of a network, looked for under one prefix.

    Args:
        entries: what the checkpoint holds.
        prefix: what the checkpoint's names have before the network's.
        second: likewise, where the rest of the network lies under another prefix, as a head beside its backbone.
        lacking: what the network's names have before the checkpoint's.
        names: the network's name -> the checkpoint's, of the same shape.
        misshapen: likewise, of another shape.
        missing: the network's names that the checkpoint lacks.
        left_over: the checkpoint's names under this prefix that look like layers, and that the network lacks.
        passed_over: the checkpoint's names that are none of the network's, and no layers under this prefix.
        as_built: the network's own buffers outside `lacking`, which stay.
        notes: what was done to the names, a sentence each.
    """

    entries: Entries
    prefix: str
    lacking: str
    names: Mapping[str, str]
    second: str | None = None
    misshapen: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()
    left_over: Sequence[str] = ()
    passed_over: Sequence[str] = ()
    as_built: Sequence[str] = ()
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every name of the network has its tensor, and no layer is left."""
        return not (self.misshapen or self.missing or self.left_over)

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors that fit, by the network's names."""
        return {name: self.entries[found].tensor for name, found in self.names.items()}

    @property
    def container(self) -> str:
        """The keys that lead to the mapping that most of it lies in."""
        containers = [self.entries[found].container for found in self.names.values()]
        return max(dict.fromkeys(containers), key=containers.count, default="")

    @property
    def called(self) -> str:
        """What messages call this set of weights."""
        return self.prefix.rstrip(".") or "those under plain names"

    @property
    def averaged(self) -> bool:
        """Whether these weights are an average over training."""
        for name, entry in self.entries.items():
            if name.endswith("n_averaged") and self.prefix.startswith(name.removesuffix("n_averaged") + "module."):
                return bool(entry.tensor.max() > 0)  # 0: averaging never began
        return _AVERAGED.search(self.prefix) is not None


def best_match(content: Any, network: nn.Module, source: str, *, any_size: int | None = None) -> Match:
    """The tensors that fit a network, or, where not all do, the set that comes nearest.

    Args:
        content: what a checkpoint holds: names -> tensors, or mappings of such at any depth.
        network: is only looked at.
        source: what messages call the checkpoint.
        any_size: a size in the network's shapes that every size fits.

    Raises:
        UnsupportedModelError: several sets of weights fit, and nothing says which is meant.
    """
    own, entries = Names(network, any_size), entries_of(content)
    strangers = [name for name in entries if not name.endswith(COUNT)]
    nearest = Match(entries, "", "", {}, missing=own.wanted, left_over=strangers)
    for changed, notes in variants(entries, own.shapes):
        places = _places(changed, own)
        matches = [replace(match, notes=notes) for match in _matches(changed, own, places)]
        if fitting := [match for match in matches if match.fits]:
            chosen = _chosen(fitting, source)
            return replace(chosen, notes=(*chosen.notes, *_averaged_in_part(places, own, chosen)))
        nearest = max([nearest, *matches], key=lambda match: len(match.names))
    return nearest


@dataclass(frozen=True)
class Place:
    """The network's names that the checkpoint has under a prefix, `names`, and the tensors whose shape is right."""

    names: Mapping[str, str]
    right: set[int]
    container: str


Places = Mapping[tuple[str, str], Place]


def _places(entries: Entries, own: Names) -> Places:
    """Every prefix of the checkpoint's names, with each that the network's names have instead."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in entries:
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            for lacking in own.prefixes:
                if lacking + name[start:] in own.shapes:
                    found.setdefault((name[:start], lacking), {})[lacking + name[start:]] = name
    return {
        place: Place(
            names,
            own.distinct(name for name, other in names.items() if own.takes(name, entries[other].tensor)),
            entries[next(iter(names.values()))].container,
        )
        for place, names in found.items()
    }


def _matches(entries: Entries, own: Names, places: Places) -> Iterator[Match]:
    """A match for each prefix under which all that the network wants is there, or else for the most usual one."""
    full = [place for place, found in places.items() if found.right == own.distinct(own.under(place[1]))]
    taken = {name for place in full for name in places[place].names.values()}
    most = max((len(found.right) for found in places.values()), default=0)
    for prefix, lacking in full or [place for place, found in places.items() if len(found.right) == most]:
        here, named, second = places[prefix, lacking], places[prefix, lacking].names, None
        missing = own.distinct(own.under(lacking)) - here.right
        rests = {}
        for (other, also), found in places.items():
            rest = {name: there for name, there in found.names.items() if own.distinct([name]) <= missing}
            if also == lacking and missing <= found.right and not {*rest.values()} & {*named.values()}:
                rests[other] = rest
        inside = [other for other in rests if places[other, lacking].container == here.container] or [*rests]
        if missing and len(inside) == 1:
            second = inside[0]
            named = {**named, **rests[second]}
        yield _match(entries, own, (prefix, lacking, second), named, taken)


def _averaged_in_part(places: Places, own: Names, chosen: Match) -> Iterator[str]:
    """What to say of weights averaged over training that lack BatchNorm's statistics, which are of no use alone."""
    wanted = own.under(chosen.lacking)
    statistics = own.distinct(name for name in wanted if is_statistic(name))
    for (prefix, lacking), found in places.items():
        if lacking == chosen.lacking and _AVERAGED.search(prefix) and own.distinct(wanted) - found.right == statistics:
            yield f"weights: {prefix.rstrip('.')} was not taken, which is averaged but lacks BatchNorm's statistics"


def _match(
    entries: Entries, own: Names, place: tuple[str, str, str | None], named: Mapping[str, str], taken: set[str]
) -> Match:
    prefix, lacking, second = place
    # where layers share a tensor, it may be there once
    by_tensor = {tensor: found for name, found in named.items() for tensor in own.distinct([name])}
    names = dict(named)
    for name in own.under(lacking):
        for tensor in own.distinct([name]) & by_tensor.keys():
            names.setdefault(name, by_tensor[tensor])
    right = {name: found for name, found in names.items() if own.takes(name, entries[found].tensor)}
    containers = {entries[found].container for found in names.values()}
    others = [name for name in entries if name not in taken and name not in names.values()]
    beside = [name for name in others if entries[name].container in containers and not name.endswith(COUNT)]
    left_over = [
        name
        for name in beside
        for under in [prefix if name.startswith(prefix) else second]
        if under is not None and name.startswith(under)
        if _is_layer(lacking + name.removeprefix(under), entries[name], own)
    ]
    return Match(
        entries,
        prefix,
        lacking,
        right,
        second,
        misshapen={name: found for name, found in names.items() if name not in right and not name.endswith(COUNT)},
        missing=[name for name in own.under(lacking) if name not in names],
        left_over=left_over,
        passed_over=[name for name in beside if name not in left_over],
        as_built=[name for name in own.wanted if not name.startswith(lacking)],
    )


def _is_layer(name: str, entry: Entry, own: Names) -> bool:
    """Whether a tensor that the network has no name for looks as if its answers depended on it."""
    module, _, leaf = name.rpartition(".")
    tensor = entry.tensor
    if tensor.numel() <= 1:  # counters, temperatures; but within a layer it may be a gate
        return module in own.modules and tensor.is_floating_point() and leaf not in _COUNTED
    if not tensor.is_floating_point() and not tensor.is_complex():
        return leaf in ("weight", "bias") or "mask" in leaf
    return module in own.modules or not (_BESIDE.search(name) or leaf in _NORMALISATION)


def _chosen(fitting: Sequence[Match], source: str) -> Match:
    """The one set of weights that fits, or the averaged one of several."""
    distinct: list[Match] = []
    for match in sorted(fitting, key=lambda match: -len(match.names)):  # one may be a part of another
        if not any(_agree(match.state, other.state) for other in distinct):
            distinct.append(match)
    if len(distinct) == 1:
        return distinct[0]
    candidates = [match for match in distinct if _NOT_AVERAGED not in match.prefix]
    preferred = candidates if len(candidates) == 1 else [match for match in candidates if match.averaged]
    if len(preferred) != 1:
        raise UnsupportedModelError(
            f"'{source}' holds {len(distinct)} sets of weights that fit: {listed([m.called for m in distinct], 6)}",
            why="they give different answers, and nothing says which is meant",
            now="save the one that is meant alone, with torch.save or safetensors",
        )
    others = listed([match.called for match in distinct if match is not preferred[0]], 6)
    note = f"weights: {preferred[0].called} was taken, which is averaged over training; {others} fits too"
    return replace(preferred[0], notes=(*preferred[0].notes, note))


def _agree(part: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> bool:
    """Whether all tensors of one set are those of another; of tensors without values it cannot be told."""
    return part.keys() <= whole.keys() and all(
        one is other or (not one.is_meta and one.dtype == other.dtype and torch.equal(one, other))
        for one, other in ((part[name], whole[name]) for name in part)
    )
