"""Why a training run ends early."""


class TrainError(ValueError):
    """Why training can't start or continue, in one or two lines for the user."""


class StoppedError(Exception):
    """A signal stopped the run before its first step."""
