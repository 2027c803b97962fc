"""What train, fit, evaluate and predict accept, and the sentence for everything else. One check serves all four."""

import numpy as np
import pytest
from runs import digits

import tinymnist as tm
from tinymnist.backend import nd
from tinymnist.checks import check_images, check_split

DATA = digits(train=40, test=40)
IMAGES, LABELS = DATA.train
HOW = {"epochs": 1, "batch_size": 10}


def call_all(images, labels):
    """The results of all functions: the weights after a training by each of two, loss and accuracy, probabilities."""
    split, results = tm.Split(images, labels), []
    for train in (tm.train, lambda m, o, split, **how: tm.fit(m, o, DATA._replace(train=split), **how)):
        model = tm.softmax_regression().initialize(1)
        train(model, tm.Optimizer("momentum", lr=0.1), split, **HOW)
        results.append(model.weights.asnumpy())
    model = tm.softmax_regression().initialize(1)
    return [*results, tm.evaluate(model, split), tm.predict(model, images)]


@pytest.mark.parametrize(
    "images, labels",
    [
        (IMAGES.astype("int64"), LABELS.astype("uint16")),
        (IMAGES.astype(">u2"), LABELS.astype(">i4")),
        (IMAGES.tolist(), LABELS.tolist()),
        (nd.array(IMAGES, dtype="uint8"), nd.array(LABELS, dtype="uint8")),
        (IMAGES[:, ::-1][:, ::-1], LABELS.reshape(-1, 1)),
        (IMAGES.copy(order="F"), LABELS.astype("float64")),
    ],
)
def test_other_types_of_the_same_numbers_give_the_same_results(images, labels):
    for found, expected in zip(call_all(images, labels), call_all(IMAGES, LABELS)):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("classes, dtype", [(255, "uint8"), (256, "uint8"), (257, "int32"), (1000, "int32")])
def test_labels_are_bytes_if_a_byte_can_hold_every_class(classes, dtype):
    model = tm.softmax_regression(classes=classes).initialize(1)
    checked = check_split(model, (IMAGES[:2], [0, classes - 1]))
    assert checked.labels.dtype == dtype and checked.labels.tolist() == [0, classes - 1]
    assert np.isfinite(tm.evaluate(model, checked)[0])


def test_one_image_is_a_batch_of_one():
    model = tm.softmax_regression().initialize(1)
    np.testing.assert_array_equal(tm.predict(model, IMAGES[3]), tm.predict(model, IMAGES[3:4]))


def test_the_lowest_and_the_highest_pixel_are_accepted_in_every_type():
    model = tm.softmax_regression().initialize(1)
    for pixels in (np.where(IMAGES > 0, 255, 0), np.maximum(IMAGES, 1), np.minimum(IMAGES, 254), IMAGES * 0):
        checked = check_images(model, pixels.astype("int64"))
        assert checked.dtype == np.uint8 and (checked == pixels).all()


@pytest.mark.parametrize("first", [99, 100])
def test_only_the_first_hundred_images_are_searched_for_bright_pixels(first):
    images = np.ones((101, 28, 28), np.uint8)
    images[first] = 255
    model = tm.softmax_regression().initialize(1)
    if first < 100:
        assert check_images(model, images) is images
    else:
        with pytest.raises(tm.DataError, match="the images begin with pixels of 0 and 1 only"):
            check_images(model, images)


SHAPE = r"the model takes images of the shape \(N, 28, 28\), N > 0"
BYTES = "pixels are whole numbers from 0 to 255"
WRONG_IMAGES = [
    (IMAGES[:, :20], rf"uint8 of the shape \(40, 20, 28\); {SHAPE}"),
    (IMAGES[..., None], rf"uint8 of the shape \(40, 28, 28, 1\); {SHAPE}"),
    (np.stack([IMAGES] * 3, -1), rf"uint8 of the shape \(40, 28, 28, 3\); {SHAPE}"),
    (IMAGES[:0], rf"uint8 of the shape \(0, 28, 28\); {SHAPE}"),
    ("mnist", rf"of the shape \(\); {SHAPE}"),
    ([[1, 2], [3]], "are not an array"),
    (IMAGES / 255, rf"float64 of the shape \(40, 28, 28\); {BYTES}"),
    (IMAGES.astype("float32"), rf"float32 of the shape \(40, 28, 28\); {BYTES}"),
    (IMAGES > 0, rf"bool of the shape \(40, 28, 28\); {BYTES}"),
    ((IMAGES > 0).astype("uint8"), "begin with pixels of 0 and 1 only; expected 0 to 255: multiply them by 255"),
    (IMAGES.astype("int32") - 1, "have pixels from -1 to 254; expected whole numbers from 0 to 255"),
    (IMAGES.astype("int32") + 1, "have pixels from 1 to 256; expected whole numbers from 0 to 255"),
]
NOT_10 = "labels are whole numbers from 0 to 9"
WRONG_LABELS = [
    (LABELS[:20], r"40 images and labels of the shape \(20,\); each image needs one label$"),
    (np.eye(10)[LABELS], r"labels of the shape \(40, 10\); each image needs one label; use labels.argmax\(1\)$"),
    (np.zeros((40, 8), int), r"labels of the shape \(40, 8\); each image needs one label$"),
    (np.zeros((40, 2), int), r"labels of the shape \(40, 2\); each image needs one label$"),
    (LABELS + 1, f"there is a label 10; {NOT_10}"),
    (LABELS.astype(int) - 1, f"there is a label -1; {NOT_10}"),
    (LABELS - 0.5, f"there is a label .*; {NOT_10}"),
    (np.where(LABELS == 3, np.nan, LABELS), f"there is a label nan; {NOT_10}"),
    (np.array([*map(str, LABELS)]), f"there is a label .; {NOT_10}"),
]
CASES = [(images, LABELS, sentence) for images, sentence in WRONG_IMAGES]
CASES += [(IMAGES, labels, sentence) for labels, sentence in WRONG_LABELS]


@pytest.mark.parametrize("images, labels, sentence", CASES)
def test_wrong_images_and_labels_are_refused_by_all_functions(images, labels, sentence):
    model, optimizer = tm.softmax_regression().initialize(), tm.Optimizer("sgd", lr=0.1)
    split = tm.Split(images, labels)
    before = model.weights.asnumpy()
    calls = [
        lambda: tm.train(model, optimizer, split, **HOW),
        lambda: tm.fit(model, optimizer, DATA._replace(train=split), **HOW),
        lambda: tm.fit(model, optimizer, DATA._replace(test=split), **HOW),
        lambda: tm.evaluate(model, split),
    ]
    if labels is LABELS:
        calls.append(lambda: tm.predict(model, images))
    for call in calls:
        with pytest.raises(tm.DataError, match=sentence):
            call()
        assert tm.evaluate(model, DATA.test)[1] >= 0  # an error does no harm to the next call
    np.testing.assert_array_equal(model.weights.asnumpy(), before)


@pytest.mark.parametrize("wrong", [DATA, "mnist", None, IMAGES])
def test_a_split_is_images_and_labels(wrong):
    model, name = tm.softmax_regression().initialize(), type(wrong).__name__
    for call in (lambda: tm.train(model, tm.Optimizer("sgd", lr=1), wrong, **HOW), lambda: tm.evaluate(model, wrong)):
        with pytest.raises(tm.DataError, match=rf"must be images and labels, such as tm.load\(\).train, not {name}"):
            call()


def test_a_model_without_weights_or_for_colours_is_refused():
    with pytest.raises(
        tm.DataError, match=r"softmax_regression \(7,850 parameters\) has no weights yet; call its method"
    ):
        tm.predict(tm.softmax_regression(), IMAGES)
    with pytest.raises(tm.DataError, match=r"the shape \(3, 28, 28\), and only in a call model\(x\)"):
        tm.predict(tm.softmax_regression(image=(3, 28, 28)).initialize(), IMAGES)


def test_half_precision_is_refused_on_the_cpu():
    """MXNet cannot multiply such matrices there; it would say so in the middle of the first step."""
    model, optimizer = tm.softmax_regression().initialize(dtype="float16"), tm.Optimizer("sgd", lr=0.1)
    calls = [
        lambda: tm.train(model, optimizer, DATA.train, **HOW),
        lambda: tm.fit(model, optimizer, DATA, **HOW),
        lambda: tm.evaluate(model, DATA.test),
        lambda: tm.predict(model, IMAGES),
    ]
    for call in calls:
        with pytest.raises(tm.DataError, match="has weights of float16, which MXNet multiplies on a GPU only"):
            call()


@pytest.mark.parametrize("wrong", [DATA.train, IMAGES, None])
def test_the_data_of_a_run_are_what_load_returns(wrong):
    with pytest.raises(tm.DataError, match=f"data must be what tm.load returns, not {type(wrong).__name__}"):
        tm.fit(tm.softmax_regression(), tm.Optimizer("sgd", lr=0.1), wrong)


def test_a_run_loads_data_by_name():
    run = tm.fit(tm.softmax_regression(), tm.Optimizer("sgd", lr=0.1), "digits", epochs=0)
    assert run.data.name == "digits" and len(run.train_split.labels) == 1497


def test_settings_may_be_numpys_numbers(tmp_path):
    numbers = {"epochs": np.int64(1), "batch_size": np.uint8(10), "seed": np.int32(3), "lr_decay": np.float32(0.5)}
    run = tm.fit(tm.softmax_regression(), tm.Optimizer("sgd", lr=np.float32(0.5)), DATA, **numbers)
    assert run.settings == tm.Settings(epochs=1, batch_size=10, seed=3, lr_decay=0.5)
    run.save(tmp_path)
    assert tm.resume(tmp_path, DATA).settings == run.settings


def test_an_optimizer_for_two_runs_starts_again():
    def fit(optimizer):
        return tm.fit(tm.softmax_regression(), optimizer, DATA, **HOW).model.weights.asnumpy()

    optimizer = tm.Optimizer("momentum", lr=0.1)
    np.testing.assert_array_equal(fit(optimizer), fit(optimizer))
    assert optimizer.state is None


@pytest.mark.parametrize("wrong", ["adagrad", tm.optim.adagrad, None])
def test_an_optimizer_is_an_object(wrong):
    model = tm.softmax_regression().initialize()
    for call in (lambda: tm.train(model, wrong, DATA.train, **HOW), lambda: tm.fit(model, wrong, DATA, **HOW)):
        with pytest.raises(
            ValueError, match=r'the optimizer must be one such as tm.Optimizer\("adagrad", lr=0.05\), not'
        ):
            call()


@pytest.mark.parametrize("function", [tm.evaluate, tm.predict, tm.train, tm.fit])
def test_no_function_changes_or_locks_the_callers_arrays(function):
    images, labels = IMAGES.copy(), LABELS.copy()
    split, model, rule = tm.Split(images, labels), tm.softmax_regression().initialize(), tm.Optimizer("sgd", lr=0.1)
    data = DATA._replace(train=split)
    how = {
        "evaluate": (model, split),
        "predict": (model, images),
        "train": (model, rule, split),
        "fit": (model, rule, data),
    }
    function(*how[function.__name__], **HOW if function in (tm.train, tm.fit) else {})
    assert images.flags.writeable and labels.flags.writeable
    np.testing.assert_array_equal(images, IMAGES)


def test_later_changes_of_an_array_do_not_reach_a_training():
    images, labels = IMAGES.copy(), LABELS.copy()
    batches = tm.Batches(tm.Split(images, labels), 40, nd.zeros(1).context)
    images[:], labels[:] = 0, 0
    for found, expected in zip(batches.take(range(40)), (IMAGES[:, None], LABELS)):
        np.testing.assert_array_equal(found.asnumpy(), expected)
