"""How large the images are, and how long a stage's container takes from its start to its first line.

    python benchmarks/images.py                   # writes benchmarks/results/images-docker.json; first: make images

The container is started as `resprout run --runner docker` does it, and imports what the stage of recovery imports,
which is the most of any: KFP's executor, PyTorch, every part of Resprout that it uses.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Any

import machine

from components._image import CPU_IMAGE, GPU_IMAGE
from resprout.files import write_atomically

RESULT = Path(__file__).resolve().parent / "results" / "images-docker.json"
IMPORTED = "artifacts, figures, recipe, recovery, storage"
STAGE = f"import kfp.dsl.executor_main; from resprout import {IMPORTED}; print('first line')"


def megabytes(docker: str, image: str) -> int:
    """An image's size, uncompressed."""
    command = [docker, "image", "inspect", "--format", "{{.Size}}", image]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) // 10**6


def seconds_to_first_line(docker: str, image: str) -> float:
    """From the command to the first line of a stage."""
    command = [
        docker,
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--network",
        "none",
        "--env",
        "_KFP_RUNTIME=true",
        image,
    ]
    started = time.perf_counter()
    with subprocess.Popen([*command, "python3", "-c", STAGE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "first line\n"
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--docker", default="docker")
    arguments = parser.parse_args()
    images: dict[str, Any] = {}
    for image in (CPU_IMAGE, GPU_IMAGE):
        taken = [seconds_to_first_line(arguments.docker, image) for _ in range(arguments.repeats)]
        images[image] = {
            "megabytes": megabytes(arguments.docker, image),
            "seconds_to_first_line": {"median": median(taken), "min": min(taken), "max": max(taken)},
        }
    result = {"repeats": arguments.repeats, "images": images, "machine": machine.describe()}
    with write_atomically(RESULT) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(images, indent=1))


if __name__ == "__main__":
    main()
