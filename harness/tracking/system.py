"""System metrics of the machine while a run is open, measured by MLflow."""

import logging

SAMPLING_SECONDS = 5
"""Unless MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says another time."""

PREFIX = "system/"
"""Of the metrics that this writes; they are of the machine with all that runs on it, and in no record."""


class SystemMonitor:
    """A thread of this process that writes to a run until `finish`."""

    def __init__(self, run_id: str, uri: str) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)  # it tells of each start and end
        self.run_id = run_id
        self._monitor = SystemMetricsMonitor(run_id, sampling_interval=SAMPLING_SECONDS, tracking_uri=uri)
        self._monitor.start()

    def finish(self) -> None:
        """Write what is measured and end the thread."""
        self._monitor.finish()
