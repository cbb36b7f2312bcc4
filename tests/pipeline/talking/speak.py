"""Component: says what it was given."""

from kfp import dsl

from components._image import on_cpu


@on_cpu()
def speak(
    words: str, number: int, total: int, names: list, said: dsl.Output[dsl.Artifact], metrics: dsl.Output[dsl.Metrics]
):
    import sys

    print(words)
    print("on stderr", file=sys.stderr)
    with open(said.path, "w") as file:
        file.write(f"{words} {number} of {total} {names}\n")
    metrics.log_metric("length", len(words))
