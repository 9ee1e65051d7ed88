"""`harness rehearse`: the report on the rehearsals of a plan."""

from collections import Counter
from typing import Any

from tabulate import tabulate

from harness.commands.estimate import to_duration
from harness.execution import Event, Forecast, RehearsalEnded, Rehearsed
from harness.execution.ledger import Entry
from harness.plan import Plan
from harness.record import RunStatus
from harness.text import NOTHING
from harness.trace import Rehearsal


class RehearsalReport:
    """Collects the events of `harness.execution.rehearse_plan`.

    Attributes:
        failed: rehearsals that failed by a bug.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._made: dict[str, Rehearsal] = {}
        self._entries: tuple[Entry, ...] = ()
        self._forecast: Forecast | None = None

    def add(self, event: Event) -> None:
        """Add an event."""
        match event:
            case RehearsalEnded():
                self._made[event.rehearsal.cell_id] = event.rehearsal
            case Rehearsed():
                self._entries = event.entries
                self._made = {**event.rehearsals, **self._made}
            case Forecast():
                self._forecast = event

    @property
    def failed(self) -> list[Rehearsal]:
        """See the class."""
        return [made for made in self._made.values() if made.status == RunStatus.FAILED]

    def describe(self) -> str:
        """One line per row, as text for a terminal."""
        lines = [self._to_line(line) for line in self._list_rows()]
        aligned = ("left", "left", "right", "right", "left")
        return tabulate(lines, ["row", "rehearsal", "one run", "GB", "runs"], colalign=aligned, disable_numparse=True)

    def to_plain(self) -> dict[str, Any]:
        """The same as plain values, for `--json`."""
        forecast = None if self._forecast is None else vars(self._forecast)
        return {"experiment": self._plan.spec.name, "rows": self._list_rows(), "forecast": forecast}

    def _list_rows(self) -> list[dict[str, Any]]:
        names = {entry.run.row.name for entry in self._entries}
        rows = []
        for row in [row for row in self._plan.rows if row.name in names]:
            made = self._made.get(row.cell.id)
            standings = Counter(entry.standing.value for entry in self._entries if entry.run.row == row)
            rows.append(
                {
                    "row": row.name,
                    "cell_id": row.cell.id,
                    "status": None if made is None else made.status.value,
                    "detail": "" if made is None else made.detail,
                    "trace": "" if made is None else made.digest,
                    "seconds": None if made is None else made.metrics.get("seconds"),
                    "peak_memory_gb": None if made is None else made.metrics.get("peak_memory_gb"),
                    "runs": dict(standings),
                }
            )
        return rows

    def _to_line(self, row: dict[str, Any]) -> list[str]:
        outcome = "killed" if row["status"] is None else row["status"].replace("_", " ")
        seconds, memory = row["seconds"], row["peak_memory_gb"]
        return [
            row["row"],
            ": ".join(part for part in (outcome, row["detail"]) if part),
            NOTHING if seconds is None else to_duration(seconds),
            NOTHING if memory is None else f"{memory:.1f}",
            ", ".join(f"{count} {standing}" for standing, count in row["runs"].items()),
        ]
