"""Notes of the benchmark report that explain its columns."""

from collections.abc import Iterable

from benchmarks.ceiling import Ceiling
from benchmarks.timing import SLOW_ROUNDS, SLOW_SECONDS


def list_goal_notes(device: str) -> Iterable[str]:
    """Of the table of goals."""
    clock = "the CPU time of one thread" if device == "cpu" else "the wall clock"
    yield (
        "**measured** is the first thing named divided by the second: the ratio of their medians, in brackets the "
        f"quartiles of the ratio within each round. Times are of forward and backward together, by {clock}."
    )
    yield (
        "**must** is what the project promises, **aim** what would be near the machine's limit; **verdict** names the "
        "better of the two that is met, `unmet` that neither is."
    )
    yield (
        "timm's core is its `WindowAttention` between the two linear layers, not fused, on windows that are already "
        "cut. Ours takes the map, and cuts and moves it itself."
    )
    yield "`unfold` and `eager window Net7` are frozen files beside the benchmark: they stay as slow as they are."
    yield (
        "Shapes: s1 is 8 maps of 56x56 with 96 channels in 3 heads, s3 8 maps of 14x14 with 384 channels in 12 heads; "
        "every window and kernel is 7x7. 224 and 28 are the sides of images that whole models train on."
    )


def list_case_notes() -> Iterable[str]:
    """Of the table of all cases."""
    yield (
        "**case** is operator / whose code / shape / what else is special. `cpu`, `torch`, `triton`, `reference` and "
        "`dense` are ours, `auto` is what ours chooses by itself."
    )
    yield (
        "**n** counts rounds. In each of them every case has its turn, in one process; a case that takes more than "
        f"{SLOW_SECONDS:g} s takes part in the first {SLOW_ROUNDS}. Times are medians over the rounds."
    )
    yield (
        "**forward** keeps nothing, as in inference. **f + b** is forward and backward to every input and table, of "
        "whole models a step of training with the optimizer. **wall** is f + b by the clock on the wall."
    )
    yield "**GFLOP/s** is of f + b: the FLOP that the definition needs, a backward pass counted as two forward passes."
    yield (
        "**saved** is what the forward pass keeps for the backward pass, each storage once, inputs, tables and "
        "parameters included; **beyond inputs** is without these."
    )
    yield (
        "**peak** is how far the memory of a fresh process grew during one f + b beyond its inputs: output, gradients "
        "and everything in between."
    )


def describe_ceiling(ceiling: Ceiling, device: str) -> str:
    """What the lines of the plot are."""
    who = "One thread" if device == "cpu" else "The device"
    return (
        f"{who} multiplies large matrices at {ceiling.flops / 1e9:,.0f} GFLOP/s and copies at "
        f"{ceiling.bandwidth / 1e9:,.1f} GB/s, every byte counted as read and as written; both were measured with the "
        "cases. FLOP per byte counts each input, output and gradient as if it moved once, so that all forms of one "
        "operator stand one above the other, and the distance to the roof is what a form leaves unused."
    )
