"""Component: says what it was given, into a file and as a parameter."""

from typing import NamedTuple

from kfp import dsl

from components._image import on_cpu


class Spoken(NamedTuple):
    heard: dict


@on_cpu()
def speak(
    words: str,
    number: int,
    heard: dict,
    total: int,
    names: list,
    said: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> Spoken:
    import sys

    print(words)
    print("on stderr", file=sys.stderr)
    with open(said.path, "w") as file:
        file.write(f"{words} {number} of {total} {names}\n")
    metrics.log_metric("length", len(words))
    return Spoken({**heard, "words": f"{words} {number}"})
