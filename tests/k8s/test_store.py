"""The object store of the dev overlay and the set-up Job: what the rendered objects say is run here, but for ports."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.error import S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

from pipeline.embedded_storage import PATIENCE_SECONDS, _free_ports
from resprout.errors import StorageError
from resprout.storage import ObjectAddress, Publication, Storage, StorageSettings, fetch, find, publish, try_writing
from tests.k8s.rendering import Object, named, pods

NAMES = ("resprout-storage-admin", "resprout-storage", "resprout-publishing", "resprout-checkpoints")
WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@dataclass(frozen=True)
class Store:
    """The running store, its ports by name, and the folder with its secrets."""

    ports: dict[str, int]
    secrets: Path

    def client(self, name: str) -> Minio:
        access, secret = ((self.secrets / name / file).read_text() for file in ("accesskey", "secretkey"))
        return Minio(f"127.0.0.1:{self.ports['s3']}", access, secret, secure=False, region="us-east-1")


def container(objects: list[Object], pod: str, name: str) -> dict[str, Any]:
    (found,) = (it for made in pods(objects) if made.name == pod for it in made.containers if it["name"] == name)
    return dict(found)


def script(objects: list[Object], name: str) -> str:
    (found,) = (it["data"] for it in objects if it["kind"] == "ConfigMap" and name in it["data"])
    return str(found[name])


@pytest.fixture(scope="session")
def dev(rendered: dict[str, list[Object]]) -> list[Object]:
    return rendered["dev"]


def write_secrets(folder: Path) -> None:
    for number, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        (folder / name / "accesskey").write_text(f"access{number}key")
        (folder / name / "secretkey").write_text(f"secret/{number}+key=_-")


def write_identities(objects: list[Object], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the init container's script, on folders of this machine."""
    policies = folder / "policies"
    policies.mkdir(exist_ok=True)
    for file, text in named(objects, "ConfigMap", "resprout-buckets")["data"].items():
        (policies / file).write_text(text)
    environment = {"SECRETS": folder / "secrets", "POLICIES": policies, "CONFIG": folder / "identities.json"}
    assert set(environment) == {it["name"] for it in container(objects, "resprout-store", "identities")["env"]}
    given = {**{name: str(path) for name, path in environment.items()}, "PATH": os.environ["PATH"]}
    command = ["sh", "-c", script(objects, "identities.sh")]
    return subprocess.run(command, env=given, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def store(dev: list[Object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The rendered StatefulSet's SeaweedFS, on loopback."""
    folder = tmp_path_factory.mktemp("store")
    write_secrets(folder / "secrets")
    assert write_identities(dev, folder).returncode == 0
    ports = dict(zip(("s3", "master", "volume", "filer", "admin"), _free_ports(5), strict=True))
    rendered = container(dev, "resprout-store", "seaweedfs")
    program, *words = rendered["command"]
    assert program == "weed"
    here = {"-dir": folder, "-ip.bind": "127.0.0.1", "-s3.config": folder / "identities.json"}
    here |= {f"-{name}.port": port for name, port in ports.items()}
    kept = [word for word in rendered["args"] if word.partition("=")[0] not in here]
    command = [str(WEED), *words, *kept, *(f"{name}={value}" for name, value in here.items())]
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"], "GOMEMLIMIT": "256MiB"}
    probe = rendered["readinessProbe"]["httpGet"]["path"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        await_answer(f"http://127.0.0.1:{ports['s3']}{probe}", process)
        yield Store(ports, folder / "secrets")
    finally:
        process.terminate()
        process.wait(20)


def opened(store: Store, name: str) -> Storage:
    access, secret = ((store.secrets / name / file).read_text() for file in ("accesskey", "secretkey"))
    endpoint = f"http://127.0.0.1:{store.ports['s3']}"
    return Storage(StorageSettings(endpoint=endpoint, access_key=access, secret_key=secret))


def await_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        try:
            if urllib3.request("GET", url, retries=False, timeout=1).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            time.sleep(0.05)
    raise AssertionError(f"{url} does not answer")


@pytest.fixture(scope="session")
def set_up(dev: list[Object], store: Store, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Run the Job's command as the Job does: the buckets from its ConfigMap, the credentials from its secret."""
    folder = tmp_path_factory.mktemp("setup")
    job = container(dev, "resprout-storage-setup", "setup")
    program, *words = job["args"]
    assert program == "resprout"
    (folder / "buckets.yaml").write_text(named(dev, "ConfigMap", "resprout-buckets")["data"]["buckets.yaml"])
    secret = shutil.copytree(store.secrets / "resprout-storage-admin", folder / "secret")
    (secret / "endpoint").write_text(f"http://127.0.0.1:{store.ports['s3']}\n")
    (given,) = job["env"]
    assert given["name"] == "RESPROUT_STORAGE_SECRETS"

    def run() -> str:
        command = [sys.executable, "-m", "pipeline.cli", *words[:-1], str(folder / Path(words[-1]).name)]
        environment = {**os.environ, given["name"]: str(secret)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run()
    return run


def test_probes_are_answered(dev: list[Object], store: Store):
    seaweedfs = container(dev, "resprout-store", "seaweedfs")
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        url = f"http://127.0.0.1:{store.ports['s3']}{seaweedfs[kind]['httpGet']['path']}"
        assert urllib3.request("GET", url, retries=False).status == 200
        assert seaweedfs[kind]["httpGet"]["port"] == "s3"


def test_the_job_does_nothing_twice(set_up: Callable[[], str]):
    assert set_up().splitlines() == [
        "s3://resprout-models  as it should be",
        "s3://resprout-checkpoints  as it should be",
    ]


@pytest.mark.usefixtures("set_up")
def test_checkpoints_expire_and_published_models_do_not(store: Store):
    admin = store.client("resprout-storage-admin")
    expiring, aborting = admin.get_bucket_lifecycle("resprout-checkpoints").rules
    assert (expiring.status, expiring.rule_filter.prefix, expiring.expiration.days) == ("Enabled", "", 14)
    (other,) = admin.get_bucket_lifecycle("resprout-models").rules
    assert other.expiration is None
    for rule in (aborting, other):
        assert rule.abort_incomplete_multipart_upload.days_after_initiation == 7


def put(bucket: str, key: str) -> Callable[[Minio], Any]:
    return lambda client: client.put_object(bucket, key, io.BytesIO(b"x"), 1)


def in_parts(bucket: str, key: str) -> Callable[[Minio], Any]:
    size = 5 * 2**20 + 1
    return lambda client: client.put_object(bucket, key, io.BytesIO(bytes(size)), -1, part_size=5 * 2**20)


def get(bucket: str, key: str) -> Callable[[Minio], Any]:
    return lambda client: client.get_object(bucket, key).close()


def remove(bucket: str, key: str) -> Callable[[Minio], Any]:
    return lambda client: client.remove_object(bucket, key)


def listing(bucket: str, prefix: str = "") -> Callable[[Minio], Any]:
    return lambda client: list(client.list_objects(bucket, prefix))


MODELS, CHECKPOINTS = "resprout-models", "resprout-checkpoints"


@pytest.mark.usefixtures("set_up")
@pytest.mark.parametrize(
    ("action", "may"),
    [
        (get(MODELS, "teachers/a"), {"resprout-storage"}),
        (listing(MODELS), {"resprout-storage"}),
        (get(MODELS, "models/a/1/model"), {"resprout-storage", "resprout-publishing"}),
        (listing(MODELS, "models/"), {"resprout-storage", "resprout-publishing"}),
        (put(MODELS, "models/a/1/new"), {"resprout-publishing"}),
        (in_parts(MODELS, "models/a/1/large"), {"resprout-publishing"}),
        (put(MODELS, "teachers/a"), set()),
        (remove(MODELS, "models/a/1/model"), set()),
        (get(CHECKPOINTS, "a"), {"resprout-checkpoints"}),
        (listing(CHECKPOINTS), {"resprout-checkpoints"}),
        (put(CHECKPOINTS, "b"), {"resprout-checkpoints"}),
        (in_parts(CHECKPOINTS, "large"), {"resprout-checkpoints"}),
        (remove(CHECKPOINTS, "b"), {"resprout-checkpoints"}),
        (lambda client: client.make_bucket("more"), set()),
        (lambda client: client.delete_bucket_policy(MODELS), set()),
        (lambda client: client.delete_bucket_lifecycle(CHECKPOINTS), set()),
    ],
    ids=[
        "read a teacher",
        "list teachers and models",
        "read a model",
        "list models",
        "publish",
        "publish in parts",
        "change a teacher",
        "remove what is published",
        "read a checkpoint",
        "list checkpoints",
        "keep a checkpoint",
        "keep a large checkpoint",
        "remove a checkpoint",
        "make a bucket",
        "let published models be removed",
        "let checkpoints last",
    ],
)
def test_rights(store: Store, action: Callable[[Minio], Any], may: set[str]):
    admin = store.client("resprout-storage-admin")
    for bucket, key in ((MODELS, "teachers/a"), (MODELS, "models/a/1/model"), (CHECKPOINTS, "a"), (CHECKPOINTS, "b")):
        put(bucket, key)(admin)
    assert {name for name in NAMES[1:] if is_allowed(action, store.client(name))} == may


def is_allowed(action: Callable[[Minio], Any], client: Minio) -> bool:
    try:
        action(client)
    except S3Error as error:
        if error.code != "AccessDenied":
            raise
        return False
    return True


@pytest.mark.usefixtures("set_up")
def test_what_is_published_stays_for_administrators_too(store: Store):
    admin = store.client("resprout-storage-admin")
    put(MODELS, "models/b/1/model")(admin)
    (version,) = (it.version_id for it in admin.list_objects(MODELS, "models/b/1/model", include_version=True))
    assert not is_allowed(remove(MODELS, "models/b/1/model"), admin)
    assert not is_allowed(lambda client: client.remove_object(MODELS, "models/b/1/model", version), admin)


@pytest.mark.usefixtures("set_up")
def test_what_is_published_is_read_by_others_whoever_writes_over_it(store: Store, tmp_path: Path):
    prefix = ObjectAddress.parse(f"s3://{MODELS}/models")

    def published(version: str, text: str) -> Publication:
        (tmp_path / "weights").write_text(text)
        about = {"metrics": {"recovered.top1": 0.5}}
        return publish(
            opened(store, "resprout-publishing"),
            prefix,
            "tiny",
            version,
            {"model/w": tmp_path / "weights"},
            about=about,
        )

    made, theirs = published("1", "weights"), published("2", "another model, with a back door")
    attacker = store.client("resprout-publishing")
    for name in ("published.json", f"{made.folder}/model/w"):
        key = (theirs.address / name.replace(made.folder, theirs.folder)).key
        content = attacker.get_object(MODELS, key).data.replace(b'"2"', b'"1"').replace(b"0.5", b"0.99")
        attacker.put_object(MODELS, (made.address / name).key, io.BytesIO(content), len(content))

    reader = opened(store, "resprout-storage")
    assert find(reader, prefix, "tiny", "1") == made
    fetch(reader, made, tmp_path / "out")
    assert (tmp_path / "out" / "model" / "w").read_text() == "weights"
    with pytest.raises(StorageError, match="may not do that"):
        publish(reader, prefix, "tiny", "3", {"model/w": tmp_path / "weights"}, about={})


@pytest.mark.usefixtures("set_up")
@pytest.mark.parametrize(
    ("place", "may"),
    [(f"s3://{MODELS}/models", "resprout-publishing"), (f"s3://{CHECKPOINTS}/runs", "resprout-checkpoints")],
)
def test_whether_a_stage_may_write_is_found_out_with_its_own_rights(store: Store, place: str, may: str):
    address = ObjectAddress.parse(place)

    for name in NAMES[1:]:
        if name == may:
            try_writing(opened(store, name), address)
            continue
        with pytest.raises(StorageError, match="may not do that"):
            try_writing(opened(store, name), address)

    assert not [it for it in opened(store, NAMES[0]).list(address) if "write-test-" in it.address.key]


@pytest.mark.usefixtures("set_up")
def test_lifecycle_rules_are_carried_out(dev: list[Object], store: Store, tmp_path: Path):
    admin = store.client("resprout-storage-admin")
    admin.make_bucket("past")
    rule = Rule(
        ENABLED,
        rule_filter=Filter(prefix="old/"),
        rule_id="past",
        expiration=Expiration(date=datetime(2026, 1, 1, tzinfo=timezone.utc)),
    )
    admin.set_bucket_lifecycle("past", LifecycleConfig([rule]))
    for key in ("old/a", "kept/a"):
        put("past", key)(admin)
    names = {"PAUSE_SECONDS", "HOME"}
    assert {it["name"] for it in container(dev, "resprout-store", "lifecycle")["env"]} == names
    services = {name.upper(): f"127.0.0.1:{store.ports[name]}" for name in ("master", "filer")}
    services["S3"] = f"127.0.0.1:{store.ports['s3'] + 10_000}"  # its gRPC port
    (tmp_path / "sleep").write_text(f"#!/bin/sh\n[ ! -e {tmp_path}/slept ] && touch {tmp_path}/slept\n")
    (tmp_path / "sleep").chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(str(WEED)).parent), os.environ["PATH"]])

    command = ["sh", "-c", script(dev, "lifecycle.sh")]
    environment = {"PATH": path, "HOME": str(tmp_path), "PAUSE_SECONDS": "86400", **services}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert "complete" in done.stdout, done.stderr
    assert [it.object_name for it in admin.list_objects("past", recursive=True)] == ["kept/a"]


@pytest.mark.parametrize("key", ["", "with space", 'quo"te', "line\nbreak", "back\\slash", "$(id)"])
def test_keys_that_would_change_the_configuration_are_refused(dev: list[Object], tmp_path: Path, key: str):
    write_secrets(tmp_path / "secrets")
    (tmp_path / "secrets" / "resprout-storage" / "secretkey").write_text(key)

    done = write_identities(dev, tmp_path)

    assert done.returncode == 1
    assert "error: secret resprout-storage: secretkey" in done.stderr
    assert not (tmp_path / "identities.json").exists()


def test_the_store_is_where_the_secrets_say(dev: list[Object]):
    made = (Path(__file__).parents[2] / "k8s" / "install.sh").read_text()
    service = named(dev, "Service", "resprout-store")
    (port,) = service["spec"]["ports"]
    assert f"endpoint: http://resprout-store.$namespace.svc.cluster.local:{port['port']}\n" in made
