"""The command line's part on object storage: `resprout storage`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.options import Verbose, errors_told
from resprout.errors import StorageError

storage_app = typer.Typer(
    help="Object storage: make buckets, and put teachers and test sets where a cluster finds them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@storage_app.command()
def setup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML that says which buckets there are to be.")],
    verbose: Verbose = False,
) -> None:
    """Make buckets, and set what expires in them and who may do what; as often as you like.

    It needs credentials that may do so, which no stage should have.
    """
    from resprout import storage
    from resprout.storage import buckets

    with errors_told(verbose):
        for line in buckets.set_up(storage.Storage(storage.required()), buckets.read(file)):
            typer.echo(line)


@storage_app.command()
def put(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file or a folder.", show_default=False)],
    address: Annotated[
        str, typer.Argument(metavar="s3://BUCKET/KEY", help="Where nothing else lies.", show_default=False)
    ],
    verbose: Verbose = False,
) -> None:
    """Store a teacher or a test set where the stages of a cluster find it; nothing is overwritten.

    Where it was cut off, the same again stores what is missing.
    """
    from resprout import storage
    from resprout.storage import folders

    with errors_told(verbose):
        if not path.exists():
            raise StorageError(f"{path} does not exist", now=f"paths are relative to where you are, {Path.cwd()}")
        server, target = storage.Storage(storage.required()), storage.ObjectAddress.parse(address)
        if not target.key:
            raise StorageError(f"{address} names a bucket alone", now="write it as s3://BUCKET/KEY")
        server.check(target.bucket)
        folders.put(server, path, target)
        typer.echo(f"stored {path} as {target}")
