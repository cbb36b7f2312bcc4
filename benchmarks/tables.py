"""Results as tables in README.md, docs/benchmarks.md and docs/results.md, from the JSON that the benchmarks leave.

python benchmarks/tables.py            # rewrites what stands between the markers; `make format` does too
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import networks

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ABLATIONS = {
    "baseline": "baseline",
    "bn-frozen": "BatchNorm frozen",
    "dreams-512": "512 dreams",
    "dreams-2048": "2,048 dreams",
    "dreams-4096": "4,096 dreams",
    "iterations-25": "25 iterations per dream",
    "iterations-100": "100 iterations per dream",
    "iterations-200": "200 iterations per dream",
    "temperature-1": "temperature 1",
    "temperature-2": "temperature 2",
    "temperature-8": "temperature 8",
    "temperature-16": "temperature 16",
    "epochs-160": "160 epochs",
    "zoom-1.3": "sides stretched by up to 1.3",
    "rotation-10": "turned by up to 10 degrees",
    "cutmix-0.5": "boxes of other dreams in half of the batches",
    "coarsest-1": "dreams that differ in brightness: pyramids down to one pixel",
    "together": "all five of these, which are the defaults",
    "sanity-50": "50 % sparsity",
    "features-0": "no feature matching",
    "mixup-0": "no blends",
    "lamp": "LAMP",
    "rounds-3": "3 rounds",
}
HARD_CASES = {
    "default": "as they are",
    "fresh": "other dreams in the second half of the training",
    "group-256": "matched to the statistics 256 together, not 128",
    "statistics": "each group matched to statistics of its own, near the teacher's",
    "features": "their features before the last layer repel each other",
    "generator": "images of a generator that learnt to match the statistics, as many as dreams",
    "generator-anew": "images of that generator, each seen once",
}
_STRUCTURED = "MACs", "importance", "weights", "BatchNorm re-estimated", "layers solved", "distilled", "stored", "bzip2"
_DEVICES = {"cpu": "CPU", "cuda": "GPU"}
"""How devices are called that times were measured on, in the order of their columns."""


def structured(document: dict[str, Any]) -> str:
    """One network with whole channels gone as Markdown: accuracy, size and time beside those of the dense teacher."""
    cells, epochs = document["cells"], document["recipe"]["recovery"]["epochs"]
    timed = list(dict.fromkeys(pair for cell in cells for pair in _timed(cell)))
    columns = [*_STRUCTURED, *(f"{_DEVICES[kind]}, batch {batch}" for kind, batch in timed)]
    threads = "1 thread" if document["threads"] == 1 else f"{document['threads']} threads"
    lines = [
        f"{document['name']}, teacher {document['teacher_top1']:.2f} %; top-1 in percent on the 10,000 CIFAR-10 test "
        f"images; {_dreams(document)}, {epochs} epochs, {_seeds(len({cell['seed'] for cell in cells}))}. "
        f"{networks.machine(document['machine'])}, {threads}.",
        "",
        f"| {' | '.join(columns)} |",
        "|---:|---|" + "---:|" * (len(columns) - 2),
    ]
    for key in dict.fromkeys((cell["macs_ratio"], cell["importance"]) for cell in cells):
        alike = [cell for cell in cells if (cell["macs_ratio"], cell["importance"]) == key]
        lines.append(_structured_row(alike, timed))
    units = "All but accuracy is in units of the teacher's, in the same run; the last columns are times."
    return "\n".join([*lines, "", units])


def _timed(cell: dict[str, Any]) -> list[tuple[str, str]]:
    """The kinds of device and the batch sizes that were measured."""
    ratios = cell["latency_ratio"]
    return [(kind, batch) for kind in _DEVICES if kind in ratios for batch in ratios[kind]]


def _dreams(document: dict[str, Any]) -> str:
    """How many, and of what kind where it is not the usual one."""
    synthesis = document["recipe"]["synthesis"]
    plain = "" if networks.coarsest(synthesis) == networks.USUAL_COARSEST else "plain "
    iterations = synthesis["iterations"]
    words = f"{document['num_images']:,} {plain}dreams"
    return words if iterations == networks.USUAL_ITERATIONS else f"{words} of {iterations} iterations"


def _structured_row(cells: list[dict[str, Any]], timed: list[tuple[str, str]]) -> str:
    shares = [_share([(cell[what][1], cell[what][0]) for cell in cells]) for what in ("macs", "parameters")]
    top1 = [[cell["top1"][row] for cell in cells] for row in ("dreams", "reconstruction")]
    top1.append([cell["top1"][f"distilled_{cell['start']}"] for cell in cells])
    sizes = [
        _share([(cell["size"][1][what], cell["size"][0][what]) for cell in cells])
        for what in ("size_bytes", "compressed_size_bytes")
    ]
    times = [_time([cell["latency_ratio"][kind][batch] for cell in cells]) for kind, batch in timed]
    return (
        "| "
        + " | ".join([shares[0], cells[0]["importance"], shares[1], *map(networks.summary, top1), *sizes, *times])
        + " |"
    )


def _share(pairs: list[tuple[int, int]]) -> str:
    return f"{mean(part / whole for part, whole in pairs):.2f}"


def _time(ratios: list[float]) -> str:
    ratio = round(mean(ratios), 2)
    return f"{ratio:.2f}" + (" (slower)" if ratio > 1 else "")


def synthesis(document: dict[str, Any]) -> str:
    """One machine's synthesis speed as Markdown."""
    rates, shares = document["images_iterations_per_second"], document["share_of_ceiling"]
    lines = [
        f"{document['name']}, images x iterations per second, median of {document['repeats']} (spread); "
        f"the medians' ratio is **{document['ratio']:.2f}**. {networks.machine(document['machine'])}.",
        "",
        "| loop | images x iterations / s | share of the matrix-multiply ceiling |",
        "|---|---:|---:|",
    ]
    for name, label in (("paper", "the paper's loop, float32, batches of 32"), ("engine", _engine(document))):
        rate = rates[name]
        spread = f"{rate['median']:,.0f} ({rate['min']:,.0f} to {rate['max']:,.0f})"
        lines.append(f"| {label} | {spread} | {100 * shares[name]:.1f} % |")
    profile = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in document["profile"].items() if share >= 0.01)
    return "\n".join([*lines, "", f"Where the engine's time goes: {profile}."])


def storage(document: dict[str, Any]) -> str:
    """One machine's transfers to and from object storage as Markdown."""
    large, small = document["large_megabytes"], document["small_files"]
    labels = {
        "large_up": f"one file of {large} MB up, MB/s",
        "large_down": f"one file of {large} MB down, MB/s",
        "small_up": f"{small:,} files of {document['small_bytes']:,} bytes up, files/s",
        "small_down": f"{small:,} files of {document['small_bytes']:,} bytes down, files/s",
    }
    lines = [
        f"SeaweedFS on loopback, median of {document['repeats']} (spread). {networks.machine(document['machine'])}.",
        "",
        "| | the SDK alone | **Resprout** | ratio |",
        "|---|---:|---:|---:|",
    ]
    for task, label in labels.items():
        rates = document["per_second"][task]
        cells = (
            f"{rates[who]['median']:,.0f} ({rates[who]['min']:,.0f} to {rates[who]['max']:,.0f})"
            for who in ("sdk", "resprout")
        )
        lines.append(f"| {label} | {' | '.join(cells)} | {rates['ratio']:.2f} |")
    return "\n".join(lines)


def images(document: dict[str, Any]) -> str:
    """The images' sizes and start-up as Markdown."""
    lines = [
        "| image | size, uncompressed | start to first line, median (spread) |",
        "|---|---:|---:|",
    ]
    for image, found in document["images"].items():
        taken = found["seconds_to_first_line"]
        spread = f"{taken['median']:.1f} s ({taken['min']:.1f} to {taken['max']:.1f})"
        lines.append(f"| `{image}` | {found['megabytes'] / 1000:.1f} GB | {spread} |")
    return "\n".join([*lines, "", f"{document['repeats']} starts. {networks.machine(document['machine'])}."])


def diversity(document: dict[str, Any]) -> str:
    """How much images differ from each other as Markdown: themselves, and layers that are as far apart as can be."""
    kinds = document["spread"]
    layers = list(next(iter(kinds.values())))
    shown = ["images", *layers[1 :: (len(layers) - 2) // 4]]
    lines = [
        f"{document['name']}, {document['num_images']:,} images of each kind, seed {document['seed']}: brightness / "
        f"contrast, in standard deviations of the channel. {networks.machine(document['machine'])}.",
        "",
        f"| | {' | '.join(shown)} |",
        "|---|" + "---:|" * len(shown),
    ]
    for kind, found in kinds.items():
        figures = (f"{found[layer][0]:.2f} / {found[layer][1]:.2f}" for layer in shown)
        lines.append(f"| {kind} | {' | '.join(figures)} |")
    return "\n".join(lines)


def ablations(cells: list[dict[str, Any]]) -> list[str]:
    """What each recipe of recipes/ablations gave, as Markdown: a table per machine; none where nothing was measured."""
    machines = sorted({networks.machine(cell["machine"]) for cell in cells})
    return [_ablations_on([c for c in cells if networks.machine(c["machine"]) == name], name) for name in machines]


def _ablations_on(cells: list[dict[str, Any]], machine_name: str) -> str:
    images = sorted({cell["num_test_images"] for cell in cells})
    pruning = next((cell["settings"]["pruning"] for cell in cells if cell["name"] == "baseline"), None)
    about = f"baseline: {pruning['method']} at {100 * pruning['sparsity']:g} %. " if pruning else ""
    teacher = mean(cell["top1"]["teacher"] for cell in cells)
    lines = [
        f"ResNet-20, teacher {teacher:.2f} %; {about}Top-1 in percent on {' or '.join(f'{n:,}' for n in images)} "
        "CIFAR-10 test images; agreement and KL on held-out dreams and their blends, which differ where the dreams do. "
        f"{machine_name}.",
        "",
        "| recipe | seeds | pruned | repaired | recovered | agreement | KL, nats |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, label in ABLATIONS.items():
        found = [cell for cell in cells if cell["name"] == name]
        if found:
            figures = [networks.summary([c["top1"][who] for c in found]) for who in ("pruned", "repaired", "recovered")]
            figures.append(networks.summary([c["agreement"]["recovered"] for c in found]))
            figures.append(f"{mean(c['kl_divergence']['recovered'] for c in found):.3f}")
            lines.append(f"| {label} (`{name}`) | {len(found)} | {' | '.join(figures)} |")
    return "\n".join(lines)


def hard_cases(document: dict[str, Any]) -> str:
    """What other dreams than the default's gave, as Markdown: on the same pruned students, with as many steps."""
    cells = document["cells"]
    usual = {cell["seed"]: cell["top1"] for cell in cells if cell["case"] == "default"}
    lines = [
        f"{document['name']} at {100 * document['sparsity']:g} %; top-1 in percent on the 10,000 CIFAR-10 test images, "
        f"{_seeds(len(usual))}, and seed by seed what it gains. {networks.machine(document['machine'])}.",
        "",
        "| dreams | recovered | gain by seed |",
        "|---|---:|---:|",
    ]
    for case, label in HARD_CASES.items():
        found = [cell for cell in cells if cell["case"] == case]
        if found:
            gains = ", ".join(f"{cell['top1'] - usual[cell['seed']]:+.2f}" for cell in found)
            top1 = networks.summary([cell["top1"] for cell in found])
            lines.append(f"| {label} (`{case}`) | {top1} | {'' if case == 'default' else gains} |")
    return "\n".join(lines)


def _engine(document: dict[str, Any]) -> str:
    return f"**Resprout's engine**, {document['dtype']}, groups of {document['group_size']}"


def _seeds(count: int) -> str:
    return _count(count) if count == 1 else f"{_count(count)} (mean ± standard deviation)"


def _count(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def written(text: str, mark: str, tables: list[str]) -> str:
    """`text` with the tables between `<!-- mark:begin -->` and `<!-- mark:end -->`."""
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return before + begin + "\n" + "\n\n".join(tables) + "\n" + end + after


def documents() -> dict[Path, str]:
    """Each document that holds results, with what it should say."""
    found = {kind: _read(f"{kind}-*.json") for kind in ("recovery", *_KINDS)}
    made = {kind: [of_kind(document) for document in found[kind]] for kind, of_kind in _KINDS.items()}
    made["ablations"] = ablations(_read("ablations/*/*.json"))
    made["recovery"] = networks.by_network(found["recovery"])
    made["results"] = [networks.table(documents, *FRONT) for documents in [_front(found["recovery"])] if documents]
    holds = {
        ROOT / "README.md": ("results", "images"),
        ROOT / "docs" / "benchmarks.md": ("synthesis", "storage", "images"),
        ROOT / "docs" / "results.md": ("recovery", "structured", "ablations", "hard-cases", "diversity"),
    }
    texts = {path: path.read_text() for path in holds}
    for path, marks in holds.items():
        for mark in marks:
            texts[path] = written(texts[path], mark, made[mark] or ["Not measured yet."])
    return texts


def _read(pattern: str) -> list[dict[str, Any]]:
    """What was measured; of each kind of machine apart, those without a GPU first."""
    paths = [*sorted(RESULTS.glob(pattern)), *sorted(RESULTS.glob(f"*/{pattern}"))]
    return [json.loads(path.read_text()) for path in paths]


def _front(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the README shows: the example's teacher, pruned as by default, by magnitude, and in rounds.

    Each by the machine that measured most of it.
    """
    usual, more = networks.PRUNING["optimal_brain"], "4,096 dreams, 100 iterations"
    rounds = [f"{usual}, 3 rounds", f"{usual}, 3 rounds trained anew"]
    shown = ("global L1", usual, *rounds, *(f"{each}, {more}" for each in rounds))
    of_example = [document for document in found if document["name"] == "resnet20"]
    alike = ([document for document in of_example if networks.criterion(document) == name] for name in shown)
    return [max(documents, key=lambda document: len(document["cells"])) for documents in alike if documents]


FRONT = ("none", "dreams", "paper", "reconstruction", "ours"), (0.5, 0.75, 0.9, 0.95, 0.98)
"""The rows and the columns of the README's table."""
_KINDS = {
    "structured": structured,
    "synthesis": synthesis,
    "storage": storage,
    "images": images,
    "diversity": diversity,
    "hard-cases": hard_cases,
}


def main() -> None:
    for path, text in documents().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
