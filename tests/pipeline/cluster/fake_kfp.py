"""Kubeflow Pipelines' API for tests: real HTTP, the real schema, runs that go as a test says.

Answers are made from the models of kfp-server-api, requests are read into them, and what has no place there is refused.
What KFP checks of a run, its parameters against the pipeline's inputs, is checked here too.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import kfp_server_api as kfp
import yaml

from tests.pipeline.cluster.argo import START, Play, listed, manifest, nodes_of, play_of

_CLIENT = kfp.ApiClient(kfp.Configuration())


@dataclass
class Scene:
    """How a run looks when it is asked after.

    Args:
        state: KFP's word.
        stages: each stage's, or those of its shards; a play for what is out of the ordinary.
        message: Argo's, on the whole.
        compressed: whether the workflow has outgrown what Argo stores plainly: KFP's list stays as it was.
    """

    state: str
    stages: Mapping[str, str | Play | Sequence[str | Play]] = field(default_factory=dict)
    message: str = ""
    compressed: bool = False

    @property
    def plays(self) -> dict[str, list[Play]]:
        """How each task of each stage goes."""
        several = {name: [its] if isinstance(its, str | Play) else its for name, its in self.stages.items()}
        return {name: [play_of(it) for it in its] for name, its in several.items()}

    @property
    def phase(self) -> str:
        """Argo's word for the whole."""
        return self.state.capitalize() if self.state in ("SUCCEEDED", "FAILED") else "Running"


@dataclass
class Fault:
    """What happens instead of an answer: an HTTP status, or a cut connection, before or after the request's work."""

    matches: Callable[[str, str], bool]
    times: float
    status: int = 0
    carried_out: bool = False
    until: float = float("inf")
    text: str = ""


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FakeKfp:
    """One KFP; `url` is where it is."""

    def __init__(self, *, token: str | None = None, multi_user: bool = False, tag: str = "2.17.0") -> None:
        self.token = token
        self.tag = tag
        self.hands_out_workflows = True
        self.logs_are_archived = True
        self.multi_user = multi_user
        self.clock = 0.0
        self.scenes = [Scene("SUCCEEDED")]
        self.logs: dict[str, str] = {}
        self.pipelines: dict[str, kfp.V2beta1Pipeline] = {}
        self.versions: dict[str, kfp.V2beta1PipelineVersion] = {}
        self.experiments: dict[str, kfp.V2beta1Experiment] = {}
        self.runs: dict[str, kfp.V2beta1Run] = {}
        self.answers: dict[str, Mapping[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.on_poll: Callable[[int], None] = lambda count: None
        self._faults: list[Fault] = []
        self._polls = 0
        self.url = ""

    def sleep(self, seconds: float) -> None:
        """What a client pauses with: time passes here, and nowhere else."""
        self.clock += seconds

    def plays(self, *scenes: Scene) -> None:
        """Each time a run is asked after, the next scene; the last one stays."""
        self.scenes = list(scenes)
        self._polls = 0

    def fails(
        self, method: str, path: str, *, status: int, times: float = 1, until: float = float("inf"), text: str = ""
    ) -> None:
        """Answer requests with an HTTP status, so many times or until the clock says so."""
        self._faults.append(Fault(_matching(method, path), times, status, until=until, text=text))

    def cuts(self, method: str, path: str, *, times: float = 1, carried_out: bool = False) -> None:
        """Close the connection without an answer, before the request's work is done or after it."""
        self._faults.append(Fault(_matching(method, path), times, carried_out=carried_out))

    def calls(self, method: str, path: str) -> int:
        """How often something was asked."""
        return sum(it == method and re.fullmatch(path, where) is not None for it, where in self.asked)

    def fault(self, method: str, path: str) -> Fault | None:
        for fault in self._faults:
            if fault.times > 0 and self.clock < fault.until and fault.matches(method, path):
                fault.times -= 1
                return fault
        return None

    def answer(self, method: str, path: str, query: Mapping[str, str], body: bytes, content_type: str) -> Any:
        """What the API answers, as one of its models."""
        for wanted, pattern, handler in _ROUTES:
            match = re.fullmatch(pattern, path)
            if wanted == method and match:
                return getattr(self, handler)(*map(unquote, match.groups()), query=query, body=body, kind=content_type)
        raise RefusedError(404, f"{method} {path}: Not Found")

    def health(self, **_: Any) -> Any:
        # two fields more than the published schema has
        about = {"commit_sha": "unknown", "tag_name": self.tag, "multi_user": self.multi_user}
        return json.dumps({**about, "pipeline_store": "database"})

    def pipeline_by_name(self, name: str, query: Mapping[str, str], **_: Any) -> Any:
        for pipeline in self.pipelines.values():
            if pipeline.name == name and (pipeline.namespace or None) == query.get("namespace"):
                return pipeline
        raise RefusedError(404, f"Pipeline {name} not found")

    def create_pipeline(self, body: bytes, **_: Any) -> Any:
        pipeline = read_as("V2beta1Pipeline", body)
        if any((it.name, it.namespace) == (pipeline.name, pipeline.namespace) for it in self.pipelines.values()):
            raise RefusedError(409, f"The name {pipeline.name} already exists")
        pipeline.pipeline_id = str(uuid.uuid4())
        self.pipelines[pipeline.pipeline_id] = pipeline
        return pipeline

    def upload_version(self, query: Mapping[str, str], body: bytes, kind: str, **_: Any) -> Any:
        pipeline_id, name = query["pipelineid"], query["name"]
        if pipeline_id not in self.pipelines:
            raise RefusedError(404, f"Pipeline {pipeline_id} not found")
        if any((it.pipeline_id, it.name) == (pipeline_id, name) for it in self.versions.values()):
            raise RefusedError(409, f"The name {name} already exists")
        spec, platform = yaml.load_all(_uploaded(body, kind), Loader=yaml.CSafeLoader)
        version = kfp.V2beta1PipelineVersion(
            pipeline_id=pipeline_id,
            pipeline_version_id=str(uuid.uuid4()),
            name=name,
            display_name=name,
            description=query.get("description"),
            pipeline_spec={"pipeline_spec": spec, "platform_spec": platform},
        )
        self.versions[version.pipeline_version_id] = version
        return version

    def list_versions(self, pipeline_id: str, query: Mapping[str, str], **_: Any) -> Any:
        found = [it for it in self.versions.values() if it.pipeline_id == pipeline_id]
        page, token = _page(found, query)
        return kfp.V2beta1ListPipelineVersionsResponse(pipeline_versions=page, next_page_token=token)

    def get_version(self, _: str, version_id: str, **__: Any) -> Any:
        return _found(self.versions, version_id)

    def list_experiments(self, query: Mapping[str, str], **_: Any) -> Any:
        self._needs_namespace(query.get("namespace"))
        found = [it for it in self.experiments.values() if (it.namespace or None) == query.get("namespace")]
        page, token = _page(found, query)
        return kfp.V2beta1ListExperimentsResponse(experiments=page, next_page_token=token)

    def create_experiment(self, body: bytes, **_: Any) -> Any:
        experiment = read_as("V2beta1Experiment", body)
        self._needs_namespace(experiment.namespace)
        if any(it.display_name == experiment.display_name for it in self.experiments.values()):
            raise RefusedError(409, f"The name {experiment.display_name} already exists")
        experiment.experiment_id = str(uuid.uuid4())
        self.experiments[experiment.experiment_id] = experiment
        return experiment

    def create_run(self, body: bytes, **_: Any) -> Any:
        run = read_as("V2beta1Run", body)
        _found(self.experiments, run.experiment_id)
        version = _found(self.versions, run.pipeline_version_reference.pipeline_version_id)
        inputs = version.pipeline_spec["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        given = set(run.runtime_config.parameters)
        missing = {name for name, it in inputs.items() if "defaultValue" not in it and not it.get("isOptional")}
        if given - set(inputs) or missing - given:
            raise RefusedError(400, f"parameters unknown: {given - set(inputs)}, missing: {missing - given}")
        run.run_id, run.state, run.created_at = str(uuid.uuid4()), "PENDING", START
        self.runs[run.run_id] = run
        return run

    def list_runs(self, query: Mapping[str, str], **_: Any) -> Any:
        if "experiment_id" not in query:
            self._needs_namespace(query.get("namespace"))
        found = [it for it in self.runs.values() if query.get("experiment_id") in (None, it.experiment_id)]
        page, token = _page(found[::-1], query)
        return kfp.V2beta1ListRunsResponse(runs=page, next_page_token=token)

    def get_run(self, run_id: str, **_: Any) -> Any:
        if run_id in self.answers:
            return self.answers[run_id]["run"]
        run = _found(self.runs, run_id)
        if run.state not in ("CANCELED", "CANCELING"):
            scene = self._scene()
            self._move(run, scene.state)
            if not scene.compressed:
                tasks = listed(list(nodes_of(scene.plays, scene.phase)))
                run.run_details = kfp.V2beta1RunDetails(task_details=tasks)
        elif run.state == "CANCELING" and self._polls:
            self._move(run, "CANCELED")
        self._polls += 1
        self.on_poll(self._polls)
        return run

    def workflow(self, run_id: str, **_: Any) -> Any:
        """What the older API adds: the workflow, as Argo keeps it."""
        if not self.hands_out_workflows:
            raise RefusedError(404, "Not Found")
        if run_id in self.answers:
            return _handed_out(json.dumps(self.answers[run_id]["workflow"]))
        run = _found(self.runs, run_id)
        scene = self.scenes[min(max(self._polls - 1, 0), len(self.scenes) - 1)]
        version = self.versions[run.pipeline_version_reference.pipeline_version_id]
        spec = version.pipeline_spec["pipeline_spec"]
        text = manifest(spec, scene.plays, ended=scene.phase, message=scene.message, compressed=scene.compressed)
        return _handed_out(text)

    def _scene(self) -> Scene:
        return self.scenes[min(self._polls, len(self.scenes) - 1)]

    def _move(self, run: Any, state: str) -> None:
        """Let a run be in a state, and its history know."""
        at = START + timedelta(seconds=self.clock)
        run.state_history = run.state_history or []
        if not run.state_history or run.state_history[-1].state != state:
            run.state_history.append(kfp.V2beta1RuntimeStatus(state=state, update_time=at))
            run.finished_at = at if state in ("SUCCEEDED", "FAILED", "CANCELED") else None
        run.state = state

    def terminate(self, run_id: str, **_: Any) -> Any:
        self._move(_found(self.runs, run_id), "CANCELING")
        return {}

    def retry(self, run_id: str, **_: Any) -> Any:
        self._move(_found(self.runs, run_id), "RUNNING")
        self._polls = 0
        return {}

    def log(self, _: str, pod: str, **__: Any) -> Any:
        # it finds what was archived of a pod that has ended, and that only by plain nodes; 200 also when it fails
        if self.logs_are_archived:
            return self.logs.get(pod, '{"error_message":"NoSuchKey: The specified key does not exist."}')
        return '{"error_message":"NoSuchKey: The specified key does not exist."}'

    def ui_log(self, query: Mapping[str, str], **_: Any) -> Any:
        """What KFP's UI, which serves the API too, finds of a pod that is there."""
        if query["podname"] not in self.logs or "podnamespace" not in query:
            raise RefusedError(500, "Could not get main container logs: Error: Unable to retrieve workflow status")
        return self.logs[query["podname"]]

    def _needs_namespace(self, namespace: str | None) -> None:
        if self.multi_user and not namespace:
            raise RefusedError(400, "Invalid input error: Namespace cannot be empty in multi-user mode")


_API = "/apis/v2beta1"
_ROUTES = (
    ("GET", f"{_API}/healthz", "health"),
    ("GET", f"{_API}/pipelines/names/([^/]+)", "pipeline_by_name"),
    ("POST", f"{_API}/pipelines", "create_pipeline"),
    ("POST", f"{_API}/pipelines/upload_version", "upload_version"),
    ("GET", f"{_API}/pipelines/([^/]+)/versions", "list_versions"),
    ("GET", f"{_API}/pipelines/([^/]+)/versions/([^/]+)", "get_version"),
    ("GET", f"{_API}/experiments", "list_experiments"),
    ("POST", f"{_API}/experiments", "create_experiment"),
    ("POST", f"{_API}/runs", "create_run"),
    ("GET", f"{_API}/runs", "list_runs"),
    ("GET", f"{_API}/runs/([^/:]+)", "get_run"),
    ("GET", "/apis/v1beta1/runs/([^/:]+)", "workflow"),
    ("POST", f"{_API}/runs/([^/:]+):terminate", "terminate"),
    ("POST", f"{_API}/runs/([^/:]+):retry", "retry"),
    ("GET", "/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", "log"),
    ("GET", "/k8s/pod/logs", "ui_log"),
)


@contextmanager
def serving(*, tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[FakeKfp]:
    """A KFP on a free port of loopback."""
    fake = FakeKfp(**options)
    server = _Listening(("127.0.0.1", 0), _handler(fake))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    fake.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def read_as(kind: str, body: bytes) -> Any:
    """JSON as one of the API's models.

    Raises:
        RefusedError: it holds a field that the API does not know.
    """
    fields = json.loads(body)
    known = set(getattr(kfp, kind).attribute_map.values())
    if unknown := set(fields) - known:
        raise RefusedError(400, f"unknown fields of {kind}: {sorted(unknown)}")
    return _CLIENT.deserialize(type("Response", (), {"data": body}), kind)


class _Listening(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not like our certificate, or speaks no HTTP, is no error of the test's."""


def _handler(fake: FakeKfp) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def log_message(self, *_: Any) -> None:
            pass

        def _serve(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.asked.append((self.command, url.path))
            fault = fake.fault(self.command, url.path)
            if fault is not None and fault.status:
                return self._send(fault.status, {"error": fault.text or f"no healthy upstream ({fault.status})"})
            if fault is not None and not fault.carried_out:
                return self._cut()
            if fake.token is not None and self.headers.get("Authorization") != f"Bearer {fake.token}":
                return self._send(401, {"error": "Request header error: there is no user identity header."})
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            try:
                answer = fake.answer(self.command, url.path, query, body, self.headers.get("Content-Type") or "")
            except RefusedError as error:
                return self._send(error.status, {"error": str(error), "code": 3, "message": str(error), "details": []})
            return self._cut() if fault is not None else self._send(200, answer)

        def _send(self, status: int, answer: Any) -> None:
            text = answer if isinstance(answer, str) else json.dumps(_CLIENT.sanitize_for_serialization(answer))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/login")
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    return Handler


def _handed_out(manifest: str) -> str:
    return json.dumps({"run": {}, "pipeline_runtime": {"workflow_manifest": manifest}})


def _matching(method: str, path: str) -> Callable[[str, str], bool]:
    return lambda its_method, its_path: its_method == method and re.fullmatch(path, its_path) is not None


def _page(items: Sequence[Any], query: Mapping[str, str]) -> tuple[list[Any], str]:
    begin, size = int(query.get("page_token") or 0), int(query.get("page_size") or 10)
    end = begin + size
    return list(items[begin:end]), str(end) if end < len(items) else ""


def _found(items: Mapping[str, Any], key: str) -> Any:
    if key not in items:
        raise RefusedError(404, f"{key} not found")
    return items[key]


def _uploaded(body: bytes, content_type: str) -> bytes:
    message = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    (part,) = message.get_payload()
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content
