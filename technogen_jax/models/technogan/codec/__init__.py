"""The codec of TechnoGAN: audio to sequences of sixteenth notes and back."""
