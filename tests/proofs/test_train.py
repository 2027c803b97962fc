"""The training loop is the one that README shows, and trains as the runtime does. Evaluation and prediction by hand."""

import inspect
import re
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from runs import RULES, SMALL, digits

import tinymnist as tm
from tinymnist.batches import Split

README = Path(__file__).parents[2] / "README.md"


def test_readme_shows_the_loop():
    source = inspect.getsource(tm.train)
    head, _, body = source.partition('    """')
    loop = head + body.partition('"""\n')[2]
    assert loop in README.read_text("utf-8")
    assert re.findall("# (.*)", loop) == ["forward", "fills model.gradients", "update"]


def test_readmes_first_example_prints_what_readme_shows(capsys):
    text = README.read_text("utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    exec(code, {})
    shown = textwrap.dedent("\n".join(re.findall("^    weight .*", text, re.MULTILINE)))
    assert capsys.readouterr().out == shown + "\n"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["softmax", "mlp", "lenet"])
def test_the_loop_and_the_runtime_give_equal_weights(name, rule):
    data, how = digits(train=101), {"epochs": 2, "batch_size": 20, "seed": 3}  # the last batch has one image
    model = tm.models.MODELS[name](**SMALL[name]).initialize(3)
    tm.train(model, tm.Optimizer(rule, **RULES[rule]), data.train, **how)
    for compile in (True, False):
        twin, optimizer = tm.models.MODELS[name](**SMALL[name]), tm.Optimizer(rule, **RULES[rule])
        tm.fit(twin, optimizer, data, compile=compile, **how)
        assert twin.weights.asnumpy().tobytes() == model.weights.asnumpy().tobytes()


def test_several_threads_may_predict_at_the_same_time():
    model, images = tm.lenet(**SMALL["lenet"]).initialize(1), tm.load("digits").test.images[:60]
    expected = tm.predict(model, images)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: tm.predict(model, images), range(300)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("batch", [1, 7, 300])
def test_evaluate_and_predict_by_hand(batch, monkeypatch):
    """Softmax regression in numpy, over batches of several sizes; the last one is smaller."""
    monkeypatch.setitem(tm.train.__globals__, "BATCH", batch)
    model = tm.softmax_regression().initialize(1)
    images, labels = (array[:30] for array in tm.load("digits").test)
    logits = images.reshape(30, -1) / 255 @ model.parameters["0.weight"].asnumpy().T.astype("float64")
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(tm.predict(model, images), probabilities, rtol=1e-4, atol=1e-7)
    loss, accuracy = tm.evaluate(model, Split(images, labels))
    assert loss == pytest.approx(-np.log(probabilities[np.arange(30), labels]).mean(), rel=1e-6)
    assert accuracy == (logits.argmax(1) == labels).mean()
