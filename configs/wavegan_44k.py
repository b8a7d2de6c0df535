"""WaveGAN for eight seconds of 44.1 kHz: 352,800 samples, mono or stereo.

    python -m data_prep.prepare --input TRACKS --output data/44k
    python -m technogen_jax.train --config configs/wavegan_44k.py --workdir runs/44k --config.data.dir=data/44k

For stereo: --config configs/wavegan_44k.py:stereo, with a dataset prepared with --channels 2.

The idea: the paper's kernel and stride with seven layers instead of five (22 * 4^7 = 360,448
samples, cropped), and a quarter of its width: at full width the generator would have 289 million
parameters. Eight seconds are four bars at 120 BPM. The relativistic loss with R1 and R2 and one
discriminator update a step costs a third of WGAN-GP with five (1.2 instead of 3.7 TFLOP).

Cost, counted by XLA at batch 16: 19.7 + 17.5 million parameters, 1.8 GMAC for a forward pass of
either network, 1.2 TFLOP a step, 3.6 GB of memory (as compiled for a CPU). It is meant for one
Colab GPU and has not been timed there. On two shared CPU cores a step at batch 2 took 3.3 seconds.
Expected result: unknown; it was not trained to the end here. It builds, steps and fits into memory.
On a larger GPU, try --config.model.channels=32 --config.model.max_channels=512 (18.6 + 17.5 million
parameters, 3.7 TFLOP, 6.2 GB).
"""

from ml_collections import ConfigDict

from configs import wavegan

AUDIO_CHANNELS = {"mono": 1, "stereo": 2}


def get_config(sound: str = "mono") -> ConfigDict:
    if sound not in AUDIO_CHANNELS:
        raise ValueError(f"configs/wavegan_44k.py:{sound}: expected mono or stereo after the colon")
    config = wavegan.get_config("relativistic").unlock()
    config.audio.sample_rate_hz = 44100
    config.audio.channels = AUDIO_CHANNELS[sound]
    config.audio.clip_samples = 8 * 44100
    config.model.channels = 16  # doubles in seven layers to 1,024
    config.train.batch_size = 16
    return config.lock()
