"""A user's own function that builds a network. It may fail in any way; what fails there is told as theirs."""

from __future__ import annotations

import copy
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from resprout.errors import ResproutError, UnsupportedModelError

_OURS = str(Path(__file__).parents[1])


def own(
    architecture: str, num_classes: int, arguments: Mapping[str, Any], input_shape: tuple[int, int, int] | None
) -> nn.Module:
    """What `package.module:function` builds; or a copy of what is there, where that is a network and no function.

    The function may be a class's, as `package.module:Network.from_name`.

    `num_classes` is handed to a function that takes it. Lazy layers get their sizes from a black image.

    Raises:
        UnsupportedModelError: there is no such function, it fails, or what it gives is no network.
    """
    with _settings_kept():
        function = _found(architecture)
        torch.default_generator.manual_seed(0)  # importing may have drawn numbers, and is done once
        if isinstance(function, nn.Module):
            return _copied(function)
        if not callable(function):
            raise _no_network(architecture, "is", function)
        given = {**({"num_classes": num_classes} if _takes(function, "num_classes") else {}), **arguments}
        network = _called(architecture, function, given)
    if not isinstance(network, nn.Module):
        raise _no_network(architecture, "gives", network)
    network = _copied(network)
    if input_shape and any(map(is_lazy, network.parameters())):
        with torch.no_grad():
            _called(architecture, network.eval(), {}, torch.zeros(1, *input_shape))
    return network


def _copied(network: nn.Module) -> nn.Module:
    """A network that nobody else has: the function may give the same one each time."""
    try:
        return copy.deepcopy(network)
    except Exception:  # some cannot be copied, such as those with weight_norm's hooks
        return network


@contextmanager
def _settings_kept() -> Iterator[None]:
    """Undo what code may set for all of torch: the numbers that tensors are made of, and whether gradients flow."""
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)


def _found(architecture: str) -> Any:
    name, _, function = architecture.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last: a file beside the recipe takes the place of no installed module
    try:
        module = import_module(name)
    except (Exception, SystemExit) as error:  # a module may fail in any way while it is imported
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise UnsupportedModelError(
                f"the architecture {architecture} cannot be imported: {error}",
                now="give it as package.module:function, of a file in the working folder or of an installed package",
            ) from error
        raise _failed(f"module {name}", error, f"import {name}") from error
    found: Any = module
    for part in function.split("."):  # a class may have functions that build it: Network.from_name
        if not hasattr(found, part):
            near = get_close_matches(part, [other for other in dir(found) if not other.startswith("_")], n=1)
            raise UnsupportedModelError(
                f"the architecture {architecture} cannot be imported: "
                f"{getattr(found, '__name__', function)} has no {part or 'function of no name'}",
                why=_taken_by(name),
                now=f"did you mean {near[0]}?" if near else "give it as package.module:function",
            )
        found = getattr(found, part)
    return found


def _taken_by(module: str) -> str:
    """Why a file of the working folder was not looked at, if so: an installed module has its name."""
    name = module.partition(".")[0]
    where = str(getattr(sys.modules.get(name), "__file__", "part of Python"))
    beside = [path for path in (Path(name), Path(f"{name}.py")) if path.exists()]
    if not beside or Path(where).is_relative_to(Path.cwd()):
        return ""
    return f"{name} is {where}, which comes before {beside[0]} in the working folder"


def _takes(function: Any, name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # compiled code does not always say
        return True
    return name in parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _called(architecture: str, function: Any, given: Mapping[str, Any], *images: Tensor) -> Any:
    try:
        return function(*images, **given)
    except ResproutError:
        raise
    except (Exception, SystemExit) as error:  # as above
        within = error.__traceback__.tb_next if error.__traceback__ else None
        if isinstance(error, TypeError) and within is None:  # it was not even entered
            raise UnsupportedModelError(
                f"{architecture} cannot be built with the arguments {dict(given)}: {error}",
                now="correct teacher.arguments",
            ) from error
        module, _, name = architecture.partition(":")
        call = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise _failed(f"function {architecture}", error, f"import {module}; {module}.{name}({call})") from error


def _failed(what: str, error: BaseException, trial: str) -> UnsupportedModelError:
    text = str(error.msg if isinstance(error, SyntaxError) else error).strip()
    reason = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
    return UnsupportedModelError(
        f"your {what} failed: {reason}{place(error)}",
        why="it is your own code, which builds the network",
        now=f'mend it there, and try it alone: python -c "{trial}"',
    )


def place(error: BaseException, *, in_libraries: bool = True) -> str:
    """Where it failed, as `, in FILE line N`: the last line of theirs; else, where that is asked for, of a library."""
    if isinstance(error, SyntaxError):
        return f", in {error.filename} line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")][1:]
    libraries = {sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")} | {_OURS}
    theirs = [frame for frame in frames if not frame.filename.startswith(tuple(libraries))]
    theirs = theirs or (frames if in_libraries else [])
    return f", in {theirs[-1].filename} line {theirs[-1].lineno}" if theirs else ""


def _no_network(architecture: str, verb: str, found: Any) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{architecture} {verb} {type(found).__name__}, not a torch.nn.Module",
        why="the architecture is built by calling it",
        now="let it return the network alone",
    )
