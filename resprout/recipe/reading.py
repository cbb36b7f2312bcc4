"""A recipe's YAML as a person means it: no key twice, numbers as they are typed, no surprise from YAML 1.1."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from resprout.errors import ArtifactError, RecipeError
from resprout.files import opened

MAX_BYTES = 1 << 21
"""Of a recipe's file: with a name for each of ImageNet's 21,841 classes it takes half of that."""
MAX_VALUES = 50_000
"""Of a recipe's YAML, each alias counted as what it stands for: few lines of aliases can stand for millions."""

_MERGE = "tag:yaml.org,2002:merge"
_READ_ANEW = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its traps: 010 is not 8, 12:30 is not 750, 1e-3 is a number, and a date is text."""

    values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """See `yaml.composer.Composer`; ends where there are too many."""
        self.values += 1
        if self.values > MAX_VALUES:
            raise _TooManyError
        return super().compose_node(parent, index)


class _TooManyError(Exception):
    pass


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _READ_ANEW]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^([-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    list("-+.0123456789"),
)


def text_of(path: Path) -> str:
    """What a recipe's file holds.

    Raises:
        RecipeError: there is no such file, it cannot be read, is no plain file, too long, or holds no text.
    """
    try:
        with opened(path) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise _too_long(f"recipe {path}", f"{MAX_BYTES:,} bytes")
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except ArtifactError as error:
        raise RecipeError(f"recipe {error.what}", why=error.why, now="name a recipe's YAML file") from None
    except FileNotFoundError:
        raise RecipeError(
            f"there is no recipe {path}", now="`resprout recipe list` shows those that come with Resprout"
        ) from None
    except OSError as error:
        what = f"recipe {path} is a folder" if isinstance(error, IsADirectoryError) else f"recipe {path} cannot be read"
        raise RecipeError(what, why=error.strerror or str(error), now="name a recipe's YAML file") from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"recipe {path} is not YAML", why=f"it is no text in UTF-8: {error}", now="name a recipe's YAML file"
        ) from None


def parsed(text: str, where: str) -> Any:
    """YAML's structure.

    Args:
        text: the YAML.
        where: starts the message of a refusal, as in "recipe demo.yaml".

    Raises:
        RecipeError: it is not YAML, a key stands twice in one mapping, an anchor holds itself, or there are too many
            values.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        if _values(root, where, (), {}) > MAX_VALUES:
            raise _TooManyError
        return loader.construct_document(root)
    except _TooManyError:
        raise _too_long(where, f"{MAX_VALUES:,} values, those that aliases stand for included") from None
    except RecipeError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RecipeError(f"{where} is not YAML{place}: {error.problem}", now=_remedy(error)) from None
    except RecursionError:
        raise RecipeError(f"{where} is not a recipe: it is nested too deeply") from None
    except Exception as error:  # each kind of value fails in its own way, as !!int many does
        reason = str(error) or type(error).__name__
        raise RecipeError(f"{where} is not YAML: {reason:.200}", now="name a recipe's YAML file") from None


def _too_long(what: str, limit: str) -> RecipeError:
    return RecipeError(
        f"{what} holds more than {limit}",
        why="no recipe needs as many, and few lines may stand for more than a machine can hold",
        now="name a recipe's YAML file; write out what is meant",
    )


def _values(node: yaml.Node, where: str, above: tuple[yaml.Node, ...], counted: dict[yaml.Node, int]) -> int:
    """How many values a node stands for, aliases followed.

    A key that stands twice in one mapping is refused; beside one that a merge brings it may stand again.
    """
    if node in above:
        raise RecipeError(f"{where}, line {node.start_mark.line + 1}: an anchor holds itself", now="write it out")
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if node in counted:
        return counted[node]
    counted[node] = 1
    first: dict[str, int] = {}
    for part in node.value:
        key, value = part if isinstance(node, yaml.MappingNode) else (None, part)
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            line = key.start_mark.line + 1
            if key.value in first:
                raise RecipeError(
                    f"{where}, line {line}: {key.value} stands twice, first in line {first[key.value]}",
                    why="YAML would keep the last one and drop the other without a word",
                    now="make them one",
                )
            first[key.value] = line
        counted[node] += _values(value, where, (*above, node), counted)
    return counted[node]


def _remedy(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem)
    if "\\t" in problem:
        return "indent with spaces: YAML takes no tabs"
    if "single document" in str(error.context):
        return "keep one recipe in a file: leave out the line ---"
    if "unhashable" in problem:
        return "put text that starts with { or [ in quotes"
    return "put text with special characters in quotes, and leave tags (!name) out"
