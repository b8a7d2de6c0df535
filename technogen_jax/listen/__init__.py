"""A blind listening test: can people distinguish generated loops from real ones?

    listening_test  opens a test, serves it, writes its report
    stimuli         pairs of real and generated loops of equal loudness, and controls
    session         the trials of one listener, in order
    server          the web server; a browser never learns which sound is real
    answers         the file of answers
    verdict         accuracies with intervals, and the claim that they allow
    page.html, page.css, page.js   what runs in the browser

Its packages are in requirements-app.txt.
"""
