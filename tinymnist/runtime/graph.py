"""Functions of arrays, recorded once and replayed as graphs. This is only for speed: nothing else changes.

While autograd records, each new array remembers the operation that made it and the arrays that went into it. So the
result of a function knows the whole computation, its graph. MXNet can repeat this computation on other arrays, without
Python between the operations, with the same results; steps of small networks become several times as fast:

    with autograd.record():
        y = a * b + c                     # a, b and c are marked, by attach_grad or mark_variables: so they have names
    graph = autograd.get_symbol(y)        # MXNet calls a graph a symbol
    graph.list_inputs()                   # ["var0", "var1", "var2"], the names of a, b and c
    replay = nd.CachedOp(graph)
    replay(d, e, f)                       # d * e + f

`Replay` does this for functions that return new arrays, such as a loss; `replay_step` for update rules, which change
their arguments.
"""

from __future__ import annotations

import copy

from tinymnist.backend import autograd, nd
from tinymnist.windows import CONSTANTS


class Replay:
    """function(*inputs): recorded at the first call with inputs of these shapes, then replayed. Types must not change.

    `parameters` are marked arrays that the function uses besides its inputs; gradients reach them as usual, but only
    from the first result. The function must return a list of arrays of one type. It must not branch on the values
    of arrays, and may draw random numbers only with `uniform_like`.
    Raises ValueError if it uses any other array, except those of windows.constant, or copies one.
    """

    def __init__(self, function, parameters=()):
        self.function, self.parameters = function, list(parameters)
        self.recordings = {}  # {(is_training, shapes): (graph, arguments)}

    def __call__(self, *inputs):
        key = (autograd.is_training(), *(x.shape for x in inputs))
        if key not in self.recordings:
            self.recordings[key], results = self.record(inputs)
            if autograd.is_recording():
                return results  # recording has also computed the results
            return [array.detach() for array in results]  # drop what was kept for a gradient
        graph, arguments = self.recordings[key]
        results = graph(*[inputs[a] if isinstance(a, int) else a for a in arguments])
        return results if isinstance(results, list) else [results]

    def record(self, inputs):
        """Run the function. Returns (graph, arguments) and the results. An argument is an array, or i for inputs[i]."""
        copies = [x.copy() for x in inputs]  # so that the caller's arrays stay unmarked
        for array in (*copies, *CONSTANTS.values()):  # each time: `backward` without Replay removes marks of constants
            array.attach_grad("null")  # a mark gives a name; "null": no gradient
        with autograd.record(train_mode=autograd.is_training()):
            first, *others = self.function(*copies)
            results = [first, *map(nd.stop_gradient, others)]  # only the loss needs a gradient
            arguments = {name_of(array): array for array in (*self.parameters, *CONSTANTS.values())}
            arguments.update({name_of(array): number for number, array in enumerate(copies)})
            return build_graph(results, arguments), results


def replay_step(optimizer, w, g, hyper):
    """A function without arguments that does what optimizer.step(w, g, **hyper) does, as one call of a graph.

    The learning rate may be an array like w. The step is recorded on copies, and the graph writes its
    results into w and the state.
    """
    arrays = [w, g, *optimizer.state]
    copies = [StandIn(array.copy()) for array in arrays]
    rates = [value for value in hyper.values() if isinstance(value, nd.NDArray)]
    for array in copies + rates:
        array.attach_grad("null")
    arguments = {name_of(recorded): array for recorded, array in zip(copies + rates, arrays + rates)}
    twin = copy.copy(optimizer)
    twin.owner, twin.state = copies[0], copies[2:]
    with autograd.record():
        twin.step(*copies[:2], **hyper)
        changed = [i for i, array in enumerate(copies) if array.changed]
        graph, inputs = build_graph([copies[i] for i in changed], arguments)
    targets = [arrays[i] for i in changed]
    return lambda: graph(*inputs, out=targets)


class StandIn(nd.NDArray):
    """An array for recording `x += y`, which MXNet refuses to record: x becomes the new array x + y."""

    changed = False

    def __init__(self, array):
        super().__init__(array.handle)  # takes over MXNet's pointer to the data: only one array may free it
        array.handle = None

    def become(self, array):
        self.handle, array.handle = array.handle, self.handle
        self.changed = True
        return self

    def __iadd__(self, other):
        return self.become(self + other)

    def __isub__(self, other):
        return self.become(self - other)

    def __imul__(self, other):
        return self.become(self * other)


def name_of(array):
    """The name of a marked array in graphs"""
    return autograd.get_symbol(array).name


def build_graph(results, arguments):
    """(graph, its arguments) for recorded arrays. `arguments`: by name, the arrays (or inputs) that it may use.

    Call it while autograd records.
    Raises ValueError if the recorded function used another array, or copied one.
    """
    # get_symbol takes one array, so all results are joined by concat(reshape(result), …). The two get_children
    # undo concat and reshape.
    joined = nd.concat(*[nd.reshape(array, shape=(-1,)) for array in results], dim=0)
    graph = autograd.get_symbol(joined).get_children().get_children()
    names = graph.list_inputs()
    if not set(names) <= set(arguments):
        raise ValueError("the function uses an array that is neither input nor parameter; a graph would freeze it")
    if '"op": "_copyto"' in graph.tojson():  # it blocks inside MXNet's engine, perhaps for ever
        raise ValueError("the function copies by astype, copyto or as_in_context; in a graph nd.cast does not block")
    # static: all memory is reserved once
    return nd.CachedOp(graph, [("static_alloc", True), ("static_shape", True)]), [arguments[name] for name in names]
