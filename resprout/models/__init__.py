"""Networks by name: torchvision's, the CIFAR ones, every classifier of timm and transformers, a user's own function.

Names are looked up in that order, so `resnet18` is torchvision's and `timm:resnet18` is timm's.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from resprout.arguments import problem_of
from resprout.errors import ResproutError, UnsupportedModelError
from resprout.models import cifar, hugging_face
from resprout.models.bounds import bounded
from resprout.models.own import own
from resprout.models.plain import plain

TORCHVISION = (
    "resnet18",
    "resnet34",
    "resnet50",
    "wide_resnet50_2",
    "mobilenet_v2",
    "vgg16_bn",
    "vgg19_bn",
    "densenet121",
    "shufflenet_v2_x1_0",
)


def names() -> list[str]:
    """The architectures that need no further package: the CIFAR ones and torchvision's; timm adds all of its own."""
    return sorted([*cifar.ARCHITECTURES, *TORCHVISION])


def build(
    architecture: str,
    *,
    num_classes: int,
    arguments: Mapping[str, Any] | None = None,
    input_shape: tuple[int, int, int] | None = None,
    allow_custom_code: bool = False,
) -> nn.Module:
    """An untrained network in `plain` layers.

    Its weights depend on nothing but the arguments.

    Args:
        architecture: one of `names()`, `timm:NAME` or another name that timm knows, `transformers:CLASS`, or a user's
            `package.module:function`, called with the arguments, and with num_classes where it takes that.
        num_classes: the length of the logits.
        arguments: keyword arguments of the architecture's constructor.
        input_shape: (channels, height, width) of its images; only the channels matter here,
            unless layers of custom code are lazy. Default: three channels.
        allow_custom_code: allow `package.module:function`.

    Raises:
        UnsupportedModelError: the name is unknown (the nearest known one is suggested), the arguments do not suit it or
            are more than plain values, timm is needed and missing, it is custom code that was not allowed or fails, its
            layers cannot be made plain, or it becomes larger than any classifier.
    """
    network, _ = plain(as_written(architecture, num_classes, arguments, input_shape, allow_custom_code))
    return network


def as_written(
    architecture: str,
    num_classes: int,
    arguments: Mapping[str, Any] | None,
    input_shape: tuple[int, int, int] | None,
    allow_custom_code: bool,
) -> nn.Module:
    """As `build`, with the layers and the names of whoever wrote it. The global generator is left alone."""
    channels = input_shape[0] if input_shape else 3
    keywords = dict(arguments or {})
    check_arguments(architecture, keywords)
    with torch.random.fork_rng(devices=[]), bounded():
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs too
        try:
            if is_custom(architecture):
                if not allow_custom_code:
                    raise custom_code_is_refused(architecture)
                return own(architecture, num_classes, keywords, input_shape)
            return _build(architecture, num_classes, channels, keywords)
        except ResproutError:
            raise
        except Exception as error:  # libraries answer to arguments that do not suit in their own ways
            raise UnsupportedModelError(
                f"{architecture} cannot be built with the arguments {keywords}: {type(error).__name__}: {error}",
                now="correct teacher.arguments",
            ) from error


def check_arguments(architecture: str, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that are more than numbers and words, or that could make a builder open, fetch or run something.

    Raises:
        UnsupportedModelError: with the argument's name.
    """
    if problem := problem_of(arguments):
        name, what = problem
        raise UnsupportedModelError(
            f"{architecture}: the argument {name} {what}",
            why="what a recipe, a manifest or a hub says of a network is data, and must not become code or open a file",
            now="leave it out, and let teacher.source name the weights; what needs more than plain values is built by "
            "a function of your own, package.module:function",
        )


def is_custom(architecture: str) -> bool:
    """Whether the name is a user's own `package.module:function`."""
    return ":" in architecture and not architecture.startswith(("timm:", hugging_face.PREFIX))


def _build(architecture: str, num_classes: int, channels: int, arguments: dict[str, Any]) -> nn.Module:
    if architecture.startswith(hugging_face.PREFIX):
        return hugging_face.build(architecture, num_classes, channels, arguments)
    if architecture in cifar.ARCHITECTURES:
        return cifar.ARCHITECTURES[architecture](num_classes, channels, **arguments)
    if architecture in TORCHVISION:
        if channels != 3:
            raise UnsupportedModelError(
                f"{architecture} takes images of 3 channels, not {channels}",
                now="use a CIFAR or timm architecture, which take any number",
            )
        from torchvision import models as vision  # takes seconds to import

        return getattr(vision, architecture)(weights=None, num_classes=num_classes, **arguments)  # type: ignore[no-any-return]
    return _timm(architecture, num_classes, channels, arguments)


def _timm(architecture: str, num_classes: int, channels: int, arguments: dict[str, Any]) -> nn.Module:
    name = architecture.removeprefix("timm:").removeprefix("//")
    try:
        import timm
    except ImportError:
        if architecture.startswith("timm:"):
            raise timm_is_missing(architecture) from None
        raise _unknown(architecture, names(), "; or it is one of timm's: pip install timm") from None
    if not timm.is_model(name):
        raise _unknown(architecture, [*names(), *timm.list_models()])
    return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=channels, **arguments)


def timm_is_missing(what: str) -> UnsupportedModelError:
    """The error for a model that needs timm where it is not installed."""
    return UnsupportedModelError(
        f"{what} needs timm, which is not installed", now="pip install timm   (or: pip install 'resprout[timm]')"
    )


def custom_code_is_refused(architecture: str) -> UnsupportedModelError:
    """The error for a user's own function where the recipe does not allow it."""
    return UnsupportedModelError(
        f"the architecture {architecture} is custom code, which was not allowed",
        why="it runs with your rights on this machine",
        now="read the code; when you trust it, set teacher.allow_custom_code: true in the recipe",
    )


def _unknown(architecture: str, known: list[str], further: str = "") -> UnsupportedModelError:
    near = get_close_matches(architecture.removeprefix("timm:").removeprefix("//"), known, n=1)
    return UnsupportedModelError(
        f"there is no architecture '{architecture}'",
        why="a weights file does not say how its network is built",
        now=(f"did you mean {near[0]}?" if near else "`resprout models architectures` shows those there are") + further,
    )
