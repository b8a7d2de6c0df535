"""Sound from a trained generator.

generator          loads a generator, draws latents, renders clips
arrangement        tracks of any length: sections to latents of each bar, latents to sound in blocks
latent_directions  the directions of the latent space that change the sound the most
sound_files        clips and tracks as files, with pictures; the same files again from their recipes
recipes            the JSON file beside a sound, from which the sound can be made again
"""
