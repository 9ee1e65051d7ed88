"""The default columns and charts of MLflow's page, stored as a shared view of the experiment.

MLflow's page starts on its assistant for language models and lists runs without their parameters. A shared view states
columns and charts; MLflow reads it from the tag `mlflow.sharedViewState.<key>`.
"""

import json
from typing import Any
from urllib.parse import urlencode

VIEW = "harness"
"""The key of the shared view."""

VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"

MEASURE_TAG = "measure"
"""The tag of an experiment that names what its page shows; the default measure has none."""


def _list_columns(measure: str) -> dict[str, int]:
    """Columns and their width in pixels: all are visible in a window of 1,366."""
    return {
        "params.`row`": 130,
        "params.`seed`": 50,
        "tags.`status`": 70,
        f"metrics.`test/{measure}`": 140,
        f"metrics.`val/{measure}`": 140,
        "params.`recipe`": 80,
    }


def make_view(measure: str) -> str:
    """Runs by row, with seed, status, scores and recipe; the first charts are the scores by row.

    Calls of `harness run` are left out by the filter of the page: without it they appear above their runs.
    """
    section = {"uuid": "scores", "name": "scores", "display": True, "isReordered": True}
    columns = _list_columns(measure)
    charts = (("LINE", f"val/{measure}"), ("BAR", f"test/{measure}"))
    view = {
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": columns,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "row"}]},
        "searchFilter": "tags.kind != 'invocation'",
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,
        "compareRunSections": [section],
        "compareRunCharts": [_make_chart(kind, metric) for kind, metric in charts],
    }
    return json.dumps(view)


def _make_chart(kind: str, metric: str) -> dict[str, Any]:
    chart = {
        "uuid": metric,
        "type": kind,
        "metricSectionId": "scores",
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
        "metricKey": metric,
        "displayName": metric,
    }
    line = {"selectedMetricKeys": [metric], "xAxisKey": "step", "scaleType": "linear", "lineSmoothness": 0, "range": {}}
    return chart | (line if kind == "LINE" else {})


def to_path(experiment_id: str) -> str:
    """The path of an experiment's runs in this view, behind the address of a server."""
    query = urlencode({"workflowType": "machine_learning", "viewStateShareKey": VIEW})
    return f"#/experiments/{experiment_id}/runs?{query}"
