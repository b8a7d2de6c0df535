"""Audio files and signal processing, without models.

audio_files          reads, resamples and writes audio files
audio_folders        finds the audio files in a folder
ffmpeg_decoder       the files that need FFmpeg's libraries
containers           lengths and joined files, from the bytes of a file
channels             from any channel layout to mono or stereo
loudness             loudness after ITU-R BS.1770
spectral             short-time spectra, mel bands, Griffin-Lim and a limiter, in JAX
spectral_distance    energy distance between sounds, a loss
spectrogram_images   mel spectrograms as pictures
corruptions          known faults put into audio, for metrics and listening tests
"""
