"""What several commands of the command line share: arguments that mean the same, and how an error is told."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from resprout.errors import ArtifactError, ResproutError

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe's YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Change one field of the recipe; may be repeated."),
]


class Pipeline(str, Enum):
    """What can be compiled and submitted."""

    compress = "compress"
    compress_images = "compress-images"
    scan = "scan"


PipelineName = Annotated[
    Pipeline | None,
    typer.Option(
        "--pipeline",
        help="compress-images trains on your images in place of dreams; scan only shows how much each layer can spare.",
        show_default="compress, or compress-images where the recipe says synthesis.method: images",
    ),
]
AllowImages = Annotated[
    bool,
    typer.Option("--allow-images", help="Let the recipe's file choose images and secrets: trust it as a script."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")]


@contextmanager
def errors_told(verbose: bool = False, exit_code: int = 1) -> Iterator[None]:
    """Turn an error into its what, why and now on stderr, and an exit code: its own, or the given one.

    A file or a folder that the system refuses is the caller's to change, whoever came upon it.
    """
    try:
        with _files_told():
            yield
    except ResproutError as error:
        if verbose:
            typer.echo(getattr(error, "traceback", "") or traceback.format_exc(), err=True)
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(getattr(error, "exit_code", exit_code)) from None


@contextmanager
def _files_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise ArtifactError(
            f"{os.fspath(error.filename2 or error.filename)} cannot be used",
            why=error.strerror or str(error),
            now="name a place where you may read and write, with --runs DIR or --output for example",
        ) from error
