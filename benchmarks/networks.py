"""Everything that was measured of a network's recovery, as one table, with the commands that made it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

Document = Mapping[str, Any]
ROWS = {
    "none": "nothing",
    "noise": "BatchNorm re-estimated on noise",
    "dreams": "BatchNorm re-estimated on dreams",
    "paper": "the paper's recipe (2511.20702)",
    "reconstruction": "**ours**: layers solved on dreams, no training",
    "ours": "**ours**: distillation on dreams",
    "ceiling": "distillation on real training images (not data-free)",
    "plain": "**ours**, plain: distillation on dreams at temperature 4, in views less varied",
    "plain_ceiling": "plain distillation on real training images (not data-free)",
}
USUAL_PRUNING = "global_magnitude"
PRUNING = {
    USUAL_PRUNING: "global L1",
    "lamp": "LAMP",
    "erk": "ERK",
    "random": "random",
    "synflow": "SynFlow",
    "taylor": "Taylor",
    "fisher": "Fisher",
    "teacher_guided": "guided by the teacher (2511.16653)",
    "optimal_brain": "Optimal Brain Compression",
}
USUAL_GUIDE = "dreams"
GUIDES = {USUAL_GUIDE: "", "real": " on real training images (not data-free)"}
"""What criteria look at that look at images, as it follows their name."""
USUAL_SCHEDULE = "cubic"
SCHEDULES = {USUAL_SCHEDULE: "rounds", "geometric": "geometric rounds"}
USUAL_NUM_IMAGES = 1024
USUAL_ITERATIONS = 50
USUAL_EPOCHS = 40
USUAL_BATCH_SIZE = 64
USUAL_ROUND_EPOCHS = 0
"""As many as after the last round."""
USUAL_START = "auto"
STARTS = {USUAL_START: "", "repaired": " trained anew", "reconstructed": " from solved layers"}
"""What distillation starts from, as it follows the rounds."""
USUAL_COARSEST = 1
"""Dreams whose pyramid ends at more pixels than one are called plain."""


def criterion(document: Document) -> str:
    """Which weights went, in words."""
    words = PRUNING[document.get("pruning", USUAL_PRUNING)] + GUIDES[document.get("guide", USUAL_GUIDE)]
    rounds, schedule, num_images = _rounds(document), _schedule(document), document["num_images"]
    in_rounds = "one shot" if rounds == 1 else f"{rounds} {SCHEDULES[schedule]}"
    start = _start(document)
    words += "" if (rounds, start) == (1, USUAL_START) else f", {in_rounds}{STARTS[start]}"
    real = document.get("guide", USUAL_GUIDE) != USUAL_GUIDE
    images = "images" if real else "dreams" if coarsest(document) == USUAL_COARSEST else "plain dreams"
    if num_images != USUAL_NUM_IMAGES:
        words += f", {num_images:,} {images}"
    elif images == "plain dreams":
        words += f", {images}"
    of_dreams = () if real else (("iterations", USUAL_ITERATIONS, "{} iterations"),)
    for name, usual, unit in (*of_dreams, *_TRAINING):
        number = document.get(name, usual)
        words += "" if number == usual else f", {unit.format(number)}"
    return words


_TRAINING = (
    ("epochs", USUAL_EPOCHS, "{} epochs"),
    ("round_epochs", USUAL_ROUND_EPOCHS, "{} epochs between rounds"),
    ("batch_size", USUAL_BATCH_SIZE, "batches of {}"),
)
"""What else a training may have had than the defaults: its name, the usual number, what to say of another."""


def coarsest(document: Document) -> int:
    """Where the pyramid of its dreams ended."""
    return int(document.get("coarsest", USUAL_COARSEST))


def network(documents: Sequence[Document]) -> str:
    """One network's results on one machine: their table, then how to measure them again.

    Args:
        documents: what the recovery benchmark left of it there, one per criterion.
    """
    documents = _in_order(documents)
    commands = ["```", *map(_command, documents), "```"]
    described = documents[0]["machine"]
    processor = f"{described['cores']} cores with {described['capability']}"
    on = processor if described["gpu"] == "none" else f"an {described['gpu']}"
    heading = f"### {documents[0]['name']}, on {on}"
    return "\n".join([heading, "", table(documents), "", *commands])


def table(
    documents: Sequence[Document], rows: Iterable[str] = tuple(ROWS), sparsities: Sequence[float] | None = None
) -> str:
    """A row per criterion and way back, a column per sparsity: top-1, mean over seeds ± standard deviation."""
    documents = _in_order(documents)
    if sparsities is None:
        sparsities = sorted({cell["sparsity"] for document in documents for cell in document["cells"]})
    first = documents[0]
    columns = " | ".join(f"{100 * sparsity:g} %" for sparsity in sparsities)
    lines = [
        f"{first['name']}, teacher {first['teacher_top1']:.2f} %; top-1 in percent on the 10,000 CIFAR-10 test images, "
        "mean over seeds ± standard deviation, in brackets the seeds where they are fewer; "
        f"{USUAL_NUM_IMAGES:,} dreams where nothing else is said. {_machines(documents)}.",
        "",
        f"| which weights go | what brings accuracy back | seeds | {columns} |",
        "|---|---|---:|" + "---:|" * len(sparsities),
        *(line for document in documents for line in _lines(document, sparsities, rows)),
    ]
    return "\n".join(lines)


def _machines(documents: Sequence[Document]) -> str:
    """The first one's; then each other machine, after the criteria that were measured there."""
    found: dict[str, list[str]] = {}
    for document in documents:
        found.setdefault(machine(document["machine"]), []).append(criterion(document))
    first, *others = found
    return ". ".join([first, *(f"{'; '.join(found[other])}: {other}" for other in others)])


def _in_order(documents: Iterable[Document]) -> list[Document]:
    order = list(PRUNING)

    def key(document: Document) -> tuple[int, ...]:
        schedule = list(SCHEDULES).index(_schedule(document))
        dreams = document["num_images"], _iterations(document), coarsest(document)
        training = (int(document.get(name, usual)) for name, usual, _ in _TRAINING)
        start = list(STARTS).index(_start(document))
        return *dreams, *training, _rounds(document), start, schedule, order.index(_pruning(document))

    return sorted(documents, key=key)


def _pruning(document: Document) -> str:
    return str(document.get("pruning", USUAL_PRUNING))


def _rounds(document: Document) -> int:
    return int(document.get("rounds", 1))


def _start(document: Document) -> str:
    return str(document.get("start", USUAL_START))


def _schedule(document: Document) -> str:
    return str(document.get("schedule", USUAL_SCHEDULE))


def _iterations(document: Document) -> int:
    return int(document.get("iterations", USUAL_ITERATIONS))


def _lines(document: Document, sparsities: Sequence[float], rows: Iterable[str]) -> Iterator[str]:
    for row in rows:
        label, cells = ROWS[row], [cell for cell in document["cells"] if cell["row"] == row]
        if cells:
            found = [[cell["top1"] for cell in cells if cell["sparsity"] == sparsity] for sparsity in sparsities]
            seeds = len({cell["seed"] for cell in cells})
            texts = (summary(values) + (f" ({len(values)})" if 0 < len(values) < seeds else "") for values in found)
            yield f"| {criterion(document)} | {label} | {seeds} | " + " | ".join(texts) + " |"


def _command(document: Document) -> str:
    cells, name = document["cells"], document["name"]
    parts = ["python benchmarks/recovery.py"]
    if name != "resnet20":
        parts += [f"--name {name}"]
    if (pruning := _pruning(document)) != USUAL_PRUNING:
        parts += [f"--pruning {pruning}"]
    if (guide := document.get("guide", USUAL_GUIDE)) != USUAL_GUIDE:
        parts += [f"--guide {guide}"]
    if (rounds := _rounds(document)) > 1:
        parts += [f"--rounds {rounds}"]
    if (schedule := _schedule(document)) != USUAL_SCHEDULE:
        parts += [f"--schedule {schedule}"]
    if (num_images := document["num_images"]) != USUAL_NUM_IMAGES:
        parts += [f"--num-images {num_images}"]
    if (iterations := _iterations(document)) != USUAL_ITERATIONS:
        parts += [f"--iterations {iterations}"]
    if coarsest(document) != USUAL_COARSEST:
        parts += [f"--coarsest {coarsest(document)}"]
    for name, usual, _ in _TRAINING:
        if (number := document.get(name, usual)) != usual:
            parts += [f"--{name.replace('_', '-')} {number}"]
    if (start := _start(document)) != USUAL_START:
        parts += [f"--start {start}"]
    parts += ["--sparsities", *(f"{sparsity:g}" for sparsity in sorted({cell["sparsity"] for cell in cells}))]
    parts += ["--rows", *(row for row in ROWS if any(cell["row"] == row for cell in cells))]
    return " ".join([*parts, f"--seeds {1 + max(cell['seed'] for cell in cells)}"])


def by_network(documents: Iterable[Document]) -> list[str]:
    """A table for each network and machine: those of a GPU first, and the ResNet-20 of the examples before others."""
    found: dict[tuple[bool, bool, str, str], list[Document]] = {}
    for document in documents:
        name, on_cpu, can = document["name"], document["machine"]["gpu"] == "none", document["machine"]["capability"]
        found.setdefault((on_cpu, name != "resnet20", name, can), []).append(document)
    return [network(found[key]) for key in sorted(found)]


def summary(values: Sequence[float]) -> str:
    """The mean, with the standard deviation where there is one."""
    if not values:
        return ""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 and max(values) > min(values) else "")


def machine(described: Mapping[str, str | int]) -> str:
    """A machine as one line for people."""
    gpu = "no GPU" if described["gpu"] == "none" else str(described["gpu"])
    cores = f"{described['cores']} cores of {described['processor']} ({described['capability']})"
    return f"{cores}, {gpu}, torch {described['torch']}"
