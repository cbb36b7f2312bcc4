"""Weights files: reading them without ever running what is inside."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from resprout.errors import ArtifactError, UnsupportedModelError
from resprout.files import sha256_of
from resprout.sources.bounds import check_whole, check_zip
from resprout.sources.contents import entries_of
from resprout.types import InputSpec

# what lies where weights are expected: how such a file begins, and what to do about it
_NO_WEIGHTS = (
    ("a Git LFS pointer", (b"version https://git-lfs",), "git lfs pull"),
    ("a web page", (b"<",), "download it by the link of the raw file; is a login asked for?"),
    ("an HDF5 file", (b"\x89hdf",), "export the weights from the library that wrote it, as safetensors"),
    ("compressed by gzip", (b"\x1f\x8b",), "unpack it"),
)


@dataclass(frozen=True)
class Candidate:
    """Weights that were read and not yet judged, with what their source says about them.

    Args:
        content: names -> tensors, or mappings of such at any depth.
        source: where they came from, without secrets and without a path of this machine.
        digest: the weights file's sha256.
        architecture, arguments, input, class_names: None where the source does not say.
        input_problem: why there is no input, where the source says one that cannot be.
        notes: what the reader of a report should know of how it was read, a sentence each.
    """

    content: Any
    source: str
    digest: str
    architecture: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    input: InputSpec | None = None
    class_names: tuple[str, ...] | None = None
    input_problem: str = ""
    notes: tuple[str, ...] = ()


def read_weights(path: Path, name: str, *, sha256: str | None = None) -> tuple[Any, str]:
    """What a safetensors or weights-only torch file holds, tensors at any depth, and the file's sha256.

    The digest is checked before anything is parsed, and of the bytes that are parsed.

    Args:
        path: the file, told apart by its content, not by its name.
        name: what messages call it.
        sha256: what the digest must be.

    Raises:
        ArtifactError: the digest differs.
        UnsupportedModelError: it is a pickle that holds code, is damaged, holds no tensor by a name, or stands for much
            more than it holds.
    """
    # the file may be another one at a second look: what was digested is parsed
    with os.fdopen(os.memfd_create("weights"), "w+b") as file:
        digest = sha256_of(path, file)
        if sha256 is not None and digest != sha256:
            raise ArtifactError(
                f"the sha256 of teacher '{name}' is another one, but the recipe says {sha256}",
                why="these are not the weights that were agreed on, or they were damaged on the way",
                now="fetch the right file; or correct teacher.sha256 by what sha256sum says of a file that you know",
            )
        size = file.tell()
        file.seek(0)
        content = _read(file, size, name)
    entries = entries_of(content)
    if not entries:
        raise _without_tensors(content, name)
    check_whole((entry.tensor for entry in entries.values()), size, name)
    return content, digest


def _read(file: BinaryIO, size: int, name: str) -> Any:
    start = file.read(512)
    file.seek(0)
    if start[8:9] == b"{":
        return _read_safetensors(file, name)
    if start.startswith((b"PK", b"\x80")):  # torch's zip files, and pickles
        return _read_torch(file, size, name)
    for kind, marks, now in _NO_WEIGHTS:
        if start.lstrip().lower().startswith(marks):
            raise UnsupportedModelError(
                f"teacher '{name}' is {kind}, not weights", why="no network can be made of it", now=now
            )
    raise _damaged(name, ValueError("it is neither a safetensors nor a torch file"))


def _read_safetensors(file: BinaryIO, name: str) -> dict[str, Tensor]:
    try:
        return load_file(f"/proc/self/fd/{file.fileno()}")
    except (SafetensorError, OSError) as error:
        raise _damaged(name, error) from None


def _read_torch(file: BinaryIO, size: int, name: str) -> Any:
    try:
        if file.read(2) == b"PK":
            check_zip(file, size, name)
        file.seek(0)
        with warnings.catch_warnings(), torch.sparse.check_sparse_tensor_invariants(True):
            warnings.simplefilter("ignore")  # torch warns of what is refused below anyway
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnsupportedModelError:
        raise
    except pickle.UnpicklingError as error:
        raise _holds_code(name, str(error)) from None
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise _damaged(name, error) from None


def _holds_code(name: str, message: str) -> UnsupportedModelError:
    culprit = re.search(r"GLOBAL ([\w.]+)", message)
    if culprit and culprit[1].startswith("numpy."):
        return UnsupportedModelError(
            f"teacher '{name}' holds numpy's numbers beside tensors ({culprit[1]})",
            why="of a pickle only tensors, numbers and text are read: anything else in it could run a program",
            now="save numbers as Python's, float(best_acc), or torch.save(model.state_dict(), PATH) alone",
        )
    return UnsupportedModelError(
        f"teacher '{name}' is a pickle that holds code, not only weights",
        why="loading it could run any program on this machine" + (f" (it names {culprit[1]})" if culprit else ""),
        now="save it with safetensors, or torch.save(model.state_dict(), PATH); what lies beside the weights must be "
        "plain: vars(args), str(path), dict(defaults)",
    )


def _damaged(name: str, error: Exception) -> UnsupportedModelError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UnsupportedModelError(
        f"teacher '{name}' cannot be read as weights: {reason}",
        why="it is truncated, or was saved by something else",
        now="fetch it again, and compare its sha256 with the sender's",
    )


def _without_tensors(content: Any, name: str) -> UnsupportedModelError:
    keys = [key for key in content if not isinstance(key, str)] if isinstance(content, Mapping) else []
    found = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
    return UnsupportedModelError(
        f"teacher '{name}' holds no state dict, but {found or 'nothing'}"
        + (", which are no names of tensors" if keys else ""),
        why="a state dict has the name of each tensor, as text",
        now="save torch.save(model.state_dict(), PATH), or wrap it as {'state_dict': …}",
    )
