"""A run that was stopped and gone on with is the run that was not stopped, to the last bit."""

import numpy as np
import pytest
from runs import RULES, SMALL, begun, bits, digits, stopping

import tinymnist as tm
from tinymnist.datasets.load import Split


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "run"


def in_pieces(data, directory, model, rule, **settings):
    """Two epochs, of which the first was stopped inside, and ended before anybody had spoken of the second"""
    begun(data, model, rule, **{**settings, "epochs": 1}).train(save=directory, on_batch=stopping(20))
    first = tm.resume(directory, data)
    assert 0 < first.batch < 33 and first.epoch == 0
    first.train(save=directory)
    second = tm.resume(directory, data, epochs=2)
    assert (second.epoch, second.batch) == (1, 0)
    return second.train(save=directory)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", SMALL)
def test_every_model_and_rule(model, rule, data, directory):
    at_once = begun(data, model, rule).train()
    assert bits(in_pieces(data, directory, model, rule)) == bits(at_once)
    assert bits(tm.resume(directory, data)) == bits(at_once)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", SMALL)
def test_every_model_and_rule_in_full_size(model, rule, data, directory):
    at_once = begun(data, model, rule, arguments={}).train()
    assert bits(in_pieces(data, directory, model, rule, arguments={})) == bits(at_once)


@pytest.mark.parametrize(
    "settings",
    [
        {"augment": True, "normalize": True, "lr_decay": 0.5},
        {"compile": False},
        {"device": "cpu:0,cpu:1"},
        {"limit": 325},  # a last batch of five
        {"log_interval": 1},
        {"seed": 2**40},
    ],
    ids=str,
)
def test_every_setting(settings, data, directory):
    at_once = begun(data, "dropout-cnn", "momentum", **settings).train()
    assert bits(in_pieces(data, directory, "dropout-cnn", "momentum", **settings)) == bits(at_once)


def test_another_seed_is_another_run(data):
    assert bits(begun(data).train()) == bits(begun(data).train()) != bits(begun(data, seed=1).train())


def test_saving_on_the_way_changes_nothing(data, directory):
    run = begun(data, "dropout-cnn").train(save=directory, save_every=1)
    assert bits(run) == bits(begun(data, "dropout-cnn").train())
    assert sorted(path.name for path in directory.iterdir()) == [
        *("epoch-0001-batch-00032", "epoch-0002", "history.json")  # dropout: every 16 batches
    ]


def test_stopped_again_and_again(data, directory):
    """at every batch, and where it stands already: no batch is lost and none is done twice"""
    begun(data, epochs=1).train(save=directory, on_batch=stopping(1))
    for batch in range(2, 34):
        run = tm.resume(directory, data)
        run.stop = True
        assert run.train(save=directory).batch == batch - 1
        run = tm.resume(directory, data).train(save=directory, on_batch=stopping(batch))
    assert bits(run) == bits(begun(data, epochs=1).train())


def test_the_state_of_a_float64_model(data, directory):
    def run(**settings):
        model = tm.mlp(hidden=(8,)).initialize(dtype="float64")
        return tm.Run(model, tm.Optimizer("rmsprop", lr=0.01), data, tm.Settings(batch_size=30, **settings))

    run(epochs=1).train(save=directory)
    again = tm.resume(directory, data, epochs=2).train()
    assert again.model.weights.dtype == np.float64
    assert bits(again) == bits(run(epochs=2).train())


def test_more_epochs_and_other_ways_to_compute_are_fine(data, directory):
    begun(data, epochs=1).train(save=directory)
    changes = {"epochs": 2, "device": "cpu:1", "log_interval": 3, "compile": False}
    run = tm.resume(directory, data, **changes).train()
    assert run.model.weights.context.device_id == 1
    assert run.history[1].loss == pytest.approx(begun(data).train().history[1].loss, rel=1e-6)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"batch_size": 20}, "was begun with batch size 10 and cannot go on with 20"),
        ({"seed": 3}, "was begun with seed 0 and cannot go on with 3"),
        ({"limit": 100}, "was begun with limit None and cannot go on with 100"),
        ({"normalize": True}, "was begun with normalize False and cannot go on with True"),
        ({"augment": True}, "was begun with augment False and cannot go on with True"),
        ({"lr_decay": 0.5}, "was begun with lr decay 1.0 and cannot go on with 0.5"),
        ({"epochs": 1}, "is in epoch 2 already and cannot end after 1"),
        ({"epochs": -1}, "epochs must be a whole number from 0 on, not -1"),
        ({"device": "gpu:99"}, "gpu\\(99\\) is not there"),
    ],
    ids=str,
)
def test_what_cannot_change(change, sentence, data, directory):
    begun(data).train(save=directory, on_batch=lambda run, n: setattr(run, "stop", run.epoch == 1))
    with pytest.raises(ValueError, match=sentence):
        tm.resume(directory, data, **change)
    tm.resume(directory, data, batch_size=10, seed=0)  # what it was begun with, said again


def test_a_setting_that_there_is_not(data, directory):
    begun(data).save(directory)
    with pytest.raises(TypeError, match="epcohs"):
        tm.resume(directory, data, epcohs=3)


def test_other_data(data, directory):
    begun(data).save(directory)
    one_pixel = data.train.images.copy()
    one_pixel[7, 14, 14] ^= 1
    one_label = data.train.labels.copy()
    one_label[7] = (one_label[7] + 1) % 10
    for train in (Split(one_pixel, data.train.labels), Split(data.train.images, one_label)):
        with pytest.raises(tm.DataError, match="was begun on other data"):
            tm.resume(directory, data._replace(train=train))


def test_another_model(data, directory):
    begun(data, "mlp").save(directory)
    with pytest.raises(tm.DataError, match="holds the parameters of another model"):
        tm.resume(directory, data, model=tm.lenet())


def test_a_model_of_ones_own(data, directory):
    def own():
        return tm.layers.Sequential(tm.layers.Flatten(), tm.layers.Dense(10))

    def run(**settings):
        return tm.Run(own(), tm.Optimizer("sgd", lr=0.1), data, tm.Settings(batch_size=30, **settings))

    run(epochs=1).train(save=directory)
    with pytest.raises(tm.DataError, match="not one of tinymnist's own; give it as `model`"):
        tm.resume(directory, data)
    again = tm.resume(directory, data, model=own(), epochs=2).train()
    assert bits(again) == bits(run(epochs=2).train())


def test_the_data_is_found_again(directory, monkeypatch, tmp_path):
    """by name, or by directory, from wherever one stands"""
    data = tm.load("digits")
    begun(data).save(directory)
    assert tm.resume(directory).data.name == "digits"
    own = tmp_path / "own"
    own.mkdir()
    for prefix, split in (("train", data.train), ("t10k", data.test)):
        tm.idx.write(own / f"{prefix}-images-idx3-ubyte", split.images)
        tm.idx.write(own / f"{prefix}-labels-idx1-ubyte.gz", split.labels)
    monkeypatch.chdir(tmp_path)
    begun(tm.load("own")).save("second")
    monkeypatch.chdir("/")
    assert tm.resume(tmp_path / "second").data.name == str(own)


@pytest.mark.parametrize("compile", [True, False])
def test_diverging(compile, data, directory):
    """ends with a sentence, and what was saved before stays"""
    run = begun(data, "mlp", "sgd", hyper={"lr": 1e20}, compile=compile)
    with pytest.raises(
        tm.Diverged, match=r"the loss of epoch 1, batch 2 is (nan|inf), the learning rate 1e\+20; try a smaller one"
    ):
        run.train(save=directory)
    assert (tm.resume(directory, data).epoch, tm.resume(directory, data).batch) == (0, 0)


@pytest.mark.parametrize("where", ["last batch", "before saving", "before stopping"])
def test_weights_that_the_very_last_step_has_spoilt(where, data, directory):
    """are not saved, though every loss was finite"""

    def on_batch(run, examples):
        if run.batch == {"last batch": 33, "before saving": 20, "before stopping": 11}[where]:
            run.model.weights[5] = np.inf
            run.stop = where == "before stopping"

    run = begun(data, epochs=1, log_interval=1000)
    with pytest.raises(tm.Diverged, match=r"after epoch 1, batch \d+ weights are not finite, the learning rate 0.02"):
        run.train(save=directory, on_batch=on_batch, save_every=10)
    assert np.isfinite(tm.resume(directory, data).model.weights.asnumpy()).all()


def test_adadelta_has_no_learning_rate_to_blame(data):
    run = begun(data, "softmax", "adadelta")
    run.model.weights[:] = np.nan
    with pytest.raises(tm.Diverged, match=r"the loss of epoch 1, batch 1 is nan$"):
        run.train()


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (lambda x, y: (x, y[:-1]), "330 images and 329 labels; every image needs one label"),
        (lambda x, y: (x[:0], y[:0]), "0 images and 0 labels"),
        (lambda x, y: (x, y + 1), "there is a label 10; this model's are whole numbers from 0 to 9"),
        (lambda x, y: (x, y.astype("i1") - 1), "there is a label -1; "),
        (lambda x, y: (x, y + 0.5), "there is a label 0.5; "),
        (lambda x, y: (x, np.where(y == 3, np.nan, y)), "there is a label nan; "),
        (lambda x, y: (x / 255, y), "the images are float64; they must be bytes from 0 to 255, uint8"),
        (lambda x, y: (x[:, 1:], y), "27×28 pixels; the model takes 28×28"),
    ],
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_data_that_was_made_by_hand(part, spoil, sentence, data):
    x, y = data.train
    y = np.sort(y)
    with pytest.raises(tm.DataError, match=sentence):
        begun(data._replace(**{part: Split(*spoil(x, y))}))


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"epochs": -1}, "epochs must be a whole number from 0 on, not -1"),
        ({"epochs": 1.5}, "epochs must be a whole number from 0 on, not 1.5"),
        ({"batch_size": 0}, "batch size must be a whole number from 1 on, not 0"),
        ({"seed": -1}, "seed must be a whole number from 0 on, not -1"),
        ({"limit": 0}, "limit must be a whole number from 1 on, not 0"),
        ({"log_interval": 0}, "log interval must be a whole number from 1 on, not 0"),
        ({"lr_decay": 0}, "lr decay must be above 0 and at most 1, not 0"),
        ({"lr_decay": 1.1}, "lr decay must be above 0 and at most 1, not 1.1"),
        ({"lr_decay": float("nan")}, "lr decay must be above 0 and at most 1, not nan"),
        ({"device": "tpu"}, "there is no device 'tpu'"),
        ({"device": ""}, "there is no device ''"),
        ({"device": "cpu,cpu"}, "is named twice"),
        ({"device": "gpu:99"}, "gpu\\(99\\) is not there: MXNet sees"),
    ],
    ids=str,
)
def test_settings_out_of_range(settings, sentence, data):
    with pytest.raises(ValueError, match=sentence):
        begun(data, **settings)


@pytest.mark.parametrize("every", [-1, -100])
def test_saving_every_so_many_batches(every, data, directory):
    with pytest.raises(ValueError, match="save every must be a whole number from 0 on"):
        begun(data).train(save=directory, save_every=every)
