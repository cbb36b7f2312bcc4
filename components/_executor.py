"""Starts a component where no argument is needed: `python components/_executor.py NAME` is told the rest on stdin.

Everybody on a machine may read a process's arguments, and whoever may ask Docker those of a container and its
variables. What a stage is given may hold a password of a URL, and the keys of object storage.
"""

import json
import os
import sys


def main() -> None:
    """Read one line of JSON: KFP's executor's `arguments`, `environment` and `files` to add, a `door` out."""
    here = os.path.dirname(os.path.realpath(__file__))
    # neither the working folder, which is the caller's, nor this one, whose files are not to be taken for modules
    sys.path[:] = [folder for folder in sys.path if folder and os.path.realpath(folder) != here]
    given = json.loads(sys.stdin.readline())
    os.environ.update(given["environment"])
    for path, content in given["files"].items():
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o400)) as file:
            file.write(content)
    if given["door"]:
        from resprout.tunnel import listening

        proxy = f"http://127.0.0.1:{listening(given['door'])}"
        os.environ.update(HTTPS_PROXY=proxy, https_proxy=proxy)
    import runpy

    sys.argv[1:] = given["arguments"]
    runpy.run_module("kfp.dsl.executor_main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
