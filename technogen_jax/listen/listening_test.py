"""A listening test in a folder: made from loops or found there, served to listeners, reported."""

from __future__ import annotations

import json
import os
import pathlib
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from technogen_jax.common import atomic_files, json_files
from technogen_jax.listen import answers, verdict

TEST_FILE = "test.json"  # private: the links, and the key of the sounds' addresses
SOUNDS_FILE = "sounds.npz"
MOST_PAIRS = 12  # for a listener, unless more are asked for: with the controls about ten minutes (chosen)
REPORT_FILES = ("report.json", "report.html")


class Plan(NamedTuple):
    """What decides a test: the same plan resumes it, another plan needs another folder.

    Attributes:
        real: loops that people made.
        generated: loops that a model made.
        bad: loops of a system that is known to be bad; None without.
        listeners: how many are planned; each gets a link.
        pairs: pairs in question for each listener; None: as many as the loops allow, at most `MOST_PAIRS`.
        singles: single clips in question for each listener; None: a third of the pairs.
        beats: beats in a loop; None: the dataset's, or from the tempo.
        seconds: length of a clip; None: the shortest file.
        sample_rate: rate in Hz that files are resampled to; None: theirs, if it is one.
        track_pattern: its first group, found in a file's path, is the track; None: each file is one.
        delta: an accuracy this near to one half counts as chance.
        seed: the seed of tracks, pairs and orders.
    """

    real: str
    generated: str
    bad: str | None
    listeners: int
    pairs: int | None
    singles: int | None
    beats: int | None
    seconds: float | None
    sample_rate: int | None
    track_pattern: str | None
    delta: float
    seed: int


def open_test(folder: pathlib.Path, plan: Plan) -> tuple[dict[str, Any], answers.Writer]:
    """Returns the test of a folder (the content of test.json) and its answers; makes the test if there is none.

    Raises:
        ValueError: loops that cannot be used, or a folder with another test.
    """
    from technogen_jax.listen import session, stimuli

    asked = plan._asdict()
    for name in ("real", "generated", "bad"):
        asked[name] = asked[name] and os.path.abspath(asked[name])
    if (folder / TEST_FILE).exists():
        test, before = _read_test(folder / TEST_FILE)
        if before != asked:
            other = ", ".join(f"--{name} was {before.get(name)}" for name in asked if before.get(name) != asked[name])
            raise ValueError(f"{folder}: holds another test ({other}); name another --output")
        return test, answers.Writer(folder / answers.ANSWERS_FILE, test["header"])
    sets = stimuli.open_sets(
        [path for path in (plan.real, plan.generated, plan.bad) if path],
        seconds=plan.seconds,
        sample_rate_hz=plan.sample_rate,
        track_pattern=plan.track_pattern,
    )
    real, generated, bad = (*sets, None)[:3]
    beats = plan.beats or 4 * (real.origin.get("bars") or 0) or None
    least = (1 if plan.pairs is None else plan.pairs) + (plan.singles or 0)
    sounds = stimuli.prepare(real, generated, bad, least_pairs=least, beats=beats, seed=plan.seed)
    pairs, singles = choose_lengths(len(sounds.pairs), plan.pairs, plan.singles)
    os.umask(0o077)  # other users of this machine must not read the links or the truth
    folder.mkdir(parents=True, exist_ok=True)
    stimuli.save(folder / SOUNDS_FILE, sounds)
    header = {name: asked[name] for name in ("listeners", "delta", "seed")} | {
        "pairs": pairs,
        "singles": singles,
        "trials": len(session.draw(sounds, plan.seed, 0, pairs, singles)),
        "items": len(sounds.pairs),
        "matched": sounds.matched,
        "seconds": sounds.pcm.shape[1] / sounds.sample_rate_hz,
        "sample_rate_hz": sounds.sample_rate_hz,
        "sets": sounds.origin,
    }
    links = [secrets.token_urlsafe(16) for _ in range(plan.listeners)]
    test = {"asked": asked, "header": header, "links": links, "key": secrets.token_hex(32)}
    atomic_files.write_text(folder / TEST_FILE, json.dumps(test, indent=1) + "\n")
    return test, answers.Writer(folder / answers.ANSWERS_FILE, header)


def _read_test(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the content of test.json, and what was asked for when it was made.

    Raises:
        ValueError: it is damaged.
    """
    try:
        test = json_files.read(path)
        kinds = {"asked": dict, "header": dict, "links": list, "key": str}
        if not all(isinstance(test[name], kind) for name, kind in kinds.items()):
            raise ValueError("not the fields of a test")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: damaged ({error}); name another --output") from error
    return test, test["asked"]


def choose_lengths(available: int, pairs: int | None, singles: int | None) -> tuple[int, int]:
    """Returns how many pairs and single clips each listener judges.

    Args:
        available: matched pairs that there are.
        pairs: as asked for; None: three quarters of what is available, at most `MOST_PAIRS`.
        singles: as asked for; None: a third of the pairs.
    """
    if pairs is None:
        pairs = min(MOST_PAIRS, -(-3 * available // 4) if singles is None else available - singles)
    if singles is None:
        singles = min(pairs // 3, available - pairs)
    return pairs, singles


def serve(
    folder: pathlib.Path,
    plan: Plan,
    host: str,
    port: int,
    say: Callable[[str], None],
    names: Sequence[str] = (),
) -> None:
    """Serves a test until Ctrl-C or SIGTERM.

    Args:
        folder: the folder of the test.
        plan: what the test is.
        host: the address to listen on.
        port: 0: a free one.
        say: takes the links, a line each.
        names: other host names under which listeners reach the test, as behind a proxy.

    Raises:
        ValueError: loops that cannot be used, or a folder with another test.
        OSError: the address cannot be used.
    """
    from technogen_jax.common import web_server
    from technogen_jax.listen import server, stimuli

    served = web_server.Server(host, port)  # first: without an address there is no test
    writer = None
    try:
        test, writer = open_test(folder, plan)
        app = server.make_app(
            stimuli.load(folder / SOUNDS_FILE),
            writer,
            links=test["links"],
            key=bytes.fromhex(test["key"]),
            seed=plan.seed,
            pairs=test["header"]["pairs"],
            singles=test["header"]["singles"],
            names=[*web_server.own_names(host), *names],
        )
        say("One link for each listener. A link is good for one person, who can stop and resume:")
        for number, link in enumerate(test["links"], 1):
            say(f"  {number:>3}  {served.url}{link}")
        say(f"Then: python -m technogen_jax.listen --report {folder}")
        served.start(app)
        served.wait()
    finally:
        served.close()
        if writer:
            writer.close()


def write_report(path: str, final: bool) -> str:
    """Reads the answers of a test, writes report.json and report.html beside them, and returns the text.

    Args:
        path: the folder of the test, or its file of answers.
        final: the test is over, even if not all listeners have finished.

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
