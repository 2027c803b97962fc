"""The four models. A model remembers how it was made (`name`, `arguments`), so that a checkpoint can make it again."""

from __future__ import annotations

import functools
import inspect

from tinymnist.layers import Activation, Conv2D, Dense, Dropout, Flatten, MaxPool2D, Sequential


def remembered(make):
    """`make`, whose model remembers the name and all arguments of the call."""

    @functools.wraps(make)
    def made(**arguments):
        call = inspect.signature(make).bind(**arguments)
        call.apply_defaults()
        model = make(**call.arguments)
        model.name, model.arguments = make.__name__, dict(call.arguments)
        return model

    return made


@remembered
def softmax_regression(*, classes=10, image=(1, 28, 28), init=("normal", 1.0)):
    """dense.   784 → 10"""
    return Sequential(Dense(classes), image=image, init=init)


@remembered
def mlp(*, hidden=(128, 64), activation="relu", classes=10, image=(1, 28, 28), init=("xavier", 3.0)):
    """(dense → activation) for each of `hidden` → dense.   784 → 128 → 64 → 10"""
    inner = [layer for units in hidden for layer in (Dense(units), Activation(activation))]
    return Sequential(*inner, Dense(classes), image=image, init=init)


@remembered
def lenet(
    *,
    filters=(20, 50),
    kernels=(5, 5),
    hidden=500,
    activation="tanh",
    output_activation=None,
    classes=10,
    image=(1, 28, 28),
    init=("xavier", 3.0),
):
    """(conv → max-pool 2 → activation) twice → dense → activation → dense.   LeCun, Bottou, Bengio, Haffner 1998

    The publications put the activation before the pooling. An increasing activation and a maximum change places without
    changing the result, and so a quarter of the activations is enough: 3 times as fast for tanh.
    """
    inner = []
    for count, kernel in zip(filters, kernels):
        inner += [Conv2D(count, kernel), MaxPool2D(2), Activation(activation)]
    head = [Flatten(), Dense(hidden), Activation(activation), Dense(classes)]
    last = [Activation(output_activation)] if output_activation else []
    return Sequential(*inner, *head, *last, image=image, init=init)


@remembered
def dropout_cnn(
    *,
    filters=(10, 20),
    kernels=(5, 5),
    hidden=50,
    activation="relu",
    rate=0.5,
    classes=10,
    image=(1, 28, 28),
    init=("xavier", 3.0),
):
    """conv → pool → activation → conv → channel dropout → pool → activation → dense → activation → dropout → dense

    Pooling is by the maximum, 2 × 2. Dropout of whole channels: J. Tompson et al. 2015.
    """
    return Sequential(
        *(Conv2D(filters[0], kernels[0]), MaxPool2D(2), Activation(activation)),
        *(Conv2D(filters[1], kernels[1]), Dropout(rate, channels=True), MaxPool2D(2), Activation(activation)),
        *(Flatten(), Dense(hidden), Activation(activation), Dropout(rate), Dense(classes)),
        image=image,
        init=init,
    )


MODELS = {"softmax": softmax_regression, "mlp": mlp, "lenet": lenet, "dropout-cnn": dropout_cnn}
