"""tinymnist's models and update rules, built from Gluon's own parts: bench.py and the tests compare the two."""

from tinymnist.backend import mx

nn = mx.gluon.nn


def softmax_regression():
    return [nn.Dense(10)]


def mlp(*, hidden=(128, 64), activation="relu"):
    inner = [layer for units in hidden for layer in (nn.Dense(units), nn.Activation(activation))]
    return [*inner, nn.Dense(10)]


def lenet(*, filters=(20, 50), kernels=(5, 5), hidden=500, activation="tanh", output_activation=None):
    """As published, with the activation before the pooling."""
    layers = []
    for count, kernel in zip(filters, kernels):
        layers += [nn.Conv2D(count, kernel), nn.Activation(activation), nn.MaxPool2D(2)]
    layers += [nn.Flatten(), nn.Dense(hidden), nn.Activation(activation), nn.Dense(10)]
    return layers + ([nn.Activation(output_activation)] if output_activation else [])


def dropout_cnn(*, filters=(10, 20), kernels=(5, 5), hidden=50, activation="relu", rate=0.5, dropout=nn.Dropout):
    layers = [nn.Conv2D(filters[0], kernels[0]), nn.MaxPool2D(2), nn.Activation(activation)]
    layers += [nn.Conv2D(filters[1], kernels[1]), dropout(rate, axes=(2, 3))]
    layers += [nn.MaxPool2D(2), nn.Activation(activation), nn.Flatten(), nn.Dense(hidden), nn.Activation(activation)]
    return [*layers, dropout(rate), nn.Dense(10)]


def cnn(
    *, filters=(16, 32), kernels=(5, 5), strides=(2, 2), hidden=64, activation="relu", rate=0.0, dropout=nn.Dropout
):  # fmt: skip
    layers = []
    for count, kernel, stride in zip(filters, kernels, strides):
        layers += [nn.Conv2D(count, kernel, stride), nn.Activation(activation)]
    layers += [nn.Flatten(), dropout(rate)]
    if hidden:
        layers += [nn.Dense(hidden), nn.Activation(activation), dropout(rate)]
    return [*layers, nn.Dense(10)]


MODELS = {"softmax": softmax_regression, "mlp": mlp, "lenet": lenet, "dropout-cnn": dropout_cnn, "cnn": cnn}


def gluon_network(name, **arguments):
    """The Gluon twin of tinymnist.models.MODELS[name](**arguments). Its parameters have the same names."""
    network = nn.HybridSequential()
    network.add(*MODELS[name](**arguments))
    return network


def gluon_rule(name, hyper):
    """The name and the hyper-parameters that mx.optimizer has for a rule of tinymnist."""
    names = {"lr": "learning_rate", "rho": "gamma1" if name == "rmsprop" else "rho"}
    names["eps"] = "eps" if name == "adagrad" else "epsilon"
    return "sgd" if name == "momentum" else name, {names.get(key, key): value for key, value in hyper.items()}
