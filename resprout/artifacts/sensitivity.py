"""A sensitivity scan as an artifact: its figures, a table for programs and a page for people."""

from __future__ import annotations

import csv
from pathlib import Path

from resprout.artifacts.described import About, described, named_tensors
from resprout.artifacts.folder import load_artifact, save_artifact
from resprout.artifacts.networks import Inputs, Section, plain_section
from resprout.types import Sensitivity

PAGE = "sensitivity.html"


class _About(About):
    layers: tuple[str, ...]
    num_weights: tuple[int, ...]
    sparsities: tuple[float, ...]
    teacher_top1: float | None
    num_repair_dreams: int
    num_held_out_dreams: int
    whole_agreement: float
    images_source: str = ""


def save_sensitivity(
    sensitivity: Sensitivity,
    directory: str | Path,
    *,
    section: Section = None,
    inputs: Inputs = (),
    computed_on: str = "",
    page: str = "",
) -> str:
    """Write a scan, with a table (sensitivity.csv) and, where one is given, its page (sensitivity.html).

    Returns:
        The digest.
    """

    def extras(folder: Path) -> None:
        _write_table(sensitivity, folder / "sensitivity.csv")
        if page:
            (folder / PAGE).write_text(page, encoding="utf-8")

    measured = {"agreement": sensitivity.agreement, "kl_divergence": sensitivity.kl_divergence}
    if sensitivity.top1 is not None:
        measured["top1"] = sensitivity.top1
    return save_artifact(
        directory,
        kind="sensitivity",
        tensors={"sensitivity": measured},
        about={
            "layers": list(sensitivity.layers),
            "num_weights": list(sensitivity.num_weights),
            "sparsities": list(sensitivity.sparsities),
            "teacher_top1": sensitivity.teacher_top1,
            "num_repair_dreams": sensitivity.num_repair_dreams,
            "num_held_out_dreams": sensitivity.num_held_out_dreams,
            "whole_agreement": sensitivity.whole_agreement,
            **({"images_source": sensitivity.images_source} if sensitivity.images_source else {}),
        },
        section=plain_section(section),
        inputs=inputs,
        computed_on=computed_on,
        extras=extras,
    )


def load_sensitivity(directory: str | Path, *, sha256: str | None = None) -> Sensitivity:
    """Read a scan.

    Raises:
        ArtifactError: damaged, of another kind or digest, or not what its manifest describes.
    """
    tensors, manifest = load_artifact(directory, "sensitivity", sha256=sha256)
    about = described(_About, manifest, directory)
    agreement, kl_divergence = named_tensors(tensors, "sensitivity", directory, "agreement", "kl_divergence")
    top1 = tensors["sensitivity"].get("top1")
    return Sensitivity(**dict(about), agreement=agreement, kl_divergence=kl_divergence, top1=top1)


def _write_table(sensitivity: Sensitivity, path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["layer", "weights", "sparsity", "agreement", "kl_divergence", "top1"])
        for row, (layer, weights) in enumerate(zip(sensitivity.layers, sensitivity.num_weights, strict=True)):
            for column, sparsity in enumerate(sensitivity.sparsities):
                top1 = "" if sensitivity.top1 is None else f"{float(sensitivity.top1[row, column]):.6g}"
                found = (sensitivity.agreement, sensitivity.kl_divergence)
                figures = [f"{float(values[row, column]):.6g}" for values in found]
                writer.writerow([layer, weights, sparsity, *figures, top1])
