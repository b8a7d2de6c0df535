"""Opens a page in the browser on which a trained model is played: the command.

python -m technogen_jax.app
python -m technogen_jax.app --workdir runs/technogan
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

from technogen_jax.common import command_line
from technogen_jax.common.command_line import expand_path, option, parse_step

_DESCRIPTION = """\
Opens a page in the browser on which trained models are played, and running trainings are watched.
Without --workdir it plays the model that comes with TechnoGen.
Needs: pip install -r requirements-app.txt. Ctrl-C ends it."""

_EXAMPLES = """\
examples:
  the model that comes with TechnoGen:
    python -m technogen_jax.app
  runs of your own, also while they train:
    python -m technogen_jax.app --workdir runs/technogan runs/other
  for a phone in the same network, at http://THIS-MACHINE:7860 (whoever reaches that address can use it):
    python -m technogen_jax.app --host 0.0.0.0
  in a notebook:
    from technogen_jax.app import page
    page.launch("runs/technogan")"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(command_line.Options):
    """The options of the command."""

    workdir: list[str] | None = option(
        None,
        "folders given to technogen_jax.train, or files of technogen_jax.export (default: the model that comes with TechnoGen)",
        metavar="DIR",
        convert=expand_path,
        nargs="+",
    )
    step: int | str = option(
        "latest", "checkpoint: latest, best or a step that all of them have", metavar="STEP", convert=parse_step
    )
    host: str = option("127.0.0.1", "address to listen on; the default is this machine alone", metavar="ADDRESS")
    port: int | None = option(
        None, "port to listen on (default: the first free one from 7860)", metavar="N", convert=int, least=1, most=65535
    )
    name: list[str] | None = option(
        None,
        "other host names under which the page is reached, as behind a proxy",
        metavar="NAME",
        convert=str,
        nargs="+",
    )


def play(options: Options, say: Callable[[str], None]) -> None:
    """Serves the page until Ctrl-C or SIGTERM."""
    from technogen_jax.app import page

    names = options.name or ()
    served = page.launch(
        *(options.workdir or ()), step=options.step, host=options.host, port=options.port, name=names, say=say
    )
    try:
        say(f"TechnoGen plays at {served.url} (Ctrl-C ends it)")
        served.wait()
    finally:
        served.close()


COMMAND = command_line.Command(
    "technogen_jax.app",
    Options,
    play,
    _DESCRIPTION,
    _EXAMPLES,
    json=False,
    serves=True,
    requirements="requirements-app.txt",
)
parse_options, main = COMMAND.parse, COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
