"""Artifacts on disk: a folder of safetensors files and one `manifest.json`; never a pickle.

The manifest holds the artifact's kind, its schema version, the recipe section and seed that made it, the kind of
device that computed it, the sha256 of every file in the folder and of every input artifact. An artifact's digest is
the sha256 of its manifest, which therefore stands for every byte: following the inputs from a report back gives the
whole provenance. A manifest holds no time, no path and no number of devices, so that the same work gives the same
digest.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from resprout.errors import ArtifactError
from resprout.files import hidden_beside, room_for, sha256_of
from resprout.manifest import MANIFEST, Manifest, check_file, read_manifest

SUFFIX = ".safetensors"
_NAMES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
DTYPES = frozenset(getattr(torch, name) for name in _NAMES)  # safetensors knows more, which few functions of torch take


def save_artifact(
    directory: str | Path,
    kind: str,
    *,
    tensors: Mapping[str, Mapping[str, Tensor]] | None = None,
    about: Mapping[str, Any] | None = None,
    section: Mapping[str, Any] | None = None,
    seed: int | None = None,
    inputs: Sequence[Mapping[str, Any]] = (),
    computed_on: str = "",
    resumed: Sequence[str] = (),
    extras: Callable[[Path], None] | None = None,
) -> str:
    """Write an artifact folder, whole or not at all.

    Args:
        directory: where to; what stood there is replaced.
        kind: `teacher`, `statistics`, `test_set`, `dream_shard`, `dreams`, `student`, `evaluation`, …
        tensors: file stem -> named tensors; each becomes STEM.safetensors.
        about: JSON facts that loading needs (shapes, names, units).
        section: the recipe section that made it.
        seed: the run's seed, where randomness was involved.
        inputs: the records of the artifacts that it was made from, taken when these were loaded (`records`).
        computed_on: the kind of device that it was computed on (`devices.computed_on`), where that decides its bits.
        resumed: the sha256 of each checkpoint whose state went into it.
        extras: writes further files (a preview, a table) into the folder it is given.

    Returns:
        The artifact's digest.

    Raises:
        ArtifactError: there is no room for it, or it cannot be written there.
    """
    directory = Path(directory)
    with room_for(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = hidden_beside(directory)
        temporary.mkdir()
    try:
        with room_for(directory):
            for stem, named in (tensors or {}).items():
                save_file({name: _storable(tensor) for name, tensor in named.items()}, temporary / f"{stem}{SUFFIX}")
            if extras is not None:
                extras(temporary)
            manifest = Manifest(
                kind=kind,
                section=dict(section or {}),
                seed=seed,
                inputs=list(inputs),
                files=_digests(temporary),
                about=dict(about or {}),
                computed_on=computed_on,
                resumed=list(resumed),
            )
            text = manifest.to_json().encode()
            (temporary / MANIFEST).write_bytes(text)
            _open_as_folder(temporary)
            shutil.rmtree(directory, ignore_errors=True)
            os.replace(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return hashlib.sha256(text).hexdigest()


def _digests(directory: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in directory.iterdir()}


def _open_as_folder(directory: Path) -> None:
    # safetensors writes for the owner alone: whom the folder lets in, by the umask, its files let in, too
    mode = directory.stat().st_mode & 0o666
    for path in directory.iterdir():
        path.chmod(mode)


def _storable(tensor: Tensor) -> Tensor:
    # safetensors refuses shared storage and non-contiguous memory (channels_last)
    return tensor.detach().cpu().contiguous().clone()


def load_artifact(
    directory: str | Path, *kinds: str, sha256: str | None = None
) -> tuple[dict[str, dict[str, Tensor]], Manifest]:
    """Read an artifact and check every byte of it against its manifest.

    Args:
        directory: the artifact's folder. Files that its manifest does not list are left alone.
        kinds: what it may be; anything where none is given.
        sha256: what its digest must be.

    Returns:
        The tensors (file stem -> name -> tensor, on the CPU) and the manifest.

    Raises:
        ArtifactError: it has another digest; a file is missing, differs from its digest, or cannot be read.
    """
    manifest = read_manifest(directory, *kinds, sha256=sha256)
    tensors = {}
    for name in manifest.files:
        if name.endswith(SUFFIX):
            tensors[name.removesuffix(SUFFIX)] = _checked_tensors(directory, name, manifest)
        else:
            check_file(directory, name, manifest)
    return tensors, manifest


def _checked_tensors(directory: str | Path, name: str, manifest: Manifest) -> dict[str, Tensor]:
    # safetensors maps a file by its name. The artifact's own may be another one by then: what was checked is mapped.
    with os.fdopen(os.memfd_create(name), "w+b") as checked:
        check_file(directory, name, manifest, checked)
        checked.flush()
        try:
            tensors = load_file(f"/proc/self/fd/{checked.fileno()}")
        except SafetensorError as error:
            raise ArtifactError(f"{Path(directory) / name} is not safetensors: {error}") from None
    if strange := {tensor.dtype for tensor in tensors.values()} - DTYPES:
        raise ArtifactError(
            f"{Path(directory) / name} holds {', '.join(sorted(map(str, strange)))}, which nothing here computes with"
        )
    return tensors


def pack_bits(keep: Tensor) -> Tensor:
    """A bool tensor as uint8, eight values a byte, most significant bit first; shape (ceil(numel / 8),)."""
    flat = keep.flatten().to(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    return (padded << torch.arange(7, -1, -1, dtype=torch.uint8)).sum(1).to(torch.uint8)


def unpack_bits(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """The bool tensor of `shape` that `pack_bits` packed."""
    numel = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.shape != ((numel + 7) // 8,) or min(shape, default=0) < 0:
        raise ArtifactError(f"a mask of {packed.numel()} bytes cannot have shape {list(shape)}")
    bits = (packed[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8)) & 1
    return bits.flatten()[:numel].to(torch.bool).view(*shape)
