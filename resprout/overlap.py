"""Images that a network learnt from and is judged on: found by their pixels, under whatever name they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from torch import Tensor

from resprout.errors import DatasetError
from resprout.types import DreamSet, InputSpec, LabelledImages

BATCH = 256


def refuse_overlap(data: LabelledImages, dreams: DreamSet, input: InputSpec) -> None:
    """Refuse a test set that shares an image with those that a network learnt from, or whose epochs were judged on.

    Images are compared as the network sees them: both in its input shape, by the sha256 of their uint8 pixels. A copy,
    a link, and the same image in another lossless format are found; one that was cropped or compressed anew is not.

    Args:
        data: in pixel space.
        dreams: or labelled images in their place, in normalised space.
        input: the teacher's, which leads from that space back to pixels.

    Raises:
        DatasetError: how many there are, and which is the first.
    """
    learnt_from = set(_digests(dreams.images, input))
    shared = [index for index, digest in enumerate(_digests(data.images)) if digest in learnt_from]
    if not shared:
        return
    source = dreams.source or "the dreams"
    raise DatasetError(
        f"{len(shared):,} of {len(data.images):,} test images are also among the images trained on ({source})",
        why="accuracy on images that a network learnt from says little about others; "
        f"the first is image {shared[0]}, of class {data.class_names[int(data.labels[shared[0]])]}",
        now="take them out of evaluation.data or of synthesis.data"
        if dreams.source
        else "start the run anew, in a new folder and with new checkpoints: dreams are no photographs",
    )


def _digests(images: Tensor, normalised_for: InputSpec | None = None) -> Iterator[bytes]:
    for batch in images.split(BATCH):
        # a normalised pixel in float16 is off by an eighth of a step at most, so that rounding gives it back
        pixels = batch if normalised_for is None else (normalised_for.to_pixels(batch.float()) * 255).round().byte()
        for image in pixels.contiguous().numpy():
            yield hashlib.sha256(image.tobytes()).digest()
