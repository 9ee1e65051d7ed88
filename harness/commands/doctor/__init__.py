"""`harness doctor`: checks of the installation, the machine, the store and the data."""

from harness.commands.doctor.session import describe_findings, examine

__all__ = ["describe_findings", "examine"]
