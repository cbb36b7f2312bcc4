"""install.sh, against a kubectl that renders for real and writes down what else it was asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.k8s.rendering import Object, Place, may, render

KUBECTL = """#!/bin/sh
case "$*" in
    kustomize*) exec {real} "$@" ;;
esac
echo "$*" >> {folder}/asked
case "$*" in
    "apply -k "*) {real} kustomize "$3" > {folder}/applied ;;
    *endpointslices*addresses*) printf '%s' "{addresses}" ;;
    *endpointslices*port*) printf '6443' ;;
    *"service kubernetes"*clusterIPs*) printf '10.96.0.1' ;;
    *"service kubernetes"*port*) printf '443' ;;
    "apply --filename "*) [ ! -e {folder}/forbidden ] ;;
    "get serviceaccounts "*) if [ -e {folder}/elsewhere ]; then echo serviceaccount/resprout-runner; fi ;;
    "apply --server-side"*) [ ! -e {folder}/labelled ] ;;
    "get namespace "*) [ "$3" != missing ] ;;
    "get secret "*) [ -e {folder}/secrets/"$3".yaml ] ;;
    create*)
        cat > {folder}/new
        mv {folder}/new {folder}/secrets/"$(sed -n 's/.*{{name: \\([^,]*\\),.*/\\1/p' {folder}/new)".yaml
        ;;
esac
"""
STAGE = {"app.kubernetes.io/part-of": "resprout", "app.kubernetes.io/component": "synthesize"}


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers what install.sh asks, and the folder k8s/ that it is installed from."""

    folder: Path
    k8s: Path

    def install(self, *words: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        command = [str(self.k8s / "install.sh"), *words]
        return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)

    def applied(self) -> list[Object]:
        return [found for found in yaml.safe_load_all((self.folder / "applied").read_text()) if found]

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()

    def secrets(self) -> dict[str, dict[str, str]]:
        found = (self.folder / "secrets").glob("*.yaml")
        return {path.stem: yaml.safe_load(path.read_text())["stringData"] for path in found}


def make_cluster(folder: Path, k8s: Path, addresses: str) -> Cluster:
    (folder / "bin").mkdir()
    (folder / "secrets").mkdir()
    program = folder / "bin" / "kubectl"
    program.write_text(KUBECTL.format(real=shutil.which("kubectl"), folder=folder, addresses=addresses))
    program.chmod(0o755)
    return Cluster(folder, k8s)


@pytest.fixture
def cluster(tmp_path: Path, copy: Path) -> Cluster:
    return make_cluster(tmp_path, copy, "172.18.0.2 172.18.0.3 fd00:10::2")


def test_an_overlay_is_installed_with_one_command(cluster: Cluster, overlay: str):
    before = contents(cluster.k8s)

    done = cluster.install(overlay)

    assert done.returncode == 0, done.stderr
    changes = [line.split()[0] for line in cluster.asked() if line.split()[0] in ("apply", "delete")]
    assert changes == ["apply", "apply", "delete", "apply"]
    assert f"apply --filename {cluster.k8s / 'admission.yaml'}" in cluster.asked()
    assert cluster.asked()[-1].startswith("apply -k ")
    rendered = {(it["kind"], it["metadata"]["name"]) for it in render(cluster.k8s / "overlays" / overlay)}
    assert {(it["kind"], it["metadata"]["name"]) for it in cluster.applied()} == rendered
    assert contents(cluster.k8s) == before, "a checkout stays clean"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stages_reach_this_clusters_api_server_and_no_other(cluster: Cluster, overlay: str):
    assert cluster.install(overlay).returncode == 0
    objects = cluster.applied()
    namespace = objects[-1]["metadata"]["namespace"]

    def reached(address: str, port: int) -> bool:
        return may(objects, namespace, STAGE, "Egress", Place(port, address=address))

    assert reached("172.18.0.2", 6443)
    assert reached("172.18.0.3", 6443)
    assert reached("fd00:10::2", 6443)
    assert reached("10.96.0.1", 443)
    assert not reached("10.96.0.1", 6443)
    assert not reached("172.18.0.4", 6443)
    assert not reached("192.0.2.1", 443), "the address that stands there in the repository"


def test_the_manifests_can_be_printed_for_a_repository(cluster: Cluster, overlay: str):
    printed = cluster.install(overlay, "--print")

    assert printed.returncode == 0, printed.stderr
    assert all(line.startswith("get ") for line in cluster.asked()), "nothing is changed"
    assert cluster.install(overlay).returncode == 0
    admission = list(yaml.safe_load_all((cluster.k8s / "admission.yaml").read_text()))
    assert [it for it in yaml.safe_load_all(printed.stdout) if it] == admission + cluster.applied()


def test_what_was_installed_is_taken_away_with_one_command(cluster: Cluster, overlay: str):
    folder = cluster.k8s / "overlays" / overlay

    done = cluster.install(overlay, "--delete")

    assert done.returncode == 0, done.stderr
    assert f"delete --ignore-not-found -k {folder}" in cluster.asked()
    assert not any(line.startswith(("create", "apply -k")) for line in cluster.asked())
    assert not cluster.secrets(), "none is made"


def test_the_policy_of_the_cluster_goes_with_the_last_namespace(cluster: Cluster):
    taken_away = f"delete --ignore-not-found --filename {cluster.k8s / 'admission.yaml'}"
    (cluster.folder / "elsewhere").touch()
    assert cluster.install("multi-user", "--delete").returncode == 0
    assert taken_away not in cluster.asked()

    (cluster.folder / "elsewhere").unlink()
    assert cluster.install("standalone", "--delete").returncode == 0
    assert taken_away in cluster.asked()


def test_who_may_not_set_the_policy_is_told_and_may_install(cluster: Cluster):
    (cluster.folder / "forbidden").touch()
    done = cluster.install("multi-user")

    assert done.returncode == 0
    assert "note: a recipe may name any secret of team-vision" in done.stderr


def test_what_an_overlay_cannot_protect_is_said_where_it_is_installed(cluster: Cluster, overlay: str):
    done = cluster.install(overlay)

    assert ("every stage the administrator's keys" in done.stderr) == (overlay == "standalone")
    delete = "kubectl delete secret resprout-storage-admin"
    assert (delete in done.stdout) == (overlay in ("multi-user", "byo-minio")), "dev's store reads it at each start"


def test_dev_gets_keys_that_nobody_has_seen_and_keeps_them(cluster: Cluster):
    done = cluster.install("dev")
    made = cluster.secrets()

    assert set(made) == {"resprout-storage-admin", "resprout-storage", "resprout-publishing", "resprout-checkpoints"}
    keys = [secret[name] for secret in made.values() for name in ("accesskey", "secretkey")]
    assert len(set(keys)) == 8
    assert [name for name, secret in made.items() if "checkpointkey" in secret] == ["resprout-checkpoints"]
    keys.append(made["resprout-checkpoints"]["checkpointkey"])
    assert all(len(key) >= 20 for key in keys)
    shown = done.stdout + done.stderr + "".join(cluster.asked())
    assert not any(key in shown for key in keys)

    assert cluster.install("dev").returncode == 0
    assert cluster.secrets() == made


def test_no_other_overlay_makes_secrets_it_says_which_are_missing(cluster: Cluster):
    done = cluster.install("byo-minio")

    assert not cluster.secrets()
    for name in ("storage", "publishing", "checkpoints", "storage-admin", "pipeline-root"):
        assert f"note: the secret resprout-{name} is not there yet" in done.stderr


def test_labels_that_others_set_stay(cluster: Cluster):
    (cluster.folder / "labelled").touch()  # as the API server answers when fields are another manager's
    done = cluster.install("standalone")

    assert done.returncode == 0
    assert "note: kubeflow has Pod Security labels of its own" in done.stderr
    assert not any("force" in line or "overwrite" in line for line in cluster.asked())
    assert cluster.asked()[-1].startswith("apply -k ")


def test_an_overlay_of_ones_own(cluster: Cluster):
    own = shutil.copytree(cluster.k8s / "overlays" / "multi-user", cluster.k8s / "overlays" / "team-audio")
    file = own / "kustomization.yaml"
    file.write_text(file.read_text().replace("namespace: team-vision", "namespace: team-audio"))

    assert cluster.install(str(own)).returncode == 0
    assert {it["metadata"].get("namespace") for it in cluster.applied()} == {"team-audio"}


@pytest.mark.parametrize(
    ("overlay", "said"),
    [
        ("nonsense", "nonsense is no overlay"),
        ("", " is no overlay"),
        ("dev", "there is no namespace"),
        ("dev --delete", "there is no namespace"),
        ("standalone --remove", "--remove is no option"),
        ("standalone dev --print", "which overlay?"),
    ],
)
def test_what_cannot_be_installed_is_said(cluster: Cluster, overlay: str, said: str):
    file = cluster.k8s / "overlays" / "dev" / "kustomization.yaml"
    file.write_text(file.read_text().replace("namespace: kubeflow", "namespace: missing"))

    done = cluster.install(*(overlay.split() or [""]))

    assert done.returncode == 1
    assert said in done.stderr
    assert "  now: " in done.stderr


def test_a_cluster_that_hides_its_api_server_is_said(tmp_path: Path, copy: Path):
    done = make_cluster(tmp_path, copy, "").install("standalone")

    assert done.returncode == 1
    assert "does not say where its API server is" in done.stderr
    assert not (tmp_path / "applied").exists()
