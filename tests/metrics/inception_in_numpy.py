"""The FID network written out in NumPy, in float64, from its published description.

No line of it is shared with dig_jax: convolutions are sums over the kernel's places,
batch normalization is not folded, blocks name their weights one by one.
"""

import numpy as np

Weights = dict[str, np.ndarray]


def resize_by_definition(
    image: np.ndarray, size: int, *, half_pixel: bool
) -> np.ndarray:
    """[row, col, channel] to [size, size, channel], bilinear, one value at a time."""
    out = np.zeros((size, size, image.shape[2]))

    def neighbours(i: int, length: int) -> tuple[int, int, float]:
        place = i * length / size
        if half_pixel:
            place = max((i + 0.5) * length / size - 0.5, 0.0)
        low = int(np.floor(place))
        return low, min(low + 1, length - 1), place - low

    for i in range(size):
        top, bottom, down = neighbours(i, image.shape[0])
        for j in range(size):
            left, right, along = neighbours(j, image.shape[1])
            out[i, j] = (
                (1 - down) * (1 - along) * image[top, left]
                + (1 - down) * along * image[top, right]
                + down * (1 - along) * image[bottom, left]
                + down * along * image[bottom, right]
            )
    return out


def inception_in_numpy(
    w: Weights, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pooled features, logits without bias and spatial features of [batch, ...]."""
    x = unit(w, "Conv2d_1a_3x3", x, stride=2, pad=False)
    x = unit(w, "Conv2d_2a_3x3", x, pad=False)
    x = unit(w, "Conv2d_2b_3x3", x)
    x = max_pool(x, stride=2)
    x = unit(w, "Conv2d_3b_1x1", x)
    x = unit(w, "Conv2d_4a_3x3", x, pad=False)
    x = max_pool(x, stride=2)
    x = block_a(w, "Mixed_5b", x)
    x = block_a(w, "Mixed_5c", x)
    x = block_a(w, "Mixed_5d", x)
    x = block_b(w, "Mixed_6a", x)
    x = block_c(w, "Mixed_6b", x)
    x = block_c(w, "Mixed_6c", x)
    x = block_c(w, "Mixed_6d", x)
    spatial = x[:, :, :, :7].reshape(len(x), -1)
    x = block_c(w, "Mixed_6e", x)
    x = block_d(w, "Mixed_7a", x)
    x = block_e(w, "Mixed_7b", x, average_pool)
    x = block_e(w, "Mixed_7c", x, lambda h: max_pool(pad_with(h, -np.inf), stride=1))
    pool = x.mean(axis=(1, 2))
    return pool, pool @ w["fc.weight"].T.astype(float), spatial


def unit(
    w: Weights, name: str, x: np.ndarray, *, stride: int = 1, pad: bool = True
) -> np.ndarray:
    """Convolution, batch normalization, ReLU."""
    kernel = w[f"{name}.conv.weight"].astype(float)  # [out, in, row, col]
    rows, cols = kernel.shape[2:]
    if pad:
        r, c = rows // 2, cols // 2
        x = np.pad(x, ((0, 0), (r, r), (c, c), (0, 0)))
    height, width = (x.shape[1] - rows) // stride + 1, (x.shape[2] - cols) // stride + 1
    out = np.zeros((len(x), height, width, len(kernel)))
    for i in range(rows):
        for j in range(cols):
            seen = x[
                :, i : i + stride * height : stride, j : j + stride * width : stride
            ]
            out += seen[:, :height, :width] @ kernel[:, :, i, j].T
    gamma, beta, mean, var = (
        w[f"{name}.bn.{part}"].astype(float)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return np.maximum((out - mean) / np.sqrt(var + 0.001) * gamma + beta, 0)


def pad_with(x: np.ndarray, value: float) -> np.ndarray:
    return np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


def max_pool(x: np.ndarray, stride: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    return windows[:, ::stride, ::stride].max(axis=(-2, -1))


def average_pool(x: np.ndarray) -> np.ndarray:
    """The mean leaves out what is outside of the image."""
    windows = np.lib.stride_tricks.sliding_window_view(
        pad_with(x, np.nan), (3, 3), (1, 2)
    )
    return np.nanmean(windows, axis=(-2, -1))


def block_a(w: Weights, b: str, x: np.ndarray) -> np.ndarray:
    one = unit(w, f"{b}.branch1x1", x)
    five = unit(w, f"{b}.branch5x5_1", x)
    five = unit(w, f"{b}.branch5x5_2", five)
    three = unit(w, f"{b}.branch3x3dbl_1", x)
    three = unit(w, f"{b}.branch3x3dbl_2", three)
    three = unit(w, f"{b}.branch3x3dbl_3", three)
    pooled = unit(w, f"{b}.branch_pool", average_pool(x))
    return np.concatenate([one, five, three, pooled], axis=3)


def block_b(w: Weights, b: str, x: np.ndarray) -> np.ndarray:
    three = unit(w, f"{b}.branch3x3", x, stride=2, pad=False)
    double = unit(w, f"{b}.branch3x3dbl_1", x)
    double = unit(w, f"{b}.branch3x3dbl_2", double)
    double = unit(w, f"{b}.branch3x3dbl_3", double, stride=2, pad=False)
    return np.concatenate([three, double, max_pool(x, stride=2)], axis=3)


def block_c(w: Weights, b: str, x: np.ndarray) -> np.ndarray:
    one = unit(w, f"{b}.branch1x1", x)
    seven = unit(w, f"{b}.branch7x7_1", x)
    seven = unit(w, f"{b}.branch7x7_2", seven)
    seven = unit(w, f"{b}.branch7x7_3", seven)
    double = unit(w, f"{b}.branch7x7dbl_1", x)
    double = unit(w, f"{b}.branch7x7dbl_2", double)
    double = unit(w, f"{b}.branch7x7dbl_3", double)
    double = unit(w, f"{b}.branch7x7dbl_4", double)
    double = unit(w, f"{b}.branch7x7dbl_5", double)
    pooled = unit(w, f"{b}.branch_pool", average_pool(x))
    return np.concatenate([one, seven, double, pooled], axis=3)


def block_d(w: Weights, b: str, x: np.ndarray) -> np.ndarray:
    three = unit(w, f"{b}.branch3x3_1", x)
    three = unit(w, f"{b}.branch3x3_2", three, stride=2, pad=False)
    seven = unit(w, f"{b}.branch7x7x3_1", x)
    seven = unit(w, f"{b}.branch7x7x3_2", seven)
    seven = unit(w, f"{b}.branch7x7x3_3", seven)
    seven = unit(w, f"{b}.branch7x7x3_4", seven, stride=2, pad=False)
    return np.concatenate([three, seven, max_pool(x, stride=2)], axis=3)


def block_e(w: Weights, b: str, x: np.ndarray, pool) -> np.ndarray:
    one = unit(w, f"{b}.branch1x1", x)
    three = unit(w, f"{b}.branch3x3_1", x)
    three_a = unit(w, f"{b}.branch3x3_2a", three)
    three_b = unit(w, f"{b}.branch3x3_2b", three)
    double = unit(w, f"{b}.branch3x3dbl_1", x)
    double = unit(w, f"{b}.branch3x3dbl_2", double)
    double_a = unit(w, f"{b}.branch3x3dbl_3a", double)
    double_b = unit(w, f"{b}.branch3x3dbl_3b", double)
    pooled = unit(w, f"{b}.branch_pool", pool(x))
    branches = [one, three_a, three_b, double_a, double_b, pooled]
    return np.concatenate(branches, axis=3)
