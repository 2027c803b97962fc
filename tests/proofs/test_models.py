"""All models equal their Gluon twins: the same files of weights, the same logits, the same ten training steps."""

import numpy as np
import pytest
from commands import module
from proof import VARIANTS, difference, numbers

from tinymnist import loss, models, ops, windows
from tinymnist.backend import autograd, mx, nd
from tinymnist.models import MODELS
from tinymnist.optim import Optimizer

gluon = module("gluon_networks")
each_variant = pytest.mark.parametrize("name, arguments", VARIANTS)


def make_batches(count, size, device):
    """Images with one blurred pattern per label, under noise, so that the gradient has a meaning and changes."""
    rng = np.random.default_rng(5)
    patterns = rng.uniform(size=(10, 1, 7, 7)).repeat(4, 2).repeat(4, 3)
    for _ in range(count):
        labels = rng.integers(0, 10, size)
        images = 0.7 * patterns[labels] + 0.3 * rng.uniform(size=(size, 1, 28, 28))
        yield nd.array(images, device), nd.array(labels, device)


def make_twins(name, arguments, device, tmp_path, dtype="float32", **gluons):
    """Our model, and Gluon's with our weights, which it reads from a file."""
    ours = MODELS[name](**arguments).initialize(1, device, dtype)
    theirs = gluon.gluon_network(name, **arguments, **gluons)
    nd.save(str(tmp_path / "ours.params"), ours.parameters)
    theirs.cast(dtype)
    theirs.load_parameters(str(tmp_path / "ours.params"), ctx=device)
    return ours, theirs


@each_variant
def test_weights_go_both_ways_through_files_and_logits_are_equal(name, arguments, tmp_path, device):
    ours, theirs = make_twins(name, arguments, device, tmp_path)
    x = nd.array(numbers("float32", (32, 1, 28, 28)), device)
    assert difference(ours(x).asnumpy(), theirs(x).asnumpy()) <= 1e-5
    theirs.initialize(mx.init.Uniform(0.3), ctx=device, force_reinit=True)
    expected = theirs(x).asnumpy()
    assert difference(ours(x).asnumpy(), expected) > 0.1
    theirs.save_parameters(str(tmp_path / "theirs.params"))
    loaded = nd.load(str(tmp_path / "theirs.params"))
    assert list(loaded) == list(ours.parameters)
    for key, value in loaded.items():
        ours.parameters[key][:] = value.as_in_context(device)
    assert difference(ours(x).asnumpy(), expected) <= 1e-5


RULES = {  # binary fractions: the built-in kernels keep these numbers in float32, even if the weights are float64
    "sgd": {"lr": 1 / 8},
    "momentum": {"lr": 1 / 32, "momentum": 7 / 8},
    "adagrad": {"lr": 1 / 64, "eps": 2**-23},
    "rmsprop": {"lr": 2**-10, "rho": 7 / 8, "eps": 2**-26},
    "adadelta": {"rho": 7 / 8, "eps": 2**-17},
}
# In float64 both take ten steps on their own; a rounding error of 1e-16 grows to 1e-10 at most. In float32 rounding
# can decide which of two nearly equal pixels is the maximum, or on which side of 0 a ReLU is, and the paths separate.
# So there each step starts from the same weights; a gradient near 0, divided by its own size, then differs most.
CLOSE = {"float64": 1e-10, "float32": 1e-4}


def cast(state, dtype):
    if isinstance(state, tuple):
        return tuple(part.astype(dtype) for part in state)
    return None if state is None else state.astype(dtype)


def builtin_rule(rule, dtype):
    """MXNet's optimizer, with states of the dtype of the weights. Without this they are float32, and it raises."""
    name, hyper = gluon.gluon_rule(rule, RULES[rule])
    optimizer = mx.optimizer.create(name, **hyper)
    create_state = optimizer.create_state
    optimizer.create_state = lambda index, weight: cast(create_state(index, weight), dtype)
    return optimizer


class OurDropout(mx.gluon.HybridBlock):
    """Our dropout in Gluon's network, which then has the same masks: they are drawn in our layout, (C, H, W, N)."""

    def __init__(self, rate, axes=()):
        super().__init__()
        self.rate, self.channels = rate, bool(axes)

    def forward(self, x):
        with autograd.pause(train_mode=True):
            mask = nd.ones_like(x)
            if self.channels:
                mask = windows.to_nchw(ops.dropout(windows.to_chwn(mask), self.rate, axes=(1, 2)))
            else:
                mask = ops.dropout(mask, self.rate)
        return x * mask


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", MODELS)
def test_losses_and_weights_are_equal_in_ten_steps(name, rule, dtype, tmp_path, device):
    gluons = {"dropout": OurDropout} if "cnn" in name else {}
    ours, theirs = make_twins(name, {}, device, tmp_path, dtype, **gluons)
    optimizer = Optimizer(rule, **RULES[rule])
    trainer = mx.gluon.Trainer(theirs.collect_params(), builtin_rule(rule, dtype))
    cross_entropy = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    parameters = theirs._collect_params_with_prefix()
    losses, start = [], ours.weights.asnumpy()
    for step, (x, y) in enumerate(make_batches(10, 8, device)):
        x, y = x.astype(dtype), y.astype(dtype)
        if dtype == "float32":
            for key, value in ours.parameters.items():
                parameters[key].set_data(value)
        values = []
        for network, criterion in ((ours, loss.softmax_cross_entropy), (theirs, cross_entropy)):
            mx.random.seed(step)
            with autograd.record():
                value = criterion(network(x), y)
            value.backward()
            values.append(value.mean().asscalar())
        losses.append(values)
        optimizer.step(ours.weights, ours.gradients)
        trainer.step(len(x))
        their_weights = np.concatenate([parameters[key].data().asnumpy().ravel() for key in ours.parameters])
        assert difference(ours.weights.asnumpy(), their_weights) <= CLOSE[dtype]
    assert difference(*np.array(losses).T) <= CLOSE[dtype]
    assert difference(ours.weights.asnumpy(), start) > 1e-3  # the weights have changed


@each_variant
def test_a_model_remembers_its_name_and_all_arguments(name, arguments):
    model = MODELS[name](**arguments)
    assert getattr(models, model.name)(**model.arguments).shapes == model.shapes
    assert arguments.items() <= model.arguments.items()
    assert model.arguments["image"] == (1, 28, 28)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_models_take_other_images_classes_and_initial_values(make, device):
    model = make(image=(3, 20, 24), classes=7, init=("normal", 0.5)).initialize(0, device)
    assert (model(nd.ones((2, 3, 20, 24), device)).shape, model.init) == ((2, 7), ("normal", 0.5))
    with pytest.raises(TypeError):
        make(nonsense=1)


def test_sizes_and_initial_values_are_those_published():
    assert models.softmax_regression().size == 784 * 10 + 10
    assert models.mlp().size == 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    assert models.lenet().size == 20 * 26 + 50 * 501 + 800 * 500 + 500 + 5010
    assert models.dropout_cnn().size == 10 * 26 + 20 * 251 + 320 * 50 + 50 + 510
    assert models.cnn().size == 16 * 26 + 32 * 401 + 512 * 64 + 64 + 650
    assert models.cnn(hidden=None).size == 16 * 26 + 32 * 401 + 512 * 10 + 10
    assert models.softmax_regression().init == ("normal", 0.01)
    assert all(MODELS[name]().init == ("xavier", 3.0) for name in ("mlp", "lenet", "dropout-cnn", "cnn"))


def test_every_convolution_has_a_number_of_filters_and_a_kernel():
    for make in (models.lenet, models.dropout_cnn, models.cnn):
        for filters, kernels in (((4, 6), (5,)), ((4,), (5, 3)), ((4, 6), (5, 3, 3))):
            with pytest.raises(ValueError, match=r"must be equally long|has two convolutions"):
                make(filters=filters, kernels=kernels)
    with pytest.raises(ValueError, match=r"^\(4, 6\) and \(2,\) must be equally long: a number for each convolution$"):
        models.cnn(filters=(4, 6), strides=(2,))
    with pytest.raises(ValueError, match="dropout_cnn has two convolutions"):
        models.dropout_cnn(filters=(4, 6, 6), kernels=(5, 3, 3))
    assert models.lenet(filters=(4, 6, 8), kernels=(5, 3, 3)).shapes["10.weight"] == (500, 8)  # 28 → 12 → 5 → 1
