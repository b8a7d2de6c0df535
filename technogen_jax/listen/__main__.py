"""Runs a blind listening test in the browser, and reports its answers: the command.

python -m technogen_jax.listen --real loops/real --generated loops/generated --output test
python -m technogen_jax.listen --report test
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable

from technogen_jax.common import command_line
from technogen_jax.common.command_line import SEEDS, expand_path, option

_DESCRIPTION = """\
A blind listening test in the browser: which of two loops was made by a human? Use loops of one length that begin
on the bar; each file counts as a track. Needs: pip install -r requirements-app.txt (--report does not). Ctrl-C ends it."""

_EXAMPLES = """\
examples:
  a test for twenty listeners, with loops of one bar; the same command resumes it after a break:
    python -m technogen_jax.listen --real loops/real --generated loops/generated --bad loops/early --beats 4 --output test
  on a network (whoever has a link can use it):
    python -m technogen_jax.listen --real loops/real --generated loops/generated --output test --host 0.0.0.0
  what the answers mean:
    python -m technogen_jax.listen --report test"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(command_line.Options):
    """The options of the command."""

    real: str | None = option(
        None,
        "loops that people made: audio files, or a prepared dataset (its test tracks)",
        metavar="DIR",
        convert=expand_path,
    )
    generated: str | None = option(None, "loops that a model made", metavar="DIR", convert=expand_path)
    output: str | None = option(None, "folder of the test and its answers", metavar="DIR", convert=expand_path)
    bad: str | None = option(
        None,
        "loops of a system that is known to be bad, such as an early checkpoint",
        metavar="DIR",
        convert=expand_path,
    )
    listeners: int = option(20, "how many are planned; each gets a link", metavar="N", least=1, most=1000)
    pairs: int | None = option(
        None,
        "pairs in question for each listener (default: as many as the loops allow, at most 12)",
        metavar="N",
        convert=int,
        least=1,
        most=50,
    )
    singles: int | None = option(
        None,
        "single clips in question for each listener (default: a third of the pairs)",
        metavar="N",
        convert=int,
        least=0,
        most=50,
    )
    beats: int | None = option(
        None,
        "beats in a loop (default: the dataset's, or from the tempo)",
        metavar="N",
        convert=int,
        least=1,
        most=1000,
    )
    seconds: float | None = option(
        None,
        "length of a clip, 0.5 to 12 (default: the shortest file)",
        metavar="S",
        convert=float,
        least=0.5,
        most=12.0,
    )
    sample_rate: int | None = option(
        None,
        "rate that files are resampled to (default: theirs, if it is one)",
        metavar="HZ",
        convert=int,
        least=5000,
        most=192_000,
    )
    track_pattern: str | None = option(
        None,
        "regular expression; its first group, found in a file's path, is the track (default: each file is one)",
        metavar="REGEX",
        convert=str,
    )
    delta: float = option(0.1, "an accuracy this near to one half counts as chance", metavar="X", least=0.01, most=0.4)
    seed: int = option(0, "seed of tracks, pairs and orders", metavar="N", least=0, most=SEEDS)
    host: str = option("127.0.0.1", "address to listen on; the default is this machine alone", metavar="ADDRESS")
    port: int = option(7870, "port to listen on; 0: a free one", metavar="N", least=0, most=65535)
    name: list[str] | None = option(
        None,
        "other host names under which listeners reach the test, as behind a proxy",
        metavar="NAME",
        convert=str,
        nargs="+",
    )
    report: str | None = option(
        None,
        "report the answers of a test; writes report.json and report.html there",
        metavar="DIR",
        convert=expand_path,
    )
    final: bool = option(False, "with --report: the test is over, even if not all listeners have finished")

    def __post_init__(self):
        super().__post_init__()
        if not self.report and not (self.real and self.generated and self.output):
            raise command_line.OptionError("expected --real DIR, --generated DIR and --output DIR; or --report DIR")


def listen(options: Options, say: Callable[[str], None]) -> None:
    """Serves the test, or reports its answers."""
    from technogen_jax.listen import listening_test

    if options.report:
        say(listening_test.write_report(options.report, options.final))
        return
    plan = listening_test.Plan(**{name: getattr(options, name) for name in listening_test.Plan._fields})
    listening_test.serve(pathlib.Path(options.output), plan, options.host, options.port, say, options.name or ())


COMMAND = command_line.Command(
    "technogen_jax.listen",
    Options,
    listen,
    _DESCRIPTION,
    _EXAMPLES,
    json=False,
    serves=True,
    requirements="requirements-app.txt",
)
parse_options, main = COMMAND.parse, COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
