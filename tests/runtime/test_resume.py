"""A run that was stopped and resumed is the run that was never stopped, to the last bit."""

import hashlib
import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from runs import RULES, SMALL, bits, digits, make_run, stop_at

import tinymnist as tm
from tinymnist.backend import nd
from tinymnist.batches import Split
from tinymnist.runtime.progress import Progress
from tinymnist.runtime.run import LossReader


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "run"


SETTINGS = [
    {"augment": True, "normalize": True, "lr_decay": 0.5},
    {"compile": False},
    {"device": "cpu:0,cpu:1"},
    {"limit": 325},  # the last batch has five examples
    {"log_interval": 1},
    {"seed": 2**40},
]
EVERY = [(model, rule) for model in SMALL for rule in RULES]
RUNS = [
    *((model, rule, {}) for model, rule in EVERY),
    *(("dropout-cnn", "momentum", settings) for settings in SETTINGS),
    *(pytest.param(model, rule, {"arguments": {}}, marks=pytest.mark.slow) for model, rule in EVERY),  # full size
]


@pytest.mark.parametrize("model, rule, settings", RUNS, ids=str)
def test_a_run_in_three_parts_is_the_run_in_one(model, rule, settings, data, directory):
    """One epoch, stopped within it; the rest of it; and one more epoch."""
    expected = bits(make_run(data, model, rule, **settings).train())
    make_run(data, model, rule, **{**settings, "epochs": 1}).train(save=directory, on_batch=stop_at(20))
    run = tm.resume(directory, data)
    assert run.position.epoch == 0 and 0 < run.position.batch < 33
    run.train(save=directory)
    run = tm.resume(directory, data, epochs=2)
    assert (run.position.epoch, run.position.batch) == (1, 0)
    assert bits(run.train(save=directory)) == bits(tm.resume(directory, data)) == expected


def test_a_run_stopped_at_every_batch_loses_none(data, directory):
    make_run(data, epochs=1).train(save=directory, on_batch=stop_at(1))
    for batch in range(2, 34):
        run = tm.resume(directory, data)
        run.stop = True
        assert run.train(save=directory).position.batch == batch - 1
        run = tm.resume(directory, data).train(save=directory, on_batch=stop_at(batch))
    assert bits(run) == bits(make_run(data, epochs=1).train()) != bits(make_run(data, epochs=1, seed=1).train())


def test_a_signal_between_saving_and_stopping_loses_no_history(data, directory, monkeypatch):
    expected = bits(make_run(data, epochs=1).train())

    def can_resume_here(run):
        run.stop = run.position.batch == 12  # a handler of signals sets it at any moment
        return True

    monkeypatch.setattr(tm.Run, "can_resume_here", can_resume_here)
    assert make_run(data, epochs=1).train(save=directory).position.batch == 12
    monkeypatch.undo()
    assert bits(tm.resume(directory, data).train()) == expected


def test_saving_changes_nothing(data, directory):
    run = make_run(data, "dropout-cnn").train(save=directory, save_every=1)
    assert bits(run) == bits(make_run(data, "dropout-cnn").train())
    files = sorted(path.name for path in directory.iterdir())
    assert files == ["epoch-0001-batch-00032", "epoch-0002", "history.json"]  # with dropout, every 16 batches


FIRST = """{"version": 1, "id": "7a680172160ec13e", "model": "softmax_regression", "mean": 0.125, "std": 0.25,
    "arguments": {"classes": 10, "image": [1, 28, 28], "init": ["normal", 1.0]},
    "rule": "adagrad", "hyper": {"lr": 0.02, "eps": 1e-07}, "data": "12345678", "source": "", "where": "digits",
    "settings": {"epochs": 2, "batch_size": 10, "device": "cpu", "kvstore": "local", "timeout": 60, "seed": 3, "limit":
        null, "normalize": false, "augment": false, "lr_decay": 0.5, "log_interval": 7, "compile": true},
    "examples": 330, "epoch": 1, "batch": 2, "seen": [[10, 0.5, 3], [10, 0.25, 4]], "seconds": 0.5, "speed": [40.0],
    "history": [{"epoch": 1, "lr": 0.02, "loss": 9.5, "train_accuracy": 0.25, "test_loss": 6.5, "test_accuracy": 0.5,
        "curve": [[70, 9.5]], "seconds": 0.5, "speed": [50.0]}]}"""


def test_a_checkpoint_of_the_first_version_resumes(data, directory, tmp_path):
    """It is written by hand. The run that is resumed saves the same bytes, and settings added since then."""

    def seal(state):
        digest = hashlib.sha256(json.dumps(state, sort_keys=True, indent=1).encode()).hexdigest()
        return json.dumps({"seal": digest, "run": state}, sort_keys=True, indent=1)

    path, weights = directory / "epoch-0001-batch-00002", nd.random.normal(shape=7850)
    path.mkdir(parents=True)
    nd.save(str(path / "model.params"), {"0.weight": weights[:7840].reshape((10, 784)), "0.bias": weights[7840:]})
    nd.save(str(path / "optimizer.params"), {"0": weights**2})
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}
    state = {**json.loads(FIRST), "data": data.fingerprint, "source": data.source, "sha256": digests}
    (path / "run.json").write_text(seal(state))
    run = tm.resume(directory, data)
    for array, expected in ((run.model.weights, weights), (run.optimizer.state[0], weights**2)):
        assert array.asnumpy().tobytes() == expected.asnumpy().tobytes()
    run.save(tmp_path / "again")
    state["settings"]["one_cycle"] = False
    (path / "run.json").write_text(seal(state))
    for file in path.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / path.name / file.name).read_bytes()
    assert [epoch.epoch for epoch in run.train().history] == [1, 2]


def test_a_model_of_ones_own_must_be_given(data, directory):
    def own():
        return tm.layers.Sequential(tm.layers.Flatten(), tm.layers.Dense(10))

    def make(epochs):
        model = own().initialize(dtype="float64")
        return tm.Run(model, tm.Optimizer("rmsprop", lr=0.01), data, tm.Settings(batch_size=30, epochs=epochs))

    make(1).train(save=directory)
    with pytest.raises(tm.DataError, match="not one of tinymnist's own; give it as `model`"):
        tm.resume(directory, data)
    with pytest.raises(tm.DataError, match="holds the parameters of another model"):
        tm.resume(directory, data, model=tm.lenet())
    run = tm.resume(directory, data, model=own(), epochs=2).train()
    assert run.model.weights.dtype == np.float64 and bits(run) == bits(make(2).train())


def test_epochs_device_log_interval_and_compile_may_change(data, directory):
    make_run(data, epochs=1).train(save=directory)
    run = tm.resume(directory, data, epochs=2, device="cpu:1", log_interval=3, compile=False).train()
    assert run.model.weights.context.device_id == 1
    assert run.history[1].loss == pytest.approx(make_run(data).train().history[1].loss, rel=1e-6)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "adadelta"])
def test_one_cycle_of_the_learning_rate_is_resumed_within_it(rule, data, directory):
    settings = {"one_cycle": True, "device": "cpu:0,cpu:1"} if rule == "momentum" else {"one_cycle": True}
    expected = bits(make_run(data, "cnn", rule, **settings).train())
    run = make_run(data, "cnn", rule, **settings).train(save=directory, on_batch=stop_at(20))
    assert run.position.batch == 32
    for epochs in (1, 3):  # the learning rates depend on them
        with pytest.raises(ValueError, match=f"began with epochs 2 and cannot continue with {epochs}$"):
            tm.resume(directory, data, epochs=epochs)
    assert bits(tm.resume(directory, data, epochs=2).train()) == expected != bits(make_run(data, "cnn", rule).train())


def test_without_dropout_a_run_stops_at_any_batch(data):
    for rate, batch in ((0.0, 20), (0.25, 32)):
        run = make_run(data, "cnn", arguments={**SMALL["cnn"], "rate": rate})
        assert run.train(on_batch=stop_at(20)).position.batch == batch


def test_a_rule_without_a_learning_rate_has_no_cycle_of_it(data):
    with pytest.raises(ValueError, match=r"^adadelta has no learning rate, so"):
        make_run(data, rule="adadelta", one_cycle=True)
    with pytest.raises(ValueError, match=r"the optimizer must be one such as"):
        tm.fit(tm.mlp(), "adadelta", data, one_cycle=True)


def test_the_speed_is_that_of_the_images_since_the_reading_before(data):
    epoch = make_run(data, epochs=1, log_interval=7).train().history[0]
    seconds = sum(images / speed for images, speed in zip([70, 70, 70, 70, 50], epoch.speed))
    assert len(epoch.speed) == 5 and seconds == pytest.approx(epoch.seconds, abs=0.002)  # rounded to 0.001


def test_the_bar_of_a_resumed_epoch_forgets_where_it_began(data, monkeypatch):
    """Before it is drawn again, or it would show a speed below zero."""
    bar, begins = Mock(n=330, total=330, initial=200), []
    bar.reset.side_effect = lambda: begins.append(bar.initial)
    monkeypatch.setattr("tinymnist.runtime.progress.make_bar", lambda total, **options: bar)
    run = make_run(data)
    Progress(run).on_batch(run, 10)
    assert begins == [0]


def test_python_stays_eight_batches_ahead_of_the_device_at_most(data):
    run = make_run(data)
    run.position.batch = 1  # not one at which the losses are read
    reader, results = LossReader(run), [[Mock(), None] for _ in range(20)]  # the second device has no example
    for number, result in enumerate(results):
        reader.after_batch(result)
        waited = [one.loss.wait_to_read.call_count for one, _ in results]
        assert waited == [1] * max(0, number - 6) + [0] * min(20, 26 - number)


def test_what_decides_the_numbers_cannot_change(data, directory):
    make_run(data).train(save=directory, on_batch=lambda run, examples: setattr(run, "stop", run.position.epoch == 1))
    settings = vars(tm.resume(directory, data).settings)
    changes = {"batch_size": 20, "seed": 3, "limit": 100, "normalize": True, "augment": True, "lr_decay": 0.5}
    changes["one_cycle"] = True
    for name, value in changes.items():
        what = f"{name.replace('_', ' ')} {settings[name]}"
        with pytest.raises(ValueError, match=f"began with {what} and cannot continue with {value}$"):
            tm.resume(directory, data, **{name: value})
    with pytest.raises(ValueError, match="is in epoch 2 already and cannot end after 1"):
        tm.resume(directory, data, epochs=1)
    make_run(data).train(save=directory / "ended")
    with pytest.raises(ValueError, match="is in epoch 2 already and cannot end after 1"):
        tm.resume(directory / "ended", data, epochs=1)
    with pytest.raises(TypeError, match="epcohs"):
        tm.resume(directory, data, epcohs=3)
    tm.resume(directory, data, **{name: settings[name] for name in changes})  # the same values may be repeated


def test_the_data_may_be_given_as_for_fit(data, directory):
    """By name, or with labels of another type: a run makes them bytes."""
    make_run(tm.load("digits")).save(directory / "a")
    assert tm.resume(directory / "a", "digits").data.name == "digits"
    data = data._replace(train=Split(data.train.images, data.train.labels.astype("int64")))
    expected = bits(make_run(data, epochs=1).train(save=directory / "b"))
    assert bits(tm.resume(directory / "b", data)) == expected


def test_other_data_are_refused(data, directory):
    make_run(data).save(directory)
    for part in data.train:
        other = part.copy()
        other[7] = (other[7] + 1) % 10  # one image or one label
        train = Split(*(other if array is part else array for array in data.train))
        with pytest.raises(tm.DataError, match="began with other data"):
            tm.resume(directory, data._replace(train=train))


def test_the_data_are_found_again(directory, monkeypatch, tmp_path):
    """By name, or by a path that does not depend on the working directory."""
    make_run(tm.load("digits")).save(directory)
    assert tm.resume(directory).data.name == "digits"
    shutil.copytree(Path(tm.__file__).parent / "datasets" / "digits", tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    make_run(tm.load("own")).save("second")
    monkeypatch.chdir("/")
    assert tm.resume(tmp_path / "second").data.name == str(tmp_path / "own")


@pytest.mark.parametrize("compile", [True, False])
def test_a_run_that_diverges_ends_with_a_sentence(compile, data, directory):
    run = make_run(data, "mlp", "sgd", hyper={"lr": 1e20}, compile=compile)
    sentence = r"the loss of epoch 1, batch 2 is (nan|inf), the learning rate 1e\+20; try a smaller one"
    with pytest.raises(tm.Diverged, match=sentence):
        run.train(save=directory)
    position = tm.resume(directory, data).position
    assert (position.epoch, position.batch) == (0, 0)
    run = make_run(data, rule="adadelta", compile=compile)  # it has no learning rate
    run.model.weights[:] = np.nan
    with pytest.raises(tm.Diverged, match=r"the loss of epoch 1, batch 1 is nan$"):
        run.train()


@pytest.mark.parametrize("when, batch", [("after the last batch", 33), ("before saving", 20), ("before stopping", 11)])
def test_weights_that_are_not_finite_are_not_saved(when, batch, data, directory):
    """The last step made them so; every loss was finite."""

    def on_batch(run, examples):
        if run.position.batch == batch:
            run.model.weights[5] = np.inf
            run.stop = when == "before stopping"

    run = make_run(data, epochs=1, log_interval=1000)
    with pytest.raises(tm.Diverged, match=r"after epoch 1, batch \d+ weights are not finite, the learning rate 0.02"):
        run.train(save=directory, on_batch=on_batch, save_every=10)
    assert np.isfinite(tm.resume(directory, data).model.weights.asnumpy()).all()


@pytest.mark.parametrize("part", ["train", "test"])
def test_both_parts_of_the_data_must_suit_the_model(part, data):
    """test_train.py has all that can be wrong with them."""
    images, labels = getattr(data, part)
    for wrong in (Split(images[:, 1:], labels), Split(images, labels[:-1]), Split(images, labels + 1)):
        with pytest.raises(tm.DataError, match="digits"):
            make_run(data._replace(**{part: wrong}))


def test_settings_out_of_range_are_refused():
    cases = {"epochs": (-1, 1.5, True), "batch_size": (0, 2.0), "seed": (-1,), "limit": (0, 1.5), "log_interval": (0,)}
    for name, values in {**cases, "lr_decay": (0, 1.1, float("nan"), "1"), "timeout": ("60", 9)}.items():
        for value in values:
            with pytest.raises(ValueError, match=f"^{name.replace('_', ' ')} must be .*, not {value!r}$"):
                tm.Settings(**{name: value})
