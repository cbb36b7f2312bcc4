"""Trained networks from torchvision and timm, each with its own cache; and what a repository of timm's says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import torch

from resprout import models
from resprout.errors import ArtifactError, RecipeError, UnsupportedModelError
from resprout.hub import hub_file
from resprout.sources.files import Candidate, read_weights
from resprout.types import InputSpec

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGITS = re.compile(r"-([0-9a-f]{8,})\.")  # of a sha256, in a file's name
_PLACEHOLDER = re.compile(r"LABEL_\d+")  # what transformers writes for a name


def torchvision_weights(uri: str) -> Any:
    """The member of torchvision's weights enum that `torchvision://NAME?weights=W` names; default: its best.

    Raises:
        RecipeError: no such network here, no such weights, or another query.
    """
    from torchvision import models as vision  # takes seconds to import

    parts = urlsplit(uri)
    name, query = parts.netloc + parts.path, parse_qs(parts.query)
    if name not in models.TORCHVISION:
        raise RecipeError(
            f"teacher.source: torchvision://{name} is none of {', '.join(models.TORCHVISION)}",
            now="for other networks use timm://NAME or a weights file",
        )
    if set(query) - {"weights"}:
        raise RecipeError(f"teacher.source: '{parts.query}' is not understood", now=f"torchvision://{name}?weights=W")
    known = vision.get_model_weights(name)
    chosen = query.get("weights", ["DEFAULT"])[0]
    if chosen not in known.__members__:
        raise RecipeError(
            f"teacher.source: torchvision has no weights '{chosen}' for {name}",
            now=f"it has {', '.join(weights.name for weights in known)}",
        )
    return known[chosen]


def from_torchvision(uri: str, sha256: str | None) -> Candidate:
    """`torchvision://NAME?weights=W`, with torchvision's own input transform and class names."""
    weights = torchvision_weights(uri)
    parts, transform = urlsplit(uri), weights.transforms()
    name = parts.netloc + parts.path
    source = f"torchvision://{name}?weights={weights.name}"
    path = _torch_hub_file(weights.url)
    content, digest = read_weights(path, source, sha256=sha256)
    check_cached(path, digest)
    size = transform.crop_size[0]
    return Candidate(
        content,
        source,
        digest,
        architecture=name,
        input=InputSpec((3, size, size), tuple(transform.mean), tuple(transform.std)),
        class_names=tuple(weights.meta["categories"]),
    )


def from_timm(uri: str, sha256: str | None) -> Candidate:
    """`timm://NAME` or `timm://NAME.TAG`: timm's pretrained weights, with its own input transform."""
    name = uri.removeprefix("timm://")
    try:
        from timm.models import get_pretrained_cfg, is_model
    except ImportError:
        raise models.timm_is_missing(uri) from None
    if not is_model(name):
        models.build(f"timm:{name}", num_classes=2)  # raises, and knows the nearest name
    pretrained = get_pretrained_cfg(name)
    fields: dict[str, Any] = pretrained.to_dict() if pretrained else {}  # type: ignore[no-untyped-call]
    repository, url = fields.get("hf_hub_id"), fields.get("url")
    if not isinstance(repository or url, str) or not (repository or url):
        raise UnsupportedModelError(f"timm has no pretrained weights for '{name}'", now="give a file of your own")
    path = weights_of(partial(hub_file, repository, revision=None)) if repository else _torch_hub_file(str(url))
    full_name = f"{fields['architecture']}.{fields['tag']}" if fields.get("tag") else name
    content, digest = read_weights(path, uri, sha256=sha256)
    check_cached(path, digest)
    return timm_candidate(full_name, fields, {}, content, f"timm://{full_name}", digest)


def timm_candidate(
    name: str | None,
    pretrained: Mapping[str, Any],
    arguments: Mapping[str, Any],
    content: Any,
    source: str,
    digest: str,
) -> Candidate:
    """Weights with what timm's configuration says of them.

    Args:
        name: the architecture's, without `timm:`.
        pretrained: input_size, mean, std and label_names, each where it is stated.
        arguments: of the architecture.
        content, source, digest: as in `Candidate`.
    """
    spec, problem = _stated_input(pretrained)
    return Candidate(
        content,
        source,
        digest,
        architecture=f"timm:{name}" if name else None,
        # these two are given by the number of classes and the input
        arguments={key: value for key, value in arguments.items() if key not in ("num_classes", "in_chans")},
        input=spec,
        input_problem=problem,
        class_names=named(pretrained.get("label_names")),
    )


def named(labels: Any) -> tuple[str, ...] | None:
    """The class names that a configuration lists; None where nobody gave any."""
    if not isinstance(labels, list) or all(_PLACEHOLDER.fullmatch(str(label)) for label in labels):
        return None
    return tuple(map(str, labels))


def _stated_input(pretrained: Mapping[str, Any]) -> tuple[InputSpec | None, str]:
    """The input that a configuration states; or none, and why what it states is none."""
    shape, mean, std = (pretrained.get(part) for part in ("input_size", "mean", "std"))
    if shape is None or mean is None or std is None:
        return None, ""
    try:
        # one number is every channel's; no image has more than a thousand
        spread = [[value] * min(shape[0], 1000) if isinstance(value, int | float) else value for value in (mean, std)]
        return InputSpec(tuple(shape), *(tuple(map(float, values)) for values in spread)), ""
    except UnsupportedModelError as error:
        return None, f"its configuration says: {error.what}; {error.why}"
    except (TypeError, ValueError, LookupError, ArithmeticError):
        return None, f"its configuration says: input_size {shape}, mean {mean}, std {std}"


def weights_of(file: Callable[[str], Path]) -> Path:
    """The file with a repository's weights.

    Args:
        file: a file of the repository by its name; raises ArtifactError where there is none.
    """
    try:
        return file("model.safetensors")
    except ArtifactError as error:
        try:
            return file("pytorch_model.bin")
        except ArtifactError:
            raise error from None


def check_cached(path: Path, digest: str) -> None:
    """Refuse a file of a hub's cache that is not what its name says; whoever can write there may have replaced it.

    Args:
        path: the file; both of torch's hubs put the first digits of its sha256 into its name, Hugging Face's all of it.
        digest: the sha256 of its bytes.

    Raises:
        ArtifactError: they differ.
    """
    name = path.resolve().name
    stated = name if _SHA256.fullmatch(name) else next(iter(_DIGITS.findall(name)), "")
    if not digest.startswith(stated):
        raise ArtifactError(
            f"{path}, in the cache, is not what its name says: its sha256 does not begin with {stated}",
            why="it was damaged or replaced after it was downloaded",
            now=f"rm {path.resolve()}   (it is downloaded again)",
        )


def _torch_hub_file(url: str) -> Path:
    name = Path(urlsplit(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        digits = _DIGITS.search(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), digits[1] if digits else None, progress=False)
        except (OSError, RuntimeError) as error:
            raise ArtifactError(
                f"{url} cannot be downloaded: {error}",
                now="check this machine's network, or download it by hand and give the file",
            ) from None
    return path
