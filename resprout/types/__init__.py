"""What travels between the stages: frozen dataclasses whose invariants are checked once, here."""

from resprout.types.choice import SparsityChoice, Trial
from resprout.types.dreams import DreamGroup, DreamSet, DreamShard
from resprout.types.evaluation import Evaluation, Latency, ModelCost, ModelScore, StoredSize
from resprout.types.fetching import Stored
from resprout.types.labelled import LabelledImages
from resprout.types.sensitivity import Sensitivity
from resprout.types.statistics import BNStatistics, LayerStatistics
from resprout.types.students import ChannelPlan, PruningMask, Student
from resprout.types.teachers import InputSpec, ModelInfo, Teacher

__all__ = [
    "BNStatistics",
    "ChannelPlan",
    "DreamGroup",
    "DreamSet",
    "DreamShard",
    "Evaluation",
    "InputSpec",
    "LabelledImages",
    "Latency",
    "LayerStatistics",
    "ModelCost",
    "ModelInfo",
    "ModelScore",
    "PruningMask",
    "Sensitivity",
    "SparsityChoice",
    "Stored",
    "StoredSize",
    "Student",
    "Teacher",
    "Trial",
]
