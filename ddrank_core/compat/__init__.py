"""The Python interface of ddranking, on this project's engine.

A script that uses ddranking changes its imports: `ddranking.metrics` becomes `ddrank_core.compat.metrics`,
`ddranking.config` becomes `ddrank_core.compat.config`. Why its numbers change stands in
docs/differences-from-ddranking.md.
"""

from __future__ import annotations

from ddrank_core.compat.config import Config
from ddrank_core.compat.metrics import (
    AugmentationRobustScore,
    GeneralEvaluator,
    Hard_Label_Objective_Metrics,
    HardLabelEvaluator,
    LabelRobustScoreHard,
    LabelRobustScoreSoft,
    Soft_Label_Objective_Metrics,
    SoftLabelEvaluator,
)

__all__ = [
    "AugmentationRobustScore",
    "Config",
    "GeneralEvaluator",
    "HardLabelEvaluator",
    "Hard_Label_Objective_Metrics",
    "LabelRobustScoreHard",
    "LabelRobustScoreSoft",
    "SoftLabelEvaluator",
    "Soft_Label_Objective_Metrics",
]
