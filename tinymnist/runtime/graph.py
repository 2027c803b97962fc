"""Functions of arrays, recorded once and replayed as static graphs: the same operations without Python between them.

`Replay` is for functions that give new arrays, such as a loss, with gradients; `replay_in_place` for update rules.
"""

from __future__ import annotations

import functools

from tinymnist.backend import autograd, nd

CONSTANTS = []  # arrays that never change, and that graphs therefore may hold on to


def constant(make):
    """A function that gives an array which never changes: it is made once for the same arguments."""

    @functools.cache
    def made(*arguments):
        array = make(*arguments)
        array.attach_grad("null")  # marked, so that a graph names it
        CONSTANTS.append(array)
        return array

    return made


class Replay:
    """function(*inputs), recorded the first time that inputs of these shapes come, replayed from then on.

    `parameters` are marked arrays that the function uses besides its inputs; gradients flow to them as ever, but from
    the first result alone. The function gives a list of arrays of one type, decides nothing by their values, and draws
    random numbers only like another array.
    ValueError: it uses an array that is neither input nor parameter nor a `constant`, or copies one
    """

    def __init__(self, function, parameters=()):
        self.function, self.parameters, self.graphs = function, list(parameters), {}

    def __call__(self, *inputs):
        key = (autograd.is_training(), *(x.shape for x in inputs))
        if key not in self.graphs:
            self.graphs[key], results = self.record(inputs)
            if not autograd.is_recording():  # then nobody wants what the recording keeps for a gradient
                results = [array.detach() for array in results]
            return results  # the recording was a run like any other, and drew its random numbers
        graph, takes = self.graphs[key]
        results = graph(*[inputs[it] if isinstance(it, int) else it for it in takes])
        return results if isinstance(results, list) else [results]

    def record(self, inputs):
        """(A graph, what it takes: the number of an input, or an array), and the results of this first run."""
        trace = [x.copy() for x in inputs]
        for array in (*trace, *CONSTANTS):
            array.attach_grad("null")  # again, as a plain backward takes the mark from a constant
        with autograd.record(train_mode=autograd.is_training()):
            first, *others = self.function(*trace)
            results = [first, *map(nd.stop_gradient, others)]  # or a backward would add up zeros for them
            known = {name_of(array): array for array in (*self.parameters, *CONSTANTS)}
            known.update({name_of(array): number for number, array in enumerate(trace)})
            return compiled(results, known), results


def replay_in_place(rule, arrays):
    """rule(*arrays) as one call without arguments. The rule writes into its arrays by += −= ∗= /= alone."""
    trace = [Tracked(a.copy()) for a in arrays]
    for array in trace:
        array.attach_grad("null")
    known = {name_of(array): own for array, own in zip(trace, arrays)}
    with autograd.record():
        rule(*trace)
        changed = [i for i, array in enumerate(trace) if array.changed]
        graph, takes = compiled([trace[i] for i in changed], known)
    targets = [arrays[i] for i in changed]
    return lambda: graph(*takes, out=targets)


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


def name_of(array):
    """The name under which graphs know a marked array"""
    return autograd.get_symbol(array).name


def compiled(results, known):
    """A static graph of recorded arrays, and what it takes, by the names in `known`."""
    rows = [nd.reshape(array, shape=(-1,)) for array in results]
    symbol = autograd.get_symbol(nd.concat(*rows, dim=0)).get_children().get_children()  # from the rows to the results
    inputs = symbol.list_inputs()
    if not set(inputs) <= set(known):
        raise ValueError(
            "the function uses an array that is neither input nor parameter; a graph would freeze its value"
        )
    if '"op": "_copyto"' in symbol.tojson():  # it waits for MXNet's engine within the engine: 3 of 75 runs hung
        raise ValueError("the function copies by astype, copyto or as_in_context; in a graph nd.cast does not block")
    return nd.CachedOp(symbol, [("static_alloc", True), ("static_shape", True)]), [known[name] for name in inputs]
