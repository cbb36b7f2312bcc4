"""Component: several outputs, one of which is looped over."""

from typing import NamedTuple

from components._image import on_cpu


class Counted(NamedTuple):
    numbers: list[int]
    total: int
    names: list
    heard: dict


@on_cpu()
def count(upto: int) -> Counted:
    return Counted(list(range(10, 10 + upto)), upto, ["a", "b"], {"nobody": "nothing"})
