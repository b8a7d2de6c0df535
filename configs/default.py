"""Every field there is, with its unit and its reason. Other configs only override; a diff is the experiment."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    config = ConfigDict()
    config.seed = 0  # of parameters, latents, shuffling and crops: the same seed gives the same run

    config.audio = ConfigDict()
    config.audio.sample_rate_hz = 16000  # must be the prepared set's
    config.audio.channels = 1  # 1 or 2; must be the prepared set's
    config.audio.clip_samples = 16384  # the model's window; a longer record is cropped to it

    config.data = ConfigDict()
    config.data.dir = placeholder(str)  # the folder that data_prep.prepare wrote
    config.data.split = "train"
    config.data.crop = "random"  # of records longer than the window: "random", or "start" for always the beginning
    config.data.rotate = 0  # codes are rolled around their loop by random multiples of so many rows; 0: as they are
    config.data.read_threads = 2  # threads that read and decode records ahead of the device
    # All clips (or codes) in the devices' memory: always, never, or auto: on accelerators, where it takes a tenth at most. A CPU
    # has nothing to gain: its memory is where the clips come from.
    config.data.resident = "auto"

    config.model = ConfigDict()
    config.model.name = "wavegan"  # a key of technogen_jax.models.MODELS; the rest are arguments of its build()
    config.model.latent_size = 100
    config.model.channels = 64  # width nearest the audio, doubling inwards
    config.model.max_channels = placeholder(int)  # where the doubling stops; None: never
    config.model.upsample = "transpose"  # or "nearest"
    config.model.batch_norm = False  # not together with a gradient penalty
    config.model.phase_shuffle = 2  # samples; 0: off
    config.model.post_filter = False  # a learnt filter of 512 taps after the generator
    config.model.form = "polyphase"  # how convolutions are computed; "plain" is slower and the same
    config.model.dtype = "float32"  # or "bfloat16": of the inner layers' arithmetic, for accelerators
    config.model.remat = 0  # clips that the networks treat at a time, for less memory and more time; 0: the whole batch

    config.loss = ConfigDict()
    config.loss.adversarial = "wgan"  # wgan, dcgan, lsgan, hinge or relativistic
    config.loss.gp_weight = 10.0  # WGAN-GP's penalty
    config.loss.r1_weight = 0.0  # gamma of the zero-centred penalty on reals
    config.loss.r2_weight = 0.0  # the same on fakes
    config.loss.penalty_share = (
        1.0  # of a batch, the share that the penalties are taken of, which cost twice what all else does
    )
    config.loss.weight_clip = 0.0  # largest magnitude of the discriminator's weights; 0: no limit

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # or "rmsprop"
    config.optimizer.learning_rate_g = 1e-4
    config.optimizer.learning_rate_d = 1e-4
    config.optimizer.tail = 0.0  # share of train.steps, the last ones, in which the rates fall to zero by half a cosine
    config.optimizer.b1 = 0.5  # Adam's first moment
    config.optimizer.b2 = 0.9  # second moment, in RMSProp too
    config.optimizer.largest_update = 0.0  # root mean square of an array's update, in learning rates; 0: no limit

    config.train = ConfigDict()
    config.train.steps = (
        200_000  # generator updates in all; a run stops there and can be continued with a larger number
    )
    config.train.minutes = placeholder(float)  # of this start: then it saves and ends, to be continued; None: no limit
    config.train.init_from = placeholder(str)  # workdir whose weights a new run starts with, the model being the same
    config.train.batch_size = 64  # clips a discriminator update, over all devices
    config.train.shard_parameters = False  # each device holds a share of the weights, for those too large for one
    config.train.n_critic = 5  # discriminator updates for each generator update
    config.train.reuse_fakes = False  # both updates from one batch of fakes: fewer to make; n_critic is 1
    config.train.steps_per_dispatch = (
        1  # steps the device is given at once: fewer waits where a step takes milliseconds
    )
    config.train.skip_not_finite = (
        False  # a step whose loss or gradient is NaN or Inf is left out and counted; else it ends the run
    )
    config.train.ema_decay = 0.999  # average of the generator's weights, from which sound is made
    config.train.log_every = 50  # steps between lines of metrics
    config.train.sample_every = 1000  # steps between previews from fixed latents; 0: only at the end
    config.train.sample_clips = 8
    config.train.save_every = 1000  # steps between checkpoints
    config.train.keep_last = 3  # checkpoints kept besides the best one
    config.train.keep_every = 10_000  # and each of these steps for ever; 0: none

    config.eval = ConfigDict()  # of the averaged generator against the valid tracks, while training
    config.eval.every = (
        1000  # steps; a multiple of train.save_every, since eval/mmd_tmr-v1 decides the best checkpoint; 0: never
    )
    config.eval.clips = 256  # generated clips an evaluation, and at most as many real ones
    return config.lock()
