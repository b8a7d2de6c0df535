"""A web page that plays a trained model: `python -m technogen_jax.app`, or `page.launch` in a notebook.

    page             the page and its server, on Gradio
    sounds           requests for sounds, checked, and their rendering
    temporary_files  downloads, kept for a quarter of an hour
    training_view    curves and previews of a run
    request_filter   limits the server to the addresses that the page needs
    page.html, page.css, loop.js, page.js   what runs in the browser

Its packages are in requirements-app.txt.
"""
