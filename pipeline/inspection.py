"""What is inside a model that a run left behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from resprout import artifacts
from resprout.artifacts import Manifest
from resprout.artifacts.described import described
from resprout.artifacts.networks import STUDENT_KINDS, AboutStudent, AboutTeacher, unpack_mask
from resprout.artifacts.plans import unpack_plan
from resprout.errors import ArtifactError
from resprout.masking import whole_layers
from resprout.types import ChannelPlan, PruningMask
from resprout.wording import printable


def show(directory: Path) -> None:
    """Print a model's facts, its density per layer and its provenance, after every digest was checked.

    Raises:
        ArtifactError: not a model, damaged, or changed after it was written.
    """
    lines = [*describe(directory)]
    Console(file=sys.stdout).print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def describe(directory: Path) -> Iterator[str]:
    """The lines that `show` prints; nothing that a manifest says makes another one, or commands a terminal."""
    return (printable(line, breaks="") for line in _described(directory))


def _described(directory: Path) -> Iterator[str]:
    digest = artifacts.digest_of(directory)
    kind = artifacts.read_manifest(directory, sha256=digest).kind
    if kind not in ("teacher", *STUDENT_KINDS):
        raise ArtifactError(
            f"{directory} is an artifact of kind '{kind}', not a model", now="give a run's model folder"
        )
    tensors, manifest = artifacts.load_artifact(directory, kind, sha256=digest)
    weights = tensors.get("weights", {})
    model = described(AboutTeacher, manifest, directory).model
    yield f"{directory}: {kind}, {model.architecture}, {model.num_classes} classes, " + (
        f"input {'x'.join(map(str, model.input.shape))}"
    )
    count = sum(tensor.numel() for name, tensor in weights.items() if not _is_statistic(name))
    yield f"parameters  {count:,}"
    if kind != "teacher":
        yield from _pruned(tensors, described(AboutStudent, manifest, directory), directory)
    yield ""
    if manifest.computed_on:
        yield f"computed on {manifest.computed_on}"
    for digest_of_state in manifest.resumed:
        yield f"went on from a checkpoint of its own run, {digest_of_state}"
    yield f"digest      {digest}  (every file matches its own)"
    yield from _provenance(manifest)


def _pruned(tensors: Mapping[str, Mapping[str, Tensor]], about: AboutStudent, directory: Path) -> Iterator[str]:
    plan, keep = unpack_plan(tensors, about.channels, directory), unpack_mask(tensors, about, directory)
    if plan:
        yield f"sparsity    {100 * about.sparsity:.1f} % of the teacher's weights, gone with their channels"
        yield ""
        yield from _channels(plan)
        return
    mask, weights = PruningMask(keep), tensors.get("weights", {})
    yield f"sparsity    {100 * mask.sparsity:.1f} % of {mask.num_weights:,} weights that can be masked"
    yield ""
    yield from _densities(mask)
    for name in whole_layers(weights, mask):
        yield f"whole       {name}, {weights[name].numel():,} weights, not counted above"


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def _densities(mask: PruningMask) -> Iterator[str]:
    width = max(len(name) for name in mask.keep)
    yield f"{'layer':<{width}}  {'weights':>12}  {'kept':>12}  density"
    for name, kept in mask.keep.items():
        yield f"{name:<{width}}  {kept.numel():>12,}  {int(kept.sum()):>12,}  {100 * float(kept.float().mean()):5.1f} %"


def _channels(plan: ChannelPlan) -> Iterator[str]:
    names = list(dict.fromkeys([*plan.outputs, *plan.inputs]))
    width = max(map(len, names), default=0)
    yield f"{'layer':<{width}}  {'takes':>13}  {'gives':>13}"
    for name in names:
        sides = (_channels_left(side.get(name)) for side in (plan.inputs, plan.outputs))
        yield f"{name:<{width}}  " + "  ".join(f"{left:>13}" for left in sides)


def _channels_left(kept: Tensor | None) -> str:
    return "all" if kept is None else f"{int(kept.sum()):,} of {kept.numel():,}"


def _provenance(manifest: Manifest) -> Iterator[str]:
    yield "made from"
    yield from _inputs(manifest.inputs, 1) if manifest.inputs else [f"  {manifest.about.get('source', 'nothing else')}"]


def _inputs(inputs: Sequence[Mapping[str, Any]], depth: int) -> Iterator[str]:
    for record in inputs:
        source = record.get("about", {}).get("source")
        yield f"{'  ' * depth}{record['name']:<12} {record['sha256']}" + (f"  {source}" if source else "")
        yield from _inputs(record.get("inputs", ()), depth + 1)
