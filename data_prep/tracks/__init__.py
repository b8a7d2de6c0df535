"""From tracks on disk to decoded tracks: raw 16-bit PCM at the dataset's rate and level.

find            the audio files below a folder
decode          a track to PCM, and the search for its beats, as jobs of worker processes
levels          wild samples, DC offset, cancelling channels and missing treble of a track
versions        tracks that are the same recording
clip_settings   how a track is cut into clips
tempo           beat grid of a track: tempo, beat and bar
varispeed       sections of a track at the dataset's tempo
"""
