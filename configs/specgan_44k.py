"""SpecGAN for eight seconds of 44.1 kHz: 1,379 frames of 512 bins, mono or stereo.

    python -m data_prep.prepare --input TRACKS --output data/44k
    python -m technogen_jax.train --config configs/specgan_44k.py --workdir runs/specgan_44k --config.data.dir=data/44k

For stereo: --config configs/specgan_44k.py:stereo, with a dataset prepared with --channels 2.

The idea: frames of 23 ms, seven layers instead of five, a quarter of the paper's width, trained as
configs/wavegan_44k.py. Phases come from 64 iterations of the fast Griffin-Lim algorithm, which came
nearest to the spectrum among the settings tried on clips of 16 kHz with this n_fft and hop_length.

Cost, counted by XLA at batch 16: 22.0 + 17.5 million parameters, 4.7 GMAC for a forward pass of
either network, 3.2 TFLOP a step, 5.0 GB of memory (as compiled for a CPU). It has not been timed on
a GPU.
Expected result: unknown; it was not trained to the end here. It builds and compiles. Also try
--config.model.channels=8 (6.6 + 4.4 million parameters, 0.8 TFLOP), or mel bands instead of bins:
--config.model.n_mels=128 --config.model.channels=32 (13.5 + 4.4 million, 2.1 TFLOP).
"""

from ml_collections import ConfigDict

from configs import specgan

AUDIO_CHANNELS = {"mono": 1, "stereo": 2}


def get_config(sound: str = "mono") -> ConfigDict:
    if sound not in AUDIO_CHANNELS:
        raise ValueError(f"configs/specgan_44k.py:{sound}: expected mono or stereo after the colon")
    config = specgan.get_config("relativistic").unlock()
    config.audio.sample_rate_hz = 44100
    config.audio.channels = AUDIO_CHANNELS[sound]
    config.audio.clip_samples = 8 * 44100
    config.model.channels = 16  # doubles in seven layers to 1,024
    config.model.n_fft = 1024
    config.model.hop_length = 256
    config.model.iterations = 64
    config.model.momentum = 0.99
    config.train.batch_size = 16
    return config.lock()
