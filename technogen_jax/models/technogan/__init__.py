"""TechnoGAN: a GAN on sequences of sixteenth notes."""
