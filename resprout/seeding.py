"""Random generators: each derived from the run's seed and from what it is for."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose, for example `generator(seed, "synthesis", group)`.

    The seed is hashed with the purpose: streams seeded with neighbouring small integers are correlated,
    and two purposes must never share a stream.
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
