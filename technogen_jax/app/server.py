"""The addresses of the page, and the HTTP API that it uses: docs/app.md describes it for scripts."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import functools
import math
import pathlib
import urllib.parse
from collections.abc import AsyncIterator

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from technogen_jax.app import kept_sounds, queues, sounds, training_view
from technogen_jax.app.library import Library
from technogen_jax.app.renders import DONE, FAILED, Renders
from technogen_jax.audio import audio_files, loudness, spectrogram_images
from technogen_jax.common import web_server

MOST_WAITING, MOST_WAITING_EACH = 256, 64  # requests for loops (chosen)
MOST_BODY_BYTES = 512 * 1024  # a list of kept sounds; no other request has a body
_REMOVE_EVERY_S = 2.0
_POLL_S = 0.25
_HERE = pathlib.Path(__file__).parent
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_ASSETS = sorted(path.name for path in (_HERE / "assets").iterdir() if path.suffix in _TYPES)
_MEDIA = {"wav": "audio/wav", "flac": "audio/flac"}
_PICTURE_DB = (-80.0, 0.0)


def make_app(
    library: Library, *, names: list[str] = (), embedded: bool = False, kept: pathlib.Path | None = None
) -> Starlette:
    """Returns the page and its API as an application.

    Args:
        library: the models and runs.
        names: host names under which the server is reached, besides numeric addresses and localhost.
        embedded: whether a notebook may show the page in a frame.
        kept: the file of kept sounds; None: the user's.
    """
    return _App(library, kept or kept_sounds.default_path()).app(names, embedded)


class _App:
    """The state of the server and its routes."""

    def __init__(self, library: Library, kept: pathlib.Path) -> None:
        self.library, self.kept_path = library, kept
        self.loops = queues.FairQueue(MOST_WAITING, MOST_WAITING_EACH)
        self.pool = concurrent.futures.ThreadPoolExecutor(1, "loop")
        self.renders = Renders()

    def app(self, names: list[str], embedded: bool) -> Starlette:
        """Returns the routes as an application."""
        routes = [
            Route("/", lambda request: _asset("page.html")),
            Route("/assets/{name}", self.asset),
            Route("/api/models", self.models),
            Route("/api/loop", self.loop),
            Route("/api/loop.{format}", self.loop_file),
            Route("/api/renders", self.add_render, methods=["POST"]),
            Route("/api/renders/{id}", self.render, methods=["GET", "DELETE"]),
            Route("/api/renders/{id}/file", self.render_file),
            Route("/api/kept", self.kept, methods=["GET", "PUT"]),
            Route("/api/runs/{run}", self.run),
            Route("/api/runs/{run}/{step}.{kind}", self.preview),
        ]
        guard = Middleware(web_server.Guard, names=names, body_bytes=MOST_BODY_BYTES, embedded=embedded)
        handlers = {
            sounds.RequestError: functools.partial(_refuse, 400),
            kept_sounds.KeptError: functools.partial(_refuse, 400),
            queues.BusyError: functools.partial(_refuse, 503),
            HTTPException: lambda request, error: _text(error.detail, error.status_code),
        }
        return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=self.lifespan)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Removes old files while the server runs, and all files at its end."""
        removing = asyncio.create_task(self.remove_old())
        yield
        removing.cancel()
        self.library.close()
        await asyncio.to_thread(self.renders.close)
        self.pool.shutdown(cancel_futures=True)

    async def remove_old(self) -> None:
        """Removes renders that nobody needs, again and again."""
        while True:
            self.renders.remove_old()
            await asyncio.sleep(_REMOVE_EVERY_S)

    async def asset(self, request: Request) -> Response:
        """GET: a file of the page."""
        name = request.path_params["name"]
        return _asset(name) if name in _ASSETS else _text("There is nothing here.", 404)

    async def models(self, request: Request) -> Response:
        """GET: the models and runs, and how far each is; the bounds of requests."""
        limits = {"move": sounds.FARTHEST, "minutes": list(sounds.MINUTES)}
        return JSONResponse({"models": self.library.describe(), "runs": list(self.library.runs()), "limits": limits})

    async def loop(self, request: Request) -> Response:
        """GET: a loop as JSON: its samples, a picture of its spectrum, its loudness, and its parameters."""
        sound = self.sound_of(request.query_params)
        return await self.compute(request, functools.partial(_loop_answer, sound))

    async def loop_file(self, request: Request) -> Response:
        """GET: a loop as an audio file."""
        extension = request.path_params["format"]
        if extension not in sounds.FORMATS:
            raise sounds.RequestError(f"expected loop.{' or loop.'.join(sounds.FORMATS)}")
        sound = self.sound_of(request.query_params)
        return await self.compute(request, functools.partial(self.loop_file_of, sound, extension))

    def loop_file_of(self, sound: sounds.Sound, extension: str) -> Response:
        """Returns a loop as an audio file."""
        content = sounds.encode(sound, extension)
        headers = _attachment(sounds.file_name(sound, None, extension))
        headers["x-technogen-sound"] = urllib.parse.urlencode(sounds.parameters_of(sound))
        return Response(content, media_type=_MEDIA[extension], headers=headers)

    async def compute(self, request: Request, work) -> Response:
        """Returns what `work` returns, when it is this client's turn."""
        async with self.loops.turn(_address(request)):
            if await request.is_disconnected():
                return Response(status_code=499)
            return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    async def add_render(self, request: Request) -> Response:
        """POST: queues a file; `minutes` makes it a track, `format` is wav or flac."""
        asked = dict(request.query_params)
        extension, minutes = asked.pop("format", "wav"), asked.pop("minutes", None)
        if extension not in sounds.FORMATS:
            raise sounds.RequestError(f"format: expected {' or '.join(sounds.FORMATS)}")
        length = None if minutes is None else sounds.read_number("minutes", minutes, *sounds.MINUTES)
        sound = self.sound_of(asked)
        if length and not sound.model.trained.gan.endless:
            raise sounds.RequestError(f"minutes: {sound.model.name} makes clips of one length, not tracks")
        render = self.renders.add(
            sounds.file_name(sound, length, extension),
            _address(request),
            sounds.most_bytes(sound, length),
            lambda path, report: sounds.write(sound, path, length, report),
        )
        return JSONResponse(render.describe(), 202)

    async def render(self, request: Request) -> Response:
        """GET: how far a render is. DELETE: cancels it, or deletes its file."""
        render = self.renders.find(request.path_params["id"])
        if render is None:
            return _gone()
        if request.method == "DELETE":
            self.renders.remove(render)
            return Response(status_code=204)
        return JSONResponse(render.describe())

    async def render_file(self, request: Request) -> Response:
        """GET: waits until a render is done, and returns its file."""
        while True:
            render = self.renders.find(request.path_params["id"])
            if render is None:
                return _gone()
            if render.state == DONE:
                media = _MEDIA[render.path.suffix[1:]]
                return FileResponse(render.path, media_type=media, headers=_attachment(render.name))
            if render.state == FAILED:
                return _text(render.why, 500)
            await asyncio.sleep(_POLL_S)
            if await request.is_disconnected():
                return Response(status_code=499)

    async def kept(self, request: Request) -> Response:
        """GET, PUT: the kept sounds of this machine's user, a JSON list of {name, sound}; for this machine alone."""
        if not web_server.is_loopback(_address(request)):
            return _text("Only the machine on which the server runs has a list here.", 403)
        try:
            if request.method == "PUT":
                kept_sounds.write(self.kept_path, kept_sounds.parse(await request.body()))
            return JSONResponse(kept_sounds.read(self.kept_path))
        except OSError as error:
            return _text(f"The list of kept sounds cannot be used: {error.strerror}", 503)

    async def run(self, request: Request) -> Response:
        """GET: curves and steps of the previews of a training."""
        workdir = self.library.runs().get(request.path_params["run"])
        if workdir is None:
            return _text("There is no such run.", 404)
        return JSONResponse(await asyncio.to_thread(training_view.describe, workdir))

    async def preview(self, request: Request) -> Response:
        """GET: the picture or the sound of a preview."""
        asked = request.path_params
        path = training_view.preview_file(self.library.runs(), asked["run"], asked["step"], f".{asked['kind']}")
        return FileResponse(path) if path else _text("There is no such preview.", 404)

    def sound_of(self, asked) -> sounds.Sound:
        """Returns the sound of a request's parameters."""
        entry = next((entry for entry in self.library.entries if entry.name == asked.get("model")), None)
        models = self.library.models()
        if not models or (entry and not entry.model):
            state = entry or self.library.entries[0]
            raise HTTPException(503, f"{state.name} cannot be played: {state.why or f'it is still {state.state}'}")
        return sounds.read_sound(asked, models)


def _loop_answer(sound: sounds.Sound) -> Response:
    clip, rate_hz = sounds.loop_of(sound), sound.model.trained.config.audio.sample_rate_hz
    low, high = _PICTURE_DB
    levels = np.clip((spectrogram_images.mel_db(clip, rate_hz) - low) / (high - low), 0, 1)  # [M, N]
    lufs = loudness.loop_loudness(clip, rate_hz)
    return JSONResponse(
        {
            "pcm": base64.b64encode(audio_files.to_int16(clip).tobytes()).decode(),
            "samples": clip.shape[0],
            "channels": clip.shape[1],
            "rate_hz": rate_hz,
            "picture": base64.b64encode(np.rint(255 * levels).astype(np.uint8).tobytes()).decode(),
            "frames": levels.shape[1],
            "lufs": lufs if math.isfinite(lufs) else None,
            "sound": sounds.parameters_of(sound),
        }
    )


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _attachment(name: str) -> dict[str, str]:
    plain = name.encode("ascii", "replace").decode().replace("?", "_")  # for curl, which does not know the other
    return {"content-disposition": f"attachment; filename=\"{plain}\"; filename*=utf-8''{urllib.parse.quote(name)}"}


def _text(text: str, status: int) -> Response:
    headers = {"retry-after": "1"} if status == 503 else None
    return PlainTextResponse(text, status, headers)


def _gone() -> Response:
    return _text("This file has expired or was cancelled; make it again.", 404)


async def _refuse(status: int, request: Request, error: Exception) -> Response:
    return _text(str(error), status)


@functools.cache
def _read_asset(name: str) -> bytes:
    return (_HERE / "assets" / name).read_bytes()


def _asset(name: str) -> Response:
    kind = _TYPES[pathlib.Path(name).suffix]
    return Response(_read_asset(name), media_type=kind, headers={"cache-control": "no-cache"})
