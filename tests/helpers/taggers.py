"""The networks of musicnn with random weights, and in float64 numpy, written from the paper's description."""

import numpy as np

MUSICNN_KERNELS = [(7, 38, 1, 204), (7, 67, 1, 204), (128, 1, 1, 51), (64, 1, 1, 51), (32, 1, 1, 51)]
MUSICNN_KERNELS += [(7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64)]


def random_musicnn(seed):
    """Arrays of MTT_musicnn by TensorFlow's names, with its shapes."""
    random = np.random.default_rng(seed)
    arrays = {"beta1_power": np.float32(0.9), "conv2d/kernel/Adam": np.zeros(3, np.float32)}  # of the training
    for number, shape in enumerate(MUSICNN_KERNELS):
        name = f"conv2d_{number}" if number else "conv2d"
        arrays |= _layer(random, name, shape) | _normalization(random, number + 1, shape[-1])
    arrays |= _normalization(random, 0, 1) | _normalization(random, 9, 1506) | _normalization(random, 10, 200)
    return arrays | _layer(random, "dense", (1506, 200)) | _layer(random, "dense_1", (200, 50))


def random_vgg(seed):
    """Arrays of MTT_vgg by TensorFlow's names, with its shapes."""
    random = np.random.default_rng(seed)
    arrays = _normalization(random, 0, 1)
    for number in range(1, 6):
        shape = (3, 3, 1 if number == 1 else 128, 128)
        arrays |= _layer(random, f"{number}CNN", shape) | _normalization(random, number, 128)
    return arrays | _layer(random, "dense", (256, 50))


def _layer(random, name, shape):
    kernel = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
    return {f"{name}/kernel": np.float32(kernel), f"{name}/bias": np.float32(0.1 * random.standard_normal(shape[-1]))}


def _normalization(random, number, size):
    name = f"batch_normalization_{number}" if number else "batch_normalization"
    gamma, beta, mean = random.standard_normal((3, size))  # some gammas below zero: the order of pooling matters
    arrays = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": random.uniform(0.5, 2, size)}
    return {f"{name}/{part}": np.float32(array) for part, array in arrays.items()}


def musicnn(arrays, frames):
    """The layer before the tags, `[200]`, of one window `[187, 96]`."""
    x = normalize(arrays, 0, np.float64(frames)[..., None])
    front = []
    for number in range(5):
        high = number < 2
        y = convolve(
            arrays, number, np.pad(x, ((3, 3), (0, 0), (0, 0))) if high else same(x, MUSICNN_KERNELS[number][0])
        )
        front.append(normalize(arrays, number + 1, y).max(axis=1))
    layers = [np.concatenate(front, axis=1)]
    for number in (5, 6, 7):
        padded = np.pad(layers[-1], ((3, 3), (0, 0)))[..., None]
        y = normalize(arrays, number + 1, convolve(arrays, number, padded)[:, 0])
        layers.append(y if number == 5 else y + layers[-1])
    x = np.concatenate(layers, axis=1)
    x = np.array([[column.max(), column.mean()] for column in x.T]).ravel()
    x = normalize(arrays, 9, x) @ arrays["dense/kernel"] + arrays["dense/bias"]
    return normalize(arrays, 10, np.maximum(x, 0))


def vgg(arrays, frames):
    """The layer before the tags, `[256]`, of one window `[187, 96]`."""
    x = normalize(arrays, 0, np.float64(frames)[..., None])
    for number, (high, wide, stride) in enumerate([(4, 1, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (4, 4, 4)], 1):
        y = convolve(arrays, f"{number}CNN", np.pad(x, ((1, 1), (1, 1), (0, 0))))
        views = np.lib.stride_tricks.sliding_window_view(normalize(arrays, number, y), (high, wide), axis=(0, 1))
        x = views[::stride, ::stride].max(axis=(-2, -1))
    return x.ravel()


def same(x, height):
    """Zeros before and after in time, as TensorFlow adds them: one more after."""
    return np.pad(x, (((height - 1) // 2, height // 2), (0, 0), (0, 0)))


def convolve(arrays, number, x):
    """Rectified convolution without padding, `[N, F, C]` to `[N', F', C']`."""
    name = number if isinstance(number, str) else f"conv2d_{number}" if number else "conv2d"
    kernel = np.float64(arrays[f"{name}/kernel"])
    views = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))  # [N', F', C, h, w]
    return np.maximum(np.tensordot(views, kernel, ((3, 4, 2), (0, 1, 2))) + arrays[f"{name}/bias"], 0)


def normalize(arrays, number, x):
    name = f"batch_normalization_{number}" if number else "batch_normalization"
    gamma, beta, mean, variance = (
        np.float64(arrays[f"{name}/{part}"]) for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return gamma * (x - mean) / np.sqrt(variance + 0.001) + beta
