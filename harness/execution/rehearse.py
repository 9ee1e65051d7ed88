"""Rehearses one replicate of a cell in its own process, or in as many as its runs have."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter

from harness.costs import measure_cost
from harness.errors import Diverged
from harness.evaluate import peak_memory_gb
from harness.execution.cell import attempt
from harness.execution.context import RunContext, load_code
from harness.execution.launch import Send, launch
from harness.execution.open_run import Measured, RunMessage, Traced
from harness.execution.outcome import Outcome
from harness.execution.prepared import Prepared, prepare
from harness.plan import PlannedRun
from harness.record import RunStatus
from harness.rehearsal import Trace, VisitedData, forecast_seconds, plan_visit
from harness.trace import Rehearsal


def rehearse_cell(report: Callable[[RunMessage], None], run: PlannedRun, context: RunContext) -> Rehearsal:
    """See `harness.rehearsal`; nothing is written to the store. `report` gets warnings.

    Raises:
        StoreError: the store cannot be used. Everything else becomes the rehearsal's status.
    """
    start = perf_counter()
    prepared = prepare(run, context)
    found, metrics = [prepared.to_rehearsal(RunStatus.FAILED, trace={})], dict[str, float]()

    def keep(message: RunMessage) -> None:
        match message:
            case Traced():
                found.append(message.rehearsal)
            case Measured():
                metrics.update(message.metrics)
            case _:
                report(message)

    if prepared.ranks.world_size == 1:
        outcome = _rehearse(keep, prepared)
    else:
        outcome = launch(_rehearse_rank, (run, context), processes=prepared.ranks.world_size, report=keep)
    ended, failure = outcome.ended, outcome.failure
    metrics |= {"took": perf_counter() - start, **outcome.metrics}
    output = "" if failure is None else failure.output
    return replace(found[-1], status=ended.status, detail=ended.detail, output=output, metrics=metrics)


def _rehearse(send: Send, prepared: Prepared) -> Outcome:
    def execute() -> None:
        with prepared.ranks.joined():
            _execute(send, prepared)

    return Outcome(*attempt(execute), {"peak_memory_gb": peak_memory_gb(prepared.ranks.device)})


def _rehearse_rank(send: Send, rank: int, run: PlannedRun, context: RunContext) -> Outcome:
    load_code(send, run, context)
    return _rehearse(send, prepare(run, context, rank))


def _execute(send: Send, prepared: Prepared) -> None:
    """Send the trace, where the rehearsal ends or diverges, and what is expected of a whole run."""
    start = perf_counter()
    measure_cost(prepared.cell)
    visit = plan_visit(prepared.cell)
    data = VisitedData(prepared.load_data(), visit)
    training = prepared.make_training(data, visit.epochs)
    trace, validations, ready = Trace(training, data), list[float](), perf_counter()
    try:
        validations += [epoch.metrics["val/seconds"] for epoch in trace.follow()]
    except Diverged:
        send(Traced(prepared.to_rehearsal(RunStatus.DIVERGED, trace=trace.to_content())))
        raise
    begun = perf_counter()
    tested = prepared.task.evaluate(training.evaluated_model, data.test_batches(), prepared.ranks)
    seconds = forecast_seconds(
        training,
        data,
        prepared=ready - start,
        validation=median(validations) / training.num_validated,
        test=(perf_counter() - begun) / tested.num_images,
    )
    send(Measured({"seconds": seconds}))
    send(Traced(prepared.to_rehearsal(RunStatus.OK, trace=trace.to_content(tested))))
