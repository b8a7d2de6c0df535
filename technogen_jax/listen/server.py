"""The web server of a listening test.

Which sound is real stays on the server: the browser gets the numbers of trials and sounds without names.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from technogen_jax.audio import audio_files
from technogen_jax.common import json_files, web_server
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


class RequestError(ValueError):
    """A request that is refused; the message is one line for the client."""


def make_app(
    stimuli: Stimuli,
    writer: Writer,
    *,
    links: Sequence[str],
    key: bytes,
    seed: int,
    pairs: int,
    singles: int,
    names: Sequence[str] = (),
) -> web_server.Guard:
    """Returns the listening test as an ASGI application.

    Args:
        stimuli: the sounds of the test.
        writer: writes the answers; those that it already has decide where each listener resumes.
        links: one unguessable word for each listener, the first part of the listener's address.
        key: secret from which the addresses of sounds are computed.
        seed: the seed of the sessions.
        pairs: trials with two clips for each listener, besides the control trials.
        singles: trials with one clip for each listener.
        names: host names under which the server is reached, besides numeric addresses and localhost.
    """
    sessions = [session.draw(stimuli, seed, number, pairs, singles) for number in range(len(links))]
    app = _Server(stimuli, writer, links, key, sessions).app()
    return web_server.Guard(app, names=names, body_bytes=MOST_BODY_BYTES)


class _Server:
    """The state of a running test and its routes.

    Attributes:
        done: number of answers of each listener.
        introduced: listeners who have answered the questions about themselves.
    """

    def __init__(self, stimuli, writer, links, key, sessions):
        self.stimuli, self.writer, self.key, self.sessions = stimuli, writer, key, sessions
        self.number_of = {link: number for number, link in enumerate(links)}
        self.done = [0] * len(links)
        self.introduced: set[int] = set()
        for line in writer.lines:
            if line["what"] == "answer":
                self.done[line["listener"]] = max(self.done[line["listener"]], line["trial"] + 1)
            elif line["what"] == "listener":
                self.introduced.add(line["listener"])

    def app(self) -> Starlette:
        """Returns the routes as an application."""
        routes = [
            Route("/page.js", lambda request: _asset("page.js", "text/javascript")),
            Route("/page.css", lambda request: _asset("page.css", "text/css")),
            Route("/{link}", self.page),
            Route("/{link}/state", self.state),
            Route("/{link}/begin", self.begin, methods=["POST"]),
            Route("/{link}/answer", self.answer, methods=["POST"]),
            Route("/{link}/sound/{token}", self.sound),
        ]
        return Starlette(routes=routes, exception_handlers={404: lambda request, error: _not_found()})

    def token(self, listener: int, trial: int, place: int) -> str:
        """Returns the address of a sound: 128 bits, so that equal sounds have different addresses. Trial -1 is training."""
        return hmac.new(self.key, f"{listener} {trial} {place}".encode(), hashlib.sha256).hexdigest()[:32]

    def clips_of(self, listener: int, trial: int) -> tuple[int, ...]:
        """Returns the indices of a trial's sounds."""
        return self.stimuli.training if trial < 0 else self.sessions[listener][trial].clips

    def public_state(self, listener: int) -> dict[str, Any]:
        """Returns all that the browser learns: progress and addresses of sounds, never what a sound is."""
        trial, trials = self.done[listener], self.sessions[listener]
        state: dict[str, Any] = {"begun": listener in self.introduced, "done": trial, "of": len(trials)}
        clip_s = self.stimuli.pcm.shape[1] / self.stimuli.sample_rate_hz
        state["minutes"] = session.estimate_minutes(trials[trial:], clip_s)
        if trial < len(trials):
            state["clips"] = [self.token(listener, trial, place) for place in range(len(trials[trial].clips))]
            if trial == 0:
                state["training"] = [self.token(listener, -1, place) for place in range(2)]
        else:
            lines = [line for line in self.writer.lines if line.get("listener") == listener]
            pairs = [line for line in lines if line.get("kind") == "pair"]
            right = sum(line["answer"] == line["truth"] for line in pairs)
            state["result"] = {"right": right, "of": len(pairs)}
        return state

    def listener_of(self, request: Request) -> int | None:
        """Returns the number of the listener whose link it is; None for an unknown link."""
        return self.number_of.get(request.path_params["link"])

    def page(self, request: Request) -> Response:
        """GET: the page of a listener."""
        return _not_found() if self.listener_of(request) is None else _asset("page.html", "text/html")

    def state(self, request: Request) -> Response:
        """GET: the state of a listener as JSON."""
        listener = self.listener_of(request)
        return _not_found() if listener is None else _json(self.public_state(listener))

    def sound(self, request: Request) -> Response:
        """GET: one sound of the current trial (or of the training pair) as WAV."""
        listener, asked = self.listener_of(request), request.path_params["token"]
        if listener is None:
            return _not_found()
        current = self.done[listener]
        for trial in [current] if current else [-1, 0]:
            if trial < len(self.sessions[listener]):
                for place, index in enumerate(self.clips_of(listener, trial)):
                    if hmac.compare_digest(self.token(listener, trial, place).encode(), asked.encode()):
                        wav = audio_files.encode(self.stimuli.pcm[index], self.stimuli.sample_rate_hz, ".wav")
                        return Response(wav, media_type="audio/wav", headers=_HEADERS)
        return _not_found()

    async def begin(self, request: Request) -> Response:
        """POST: what the listener says about themselves; the first time it is written down."""
        return await self._post(request, self._record_listener)

    async def answer(self, request: Request) -> Response:
        """POST: the answer to the current trial."""
        return await self._post(request, self._record_answer)

    async def _post(self, request: Request, record) -> Response:
        listener = self.listener_of(request)
        if listener is None:
            return _not_found()
        try:
            content = await request.body()  # bounded by the guard
            record(listener, content)  # does not wait, so that answers are recorded one at a time
        except RequestError as error:
            return PlainTextResponse(str(error), 400, _HEADERS)
        except OSError:
            return PlainTextResponse("The answer could not be saved; try again.", 503, _HEADERS)
        return _json(self.public_state(listener))

    def _record_listener(self, listener: int, content: bytes) -> None:
        fields = _parse(content, ("sound", "producer", "years"))
        if fields["sound"] not in ("headphones", "speakers"):
            raise RequestError("sound: expected headphones or speakers")
        if not isinstance(fields["producer"], bool):
            raise RequestError("producer: expected true or false")
        _check_number("years", fields["years"], 0, 100)
        if listener not in self.introduced:
            self.writer.append({"what": "listener", "listener": listener, **fields, "t_utc": _now()})
            self.introduced.add(listener)

    def _record_answer(self, listener: int, content: bytes) -> None:
        fields = _parse(content, ("trial", "answer", "confidence", "rt_ms", "heard_s", "plays", "switches"))
        trials, done = self.sessions[listener], self.done[listener]
        _check_number("trial", fields["trial"], 0, len(trials) - 1)
        number = int(fields["trial"])
        if number > done or listener not in self.introduced:
            raise RequestError(f"trial: expected {done}, after the questions about you; load the page again")
        if number < done:  # sent again because the first reply was lost
            return
        trial = trials[number]
        _check_answer(fields, len(trial.clips))
        self.writer.append(
            {
                "what": "answer",
                "listener": listener,
                "kind": trial.kind,
                "item": trial.item,
                "clips": [self.stimuli.sounds[index].id for index in trial.clips],
                "truth": trial.truth,
                **fields,
                "trial": number,
                "t_utc": _now(),
            }
        )
        self.done[listener] = number + 1


def _check_answer(fields: dict[str, Any], clips: int) -> None:
    """Raises RequestError unless the fields are an answer to a trial of one or two clips."""
    choices = ("left", "right") if clips == 2 else ("real", "generated")
    if fields["answer"] not in choices:
        raise RequestError(f"answer: expected {' or '.join(choices)}")
    if clips == 2:
        if fields["confidence"] is not None:
            raise RequestError("confidence: expected null for a pair")
    else:
        _check_number("confidence", fields["confidence"], 1, 4)
    for name in ("rt_ms", "plays", "switches"):
        _check_number(name, fields[name], 0, MOST_MS)
    if not isinstance(fields["heard_s"], list) or len(fields["heard_s"]) != clips:
        raise RequestError(f"heard_s: expected a list of {clips}")
    for seconds in fields["heard_s"]:
        _check_number("heard_s", seconds, 0, MOST_MS)


def _parse(content: bytes, names: Sequence[str]) -> dict[str, Any]:
    """Returns a JSON object that has exactly these fields; raises RequestError for anything else."""
    try:
        fields = json_files.parse(content)
    except ValueError:
        raise RequestError("expected JSON") from None
    if not isinstance(fields, dict) or set(fields) != set(names):
        raise RequestError(f"expected the fields {', '.join(names)}")
    return fields


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    """Raises RequestError unless the value is a finite number in [low, high]; a trial or a confidence must be whole."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (isinstance(value, float) and not math.isfinite(value)):
        raise RequestError(f"{name}: expected a number from {low} to {high}")
    if name in ("trial", "confidence") and value != int(value):
        raise RequestError(f"{name}: expected a whole number")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _json(content: dict[str, Any]) -> Response:
    return JSONResponse(content, headers=_HEADERS)


def _not_found() -> Response:
    return PlainTextResponse("There is nothing here.", 404, _HEADERS)


def _asset(name: str, kind: str) -> Response:
    return Response((_HERE / name).read_bytes(), media_type=kind, headers=_HEADERS)
