"""`harness doctor`: checks the installation and says what to do."""

import argparse

from harness.cli.options import add_data, add_json, add_store, find_store, print_json
from harness.cli.verb import FAILED, echo

HELP = "versions, device, kernels, disk, store, data: what is wrong and what to do"
EXAMPLE = "harness doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a store and the folder of images."""
    add_data(parser)
    add_store(parser)
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    """Print one line per check; 1 if there is a problem."""
    from harness.commands.doctor import describe_findings, examine

    findings = list(examine(find_store(options), data_dir=options.data))
    is_well = all(found.level != "problem" for found in findings)
    if options.json:
        print_json({"ok": is_well, "findings": findings})
    else:
        echo(describe_findings(findings))
    return 0 if is_well else FAILED
