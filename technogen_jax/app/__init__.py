"""A web page that plays a trained model: `python -m technogen_jax.app`, or `page.launch` in a notebook.

    page            opens the page: from the command, Python and notebooks
    server          its addresses and the HTTP API
    library         the models and runs, opened in the background
    sounds          requests for sounds, checked, and their rendering
    effects         directions of a model with a known effect on its sound
    queues          a queue in which clients take turns
    renders         files on the way, bounded, and deleted when nobody needs them
    kept_sounds     the user's list of sounds
    training_view   curves and previews of a run
    assets/         what runs in the browser: HTML, CSS and JavaScript modules

Its packages are in requirements-app.txt.
"""
