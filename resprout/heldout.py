"""What students are judged on without labels, while they are trained and at the end."""

from __future__ import annotations

import torch
from torch import Tensor


def with_blends(dreams: Tensor) -> Tensor:
    """Dreams, followed by each one blended with its neighbour, at shares of 0.7 and of 0.5.

    The teacher is sure of a dream: that is how it was made. A student that errs on a third of all real images may
    still agree with it on nine dreams of ten. Blends lie where the teacher decides; counted in equal parts with
    the dreams, agreement comes close to what it is on real images, and errs on the low side.

    Args:
        dreams: shape (n, channels, height, width), normalised space.

    Returns:
        Float32, shape (3 n, channels, height, width), or the dreams alone where there is no neighbour.
    """
    dreams = dreams.float()
    if len(dreams) < 2:
        return dreams
    neighbours = dreams.roll(1, dims=0)
    return torch.cat([dreams, *(share * dreams + (1 - share) * neighbours for share in (0.7, 0.5))])
