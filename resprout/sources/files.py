"""Weights files: reading them without ever running what is inside."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from resprout.errors import ArtifactError, UnsupportedModelError
from resprout.files import sha256_of
from resprout.types import InputSpec

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
PREFIXES = ("module.", "_orig_mod.")
# torchvision's DenseNet weights keep the names of an older torch: denselayer1.norm.1 is denselayer1.norm1
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.")


@dataclass(frozen=True)
class Candidate:
    """Weights that were read and not yet judged, with what their source says about them.

    Args:
        state: parameter and buffer name -> tensor.
        source: where they came from, without secrets and without a path of this machine.
        digest: the weights file's sha256.
        architecture, arguments, input, class_names: None where the source does not say.
        input_problem: why there is no input, where the source says one that cannot be.
    """

    state: Mapping[str, Tensor]
    source: str
    digest: str
    architecture: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    input: InputSpec | None = None
    class_names: tuple[str, ...] | None = None
    input_problem: str = ""


def read_weights(path: Path, name: str, *, sha256: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The state dict in a safetensors or weights-only torch file, and the file's sha256.

    Checkpoints that wrap their state dict, and names that start with `module.`, are unwrapped. The digest is
    checked before anything is parsed.

    Args:
        path: the file, told apart by its content, not by its name.
        name: what messages call it.
        sha256: what the digest must be.

    Raises:
        ArtifactError: the digest differs.
        UnsupportedModelError: it is a pickle that holds code, is damaged, or holds no state dict.
    """
    digest = sha256_of(path)
    if sha256 is not None and digest != sha256:
        raise ArtifactError(
            f"teacher '{name}' has sha256 {digest}, but the recipe says {sha256}",
            why="these are not the weights that were agreed on, or they were damaged on the way",
            now="fetch the right file, or correct teacher.sha256 once you know that this one is right",
        )
    return _plain_names(_unwrap(_read(path, name), name)), digest


def _read(path: Path, name: str) -> Any:
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        return _read_safetensors(path, name)
    if start.startswith((b"PK", b"\x80")):  # torch's zip files, and pickles
        return _read_torch(path, name)
    raise _damaged(name, ValueError("it is neither a safetensors nor a torch file"))


def _read_safetensors(path: Path, name: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(name, error) from None


def _read_torch(path: Path, name: str) -> Any:
    try:
        # given a path, newer versions of torch go by its suffix
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what is refused below anyway
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _holds_code(name, str(error)) from None
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise _holds_code(name, str(error)) from None
        raise _damaged(name, error) from None
    except (OSError, EOFError, LookupError, ValueError, AttributeError, TypeError) as error:
        raise _damaged(name, error) from None


def _holds_code(name: str, message: str) -> UnsupportedModelError:
    culprit = re.search(r"GLOBAL ([\w.]+)", message)
    return UnsupportedModelError(
        f"teacher '{name}' is a pickle that holds code, not only weights",
        why="loading it could run any program on this machine" + (f" (it names {culprit[1]})" if culprit else ""),
        now="save it with safetensors, or torch.save(model.state_dict(), PATH)",
    )


def _damaged(name: str, error: Exception) -> UnsupportedModelError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UnsupportedModelError(
        f"teacher '{name}' cannot be read as weights: {reason}",
        why="it is truncated, or was saved by something else",
        now="fetch it again, and compare its sha256 with the sender's",
    )


def _unwrap(content: Any, name: str) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content)
    found = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
    raise UnsupportedModelError(
        f"teacher '{name}' holds no state dict, but {found or 'nothing'}",
        now="save torch.save(model.state_dict(), PATH), or wrap it as {'state_dict': …}",
    )


def _plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return {_OLD_DENSENET.sub(r"\1\2.", name): tensor for name, tensor in state.items()}
