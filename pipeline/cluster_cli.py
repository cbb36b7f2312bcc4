"""The command line's part on clusters: `resprout submit RECIPE` and `resprout runs`."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.options import AllowImages, Overrides, PipelineName, RecipeFile, Verbose, errors_told
from resprout.errors import ClusterError

if TYPE_CHECKING:
    from pipeline.cluster.command import Files
    from pipeline.cluster.server import Server

EXIT_CODES = (
    "Exit codes: 0 submitted, or with --wait ended well; 1 the result broke a limit of its gate; 2 wrong usage or "
    "recipe; 3 the run failed or was stopped; 4 it cannot be told: not reachable, refused, not in time, or the gate "
    "asks for what was not measured; 130 interrupted, and the run goes on."
)
USAGE, CANNOT_TELL, INTERRUPTED = 2, 4, 130

Host = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where Kubeflow Pipelines is opened; also RESPROUT_KFP_HOST.",
        show_default="inside a cluster its own",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Your profile's namespace, where one KFP serves several teams; also RESPROUT_KFP_NAMESPACE.",
        show_default=False,
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file that holds a token; also RESPROUT_KFP_TOKEN_FILE, or the token itself in RESPROUT_KFP_TOKEN.",
        show_default="inside a cluster the pod's",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Certificates to trust, PEM; also RESPROUT_KFP_CA_FILE.", show_default=False),
]
Ui = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="What links start with, if it is not --host; also RESPROUT_KFP_UI.", show_default=False
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the run to its end; the exit code says how it ended.")]
Timeout = Annotated[str, typer.Option(metavar="TIME", help="How long --wait waits: 90s, 45m, 24h.")]
Plain = Annotated[bool, typer.Option("--plain", help="A line per change even on a terminal.")]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the run's id, link, state, stages and figures.", show_default=False
    ),
]
JUnitFile = Annotated[
    Path | None,
    typer.Option(
        "--junit", metavar="FILE", help="With --wait: write JUnit XML, a test case per stage.", show_default=False
    ),
]
MarkdownFile = Annotated[
    Path | None,
    typer.Option(
        "--markdown",
        metavar="FILE",
        help="With --wait: append a summary, as to $GITHUB_STEP_SUMMARY.",
        show_default=False,
    ),
]
RunId = Annotated[str, typer.Argument(metavar="ID", help="As `resprout runs ls` shows it.", show_default=False)]

runs_app = typer.Typer(
    help="Runs on a cluster: list, follow, stop and retry them.", no_args_is_help=True, rich_markup_mode=None
)


def submit(
    recipe: RecipeFile,
    overrides: Overrides = None,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    ui: Ui = None,
    experiment: Annotated[
        str, typer.Option(metavar="NAME", help="What the run is grouped under in KFP; made if it is not there.")
    ] = "resprout",
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the run is called.", show_default="RECIPE and the time")
    ] = None,
    service_account: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            envvar="RESPROUT_KFP_SERVICE_ACCOUNT",
            show_envvar=False,
            help="Whom the run's pods run as: resprout-runner, where k8s/ is installed; also "
            "RESPROUT_KFP_SERVICE_ACCOUNT.",
            show_default="as KFP is set up",
        ),
    ] = None,
    gpu_type: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="Short for --set placement.gpu_type=TYPE.", show_default=False),
    ] = None,
    node_selector: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=VALUE", help="A label that GPU nodes must have; may be repeated."),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(metavar="N", help="Short for --set placement.num_shards=N.", show_default=False),
    ] = None,
    pipeline: PipelineName = None,
    allow_images: AllowImages = False,
    wait: Wait = False,
    timeout: Timeout = "24h",
    plain: Plain = False,
    json_file: JsonFile = None,
    junit: JUnitFile = None,
    markdown: MarkdownFile = None,
    verbose: Verbose = False,
) -> None:
    """Run a recipe on a cluster, by Kubeflow Pipelines (KFP).

    The pipeline is uploaded if this version of it is not there yet. Teachers, test sets and results lie in object
    storage that the cluster reaches: docs/storage.md. What is printed is a link to the run, and the commands that
    follow and stop it.
    """
    from resprout.recipe.form import kind_of

    with errors_told(verbose, exit_code=USAGE):
        command = _commands()
        seconds, files = _seconds(timeout), command.Files(json_file, junit, markdown)
        chosen = command.load(recipe, overrides or [], gpu_type, node_selector or [], shards, allow_images=allow_images)
        kind = pipeline.value if pipeline else kind_of(chosen)
        command.look_up(chosen, kind)
        server = command.connect(host=host, namespace=namespace, token_file=token_file, ca_file=ca_file, ui=ui)
    with errors_told(verbose, exit_code=CANNOT_TELL):
        submission = command.submit(
            chosen, server, kind, experiment=experiment, name=name, service_account=service_account, files=files
        )
        if wait:
            _follow(command, server, submission.run_id, seconds, plain, files)


@runs_app.command(name="ls")
def list_runs(
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    ui: Ui = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many, the newest first.")] = 20,
    verbose: Verbose = False,
) -> None:
    """Resprout's runs, the newest first: id, state, time, name."""
    with errors_told(verbose, exit_code=USAGE):
        command = _commands()
        server = command.connect(host=host, namespace=namespace, token_file=token_file, ca_file=ca_file, ui=ui)
    with errors_told(verbose, exit_code=CANNOT_TELL):
        command.list_runs(server, limit)


@runs_app.command(epilog=EXIT_CODES)
def show(
    run_id: RunId,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    ui: Ui = None,
    wait: Wait = False,
    timeout: Timeout = "24h",
    plain: Plain = False,
    json_file: JsonFile = None,
    junit: JUnitFile = None,
    markdown: MarkdownFile = None,
    verbose: Verbose = False,
) -> None:
    """A run's stages, why one failed, and how the run ended; --wait follows it to its end."""
    with errors_told(verbose, exit_code=USAGE):
        command = _commands()
        seconds, files = _seconds(timeout), command.Files(json_file, junit, markdown)
        server = command.connect(host=host, namespace=namespace, token_file=token_file, ca_file=ca_file, ui=ui)
    with errors_told(verbose, exit_code=CANNOT_TELL):
        server.check()
        if wait:
            _follow(command, server, run_id, seconds, plain, files)
        else:
            command.show(server, run_id, files=files)


@runs_app.command()
def stop(
    run_id: RunId,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    ui: Ui = None,
    verbose: Verbose = False,
) -> None:
    """End a run. Checkpoints and what its stages made stay, and retry goes on from there."""
    with errors_told(verbose, exit_code=USAGE):
        command = _commands()
        server = command.connect(host=host, namespace=namespace, token_file=token_file, ca_file=ca_file, ui=ui)
    with errors_told(verbose, exit_code=CANNOT_TELL):
        command.stop(server, run_id)


@runs_app.command()
def retry(
    run_id: RunId,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    ui: Ui = None,
    verbose: Verbose = False,
) -> None:
    """Run again what failed or was stopped; stages that ended well are kept."""
    with errors_told(verbose, exit_code=USAGE):
        command = _commands()
        server = command.connect(host=host, namespace=namespace, token_file=token_file, ca_file=ca_file, ui=ui)
    with errors_told(verbose, exit_code=CANNOT_TELL):
        command.retry(server, run_id)


def _commands() -> ModuleType:
    try:
        from pipeline.cluster import command
    except ImportError as error:
        raise ClusterError(
            f"Kubeflow Pipelines' client cannot be imported: {error}", now="pip install 'resprout[pipeline]'"
        ) from None
    return command


def _follow(command: ModuleType, server: Server, run_id: str, seconds: float, plain: bool, files: Files) -> None:
    from pipeline.runners import terminated_like_interrupted

    try:
        with terminated_like_interrupted():
            raise typer.Exit(command.follow(server, run_id, seconds=seconds, plain=plain, files=files))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text} is no time; write it as 90s, 45m or 24h", param_hint="--timeout")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]
