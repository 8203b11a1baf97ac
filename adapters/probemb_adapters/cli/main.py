"""Instances in point clouds and images, from files to files.

probemb train labelled/ --output run

probemb predict run scans/ --output found

probemb evaluate run labelled/

probemb check labelled/
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, TextIO

from probemb_adapters.files import missing_extra, print_any_name


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning of the user's files is one line, too; those of libraries about themselves are none of the user's."""
    if issubclass(category, UserWarning):
        sys.stderr.write(f"probemb: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error of the user's files is one line, not a traceback.

    What computes is imported by the command that needs it: help comes without torch.
    """
    try:
        from tyro import cli
        from tyro.conf import subcommand

        from probemb_adapters.cli.check import Check
        from probemb_adapters.cli.evaluate import Evaluate
        from probemb_adapters.cli.predict import Predict
        from probemb_adapters.cli.train import Train
    except ImportError as error:
        raise SystemExit(f"probemb: {missing_extra('the command needs more', 'cli', error)}") from error

    print_any_name()
    commands: Any = (
        Annotated[Train, subcommand("train")]
        | Annotated[Predict, subcommand("predict")]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Check, subcommand("check")]
    )
    command = cli(commands, prog="probemb", description=__doc__, args=arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show
            command.run()
    except (OSError, ValueError, ImportError, FloatingPointError) as error:
        raise SystemExit(f"probemb: {error}") from error
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        way = "train with a smaller --batch-size or fewer --points, predict with --accelerator cpu"
        raise SystemExit(f"probemb: {way} ({str(error).partition('. ')[0]})") from error
    except KeyboardInterrupt as error:
        raise SystemExit("\nprobemb: stopped") from error
