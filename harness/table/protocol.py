"""The protocol that an experiment fixes before its first run, and changes of it after data had been seen."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from harness.record import Record
from harness.spec import ExperimentSpec
from harness.tasks import find_margin, find_measure

PROTOCOL = "protocol"
"""The entry of a run's provenance with the protocol of the experiment that trained it, as JSON."""

CLAIMS = "claims"
"""The entry of the protocol with the digest of all claims."""


SEEDS, UNTIL = "seeds", "seeds until resolved, at most"


def to_protocol(spec: ExperimentSpec) -> str:
    """Deciding measure, margin, claims, seeds and the rule that adds seeds, as JSON."""
    return json.dumps({"experiment": spec.name, "recipe": spec.recipe.name, **_list_entries(spec)}, sort_keys=True)


def find_changes(spec: ExperimentSpec, records: Iterable[Record]) -> tuple[str, ...]:
    """The differences to the protocol of the first of these runs: `margin 0.2, now 0.5`.

    Runs that another experiment has trained are ignored, and so are runs of earlier versions without a protocol.
    """
    first, now = _find_first(spec, records), _list_entries(spec)
    if spec.until_resolved is not None:  # the looks decide the number of seeds
        now = {name: value for name, value in now.items() if name != SEEDS and (name != UNTIL or first.get(UNTIL))}
    changed = [name for name in now if name in first and first[name] != now[name]]
    return tuple(name if name == CLAIMS else f"{name} {_show(first[name])}, now {_show(now[name])}" for name in changed)


def _find_first(spec: ExperimentSpec, records: Iterable[Record]) -> Mapping[str, Any]:
    """The protocol of the first runs that the experiment has trained under its recipe; empty if unknown."""
    found: dict[str, Any] = {}
    for record in sorted(records, key=lambda record: record.end_time):
        stated: dict[str, Any] = json.loads(record.provenance.get(PROTOCOL, "{}"))
        if (stated.get("experiment"), stated.get("recipe")) == (spec.name, spec.recipe.name):
            found = {**stated, **found}
    return found


def _list_entries(spec: ExperimentSpec) -> dict[str, Any]:
    claims = json.dumps([claim.model_dump(mode="json") for claim in spec.claims], sort_keys=True)
    entries = {
        "measure": find_measure(spec).name,
        "margin": find_margin(spec),
        CLAIMS: hashlib.sha256(claims.encode()).hexdigest()[:16],
        UNTIL: spec.until_resolved,
    }
    is_trial = any(pair.startswith(f"{SEEDS}=") for pair in spec.overrides)  # the file itself is not changed by --seeds
    return entries if is_trial else {**entries, SEEDS: spec.seeds}


def _show(value: object) -> str:
    return "none" if value is None else str(value)
