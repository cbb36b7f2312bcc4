"""Image classifiers of Hugging Face's transformers, built by their own library and never by a repository's code."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from resprout.errors import UnsupportedModelError
from resprout.types import InputSpec

PREFIX = "transformers:"
# said elsewhere (the classes, their names) or no part of the network (who wrote the file, in which number format, which
# code the repository brings for it)
_ELSEWHERE = frozenset(
    ["architectures", "id2label", "label2id", "num_labels", "dtype", "torch_dtype", "transformers_version", "auto_map"]
)


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a transformers `config.json` says how the network is built."""
    return {
        name: value
        for name, value in config.items()
        if name not in _ELSEWHERE and not name.startswith("_") and value != {}
    }


def require(architecture: str) -> None:
    """Refuse, without importing it, where transformers is not installed."""
    if find_spec("transformers") is None:
        raise UnsupportedModelError(
            f"{architecture} needs transformers, which is not installed",
            now="pip install transformers   (or: pip install 'resprout[transformers]')",
        )


def build(architecture: str, num_classes: int, channels: int, config: Mapping[str, Any]) -> nn.Module:
    """An untrained image classifier of transformers.

    Args:
        architecture: `transformers:` and the name of a class, such as ResNetForImageClassification.
        num_classes: the length of the logits.
        channels: of the input.
        config: the fields of the network's `config.json`.

    Raises:
        UnsupportedModelError: transformers is not installed, or builds no such classifier of this configuration.
    """
    require(architecture)
    from transformers import AutoConfig, AutoModelForImageClassification  # takes seconds to import

    name = architecture.removeprefix(PREFIX)
    given = {"model_type": "", **config, "num_labels": num_classes, "num_channels": channels, "architectures": [name]}
    try:
        network = AutoModelForImageClassification.from_config(AutoConfig.for_model(**given), trust_remote_code=False)
    except Exception as error:  # a configuration that does not suit fails in as many ways as there are networks
        raise _not_built(name, f"{type(error).__name__}: {error}") from error
    if type(network).__name__ != name:
        raise _not_built(name, f"its model_type, {config['model_type']}, is {type(network).__name__}")
    return network  # type: ignore[no-any-return]


def input_of(folder: Path, channels: int) -> InputSpec:
    """The images that a repository's own image processor makes: it is handed black, white and red ones.

    Args:
        folder: with `preprocessor_config.json`, and `config.json` beside it.
        channels: how many the network takes.

    Raises:
        UnsupportedModelError: it cannot be run, or what it does is no resizing with one mean and std per channel.
    """
    require("its image processor")
    from PIL import Image
    from transformers import AutoImageProcessor  # takes seconds to import

    mode = "L" if channels == 1 else "RGB"
    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        pictures = [Image.new("RGB", (512, 512), colour).convert(mode) for colour in ("black", "white", "red")]
        made = processor(pictures, return_tensors="pt")["pixel_values"].double()
    except Exception as error:  # as above: each fails in its own way
        raise UnsupportedModelError(f"its image processor fails: {str(error).splitlines()[0]:.200}") from error
    if not getattr(processor, "do_resize", True) and made.shape[-1] == pictures[0].width:
        raise UnsupportedModelError("its image processor leaves images at their size")
    return _spec(made)


def _spec(made: Tensor) -> InputSpec:
    """What black, white and red pictures became, shape (3, channels, height, width), as a normalisation."""
    black, white, red = made[:, :, made.shape[2] // 2, made.shape[3] // 2]
    if len(black) == 3 and not (red[0] == white[0] and red[2] == black[2]):
        raise UnsupportedModelError("its image processor turns colours round, to blue, green and red")
    std = 1 / (white - black)
    mean = -black * std
    # the processor computes in float32
    rounded = (tuple(float(f"{value:.6g}") for value in values.tolist()) for values in (mean, std))
    return InputSpec((made.shape[1], made.shape[2], made.shape[3]), *rounded)


def _not_built(name: str, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"transformers builds no {name} of this configuration: {reason.splitlines()[0]:.200}",
        why="only what its AutoModelForImageClassification knows can be built; a repository may bring code of its own, "
        "which Resprout never runs",
        now=f"teacher.architecture: {PREFIX}CLASS, with all of its config.json as teacher.arguments; "
        "or read the repository's code, and give it as package.module:function",
    )
