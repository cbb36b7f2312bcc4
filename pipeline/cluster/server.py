"""What Resprout asks of Kubeflow Pipelines' API; each question outlives a restart of the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import kfp_server_api as kfp
from kfp_server_api import ApiException
from urllib3 import exceptions as http

from pipeline.cluster.asking import PAGE, Connection, none_if_missing
from pipeline.cluster.workflow import Pod, Workflow, read
from resprout.errors import ClusterError

# of an API that is older than the one that everything else is asked of, and may go away
_NOT_SERVED = (400, 403, 404, 405, 410, 501)


class Server:
    """What the API of one Kubeflow Pipelines is asked.

    Args:
        connection: how it is asked.
    """

    def __init__(self, connection: Connection) -> None:
        self.settings = connection.settings
        self.sleep = connection.sleep
        self.namespace = connection.settings.namespace
        self.kfp_version = ""
        self._connection = connection
        self._client = connection.client
        self._ask = connection.ask
        self._pages = connection.pages

    def patient(self) -> Server:
        """The same, for who waits for a run anyway."""
        other = Server(self._connection.patient())
        other.namespace, other.kfp_version = self.namespace, self.kfp_version  # which `check` may have set
        return other

    def check(self) -> None:
        """Make sure that this is Kubeflow Pipelines, and know which version, and which namespace is meant.

        Raises:
            ClusterError: it does not answer, is something else, or serves several namespaces and none was named.
        """
        answer = self._ask(
            "cannot reach Kubeflow Pipelines", none_if_missing(self._connection.get), "/apis/v2beta1/healthz"
        )
        try:
            health = json.loads(answer or "")
            several = bool(health.get("multi_user", False))
            # the API's own word, or the UI's on it
            self.kfp_version = str(health.get("tag_name") or health.get("apiServerTagName") or "unknown")
        except (ValueError, AttributeError):
            raise ClusterError(
                f"{self.settings.host} is not Kubeflow Pipelines' API",
                why="it answers, but as something else does: a login page, a web console, another path",
                now="where a login stands before KFP, set RESPROUT_KFP_TOKEN; otherwise check --host",
            ) from None
        if several and self.namespace is None:
            raise ClusterError(
                "no namespace is named",
                why=f"{self.settings.host} serves several teams, each in a namespace of its own",
                now="give --namespace, or set RESPROUT_KFP_NAMESPACE: your profile's name",
            )
        if not several:
            self.namespace = None  # one that is named means nothing to a KFP that serves one team

    def pipeline(self, name: str) -> str | None:
        """A pipeline's id; None where there is none of that name."""
        found = self._ask(
            f"cannot look for the pipeline {name}",
            none_if_missing(kfp.PipelineServiceApi(self._client).pipeline_service_get_pipeline_by_name),
            name,
            **self._in_namespace(),
        )
        return None if found is None else found.pipeline_id

    def create_pipeline(self, name: str, description: str) -> str:
        """Make a pipeline without a version; its id."""
        body = kfp.V2beta1Pipeline(name=name, display_name=name, description=description, namespace=self.namespace)

        def create() -> str:
            try:
                found: str = kfp.PipelineServiceApi(self._client).pipeline_service_create_pipeline(body).pipeline_id
                return found
            except ApiException as error:
                if error.status != 409:
                    raise
                made = self.pipeline(name)  # by somebody else, or by a request whose answer was lost
                if made is None:
                    raise
                return made

        return self._ask(f"cannot create the pipeline {name}", create)

    def version(self, pipeline_id: str, name: str) -> str | None:
        """The id of a pipeline's version; None where there is none of that name."""
        api = kfp.PipelineServiceApi(self._client)
        action = "cannot list the pipeline's versions"
        for page in self._pages(action, api.pipeline_service_list_pipeline_versions, pipeline_id):
            for version in page.pipeline_versions or []:
                if name in (version.name, version.display_name):
                    return str(version.pipeline_version_id)
        return None

    def upload_version(self, pipeline_id: str, name: str, file: Path, description: str) -> str:
        """Upload a compiled pipeline as a version; its id."""
        upload = kfp.PipelineUploadServiceApi(self._client).upload_pipeline_version
        tried = False

        def once() -> str:
            nonlocal tried
            if tried and (made := self.version(pipeline_id, name)):
                return made  # by the request whose answer was lost
            tried = True
            try:
                done = upload(str(file), name=name, pipelineid=pipeline_id, description=description)
                return str(done.pipeline_version_id)
            except ApiException as error:
                if error.status == 409 and (made := self.version(pipeline_id, name)):
                    return made
                raise

        return self._ask("cannot upload the pipeline", once)

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made where there is none of that name."""
        if (found := self._find_experiment(name)) is not None:
            return found
        body = kfp.V2beta1Experiment(display_name=name, namespace=self.namespace)

        def create() -> str:
            try:
                return str(
                    kfp.ExperimentServiceApi(self._client).experiment_service_create_experiment(body).experiment_id
                )
            except ApiException as error:
                if error.status == 409 and (made := self._find_experiment(name)) is not None:
                    return made  # by somebody else, or by a request whose answer was lost
                raise

        return self._ask(f"cannot create the experiment {name}", create)

    def _find_experiment(self, name: str) -> str | None:
        listing = kfp.ExperimentServiceApi(self._client).experiment_service_list_experiments
        for page in self._pages("cannot list the experiments", listing, **self._in_namespace()):
            for experiment in page.experiments or []:
                if experiment.display_name == name:
                    return str(experiment.experiment_id)
        return None

    def create_run(self, run: kfp.V2beta1Run, submission: str) -> kfp.V2beta1Run:
        """Create a run, once.

        Args:
            run: its description holds `submission`.
            submission: something that no other run has: a run whose request was cut is looked for by it.
        """
        api = kfp.RunServiceApi(self._client)
        tried = False

        def once() -> kfp.V2beta1Run:
            nonlocal tried
            if tried:
                listed = api.run_service_list_runs(
                    experiment_id=run.experiment_id, page_size=PAGE, sort_by="created_at desc", **self._in_namespace()
                )
                made = (item for item in listed.runs or [] if submission in (item.description or ""))
                if (found := next(made, None)) is not None:
                    return found
            tried = True
            return api.run_service_create_run(run)

        return self._ask("cannot create the run", once)

    def run(self, run_id: str) -> kfp.V2beta1Run:
        """A run as it stands."""
        return self._ask(f"cannot read the run {run_id}", kfp.RunServiceApi(self._client).run_service_get_run, run_id)

    def workflow(self, run_id: str) -> Workflow | None:
        """What Argo says of a run; None where nothing is known yet, or this KFP does not hand it out."""

        def ask() -> str:
            try:
                return self._connection.get(f"/apis/v1beta1/runs/{run_id}")
            except ApiException as error:
                if error.status in _NOT_SERVED:
                    return ""
                raise

        answer = self._ask(f"cannot read the tasks of the run {run_id}", ask)
        try:
            manifest = json.loads(answer)["pipeline_runtime"]["workflow_manifest"]
            return read(manifest) if manifest else None
        except (ValueError, KeyError, TypeError, OSError):  # OSError: what was compressed is cut
            return None

    def runs(self) -> Iterator[kfp.V2beta1Run]:
        """All runs of the namespace, the newest first."""
        api = kfp.RunServiceApi(self._client)
        pages = self._pages(
            "cannot list the runs", api.run_service_list_runs, sort_by="created_at desc", **self._in_namespace()
        )
        for page in pages:
            yield from page.runs or []

    def stop(self, run_id: str) -> None:
        """End a run; what it has made stays."""
        stop = kfp.RunServiceApi(self._client).run_service_terminate_run
        self._ask(f"cannot stop the run {run_id}", stop, run_id)

    def retry(self, run_id: str) -> None:
        """Run again what failed or was stopped; what ended well stays."""
        again = kfp.RunServiceApi(self._client).run_service_retry_run
        self._ask(f"cannot retry the run {run_id}", again, run_id)

    def log(self, run_id: str, pod: Pod) -> list[str]:
        """What a pod wrote; [] where the server cannot tell, or cannot tell any more."""
        # neither is in the published schema. The API finds what was archived, as long as nodes are not compressed, and
        # reports failure with 200; the UI, where it is what answers here, finds pods that are there
        paths = [f"/apis/v1alpha1/runs/{run_id}/nodes/{pod.name}/log"]
        if pod.namespace:
            paths.append(f"/k8s/pod/logs?podname={pod.name}&podnamespace={pod.namespace}")
        for path in paths:
            try:
                text = self._connection.get(path)
            except (ApiException, http.HTTPError, OSError):
                continue
            if text.strip() and not text.lstrip().startswith(("<", '{"error')):
                return [line for line in text.splitlines() if line.strip()]
        return []

    def _in_namespace(self) -> dict[str, str]:
        return {} if self.namespace is None else {"namespace": self.namespace}
