"""Statistics of ablation tables: error model, simultaneous comparisons, verdicts. Knows numbers, not records."""

from harness.statistics.comparison import Comparison, Contrast, Family, compare, compare_contrasts
from harness.statistics.curve import average_curves, is_under_trained
from harness.statistics.error_model import ErrorModel, Estimate
from harness.statistics.factorial import Effect, estimate_effects
from harness.statistics.image_noise import ImageNoise, add_image_noise, find_image_noise
from harness.statistics.multiplicity import Dunnett, holm
from harness.statistics.pairs import MAX_EXACT_SEEDS, PairedTest, Summary, compare_pairs, summarize
from harness.statistics.power import MAX_SEEDS, Outlook, find_outlook
from harness.statistics.prediction import predict_runs
from harness.statistics.sequential import LOOKS, Decision, EqualityRule, Look, Reason, Rule, decide_look, plan_looks
from harness.statistics.verdict import (
    ALPHA,
    ClaimVerdict,
    Verdict,
    decide,
    decide_equality,
    judge_equality,
    judge_order,
    judge_outcome,
)

__all__ = [
    "ALPHA",
    "LOOKS",
    "MAX_EXACT_SEEDS",
    "MAX_SEEDS",
    "ClaimVerdict",
    "Comparison",
    "Contrast",
    "Decision",
    "Dunnett",
    "Effect",
    "EqualityRule",
    "ErrorModel",
    "Estimate",
    "Family",
    "ImageNoise",
    "Look",
    "Outlook",
    "PairedTest",
    "Reason",
    "Rule",
    "Summary",
    "Verdict",
    "add_image_noise",
    "average_curves",
    "compare",
    "compare_contrasts",
    "compare_pairs",
    "decide",
    "decide_equality",
    "decide_look",
    "estimate_effects",
    "find_image_noise",
    "find_outlook",
    "holm",
    "is_under_trained",
    "judge_equality",
    "judge_order",
    "judge_outcome",
    "plan_looks",
    "predict_runs",
    "summarize",
]
