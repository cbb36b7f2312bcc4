"""The errors that Resprout raises on purpose.

    ResproutError
    ├── ArtifactError          an artifact is missing, truncated, tampered with, or of another kind or schema
    ├── UnsupportedModelError  a network or a checkpoint that Resprout cannot or will not work with
    ├── RecipeError            a recipe that does not say something that can be run
    ├── DeviceError            fewer GPUs are there than were asked for, or one's process ended while it computed
    ├── DivergedError          numbers grew until they were none: a loss, a weight, an image
    ├── DatasetError           a labelled test set that cannot be read or does not fit the teacher
    ├── GateError              a result does not keep what its recipe promises
    ├── StorageError           object storage refused
    │   └── StorageAwayError   it does not answer or fails inside: later it may not
    └── ClusterError           Kubeflow Pipelines refused, or did not answer

Each says what is wrong, why that matters and what to do now. A person sees those three lines; a
traceback is for mistakes of ours.
"""

from __future__ import annotations

from resprout.wording import printable


class ResproutError(Exception):
    """What is wrong, why that stops the work, and what to do now.

    Args:
        what: one sentence with the offending value in it.
        why: the reason that this cannot be ignored.
        now: the remedy.
    """

    def __init__(self, what: str, *, why: str = "", now: str = "") -> None:
        # what others wrote is quoted here and there, and must not command a terminal
        self.what, self.why, self.now = printable(what), printable(why), printable(now)
        super().__init__(self.what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.now:
            lines.append(f"  now: {self.now}")
        return "\n".join(lines)


class ArtifactError(ResproutError):
    """An artifact is missing, truncated, tampered with, or of another kind or schema."""


class UnsupportedModelError(ResproutError):
    """A network or a checkpoint that Resprout cannot or will not work with."""


class RecipeError(ResproutError):
    """A recipe that does not say something that can be run."""


class DeviceError(ResproutError):
    """Fewer GPUs are there than were asked for, or one's process ended while it computed."""


class DivergedError(ResproutError):
    """Numbers grew until they were none: a loss, a weight or an image is NaN or infinite."""


class DatasetError(ResproutError):
    """A labelled test set that cannot be read or does not fit the teacher."""


class GateError(ResproutError):
    """A result does not keep what its recipe promises, or it cannot be told."""


class StorageError(ResproutError):
    """Object storage refused."""


class StorageAwayError(StorageError):
    """Object storage does not answer, or fails inside, as when it is full: later it may not."""


class ClusterError(ResproutError):
    """Kubeflow Pipelines refused, or did not answer."""
