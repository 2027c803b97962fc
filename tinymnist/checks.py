"""Checks of what users pass to train, evaluate, predict and fit. A student can skip this file."""

import numpy as np

from tinymnist.backend import nd
from tinymnist.batches import Split
from tinymnist.idx import DataError
from tinymnist.optim import Optimizer


def check_images(model, images, name="the images"):
    """The images as bytes (N, H, W). A single image (H, W) and other types of whole numbers, 0 to 255, are accepted.

    Raises DataError for anything else, if the largest pixel of the first 100 images is 1, and for a model without
    usable weights.
    """
    if model.weights is None:
        raise DataError(f"{model!r} has no weights yet; call its method initialize first, or load it by tm.resume")
    if model.weights.dtype == np.float16 and model.weights.context.device_type == "cpu":
        raise DataError(f"{model!r} has weights of float16, which MXNet multiplies on a GPU only; use float32")
    channels, size = model.image[0], model.image[1:]
    array = to_numpy(images, name)
    array = array[None] if array.shape == size else array
    found = f"{name} are {array.dtype.name} of the shape {array.shape}"
    if channels != 1 or array.shape[1:] != size or not len(array):
        shape = f"(N, {size[0]}, {size[1]}), N > 0" if channels == 1 else f"{model.image}, and only in a call model(x)"
        raise DataError(f"{found}; the model takes images of the shape {shape}")
    if array.dtype.kind not in "iu":
        raise DataError(f"{found}; pixels are whole numbers from 0 to 255: np.uint8(np.rint(255 * x)) for x in [0, 1]")
    if array.dtype != np.uint8 and not 0 <= array.min() <= array.max() <= 255:
        raise DataError(f"{name} have pixels from {array.min()} to {array.max()}; expected whole numbers from 0 to 255")
    if array[:100].max() == 1:
        raise DataError(f"{name} begin with pixels of 0 and 1 only; expected 0 to 255: multiply them by 255")
    return array if array.dtype == np.uint8 else array.astype(np.uint8)


def check_split(model, split, name="the data"):
    """The Split with bytes (N, H, W) and labels (N,); (N, 1) is accepted. Raises DataError for anything else."""
    if not isinstance(split, (tuple, list)) or len(split) != 2:
        raise DataError(f"{name} must be images and labels, such as tm.load().train, not {type(split).__name__}")
    images, labels = check_images(model, split[0], f"the images of {name}"), to_numpy(split[1], f"the labels of {name}")
    labels = labels.reshape(-1) if labels.shape == (len(images), 1) else labels
    if labels.shape != images.shape[:1]:
        advice = "; use labels.argmax(1)" if labels.shape == (len(images), model.classes) else ""
        found = f"{len(images)} images and labels of the shape {labels.shape}"
        raise DataError(f"{name}: {found}; each image needs one label{advice}")
    wrong = ~np.isin(labels, np.arange(model.classes))
    if wrong.any():
        last = model.classes - 1
        raise DataError(f"{name}: there is a label {labels[wrong][0]}; labels are whole numbers from 0 to {last}")
    return Split(images, labels.astype(np.uint8 if model.classes <= 256 else np.int32))


def check_training(model, optimizer, split, name="the training data"):
    """As check_split. Raises ValueError if the optimizer is not an Optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f'the optimizer must be one such as tm.Optimizer("adagrad", lr=0.05), not {optimizer!r}')
    return check_split(model, split, name)


def to_numpy(array, name):  # `name` is for the message
    try:
        return array.asnumpy() if isinstance(array, nd.NDArray) else np.asanyarray(array)
    except ValueError as error:  # a list of rows that differ in length
        raise DataError(f"{name} are not an array: {error}") from error
