"""Opens a page on which a trained model is played.

python -m technogen_jax.app --workdir runs/technogan
python -m technogen_jax.app --workdir technogen_jax/pretrained/technogan.npz runs/technogan
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 and one line where they cannot work."""
    parser = argparse.ArgumentParser(
        prog="python -m technogen_jax.app",
        description="Opens a page on which a trained model is played, and a running training is watched.\n"
        "Needs: pip install -r requirements-app.txt",
        epilog="""examples:
  the model that comes with it, and a run of your own:
    python -m technogen_jax.app --workdir technogen_jax/pretrained/technogan.npz runs/technogan
  for a phone in the same network, at http://THIS-MACHINE:7860 (whoever reaches that address can use it):
    python -m technogen_jax.app --workdir runs/technogan --host 0.0.0.0
  in a notebook:
    from technogen_jax.app import page
    page.launch("runs/technogan")""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--workdir",
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders given to technogen_jax.train, or files of technogen_jax.export",
    )
    add("--step", default="latest", metavar="STEP", help="latest, best, or a step that all of them have (latest)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (127.0.0.1: this machine alone)")
    add("--port", type=int, metavar="N", help="to listen on (the first free one from 7860 on)")
    add("--share", action="store_true", help="a public address too, through Gradio's servers")
    options = parser.parse_args(argv)
    if not options.step.isdigit() and options.step not in ("latest", "best"):
        parser.error(f"--step: expected latest, best or a number, got {options.step}")
    if options.port is not None and not 1 <= options.port <= 65535:
        parser.error(f"--port: expected 1 to 65535, got {options.port}")
    options.step = int(options.step) if options.step.isdigit() else options.step
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 0 ended by Ctrl-C, 1 failed, 2 an option that cannot work."""
    options = parse_options(argv)
    try:
        from technogen_jax.app import page
    except ModuleNotFoundError as error:
        print(f"app: {error}; pip install -r requirements-app.txt", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an orderly end: what was made to be fetched is deleted
    try:
        page.launch(
            *options.workdir,
            step=options.step,
            host=options.host,
            port=options.port,
            share=options.share,
            block=True,
        )
    except (ValueError, OSError) as error:
        print(f"app: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
