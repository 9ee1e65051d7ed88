"""Rehearses one replicate of a cell in its own process."""

from statistics import median
from time import perf_counter
from typing import Any

from harness.costs import measure_cost
from harness.errors import Diverged
from harness.evaluate import peak_memory_gb
from harness.execution.cell import attempt
from harness.execution.context import RunContext
from harness.execution.prepared import Prepared, prepare
from harness.plan import PlannedRun
from harness.rehearsal import Trace, VisitedData, forecast_seconds, plan_visit
from harness.trace import Rehearsal


def rehearse_cell(run: PlannedRun, context: RunContext) -> Rehearsal:
    """See `harness.rehearsal`; nothing is written to the store.

    Raises:
        StoreError: the store cannot be used. Everything else becomes the rehearsal's status.
    """
    start = perf_counter()
    prepared = prepare(run, context)
    trace, metrics = dict[str, Any](), dict[str, float]()
    ended, failure = attempt(lambda: _execute(prepared, start, trace, metrics))
    metrics |= {"took": perf_counter() - start, "peak_memory_gb": peak_memory_gb(prepared.device)}
    output = "" if failure is None else failure.output
    return prepared.to_rehearsal(ended.status, detail=ended.detail, output=output, trace=trace, metrics=metrics)


def _execute(prepared: Prepared, start: float, content: dict[str, Any], metrics: dict[str, float]) -> None:
    """Fill the trace, where the rehearsal ends or diverges, and what is expected of a whole run."""
    measure_cost(prepared.cell)
    visit = plan_visit(prepared.cell)
    data = VisitedData(prepared.load_data(), visit)
    training = prepared.make_training(data, visit.epochs)
    trace, validations, ready = Trace(training, data), list[float](), perf_counter()
    try:
        validations += [epoch.metrics["val/seconds"] for epoch in trace.follow()]
    except Diverged:
        content |= trace.to_content()
        raise
    begun = perf_counter()
    tested = prepared.task.evaluate(training.evaluated_model, data.test_batches(), prepared.device)
    metrics["seconds"] = forecast_seconds(
        training,
        data,
        prepared=ready - start,
        validation=median(validations) / training.num_validated,
        test=(perf_counter() - begun) / tested.num_images,
    )
    content |= trace.to_content(tested)
