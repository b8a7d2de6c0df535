"""Opens a blind listening test in the browser, and says what its answers mean.

python -m technogen_jax.listen --real loops/real --generated loops/made --output test
python -m technogen_jax.listen --report test
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import secrets
import socket
import sys
from collections.abc import Sequence

from technogen_jax.common import atomic_files
from technogen_jax.listen import answers, verdict

TEST_FILE = "test.json"  # private: the links, and the key of the sounds' addresses
SOUNDS_FILE = "sounds.npz"
REPORT_FILES = ("report.json", "report.html")
# What makes a test; the same command goes on with it, another one needs another folder.
_PLAN = ("real", "generated", "bad", "listeners", "pairs", "singles", "beats", "seconds", "sample_rate", "track_pattern", "delta", "seed")  # fmt: skip


def open_test(options: argparse.Namespace) -> tuple[dict, answers.Writer]:
    """The test of an output folder, made where there is none: (what test.json says, the answers).

    Raises:
        ValueError: sets that cannot be used, or a folder that holds another test.
    """
    from technogen_jax.listen import session, stimuli

    folder = pathlib.Path(options.output)
    asked = {name: getattr(options, name) for name in _PLAN}
    for name in ("real", "generated", "bad"):
        asked[name] = asked[name] and os.path.abspath(asked[name])
    if (folder / TEST_FILE).exists():
        test = json.loads((folder / TEST_FILE).read_text(encoding="utf-8"))
        if test["asked"] != asked:
            other = ", ".join(
                f"--{name} was {test['asked'][name]}" for name in _PLAN if test["asked"][name] != asked[name]
            )
            raise ValueError(f"{folder}: holds another test ({other}); name another --output")
        return test, answers.Writer(folder / answers.ANSWERS_FILE, test["header"])
    sets = stimuli.open_sets(
        [path for path in (options.real, options.generated, options.bad) if path],
        seconds=options.seconds,
        sample_rate_hz=options.sample_rate,
        track_pattern=options.track_pattern,
    )
    real, generated, bad = (*sets, None)[:3]
    beats = options.beats or 4 * (real.origin.get("bars") or 0) or None
    heard = stimuli.prepare(
        real, generated, bad, least_pairs=options.pairs + options.singles, beats=beats, seed=options.seed
    )
    os.umask(0o077)  # nobody else on this machine is to read the links or the truth
    folder.mkdir(parents=True, exist_ok=True)
    stimuli.save(folder / SOUNDS_FILE, heard)
    header = {name: asked[name] for name in ("listeners", "pairs", "singles", "delta", "seed")} | {
        "trials": len(session.draw(heard, options.seed, 0, options.pairs, options.singles)),
        "items": len(heard.pairs),
        "matched": heard.matched,
        "seconds": heard.pcm.shape[1] / heard.sample_rate_hz,
        "sample_rate_hz": heard.sample_rate_hz,
        "sets": heard.origin,
    }
    links = [secrets.token_urlsafe(16) for _ in range(options.listeners)]
    test = {"asked": asked, "header": header, "links": links, "key": secrets.token_hex(32)}
    atomic_files.write_text(folder / TEST_FILE, json.dumps(test, indent=1) + "\n")
    return test, answers.Writer(folder / answers.ANSWERS_FILE, header)


def serve(options: argparse.Namespace) -> None:
    """Serves the test until Ctrl-C.

    Raises:
        ValueError: see `open_test`.
        OSError: the port is taken.
    """
    import uvicorn

    from technogen_jax.listen import server, stimuli

    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.create_server((options.host, options.port), family=family) as listening:
        test, writer = open_test(options)
        app = server.make_app(
            stimuli.load(pathlib.Path(options.output) / SOUNDS_FILE),
            writer,
            links=test["links"],
            key=bytes.fromhex(test["key"]),
            seed=options.seed,
            pairs=options.pairs,
            singles=options.singles,
        )
        host = f"[{options.host}]" if ":" in options.host else options.host
        port = listening.getsockname()[1]
        print("One link a listener; each is good for one person and goes on where it was left:")
        for number, link in enumerate(test["links"], 1):
            print(f"  {number:>3}  http://{host}:{port}/{link}")
        print(f"Then: python -m technogen_jax.listen --report {options.output}", flush=True)
        # Who listens from where is nobody's business: no log of requests.
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            pass
        finally:
            writer.close()


def write_report(path: str, final: bool) -> str:
    """Reads the answers, writes report.json and report.html beside them, and returns the text.

    Raises:
        AnswersError: no file of answers.
    """
    path = pathlib.Path(path)
    path = path / answers.ANSWERS_FILE if path.is_dir() else path
    found = verdict.report(answers.read(path), final)
    content = (json.dumps(found, indent=1, allow_nan=False) + "\n", verdict.page(found))
    for name, text in zip(REPORT_FILES, content, strict=True):
        atomic_files.write_text(path.parent / name, text)
    return verdict.text(found)


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 and one line where they cannot work."""
    parser = argparse.ArgumentParser(
        prog="python -m technogen_jax.listen",
        description="A blind listening test in the browser: which of two loops was made by a human? Needs: pip install -r "
        "requirements-app.txt\n(--report does not). Give loops of one length that begin on the bar; each file counts as a track.",
        epilog="""examples:
  a test for twenty listeners, one bar of four beats a loop; the same command goes on after a break:
    python -m technogen_jax.listen --real loops/real --generated loops/made --bad loops/early --beats 4 --output test
  on a network (whoever has a link can use it):
    python -m technogen_jax.listen --real loops/real --generated loops/made --output test --host 0.0.0.0
  what the answers say:
    python -m technogen_jax.listen --report test""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--real", metavar="DIR", help="loops that people made: audio files, or a prepared set (its test tracks)")
    add("--generated", metavar="DIR", help="loops that a model made")
    add("--output", metavar="DIR", help="where the test and its answers are kept")
    add("--bad", metavar="DIR", help="loops of a system that is known to be bad, such as an early checkpoint")
    add("--listeners", type=int, default=20, metavar="N", help="how many are planned, each gets a link (20)")
    add("--pairs", type=int, default=12, metavar="N", help="pairs in question that a listener hears (12)")
    add("--singles", type=int, default=4, metavar="N", help="single clips in question (4)")
    add("--beats", type=int, metavar="N", help="beats in a loop (a prepared set's; else from its tempo)")
    add("--seconds", type=float, metavar="S", help="length of a clip (the shortest file, 12 at most)")
    add("--sample_rate", type=int, metavar="HZ", help="what files are brought to (theirs, which must be one)")
    add("--track_pattern", metavar="REGEX", help="its first group, found in a file's path, is the track (each file)")
    add("--delta", type=float, default=0.1, metavar="X", help="an accuracy this near a half counts as chance (0.1)")
    add("--seed", type=int, default=0, metavar="N", help="of tracks, pairs and orders (0)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (127.0.0.1: this machine alone)")
    add("--port", type=int, default=7870, metavar="N", help="to listen on (7870; 0: a free one)")
    add("--report", metavar="DIR", help="say what the answers of a test mean; writes report.json and report.html there")
    add("--final", action="store_true", help="with --report: the test is over, though not all listeners finished")
    options = parser.parse_args(argv)
    if options.report:
        return options
    if not (options.real and options.generated and options.output):
        parser.error("expected --real DIR, --generated DIR and --output DIR; or --report DIR")
    for name, low, high in (
        ("listeners", 1, 1000),
        ("pairs", 1, 50),
        ("singles", 0, 50),
        ("beats", 1, 1000),
        ("seconds", 0.5, 12.0),
        ("sample_rate", 4000, 192_000),
        ("delta", 0.01, 0.4),
        ("seed", 0, 2**32 - 1),
        ("port", 0, 65535),
    ):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            parser.error(f"--{name}: expected {low} to {high}, got {value}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 0 done, 1 failed, 2 an option that cannot work."""
    options = parse_options(argv)
    try:
        if options.report:
            print(write_report(options.report, options.final))
        else:
            serve(options)
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        print(f"listen: {error}; pip install -r requirements-app.txt", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"listen: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
