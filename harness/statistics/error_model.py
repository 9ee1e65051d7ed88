"""The error model of a table: rows and seeds as a block design, each row's variance moderated by that of all rows."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc

Array = NDArray[np.float64]

Scores = Mapping[str, Mapping[Hashable, float]]
"""The scores of each row by block, such as the seed that runs of different rows share."""

PRIOR_DF = 8.0
"""Weight of the common variance relative to the row's own, in degrees of freedom."""

OUTLIER_ALPHA = 0.001
"""Level of the F-test of a row's variance against the other rows, divided by the number of rows."""

MIN_ROW_DF = 1e-6
"""Degrees of freedom of a row that shares no block: its own variance is unknown and gets no weight."""

MIN_ROWS = 3
"""With fewer rows, the variance of a row cannot be estimated separately."""


@dataclass(frozen=True)
class Estimate:
    """A contrast of rows: the sum of weight times mean.

    Attributes:
        delta: the estimate, adjusted for missing blocks.
        error: its standard error.
        df: degrees of freedom of the error.
    """

    delta: float
    error: float
    df: float


class ErrorModel:
    """The model `score = row + block + error`; seeds are the blocks, with a variance for each row.

    With few seeds, the variance of a single row is poorly known. It is therefore moderated (Smyth, 2004): the weighted
    mean of it and the variance of all rows, with the row's degrees of freedom and `PRIOR_DF` as weights. Smyth
    estimates the prior weight from thousands of genes; a table has about eight rows, so that it is fixed here
    (docs/statistics.md has the simulations). A row with an outlying variance keeps its own, and is not part of the
    common variance.

    Attributes:
        names: the rows, in the order of all arrays.
        df: degrees of freedom of the residuals.
        outlying: rows that are judged by their own variance.
    """

    def __init__(self, scores: Scores) -> None:
        """Fit the model by least squares; `ValueError` if there are no residuals, see `fit`."""
        cells = [(row, block) for row, own in scores.items() for block in own]
        self.names = tuple(scores)
        blocks = tuple(dict.fromkeys(block for _, block in cells))
        values = np.array([scores[row][block] for row, block in cells])
        self._values = values - values.mean()  # contrasts do not change, and are more precise
        self._of_row = np.array([[row == name for row, _ in cells] for name in self.names], dtype=float)
        in_block = np.array([[block == other for _, block in cells] for other in blocks], dtype=float)
        self._design = np.concatenate([self._of_row, in_block]).T
        normal = self._design.T @ self._design
        self._inverse = np.linalg.pinv(normal, rcond=1e-10, hermitian=True) @ self._design.T
        self.df = len(cells) - int(np.linalg.matrix_rank(normal, tol=1e-10 * len(cells), hermitian=True))
        residuals = self._values - self._design @ (self._inverse @ self._values)
        scale = max(1.0, float(np.abs(values).max(initial=0.0)))
        if self.df == 0 or float(np.abs(residuals).max(initial=0.0)) < 1e-9 * scale:
            raise ValueError("scores without residual variation say nothing about the noise")
        self._squares = self._of_row @ residuals**2

    @classmethod
    def fit(cls, scores: Scores) -> "ErrorModel | None":
        """The model of the rows with two or more scores; None if they do not determine the noise."""
        repeated = {row: own for row, own in scores.items() if len(own) > 1}
        try:
            return cls(repeated) if len(repeated) > 1 else None
        except ValueError:
            return None

    @cached_property
    def _row_df(self) -> Array:
        """Degrees of freedom of each row's own variance: its number of scores minus one if no block is missing.

        In a block with few rows, the effect of the block itself takes most of the degrees of freedom.
        """
        shares = 1 - (self._design * self._inverse.T).sum(axis=1)
        row_df: Array = np.round(self._of_row @ shares * len(self.names) / (len(self.names) - 1), 9)
        return np.maximum(row_df, MIN_ROW_DF)

    @cached_property
    def _own(self) -> Array:
        """Unbiased estimates of each row's variance, from expected squared residuals, which are linear in them."""
        mixing = np.array([self._mix(of_row > 0) for of_row in self._of_row])
        own: Array = np.maximum(np.linalg.lstsq(mixing, self._squares)[0], 0.0)
        return own

    def _mix(self, cells: NDArray[np.bool_]) -> Array:
        """The contribution of each row's variance to the expected sum of squared residuals of some scores."""
        residual_maker = -self._design[cells] @ self._inverse
        residual_maker[:, cells] += np.eye(int(cells.sum()))
        shares: Array = (residual_maker**2).sum(axis=0) @ self._of_row.T
        return shares

    @cached_property
    def _is_outlying(self) -> NDArray[np.bool_]:
        if len(self.names) < MIN_ROWS:
            return np.zeros(len(self.names), dtype=bool)
        total, df = self._row_df * self._own, self._row_df
        others = (total.sum() - total) / (df.sum() - df)
        ratios = np.divide(self._own, others, out=np.full_like(others, np.inf), where=others > 0)
        return np.asarray(fdtrc(df, df.sum() - df, ratios) < OUTLIER_ALPHA / len(self.names))

    @property
    def outlying(self) -> tuple[str, ...]:
        """Rows that are judged by their own variance."""
        return tuple(name for name, is_outlying in zip(self.names, self._is_outlying, strict=True) if is_outlying)

    @cached_property
    def _common(self) -> tuple[float, float]:
        """The common variance of all rows except outlying ones, and its degrees of freedom."""
        if len(self.names) < MIN_ROWS:
            return float(self._squares.sum()) / self.df, float(self.df)
        kept = np.where(self._is_outlying, 0.0, self._row_df)
        return float(kept @ self._own / kept.sum()), self.df * float(kept.sum() / self._row_df.sum())

    @cached_property
    def _weights(self) -> tuple[Array, Array]:
        """The weights of the common variance and of the row's own in the moderated one."""
        if len(self.names) < MIN_ROWS:
            return np.ones(len(self.names)), np.zeros(len(self.names))
        common = np.where(self._is_outlying, 0.0, PRIOR_DF / (PRIOR_DF + self._row_df))
        return common, 1 - common

    @cached_property
    def variances(self) -> dict[str, float]:
        """The moderated variance of each row."""
        common, own = self._weights
        return dict(zip(self.names, (common * self._common[0] + own * self._own).tolist(), strict=True))

    def _coefficients(self, weights: Mapping[str, float]) -> Array:
        """The contrast as weights of single scores."""
        of_rows = np.array([weights.get(name, 0.0) for name in self.names])
        padded = np.concatenate([of_rows, np.zeros(self._design.shape[1] - len(of_rows))])
        coefficients: Array = padded @ self._inverse
        return coefficients

    def estimate(self, weights: Mapping[str, float]) -> Estimate:
        """A contrast of rows; `weights` sum to zero."""
        coefficients = self._coefficients(weights)
        shares = self._of_row @ coefficients**2
        (variance, df), (common, own) = self._common, self._weights
        from_common, from_own = float(shares @ common) * variance, shares * own * self._own
        total = from_common + float(from_own.sum())
        inside = float(from_own[~self._is_outlying].sum())
        # Satterthwaite's degrees of freedom; the common variance includes the row's own.
        spread = (from_common**2 + 2 * from_common * inside) / df + float((from_own**2 / self._row_df).sum())
        is_pooled = not (self._is_outlying & (shares > 0)).any()
        found = total**2 / spread
        return Estimate(
            float(coefficients @ self._values), math.sqrt(total), min(found, df) if is_pooled else max(found, 1.0)
        )

    def covariance(self, contrasts: Sequence[Mapping[str, float]]) -> Array:
        """The covariance matrix of several contrasts."""
        rows = np.array([self._coefficients(weights) for weights in contrasts])
        variances = np.array([self.variances[name] for name in self.names]) @ self._of_row
        covariance: Array = (rows * variances) @ rows.T
        return covariance
