"""Stages as containers of a real Docker Engine: the same results, and nothing that a container may not have."""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from docker.errors import ImageNotFound

from components._image import CPU_IMAGE
from pipeline.containers import IMAGES_USER, LABEL, MOST_PROCESSES, containers
from pipeline.embedded_storage import Server
from pipeline.local_kfp import Call, Task
from resprout.errors import ResproutError
from resprout.recipe import (
    EvaluationSection,
    ImagesSection,
    PlacementSection,
    PublishingSection,
    Recipe,
    TeacherSection,
)
from resprout.storage import ObjectAddress, Storage
from tests.pipeline.running import contents, digests, read_until, run, run_folder, running

pytestmark = [pytest.mark.docker, pytest.mark.slow]
EVERYTHING_ON_CPU = ("--set", "placement.gpus=0")  # other machines' GPUs round differently


@pytest.fixture(autouse=True)
def _image(engine: DockerClient) -> None:
    try:
        engine.images.get(CPU_IMAGE)
    except ImageNotFound:
        pytest.skip(f"there is no image {CPU_IMAGE}: make image-cpu builds it")


def labelled(engine: DockerClient) -> list[Any]:
    return engine.containers.list(all=True, filters={"label": LABEL})


IN_A_SHELL = """
import json, os, sys
given = json.loads(sys.stdin.readline())
os.environ.update(given["environment"])
if given["door"]:
    from resprout.tunnel import listening
    os.environ["https_proxy"] = f"http://127.0.0.1:{listening(given['door'])}"
import subprocess
code = subprocess.call(["sh", "-c", given["arguments"][-1]])
sys.exit(code if code >= 0 else 128 - code)
"""


@pytest.fixture
def _shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of KFP's executor, which runs the component of a call's name, a shell runs the call's argument."""
    monkeypatch.setattr("pipeline.containers.EXECUTOR", ("python3", "-c", IN_A_SHELL))


class Stages:
    """Runs a shell command as if it were one of the pipeline's stages."""

    def __init__(self, folder: Path, recipe: Recipe, **settings: Any) -> None:
        self.folder = folder
        self.said: list[str] = []
        kept_in = {"checkpoints": "", "key_file": folder / "checkpoints" / ".key"}
        self._open = containers(recipe, folder, **{**kept_in, "settings": None, **settings})

    def __enter__(self) -> Stages:
        self.containers = self._open.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def call(
        self, name: str, script: str, environment: dict[str, str] | None = None, inputs: Sequence[Path] = ()
    ) -> Call:
        folder = self.folder / "outputs" / name
        task = Task(name, {}, folder / "executor_output.json")
        wrapped = f"{{ {script}; }} && touch {task.executor_output}"
        return Call(task, [wrapped], environment or {}, inputs, folder)

    def __call__(self, name: str, script: str, **more: Any) -> int:
        return self.containers(self.call(name, script, **more), self.said.append)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "teacher").mkdir()
    (tmp_path / "test set").mkdir()
    (tmp_path / "train set").mkdir()
    return Recipe(
        teacher=TeacherSection(source=str(tmp_path / "teacher")),
        synthesis=ImagesSection(data=str(tmp_path / "train set")),
        evaluation=EvaluationSection(data=str(tmp_path / "test set")),
        placement=PlacementSection(gpus=0),
    )


@pytest.fixture
def stages(engine: DockerClient, tmp_path: Path, recipe: Recipe, _shell: None) -> Iterator[Stages]:
    with Stages(tmp_path / "run", recipe) as stages:
        yield stages


@pytest.mark.parametrize("exit_code", [0, 1, 3])
def test_how_a_container_ended_is_always_known(stages: Stages, exit_code: int):
    # kfp.local's own handler takes one that is gone before it was asked for a success
    assert {stages("prune", f"exit {exit_code}" if exit_code else "true") for _ in range(8)} == {exit_code}


def test_an_end_without_a_result_is_a_failure(stages: Stages):
    call = stages.call("prune", "true")
    empty = Call(call.task, ["true"], {}, (), call.folder)

    assert stages.containers(empty, stages.said.append) == 1
    assert stages.said == ["the container ended well, but left no result"]


def test_a_signal_is_told_from_an_exit_code(stages: Stages):
    assert stages("prune", "kill -9 $$") == -9


def test_what_a_stage_says_arrives_line_by_line(stages: Stages):
    stages("prune", r"printf 'one\ntwo '; sleep 0.2; printf 'more\n\nnot UTF-8: \351\nlast'")

    assert stages.said == ["one", "two more", "", "not UTF-8: \ufffd", "last"]


def test_a_stage_is_not_root_and_can_change_nothing_but_its_outputs(stages: Stages):
    made, other = (stages.folder / "outputs" / name for name in ("fetch_teacher", "fetch_test_set"))
    assert stages("fetch_teacher", f"touch {made}/weights") == 0
    assert stages("fetch_test_set", f"touch {other}/images") == 0
    forbidden = [
        "touch /opt/resprout/x",
        "touch /x",
        f"touch {stages.folder}/outputs/x",
        f"touch {made}/x",
        "mount -t tmpfs none /mnt",
    ]
    script = "; ".join(f"! {{ {it}; }} 2>/dev/null || exit 9" for it in forbidden)

    script += f"; test -e {made}/weights && ! test -e {other} || exit 8"

    look = f"{script}; touch /tmp/x; id -u; id -g; grep -h CapEff /proc/self/status"
    assert stages("prune", look, inputs=[made]) == 0
    user = os.getuid() or IMAGES_USER
    assert stages.said[-3:] == [str(user), str(os.getgid() or IMAGES_USER), "CapEff:\t0000000000000000"]


def test_outputs_are_the_callers_afterwards(stages: Stages):
    folder = stages.folder / "outputs" / "prune"
    assert stages("prune", f"mkdir -p {folder}/student && echo x > {folder}/student/file") == 0

    made = [folder, *folder.rglob("*")]
    assert len(made) == 4
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(os.getuid(), os.getgid())}


@pytest.mark.parametrize(
    ("stage", "sees"),
    [
        ("fetch_teacher", {"teacher"}),
        ("fetch_test_set", {"test set"}),
        ("collect_images", {"train set"}),
        ("plan", set()),
        ("evaluate", set()),
        ("synthesize", set()),
        ("recover", set()),
        ("prune", set()),
    ],
)
def test_a_stage_sees_of_this_machine_only_what_its_section_names(
    stages: Stages, tmp_path: Path, stage: str, sees: set[str]
):
    script = (
        f"for name in teacher 'test set' 'train set'; do if [ -e {tmp_path}/\"$name\" ]; then echo \"$name\"; fi; done"
    )

    assert stages(stage, script) == 0
    assert set(stages.said) == sees


def test_no_stage_has_a_network(stages: Stages):
    for stage in ("plan", "fetch_teacher", "fetch_test_set", "synthesize", "prune", "recover", "evaluate", "publish"):
        stages.said.clear()
        assert stages(stage, "ls /sys/class/net; ls /run/resprout 2>&1; echo $https_proxy") == 0
        assert stages.said == ["lo", "ls: cannot access '/run/resprout': No such file or directory", ""], stage


@pytest.mark.usefixtures("_shell")
@pytest.mark.parametrize(
    ("source", "reaching"),
    [
        ("hf://owner/net", {"plan", "fetch_teacher"}),
        ("torchvision://resnet18", {"fetch_teacher"}),
        ("https://host/net.safetensors", {"fetch_teacher"}),
    ],
)
def test_who_looks_up_or_fetches_has_a_door_that_leads_to_nothing_near(
    engine: DockerClient, tmp_path: Path, recipe: Recipe, server: Server, source: str, reaching: set[str]
):
    elsewhere = recipe.model_copy(update={"teacher": TeacherSection(source=source)})
    bridge = engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    near = ["169.254.169.254", bridge, server.settings.address, "127.0.0.1"]
    ask = """
import os, urllib.request
for place in PLACES:
    try:
        urllib.request.urlopen(f"https://{place}/", timeout=9)
    except OSError as error:
        print(place, "403" in str(error))
"""
    script = f"ls /sys/class/net; python3 -c '{ask.replace('PLACES', str(near).replace(chr(39), chr(34)))}'"
    with Stages(tmp_path / "run", elsewhere) as stages:
        for stage in ("plan", "fetch_teacher", "synthesize", "evaluate"):
            stages.said.clear()
            assert stages(stage, script) == 0
            assert stages.said == ["lo", *(f"{place} {stage in reaching}" for place in near)], stage


@pytest.mark.usefixtures("_shell")
def test_storage_is_there_for_the_stages_that_need_it_and_its_secrets_where_nobody_looks(
    engine: DockerClient, tmp_path: Path, recipe: Recipe, server: Server
):
    _, secret_key, _ = server.settings.credentials()
    looked_at: list[str] = []

    def look(line: str) -> None:
        looked_at.extend(json.dumps(container.attrs) for container in labelled(engine))
        looked_at.extend(path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file())

    settings = {"settings": server.settings, "checkpoints": "s3://resprout/checkpoints"}
    publishing = recipe.model_copy(update={"publishing": PublishingSection(to="s3://resprout/models")})
    with Stages(tmp_path / "run", publishing, **settings) as stages:
        for stage in ("plan", "recover", "synthesize", "prune", "publish"):
            assert stages(stage, "ls /sys/class/net; resprout doctor --bucket resprout || true") == 0, stages.said
            assert "lo" in stages.said
            assert any("can be listed and written to" in line for line in stages.said)
        stages.said.clear()
        for stage in ("fetch_teacher", "evaluate", "gate"):
            assert stages(stage, "env; ls /run") == 0
        assert not any("RESPROUT_STORAGE" in line or line == "resprout" for line in stages.said)
        stages.containers(stages.call("publish", "echo here; sleep 1"), look)
    assert looked_at
    assert not any(secret_key in attributes for attributes in looked_at)


def test_a_container_takes_no_more_than_its_section_says(engine: DockerClient, stages: Stages):
    seen: list[dict[str, Any]] = []

    def look(line: str) -> None:
        seen.extend(container.attrs["HostConfig"] for container in labelled(engine))

    for stage in ("gate", "fetch_teacher", "synthesize"):
        stages.containers(stages.call(stage, "echo here; sleep 0.5"), look)
    limits = [(it["Memory"] / 2**20, it["MemorySwap"] / 2**20, it["NetworkMode"], it["PidsLimit"]) for it in seen]
    assert limits == [(mebibytes, mebibytes, "none", MOST_PROCESSES) for mebibytes in (512, 4096, 10240)]


def test_one_that_wants_more_memory_is_told_from_others_that_were_killed(engine: DockerClient, stages: Stages):
    assert stages("gate", "python3 -c 'bytearray(2**30)'") == -9
    assert stages.said[-1] == "the container ran out of memory: it may take 0.5 GiB, as placement says"


@pytest.mark.usefixtures("_shell")
def test_a_folder_of_checkpoints_is_handed_to_a_stage_only_where_nothing_else_is_in_it(
    engine: DockerClient, tmp_path: Path, recipe: Recipe
):
    kept, mine = tmp_path / "kept", tmp_path / "mine"
    kept.mkdir()
    mine.mkdir()
    (kept / "synthesis-1.checkpoint").touch()
    (mine / "thesis.txt").touch()

    with Stages(tmp_path / "run", recipe, checkpoints=str(kept)) as stages:
        assert stages("prune", f"rm {kept}/*") == 0
    with (
        Stages(tmp_path / "run", recipe, checkpoints=str(mine)) as stages,
        pytest.raises(ResproutError, match=r"holds more than checkpoints: thesis\.txt"),
    ):
        stages("prune", f"rm {mine}/*")
    assert (mine / "thesis.txt").stat().st_uid == os.getuid()


def test_a_stage_that_is_interrupted_leaves_no_container(engine: DockerClient, stages: Stages):
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.containers(stages.call("prune", "echo started; sleep 600"), interrupt)
    assert labelled(engine) == []


def test_what_a_killed_run_left_at_work_is_removed_by_the_next_in_its_folder(
    engine: DockerClient, stages: Stages, recipe: Recipe, tmp_path: Path
):
    label = {LABEL: stages.containers._label}
    left = engine.containers.run(CPU_IMAGE, ["sleep", "600"], labels=label, detach=True, network_mode="none")

    with Stages(tmp_path / "another run", recipe):
        assert [container.id for container in labelled(engine)] == [left.id]
    with Stages(stages.folder, recipe):
        assert labelled(engine) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_an_engine_the_error_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: Recipe):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    with pytest.raises(ResproutError, match="no Docker Engine answers"), Stages(tmp_path / "run", recipe):
        pass
    gc.collect()  # Docker's SDK leaves a socket that found nobody to its fate


@pytest.mark.parametrize("image", ["resprout/none:0.1.0", "none:1", "evil/cpu@sha256:" + "0" * 64])
def test_an_image_without_a_registry_is_never_looked_for_elsewhere(
    engine: DockerClient, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, image: str
):
    asked: list[str] = []
    monkeypatch.setattr("docker.models.images.ImageCollection.pull", lambda _, name, **more: asked.append(name))
    lost = recipe.model_copy(update={"placement": PlacementSection(cpu_image=image)})

    with pytest.raises(ResproutError, match=r"there is no image .* on this machine"), Stages(tmp_path / "run", lost):
        pass
    assert asked == []


def test_an_image_that_is_nowhere_is_named_before_the_work(engine: DockerClient, tmp_path: Path, recipe: Recipe):
    lost = recipe.model_copy(update={"placement": PlacementSection(cpu_image="127.0.0.1:1/nobody/cpu:1")})
    nowhere = r"there is no image 127\.0\.0\.1:1/nobody/cpu:1"
    with pytest.raises(ResproutError, match=nowhere), Stages(tmp_path / "run", lost):
        pass


@pytest.mark.usefixtures("_shell")
def test_a_gpu_is_asked_for_where_there_is_one(
    engine: DockerClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: Recipe
):
    if "nvidia" in engine.info()["Runtimes"]:
        pytest.skip("this engine has GPUs to give; how it looks where it has none is tested here")
    (tmp_path / "version").touch()
    monkeypatch.setattr("pipeline.containers.NVIDIA_DRIVER", tmp_path)
    with_gpu = recipe.model_copy(update={"placement": PlacementSection(gpu_image=CPU_IMAGE)})

    with Stages(tmp_path / "run", with_gpu) as stages:
        assert stages("gate", "true") == 0
        with pytest.raises(ResproutError, match="Docker cannot run synthesize with a GPU") as refused:
            stages("synthesize", "true")
    assert "placement.gpus=0" in str(refused.value)
    assert labelled(engine) == []


def test_four_shards_in_containers_give_the_bytes_of_one_in_a_process(
    engine: DockerClient, unbroken: tuple[Path, Path, str], tmp_path: Path
):
    recipe, runs, _ = unbroken
    in_containers = ("--runner", "docker", "--set", "placement.num_shards=4", *EVERYTHING_ON_CPU)

    exit_code, output = run(recipe, "--runs", tmp_path, *in_containers)

    assert exit_code == 0, output
    assert "   in containers   " in output
    assert digests(tmp_path) == digests(runs)
    made = [path for path in run_folder(tmp_path).rglob("*") if path.stat().st_uid != os.getuid()]
    assert made == []
    assert labelled(engine) == []


@pytest.mark.usefixtures("storage_configured")
def test_a_container_killed_in_recovery_goes_on_from_object_storage(
    engine: DockerClient, server: Server, unbroken: tuple[Path, Path, str], tmp_path: Path
):
    recipe, runs, _ = unbroken
    prefix = ObjectAddress("resprout", f"tests/{tmp_path.name}/checkpoints")
    storage = Storage(server.settings)
    kept_there = ("--set", f"placement.checkpoints={prefix}")
    command = (recipe, "--runs", tmp_path, "--runner", "docker", *kept_there, *EVERYTHING_ON_CPU)

    with running(*command) as process:
        read_until(process, "recovery", 0.3, "epochs")
        kept = [found.address.key for found in storage.list(prefix)]
        (container,) = labelled(engine)
        container.kill()
        output, _ = process.communicate()

    assert process.returncode == 0, output
    assert any("recovery-" in key for key in kept)
    assert "recovery     was killed by signal 9" in output
    after = output[output.index("was killed") :]
    first_seen = re.search(r"^recovery +(\d+)/24 epochs", after, flags=re.MULTILINE)
    # every second epoch is kept, and the last one may not have arrived yet when the container is killed
    assert first_seen is None or int(first_seen[1]) >= 4
    assert contents(tmp_path) == contents(runs)
    assert list(storage.list(prefix)) == []
