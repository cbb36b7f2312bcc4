"""Which image each component runs in, on a cluster or under Docker; a local subprocess run ignores it."""

from __future__ import annotations

from resprout import __version__

CPU_IMAGE = f"resprout/cpu:{__version__}"
GPU_IMAGE = f"resprout/cuda:{__version__}"
