"""The compression pipeline: the only description of the flow, run locally and on a cluster alike.

Each stage gets its own recipe section and the seed, no more: KFP's cache key holds every parameter, so that
changing one section leaves the other stages' results valid.
"""

from typing import Any

from kfp import dsl

from components.collect_images import collect_images
from components.evaluate import evaluate
from components.extract_statistics import extract_statistics
from components.fetch_teacher import fetch_teacher
from components.fetch_test_set import fetch_test_set
from components.gate import gate as judge
from components.merge_dreams import merge_dreams
from components.plan_shards import plan_shards
from components.prune import prune
from components.prune_on_dreams import prune_on_dreams
from components.publish import publish
from components.recover import recover
from components.scan_sensitivity import scan_sensitivity
from components.synthesize import synthesize
from pipeline.nested import alone
from pipeline.placement import GPU_INPUTS, OnGpu, on_cpu, on_gpu, parameters, with_storage
from resprout.recipe import PlacementSection


def pipeline(placement: PlacementSection) -> Any:
    """The pipeline for a placement, whose settings are compiled in or are its parameters' defaults."""
    collect, blind_shard, aware_shard, prune_guided, scan_layers, publish_result = _nested(placement)
    default = parameters(placement)

    @dsl.pipeline(name="resprout-compress", description="Prune a classifier and recover its accuracy without its data.")
    def compress(
        teacher: dict,
        synthesis: dict,
        pruning: dict,
        recovery: dict,
        evaluation: dict,
        gate: dict,
        publishing: dict,
        seed: int = 0,
        collected: bool = False,
        student_aware: bool = False,
        pruned_on_dreams: bool = True,
        scanned: bool = False,
        published: bool = False,
        checkpoints: str = placement.checkpoints or "",
        num_shards: int = default["num_shards"],
        cpu_image: str = default["cpu_image"],
        gpu_image: str = default["gpu_image"],
        gpu_type: str = default["gpu_type"],
        gpu_count: str = default["gpu_count"],
        gpu_stage_memory: str = default["gpu_stage_memory"],
        gpu_node_selector: dict = default["gpu_node_selector"],
        gpu_tolerations: list = default["gpu_tolerations"],
        gpu_affinity: dict = default["gpu_affinity"],
        storage_secret: str = default["storage_secret"],
        checkpoint_secret: str = default["checkpoint_secret"],
    ):
        """Prune a teacher and bring the student's accuracy back on dreams.

        Args:
            teacher: the trained network; source is torchvision://NAME, timm://NAME, hf://REPO, s3://… or https://….
            synthesis: how dreams are made, and how many; with student_weight above 0, student_aware must be true.
            pruning: which weights go, and how many of them; sparsity 0.75 is three quarters.
            recovery: how the accuracy is brought back on dreams.
            evaluation: what the result is judged on besides dreams; data is a labelled test set, as s3://BUCKET/KEY.
            gate: limits to keep, as {"min_agreement": 0.9}; a result that breaks one ends the run, unpublished.
            publishing: where to, as {"to": "s3://BUCKET/PREFIX", "name": "mine"}; published must be true then.
            seed: the one that all randomness comes from.
            collected: train on labelled images of yours instead of dreams: true where synthesis.method is images.
            student_aware: show the pruned student to synthesis; otherwise dreams do not depend on pruning.
            pruned_on_dreams: prune with dreams in sight, as rounds and criteria that look at images need; see pruning.
            scanned: also show, on a page of its own, how much each layer alone can spare; it changes no result.
            published: publish the result; otherwise it stays among the run's artifacts.
            checkpoints: where long stages keep their state through a kill: s3://BUCKET/PREFIX; "" for nowhere.
            num_shards: how many tasks share the synthesis, each with a GPU of its own; no image depends on it.
            cpu_image: the image of stages without a GPU, by digest or by a tag that never moves.
            gpu_image: the image of stages with a GPU, likewise.
            gpu_type: the resource to ask for: nvidia.com/gpu, or a MIG slice such as nvidia.com/mig-1g.10gb.
            gpu_count: "1", or "0" to compute on the processor.
            gpu_stage_memory: main memory of a stage with a GPU, such as 16Gi.
            gpu_node_selector: labels that such a stage's node must have.
            gpu_tolerations: taints that it tolerates, as Kubernetes writes them.
            gpu_affinity: its node affinity, as Kubernetes writes it.
            storage_secret: the secret to fetch teachers and publish models with.
            checkpoint_secret: the secret to keep checkpoints with.
        """
        where = OnGpu(
            gpu_image, gpu_type, gpu_count, gpu_stage_memory, gpu_node_selector, gpu_tolerations, gpu_affinity
        )
        fetching = on_cpu(fetch_teacher(section=teacher), cpu_image, placement)
        fetched = with_storage(fetching, storage_secret).outputs["teacher"]
        extracting = on_cpu(extract_statistics(teacher=fetched), cpu_image, placement)
        statistics = extracting.outputs["statistics"]
        testing = on_cpu(fetch_test_set(teacher=fetched, section=evaluation), cpu_image, placement)
        test_set = with_storage(testing, storage_secret).outputs["test_set"]
        plan = plan_shards(
            teacher=teacher,
            synthesis=synthesis,
            pruning=pruning,
            recovery=recovery,
            evaluation=evaluation,
            gate=gate,
            publishing=publishing,
            collected=collected,
            student_aware=student_aware,
            pruned_on_dreams=pruned_on_dreams,
            published=published,
            num_shards=num_shards,
        )
        planning = on_cpu(plan, cpu_image, placement)
        planned = planning.after(testing).output  # what may be refused is, before a GPU is asked for
        shared = {
            "teacher": fetched,
            "statistics": statistics,
            "section": synthesis,
            "seed": seed,
            "num_shards": num_shards,
            "checkpoints": checkpoints,
            "secret": checkpoint_secret,
            **vars(where),
        }
        with dsl.If(collected == True, name="collected"):  # noqa: E712 - KFP overloads ==
            collecting = collect(
                teacher=fetched, section=synthesis, seed=seed, cpu_image=cpu_image, secret=storage_secret
            ).after(planning)
        with dsl.Elif(student_aware == True, name="student-aware"):  # noqa: E712
            drafting = on_cpu(prune(teacher=fetched, section=pruning, seed=seed), cpu_image, placement)
            with dsl.ParallelFor(planned, name="aware-shards") as index:
                aware = aware_shard(**shared, shard_index=index, student=drafting.outputs["student"])
            aware_dreams = on_cpu(merge_dreams(shards=dsl.Collected(aware.output)), cpu_image, placement)
        with dsl.Else(name="student-blind"):
            with dsl.ParallelFor(planned, name="blind-shards") as index:
                blind = blind_shard(**shared, shard_index=index)
            blind_dreams = on_cpu(merge_dreams(shards=dsl.Collected(blind.output)), cpu_image, placement)
        dreams = dsl.OneOf(collecting.output, aware_dreams.outputs["dreams"], blind_dreams.outputs["dreams"])

        with dsl.If(pruned_on_dreams == True, name="pruned-on-dreams"):  # noqa: E712 - KFP overloads ==
            guided = prune_guided(
                teacher=fetched,
                dreams=dreams,
                section=pruning,
                recovery=recovery,
                seed=seed,
                checkpoints=checkpoints,
                secret=checkpoint_secret,
                **vars(where),
            )
        with dsl.Else(name="pruned-by-weights"):
            by_weights = on_cpu(prune(teacher=fetched, section=pruning, seed=seed), cpu_image, placement)
        pruned = dsl.OneOf(guided.output, by_weights.outputs["student"])

        with dsl.If(scanned == True, name="scanned"):  # noqa: E712 - KFP overloads ==
            scan_layers(teacher=fetched, dreams=dreams, section={}, **vars(where))

        recovering = recover(
            teacher=fetched, student=pruned, dreams=dreams, section=recovery, seed=seed, checkpoints=checkpoints
        )
        recovered = with_storage(on_gpu(recovering, where, placement), checkpoint_secret).outputs
        evaluating = evaluate(
            teacher=fetched,
            statistics=statistics,
            dreams=dreams,
            pruned=pruned,
            repaired=recovered["repaired"],
            recovered=recovered["recovered"],
            test_set=test_set,
            section=evaluation,
        )
        if placement.evaluate_on_gpu:
            evaluated = on_gpu(evaluating, where, placement).outputs
        else:
            evaluated = on_cpu(evaluating, cpu_image, placement).outputs
        judging = on_cpu(judge(evaluation=evaluated["evaluation"], section=gate), cpu_image, placement)
        with dsl.If(published == True, name="published"):  # noqa: E712 - KFP overloads ==
            publish_result(
                recovered=recovered["recovered"],
                evaluation=evaluated["evaluation"],
                report=evaluated["report"],
                section=publishing,
                cpu_image=cpu_image,
                secret=storage_secret,
            ).after(judging)

    return compress


def _nested(placement: PlacementSection) -> tuple[Any, Any, Any, Any, Any, Any]:
    """The stages that stand in a condition or a loop."""

    def with_gpu(task: Any, secret: Any, **where: Any) -> Any:
        return with_storage(on_gpu(task, OnGpu(**where), placement), secret)

    def with_store(task: Any, cpu_image: Any, secret: Any) -> Any:
        return with_storage(on_cpu(task, cpu_image, placement), secret)

    def scanning(task: Any, **where: Any) -> Any:
        return on_gpu(task, OnGpu(**where), placement)

    stored = {"cpu_image": str, "secret": str}
    collect = alone(collect_images, with_store, name="collect", own=stored, output=("dreams", dsl.Dataset))
    own, shard = {"secret": str, **GPU_INPUTS}, ("shard", dsl.Dataset)
    blind_shard = alone(synthesize, with_gpu, name="shard", own=own, output=shard, without=("student",))
    shown = {"student": dsl.Input[dsl.Model]}
    aware_shard = alone(synthesize, with_gpu, name="student-aware-shard", own=own, output=shard, inputs=shown)
    student = ("student", dsl.Model)
    prune_guided = alone(prune_on_dreams, with_gpu, name="guided-pruning", own=own, output=student)
    scan_layers = alone(scan_sensitivity, scanning, name="scan", own=GPU_INPUTS)
    publish_result = alone(publish, with_store, name="publish", own=stored)
    return collect, blind_shard, aware_shard, prune_guided, scan_layers, publish_result
