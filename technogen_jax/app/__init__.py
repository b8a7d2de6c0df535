"""A page to play a trained model: the command is `python -m technogen_jax.app`, in a notebook it is `page.launch`."""
