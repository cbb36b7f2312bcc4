"""The pipelines: the only description of the flow, run locally and on a cluster alike.

Each stage gets its own section of the recipe and the seed, no more: KFP's cache key holds every parameter, so that
changing one section leaves the other stages' results valid. There is one way through, without a condition: KFP loses a
branch whose tasks came from its cache.
"""

from typing import Any

from kfp import dsl

from components.collect_images import collect_images
from components.evaluate import evaluate
from components.extract_statistics import extract_statistics
from components.fetch_teacher import fetch_teacher
from components.fetch_test_set import fetch_test_set
from components.gate import gate
from components.merge_dreams import merge_dreams
from components.plan import plan
from components.prune import prune
from components.publish import publish
from components.recover import recover
from components.scan_sensitivity import scan_sensitivity
from components.synthesize import synthesize
from pipeline.placement import placed
from resprout.recipe import PlacementSection

TEACHER = "torchvision://resnet18?weights=IMAGENET1K_V1"


def pipeline(kind: str, placement: PlacementSection) -> Any:
    """A pipeline for a placement, of which all is compiled in that a run cannot say.

    Args:
        kind: compress; compress-images, which trains on images of one's own; or scan, which only shows how much each
            layer can spare.
        placement: the recipe's.
    """
    graph = _Graph(kind, placement)

    def compress(
        teacher: str = TEACHER,
        test_set: str = "",
        sparsity: str = "0.75",
        publish_to: str = "",
        seed: int = 0,
        recipe: dict = {},  # noqa: B006 - KFP reads the default, and nothing changes it
        placement: dict = {},  # noqa: B006
    ):
        """Prune a teacher and bring the student's accuracy back on dreams.

        Args:
            teacher: the trained network: torchvision://NAME, timm://NAME, hf://OWNER/REPO, s3://BUCKET/KEY or https://…
            test_set: a labelled test set, s3://BUCKET/KEY; empty: the result is judged on held-out dreams alone.
            sparsity: the share of weights that go, such as 0.75; or auto; empty where the method has none.
            publish_to: s3://BUCKET/PREFIX; empty: the result stays among the run's artifacts.
            seed: the one that all randomness comes from.
            recipe: everything else, section by section, as {"recovery": {"epochs": 80}}; docs/recipes.md has all.
            placement: what GPU stages ask for, and where; as {"gpus": 2, "gpu_stage_memory": "24Gi"}.
        """
        given = {"test_set": test_set, "sparsity": sparsity, "publish_to": publish_to}
        graph.compress(graph.begin(teacher=teacher, seed=seed, recipe=recipe, placement=placement, **given), seed)

    def compress_images(
        images: str,
        teacher: str = TEACHER,
        test_set: str = "",
        sparsity: str = "0.75",
        publish_to: str = "",
        seed: int = 0,
        recipe: dict = {},  # noqa: B006
        placement: dict = {},  # noqa: B006
    ):
        """Prune a teacher and bring the student's accuracy back on labelled images of your own.

        Args:
            images: what to train on, s3://BUCKET/KEY; not the test set.
            teacher: as in resprout-compress.
            test_set: as in resprout-compress.
            sparsity: as in resprout-compress.
            publish_to: as in resprout-compress.
            seed: as in resprout-compress.
            recipe: as in resprout-compress.
            placement: as in resprout-compress.
        """
        given = {"images": images, "test_set": test_set, "sparsity": sparsity, "publish_to": publish_to}
        graph.compress(graph.begin(teacher=teacher, seed=seed, recipe=recipe, placement=placement, **given), seed)

    def scan(
        teacher: str = TEACHER,
        seed: int = 0,
        recipe: dict = {},  # noqa: B006
        placement: dict = {},  # noqa: B006
    ):
        """Prune each layer alone, more and more of it, and compare the answers to dreams with the teacher's.

        Args:
            teacher: as in resprout-compress.
            seed: as in resprout-compress; with the same teacher and synthesis, the dreams are those of that run.
            recipe: of it, teacher, synthesis and pruning.exclude.
            placement: as in resprout-compress.
        """
        graph.scan(graph.begin(teacher=teacher, seed=seed, recipe=recipe, placement=placement), seed)

    function, description = {
        "compress": (compress, "Prune a classifier and recover its accuracy without its data."),
        "compress-images": (compress_images, "Prune a classifier and recover its accuracy on images of your own."),
        "scan": (scan, "Show how much each layer of a classifier can spare."),
    }[kind]
    # one name: KFP keeps the cache of each apart, and a scan is to find the dreams of the run before it
    return dsl.pipeline(name="resprout", description=description)(function)


class _Graph:
    """The stages, placed, with what runs between them."""

    def __init__(self, kind: str, placement: PlacementSection) -> None:
        self._kind = kind
        self._placement = placement

    def begin(self, **inputs: Any) -> Any:
        """What each stage is told; looked up anew in each run."""
        task, section = plan(kind=self._kind, **inputs), self._placement
        publishing = section.publishing_secret if self._kind != "scan" else None
        return placed(task, section, secret=section.storage_secret, publishing=publishing).set_caching_options(False)

    def compress(self, planned: Any, seed: Any) -> None:
        """From the teacher to the published result."""
        said = planned.outputs
        fetched = self._teacher(planned)
        teacher = fetched["teacher"]
        statistics = self._statistics(planned, fetched)
        testing = fetch_test_set(
            teacher=teacher,
            digests=fetched["digests"],
            section=said["evaluation"],
            identity=said["test_set_identity"],
        )
        tested = self._placed(testing, secret=self._placement.storage_secret).outputs
        # what does not fit is refused before a GPU is asked for
        make = self._images if self._kind == "compress-images" else self._dreams
        made = make(planned, teacher, statistics, seed, testing)
        keeping = {"seed": seed, "gpus": said["gpus"], "checkpoints": said["checkpoints"]}
        pruning = prune(
            teacher=teacher,
            dreams=made["dreams"],
            digests=made["digests"],
            section=said["pruning"],
            recovery=said["between_rounds"],
            **keeping,
        )
        pruned = self._on_gpu(pruning, planned, secret=self._placement.checkpoint_secret).outputs
        recovering = recover(
            teacher=teacher,
            student=pruned["student"],
            dreams=made["dreams"],
            digests=pruned["digests"],
            section=said["recovery"],
            **keeping,
        )
        recovered = self._on_gpu(recovering, planned, secret=self._placement.checkpoint_secret).outputs
        evaluating = evaluate(
            teacher=teacher,
            statistics=statistics["statistics"],
            dreams=made["dreams"],
            student=pruned["student"],
            repaired=recovered["repaired"],
            recovered=recovered["recovered"],
            test_set=tested["test_set"],
            digests=recovered["digests"],
            test_set_digests=tested["digests"],
            fetched_from=fetched["fetched_from"],
            section=said["evaluation"],
            gpus=said["gpus"] if self._placement.evaluate_on_gpu else "0",
        )
        place = self._on_gpu if self._placement.evaluate_on_gpu else self._placed
        evaluated = place(evaluating, planned).outputs
        found = {"evaluation": evaluated["evaluation"], "digests": evaluated["digests"]}
        judging = self._placed(gate(**found, section=said["gate"]))
        publishing = publish(
            **found, recovered=recovered["recovered"], report=evaluated["report"], section=said["publishing"]
        ).after(judging.set_caching_options(False))
        self._placed(publishing, secret=self._placement.publishing_secret).set_caching_options(False)

    def scan(self, planned: Any, seed: Any) -> None:
        """From the teacher to a page that shows its layers."""
        said = planned.outputs
        fetched = self._teacher(planned)
        dreamt = self._dreams(planned, fetched["teacher"], self._statistics(planned, fetched), seed)
        scanning = scan_sensitivity(
            teacher=fetched["teacher"],
            dreams=dreamt["dreams"],
            digests=dreamt["digests"],
            section=said["pruning"],
            gpus=said["gpus"],
        )
        self._on_gpu(scanning, planned)

    def _teacher(self, planned: Any) -> Any:
        fetching = fetch_teacher(section=planned.outputs["teacher"], identity=planned.outputs["teacher_identity"])
        return self._placed(fetching, secret=self._placement.storage_secret).outputs

    def _statistics(self, planned: Any, fetched: Any) -> Any:
        extracting = extract_statistics(
            teacher=fetched["teacher"], digests=fetched["digests"], num_dreams=planned.outputs["num_dreams"]
        )
        return self._placed(extracting).outputs

    def _images(self, planned: Any, teacher: Any, statistics: Any, seed: Any, *before: Any) -> Any:
        said = planned.outputs
        collecting = collect_images(
            teacher=teacher,
            digests=statistics["digests"],
            section=said["synthesis"],
            identity=said["images_identity"],
            seed=seed,
        )
        return self._placed(collecting.after(*before), secret=self._placement.storage_secret).outputs

    def _dreams(self, planned: Any, teacher: Any, statistics: Any, seed: Any, *before: Any) -> Any:
        said = planned.outputs
        with dsl.ParallelFor(said["shards"], name="dreams") as share:
            synthesizing = synthesize(
                teacher=teacher,
                statistics=statistics["statistics"],
                digests=statistics["digests"],
                section=said["synthesis"],
                seed=seed,
                share=share,
                gpus=said["synthesis_gpus"],
                checkpoints=said["checkpoints"],
            )
            secret = self._placement.checkpoint_secret
            synthesizing.after(*before)
            shards = placed(synthesizing, self._placement, planned, gpus="synthesis_gpus", secret=secret).outputs
        merging = merge_dreams(shards=dsl.Collected(shards["shard"]), digests=dsl.Collected(shards["digests"]))
        return self._placed(merging).outputs

    def _placed(self, task: Any, *_: Any, secret: str | None = None) -> Any:
        return placed(task, self._placement, secret=secret)

    def _on_gpu(self, task: Any, planned: Any, *, secret: str | None = None) -> Any:
        return placed(task, self._placement, planned, gpus="gpus", secret=secret)
