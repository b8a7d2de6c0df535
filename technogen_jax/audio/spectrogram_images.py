"""Pictures of audio: mel spectrograms as arrays, as small images for TensorBoard, and as a labelled contact sheet.

matplotlib is imported here and nowhere else, inside the functions, and without pyplot: nothing needs a display.
"""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Sequence

import numpy as np

from technogen_jax.common import atomic_files

MEL_FMIN_HZ = 30.0  # below a kick's fundamental
N_MELS = 96
DB_RANGE = (-80.0, 0.0)  # 0 dB is about a sine at full scale
_COLOURS = "magma"
_MOST_FRAMES = 400  # of one picture; longer audio has a longer hop, it is not averaged
_TITLE_LETTERS = 42
_TICKS_HZ = (200, 500, 1000, 2000, 5000, 10000, 20000)


def mel_db(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Returns the mel spectrogram of the channels' mean, `[N_MELS, N]` float32 in dB, from 30 Hz to half the rate.

    The window is about 50 ms; the hop gives at most 400 frames, and a short clip not more than a sixteenth of a window.
    0 dB is about a sine at full scale; the floor is -100 dB.

    Args:
        audio: `[T, C]` in [-1, 1], T at least 1.
        sample_rate_hz: its rate.

    Raises:
        ValueError: audio of another shape or without samples.
    """
    if audio.ndim != 2 or not len(audio):
        raise ValueError(f"expected audio [T, C] with T at least 1, got shape {audio.shape}")
    mono = audio.mean(axis=1, dtype=np.float32)
    n_fft, hop_length = frame_sizes(len(mono), sample_rate_hz)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)  # periodic Hann
    padded = np.pad(mono, n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]  # [N, n_fft]
    power = np.abs(np.fft.rfft(frames * window)) ** 2 / (window.sum() / 2) ** 2
    mel = mel_filters(sample_rate_hz, n_fft) @ power.T
    return (10 * np.log10(np.maximum(mel, 1e-10))).astype(np.float32)


def frame_sizes(samples: int, sample_rate_hz: int) -> tuple[int, int]:
    """Returns (n_fft, hop_length) that `mel_db` uses for a clip of this length."""
    n_fft = max(64, 1 << round(np.log2(0.05 * sample_rate_hz)))
    return n_fft, max(n_fft // 16, -(-samples // _MOST_FRAMES))


@functools.cache
def mel_filters(sample_rate_hz: int, n_fft: int) -> np.ndarray:
    """`[N_MELS, n_fft // 2 + 1]` triangles of height 1 on Slaney's mel scale: librosa's with `norm=None`.

    They are written out because importing librosa takes longer than drawing a contact sheet.
    """
    edges_hz = _mel_edges_hz(sample_rate_hz)[:, None]
    bins_hz = np.fft.rfftfreq(n_fft, 1 / sample_rate_hz)
    rising = (bins_hz - edges_hz[:-2]) / (edges_hz[1:-1] - edges_hz[:-2])
    falling = (edges_hz[2:] - bins_hz) / (edges_hz[2:] - edges_hz[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def mel_image(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Returns `mel_db` in colour, low frequencies at the bottom: uint8 `[2 * N_MELS, N, 3]`, for TensorBoard."""
    import matplotlib

    low, high = DB_RANGE
    levels = np.clip((mel_db(audio, sample_rate_hz) - low) / (high - low), 0, 1)
    picture = matplotlib.colormaps[_COLOURS](levels[::-1], bytes=True)[..., :3]
    return np.ascontiguousarray(np.repeat(picture, 2, axis=0))


def png(image: np.ndarray) -> bytes:
    """Returns an image as the bytes of a PNG file, uint8 `[H, W, 3]`."""
    import matplotlib.image

    content = io.BytesIO()
    matplotlib.image.imsave(content, image, format="png")
    return content.getvalue()


def write_contact_sheet(
    path: str | os.PathLike,
    clips: Sequence[np.ndarray],
    sample_rate_hz: int,
    titles: Sequence[str] | None = None,
    columns: int = 4,
    heading: str | None = None,
    bars: float | None = None,
    note: str | None = None,
) -> None:
    """Writes a PNG with a mel spectrogram of each clip, all on one scale; the file is written completely or not at all.

    Args:
        path: the file.
        clips: `[T, C]` each, in [-1, 1], at least one.
        sample_rate_hz: their rate.
        titles: one a clip; cut to what fits.
        columns: pictures beside each other.
        heading: above all of them.
        bars: bars of four beats in a clip that begins at a bar: lines show bars (bright) and beats (dim); None: no lines.
        note: below the heading: what to look for.

    Raises:
        ValueError: no clips, or another number of titles.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not len(clips):
        raise ValueError("a contact sheet needs at least one clip")
    if titles is not None and len(titles) != len(clips):
        raise ValueError(f"expected one title a clip, got {len(titles)} titles for {len(clips)} clips")
    columns = min(columns, len(clips))
    rows = -(-len(clips) // columns)
    figure = Figure(figsize=(3.2 * columns + 1, 2.2 * rows + 0.6), dpi=100)
    FigureCanvasAgg(figure)
    height = figure.get_figheight()
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=0.6 / figure.get_figwidth(),
        right=0.93,
        bottom=0.45 / height,
        top=1 - (0.9 if note else 0.65) / height,
        wspace=0.22,
        hspace=0.45,
    )
    if heading:
        figure.suptitle(_drawable(heading), fontsize=11, y=1 - 0.12 / height, va="top")
    if note:
        figure.text(0.5, 1 - 0.38 / height, _drawable(note), fontsize=8, ha="center", va="top")
    for index, axis in enumerate(axes.flat):
        if index >= len(clips):
            axis.set_axis_off()
            continue
        image = _draw_spectrogram(axis, clips[index], sample_rate_hz)
        if bars:
            _draw_beats(axis, bars, len(clips[index]) / sample_rate_hz)
        if titles is not None:
            title = _drawable(titles[index])
            axis.set_title(title if len(title) <= _TITLE_LETTERS else "…" + title[1 - _TITLE_LETTERS :], fontsize=7)
        if index % columns == 0:
            axis.set_ylabel("Hz", fontsize=7)
        if index + columns >= len(clips):
            axis.set_xlabel("s", fontsize=7)
    bar = figure.colorbar(image, ax=list(axes.flat), pad=0.01, fraction=0.02)
    bar.set_label("dB, 0 is a sine at full scale", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # names in scripts that the font lacks are drawn as boxes
        figure.savefig(png, format="png")
    with atomic_files.replacing(path, synced=False) as temporary:
        temporary.write_bytes(png.getvalue())


def _draw_spectrogram(axis, clip: np.ndarray, sample_rate_hz: int):
    """Draws a mel spectrogram with its axes; returns the image."""
    image = axis.imshow(
        mel_db(clip, sample_rate_hz),
        origin="lower",
        aspect="auto",
        cmap=_COLOURS,
        vmin=DB_RANGE[0],
        vmax=DB_RANGE[1],
        extent=(0, len(clip) / sample_rate_hz, -0.5, N_MELS - 0.5),
    )
    centres_hz = _mel_edges_hz(sample_rate_hz)[1:-1]
    ticks_hz = [tick for tick in _TICKS_HZ if centres_hz[0] <= tick <= centres_hz[-1]]
    bands = np.interp(ticks_hz, centres_hz, np.arange(N_MELS))
    axis.set_yticks(bands, [f"{tick // 1000}k" if tick >= 1000 else str(tick) for tick in ticks_hz])
    axis.tick_params(labelsize=6)
    return image


def _draw_beats(axis, bars: float, seconds: float) -> None:
    """Draws a line at each beat of a picture, and a brighter one with a mark at each bar."""
    for beat in range(round(4 * bars)):
        first = beat % 4 == 0
        place = beat * seconds / (4 * bars)
        axis.axvline(place, color="white", linewidth=1.2 if first else 0.5, alpha=0.9 if first else 0.45)
        if first:
            axis.plot(
                place, N_MELS - 0.5, marker="v", color="white", markeredgecolor="black", markersize=6, clip_on=False
            )


def _drawable(text: str) -> str:
    """Returns a text without characters that matplotlib would read as markup or cannot draw."""
    return "".join(character if character.isprintable() else "?" for character in text).replace("$", r"\$")


def _mel_edges_hz(sample_rate_hz: int) -> np.ndarray:
    """The `N_MELS + 2` edges of the triangles: linear below 1 kHz, logarithmic above (Slaney's Auditory Toolbox)."""
    log_step = np.log(6.4) / 27

    def to_mel(hz):
        return hz * 3 / 200 if hz < 1000 else 15 + np.log(hz / 1000) / log_step

    mels = np.linspace(to_mel(MEL_FMIN_HZ), to_mel(sample_rate_hz / 2), N_MELS + 2)
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(log_step * (mels - 15)))
