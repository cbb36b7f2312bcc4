"""Where Kubeflow Pipelines is said to be: options, then the environment, then the pod that this is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cluster.settings import IN_CLUSTER_HOST, IN_CLUSTER_TOKEN, cluster_settings
from resprout.errors import ClusterError

HOST = "https://kfp.example.org/pipeline"


def test_an_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of the file\n")
    monkeypatch.setenv("RESPROUT_KFP_HOST", "https://elsewhere.example.org")
    monkeypatch.setenv("RESPROUT_KFP_TOKEN", "of the environment")

    from_environment = cluster_settings()
    settings = cluster_settings(host=HOST, token_file=tmp_path / "token")

    assert (from_environment.host, from_environment.current_token()) == (
        "https://elsewhere.example.org",
        "of the environment",
    )
    assert (settings.host, settings.current_token()) == (HOST, "of the file")


def test_the_kfp_sdks_own_variable_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", HOST)

    assert cluster_settings().host == HOST


def test_a_pod_finds_its_cluster_and_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")

    settings = cluster_settings(namespace="team-a", is_file=lambda path: path == IN_CLUSTER_TOKEN)

    assert (settings.host, settings.namespace, settings.token_file) == (IN_CLUSTER_HOST, "team-a", IN_CLUSTER_TOKEN)
    assert settings.link("abc") is None  # nobody opens that address in a browser


@pytest.mark.parametrize("host", ["kfp.example.org", "ftp://kfp.example.org", "https://"])
def test_what_is_no_url_is_refused(host: str) -> None:
    with pytest.raises(ClusterError, match="must start with http"):
        cluster_settings(host=host)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(ClusterError) as refused:
        cluster_settings(host="https://me:hunter2@kfp.example.org")

    assert "hunter2" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="is not a file"):
        cluster_settings(host=HOST, ca_file=tmp_path / "ca.crt")


@pytest.mark.parametrize(
    ("host", "ui", "link"),
    [
        (HOST, None, f"{HOST}/#/runs/details/abc"),
        (f"{HOST}/#/runs", None, f"{HOST}/#/runs/details/abc"),
        (IN_CLUSTER_HOST, f"{HOST}/", f"{HOST}/#/runs/details/abc"),
    ],
)
def test_a_link_leads_to_the_run(host: str, ui: str | None, link: str) -> None:
    assert cluster_settings(host=host, ui=ui).link("abc") == link
