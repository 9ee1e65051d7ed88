"""Claims of the paper: the comparisons that decide them, and their verdicts; one entry of `KINDS` per kind."""

from harness.table.claims.judge import JudgedClaim, answer_questions, judge_claims, list_questions
from harness.table.claims.kinds import Answers
from harness.table.claims.question import Question, group_questions, read_scores

__all__ = [
    "Answers",
    "JudgedClaim",
    "Question",
    "answer_questions",
    "group_questions",
    "judge_claims",
    "list_questions",
    "read_scores",
]
