"""What `resprout doctor` finds out: whether this machine, or this image, can do the work."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resprout import __version__
from resprout.errors import ResproutError

_PACKAGES = (
    "torch",
    "torchvision",
    "kfp",
    "minio",
    "timm",
    "huggingface-hub",
    "torch-pruning",
    "safetensors",
    "pydantic",
)
# of Kubeflow Pipelines, on a cluster
TRIED = ("2.17.0",)
_OPTIONAL = ("kfp", "minio", "timm", "huggingface-hub", "torch-pruning")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `problem` says what is wrong with it, if anything is."""

    what: str
    value: str
    problem: str = ""


def findings(bucket: str | None, *, cluster: bool = False) -> Iterator[Finding]:
    """Look at versions, processor, memory, GPUs and, when asked, object storage and Kubeflow Pipelines.

    Args:
        bucket: one that must be usable, or BUCKET/PREFIX where its credentials may write; none: storage is not asked.
        cluster: whether the Kubeflow Pipelines that the environment names must be usable.
    """
    yield Finding("resprout", f"{__version__}, Python {platform.python_version()}, {platform.machine()}")
    yield from map(_package, _PACKAGES)
    yield from _processor()
    yield from _gpus()
    yield _scratch()
    if bucket is not None:
        yield _storage(bucket)
    if cluster:
        yield _cluster()


def _package(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", "" if name in _OPTIONAL else "Resprout cannot work without it")


def _processor() -> Iterator[Finding]:
    import torch

    from resprout import precision

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = str(precision.resolve("auto", torch.device("cpu"))).removeprefix("torch.")
    yield Finding("processor", f"{cores} cores, {torch.backends.cpu.get_cpu_capability()}, computes in {kind}")
    total, limit = _memory()
    bounded = f", of which this container may use {limit / 2**30:.1f}" if limit else ""
    problem = "" if (limit or total) >= 2 * 2**30 else "a run of the demo needs 2 GiB"
    yield Finding("memory", f"{total / 2**30:.1f} GiB{bounded}", problem)


def _memory() -> tuple[int, int | None]:
    """Bytes of memory in the machine, and the limit of the control group where there is one."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(path).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if limit < total:
            return total, limit
    return total, None


def _gpus() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield Finding("GPU", f"none that torch sees (built for CUDA {torch.version.cuda or 'not at all'})")
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        kind = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
        yield Finding(f"GPU {index}", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, computes in {kind}")


def _scratch() -> Finding:
    import tempfile

    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
    except OSError as error:
        return Finding("scratch", tempfile.gettempdir(), f"cannot be written: {error.strerror}")
    return Finding("scratch", f"{tempfile.gettempdir()} can be written")


def _storage(bucket: str) -> Finding:
    try:
        from resprout import storage
    except ImportError as error:
        return Finding("storage", "not installed", f"{error}; pip install 'resprout[storage]'")
    try:
        settings = storage.required().model_copy(update={"retries": 1})
        place = storage.ObjectAddress.parse(f"s3://{bucket.removeprefix('s3://')}")
        next(storage.Storage(settings).list(place), None)
        publisher = storage.Storage(settings.for_publishing())
        storage.try_writing(publisher, place)
        storage.try_keeping(publisher, place)
    except ResproutError as error:
        return Finding("storage", "", str(error))
    return Finding("storage", f"{settings.endpoint}, {place} can be listed and written to, and keeps what is there")


def _cluster() -> Finding:
    try:
        from pipeline.cluster.asking import Connection
        from pipeline.cluster.server import Server
        from pipeline.cluster.settings import cluster_settings
        from pipeline.cluster.submission import PIPELINES
    except ImportError as error:
        return Finding("cluster", "not installed", f"{error}; pip install 'resprout[pipeline]'")
    try:
        server = Server(Connection(cluster_settings(), attempts=1))
        server.check()
        name = PIPELINES["compress"]
        found = server.pipeline(name) is not None
    except ResproutError as error:
        return Finding("cluster", "", str(error))
    where = server.settings.host + (f", namespace {server.namespace}" if server.namespace else "")
    tried = "tried" if server.kfp_version in TRIED else f"not tried by us: {', '.join(TRIED)} was"
    version = f"Kubeflow Pipelines {server.kfp_version} ({tried})"
    there = f"{name} is {'there' if found else 'not there yet: submit uploads it'}"
    return Finding("cluster", f"{where}, {version}, {there}")
