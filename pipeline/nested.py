"""A stage as a pipeline of its own, for stages that stand in a condition or a loop.

kfp 2.17.0 compiles a GPU's limit, or a secret's name, that is a pipeline's parameter into a reference that leads
nowhere when the task stands there. The inputs of a pipeline it forwards everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl


def alone(
    component: Any,
    place: Callable[..., dsl.PipelineTask],
    *,
    name: str,
    own: Mapping[str, Any],
    inputs: Mapping[str, Any] | None = None,
    without: tuple[str, ...] = (),
    output: tuple[str, Any] | None = None,
) -> Any:
    """A pipeline that runs one component.

    Args:
        component: what it runs; what that takes, the pipeline takes under the same names.
        place: is called with the task, and with the pipeline's `own` inputs by name.
        name: the pipeline's.
        own: further inputs that placement needs: name -> type.
        inputs: name -> type, of the component's inputs that have another type here.
        without: the component's inputs that it is not given.
        output: the one of its outputs that the pipeline hands on, and its type.
    """
    declared = inspect.signature(component.python_func).parameters
    taken = {key: declared[key].annotation for key in component.component_spec.inputs if key not in without}
    types = {**taken, **(inputs or {}), **own}

    def stage(*values: Any) -> Any:
        given = dict(zip(types, values, strict=True))
        task = place(component(**{key: given[key] for key in taken}), **{key: given[key] for key in own})
        return task.outputs[output[0]] if output else None

    # what KFP reads a pipeline's inputs and output from
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(key, keyword, annotation=kind) for key, kind in types.items()]
    returned = output[1] if output else inspect.Signature.empty
    stage.__signature__ = inspect.Signature(parameters, return_annotation=returned)  # type: ignore[attr-defined]
    return dsl.pipeline(name=name)(stage)
