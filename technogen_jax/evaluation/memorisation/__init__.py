"""Memorisation: are generated clips copies of the training audio?

    fingerprints    a small image and pairs of spectral peaks of each clip
    image_matching  the best correlation of each image with the training images
    peak_matching   the best share of peak pairs that agree with training audio
    panel           which clips are flagged, by thresholds from held-out real clips
    set_statistics  authenticity, data copying, WaveGAN's distances: figures of whole sets

The panel looks at single clips, the statistics at whole sets. Both need the training audio.
"""
