"""Plays sections of a track faster or slower, so that all bars have the same length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.tracks.tempo import BEATS_PER_BAR, Section
from technogen_jax.audio import audio_files

_MARGIN = 4096  # samples of the file: longer than the resampler's filter


def resample_sections(
    stream: audio_files.Stream, sections: Sequence[Section], bar_samples: float, channels: int
) -> Iterator[np.ndarray]:
    """Yields the sections of a track one after the other, each at the speed that gives its bars one length.

    This is varispeed, as a DJ's pitch fader does it: one resampling from the file's rate, which changes
    the pitch as well. A section has `section.samples(bar_samples)` samples; where the track begins after
    it or ends before it, they are silence. The stream is read to its end.

    Args:
        stream: from `audio_files.open_stream`.
        sections: in order.
        bar_samples: length of a bar in the result; it need not be whole.
        channels: 1 or 2.

    Yields:
        float32 `[T, channels]`, blocks of any length.
    """
    slicer = _StreamSlicer(stream.blocks)
    for index, section in enumerate(sections):
        native = [round(stream.sample_rate_hz * section.time_s(bar)) for bar in (0, section.bars)]
        before = sections[index - 1].time_s(sections[index - 1].bars) * stream.sample_rate_hz if index else 0
        after = sections[index + 1].start_s * stream.sample_rate_hz if index + 1 < len(sections) else math.inf
        # Neighbours share the samples between them, so that the resampler's filter sees what comes before and after.
        first = round(max((before + native[0]) / 2 if index else 0, native[0] - _MARGIN))
        last = round(min((native[1] + after) / 2, native[1] + _MARGIN))
        source_bar = stream.sample_rate_hz * 60 * BEATS_PER_BAR / section.bpm
        part = stream._replace(sample_rate_hz=source_bar, blocks=slicer.take(first, last))
        skip = round((section.start_s * stream.sample_rate_hz - first) * bar_samples / source_bar)
        wanted = section.samples(bar_samples)
        if skip < 0:
            yield np.zeros((min(-skip, wanted), channels), np.float32)
            wanted -= min(-skip, wanted)
        skip = max(0, skip)
        for block in audio_files.resample_blocks(part, bar_samples, channels):
            block, skip = block[skip:], max(0, skip - len(block))
            if len(block) and wanted:
                yield block[:wanted]
                wanted -= min(len(block), wanted)
        if wanted:
            yield np.zeros((wanted, channels), np.float32)
    for _ in slicer.take(0, math.inf):
        pass


class _StreamSlicer:
    """Takes slices from a stream of blocks; none may begin before the end of the one before."""

    def __init__(self, blocks: Iterator[np.ndarray]):
        self._blocks = blocks
        self._block: np.ndarray | None = None
        self._position = 0  # of the first sample of the block

    def take(self, start: int, stop: float) -> Iterator[np.ndarray]:
        """Yields the samples from start to stop in blocks, fewer if the stream ends before."""
        while self._position < stop:
            if self._block is None or not len(self._block):
                self._block = next(self._blocks, None)
                if self._block is None:
                    return
            skip = min(max(0, start - self._position), len(self._block))
            end = int(min(len(self._block), stop - self._position))
            piece, self._block = self._block[skip:end], self._block[max(skip, end) :]
            self._position += max(skip, end)
            if len(piece):
                yield piece
