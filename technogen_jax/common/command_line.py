"""What the commands of this package share: options in a dataclass, one line for every error, a status for every end."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any


class CommandError(Exception):
    """Why a command stops, in one line."""


class OptionError(CommandError):
    """An option that cannot work."""


def cpu_count() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def option(default: Any, metavar: str, text: str, convert: Callable | None = None) -> Any:
    """A field of an options dataclass that `parse` makes an option of.

    Args:
        default: `dataclasses.MISSING` where it must be given; a bool becomes `--name` and `--no-name`.
        metavar: what stands for its value in the help.
        text: its help.
        convert: from a word of the command line; else the default's type.
    """
    metadata = {"metavar": metavar, "help": text, "type": convert or type(default)}
    return dataclasses.field(default=default, metadata=metadata)


def numbers(text: str) -> tuple[float, ...]:
    """For `convert`: "1,3" -> (1.0, 3.0)."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas between, got {text}") from None


def option_text(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(option_text, value))
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def check(options: Any, name: str, ok: bool, expected: str) -> None:
    """Raises an OptionError that says what was expected and what came, unless all is well."""
    if not ok:
        raise OptionError(f"--{name}: expected {expected}, got {option_text(getattr(options, name))}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        """Says it in one line."""
        self.exit(2, f"{self.prog.rpartition('.')[2]}: {message}\n")


def parse(options: type, module: str, description: str, epilog: str, argv: Sequence[str] | None) -> Any:
    """The options of a command line; exits with 2 and one line where they cannot work.

    Args:
        options: a dataclass of fields made by `option`, which raises OptionError on construction.
        module: of the command.
        description: what it does.
        epilog: examples.
        argv: the words after the command's name, `sys.argv`'s if None.
    """
    parser = _Parser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for field in dataclasses.fields(options):
        how = dict(field.metadata)
        if how["type"] is bool:
            how = {"help": how["help"], "action": argparse.BooleanOptionalAction}
        parser.add_argument(f"--{field.name}", required=field.default is dataclasses.MISSING, **how)
    try:
        return options(**vars(parser.parse_args(argv)))
    except OptionError as error:
        parser.error(str(error))


def run(name: str, function: Callable[[Any], Any], options: Any) -> int:
    """Runs a command's function; its exit status: 0 done, 1 failed, 2 an option that cannot work, 130 stopped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a track's name
    try:
        function(options)
    except CommandError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except KeyboardInterrupt:
        print(f"\n{name}: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0
