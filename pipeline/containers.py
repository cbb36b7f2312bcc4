"""Stages as Docker containers: never root, the root file system read-only, without a network.

A stage sees the artifacts that it is given, read-only, its own outputs, and of this machine only what its recipe
section names. So the labelled test set is there in the containers that fetch it and that evaluate, and in no other.
Those that fetch or store something have a door (`pipeline/doors.py`) that leads there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import doors, placement
from pipeline.doors import Destinations
from pipeline.local_kfp import Call, told
from resprout import storage
from resprout.errors import ResproutError
from resprout.keys import KEY_FILE
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
EXECUTOR = ("python3", str(COMPONENTS / "_executor.py"))
DOORS = "/run/resprout"
SIGNING_KEY = "/tmp/signingkey"  # noqa: S108 - in a container's own memory
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
MOST_PROCESSES = 4096
"""Of a container, threads included: several for each core of a large machine, and far from all that a kernel has."""


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
        name = call.task.name
        with self._writable(call) as writable, self._door(name) as door:
            memory = _in_bytes(placement.memory(self._recipe.placement, name))
            container = self._client.containers.create(
                self._image(name),
                [*EXECUTOR, name],
                labels={LABEL: self._label},
                environment=self._environment(call),
                mounts=self._mounts(call, writable, door),
                network_mode="none",
                device_requests=self._devices(name),
                user=":".join(map(str, _user())),
                working_dir=os.getcwd(),
                read_only=True,
                tmpfs={"/tmp": "rw,mode=1777"},  # noqa: S108
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                shm_size=_in_bytes(self._recipe.placement.shared_memory),
                mem_limit=memory,
                memswap_limit=memory,
                pids_limit=MOST_PROCESSES,
                stdin_open=True,
                init=True,
            )
            try:
                exit_code = self._followed(container, self._told(call), said)
                if container.attrs["State"].get("OOMKilled"):
                    said(f"the container ran out of memory: it may take {memory / 2**30:.3g} GiB, as placement says")
            finally:
                container.remove(force=True)  # ends it first, where this run was interrupted
        if exit_code == 0 and not call.task.executor_output.exists():
            said("the container ended well, but left no result")
            return 1
        return 128 - exit_code if exit_code > 128 else exit_code  # a shell's way to say: killed by a signal

    def _followed(self, container: Any, given: str, said: Callable[[str], None]) -> int:
        """Start a container, tell it what it is given, hand on what it says; its exit code."""
        # not the container's log: followed to its end, it may lack the last lines
        chunks = container.attach(stream=True)
        stdin = container.attach_socket(params={"stdin": 1, "stream": 1})
        # what is closed are the answers: the streams' own close() leaves their connections open
        with contextlib.closing(chunks._response):
            with contextlib.closing(stdin._response), contextlib.closing(stdin._sock):
                container.start()
                with contextlib.suppress(ConnectionError):  # it died before it read
                    stdin._sock.sendall(given.encode())
                    stdin._sock.shutdown(socket.SHUT_WR)
            for line in _lines(chunks):
                said(line)
        exit_code = int(container.wait()["StatusCode"])
        container.reload()
        return exit_code

    def _told(self, call: Call) -> str:
        """What its executor reads: not in an argument or a variable, which Docker shows, and in no file."""
        destinations, publishes = self._destinations(call.task.name), call.task.name == "publish"
        fetches = bool(destinations.internet or destinations.named)
        door = f"{DOORS}/{doors.NAME}"
        environment: dict[str, str] = {}
        if destinations.endpoint and self._settings:
            settings = self._settings.for_publishing() if publishes else self._settings
            environment = storage.variables(settings.model_copy(update={"socket": Path(door)}))
        files = {}
        if publishes:
            environment[builder.BUILDER] = builder.from_environment().id
            if key := builder.signing_key():
                environment[builder.SIGNING_KEY] = SIGNING_KEY
                files[SIGNING_KEY] = key.read_text()
        return told(call, COMPONENTS, environment, door if fetches else None, files)

    def _image(self, stage: str) -> str:
        cpu_image, gpu_image = placement.images(self._recipe.placement)
        return gpu_image if self._on_gpu(stage) else cpu_image

    def _on_gpu(self, stage: str) -> bool:
        return self._gpu and stage in placement.gpu_stages(self._recipe.placement)

    def _devices(self, stage: str) -> list[Any]:
        """As many GPUs as a stage uses: its section's for synthesis, where the machine has them, and one elsewhere."""
        from docker.types import DeviceRequest

        wanted = self._recipe.placement.gpus if stage == "synthesize" else 1
        there = len(list((NVIDIA_DRIVER.parent / "gpus").glob("*"))) or wanted
        return [DeviceRequest(count=min(wanted, there), capabilities=[["gpu"]])] if self._on_gpu(stage) else []

    def _needs_storage(self, stage: str) -> bool:
        named = {name: (address or "").startswith("s3://") for name, address in self._addresses().items()}
        publishes = self._recipe.publishing.to is not None
        return {
            **named,
            "plan": publishes or any(named.values()),
            "publish": publishes,
            **dict.fromkeys(KEEPS_CHECKPOINTS, self._checkpoints.startswith("s3://")),
        }.get(stage, False)

    def _destinations(self, stage: str) -> Destinations:
        """Where a stage has to go."""
        settings = self._settings if self._needs_storage(stage) else None
        if settings and stage == "publish":
            settings = settings.for_publishing()
        endpoint = settings.endpoint if settings else None
        source = self._recipe.teacher.source
        fetches = stage == "fetch_teacher" and not source.startswith("s3://") and not Path(source).exists()
        looks_up = stage == "plan" and source.startswith("hf://")
        named = source if fetches and source.startswith("https://") else None
        return Destinations(endpoint, fetches or looks_up, named)

    @contextlib.contextmanager
    def _door(self, stage: str) -> Iterator[Path | None]:
        destinations = self._destinations(stage)
        if destinations == Destinations():
            yield None
            return
        with doors.door(self._root / "door", destinations, _user()) as socket_:
            yield socket_.parent

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
        # on a cluster secrets are mounted as folders, which these variables name
        others = {name: value for name, value in call.environment.items() if not name.startswith("RESPROUT_STORAGE_")}
        return {**threads, **key_file, "PYTHONSAFEPATH": "1", **others}

    def _mounts(self, call: Call, writable: list[Path], door: Path | None) -> list[Any]:
        from docker.types import Mount

        def mount(path: Path, target: str | None = None, read_only: bool = True) -> Any:
            return Mount(target or str(path), str(path), type="bind", read_only=read_only)

        mounts = [*map(mount, call.inputs), *(mount(path, read_only=False) for path in writable)]
        given = self._addresses().get(call.task.name)
        if given and Path(given).exists():
            mounts.append(mount(Path(given).resolve(), os.path.abspath(given)))
        if door:
            mounts.append(mount(door, DOORS))
        if self._needs_storage(call.task.name) and self._settings and self._settings.ca_file:
            mounts.append(mount(self._settings.ca_file.resolve(), os.path.abspath(self._settings.ca_file)))
        return mounts

    @contextlib.contextmanager
    def _writable(self, call: Call) -> Iterator[list[Path]]:
        """What a stage may write, the caller's again when it has ended."""
        folders = [call.folder]
        if call.task.name in KEEPS_CHECKPOINTS:
            on_this_machine = self._checkpoints and not self._needs_storage(call.task.name)
            named = [_checkpoints_alone(Path(self._checkpoints))] if on_this_machine else []
            folders += {self._key_file.parent, *named}
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
        ResproutError: it is in no registry that this machine reaches, or names none.
    """
    from docker.errors import DockerException, ImageNotFound

    with contextlib.suppress(ImageNotFound):
        client.images.get(image)
        return
    if not _names_a_registry(image):
        raise ResproutError(
            f"there is no image {image} on this machine",
            why="a name without a registry's host is looked for where anybody may have taken it",
            now="make images builds Resprout's; --set placement.cpu_image=REGISTRY/… names another",
        )
    try:
        client.images.pull(image)
    except DockerException as error:
        raise ResproutError(
            f"there is no image {image}",
            why=f"it is not on this machine, and pulling it failed: {getattr(error, 'explanation', error)}",
            now="make images builds it; placement.cpu_image and placement.gpu_image name others",
        ) from None


def _names_a_registry(image: str) -> bool:
    """Whether a name begins with a host, as Docker tells it from a user of Docker's own registry."""
    host, slash, _ = image.partition("/")
    return bool(slash) and (host == "localhost" or "." in host or ":" in host)


def _checkpoints_alone(folder: Path) -> Path:
    """A folder of checkpoints, which a stage may write and, where root runs this, is given to its user.

    Raises:
        ResproutError: something else is there.
    """
    others = [path.name for path in folder.glob("*") if path.is_symlink() or not _is_checkpoint(path)]
    if others:
        raise ResproutError(
            f"placement.checkpoints {folder} holds more than checkpoints: {', '.join(others[:3])}",
            why="a stage in a container may write and remove whatever is there",
            now="name a folder of their own",
        )
    return folder


def _is_checkpoint(path: Path) -> bool:
    from resprout.checkpoints import SUFFIX

    temporary = path.name[0] == "." and path.suffix == ".tmp"
    return path.is_file() and (path.suffix == SUFFIX or temporary or path.name == KEY_FILE)


def _in_bytes(quantity: str) -> int:
    """What Kubernetes writes as 1.5Gi."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    return int(float(quantity[:-2]) * units[quantity[-2:]])
