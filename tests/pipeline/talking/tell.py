"""Component: says what another user of the machine can read of its process."""

from kfp import dsl

from components._image import on_cpu


@on_cpu()
def tell(words: str, said: dsl.Output[dsl.Artifact]):
    import os
    from pathlib import Path

    print("arguments:", Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode())
    print("added:", os.environ.get("ADDED"))
    print("asked for more:", repr(__import__("sys").stdin.read()))
    Path(said.path).write_text(words)
