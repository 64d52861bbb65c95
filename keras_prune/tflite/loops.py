"""GRU and LSTM layers in a dense `.tflite` file: the loops that they become, read as what they compute.

A Keras 3 recurrent layer is a WHILE operator whose body holds FULLY_CONNECTED operators. Rather than compare its
operators one by one with a list, the body is read as an expression: what the next state is, in terms of the state
and of the step's input. Whatever order the converter puts the operators in, the expression is the same.
"""

from __future__ import annotations

from typing import Any

from keras_prune.tflite import flatbuffer
from keras_prune.tflite.loop_body import FIRST_STATE, SEQUENCE, Body, Sum, atom_sum, only_node
from keras_prune.tflite.operators import FULLY_CONNECTED, GRU, LSTM, WEIGHTS
from keras_prune.tflite.recurrent_layer import (
    Matrix,
    RecurrentLayer,
    UnknownLayerError,
    carried_options,
    require,
)

PROBLEM = "loop is not recognised as a GRU or LSTM"


def holds_matrices(model: Any, subgraph: Any, operator: Any) -> bool:
    """Whether a WHILE's body has FULLY_CONNECTED operators."""
    body = getattr(flatbuffer.options(model, operator), "bodySubgraphIndex", -1)
    if not 0 <= body < len(model.subgraphs):
        return False
    names = {flatbuffer.operator_name(model, inner) for inner in model.subgraphs[body].operators or []}
    return bool(names & {"FULLY_CONNECTED", FULLY_CONNECTED})


def read(model: Any, s: int, i: int) -> RecurrentLayer:
    """Read a WHILE operator.

    Raises:
        UnknownLayerError: it computes something else than a GRU or an LSTM.
    """
    subgraph = model.subgraphs[s]
    operator = subgraph.operators[i]
    options = flatbuffer.options(model, operator)
    condition, body = (getattr(options, f"{name}SubgraphIndex", -1) for name in ("cond", "body"))
    require(all(0 < index < len(model.subgraphs) for index in (condition, body)), "it names a missing subgraph")
    inputs, outputs = flatbuffer.ints(operator.inputs), flatbuffer.ints(operator.outputs)
    require(len(outputs) == len(inputs) > FIRST_STATE, "it carries other values than a state")
    require(min([*inputs, *outputs]) >= 0, "it lacks an input")
    reader = Body(model, body)
    require(len(reader.inputs) == len(reader.outputs) == len(inputs), "its body carries other values")
    for counter in (0, 1):
        start = flatbuffer.constant_data(model, subgraph.tensors[inputs[counter]])
        require(start is not None and not start.any(), "its counters do not begin at 0")
        require(only_node(reader.whole(reader.outputs[counter])) == ("counter", 1), "its counters do not go up by 1")
    kept, return_sequences = _kept_tensor(reader)
    carried = _find_places(reader, [subgraph.tensors[tensor] for tensor in inputs], kept)
    masked = reader.mask_tensor >= 0
    for unused in {*range(len(inputs))} - {SEQUENCE, *carried}:
        require(not _is_read(subgraph, outputs[unused]), "its counters or its input are read behind it")
    step_shape = flatbuffer.ints(subgraph.tensors[inputs[reader.input_tensor]].shape)
    require(len(step_shape) == 3, "its input is not [steps, batch, features]")
    _check_condition(model, condition, len(inputs), step_shape[0])
    require(len({*_references(model)} & {condition, body}) == 2, "its subgraphs are missing")
    require(all(_references(model).count(index) == 1 for index in (condition, body)), "its subgraphs are shared")

    layer = LstmStep(reader) if len(carried) == 2 else GruStep(reader)
    steps = step_shape[0] if return_sequences else 1
    shape = flatbuffer.ints(reader.subgraph.tensors[reader.inputs[SEQUENCE]].shape)
    require(shape == [steps, *reader.shape(kept)], "it keeps another number of steps than its input has")
    zero_output = False
    if masked:
        mask_shape = flatbuffer.ints(subgraph.tensors[inputs[reader.mask_tensor]].shape)
        require(mask_shape == [*step_shape[:2], 1], "its mask is not [steps, batch, 1]")
        zero_output = _zero_output(reader, kept)
        last = flatbuffer.constant_data(model, subgraph.tensors[inputs[FIRST_STATE]])
        require(zero_output or (last is not None and not last.any()), "its outputs do not begin at 0")
    else:
        require(kept == reader.outputs[FIRST_STATE], "it does not keep its state after every step")
    states = tuple(inputs[position] for position in carried)
    for tensor in (*states, inputs[reader.input_tensor], outputs[SEQUENCE]):
        require(subgraph.tensors[tensor].type == flatbuffer.schema().TensorType.FLOAT32, "it is not FLOAT32")
    return RecurrentLayer(
        custom_code=LSTM if len(carried) == 2 else GRU,
        subgraph=s,
        operator=operator,
        units=layer.units,
        return_sequences=return_sequences,
        reset_after=layer.reset_after,
        matrices={name: Matrix(body, number, (WEIGHTS,)) for name, number in layer.matrices.items()},
        home=body,
        biases={name: (tensor,) for name, tensor in layer.biases.items()},
        source=inputs[reader.input_tensor],
        states=states,
        sequence=outputs[SEQUENCE],
        last_states=tuple(outputs[position] for position in carried),
        mask=inputs[reader.mask_tensor] if masked else None,
        zero_output_for_mask=zero_output,
        zeros=inputs[SEQUENCE],
        hidden=(condition, body),
        dense={**carried_options(model, operator), "condition_subgraph": condition, "body_subgraph": body},
    )


def _find_places(reader: Body, tensors: list[Any], kept: int) -> range:
    """Find input and mask among what a loop carries; returns the states' places."""
    count = len(tensors)
    fixed = [i for i in range(FIRST_STATE, count) if reader.outputs[i] == reader.inputs[i]]
    masks = [i for i in fixed if tensors[i].type == flatbuffer.schema().TensorType.BOOL]
    known = len(masks) < 2 and len(fixed) == len(masks) + 1 and fixed == [*range(count - len(fixed), count)]
    require(known, "it changes its input, or carries other values than a state")
    (reader.input_tensor,) = {*fixed} - {*masks}
    if masks:
        reader.mask_tensor = masks[0]
        reader.first_state += kept == reader.outputs[FIRST_STATE]  # or else masked steps' outputs are zero
    carried = range(reader.first_state, fixed[0])
    require(len(carried) in (1, 2), "it carries other values than a state")
    return carried


def _zero_output(reader: Body, kept: int) -> bool:
    """Whether masked steps' outputs are zero, and not what they were a step before."""
    node = only_node(reader.whole(kept))
    require(node and node[0] == "select" and node[1] == reader.next_state(0), "its outputs are not its masked state")
    last: Sum = ((("input", FIRST_STATE), 0, reader.width(kept)),)
    require(node[2] == () or (node[2] == last and reader.first_state > FIRST_STATE), "masked steps have other outputs")
    return node[2] == ()


def _is_read(subgraph: Any, tensor: int) -> bool:
    if tensor in flatbuffer.ints(subgraph.outputs):
        return True
    return any(tensor in flatbuffer.ints(operator.inputs) for operator in subgraph.operators)


def _references(model: Any) -> list[int]:
    """Every mention of a subgraph by an operator."""
    found = []
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or []:
            for name, value in vars(operator.builtinOptions).items() if operator.builtinOptions is not None else ():
                if name.lower().endswith("subgraphindex"):
                    found.append(int(value))
    return found


def _check_condition(model: Any, index: int, carried: int, steps: int) -> None:
    """The loop goes on while its counters, or one of the two, are below the number of steps."""
    reader = Body(model, index)
    require(len(reader.inputs) == carried and len(reader.outputs) == 1, "its condition is unusual")
    both = reader.producer(reader.outputs[0], "LOGICAL_AND")
    compared = both[0] if both else reader.outputs
    require(compared, "its condition is unusual")
    for tensor in compared:
        less = reader.producer(tensor, "LESS")
        limit = reader.constant(less[0][1], "<i4") if less and len(less[0]) == 2 else None
        ends = less and limit is not None and limit.tolist() == [steps] and less[0][0] in reader.inputs[:2]
        require(ends, "it does not end after the input's last step")


def _kept_tensor(reader: Body) -> tuple[int, bool]:
    """Return what becomes of the outputs in each step, and whether that of all steps is kept or only the last one's."""
    kept = reader.outputs[SEQUENCE]

    def reshaped(tensor: int) -> int:
        reshape = reader.producer(tensor, "RESHAPE")
        known = reshape is not None and reshape[0] and reshape[0][0] >= 0
        require(known, "it does not keep its state after every step")
        assert reshape is not None
        state = reshape[0][0]
        require(reader.shape(tensor) == [1, *reader.shape(state)], "its outputs have another shape than its state")
        return state

    joined = reader.producer(kept, "CONCATENATION")
    if joined is None:
        return reshaped(kept), False
    require(
        len(joined[0]) == 3 and joined[1] and joined[1].axis == 0 and not joined[1].fusedActivationFunction,
        "it does not keep its state after every step",
    )
    before, now, after = joined[0]
    head, tail = reader.producer(before, "SLICE"), reader.producer(after, "SLICE")
    known = head is not None and tail is not None and len(head[0]) == len(tail[0]) == 3
    require(known, "it does not keep its state after every step")
    assert head is not None
    assert tail is not None
    sequence = reader.inputs[SEQUENCE]
    begin, rest = reader.constant(head[0][1], "<i4"), reader.constant(tail[0][2], "<i4")
    require(
        head[0][0] == tail[0][0] == sequence
        and begin is not None
        and begin.tolist() == [0, 0, 0]
        and rest is not None
        and rest.tolist() == [-1, -1, -1]
        and _counts(reader, head[0][2], 0, -1)
        and _counts(reader, tail[0][1], 1, 0),
        "it keeps its state at another place than the step's",
    )
    return reshaped(now), True


def _counts(reader: Body, tensor: int, ahead: int, others: int) -> bool:
    """Whether a vector is (counter + ahead, others, others)."""
    joined = reader.producer(tensor, "CONCATENATION")
    if joined is None or len(joined[0]) != 2:
        return False
    reshape = reader.producer(joined[0][0], "RESHAPE")
    if reshape is None or only_node(reader.whole(reshape[0][0])) != ("counter", ahead):
        return False
    values = reader.constant(joined[0][1], "<i4")
    return values is not None and values.tolist() == [others, others]


class _Layer:
    """What the two kinds of layers have in common: gates that sum a slice of each matrix and of each bias."""

    gates: int
    reset_after = True

    def __init__(self, reader: Body) -> None:
        self.reader = reader
        self.units = reader.width(reader.inputs[reader.first_state])
        self.state = (("input", reader.first_state), 0, self.units)
        self.matrices: dict[str, int] = {}
        self.biases: dict[str, int] = {}
        self._match(reader.next_state(0))

    def _match(self, state: Sum) -> None:
        raise NotImplementedError

    def gate(self, atoms: Sum, number: int, sources: dict[str, Sum], biases: tuple[str, ...]) -> None:
        """Check that a sum is the gate's slice of one matrix for each of the sources, and of biases at most."""
        begin, end = number * self.units, (number + 1) * self.units
        missing = dict(sources)
        constants = []
        for node, first, last in atoms:
            if node[0] == "constant":
                constants.append((node[1], first, last))
                continue
            names = [name for name, source in missing.items() if node[0] == "matrix" and node[2] == source]
            require(names, "a gate sums something else than products with its input and its state")
            name = names[0]
            del missing[name]
            offset = 0 if name == "candidate_kernel" else begin
            require((first, last) == (offset, offset + self.units), "gates in another order")
            require(self.matrices.setdefault(name, node[1]) == node[1], "gates with matrices of their own")
        require(not missing, "a gate without its input or its state")
        # Which of two vectors is which does not matter to a sum, but it must be the same in all gates.
        for tensor, first, last in sorted(constants):
            require((first, last) == (begin, end), "biases in another order")
            known = [name for name in biases if self.biases.get(name) == tensor]
            free = [name for name in biases if name not in self.biases]
            require(known or free, "more biases than a layer has")
            self.biases[known[0] if known else free[0]] = tensor

    def check(self) -> None:
        """Hold matrices and biases against the number of gates."""
        tensors = self.reader.subgraph.tensors
        for name, index in self.matrices.items():
            product = self.reader.subgraph.operators[index]
            if flatbuffer.operator_name(self.reader.model, product) == FULLY_CONNECTED:
                continue  # its tensor holds values, and nothing becomes of it any more
            weights = tensors[flatbuffer.ints(product.inputs)[1]]
            rows, columns = ([*flatbuffer.ints(weights.shape), 0, 0])[:2]
            stored = 1 if name == "candidate_kernel" else self.gates
            if name == "recurrent_kernel" and not self.reset_after:
                stored = self.gates - 1
            require(rows == stored * self.units, f"the {name.replace('_', ' ')} has {rows} rows")
            require(name == "kernel" or columns == self.units, f"the {name.replace('_', ' ')} has {columns} columns")
        for name, tensor in self.biases.items():
            stored = self.gates - 1 if name == "recurrent_bias" and not self.reset_after else self.gates
            require(self.reader.width(tensor) == stored * self.units, "a bias of another length")

    @property
    def step(self) -> Sum:
        x = self.reader.inputs[self.reader.input_tensor]
        return ((("step",), 0, self.reader.width(x)),)


class GruStep(_Layer):
    """next = z * h + (1 - z) * candidate, as `keras.layers.GRU`: gates z, r, candidate."""

    gates = 3

    def _match(self, state: Sum) -> None:
        h: Sum = (self.state,)
        products = [node for node, *_ in state if node[0] == "product"]
        require(len(state) == len(products) == 2, "the next state is not z * h + (1 - z) * candidate")
        kept = next((p for p in products if h in p[1:]), None)
        require(kept is not None, "the next state is not z * h + (1 - z) * candidate")
        assert kept is not None
        new = products[1 - products.index(kept)]
        update = _other(kept, h)
        complement: Any = (("complement", update), 0, self.units)
        require((complement,) in new[1:], "the next state is not z * h + (1 - z) * candidate")
        z = only_node(update)
        candidate = only_node(_other(new, (complement,)))
        require(z and z[0] == "logistic", "the update gate is not logistic")
        require(candidate and candidate[0] == "tanh", "the activation is not tanh")

        after = [node for node, *_ in candidate[1] if node[0] == "product"]
        sources = {"kernel": self.step, "recurrent_kernel": h}
        if after:
            require(len(after) == 1, "the candidate has more than one product")
            reset, inner = _reset_and(after[0], h)
            rest = atom_sum(atom for atom in candidate[1] if atom[0] != after[0])
            # What the reset gate multiplies tells the two biases apart.
            self.gate(inner, 2, {"recurrent_kernel": h}, ("recurrent_bias",))
            self.gate(rest, 2, {"kernel": self.step}, ("bias",))
        else:
            self.reset_after = False
            products = [
                node
                for node, *_ in candidate[1]
                if node[0] == "matrix" and (only_node(node[2]) or ("",))[0] == "product"
            ]
            require(len(products) == 1, "the candidate has no reset state")
            reset_state = only_node(products[0][2])
            require(h in reset_state[1:], "the reset gate multiplies something else than the state")
            reset = only_node(_other(reset_state, h))
            self.gate(candidate[1], 2, {"kernel": self.step, "candidate_kernel": products[0][2]}, ("bias",))
        require(reset and reset[0] == "logistic", "the reset gate is not logistic")
        biases = ("bias", "recurrent_bias") if self.reset_after else ("bias",)
        self.gate(z[1], 0, sources, biases)
        self.gate(reset[1], 1, sources, biases)
        self.check()


def _other(product: Any, factor: Sum) -> Sum:
    a, b = product[1:]
    return b if a == factor else a


def _reset_and(product: Any, h: Sum) -> tuple[Any, Sum]:
    """Return the reset gate and what it multiplies."""
    for gate, inner in (product[1:], product[:0:-1]):
        node = only_node(gate)
        if node and node[0] == "logistic" and any(n[0] == "matrix" and n[2] == h for n, *_ in inner):
            return node, inner
    raise UnknownLayerError("the reset gate multiplies something else than the recurrent product")


class LstmStep(_Layer):
    """cell = f * cell + i * g, next = o * tanh(cell), as `keras.layers.LSTM`: gates i, f, g, o."""

    gates = 4

    def _match(self, state: Sum) -> None:
        reader = self.reader
        problem = "the next state is not o * tanh(f * cell + i * g)"
        old: Sum = ((("input", reader.first_state + 1), 0, self.units),)
        cell = reader.next_state(1)
        shown: Sum = ((("tanh", cell), 0, self.units),)
        product = only_node(state)
        require(product and product[0] == "product" and shown in product[1:], problem)
        products = [node for node, *_ in cell if node[0] == "product"]
        require(len(cell) == len(products) == 2, problem)
        kept = next((p for p in products if old in p[1:]), None)
        require(kept is not None, problem)
        assert kept is not None
        new = products[1 - products.index(kept)]
        g = next((only_node(x) for x in new[1:] if (only_node(x) or ("",))[0] == "tanh"), None)
        require(g, "the activation is not tanh")
        assert g is not None
        i = only_node(_other(new, ((g, 0, self.units),)))
        f, o = only_node(_other(kept, old)), only_node(_other(product, shown))
        sources = {"kernel": self.step, "recurrent_kernel": (self.state,)}
        for number, gate in enumerate((i, f, g, o)):
            require(gate and gate[0] == ("tanh" if number == 2 else "logistic"), "the gates are not logistic")
            self.gate(gate[1], number, sources, ("bias", "recurrent_bias"))
        self.check()
