"""The server of a listening test. What a sound is stays here: a browser gets numbers of trials and sounds without names."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from technogen_jax.audio import audio_files
from technogen_jax.listen import session
from technogen_jax.listen.answers import Writer
from technogen_jax.listen.stimuli import Stimuli

MOST_BODY_BYTES = 4096
MOST_MS = 24 * 3600 * 1000
_HERE = pathlib.Path(__file__).parent
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "referrer-policy": "no-referrer",  # the address is the listener's key
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
}


class AskError(ValueError):
    """A request that cannot be taken; one line for the client."""


def make_app(
    stimuli: Stimuli, writer: Writer, *, links: Sequence[str], key: bytes, seed: int, pairs: int, singles: int
) -> Starlette:
    """The test as an ASGI application.

    Args:
        stimuli: what is heard.
        writer: of the answers; what it has already is where listeners go on.
        links: one unguessable word a listener.
        key: the addresses of sounds come from it.
        seed: of the sessions.
        pairs: targets of two clips a listener.
        singles: of one.
    """
    number_of = {link: number for number, link in enumerate(links)}
    sessions = [session.draw(stimuli, seed, number, pairs, singles) for number in range(len(links))]
    done = [0] * len(links)  # answers of each listener
    about: set[int] = set()
    for line in writer.lines:
        if line["what"] == "answer":
            done[line["listener"]] = max(done[line["listener"]], line["trial"] + 1)
        elif line["what"] == "listener":
            about.add(line["listener"])

    def token(listener: int, trial: int, place: int) -> str:
        """128 bits; trial -1 is the training. That a repeat is one does not show."""
        return hmac.new(key, f"{listener} {trial} {place}".encode(), hashlib.sha256).hexdigest()[:32]

    def clips_of(listener: int, trial: int) -> tuple[int, ...]:
        return stimuli.training if trial < 0 else sessions[listener][trial].clips

    def shown(listener: int) -> dict[str, Any]:
        """All that a browser knows."""
        trial, trials = done[listener], sessions[listener]
        state: dict[str, Any] = {"begun": listener in about, "done": trial, "of": len(trials)}
        if trial < len(trials):
            state["clips"] = [token(listener, trial, place) for place in range(len(trials[trial].clips))]
            if not trial:
                state["training"] = [token(listener, -1, place) for place in range(2)]
        else:
            mine = [line for line in writer.lines if line.get("listener") == listener and line.get("kind") == "pair"]
            state["result"] = {"right": sum(line["answer"] == line["truth"] for line in mine), "of": len(mine)}
        return state

    def listener_of(request: Request) -> int | None:
        return number_of.get(request.path_params["link"])

    def page(request: Request) -> Response:
        return _asset("page.html", "text/html") if listener_of(request) is not None else _nothing()

    def state(request: Request) -> Response:
        listener = listener_of(request)
        return _nothing() if listener is None else _json(shown(listener))

    def sound(request: Request) -> Response:
        listener, asked = listener_of(request), request.path_params["token"]
        if listener is None:
            return _nothing()
        now = done[listener]
        for trial in [now] if now else [-1, 0]:
            if trial < len(sessions[listener]):
                for place, index in enumerate(clips_of(listener, trial)):
                    if hmac.compare_digest(token(listener, trial, place).encode(), asked.encode()):
                        wav = audio_files.encode(stimuli.pcm[index], stimuli.sample_rate_hz, ".wav")
                        return Response(wav, media_type="audio/wav", headers=_HEADERS)
        return _nothing()

    # Coroutines that never wait between reading the state and writing the answer: one answer at a time.
    async def begin(request: Request) -> Response:
        listener = listener_of(request)
        if listener is None:
            return _nothing()
        try:
            said = await _body(request, ("sound", "producer", "years"))
            if said["sound"] not in ("headphones", "speakers"):
                raise AskError("sound: expected headphones or speakers")
            if not isinstance(said["producer"], bool):
                raise AskError("producer: expected true or false")
            _number("years", said["years"], 0, 100)
            if listener not in about:
                writer.append({"what": "listener", "listener": listener, **said, "t_utc": _now()})
                about.add(listener)
        except AskError as error:
            return PlainTextResponse(str(error), 400, _HEADERS)
        except OSError:
            return PlainTextResponse("This could not be written; try again.", 503, _HEADERS)
        return _json(shown(listener))

    async def answer(request: Request) -> Response:
        listener = listener_of(request)
        if listener is None:
            return _nothing()
        try:
            said = await _body(request, ("trial", "answer", "confidence", "rt_ms", "heard_s", "plays", "switches"))
            trials = sessions[listener]
            number = int(_number("trial", said["trial"], 0, len(trials) - 1))
            if number > done[listener] or listener not in about:
                raise AskError(f"trial: expected {done[listener]}, after the beginning; load the page again")
            if number < done[listener]:  # sent again because the first reply was lost
                return _json(shown(listener))
            trial = trials[number]
            choices = ("left", "right") if len(trial.clips) == 2 else ("real", "generated")
            if said["answer"] not in choices:
                raise AskError(f"answer: expected {' or '.join(choices)}")
            if len(trial.clips) == 2:
                if said["confidence"] is not None:
                    raise AskError("confidence: expected null for a pair")
            else:
                _number("confidence", said["confidence"], 1, 4)
            for name in ("rt_ms", "plays", "switches"):
                _number(name, said[name], 0, MOST_MS)
            if not isinstance(said["heard_s"], list) or len(said["heard_s"]) != len(trial.clips):
                raise AskError(f"heard_s: expected a list of {len(trial.clips)}")
            for seconds in said["heard_s"]:
                _number("heard_s", seconds, 0, MOST_MS)
            writer.append(
                {
                    "what": "answer",
                    "listener": listener,
                    "kind": trial.kind,
                    "item": trial.item,
                    "clips": [stimuli.sounds[index].id for index in trial.clips],
                    "truth": trial.truth,
                    **said,
                    "trial": number,
                    "t_utc": _now(),
                }
            )
            done[listener] = number + 1
        except AskError as error:
            return PlainTextResponse(str(error), 400, _HEADERS)
        except OSError:
            return PlainTextResponse("This could not be written; try again.", 503, _HEADERS)
        return _json(shown(listener))

    routes = [
        Route("/page.js", lambda request: _asset("page.js", "text/javascript")),
        Route("/page.css", lambda request: _asset("page.css", "text/css")),
        Route("/{link}", page),
        Route("/{link}/state", state),
        Route("/{link}/begin", begin, methods=["POST"]),
        Route("/{link}/answer", answer, methods=["POST"]),
        Route("/{link}/sound/{token}", sound),
    ]
    return Starlette(routes=routes, exception_handlers={404: lambda request, error: _nothing()})


async def _body(request: Request, names: Sequence[str]) -> dict[str, Any]:
    """The JSON object of a request, with those fields and no others.

    Raises:
        AskError: too long, or something else.
    """
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MOST_BODY_BYTES:
            raise AskError("the request is too long")
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        raise AskError("expected JSON") from None
    if not isinstance(said, dict) or set(said) != set(names):
        raise AskError(f"expected the fields {', '.join(names)}")
    return said


def _number(name: str, value: Any, low: float, high: float) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high or (isinstance(value, float) and not math.isfinite(value)):
        raise AskError(f"{name}: expected a number from {low} to {high}")
    if name in ("trial", "confidence") and value != int(value):
        raise AskError(f"{name}: expected a whole number")
    return value


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _json(content: dict[str, Any]) -> Response:
    return JSONResponse(content, headers=_HEADERS)


def _nothing() -> Response:
    return PlainTextResponse("There is nothing here.", 404, _HEADERS)


def _asset(name: str, kind: str) -> Response:
    return Response((_HERE / name).read_bytes(), media_type=kind, headers=_HEADERS)
