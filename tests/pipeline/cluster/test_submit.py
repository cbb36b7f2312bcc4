"""`resprout submit`: what arrives at Kubeflow Pipelines, and what survives on the way there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pipeline.cluster.submission import PIPELINES
from resprout.recipe.form import KINDS
from tests.pipeline.cluster.conftest import RECIPE, Resprout, command_line
from tests.pipeline.cluster.fake_kfp import FakeKfp, Scene, serving

RUNS, UPLOAD = "/apis/v2beta1/runs", "/apis/v2beta1/pipelines/upload_version"


def test_a_run_is_created_with_the_recipe_as_a_form_that_was_filled_in(
    kfp: FakeKfp, resprout: Resprout, recipe: Path
) -> None:
    result = resprout("submit", recipe, "--set", "recovery.epochs=20", "--name", "nightly")

    assert result.exit_code == 0, result.output
    (run,) = kfp.runs.values()
    assert run.display_name == "nightly"
    assert run.runtime_config.parameters == {
        "teacher": RECIPE["teacher"]["source"],
        "test_set": "",
        "sparsity": "0.75",
        "publish_to": "",
        "seed": 0,
        "recipe": {"name": "small", "recovery": {"epochs": 20}, "gate": {"min_sparsity": 0.7}},
        "placement": {},
    }
    assert f"{kfp.url}/#/runs/details/{run.run_id}" in result.output
    assert f"resprout runs stop {run.run_id}" in result.output


@pytest.mark.parametrize("number", ["4711", "0.10", "1e3", "007"])
def test_a_build_number_is_a_version_as_it_was_typed(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, number: str
) -> None:
    result = resprout("submit", recipe, "--set", f"publishing.version={number}", "--set", "publishing.name=7")

    assert result.exit_code == 0, result.output
    (run,) = kfp.runs.values()
    assert run.runtime_config.parameters["recipe"]["publishing"] == {"version": number, "name": "7"}


def test_placement_options_are_the_runs_parameters(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    options = ("--gpu-type", "nvidia.com/mig-1g.10gb", "--node-selector", "zone=a", "--node-selector", "gpu=h100")
    result = resprout("submit", recipe, *options, "--shards", 4, "--service-account", "resprout-runner")

    assert result.exit_code == 0, result.output
    (run,) = kfp.runs.values()
    assert run.service_account == "resprout-runner"
    given = run.runtime_config.parameters["placement"]
    assert (given["gpu_type"], given["num_shards"]) == ("nvidia.com/mig-1g.10gb", 4)
    assert given["gpu_node_selector"] == {"zone": "a", "gpu": "h100"}


def test_the_service_account_may_stand_in_the_environment(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resprout("submit", recipe)
    monkeypatch.setenv("RESPROUT_KFP_SERVICE_ACCOUNT", "resprout-runner")
    resprout("submit", recipe)

    assert [run.service_account for run in kfp.runs.values()] == [None, "resprout-runner"]


def test_a_second_submit_reuses_the_pipeline_version(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    first = resprout("submit", recipe)
    second = resprout("submit", recipe, "--set", "pruning.sparsity=0.9", "--shards", 4)

    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    assert (len(kfp.runs), len(kfp.versions), kfp.calls("POST", UPLOAD)) == (2, 1, 1)
    assert "uploaded" in first.output
    assert "was there" in second.output


def test_what_is_compiled_in_makes_another_version_of_the_same_pipeline(
    kfp: FakeKfp, resprout: Resprout, recipe: Path
) -> None:
    resprout("submit", recipe)
    result = resprout("submit", recipe, "--set", "placement.retries=5")

    assert result.exit_code == 0, result.output
    assert (len(kfp.pipelines), len(kfp.versions)) == (1, 2)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--set", "synthesis.method=images", "--set", "synthesis.data=s3://bucket/train"), "compress-images"),
        (("--pipeline", "scan"), "scan"),
    ],
    ids=["images", "a scan"],
)
def test_the_pipeline_is_the_one_that_fits_or_the_one_that_is_named(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, words: tuple[str, ...], name: str
) -> None:
    result = resprout("submit", recipe, *words)

    assert result.exit_code == 0, result.output
    assert [it.name for it in kfp.pipelines.values()] == [f"resprout-{name}"]
    (run,) = kfp.runs.values()
    assert set(run.runtime_config.parameters) == {*KINDS[name], "seed", "recipe", "placement"}
    assert run.run_id in resprout("runs", "ls").output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pipeline", "compress-images"), "the pipeline compress-images takes images of your own"),
        (
            ("--pipeline", "scan", "--set", "synthesis.method=images", "--set", "synthesis.data=s3://bucket/train"),
            "the pipeline scan takes dreams",
        ),
    ],
    ids=["no images", "no dreams"],
)
def test_a_pipeline_that_does_not_fit_is_refused_before_anything_is_asked(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, words: tuple[str, ...], said: str
) -> None:
    result = resprout("submit", recipe, *words)

    assert result.exit_code == 2
    assert said in result.output
    assert not kfp.asked


def test_a_version_is_found_behind_the_first_page(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    for retries in range(3):
        resprout("submit", recipe, "--set", f"placement.retries={retries}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.cluster.asking.PAGE", 1)
        result = resprout("submit", recipe, "--set", "placement.retries=2")

    assert "was there" in result.output


def test_what_is_uploaded_is_what_compile_writes(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, tmp_path: Path
) -> None:
    resprout("submit", recipe)
    resprout("compile", "--output", tmp_path / "compiled.yaml")

    (version,) = kfp.versions.values()
    spec, platform = yaml.safe_load_all((tmp_path / "compiled.yaml").read_text())
    assert version.pipeline_spec == {"pipeline_spec": spec, "platform_spec": platform}
    assert [it.name for it in kfp.pipelines.values()] == [PIPELINES["compress"]]


def test_a_restart_of_a_minute_is_outlived(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.fails("GET", ".*", status=503, times=1000, until=60)

    result = resprout("submit", recipe)

    assert result.exit_code == 0, result.output
    assert len(kfp.runs) == 1
    assert kfp.clock >= 60
    assert result.output.count("keeps failing (HTTP 503)") == 1  # said once, not with each try


def test_a_server_that_stays_away_cannot_be_told(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.fails("GET", ".*", status=503, times=1000)

    result = resprout("submit", recipe)

    assert result.exit_code == 4
    assert "error: cannot reach Kubeflow Pipelines" in result.output
    assert not kfp.runs


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("path", [RUNS, UPLOAD, "/apis/v2beta1/experiments", "/apis/v2beta1/pipelines"])
def test_a_cut_connection_creates_nothing_twice(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, path: str, carried_out: bool
) -> None:
    kfp.cuts("POST", path, carried_out=carried_out)

    result = resprout("submit", recipe)

    assert result.exit_code == 0, result.output
    assert [len(it) for it in (kfp.pipelines, kfp.versions, kfp.experiments, kfp.runs)] == [1, 1, 1, 1]


def test_a_token_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch, recipe: Path) -> None:
    with serving(token="s3cret-token") as kfp:
        resprout = command_line(kfp, monkeypatch)
        monkeypatch.setenv("RESPROUT_KFP_TOKEN", "s3cret-token\n")
        good = resprout("submit", recipe, "-v")
        monkeypatch.setenv("RESPROUT_KFP_TOKEN", "s3cret-but-old")
        bad = resprout("submit", recipe, "-v")

    assert good.exit_code == 0, good.output
    assert bad.exit_code == 4
    assert "the token is not accepted, or has run out" in bad.output
    assert "s3cret" not in good.output + bad.output
    assert kfp.clock == 0  # the same token again would be the same answer


def test_a_token_that_is_renewed_in_its_file_is_read_again(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    with serving(token="new") as kfp:
        resprout = command_line(kfp, monkeypatch)

        def pass_time(seconds: float) -> None:
            file.write_text("new\n")

        monkeypatch.setattr(kfp, "sleep", pass_time)
        resprout = command_line(kfp, monkeypatch)
        result = resprout("submit", recipe, "--token-file", file)

    assert result.exit_code == 0, result.output
    assert len(kfp.runs) == 1


def test_a_server_that_wants_a_token_says_so(monkeypatch: pytest.MonkeyPatch, recipe: Path) -> None:
    with serving(token="any") as kfp:
        result = command_line(kfp, monkeypatch)("submit", recipe)

    assert result.exit_code == 4
    assert "it wants a token, and has none" in result.output
    assert "RESPROUT_KFP_TOKEN" in result.output


def test_a_way_to_a_login_is_not_gone(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.fails("GET", ".*", status=302)

    result = resprout("submit", recipe)

    assert result.exit_code == 4
    assert "asks who you are (HTTP 302)" in result.output
    assert kfp.asked == [("GET", "/apis/v2beta1/healthz")]  # the token went nowhere else


def test_several_teams_need_a_namespace(monkeypatch: pytest.MonkeyPatch, recipe: Path) -> None:
    with serving(multi_user=True) as kfp:
        resprout = command_line(kfp, monkeypatch)
        without = resprout("submit", recipe)
        with_one = resprout("submit", recipe, "--namespace", "team-a")
        again = resprout("submit", recipe, "--namespace", "team-a")

    assert without.exit_code == 4
    assert "give --namespace" in without.output
    assert with_one.exit_code == again.exit_code == 0, with_one.output
    assert [it.namespace for it in kfp.experiments.values()] == ["team-a"]
    assert [it.namespace for it in kfp.pipelines.values()] == ["team-a"]


def test_a_namespace_means_nothing_to_a_kfp_of_one_team(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.plays(Scene("FAILED", {"prune": "FAILED"}))

    result = resprout("submit", recipe, "--namespace", "team-a", "--wait")

    assert [it.namespace for it in kfp.experiments.values()] == [None]
    assert "kubectl logs -l" in result.output, "the hint names none either"


def test_a_page_that_is_no_api_is_told_from_one(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kfp, "health", lambda **_: "<html>Log in to your account</html>")
        result = resprout("submit", recipe)

    elsewhere = resprout("submit", recipe, "--host", f"{kfp.url}/elsewhere")

    assert (result.exit_code, elsewhere.exit_code) == (4, 4)
    assert "is not Kubeflow Pipelines' API" in result.output
    assert "is not Kubeflow Pipelines' API" in elsewhere.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("teacher.source=examples/resnet20-cifar10/teacher", "is a path on this machine"),
        ("evaluation.data=data/test", "is a path on this machine"),
        (
            "teacher.source=https://me:secret@host/net.pt",
            "holds a password, or a query that may be a signature: https://host/net.pt",
        ),
        ("placement.num_shards=0", "placement.num_shards"),
        ("recovery.epoch=3", "did you mean epochs?"),
    ],
)
def test_a_recipe_that_cannot_work_there_is_refused_before_anything_is_asked(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, change: str, said: str
) -> None:
    result = resprout("submit", recipe, "--set", change)

    assert result.exit_code == 2
    assert said in result.output
    assert not kfp.asked


def test_labelled_images_on_this_machine_are_refused_before_anything_is_asked(
    kfp: FakeKfp, resprout: Resprout, recipe: Path
) -> None:
    images = ("--set", "synthesis.method=images", "--set", "synthesis.data=data/train")

    result = resprout("submit", recipe, *images)

    assert result.exit_code == 2
    assert "synthesis.data data/train is a path on this machine" in result.output
    assert not kfp.asked


@pytest.mark.parametrize("options", [["--node-selector", "zone"], ["--timeout", "soon"], ["--host", "kfp.example.org"]])
def test_wrong_options_are_wrong_usage(kfp: FakeKfp, resprout: Resprout, recipe: Path, options: list[str]) -> None:
    result = resprout("submit", recipe, *options)

    assert result.exit_code == 2
    assert not kfp.asked


def test_without_a_host_the_way_to_one_is_told(
    monkeypatch: pytest.MonkeyPatch, resprout: Resprout, recipe: Path
) -> None:
    monkeypatch.delenv("RESPROUT_KFP_HOST")

    result = resprout("submit", recipe)

    assert result.exit_code == 2
    assert "kubectl port-forward" in result.output


def test_json_says_what_a_build_needs(kfp: FakeKfp, resprout: Resprout, recipe: Path, tmp_path: Path) -> None:
    kfp.plays(Scene("SUCCEEDED", {"prune": "SUCCEEDED"}))
    written = tmp_path / "run.json"

    resprout("submit", recipe, "--json", written)
    submitted = json.loads(written.read_text())
    resprout("submit", recipe, "--json", written, "--wait")
    ended = json.loads(written.read_text())

    assert submitted["run_id"] in kfp.runs
    assert submitted["version_id"] in kfp.versions
    assert (submitted["state"], ended["state"]) == ("PENDING", "SUCCEEDED")
    assert {"name": "prune", "state": "done"}.items() <= ended["stages"][0].items()
