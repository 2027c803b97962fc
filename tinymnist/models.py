"""The models. Each remembers its name and its arguments, so that a checkpoint can build it again."""

import functools

from tinymnist.layers import Activation, Conv2D, Dense, Dropout, Flatten, MaxPool2D, Sequential


def record_arguments(make):
    """Give each model that `make` builds the name of `make` and all arguments, defaults included."""

    @functools.wraps(make)
    def build(**arguments):
        model = make(**arguments)
        model.name, model.arguments = make.__name__, {**make.__kwdefaults__, **arguments}
        return model

    return build


def check_convolutions(filters, *others):
    """Raise ValueError unless all have the same length: one entry for each convolution."""
    for other in others:
        if len(other) != len(filters):
            raise ValueError(f"{tuple(filters)} and {tuple(other)} must be equally long: a number for each convolution")


@record_arguments
def softmax_regression(*, classes=10, image=(1, 28, 28), init=("normal", 0.01)):
    """dense.   784 → 10"""
    return Sequential(Dense(classes), image=image, init=init)


@record_arguments
def mlp(*, hidden=(128, 64), activation="relu", classes=10, image=(1, 28, 28), init=("xavier", 3.0)):
    """[dense → activation, for each of `hidden`] → dense.   784 → 128 → 64 → 10"""
    layers = []
    for units in hidden:
        layers += [Dense(units), Activation(activation)]
    return Sequential(*layers, Dense(classes), image=image, init=init)


@record_arguments
def lenet(
    *, filters=(20, 50), kernels=(5, 5), hidden=500, activation="tanh", output_activation=None,
    classes=10, image=(1, 28, 28), init=("xavier", 3.0)
):  # fmt: skip
    """[conv → max-pool 2 → activation, for each of `filters`]
    → dense → activation → dense (→ output_activation, if given)

    After Y. LeCun, L. Bottou, Y. Bengio, P. Haffner 1998. MXNet's tutorials put the activation before the pooling. The
    result is the same, as tanh is increasing, but this order needs fewer activations.
    """
    check_convolutions(filters, kernels)
    layers = []
    for count, kernel in zip(filters, kernels):
        layers += [Conv2D(count, kernel), MaxPool2D(2), Activation(activation)]
    layers += [Flatten(), Dense(hidden), Activation(activation), Dense(classes)]
    if output_activation:
        layers.append(Activation(output_activation))
    return Sequential(*layers, image=image, init=init)


@record_arguments
def dropout_cnn(
    *, filters=(10, 20), kernels=(5, 5), hidden=50, activation="relu", rate=0.5,
    classes=10, image=(1, 28, 28), init=("xavier", 3.0)
):  # fmt: skip
    """conv → max-pool 2 → activation → conv → channel dropout → max-pool 2 → activation
    → dense → activation → dropout → dense

    Dropout of whole channels: J. Tompson et al. 2015.
    """
    if len(filters) != 2:
        raise ValueError(f"dropout_cnn has two convolutions, so it cannot have filters {tuple(filters)}")
    check_convolutions(filters, kernels)
    layers = [Conv2D(filters[0], kernels[0]), MaxPool2D(2), Activation(activation)]
    layers += [Conv2D(filters[1], kernels[1]), Dropout(rate, channels=True), MaxPool2D(2), Activation(activation)]
    layers += [Flatten(), Dense(hidden), Activation(activation), Dropout(rate), Dense(classes)]
    return Sequential(*layers, image=image, init=init)


@record_arguments
def cnn(
    *, filters=(16, 32), kernels=(5, 5), strides=(2, 2), hidden=64, activation="relu", rate=0.0,
    classes=10, image=(1, 28, 28), init=("xavier", 3.0)
):  # fmt: skip
    """[conv → activation, for each of `filters`] → dropout → dense → activation → dropout → dense

    Strides above 1 take the place of pooling: J. Springenberg et al. 2015. hidden=None: only the last dense layer.
    """
    check_convolutions(filters, kernels, strides)
    layers = []
    for count, kernel, stride in zip(filters, kernels, strides):
        layers += [Conv2D(count, kernel, stride=stride), Activation(activation)]
    layers += [Flatten(), Dropout(rate)]
    if hidden:
        layers += [Dense(hidden), Activation(activation), Dropout(rate)]
    return Sequential(*layers, Dense(classes), image=image, init=init)


MODELS = {"softmax": softmax_regression, "mlp": mlp, "lenet": lenet, "dropout-cnn": dropout_cnn, "cnn": cnn}
