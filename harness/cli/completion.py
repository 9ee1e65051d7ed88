"""`harness completion`: prints a script for shell completion of verbs, options and names."""

import argparse

HELP = "a script for bash or zsh that completes verbs, options and names"
EXAMPLE = "harness completion bash"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shell."""
    parser.add_argument("shell", choices=("bash", "zsh"), help='for this session: eval "$(harness completion bash)"')


def execute(options: argparse.Namespace) -> int:
    """Print the script."""
    from harness.cli import make_parser
    from harness.commands.completion import write_completion

    print(write_completion(make_parser(), options.shell))
    return 0
