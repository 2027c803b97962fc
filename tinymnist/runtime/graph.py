"""Functions of arrays, recorded once and replayed as graphs. This is only for speed: nothing else changes.

A graph is MXNet's list of the operations that a function executed. MXNet runs it without Python between the operations,
with the same results and several times as fast. It knows its inputs by name, and an array has a name only if it is
marked, by attach_grad or mark_variables. `Replay` is for functions that return new arrays, such as a loss, with
gradients. `replay_step` is for update rules, which change their arguments.
"""

from __future__ import annotations

import copy

from tinymnist.backend import autograd, nd
from tinymnist.windows import CONSTANTS


class Replay:
    """function(*inputs): recorded when inputs of these shapes come for the first time, replayed from then on.

    `parameters` are marked arrays that the function uses besides its inputs; gradients reach them as usual, but only
    from the first result. The function must return a list of arrays of one type. It must not take decisions by the
    values of arrays, and may draw random numbers only with `uniform_like`.
    Raises ValueError if it uses any other array, or copies one.
    """

    def __init__(self, function, parameters=()):
        self.function, self.parameters, self.graphs = function, list(parameters), {}

    def __call__(self, *inputs):
        key = (autograd.is_training(), *(x.shape for x in inputs))
        if key not in self.graphs:
            self.graphs[key], results = self.record(inputs)
            if not autograd.is_recording():  # drop what was kept for a gradient
                results = [array.detach() for array in results]
            return results  # the recording itself was a run, and drew its random numbers
        graph, arguments = self.graphs[key]
        results = graph(*[inputs[a] if isinstance(a, int) else a for a in arguments])
        return results if isinstance(results, list) else [results]

    def record(self, inputs):
        """((graph, its arguments: the number of an input, or an array), the results of this first run)"""
        traced = [x.copy() for x in inputs]
        for array in (*traced, *CONSTANTS.values()):
            array.attach_grad("null")  # marks it; a constant loses its mark in a backward without a graph
        with autograd.record(train_mode=autograd.is_training()):
            first, *others = self.function(*traced)
            results = [first, *map(nd.stop_gradient, others)]  # or the graph would compute their gradients, too
            known = {name_of(array): array for array in (*self.parameters, *CONSTANTS.values())}
            known.update({name_of(array): number for number, array in enumerate(traced)})
            return build_graph(results, known), results


def replay_step(optimizer, w, g, hyper):
    """A function without arguments that does what optimizer.step(w, g, **hyper) does, as one call of a graph."""

    def step(w, g, *state):
        twin = copy.copy(optimizer)
        twin.owner, twin.state = w, state
        twin.step(w, g, **hyper)

    return replay_in_place(step, [w, g, *optimizer.state])


def replay_in_place(function, arrays):
    """function(*arrays) as one call without arguments. It may write into its arrays, only by += -= *= /=."""
    traced = [Tracked(a.copy()) for a in arrays]
    for array in traced:
        array.attach_grad("null")
    known = {name_of(array): own for array, own in zip(traced, arrays)}
    with autograd.record():
        function(*traced)
        changed = [i for i, array in enumerate(traced) if array.changed]
        graph, arguments = build_graph([traced[i] for i in changed], known)
    targets = [arrays[i] for i in changed]
    return lambda: graph(*arguments, out=targets)


class Tracked(nd.NDArray):
    """An array that may be changed while recording, which MXNet forbids: x += y makes x stand for a new array."""

    changed = False

    def __init__(self, array):
        super().__init__(array.handle)  # MXNet's pointer to the data, which must have one owner
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

    def __itruediv__(self, other):
        return self.become(self / other)


def name_of(array):
    """The name of a marked array in graphs"""
    return autograd.get_symbol(array).name


def build_graph(results, known):
    """(A static graph that computes recorded arrays, its arguments), the latter looked up by name in `known`."""
    # get_symbol takes one array: join all results, then undo concat by one get_children(), reshape by the other.
    joined = nd.concat(*[nd.reshape(array, shape=(-1,)) for array in results], dim=0)
    symbol = autograd.get_symbol(joined).get_children().get_children()
    names = symbol.list_inputs()
    if not set(names) <= set(known):
        raise ValueError(
            "the function uses an array that is neither input nor parameter; a graph would freeze its value"
        )
    if '"op": "_copyto"' in symbol.tojson():  # it waits for MXNet's engine inside the engine, and may wait forever
        raise ValueError("the function copies by astype, copyto or as_in_context; in a graph nd.cast does not block")
    return nd.CachedOp(symbol, [("static_alloc", True), ("static_shape", True)]), [known[name] for name in names]
