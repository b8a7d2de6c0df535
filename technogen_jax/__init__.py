"""Trains GANs on techno and makes new sound from them; the commands are `train` and `sample`."""
