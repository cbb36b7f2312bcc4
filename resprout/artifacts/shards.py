"""Shards of dreams as artifacts, and the dreams put together from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from resprout.artifacts.described import About, described, named_tensors
from resprout.artifacts.folder import load_artifact, save_artifact
from resprout.artifacts.networks import Inputs, Section, plain_section
from resprout.artifacts.typed import SPACE, save_dreams
from resprout.errors import ArtifactError
from resprout.manifest import Manifest, read_manifest
from resprout.types import DreamGroup, DreamSet, DreamShard, InputSpec

KIND = "dream_shard"


class _Group(About):
    index: int
    held_out: bool


class _About(About):
    input: InputSpec
    groups: tuple[_Group, ...]
    num_groups: int
    num_classes: int


def save_shard(
    shard: DreamShard,
    directory: str | Path,
    *,
    input: InputSpec,
    section: Section = None,
    seed: int | None = None,
    inputs: Inputs = (),
    computed_on: str = "",
    resumed: Sequence[str] = (),
) -> str:
    """Write one worker's dreams; returns the digest. The arguments are those of `save_dreams`."""
    return save_artifact(
        directory,
        kind=KIND,
        # one file for all groups: KFP moves artifacts file by file
        tensors={"shard": {name: tensor for group in shard.groups for name, tensor in _named(group).items()}},
        about={
            "space": SPACE,
            "input": asdict(input),
            "groups": [{"index": group.index, "held_out": group.held_out} for group in shard.groups],
            "num_groups": shard.num_groups,
            "num_classes": shard.num_classes,
        },
        section=plain_section(section),
        seed=seed,
        inputs=inputs,
        computed_on=computed_on,
        resumed=resumed,
    )


def load_shard(directory: str | Path, *, sha256: str | None = None) -> DreamShard:
    """Read one worker's dreams.

    Raises:
        ArtifactError: damaged, of another kind or digest, or not what its manifest describes.
    """
    files, manifest = load_artifact(directory, KIND, sha256=sha256)
    about = described(_About, manifest, directory)
    groups = [_group(files, each, directory) for each in about.groups]
    return DreamShard(groups, about.num_groups, about.num_classes)


def save_merged(
    dreams: DreamSet,
    directory: str | Path,
    *,
    shards: Sequence[str | Path],
    digests: Sequence[str | None] | None = None,
) -> str:
    """Write dreams that were put together from shards; returns the digest, which is the same however many there were.

    Args:
        dreams: all of them.
        directory: where to.
        shards: the folders they come from; section, seed, inputs, what computed them and the checkpoints that went
            into them are taken from there.
        digests: what the digest of each must be, in their order; None where nobody says.

    Raises:
        ArtifactError: one has another digest, or the shards were not made with the same settings from the same inputs.
    """
    pins = [None] * len(shards) if digests is None else digests
    manifests = [read_manifest(path, KIND, sha256=pin) for path, pin in zip(shards, pins, strict=True)]
    first, *others = manifests
    for path, other in zip(shards[1:], others, strict=True):
        if _origin(other) != _origin(first):
            raise ArtifactError(
                f"{path} was made with other settings, or from other inputs, than {shards[0]}",
                why="dreams of two recipes are not one set",
                now="synthesize every shard with the same recipe, seed and teacher",
            )
    return save_dreams(
        dreams,
        directory,
        input=described(_About, first, shards[0]).input,
        section=first.section,
        seed=first.seed,
        inputs=first.inputs,
        computed_on=", ".join(sorted({each.computed_on for each in manifests} - {""})),
        resumed=sorted({checkpoint for each in manifests for checkpoint in each.resumed}),
    )


def _named(group: DreamGroup) -> dict[str, Tensor]:
    prefix = f"group.{group.index}"
    curves = {f"{prefix}.curve.{name}": curve for name, curve in group.curves.items()}
    return {f"{prefix}.images": group.images, f"{prefix}.targets": group.targets, **curves}


def _group(files: Mapping[str, Mapping[str, Tensor]], about: _Group, directory: str | Path) -> DreamGroup:
    prefix = f"group.{about.index}."
    images, targets = named_tensors(files, "shard", directory, f"{prefix}images", f"{prefix}targets")
    start = f"{prefix}curve."
    curves = {name.removeprefix(start): it for name, it in files["shard"].items() if name.startswith(start)}
    return DreamGroup(about.index, images, targets, about.held_out, curves)


def _origin(manifest: Manifest) -> tuple[object, ...]:
    return manifest.section, manifest.seed, manifest.inputs, manifest.about.get("input")
