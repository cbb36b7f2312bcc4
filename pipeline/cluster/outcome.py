"""How a run ended: its figures, its gate's verdict and where it was published, from the logs of its last stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.cluster.server import Server
from pipeline.cluster.stages import Stage
from pipeline.cluster.state import RunState
from resprout.outcome import find


@dataclass(frozen=True)
class Outcome:
    """What is known of it.

    Args:
        gate: what `resprout.outcome.of_gate` told; {} where nothing did.
        gate_broken: whether a limit is.
        gate_cannot_tell: whether one could not be told.
        address: of what was published; "" for nothing.
        digest: the published model's; "" where nothing told it.
    """

    gate: Mapping[str, Any] = field(default_factory=dict)
    gate_broken: bool = False
    gate_cannot_tell: bool = False
    address: str = ""
    digest: str = ""

    def lines(self) -> list[str]:
        """For people: figures, verdict, how many limits are kept, the address."""
        published = [f"published  {self.address}"] if self.address else []
        if not self.gate:
            return published
        checks = self.gate.get("checks", [])
        kept = sum(check["passed"] is True for check in checks)
        gate = f"{kept} of {len(checks)} limits are kept" if checks else "the recipe sets no limit"
        figures = [*self.gate["table"], self.gate["verdict"], ""] if "table" in self.gate else []
        return [*figures, f"gate       {gate}", *published]

    def fields(self) -> dict[str, Any]:
        """The same for programs."""
        told = {name: self.gate.get(name) for name in ("figures", "verdict", "checks")}
        published = {"published": self.address or None, "digest": self.digest or None}
        return {**told, "gate_passed": self.gate.get("passed"), **published}


def outcome_of(server: Server, state: RunState) -> Outcome:
    """Ask the gate's and the publishing pods' logs.

    Args:
        server: asked for them.
        state: a run that has ended.
    """
    gate, publish = state.stage("gate"), state.stage("publish")
    told = _told(server, state, gate)
    published = _told(server, state, publish)
    address, digest = (published.get(name) or "" for name in ("address", "digest"))
    if gate is None or gate.state != "failed":
        return Outcome(told, address=address, digest=digest)
    if "passed" in told:
        return Outcome(told, gate_broken=told["passed"] is False, gate_cannot_tell=told["passed"] is None)
    # its log is gone, or from before it told: an exit of its own means one thing
    return Outcome(gate_broken=bool(gate.last) and gate.last[-1].message in ("", "main: Error (exit code 1)"))


def _told(server: Server, state: RunState, stage: Stage | None) -> dict[str, Any]:
    if stage is None or not stage.last:
        return {}
    return find(server.log(state.run_id, stage.last[-1]), stage.name) or {}
