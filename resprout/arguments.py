"""What a recipe, a manifest or a hub may say to whatever builds a network: numbers and words, and nothing to open.

Builders have arguments that read another file, fetch weights or run code. With those, data would be a program.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from resprout.wording import is_plain

MAX_LENGTH = 200
"""Of a text: the names of layers, activations and model types are shorter."""
MAX_VALUES = 10_000
"""In all: the longest configurations of networks list some hundred."""
MAX_COUNT = 1 << 20
"""Of whole numbers, which count channels, layers or words: a vocabulary has a quarter of it."""
_WANTED = f"not a number up to a million, true, false, text of up to {MAX_LENGTH} plain characters, or a list of these"
_DEPTH = 4  # lists in lists: LeViT's configuration has two
# whose value would be opened, fetched or run; by timm, torchvision, transformers and torch.hub
_REFUSED = frozenset(
    {
        *("checkpoint_path", "cache_dir", "features_only", "scriptable", "exportable"),
        *("weights", "weights_backbone"),
        *("auto_map", "trust_remote_code", "code_revision", "name_or_path", "gguf_file", "adapter_kwargs"),
        *("use_pretrained_backbone", "attn_implementation", "experts_implementation", "use_kernels"),
        *("quantization_config", "state_dict"),
        *("repo_or_dir", "trust_repo", "skip_validation", "force_reload"),
    }
)


def problem_of(arguments: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the arguments of a builder, as (name, what); None where nothing is.

    A refused name may be there with a value that turns it off: false, null, or no text.
    """
    left = MAX_VALUES
    for name, value in arguments.items():
        if not isinstance(name, str) or not is_plain(name) or len(name) > MAX_LENGTH:
            return f"{name!r:.{MAX_LENGTH}}", "is no name of an argument"
        if (name in _REFUSED or name.startswith(("pretrained", "_"))) and not _is_off(value):
            return name, "could open, fetch or run something else than the teacher's weights"
        for leaf in _leaves(value, _DEPTH):
            left -= 1
            if left < 0:
                return name, f"makes more than {MAX_VALUES:,} values"
            if not _is_data(leaf):
                return name, f"is {type(leaf).__name__} {leaf!r:.80}, {_WANTED}"
    return None


def _is_off(value: Any) -> bool:
    return value is None or value is False or value == ""


def _leaves(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, list | tuple) and depth:
        for part in value:
            yield from _leaves(part, depth - 1)
    else:
        yield value


def _is_data(value: Any) -> bool:
    if isinstance(value, str):
        return is_plain(value) and len(value) <= MAX_LENGTH
    if isinstance(value, bool) or value is None:
        return True
    return abs(value) <= MAX_COUNT if isinstance(value, int) else isinstance(value, float) and math.isfinite(value)
