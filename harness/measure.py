"""A measure: a named score of a task, as a value that tables, figures, searches and progress read."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """How a score is called, read and judged.

    Attributes:
        name: in metrics (`val/NAME`), columns (`NAME_mean`) and YAML.
        title: in text.
        unit: empty where the score has none.
        direction: whether the higher or the lower value is better.
        chance: the value of a model that guesses; None: not known.
        ceiling: the best possible value; None: there is none.
        relevant_gain: smaller improvements are within the noise between runs.
        format: of means, spreads and differences.
        short_format: of numbers as papers print them, and of points of a curve.
    """

    name: str
    title: str
    unit: str = ""
    direction: Literal["higher", "lower"] = "higher"
    chance: float | None = None
    ceiling: float | None = None
    relevant_gain: float = 0.0
    format: str = ".2f"
    short_format: str = ".1f"

    @property
    def sign(self) -> int:
        """1 or -1: the value times this is higher where the model is better."""
        return 1 if self.direction == "higher" else -1

    @property
    def goal(self) -> Literal["maximize", "minimize"]:
        """The direction as Optuna names it."""
        return "maximize" if self.direction == "higher" else "minimize"

    @property
    def val(self) -> str:
        """The metric of a record that is measured on the validation images."""
        return f"val/{self.name}"

    @property
    def test(self) -> str:
        """The metric of a record that is measured on the test images."""
        return f"test/{self.name}"

    @property
    def label(self) -> str:
        """Title and unit, of a column or an axis: `top-1, %`."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    @property
    def heading(self) -> str:
        """The title at the beginning of a sentence: `Top-1`."""
        return self.title[:1].upper() + self.title[1:]

    @property
    def phrase(self) -> str:
        """Title and unit at the beginning of a sentence: `Top-1 in percent`."""
        return f"{self.heading} in {'percent' if self.unit == '%' else self.unit}" if self.unit else self.heading

    @property
    def difference(self) -> str:
        """What differences of the measure are: `points of top-1`."""
        return f"points of {self.title}" if self.unit == "%" else self.label

    def show(self, value: float, *, width: int = 0) -> str:
        """A value with its unit: `81.20 %`."""
        return f"{value:{width or ''}{self.format}} {self.unit}".rstrip()
