"""The blind listening test: is it human? Pairs of real and generated loops, heard in a browser, and what the answers say."""
