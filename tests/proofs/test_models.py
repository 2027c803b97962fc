"""The four models are their Gluon twins: one file of weights, the same logits, the same ten steps by every rule."""

import functools

import numpy as np
import pytest
from proof import difference

from tinymnist import loss, models, ops
from tinymnist.backend import autograd, mx, nd
from tinymnist.optim import Optimizer

nn = mx.gluon.nn


def stack(*blocks):
    net = nn.Sequential()
    net.add(*blocks)
    return net


def gluon_softmax_regression():
    return stack(nn.Dense(10))


def gluon_mlp(hidden=(128, 64), activation="relu"):
    inner = [block for units in hidden for block in (nn.Dense(units), nn.Activation(activation))]
    return stack(*inner, nn.Dense(10))


def gluon_lenet(filters=(20, 50), kernels=(5, 5), hidden=500, activation="tanh", output_activation=None):
    """As published, with the activation before the pooling"""
    inner = []
    for count, kernel in zip(filters, kernels):
        inner += [nn.Conv2D(count, kernel), nn.Activation(activation), nn.MaxPool2D(2)]
    last = [nn.Activation(output_activation)] if output_activation else []
    return stack(*inner, nn.Flatten(), nn.Dense(hidden), nn.Activation(activation), nn.Dense(10), *last)


def gluon_dropout_cnn(rate=0.5, dropout=nn.Dropout):
    return stack(
        *(nn.Conv2D(10, 5), nn.MaxPool2D(2), nn.Activation("relu")),
        *(nn.Conv2D(20, 5), dropout(rate, axes=(2, 3)), nn.MaxPool2D(2), nn.Activation("relu")),
        *(nn.Flatten(), nn.Dense(50), nn.Activation("relu"), dropout(rate), nn.Dense(10)),
    )


TWINS = [
    (models.softmax_regression, gluon_softmax_regression, {}),
    (models.mlp, gluon_mlp, {}),
    (models.mlp, gluon_mlp, {"hidden": (20, 30, 10), "activation": "sigmoid"}),
    (models.mlp, gluon_mlp, {"hidden": ()}),
    (models.lenet, gluon_lenet, {}),
    (models.lenet, gluon_lenet, {"activation": "relu"}),
    (models.lenet, gluon_lenet, {"filters": (4, 6), "kernels": (3, (5, 4)), "hidden": 30, "activation": "sigmoid"}),
    (models.lenet, gluon_lenet, {"output_activation": "tanh", "filters": (4, 6), "hidden": 30}),
    (models.dropout_cnn, gluon_dropout_cnn, {}),
]
each_twin = pytest.mark.parametrize("make, gluon, how", TWINS)


def batches(count, device, size=32):
    """Images of ten blurred blobs, a kind per label, under noise: a gradient that means something, and changes"""
    rng = np.random.default_rng(5)
    kinds = rng.uniform(size=(10, 1, 7, 7)).repeat(4, 2).repeat(4, 3)
    for _ in range(count):
        labels = rng.integers(0, 10, size)
        images = 0.7 * kinds[labels] + 0.3 * rng.uniform(size=(size, 1, 28, 28))
        yield nd.array(images, device), nd.array(labels, device)


def twins(make, gluon, how, device, tmp_path, dtype="float32"):
    """Our model and Gluon's, with our weights, which travel in a file"""
    ours, theirs = make(**how).initialize(1, device, dtype), gluon(**how)
    nd.save(str(tmp_path / "ours.params"), ours.parameters)
    theirs.cast(dtype)
    theirs.load_parameters(str(tmp_path / "ours.params"), ctx=device)
    return ours, theirs


@each_twin
def test_our_file_makes_the_twin(make, gluon, how, tmp_path, device):
    ours, theirs = twins(make, gluon, how, device, tmp_path)
    ((x, _),) = batches(1, device)
    assert difference(ours(x).asnumpy(), theirs(x).asnumpy()) <= 1e-5


@each_twin
def test_the_twins_file_makes_ours(make, gluon, how, tmp_path, device):
    ours, theirs = make(**how).allocate(device), gluon(**how)
    theirs.initialize(mx.init.Xavier(), ctx=device)
    ((x, _),) = batches(1, device)
    expected = theirs(x)
    theirs.save_parameters(str(tmp_path / "theirs.params"))
    loaded = nd.load(str(tmp_path / "theirs.params"))
    assert list(loaded) == list(ours.parameters)
    for name, value in loaded.items():
        ours.parameters[name][:] = value.as_in_context(device)
    assert difference(ours(x).asnumpy(), expected.asnumpy()) <= 1e-5


RULES = {  # in binary fractions: the built-in kernels hold these numbers in float32 also where the weights are float64
    "sgd": ({"lr": 1 / 8}, "sgd", {"learning_rate": 1 / 8}),
    "momentum": ({"lr": 1 / 32, "momentum": 7 / 8}, "sgd", {"learning_rate": 1 / 32, "momentum": 7 / 8}),
    "adagrad": ({"lr": 1 / 64, "eps": 2**-23}, "adagrad", {"learning_rate": 1 / 64, "eps": 2**-23}),
    "rmsprop": (
        {"lr": 2**-10, "rho": 7 / 8, "eps": 2**-26},
        "rmsprop",
        {"learning_rate": 2**-10, "gamma1": 7 / 8, "epsilon": 2**-26},
    ),
    "adadelta": ({"rho": 7 / 8, "eps": 2**-17}, "adadelta", {"rho": 7 / 8, "epsilon": 2**-17}),
}
# In float64 the two walk ten steps on their own; rounding of 1e-16 grows to 1e-10 at most. In float32 it would do more:
# now and then it decides which of two near-equal pixels is the maximum, or on which side of 0 a ReLU is, and the paths
# part. There each step begins at the same weights; a gradient near 0, divided by its own size, then differs the most.
TOGETHER = {"float64": 1e-10, "float32": 1e-4}


def builtin_rule(name, hyper, dtype):
    """MXNet's optimizer, with states of the dtype of the weights; on its own it makes float32 ones, and raises"""
    rule = mx.optimizer.create(name, **hyper)
    create = rule.create_state

    def create_state(index, weight):
        state = create(index, weight)
        if isinstance(state, tuple):
            return tuple(part.astype(dtype) for part in state)
        return None if state is None else state.astype(dtype)

    rule.create_state = create_state
    return rule


def ten_steps(ours, theirs, rule, dtype, device):
    """Losses and weights of both stay together for ten steps of training on the same batches, from the same seeds."""
    hyper, name, theirs_hyper = RULES[rule]
    optimizer = Optimizer(rule, **hyper)
    trainer = mx.gluon.Trainer(theirs.collect_params(), builtin_rule(name, theirs_hyper, dtype))
    cross_entropy = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    parameters = theirs._collect_params_with_prefix()
    our_losses, their_losses, start = [], [], ours.weights.asnumpy()
    for step, (x, y) in enumerate(batches(10, device, 8)):
        x, y = x.astype(dtype), y.astype(dtype)
        if dtype == "float32":
            for key, value in ours.parameters.items():
                parameters[key].set_data(value)
        mx.random.seed(step)
        with autograd.record():
            our_loss = loss.softmax_cross_entropy(ours(x), y)
        our_loss.backward()
        optimizer.step(ours.weights, ours.gradients)
        mx.random.seed(step)
        with autograd.record():
            their_loss = cross_entropy(theirs(x), y)
        their_loss.backward()
        trainer.step(len(x))
        our_losses.append(our_loss.asscalar())
        their_losses.append(their_loss.mean().asscalar())
        their_weights = np.concatenate([parameters[key].data().asnumpy().ravel() for key in ours.parameters])
        assert difference(ours.weights.asnumpy(), their_weights) <= TOGETHER[dtype]
    assert difference(np.array(our_losses), np.array(their_losses)) <= TOGETHER[dtype]
    assert difference(ours.weights.asnumpy(), start) > 1e-3  # they have moved


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "make, gluon, how",
    [
        (models.softmax_regression, gluon_softmax_regression, {}),
        (models.mlp, gluon_mlp, {}),
        (models.lenet, gluon_lenet, {}),
        (models.dropout_cnn, gluon_dropout_cnn, {"rate": 0}),  # each framework draws its own masks: see below
    ],
    ids=["softmax", "mlp", "lenet", "dropout-cnn"],
)
def test_ten_steps_side_by_side(make, gluon, how, rule, dtype, tmp_path, device):
    ten_steps(*twins(make, gluon, how, device, tmp_path, dtype), rule, dtype, device)


class OurDropout(mx.gluon.Block):
    """Our dropout in Gluon's net, which then sees the masks that ours sees"""

    def __init__(self, rate, axes=()):
        super().__init__()
        self.rate, self.channels = rate, bool(axes)

    def forward(self, x):
        with autograd.pause(train_mode=True):
            mask = nd.ones_like(x)
            if self.channels:
                mask = ops.from_chwn(ops.dropout(ops.to_chwn(mask), self.rate, axes=(1, 2)))
            else:
                mask = ops.dropout(mask, self.rate)
        return x * mask


@pytest.mark.parametrize("rule", RULES)
def test_ten_steps_with_dropout(rule, dtype, tmp_path, device):
    gluon = functools.partial(gluon_dropout_cnn, dropout=OurDropout)
    ten_steps(*twins(models.dropout_cnn, gluon, {}, device, tmp_path, dtype), rule, dtype, device)


def test_dropout_is_drawn_in_training_only(device):
    model = models.dropout_cnn().initialize(1, device)
    ((x, _),) = batches(1, device)
    np.testing.assert_array_equal(model(x).asnumpy(), model(x).asnumpy())
    with autograd.train_mode():
        assert difference(model(x).asnumpy(), model(x).asnumpy()) > 0.01


@pytest.mark.parametrize("make, gluon, how", TWINS)
def test_a_model_remembers_how_it_was_made(make, gluon, how):
    model = make(**how)
    again = getattr(models, model.name)(**model.arguments)
    assert {k: v.shape for k, v in again.allocate().parameters.items()} == {
        k: v.shape for k, v in model.allocate().parameters.items()
    }
    assert how.items() <= model.arguments.items()
    assert model.arguments["image"] == (1, 28, 28)


@pytest.mark.parametrize("name, make", models.MODELS.items())
def test_other_images_and_classes(name, make, device):
    model = make(image=(3, 20, 24), classes=7).initialize(0, device)
    assert model(nd.ones((2, 3, 20, 24), device)).shape == (2, 7)
    with pytest.raises(TypeError):
        make(nonsense=1)


def test_the_sizes_published():
    assert models.softmax_regression().size == 784 * 10 + 10
    assert models.mlp().size == 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    assert models.lenet().size == 20 * 26 + 50 * 501 + 800 * 500 + 500 + 5010
    assert models.dropout_cnn().size == 10 * 26 + 20 * 251 + 320 * 50 + 50 + 510
    assert models.softmax_regression().init == ("normal", 1.0)
    assert all(models.MODELS[name]().init == ("xavier", 3.0) for name in ("mlp", "lenet", "dropout-cnn"))
