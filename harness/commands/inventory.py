"""`harness data`: the datasets that are available, and where."""

from collections.abc import Iterable

from harness.data import Description
from harness.names import to_printable


def describe_inventory(descriptions: Iterable[Description]) -> str:
    """One paragraph per dataset, as text for a terminal."""
    return to_printable("\n\n".join(_to_paragraph(description) for description in descriptions))


def _to_paragraph(found: Description) -> str:
    lines = [f"{found.name}: {found.state}"]
    if found.location:
        lines.append(f"    where   {found.location}")
    if found.usable:
        lines.append(f"    images  {found.num_train:,} for training and validation, {found.num_test:,} for the test")
        lines.append(f"    size    {found.num_bytes / 1e6:,.1f} MB")
        lines.append(f"    digest  {found.digest}")
    return "\n".join(lines)
