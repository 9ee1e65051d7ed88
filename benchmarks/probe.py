"""Runs a case once in a process of its own, to measure its memory and to see whether it runs at all."""

import ctypes
import resource
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.case import Case, Setting, Workload
from benchmarks.result import Probe
from harness.engines.engine import Died, Job, Returned, TimedOut
from harness.engines.local import LocalEngine

PRELOAD = ("benchmarks.catalogue", "torch.utils.benchmark")
TIME_LIMIT_SECONDS = 120.0
REFUSALS = (ImportError, RuntimeError, ValueError)
"""What a case raises that cannot be built or run here."""

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def probe_cases(cases: Iterable[Case], setting: Setting) -> Generator[tuple[str, Probe | str], None, None]:
    """Each case's id with what was found, or with the reason why it does not run."""
    engine = LocalEngine(workers=1, preload=PRELOAD)
    jobs = (Job(case.id, probe_case, (case, setting), TIME_LIMIT_SECONDS) for case in cases)
    with closing(engine.execute(jobs)) as events:
        for event in events:
            if isinstance(event, Returned | Died | TimedOut):
                yield event.name, _to_finding(event)


def _to_finding(outcome: Returned | Died | TimedOut) -> Probe | str:
    match outcome:
        case Returned(value=value):
            return value  # type: ignore[no-any-return]
        case TimedOut():
            return f"not done within {TIME_LIMIT_SECONDS:.0f} s"
        case Died(exit_code=code, output=output):
            last = output.strip().splitlines()[-1:] or [f"exit code {code}"]
            return f"its process died: {last[0]}"


def probe_case(_report: Callable[[object], None], case: Case, setting: Setting) -> Probe | str:
    """Run a small one first, so that what is loaded once is not counted, then the case itself."""
    try:
        _run(case.to_single_image().build(case.to_single_image(), setting))
        return _measure(case.build(case, setting), setting)
    except REFUSALS as error:
        return to_reason(error)


def to_reason(error: BaseException) -> str:
    """The first line of an error's message."""
    lines = str(error).strip().splitlines()
    return f"not supported: {lines[0]}" if lines else f"not supported: {type(error).__name__}"


def _run(workload: Workload) -> None:
    with workload.context():
        if workload.train is not None:
            workload.train()
        else:
            run_forward(workload)


@torch.no_grad()
def run_forward(workload: Workload) -> Tensor:
    """As in inference: nothing is kept."""
    return workload.forward()


def _measure(workload: Workload, setting: Setting) -> Probe:
    start = time.perf_counter()
    peak = _measure_peak(lambda: _run(workload), setting.device)
    seconds = time.perf_counter() - start
    saved, beyond, outputs = _measure_saved(workload)
    return Probe(
        saved=saved,
        saved_beyond_inputs=beyond,
        peak_growth=peak,
        inputs=sum(leaf.nbytes for leaf in workload.leaves),
        outputs=outputs,
        multiply_adds=workload.multiply_adds,
        trains=workload.train is not None,
        seconds=seconds,
        note=workload.note,
    )


def _measure_saved(workload: Workload) -> tuple[int, int, int]:
    """What the forward pass keeps, what of it is no input, and the size of the output."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with workload.context():
        if workload.train is None:
            return 0, 0, run_forward(workload).nbytes
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            output = workload.forward()
    given = {leaf.untyped_storage().data_ptr() for leaf in workload.leaves}
    sizes = {pointer: storage.nbytes() for pointer, storage in kept.items()}
    beyond = sum(size for pointer, size in sizes.items() if pointer not in given)
    return sum(sizes.values()), beyond, output.nbytes


def _measure_peak(run: Callable[[], None], device: str) -> int:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    _return_freed_memory()
    before = _read_status("VmRSS")
    reset = _reset_peak()
    run()
    peak = _read_status("VmHWM") if reset else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return max(0, peak - before)


def _return_freed_memory() -> None:
    """Hand back what the allocator keeps of earlier runs, where it is glibc's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _reset_peak() -> bool:
    """Start the peak of the resident memory anew, where the kernel lets us."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _read_status(name: str) -> int:
    """A size of this process in bytes; the peak so far where there is no such file."""
    if not _STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(_STATUS.read_text().split(f"{name}:")[1].split()[0]) * 1024
