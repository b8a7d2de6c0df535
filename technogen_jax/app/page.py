"""The page and its server: Gradio around our own instrument (page.html, page.css, loop.js, page.js).

The instrument uses Gradio's documented HTTP calls, so that all requests wait in one bounded queue. A
loop is returned as samples, a file as an address that is valid for a quarter of an hour.
"""

from __future__ import annotations

import base64
import functools
import html
import os
import pathlib
import urllib.parse
from collections.abc import Mapping

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr  # noqa: E402
import numpy as np  # noqa: E402
import pandas  # noqa: E402  gradio brings it; its charts take nothing else
from starlette.middleware import Middleware  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import FileResponse, PlainTextResponse, Response  # noqa: E402
from starlette.routing import Route  # noqa: E402

from technogen_jax.app import request_filter, sounds, temporary_files, training_view  # noqa: E402
from technogen_jax.audio import audio_files, spectrogram_images
from technogen_jax.runs.checkpoints import CHECKPOINTS_FOLDER
from technogen_jax.runs.workdir import CONFIG_FILE, WorkdirError

WAITING = 128  # requests in the queue; with more, a client gets an error
REFRESH_S = 5.0  # of the training tab
_HERE = pathlib.Path(__file__).parent
_PICTURE_DB = (-80.0, 0.0)


def launch(
    *workdirs: str | os.PathLike,
    step: int | str = "latest",
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    block: bool = False,
) -> gr.Blocks:
    """Opens the page and returns it; `close()` of the result ends it.

    In a notebook the page appears below the cell, otherwise its address is printed.

    Args:
        workdirs: workdirs of runs, or exported files. Of a workdir without a checkpoint only the training is shown.
        step: "latest", "best" or the step of a checkpoint.
        host: address to listen on; by default only this machine can connect.
        port: None: the first free port from 7860 on.
        share: open a public address through Gradio's servers, for those who have the link.
        block: return only after Ctrl-C.

    Raises:
        WorkdirError: a path is neither a workdir nor an exported file.
    """
    names = sounds.names_of(workdirs)
    folders = {name: pathlib.Path(os.path.abspath(path)) for name, path in zip(names, workdirs, strict=True)}
    models = {}
    for name, path in folders.items():
        try:
            models[name] = sounds.load(path, name, step)
        except WorkdirError as error:
            if not (path / CONFIG_FILE).is_file() or (path / CHECKPOINTS_FOLDER).is_dir():
                raise
            print(f"{error}: only its training is shown")
    page = serve(models, {name: path for name, path in folders.items() if path.is_dir()}, host, port, share)
    print(f"TechnoGen plays at {page.local_url}" + (" (Ctrl-C ends it)" if block else ""), flush=True)
    if block:
        page.block_thread()
    return page


def serve(
    models: Mapping[str, sounds.PlayableModel],
    runs: Mapping[str, pathlib.Path],
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
) -> gr.Blocks:
    """Builds the page, serves it in the background and returns it."""
    files = temporary_files.TemporaryFiles()
    page = build(models, runs, files)
    page.launch(
        server_name=host,
        server_port=port,
        share=share,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        height=900,
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=_asset("page.css"),
        app_kwargs={"middleware": [Middleware(request_filter.RequestFilter)], "routes": _routes(runs, files)},
    )
    return page


def build(
    models: Mapping[str, sounds.PlayableModel], runs: Mapping[str, pathlib.Path], files: temporary_files.TemporaryFiles
) -> gr.Blocks:
    """Returns the page, not yet served.

    Args:
        models: models that can be played, by name.
        runs: workdirs whose training is shown, by name.
        files: storage for downloads.
    """
    with gr.Blocks(title="TechnoGen", analytics_enabled=False, fill_width=True) as page:
        with gr.Tabs(selected=None if models else "training"):
            with gr.Tab("Play", id="play", visible=bool(models)):
                gr.HTML(
                    html_template=_asset("page.html"),
                    js_on_load=_asset("loop.js") + _asset("page.js"),
                    apply_default_css=False,
                    models=[_describe(model) for model in models.values()],
                    limits={"move": sounds.FARTHEST, "minutes": sounds.MOST_MINUTES},
                )
            with gr.Tab("Training", id="training", visible=bool(runs)):
                _add_training_tab(runs)
        loop, file = functools.partial(_loop, models), functools.partial(_file, models, files)
        # Rendering a file takes seconds: files and loops have separate queues, so that loops stay fast.
        gr.api(_with_client_errors(loop), api_name="loop", concurrency_limit=1, concurrency_id="loop")
        gr.api(_with_client_errors(file), api_name="file", concurrency_limit=1, concurrency_id="file")
    return page.queue(max_size=WAITING, default_concurrency_limit=1)


def _with_client_errors(function):
    """Wraps a function so that its refusals reach the client as a message and not as a server error."""

    def answer(asked: dict) -> dict:
        try:
            return function(asked)
        except (sounds.RequestError, temporary_files.StorageFullError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    return answer


def _describe(model: sounds.PlayableModel) -> dict:
    """Returns the properties of a model that the page needs."""
    gan = model.trained.gan
    tempo = [share * model.bpm for share in sounds.TEMPO_SHARES] if model.bpm else None
    return {
        "name": model.name,
        "step": model.trained.step,
        "classes": list(gan.classes),
        "moves": len(model.directions),
        "bpm": model.bpm,
        "tempo": tempo,
        "bars": gan.endless.bars if gan.endless else None,
    }


def _loop(models, asked) -> dict:
    """Returns a loop as base64: 16-bit interleaved samples, and a spectrogram of one byte a point, lowest band first."""
    sound = sounds.read_sound(asked, models)
    clip, rate_hz = sounds.loop_of(sound), sound.model.trained.config.audio.sample_rate_hz
    low, high = _PICTURE_DB
    levels = np.clip((spectrogram_images.mel_db(clip, rate_hz) - low) / (high - low), 0, 1)  # [M, N]
    return {
        "pcm": base64.b64encode(audio_files.to_int16(clip).tobytes()).decode(),
        "samples": clip.shape[0],
        "channels": clip.shape[1],
        "rate_hz": rate_hz,
        "picture": base64.b64encode(np.rint(255 * levels).astype(np.uint8).tobytes()).decode(),
        "frames": levels.shape[1],
    }


def _file(models, files, asked) -> dict:
    """Renders a loop or a track into a file and returns its download address."""
    names = ("sound", "format", "bpm", "minutes")
    if not isinstance(asked, dict) or set(asked) != set(names):
        raise sounds.RequestError(f"file: expected the fields {', '.join(names)}")
    sound = sounds.read_sound(asked["sound"], models)
    if asked["format"] not in sounds.FORMATS:
        raise sounds.RequestError(f"format: expected one of {', '.join(sounds.FORMATS)}")
    bpm = sounds.read_tempo(asked["bpm"], sound.model)
    minutes = asked["minutes"]
    if minutes is not None:
        minutes = sounds.number("minutes", minutes, 0.1, sounds.MOST_MINUTES)
    shape = sound.model.trained.config.audio
    seconds = minutes * 60 + 10 if minutes else 2 * shape.clip_samples / shape.sample_rate_hz
    words = [str(sound.start.seed), *([f"to {sound.end.seed}"] if sound.end else []), *(["track"] if minutes else [])]
    words += [f"{tempo:.0f} bpm"] if (tempo := bpm or sound.model.bpm) else []
    name = "-".join(f"technogen {' '.join(words)}".split()) + f".{asked['format']}"
    most_bytes = round(seconds * shape.sample_rate_hz) * shape.channels * 2 + 4096
    token = files.put(name, most_bytes, lambda path: sounds.write(sound, path, bpm, minutes))
    return {"address": f"download/{token}", "name": name}


def _routes(runs, files) -> list[Route]:
    def download(request: Request) -> Response:
        item = files.find(request.path_params["token"])
        if item is None:
            return PlainTextResponse("This file has expired; make it again.", 404)
        return FileResponse(item.path, filename=item.name, headers={"cache-control": "no-store"})

    def preview(request: Request) -> Response:
        asked = request.path_params
        path = training_view.preview_file(runs, asked["run"], asked["step"], f".{asked['kind']}")
        return FileResponse(path) if path else PlainTextResponse("This preview does not exist.", 404)

    return [Route("/download/{token}", download), Route("/preview/{run}/{step}.{kind}", preview)]


def _add_training_tab(runs: Mapping[str, pathlib.Path]) -> None:
    """Adds the training tab: curves, and the newest or an earlier preview."""
    run = gr.Dropdown(list(runs), value=next(iter(runs), None), label="Run", visible=len(runs) > 1)
    shown = gr.HTML(apply_default_css=False)
    back = gr.Slider(0, 1, step=1, value=0, label="Earlier previews")
    charts = {}
    with gr.Row():
        for title in training_view.CHARTS:
            charts[title] = gr.LinePlot(
                x="step", y="value", color="curve", title=title, x_title="step", y_title=" ", height=240, min_width=320
            )

    def look(name: str, ago: float):
        if name not in runs:
            raise gr.Error("run: expected one of the listed runs", print_exception=False)
        steps = training_view.previews(runs[name])
        ago = int(sounds.number("ago", ago, 0, 1e6))
        step = steps[-1 - min(ago, len(steps) - 1)] if steps else None
        frames = [
            pandas.DataFrame(points, columns=["step", "value", "curve"])
            for points in training_view.curves(runs[name]).values()
        ]
        return _preview(name, step), gr.Slider(maximum=max(len(steps) - 1, 1)), *frames

    outputs = [shown, back, *charts.values()]
    asks = dict(inputs=[run, back], outputs=outputs, show_progress="hidden", queue=True, concurrency_limit=1)
    gr.Timer(REFRESH_S).tick(look, api_visibility="private", trigger_mode="once", **asks)
    gr.on([run.input, back.release], look, api_visibility="private", trigger_mode="always_last", **asks)


def _preview(name: str, step: int | None) -> str:
    if step is None:
        return "<p class='quiet'>No preview yet.</p>"
    at = html.escape(f"preview/{urllib.parse.quote(name)}/{step}")
    return (
        f"<figure><figcaption>Step {step:,}</figcaption><img src='{at}.png' alt='spectrograms of step {step}'>"
        f"<audio controls preload='none' src='{at}.wav'></audio></figure>"
    )


@functools.cache
def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
