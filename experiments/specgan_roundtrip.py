"""Measures what SpecGAN's representation keeps of real clips, by encoding and decoding them.

    python -m experiments.specgan_roundtrip --data demo/records [--clips 32] [--output FOLDER]

Prints a table of spectral convergence, || |S| - |S'| || / || |S| ||, as the mean over clips of the valid
split. Each cell: from the magnitudes alone, without normalizing and clipping / through the whole of
encode and decode. Writes the loudest clip and its decoded versions as WAV, and a picture of them.
"""

from __future__ import annotations

import argparse
import pathlib

import jax
import numpy as np

from technogen_jax.audio import audio_files, spectral, spectrogram_images
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.evaluation import clip_sets
from technogen_jax.models import specgan

CLIP_SAMPLES = 16384
DOMAINS = {
    "256 / 128, the paper's": {},
    "512 / 128": dict(n_fft=512),
    "512 / 256": dict(n_fft=512, hop_length=256),
    "1024 / 256, 128 mel bands": dict(n_fft=1024, hop_length=256, n_mels=128),
}
PHASES = [(16, 0.0), (64, 0.0), (16, 0.99), (64, 0.99)]
_BATCH = 16


def magnitudes(clips: np.ndarray, n_fft: int, hop_length: int) -> np.ndarray:
    """Returns `[B, C, N, F]` for clips `[B, T, C]`."""
    return np.abs(np.asarray(spectral.stft(np.moveaxis(clips, -1, 1), n_fft, hop_length, pad_end=True)))


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="a prepared dataset with one channel")
    parser.add_argument("--clips", type=int, default=32, metavar="N", help="real clips (32)")
    parser.add_argument("--output", default=".", metavar="DIR", help="where the WAVs go (here)")
    options = parser.parse_args()
    train, valid = (clip_sets.from_records(options.data, [split], CLIP_SAMPLES) for split in ("train", "valid"))
    rate = train.sample_rate_hz
    audio = AudioConfig(sample_rate_hz=rate, clip_samples=CLIP_SAMPLES)

    def batches():
        stream = [audio_files.from_int16(pcm) for pcm in train.read(range(len(train.ids)))]
        for start in range(0, len(stream), _BATCH):
            yield np.stack(stream[start : start + _BATCH])

    chosen = np.linspace(0, len(valid.ids) - 1, options.clips).astype(int)
    clips = np.stack([audio_files.from_int16(pcm) for pcm in valid.read(chosen)])
    loudest = int(np.argmax(clips.std(axis=(1, 2))))
    folder = pathlib.Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    examples = {"original": clips[loudest]}
    print(f"{'domain':<28}" + "".join(f"{f'{count} x, momentum {share:g}':>22}" for count, share in PHASES))
    for name, fields in DOMAINS.items():
        statistics = specgan.measure(batches(), specgan.SpecGANConfig(**fields), audio)
        n_fft, hop_length = fields.get("n_fft", 256), fields.get("hop_length", 128)
        wanted = magnitudes(clips, n_fft, hop_length)

        def distance(found, n_fft=n_fft, hop_length=hop_length, wanted=wanted):
            difference = np.linalg.norm(magnitudes(found, n_fft, hop_length) - wanted, axis=(2, 3))
            return np.mean(difference / np.linalg.norm(wanted, axis=(2, 3)))

        cells = []
        for iterations, momentum in PHASES:
            config = specgan.SpecGANConfig(iterations=iterations, momentum=momentum, **fields)
            gan = specgan.build(config, audio, statistics)
            bare = np.asarray(spectral.griffin_lim(wanted, n_fft, hop_length, iterations, momentum))[..., :CLIP_SAMPLES]
            decoded = np.asarray(jax.jit(lambda clips, gan=gan: gan.decode(gan.encode(clips)))(clips))
            cells.append(f"{distance(np.moveaxis(bare, 1, -1)):.3f} / {distance(decoded):.3f}")
            if not fields:
                examples[f"decoded_{iterations}" + ("_fast" if momentum else "")] = decoded[loudest]
        print(f"{name:<28}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
    for title, clip in examples.items():
        audio_files.write(folder / f"{title}.wav", clip, rate)
    spectrogram_images.write_contact_sheet(
        folder / "roundtrip.png", list(examples.values()), rate, list(examples), columns=len(examples)
    )


if __name__ == "__main__":
    main()
