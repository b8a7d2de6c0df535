"""Human music under free licences: the corpus, and the study of models that are trained on it."""
