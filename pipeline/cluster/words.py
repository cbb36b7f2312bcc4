"""Kubernetes', Argo's and KFP's words on a pod, in ours; and of a log, the lines that are the stage's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from pipeline.cluster.workflow import Pod

UNSCHEDULABLE = "Unschedulable"
KILLED = 137
# what a container waits for that will not come by itself
_HOPELESS = ("ErrImage", "ImagePull", "InvalidImage", "CreateContainer", "CrashLoop", "RunContainer")
# of KFP's launcher and driver (glog), of Argo's executor, of KFP's Python executor
_GLOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \S+:\d+\]")
_NOT_OURS = re.compile(rf"{_GLOG.pattern}|time=\S.* level=|\[KFP Executor |Error: exit status \d+$|outcome \w+ {{")
_FATAL = re.compile(r"F\d{4} \S+ +\d+ \S+:\d+\] (?P<text>.*)$")
# what KFP puts before what it failed of
_PREAMBLE = re.compile(r"KFP driver: driver\.\w+\(.*?\) failed: |failed to execute component: ")
_EXIT_CODE = re.compile(r"exit code (\d+)")


def is_unschedulable(pod: Pod) -> bool:
    """Whether no node has room for it, or may take it."""
    return pod.phase == "Pending" and pod.message.startswith(UNSCHEDULABLE)


def cannot_start(pod: Pod) -> bool:
    """Whether it has a node, and something that a person must mend."""
    return pod.phase == "Pending" and pod.message.startswith(_HOPELESS)


def scheduler_s(message: str) -> str:
    """The scheduler's reason, without what it says of each way out that there is none."""
    text = message.partition(": ")[2]
    return re.split(r"[.,] (?:no new claims|preemption:)", text)[0].rstrip(". ")


def asks(resources: Mapping[str, str]) -> str:
    """`1 x nvidia.com/gpu, 4 CPU, 16Gi memory`."""
    words = [accelerators(resources)]
    words += [f"{resources[name]} {unit}" for name, unit in (("cpu", "CPU"), ("memory", "memory")) if name in resources]
    return ", ".join(filter(None, words))


def accelerators(resources: Mapping[str, str]) -> str:
    """`1 x nvidia.com/gpu`; "" for none."""
    return ", ".join(f"{count} x {name}" for name, count in resources.items() if "/" in name and count != "0")


def exit_code(message: str) -> int | None:
    """The exit code that a message names."""
    found = _EXIT_CODE.search(message)
    return int(found[1]) if found else None


def was_killed(pod: Pod, log: Iterable[str]) -> bool:
    """Whether the kernel ended it for want of memory: the container as a whole, or the process that computed."""
    if "OOMKilled" in pod.message or exit_code(pod.message) == KILLED:
        return True
    return any(line.endswith((f"exit status {KILLED}", "signal: killed")) and _GLOG.match(line) for line in log)


def why(pod: Pod) -> str:
    """Why it failed, in a few words."""
    message = pod.message
    if message == "pod deleted":
        return "its pod was deleted"
    if "OOMKilled" in message or exit_code(message) == KILLED:
        return "it ran out of memory"
    if "low on resource" in message:
        return f"evicted: {message.partition('. ')[0][0].lower()}{message.partition('. ')[0][1:]}"
    if "specified deadline" in message:
        return "it took longer than placement.timeout_seconds"
    code = exit_code(message)
    return f"exit code {code}" if code is not None else message or "nothing says why"


def own_lines(log: Iterable[str]) -> list[str]:
    """The lines that the stage itself wrote."""
    own, dump, before = [], False, ""
    for line in log:
        if dump:
            dump = line != "}"
        elif _NOT_OURS.match(line) or (line == "{" and _NOT_OURS.match(before)):
            dump = line.endswith("{")  # JSON over many lines, up to a brace at the margin
        elif line.strip():
            own.append(line)
        before = line
    return own


def kfp_s(log: Sequence[str]) -> str:
    """What KFP's driver or launcher failed of; "" where its log does not say, or only that the stage did."""
    found = [match["text"] for line in log if (match := _FATAL.match(line))]
    text = _PREAMBLE.sub("", " ".join(found[-1].split())) if found else ""
    return "" if re.fullmatch(r"exit status \d+|signal: \w+", text) else text
