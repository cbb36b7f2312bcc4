"""Which image each component lives in. What runs there is the function that the image holds: no source travels.

`kfp_config.ini`, beside this file, tells KFP's executor where each function is.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kfp import dsl

from resprout import __version__

CPU_IMAGE = f"resprout/cpu:{__version__}"
GPU_IMAGE = f"resprout/cuda:{__version__}"


def _as_it_is(**_: Any) -> Any:
    return lambda function: function


def _living_in(image: str) -> Any:
    # where a stage runs, as _KFP_RUNTIME says, there is nothing to compile, and KFP's compiler is not installed
    component = getattr(dsl, "component", _as_it_is)
    return partial(component, base_image=image, target_image=image, install_kfp_package=False)


on_cpu: Any = _living_in(CPU_IMAGE)
on_gpu: Any = _living_in(GPU_IMAGE)
