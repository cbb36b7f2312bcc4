"""How fast files go to object storage and come back: Resprout's client against the minio SDK alone, in one run.

    python benchmarks/storage.py                  # writes benchmarks/results/storage-loopback.json

Both speak to one SeaweedFS on loopback, in turns, several times; the result is the ratio of the medians. The SDK's
calls are those that one would write: fput_object and fget_object, file by file. Resprout's also leave a sha256 with
each object, ask the server what arrived, and check every byte that comes back.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import machine
from minio import Minio

from pipeline.embedded_storage import BUCKET, Server
from resprout.files import write_atomically
from resprout.storage import ObjectAddress, Storage, folders

RESULT = Path(__file__).resolve().parent / "results" / "storage-loopback.json"
LARGE_MEGABYTES = 200
SMALL_FILES, SMALL_BYTES = 1000, 4096


class Bench:
    """One server, a large file and many small ones, and each way to move them."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.folder = folder
        self.ours = Storage(server.settings)
        access_key, secret_key, _ = server.settings.credentials()
        self.raw = Minio(server.settings.address, access_key, secret_key, secure=False)
        self.large = folder / "large"
        self.large.write_bytes(os.urandom(LARGE_MEGABYTES * 10**6))
        self.puts = itertools.count()
        self.small = folder / "small"
        self.small.mkdir()
        for index in range(SMALL_FILES):
            (self.small / f"{index:04}").write_bytes(os.urandom(SMALL_BYTES))

    def tasks(self) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
        """What is measured: name -> (the SDK alone, ours). What goes up first is what comes down."""
        here, names = self.folder / "here", [path.name for path in sorted(self.small.iterdir())]

        def raw_small_up() -> None:
            for name in names:
                self.raw.fput_object(BUCKET, f"raw/small/{name}", str(self.small / name))

        def raw_small_down() -> None:
            for name in names:
                self.raw.fget_object(BUCKET, f"raw/small/{name}", str(here / "raw" / name))

        return {
            "large_up": (
                lambda: self.raw.fput_object(BUCKET, "raw/large", str(self.large)),
                lambda: self.ours.upload(self.large, ObjectAddress(BUCKET, "ours/large")),
            ),
            "large_down": (
                lambda: self.raw.fget_object(BUCKET, "raw/large", str(here / "raw-large")),
                lambda: self.ours.download(ObjectAddress(BUCKET, "ours/large"), here / "ours-large"),
            ),
            "small_up": (
                raw_small_up,
                lambda: folders.put(self.ours, self.small, ObjectAddress(BUCKET, f"ours/small-{next(self.puts)}")),
            ),
            "small_down": (
                raw_small_down,
                lambda: folders.fetch(self.ours, ObjectAddress(BUCKET, "ours/small-0"), here, lambda done, total: None),
            ),
        }

    def measure(self, repeats: int) -> dict[str, Any]:
        """Median, least and most per second of each: megabytes of the large file, small files."""
        seconds: dict[tuple[str, str], list[float]] = {}
        for _ in range(repeats):
            for task, calls in self.tasks().items():
                shutil.rmtree(self.folder / "here", ignore_errors=True)
                (self.folder / "here").mkdir()
                for who, call in zip(("sdk", "resprout"), calls, strict=True):
                    started = time.perf_counter()
                    call()
                    seconds.setdefault((task, who), []).append(time.perf_counter() - started)
        amounts = {"large": LARGE_MEGABYTES, "small": SMALL_FILES}
        found: dict[str, Any] = {}
        for (task, who), taken in seconds.items():
            rates = [amounts[task.split("_")[0]] / second for second in taken]
            found.setdefault(task, {})[who] = {"median": median(rates), "min": min(rates), "max": max(rates)}
        for rates in found.values():
            rates["ratio"] = rates["resprout"]["median"] / rates["sdk"]["median"]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        server = Server(Path(folder) / "server")
        server.start()
        try:
            rates = Bench(server, Path(folder)).measure(arguments.repeats)
        finally:
            server.stop()
    result = {
        "repeats": arguments.repeats,
        "large_megabytes": LARGE_MEGABYTES,
        "small_files": SMALL_FILES,
        "small_bytes": SMALL_BYTES,
        "per_second": rates,
        "machine": machine.describe(),
    }
    arguments.output.parent.mkdir(exist_ok=True)
    with write_atomically(arguments.output) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")
    for task, rate in rates.items():
        sdk, ours = rate["sdk"]["median"], rate["resprout"]["median"]
        print(f"{task:<11} SDK {sdk:8.1f}   ours {ours:8.1f}   x{rate['ratio']:.2f}")


if __name__ == "__main__":
    main()
