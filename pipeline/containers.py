"""Stages as Docker containers: never root, the root file system read-only, no network unless a stage needs one.

A stage sees the artifacts that it is given, read-only, its own outputs, and of this machine only what its recipe
section names. So the labelled test set is there in the containers that fetch it and that evaluate, and in no other.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline import placement
from pipeline.local_kfp import EXECUTOR, Call, component_arguments
from resprout import storage
from resprout.errors import ResproutError
from resprout.recipe import Recipe
from resprout.storage import StorageSettings, builder
from resprout.storage.keys import CHECKPOINT_KEY_FILE

if TYPE_CHECKING:
    from docker import DockerClient

IMAGES_USER = 65532
LABEL = "org.resprout.run"
KEEPS_CHECKPOINTS = ("synthesize", "prune", "recover")
# where an image has the components (docker/Dockerfile)
COMPONENTS = Path("/opt/components")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def hands_out_gpus(recipe: Recipe) -> bool:
    """Whether the stages that want a GPU are given one; those that then see none fail."""
    return NVIDIA_DRIVER.exists() and recipe.placement.gpus > 0


@contextlib.contextmanager
def containers(
    recipe: Recipe, folder: Path, *, checkpoints: str, key_file: Path, settings: StorageSettings | None
) -> Iterator[Containers]:
    """Run components in containers of the local Docker Engine while the block runs.

    Args:
        recipe: names the images, and what of this machine a stage needs.
        folder: the run's; containers that a killed run in it left behind are removed.
        checkpoints: a folder, or an s3:// address.
        key_file: holds the key that seals them, in a folder that holds nothing else but them.
        settings: of object storage, for the stages that need it.

    Raises:
        ResproutError: there is no Docker Engine, or no such image.
    """
    with contextlib.closing(_engine()) as client:
        yield Containers(client, recipe, folder, checkpoints, key_file, settings)


class Containers:
    """An `Executor`, as `containers` makes it."""

    def __init__(
        self,
        client: DockerClient,
        recipe: Recipe,
        folder: Path,
        checkpoints: str,
        key_file: Path,
        settings: StorageSettings | None,
    ) -> None:
        self._client = client
        self._recipe = recipe
        self._root = folder
        self._checkpoints = checkpoints
        self._key_file = key_file
        self._settings = settings
        self._gpu = hands_out_gpus(recipe)
        self._label = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        for image in {self._image("fetch_teacher"), self._image("synthesize")}:
            _make_sure_of(self._client, image)
        self._remove_left_over()

    def __call__(self, call: Call, said: Callable[[str], None]) -> int:
        """See `Executor`.

        Raises:
            ResproutError: Docker cannot start the container.
        """
        from docker.errors import APIError

        try:
            return self._run(call, said)
        except APIError as error:
            on_gpu = self._on_gpu(call.task.name)
            raise ResproutError(
                f"Docker cannot run {call.task.name}" + (" with a GPU" if on_gpu else ""),
                why=str(error.explanation or error),
                now="install NVIDIA's container toolkit, or compute on the processor: --set placement.gpus=0"
                if on_gpu
                else "docker info, and the engine's log, say more",
            ) from None

    def _run(self, call: Call, said: Callable[[str], None]) -> int:
        call.folder.mkdir(parents=True, exist_ok=True)
        with self._writable(call) as writable:
            container = self._client.containers.create(
                self._image(call.task.name),
                [*EXECUTOR, *component_arguments(call, COMPONENTS)],
                labels={LABEL: self._label},
                environment=self._environment(call),
                mounts=self._mounts(call, writable),
                network_mode=self._network(call.task.name),
                device_requests=self._devices(call.task.name),
                user=":".join(map(str, _user())),
                working_dir=os.getcwd(),
                read_only=True,
                tmpfs={"/tmp": "rw,mode=1777"},  # noqa: S108
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                shm_size=self._recipe.placement.shared_memory.removesuffix("i"),
                init=True,
            )
            try:
                # not the container's log: followed to its end, it may lack the last lines
                chunks = container.attach(stream=True)
                with contextlib.closing(chunks._response):  # the stream's own close() leaves the connection open
                    container.start()
                    for line in _lines(chunks):
                        said(line)
                exit_code = int(container.wait()["StatusCode"])
                container.reload()
                if container.attrs["State"].get("OOMKilled"):
                    said("the container ran out of memory")
            finally:
                container.remove(force=True)  # ends it first, where this run was interrupted
        if exit_code == 0 and not call.task.executor_output.exists():
            said("the container ended well, but left no result")
            return 1
        return 128 - exit_code if exit_code > 128 else exit_code  # a shell's way to say: killed by a signal

    def _image(self, stage: str) -> str:
        cpu_image, gpu_image = placement.images(self._recipe.placement)
        return gpu_image if self._on_gpu(stage) else cpu_image

    def _on_gpu(self, stage: str) -> bool:
        return self._gpu and stage in placement.gpu_stages(self._recipe.placement)

    def _devices(self, stage: str) -> list[Any]:
        from docker.types import DeviceRequest

        return [DeviceRequest(count=-1, capabilities=[["gpu"]])] if self._on_gpu(stage) else []

    def _needs_storage(self, stage: str) -> bool:
        named = {name: (address or "").startswith("s3://") for name, address in self._addresses().items()}
        publishes = self._recipe.publishing.to is not None
        return {
            **named,
            "plan": publishes or any(named.values()),
            "publish": publishes,
            **dict.fromkeys(KEEPS_CHECKPOINTS, self._checkpoints.startswith("s3://")),
        }.get(stage, False)

    def _network(self, stage: str) -> str:
        if self._needs_storage(stage) and self._settings:
            # what listens on this machine's loopback alone is not there in a container's own network
            return "host" if urlsplit(self._settings.endpoint).hostname in ("localhost", "127.0.0.1") else "bridge"
        source = self._recipe.teacher.source
        fetches = stage == "fetch_teacher" and not Path(source).exists()
        looks_up = stage == "plan" and source.startswith("hf://")
        return "bridge" if fetches or looks_up else "none"

    def _addresses(self) -> dict[str, str | None]:
        """What each stage that fetches is told to fetch."""
        return {
            "fetch_teacher": self._recipe.teacher.source,
            "fetch_test_set": self._recipe.evaluation.data,
            "collect_images": self._recipe.training_data,
        }

    def _environment(self, call: Call) -> Mapping[str, str]:
        threads = {name: value for name, value in os.environ.items() if name == "OMP_NUM_THREADS"}
        key_file = {CHECKPOINT_KEY_FILE: str(self._key_file)} if call.task.name in KEEPS_CHECKPOINTS else {}
        # the working folder is the caller's, and first on the path of python -m otherwise
        return {**threads, **key_file, "PYTHONSAFEPATH": "1", **call.environment}

    def _mounts(self, call: Call, writable: list[Path]) -> list[Any]:
        from docker.types import Mount

        def mount(path: Path, target: str | None = None, read_only: bool = True) -> Any:
            return Mount(target or str(path), str(path), type="bind", read_only=read_only)

        mounts = [*map(mount, call.inputs), *(mount(path, read_only=False) for path in writable)]
        given = self._addresses().get(call.task.name)
        if given and Path(given).exists():
            mounts.append(mount(Path(given).resolve(), os.path.abspath(given)))
        if self._needs_storage(call.task.name) and self._settings:
            publishes = call.task.name == "publish"
            settings = self._settings.for_publishing() if publishes else self._settings
            folder = self._secrets(settings, "publishing-secrets" if publishes else "secrets")
            mounts.append(mount(folder, placement.SECRETS_FOLDER))
        if call.task.name == "publish":
            mounts.append(mount(self._signing(), placement.SIGNING_FOLDER))
        return mounts

    def _secrets(self, settings: StorageSettings, name: str) -> Path:
        folder = self._root / name
        if not folder.exists():
            storage.write_secrets(settings, folder)
            _hand_over(folder, *_user())
        return folder

    def _signing(self) -> Path:
        folder = self._root / "signing"
        if not folder.exists():
            builder.write_secrets(folder)
            _hand_over(folder, *_user())
        return folder

    @contextlib.contextmanager
    def _writable(self, call: Call) -> Iterator[list[Path]]:
        """What a stage may write, the caller's again when it has ended."""
        folders = [call.folder]
        if call.task.name in KEEPS_CHECKPOINTS:
            on_this_machine = self._checkpoints and not self._needs_storage(call.task.name)
            folders += {self._key_file.parent, *([Path(self._checkpoints)] if on_this_machine else [])}
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            _hand_over(folder, *_user())
        try:
            yield folders
        finally:
            for folder in folders:
                _hand_over(folder, os.getuid(), os.getgid())

    def _remove_left_over(self) -> None:
        for container in self._client.containers.list(all=True, filters={"label": f"{LABEL}={self._label}"}):
            container.remove(force=True)


def _user() -> tuple[int, int]:
    """Who a stage runs as: whoever runs Resprout, and never root."""
    return (os.getuid(), os.getgid()) if os.getuid() else (IMAGES_USER, IMAGES_USER)


def _hand_over(folder: Path, user: int, group: int) -> None:
    if os.getuid():
        return  # then everything is the caller's all the time
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, group, follow_symlinks=False)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def _engine() -> DockerClient:
    try:
        import docker
        from docker.errors import DockerException
    except ImportError:
        raise ResproutError(
            "Docker's SDK is not installed", now="pip install 'resprout[docker]', or run without --runner docker"
        ) from None
    client = None
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        if client is not None:
            client.close()
        raise ResproutError(
            "no Docker Engine answers",
            why=str(error),
            now="start it, or see that you may use it (group docker); without --runner docker, stages are processes",
        ) from None
    return client


def _make_sure_of(client: DockerClient, image: str) -> None:
    """Pull an image unless it is there.

    Raises:
        ResproutError: it is in no registry that this machine reaches.
    """
    from docker.errors import DockerException, ImageNotFound

    try:
        client.images.get(image)
    except ImageNotFound:
        try:
            client.images.pull(image)
        except DockerException as error:
            raise ResproutError(
                f"there is no image {image}",
                why=f"it is not on this machine, and pulling it failed: {getattr(error, 'explanation', error)}",
                now="make images builds it; placement.cpu_image and placement.gpu_image name others",
            ) from None
