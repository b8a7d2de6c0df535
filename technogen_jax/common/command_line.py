"""What all commands have in common: declared options, `--help` with examples, errors in one line, an exit status for every end.

A command is a module with a dataclass of options, a function that does the work, and a `Command` of both:

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Options(command_line.Options):
        workdir: str = option(REQUIRED, "folder of the run", metavar="DIR", convert=expand_path)
        n: int = option(8, "number of clips", metavar="N", least=1)

    def sample(options, say):
        say("done")  # for people
        return {"files": [...]}  # for scripts, with --json

    COMMAND = Command("technogen_jax.sample", Options, sample, "What it does.", "examples: ...")

This module does not import JAX. Commands import what is heavy inside their function, so that `--help` answers at once, and
so that Ctrl-C during an import is handled like Ctrl-C during the work.

Exit status: 0 done; 1 failed; 2 an option that cannot work; 130 stopped by Ctrl-C; 128 + N ended by signal N.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import functools
import json
import math
import os
import pathlib
import re
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from technogen_jax.common import cache_folders

REQUIRED = dataclasses.MISSING
SEEDS = 2**32 - 1  # the largest seed that JAX and numpy both take
MOST_WORKERS = 1024  # processes of a command (chosen)
MOST_BARS = 100_000  # of a track: two days (chosen)
_HELP_COLUMNS = (60, 100)  # a narrower terminal breaks lines itself; wider lines are hard to read
_ERROR_LINES = 2  # shown of an error that a library raised
_MOST_DIGITS = 18  # of a step
_MOST_LETTERS = 80  # shown of a value that cannot work


class CommandError(Exception):
    """Why a command fails, as a sentence for people.

    Args:
        message: the sentence.
        facts: what `--json` prints all the same.
    """

    def __init__(self, message: str, facts: Mapping[str, Any] | None = None):
        super().__init__(message)
        self.facts = facts


class OptionError(CommandError):
    """An option with a value that cannot work; the message names the option."""


class _Ended(BaseException):
    """A signal asks the process to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


# ------------------------------------------------------------------------------------------------------------ options


def option(
    default: Any,
    help: str,
    *,
    metavar: str = "X",
    convert: Callable[[str], Any] | None = None,
    choices: Sequence[str] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    nargs: int | str | None = None,
    name: str | None = None,
) -> Any:
    """Returns a field of an options dataclass, which `Command` makes an option of the command line.

    Args:
        default: its value if it is not given; `REQUIRED` if it must be given. False makes `--name`, True `--name` and `--no-name`.
        help: what it means; the default is added.
        metavar: what stands for the value in the help.
        convert: makes the value from a word; otherwise the type of the default does.
        choices: the values it may have.
        least: the smallest value it may have.
        most: the largest value it may have.
        above: the value must be larger than this.
        nargs: how many words it takes, as in `argparse`.
        name: on the command line, where the field's name is a keyword of Python.
    """
    metadata = dict(
        help=help,
        metavar=metavar,
        convert=convert or type(default),
        choices=choices,
        least=least,
        most=most,
        above=above,
    )
    return dataclasses.field(default=default, metadata=metadata | {"nargs": nargs, "name": name})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a command, checked when they are constructed.

    Raises:
        OptionError: a value that is not one of the choices or is out of range.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, rule = getattr(self, field.name), field.metadata
            if value is None or not rule:
                continue
            if rule["choices"]:
                self.check(field.name, value in rule["choices"], f"one of {', '.join(rule['choices'])}")
            if isinstance(value, (int, float)):
                low, high, above = rule["least"], rule["most"], rule["above"]
                inside = math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
                self.check(field.name, inside and (above is None or value > above), _range_text(low, high, above))

    def check(self, name: str, ok: bool, expected: str) -> None:
        """Raises an OptionError that says what was expected and what was given, unless `ok`."""
        if not ok:
            raise OptionError(f"--{name}: expected {expected}, got {_shortened(option_text(getattr(self, name)))}")


def _range_text(least: float | None, most: float | None, above: float | None) -> str:
    """Returns a range in words; every numeric option has a largest value."""
    if above is not None:
        return f"more than {above:g}" + ("" if most is None else f" and at most {most}")
    if least is None:
        return "a number" if most is None else f"at most {most}"
    return f"at least {least}" if most is None else f"{least} to {most}"


def expand_path(text: str) -> str:
    """For `convert`: a path, in which ~ is the user's home folder."""
    return os.path.expanduser(text)


def parse_numbers(text: str) -> tuple[float, ...]:
    """For `convert`: "1,3" -> (1.0, 3.0)."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas between, got {_shortened(text)}") from None


def parse_words(text: str) -> tuple[str, ...]:
    """For `convert`: "a, b" -> ("a", "b")."""
    return tuple(word.strip() for word in text.split(","))


def parse_step(text: str) -> int | str:
    """For `convert`: "latest", "best" or the number of a step that has a checkpoint."""
    if text.isdecimal() and len(text) <= _MOST_DIGITS:
        return int(text)
    if text not in ("latest", "best"):
        raise argparse.ArgumentTypeError(f"expected latest, best or a number, got {_shortened(text)}")
    return text


def option_text(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(option_text, value))
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}..."


def cpu_count() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        """Prints the error in one line, without the usage."""
        message = message.replace("argument --", "--", 1) if message.startswith("argument --") else message
        self.exit(2, f"{re.split('[. ]', self.prog)[-1]}: {message}\n")


# ------------------------------------------------------------------------------------------------------------ commands


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: how it is parsed, what it does, and what its end looks like.

    Args:
        module: what follows `python -m`.
        options: a subclass of `Options`.
        function: (options, say) -> what `--json` prints. `say` prints a line for people.
        description: what it does, the first part of `--help`.
        examples: the last part of `--help`.
        json: whether it has `--json`.
        resumes: whether the same command resumes the work after it was stopped.
        serves: whether it runs until Ctrl-C or a signal, which then is not a failure.
        requirements: the file that lists the packages which only this command needs.
        less_memory: what to do if memory is not enough: a sentence, or a function that makes it of the options.
        rest: the field that takes, as a tuple, the words that are no option; "": such words are an error.
    """

    module: str
    options: type[Options]
    function: Callable[[Any, Callable[[str], None]], Mapping[str, Any] | None]
    description: str
    examples: str
    json: bool = True
    resumes: bool = False
    serves: bool = False
    requirements: str = "requirements.txt"
    less_memory: str | Callable[[Any], str] = ""
    rest: str = ""

    @property
    def name(self) -> str:
        """The last part of the module's name."""
        return self.module.rpartition(".")[2]

    def parse(self, argv: Sequence[str] | None = None) -> Any:
        """The options of a command line, `sys.argv`'s if None; exits with 2 and one line where they cannot work."""
        return self._parse(argv)[0]

    def main(self, argv: Sequence[str] | None = None, program: str | None = None) -> int:
        """Runs the command; returns its exit status.

        Args:
            argv: the words of the command line after the program; None: those of `sys.argv`.
            program: the program in the help; None: `python -m MODULE`.
        """
        with robust_output(), _signals_raise():
            options, debug, as_json = self._parse(argv, program)
            say = functools.partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
            try:
                cache_folders.use_temporary_folders()
                facts = self.function(options, say)
                if as_json:
                    print(json.dumps(facts, allow_nan=False))
                sys.stdout.flush()
                return 0
            except (KeyboardInterrupt, _Ended) as error:
                number = error.number if isinstance(error, _Ended) else signal.SIGINT
                end = "; the same command resumes" if self.resumes else ""
                print(f"\n{self.name}: stopped by {_signal_text(number)}{end}", file=sys.stderr)
                return 0 if self.serves else 128 + number
            except Exception as error:
                message = self._message(error, options)
                if debug or message is None:
                    raise
                if as_json and isinstance(error, CommandError) and error.facts is not None:
                    print(json.dumps(error.facts, allow_nan=False))
                print(f"{self.name}: {message}", file=sys.stderr)
                return 2 if isinstance(error, OptionError) else 1

    def _parse(self, argv: Sequence[str] | None, program: str | None = None) -> tuple[Any, bool, bool]:
        """(options, whether to show tracebacks, whether to print JSON)."""
        parser = self._parser(program)
        known, rest = parser.parse_known_args(argv)
        given = vars(known)
        debug, as_json = given.pop("debug", False), given.pop("json", False)
        if rest and not self.rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        try:
            return self.options(**given, **({self.rest: tuple(rest)} if self.rest else {})), debug, as_json
        except OptionError as error:
            parser.error(str(error))

    def _parser(self, program: str | None = None) -> argparse.ArgumentParser:
        least, most = _HELP_COLUMNS
        width = min(max(shutil.get_terminal_size().columns - 2, least), most)
        texts = self.description, self.examples
        if program:  # how this program is called in the examples
            texts = (re.sub(r"python -m (?:technogen_jax|data_prep)\.", "technogen ", text) for text in texts)
        description, examples = texts
        parser = _Parser(
            prog=program or f"python -m {self.module}",
            description=description,
            epilog=examples,
            formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, width=width),
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        self.add_options(parser)
        return parser

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options of the command to a parser."""
        for field in dataclasses.fields(self.options):
            if field.name != self.rest:
                _add_option(parser, field)
        if self.json:
            parser.add_argument("--json", action="store_true", help="print one line of JSON for scripts")
        parser.add_argument("--debug", action="store_true", help="if it fails, show where in the code")

    def _message(self, error: Exception, options: Any) -> str | None:
        """Returns what `explain` does, with what is special in this command."""
        text = explain(error)
        if _is_out_of_memory(error):
            advice = self.less_memory(options) if callable(self.less_memory) else self.less_memory
            return f"{text}\n{advice}".strip()
        if isinstance(error, ImportError) and text:
            here = (pathlib.Path(__file__).parents[2] / self.requirements).exists()  # a checkout
            return f"{text}; install it with: pip install {f'-r {self.requirements}' if here else error.name}"
        return text


def explain(error: Exception) -> str | None:
    """Returns one or two lines on an error that a user can cause or mend; None for any other, which is a bug."""
    if isinstance(error, CommandError):
        return str(error)
    text = "\n".join(str(error).strip().splitlines()[:_ERROR_LINES])
    of_jax = isinstance(error, RuntimeError) and type(error).__module__.startswith("jax")
    if _is_out_of_memory(error):
        return f"not enough memory{f': {text.splitlines()[0]}' if text else ''}"
    if isinstance(error, ImportError):
        return None if str(error.name).startswith(("technogen_jax.", "data_prep.")) else text
    if _lacks_device(error):
        why = re.sub(r"\s*\(set JAX_PLATFORMS=.*", "", text)  # JAX's own advice
        given = os.environ.get("JAX_PLATFORMS")
        what = f"JAX_PLATFORMS={given}: JAX finds no such device" if given else "JAX finds no device"
        return f"{what}{f' ({why})' if why else ''}; JAX_PLATFORMS=cpu works everywhere"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return text or type(error).__name__ if isinstance(error, (ValueError, OSError, OverflowError)) or of_jax else None


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory is not enough: for Python, numpy, a C++ library, a device or the system."""
    text = str(error)
    full = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    return full or any(word in text for word in ("RESOURCE_EXHAUSTED", "bad_alloc", "can't start new thread"))


def _lacks_device(error: Exception) -> bool:
    """Whether JAX lacks a device: with JAX_PLATFORMS=cuda and no GPU it raises an AssertionError without a message."""
    if isinstance(error, RuntimeError):
        return "Unable to initialize backend" in str(error)
    if not isinstance(error, AssertionError) or not os.environ.get("JAX_PLATFORMS"):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"].startswith("jax.")


def _reader(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Returns `convert`; if it makes a number, its error says what was expected, and is short."""
    if convert not in (int, float):
        return convert

    def read(text: str) -> float:
        try:
            return convert(text)
        except ValueError:  # also for an int of more than 4300 digits
            expected = "a whole number" if convert is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {expected}, got {_shortened(text)}") from None

    return read


def _add_option(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
    """Adds the option of a field that `option` made."""
    given, default = field.metadata, field.default
    text = given["help"].replace("%", "%%")
    name = f"--{given['name'] or field.name}"
    if isinstance(default, bool):
        action = argparse.BooleanOptionalAction if default else "store_true"
        parser.add_argument(name, dest=field.name, action=action, help=text)
        return
    if default is not REQUIRED and default is not None:
        text += f" (default: {option_text(default)})"
    parser.add_argument(
        name,
        dest=field.name,
        required=default is REQUIRED,
        type=_reader(given["convert"]),
        metavar=given["metavar"],
        nargs=given["nargs"],
        help=text,
    )


# ------------------------------------------------------------------------------------------------- output and signals


class _Output:
    """A text stream that drops what nobody reads any more: a closed pipe or terminal does not end the work."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._dropping():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        """After an error the stream is closed, or Python would fail once more when it closes the stream at its end."""
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            if error.errno not in (errno.EPIPE, errno.EIO):  # a full disk is an error that counts
                raise


@contextlib.contextmanager
def robust_output() -> Iterator[None]:
    """Standard output and error take every character, and may be closed."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        # A closed 0, 1 or 2 would become the handle of the next file, into which libraries then print; in workers too.
        os.set_inheritable(handle, True)
    os.close(handle)
    saved = sys.stdout, sys.stderr
    streams = []
    for stream in saved:
        stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115  it lives as long as the process
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        streams.append(_Output(stream))
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = (new._stream if old is None else old for old, new in zip(saved, streams, strict=True))


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP raise, as Ctrl-C does, so that temporary files are deleted and workers ended."""

    def end(number, _):
        raise _Ended(number)

    saved = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # not what nohup ignores
                saved[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


def _signal_text(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
