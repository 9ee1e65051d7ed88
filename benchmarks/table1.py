"""The training time of `make table1`, read from its results."""

from pathlib import Path

import pandas as pd

WORKERS = 2


def read_training_minutes(path: Path) -> tuple[float | None, str]:
    """Minutes of training of all rows and seeds on two cores, and where and when that was."""
    if not path.is_file():
        return None, "`make table1` has not been run here"
    frame = pd.read_csv(path)
    known = frame[frame["n"] > 0]
    minutes = float((known["n"] * known["seconds"]).sum()) / 60 / WORKERS
    devices = ", ".join(sorted({str(device) for device in known["device"]}))
    return minutes, f"from `results/laptop/table1.md`: {devices}, last run {max(known['last_run'])}"
