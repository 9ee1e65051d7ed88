"""`harness doctor`: what of the installation, the machine, the store and the data is wrong, and what to do."""

from harness.commands.doctor.session import describe_findings, examine

__all__ = ["describe_findings", "examine"]
