"""A private object store on this machine: SeaweedFS, on loopback alone, closed to whoever lacks its credentials."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from pipeline import embedded_program
from pipeline.embedded_locks import lock
from resprout.errors import StorageError
from resprout.manifest import MANIFEST, digest_of
from resprout.recipe import Recipe
from resprout.storage import ObjectAddress, Storage, StorageSettings, try_writing

BUCKET = "resprout"
PATIENCE_SECONDS = 30.0
_GRPC_OFFSET = 10_000
"""SeaweedFS listens on each of its ports plus this too."""
_SERVICES = ("s3", "master", "volume", "filer", "admin")
_SOCKET = "/tmp/seaweedfs-{service}-grpc-{port}.sock"  # noqa: S108
"""What the five speak through among themselves, wherever TMPDIR points: closed to others by mode and certificate."""
_PARENT_DEATH_SIGNAL = 1


class Server:
    """One SeaweedFS with a bucket `resprout`; stopped and started again, it has the same address, credentials and data.

    It ends with the thread that started it, and so with this process, however that ends.

    Args:
        directory: for its data, its log and its keys; nobody else may read it.
        max_volumes: how many volumes it may make, at least one for each bucket that is written to; 0: as many as the
            disk has room for.

    Raises:
        StorageError: SeaweedFS is not installed, or is another program than Resprout knows.
    """

    def __init__(self, directory: Path, *, max_volumes: int = 0) -> None:
        self._directory = directory.resolve()
        self._max_volumes = max_volumes
        self._program = embedded_program.checked()
        self._ports = dict(zip(_SERVICES, _free_ports(len(_SERVICES)), strict=True))
        self._access_key, self._secret_key = secrets.token_hex(10), secrets.token_hex(20)
        self._process: subprocess.Popen[bytes] | None = None
        lock(self._directory)

    @property
    def settings(self) -> StorageSettings:
        """How to reach it."""
        endpoint = f"http://127.0.0.1:{self._ports['s3']}"
        return StorageSettings(
            endpoint=endpoint,
            access_key=SecretStr(self._access_key),
            secret_key=SecretStr(self._secret_key),
            # what the environment says of another server is not for this one
            session_token=None,
            ca_file=None,
            publishing_secrets=None,
            publishing_access_key=None,
        )

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            StorageError: it does not come up.
        """
        self._process = process = self._launch()
        impatient = Storage(self.settings.model_copy(update={"retries": 0, "timeout_seconds": 1.0}))
        give_up = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up and process.poll() is None:
            with contextlib.suppress(StorageError):
                impatient.check(BUCKET)  # it is made a moment after the server says that it is ready
                if _writes(impatient):
                    return
            time.sleep(0.05)
        self.stop()
        raise StorageError(
            "the embedded object store did not come up",
            why=f"it ended with exit code {process.returncode}; its last words: {self._last_words()}",
            now="with RESPROUT_STORAGE_ENDPOINT a server of yours is used instead",
        )

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        """End it; a server that has ended is left alone."""
        if self._process is None:
            return
        self._process.send_signal(by)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for service, port in self._ports.items():  # it does not always
            with contextlib.suppress(OSError):  # there is none, or it is another user's
                Path(_SOCKET.format(service=service, port=port + _GRPC_OFFSET)).unlink()

    def _last_words(self) -> str:
        lines = (self._directory / "server.log").read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "none")

    def _launch(self) -> subprocess.Popen[bytes]:
        options = {
            "dir": self._directory,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            **{f"{service}.port": port for service, port in self._ports.items()},
            # from where it works: a socket's path may have 107 bytes
            **{f"{service}.localSocket": f"{service}.sock" for service in ("s3", "filer")},
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.allowedOrigins": self.settings.endpoint,  # whose pages may read answers: it has none
            "s3.autoCreateBucket": "false",
            "s3.allowDeleteBucketNotEmpty": "false",
            "master.telemetry": "false",
            "volume.max": self._max_volumes,
            "admin.ui": "false",
            "webdav": "false",
        }
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._directory),
            "TMPDIR": str(self._directory),
            "AWS_ACCESS_KEY_ID": self._access_key,
            "AWS_SECRET_ACCESS_KEY": self._secret_key,
            "S3_BUCKET": BUCKET,
            "GOMEMLIMIT": "256MiB",
        }
        with (self._directory / "server.log").open("ab") as log:
            return subprocess.Popen(
                [self._program, "mini", *(f"-{name}={value}" for name, value in options.items())],
                cwd=self._directory,  # where it looks for security.toml
                env=environment,
                umask=0o077,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the run, which still has something to store then
                preexec_fn=_die_with_parent,
            )


def _writes(storage: Storage) -> bool:
    """Whether what writes knows of the bucket: it may learn of it after what lists does."""
    try:
        try_writing(storage, ObjectAddress(BUCKET, "start"))
    except StorageError as error:
        return "NoSuchBucket" not in error.why
    return True


def installed() -> bool:
    """Whether SeaweedFS is there to be started."""
    return embedded_program.found() is not None


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[StorageSettings]:
    """A new server while the block runs; what an earlier one left in the folder is removed first.

    Raises:
        StorageError: SeaweedFS is not installed, or does not come up.
    """
    shutil.rmtree(directory, ignore_errors=True)
    server = Server(directory)
    server.start()
    try:
        yield server.settings
    finally:
        server.stop()


def through(recipe: Recipe, settings: StorageSettings) -> Recipe:
    """A recipe whose teacher, where its digest names a folder of this machine, and whose result pass through a server.

    The folder is stored there now, to be fetched from there, and no other is taken for it. The result is published
    there unless the recipe names another place.
    """
    fields = recipe.model_dump(exclude_unset=True)
    teacher = Path(recipe.teacher.source)
    if (teacher / MANIFEST).is_file() and recipe.teacher.sha256 == digest_of(teacher):
        address = ObjectAddress(BUCKET, f"teachers/{teacher.resolve().name}")
        Storage(settings).upload_folder(teacher, address)
        fields["teacher"]["source"] = str(address)
    if recipe.publishing.to is None:
        fields.setdefault("publishing", {})["to"] = f"s3://{BUCKET}/models"
    return Recipe.model_validate(fields)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    """Ports that are free on loopback, with what SeaweedFS takes beside each. Held until all are found."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in _candidates():
            try:
                for number in (port, port + _GRPC_OFFSET):
                    listener = held.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", number))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise StorageError(f"no {count} free ports on this machine")


def _candidates() -> list[int]:
    # with their companions, below the range from which Linux takes the ports of outgoing connections
    return secrets.SystemRandom().sample(range(12_000, 22_000), 1_000)
