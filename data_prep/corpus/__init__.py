"""The built-in corpus: techno tracks composed and rendered from a seed."""
