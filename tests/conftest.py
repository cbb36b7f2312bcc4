"""What many tests need: a very small teacher that was really trained, and the images it was trained on."""

from __future__ import annotations

import copy
import gc
import importlib.util
import inspect
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import docker
import pytest
import torch
from docker import DockerClient
from docker.errors import DockerException
from kfp.dsl import pipeline_task
from torch import Tensor
from torch.nn import functional

from pipeline.embedded_storage import BUCKET, Server
from resprout import models
from resprout.checkpoints import Checkpoint
from resprout.masking import apply_mask
from resprout.progress import Progress
from resprout.recovery import Recovery, recover
from resprout.storage import ObjectAddress, Storage
from resprout.types import DreamSet, InputSpec, ModelInfo, PruningMask, Student, Teacher

NUM_CLASSES = 4
# a developer's own object storage and cluster are none of the tests'
for _name in [name for name in os.environ if name.startswith(("RESPROUT_STORAGE_", "RESPROUT_KFP_", "AWS_"))]:
    del os.environ[_name]
SPEC = InputSpec(shape=(3, 16, 16), mean=(0.5, 0.45, 0.4), std=(0.25, 0.2, 0.3))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the files, those with slow tests come first: else one has the last while others wait."""
    if not hasattr(config, "workerinput"):
        return
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    # tiny networks lose more to handing work over than they gain, and results stay the same on any machine
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _kfp_reads_no_source() -> Iterator[None]:
    # For the name of a caller, kfp has `inspect` look up the source of every frame, through all modules that there are:
    # under pytest, with torch imported, most of what a compilation takes.
    without_source = SimpleNamespace(**{**vars(inspect), "stack": partial(inspect.stack, 0)})
    with mock.patch.object(pipeline_task, "inspect", without_source):
        yield


@pytest.fixture(autouse=True, scope="session")
def _interrupts_are_heeded() -> None:
    # a shell starts what it runs in the background with SIGINT ignored: a test that interrupts would wait for ever
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """Loads a script that no package holds, by its path from the repository's root, as if it were run where it lies."""
    with pytest.MonkeyPatch.context() as loaded:

        def load(path: str) -> ModuleType:
            file = Path(__file__).parents[1] / path
            name = ".".join(Path(path).with_suffix("").parts)
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            loaded.setitem(sys.modules, name, module)  # where its dataclasses look for themselves
            with pytest.MonkeyPatch.context() as patch:
                patch.syspath_prepend(str(file.parent))  # where it finds its neighbours
                spec.loader.exec_module(module)
            return module

        yield load


@pytest.fixture(scope="session")
def _structured_images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    labels = torch.arange(256) % NUM_CLASSES
    prototypes = functional.interpolate(
        torch.randn(NUM_CLASSES, 3, 4, 4, generator=generator), size=16, mode="bilinear", align_corners=False
    )
    noise = torch.randn(256, 3, 16, 16, generator=generator)
    return 1.5 * prototypes[labels] + 0.5 * noise, labels


@pytest.fixture(scope="session")
def _trained(_structured_images: tuple[Tensor, Tensor]) -> Teacher:
    images, labels = _structured_images
    info = ModelInfo("cifar_resnet8", NUM_CLASSES, SPEC, ("red", "green", "blue", "grey"), {"width": 8})
    network = models.build(info.architecture, num_classes=NUM_CLASSES, arguments=info.arguments)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    for step in range(24):
        batch = torch.arange(32 * step, 32 * (step + 1)) % len(images)
        optimizer.zero_grad()
        functional.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
    return Teacher(info, network.eval().requires_grad_(False), source="tests", digest="0" * 64)


@pytest.fixture
def tiny_images(_structured_images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """256 images of 4 classes that `tiny_teacher` was trained on, in normalised space; and their labels."""
    images, labels = _structured_images
    return images.clone(), labels.clone()


@pytest.fixture
def tiny_teacher(_trained: Teacher) -> Teacher:
    """A trained `cifar_resnet8` of width 8: 9 BatchNorm layers, 3x16x16 images, 4 classes. Each test gets its own."""
    return copy.deepcopy(_trained)


@pytest.fixture
def tiny_student(tiny_teacher: Teacher) -> Student:
    """The tiny teacher with the smaller 85 % of each layer's weights gone, which costs it some of its answers."""
    network = copy.deepcopy(tiny_teacher.network)
    weights = {name: weight for name, weight in network.named_parameters() if weight.ndim > 1}
    mask = PruningMask({name: weight.abs() > weight.abs().quantile(0.85) for name, weight in weights.items()})
    apply_mask(network, mask)
    return Student(tiny_teacher.info, network, mask)


@pytest.fixture
def tiny_dreams(tiny_images: tuple[Tensor, Tensor]) -> DreamSet:
    """The images that the tiny teacher was trained on, in place of dreams: 192 to train on, 64 held out."""
    images, labels = tiny_images
    return DreamSet(images.half(), labels, num_held_out=64, num_classes=NUM_CLASSES)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real S3 server with the bucket `resprout`; all tests share it, so each keeps to a prefix of its own."""
    server = Server(tmp_path_factory.mktemp("storage"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Server]:
    """A SeaweedFS that has no volume left for anything but its first bucket."""
    server = Server(tmp_path / "full", max_volumes=1)
    server.start()
    file = tmp_path / "file"
    file.write_text("takes the only volume")
    storage = Storage(server.settings)
    storage.upload(file, ObjectAddress(BUCKET, "first"))
    storage.sdk.make_bucket("second")
    yield server
    server.stop(signal.SIGKILL)  # full, it takes ten seconds to end by itself


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerClient]:
    """A running Docker Engine."""
    problem = ""
    try:
        client = docker.from_env()
    except DockerException as error:
        problem = str(error)
    if problem:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()  # Docker's SDK leaves a socket that found nobody to its fate
        pytest.skip(f"no Docker Engine answers: {problem}")
    with closing(client):
        yield client


@pytest.fixture
def storage_configured(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names that server."""
    access_key, secret_key, _ = server.settings.credentials()
    monkeypatch.setenv("RESPROUT_STORAGE_ENDPOINT", server.settings.endpoint)
    monkeypatch.setenv("RESPROUT_STORAGE_ACCESS_KEY", access_key)
    monkeypatch.setenv("RESPROUT_STORAGE_SECRET_KEY", secret_key)


class _StoppedError(Exception):
    pass


TwoGoes = Callable[..., tuple[Recovery, list[int]]]


@pytest.fixture
def recovered_in_two_goes(tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet) -> TwoGoes:
    """Recover, stopped after the second epoch or layer and then again: the result, and what the second go reported."""

    def stop_after_two(progress: Progress) -> None:
        if progress.done == 2:
            raise _StoppedError

    def go(section: object, checkpoint: Checkpoint, found: Checkpoint | None = None) -> tuple[Recovery, list[int]]:
        networks = (tiny_teacher, tiny_student, tiny_dreams, section)
        with pytest.raises(_StoppedError):
            recover(*networks, seed=0, checkpoint=checkpoint, report=stop_after_two)
        seen: list[int] = []
        again = found or checkpoint
        return recover(*networks, seed=0, checkpoint=again, report=lambda at: seen.append(at.done)), seen

    return go
