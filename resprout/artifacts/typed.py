"""Statistics, dreams and evaluations as artifacts."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from resprout.artifacts.described import About, described, named_tensors
from resprout.artifacts.folder import load_artifact, save_artifact
from resprout.artifacts.networks import Inputs, Section, plain_section
from resprout.doubts import doubt_about
from resprout.errors import ArtifactError
from resprout.types import (
    BNStatistics,
    DreamSet,
    Evaluation,
    InputSpec,
    Latency,
    LayerStatistics,
    ModelCost,
    ModelScore,
    StoredSize,
)

SPACE = "normalised model input"


class _Layer(About):
    name: str
    eps: float
    spatial: tuple[int, ...]


class _Statistics(About):
    layers: tuple[_Layer, ...]


class _Dreams(About):
    space: str
    num_held_out: int
    num_classes: int
    curves: tuple[str, ...]
    source: str = ""


class _Score(About):
    name: str
    agreement: float | None
    kl_divergence: float | None
    top1: float | None


class _Cost(About):
    name: str
    parameters: int
    nonzero_parameters: int
    dense_macs: int
    effective_macs: int
    sparsity: float


class _Size(About):
    name: str
    size_bytes: int
    compressed_size_bytes: int


class _Evaluation(About):
    scores: tuple[_Score, ...]
    costs: tuple[_Cost, ...]
    sizes: tuple[_Size, ...] = ()  # as latency, missing in folders from before it was measured
    latency: Latency | None = None
    num_test_images: int
    num_held_out_dreams: int
    class_names: tuple[str, ...]
    images_source: str = ""


def save_statistics(statistics: BNStatistics, directory: str | Path, *, inputs: Inputs = ()) -> str:
    """Write BatchNorm statistics, with a table (statistics.csv) and a plot (statistics.png); returns the digest."""
    from resprout.artifacts.pictures import save_statistics_plot  # loads matplotlib, which most stages never need

    def extras(folder: Path) -> None:
        _write_table(statistics, folder / "statistics.csv")
        save_statistics_plot(statistics, folder / "statistics.png")

    tensors = {}
    for layer in statistics.layers:
        tensors[f"{layer.name}.mean"] = layer.mean
        tensors[f"{layer.name}.variance"] = layer.variance
    return save_artifact(
        directory,
        kind="statistics",
        tensors={"statistics": tensors},
        about={
            "layers": [
                {"name": layer.name, "channels": layer.channels, "eps": layer.eps, "spatial": list(layer.spatial)}
                for layer in statistics.layers
            ]
        },
        inputs=inputs,
        extras=extras,
    )


def load_statistics(directory: str | Path, *, sha256: str | None = None) -> BNStatistics:
    """Read BatchNorm statistics, in network order.

    Raises:
        ArtifactError: damaged, of another kind or digest, or not what its manifest describes.
    """
    tensors, manifest = load_artifact(directory, "statistics", sha256=sha256)
    layers = []
    for layer in described(_Statistics, manifest, directory).layers:
        names = (f"{layer.name}.mean", f"{layer.name}.variance")
        mean, variance = named_tensors(tensors, "statistics", directory, *names)
        layers.append(LayerStatistics(layer.name, mean, variance, layer.eps, layer.spatial))
    return BNStatistics(tuple(layers))


def save_dreams(
    dreams: DreamSet,
    directory: str | Path,
    *,
    input: InputSpec,
    section: Section = None,
    seed: int | None = None,
    inputs: Inputs = (),
    computed_on: str = "",
    resumed: Sequence[str] = (),
) -> str:
    """Write dreams, their loss curves, and preview.png (up to 64 of them, in pixel space); returns the digest.

    Real images in their place are written likewise, and the manifest says where they were read from.

    Args:
        dreams: in normalised model-input space.
        directory: where to.
        input: the teacher's, which leads from that space back to pixels; recorded with the dreams.
        section: the recipe's synthesis section.
        seed: the run's seed.
        inputs: the records of the artifacts that they were made from, taken when these were loaded.
        computed_on: the kind of device, as `devices.computed_on` says it.
        resumed: the sha256 of each checkpoint whose state went into them.
    """
    from resprout.artifacts.pictures import save_preview

    return save_artifact(
        directory,
        kind="dreams",
        tensors={
            "dreams": {"images": dreams.images, "targets": dreams.targets},
            **({"curves": dreams.curves} if dreams.curves else {}),
        },
        about={
            "space": SPACE,
            "input": asdict(input),
            "num_images": len(dreams.images),
            "num_held_out": dreams.num_held_out,
            "num_classes": dreams.num_classes,
            "curves": list(dreams.curves),
            **({"source": dreams.source} if dreams.source else {}),
        },
        section=plain_section(section),
        seed=seed,
        inputs=inputs,
        computed_on=computed_on,
        resumed=resumed,
        extras=lambda folder: save_preview(dreams, input, folder / "preview.png"),
    )


def load_dreams(directory: str | Path, *, sha256: str | None = None) -> DreamSet:
    """Read dreams, in normalised model-input space.

    Raises:
        ArtifactError: damaged, of another kind, digest or space, or not what its manifest describes.
    """
    tensors, manifest = load_artifact(directory, "dreams", sha256=sha256)
    about = described(_Dreams, manifest, directory)
    if about.space != SPACE:
        raise ArtifactError(
            f"the dreams in {directory} are in space {about.space!a}, not '{SPACE}'",
            why="networks expect normalised images",
        )
    images, targets = named_tensors(tensors, "dreams", directory, "images", "targets")
    curves = named_tensors(tensors, "curves", directory, *about.curves)
    return DreamSet(
        images,
        targets,
        about.num_held_out,
        about.num_classes,
        dict(zip(about.curves, curves, strict=True)),
        about.source,
    )


def save_evaluation(
    evaluation: Evaluation,
    directory: str | Path,
    *,
    section: Section = None,
    inputs: Inputs = (),
    computed_on: str = "",
    summary: Mapping[str, Any] | None = None,
) -> str:
    """Write an evaluation, with metrics.json (flat: `recovered.top1` -> number); returns the digest.

    Args:
        summary: what people are told of it; written beside the metrics as summary.json.
    """
    texts = {"metrics.json": flat_metrics(evaluation), **({"summary.json": summary} if summary else {})}
    confusions = {score.name: score.confusion for score in evaluation.scores if score.confusion is not None}
    return save_artifact(
        directory,
        kind="evaluation",
        tensors={"confusions": confusions} if confusions else {},
        about={
            "scores": [
                {
                    "name": score.name,
                    "agreement": score.agreement,
                    "kl_divergence": score.kl_divergence,
                    "top1": score.top1,
                }
                for score in evaluation.scores
            ],
            # a list, because a manifest sorts the keys of its mappings
            "costs": [{"name": name, **asdict(cost)} for name, cost in evaluation.costs.items()],
            "num_test_images": evaluation.num_test_images,
            "num_held_out_dreams": evaluation.num_held_out_dreams,
            "class_names": list(evaluation.class_names),
            "sizes": [{"name": name, **asdict(size)} for name, size in evaluation.sizes.items()],
            "latency": None if evaluation.latency is None else asdict(evaluation.latency),
            **({"images_source": evaluation.images_source} if evaluation.images_source else {}),
        },
        section=plain_section(section),
        inputs=inputs,
        computed_on=computed_on,
        extras=lambda folder: _write_json(folder, texts),
    )


def load_evaluation(directory: str | Path, *, sha256: str | None = None) -> Evaluation:
    """Read an evaluation.

    Raises:
        ArtifactError: damaged, of another kind or digest, or not what its manifest describes.
    """
    tensors, manifest = load_artifact(directory, "evaluation", sha256=sha256)
    about, confusions = described(_Evaluation, manifest, directory), tensors.get("confusions", {})
    return Evaluation(
        scores=[ModelScore(**dict(score), confusion=confusions.get(score.name)) for score in about.scores],
        costs={cost.name: ModelCost(**cost.model_dump(exclude={"name"})) for cost in about.costs},
        sizes={size.name: StoredSize(**size.model_dump(exclude={"name"})) for size in about.sizes},
        latency=about.latency,
        num_test_images=about.num_test_images,
        num_held_out_dreams=about.num_held_out_dreams,
        class_names=about.class_names,
        images_source=about.images_source,
    )


def flat_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Every figure of an evaluation under a flat name: `teacher.top1`, `recovered.agreement`, `pruned.sparsity`, …

    What was not measured, and what is not finite, is left out: JSON has no word for it. `teacher.in_doubt` is 1 where
    the teacher's own accuracy says nothing, and is left out elsewhere.
    """
    named: dict[str, Any] = {
        "num_test_images": evaluation.num_test_images,
        "num_held_out_dreams": evaluation.num_held_out_dreams,
    }
    for score in evaluation.scores:
        for measure in ("top1", "agreement", "kl_divergence"):
            named[f"{score.name}.{measure}"] = getattr(score, measure)
    for name, cost in evaluation.costs.items():
        named.update({f"{name}.{measure}": value for measure, value in asdict(cost).items()})
    for name, size in evaluation.sizes.items():
        named.update({f"{name}.{measure}": value for measure, value in asdict(size).items()})
    if evaluation.latency is not None:
        named["recovered.latency_ratio"] = evaluation.latency.ratio
        named["recovered.latency_batch_size"] = evaluation.latency.batch_size
    if doubt_about(evaluation) is not None:
        named["teacher.in_doubt"] = 1
    return {name: value for name, value in named.items() if value is not None and math.isfinite(value)}


def _write_json(folder: Path, files: Mapping[str, Any]) -> None:
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def _write_table(statistics: BNStatistics, path: Path) -> None:
    columns = ["layer", "channels", "height", "width", "eps"]
    columns += [f"{what}_{how}" for what in ("mean", "variance") for how in ("min", "average", "max")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for layer in statistics.layers:
            height, width = layer.spatial if len(layer.spatial) == 2 else ("", "")
            figures = [
                f"{float(value):.6g}"
                for values in (layer.mean, layer.variance)
                for value in (values.min(), values.mean(), values.max())
            ]
            writer.writerow([layer.name, layer.channels, height, width, layer.eps, *figures])
