"""Whether dreams will fit into memory where they are put together: told before hours of a GPU are spent on them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from resprout.errors import RecipeError

COPIES = 5
"""Of all dreams at once: as they were checked, read and put together, and what looking for NaN takes; measured: 4.5."""
BASE = 700 << 20
"""Bytes of a stage that holds torch and no dreams."""
_HALF = 2  # bytes a number
# what the kernel allows a container, by either version of control groups
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_room(count: int, shape: Sequence[int], *, limit: int | None = None) -> None:
    """Refuse more dreams than a stage without a GPU can hold.

    Args:
        count: how many there will be, those that are held out included.
        shape: (channels, height, width) of each.
        limit: bytes of memory; None: what this stage has, which is what the one that puts them together will have.

    Raises:
        RecipeError: with how much they need, and how much there is.
    """
    limit = memory_limit() if limit is None else limit
    each = _HALF * math.prod(shape)
    if (needed := BASE + COPIES * count * each) > limit:
        raise RecipeError(
            f"synthesis.num_images: {count:,} images of {'x'.join(map(str, shape))} need {needed / 2**30:.1f} GiB of "
            f"memory where they are put together, and there are {limit / 2**30:.1f}",
            why="the run would end there, after they were made",
            now=f"give placement.cpu_stage_memory {math.ceil(needed / 2**30)}Gi, or ask for no more than "
            f"{max(0, (limit - BASE) // (COPIES * each)):,} images, those that are held out included",
        )


def memory_limit(files: Sequence[str] = _LIMITS) -> int:
    """How many bytes of memory this process may take: the machine's, or what its container is allowed."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in files:
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():  # `max` is no limit
            found.append(int(text))
    return min(found)
