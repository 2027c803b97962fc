"""Functions of arrays, recorded once and replayed as static graphs: the same operations without Python between them.

`Replay` is for functions that give new arrays, such as a loss, with gradients; `replay_in_place` for update rules.
"""

from __future__ import annotations

from tinymnist.backend import autograd, nd


class Replay:
    """function(*inputs), recorded the first time that inputs of these shapes come, replayed from then on.

    `parameters` are marked arrays that the function uses besides its inputs; gradients flow to them as ever. The
    function gives a list of arrays of one shape, decides nothing by their values, and draws random numbers only like
    another array.   ValueError: it uses an array that is neither input nor parameter
    """

    def __init__(self, function, parameters=()):
        self.function, self.parameters, self.graphs = function, list(parameters), {}

    def __call__(self, *inputs):
        key = (autograd.is_training(), *(x.shape for x in inputs))
        if key not in self.graphs:
            self.graphs[key], results = record(self.function, inputs, self.parameters)
            return results  # the recording was a run like any other, and drew its random numbers
        graph, order = self.graphs[key]
        every = (*inputs, *self.parameters)
        results = graph(*[every[i] for i in order])
        return results if isinstance(results, list) else [results]


def replay_in_place(rule, arrays):
    """rule(*arrays) as one call without arguments. The rule writes into its arrays by += −= ∗= /= alone."""
    trace = [Tracked(a.copy()) for a in arrays]
    for array in trace:
        array.attach_grad("null")
    names = [autograd.get_symbol(array).name for array in trace]
    with autograd.record():
        rule(*trace)
        changed = [i for i, array in enumerate(trace) if array.changed]
        graph, order = compiled([trace[i] for i in changed], names)
    sources, targets = [arrays[i] for i in order], [arrays[i] for i in changed]
    return lambda: graph(*sources, out=targets)


class Tracked(nd.NDArray):
    """While recording, MXNet forbids writing into an array: here x += y lets x stand for the new value instead."""

    changed = False

    def __init__(self, array):
        super().__init__(array.handle)
        array.handle = None

    def become(self, array):
        self.handle, array.handle, self.changed = array.handle, self.handle, True
        return self

    def __iadd__(self, other):
        return self.become(self + other)

    def __isub__(self, other):
        return self.become(self - other)

    def __imul__(self, other):
        return self.become(self * other)

    def __itruediv__(self, other):
        return self.become(self / other)


def record(function, inputs, parameters):
    """(The graph of function(*inputs), for each of its inputs the place in (*inputs, *parameters)), and the results."""
    trace = [x.copy() for x in inputs]
    for array in trace:
        array.attach_grad("null")  # marked, so that the graph names it
    names = [autograd.get_symbol(array).name for array in (*trace, *parameters)]
    with autograd.record(train_mode=autograd.is_training()):
        results = function(*trace)
        return compiled(results, names), results


def compiled(results, names):
    """A static graph of recorded arrays, all of one shape, and for each of its inputs its name's place in `names`."""
    symbol = autograd.get_symbol(nd.stack(*results)).get_children()  # what the stack takes: the results, in one graph
    inputs = symbol.list_inputs()
    if not set(inputs) <= set(names):
        raise ValueError(
            "the function uses an array that is neither input nor parameter; a graph would freeze its value"
        )
    graph = nd.CachedOp(symbol, [("static_alloc", True), ("static_shape", True)])
    return graph, [names.index(name) for name in inputs]
