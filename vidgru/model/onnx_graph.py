"""Writing ONNX graphs node by node: nodes, constants and what comes again and again.

The graphs are written by hand, not traced: every axis that varies stays free, a recurrent layer is one node, no name,
path or version of what traced it gets in, and equal models give equal bytes. Operators: https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from torch import Tensor, nn

from vidgru.errors import MissingDependencyError
from vidgru.model.checkpoint import METADATA
from vidgru.types import Array

INSTALL = 'pip install "vidgru[onnx]"'
_OPSET, _IR = 18, 8  # what onnxruntime has run since 1.14
_GATES = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2), "RNN_TANH": (0,)}  # ONNX's order, of PyTorch's
_LOWEST = float(np.finfo(np.float32).min)

Axes = Sequence[int | str]  # sizes, or names of axes that vary


def import_onnx() -> Any:
    """The package `onnx`.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise MissingDependencyError("ONNX graphs need the package onnx, which is not installed", INSTALL) from None
    return onnx


class GraphWriter:
    """A graph in the making. Values are known by their names; constants may be given as arrays or numbers.

    Args:
        name: of the graph.

    Raises:
        MissingDependencyError: the package `onnx` is not installed.
    """

    def __init__(self, name: str) -> None:
        self._onnx = import_onnx()
        self._name = name
        self._nodes: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._tensors: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    # --- the graph ----------------------------------------------------------------------------------------------------

    def input(self, name: str, dtype: type[np.generic], axes: Axes) -> str:
        """Declare an input."""
        self._inputs.append(self._described(name, dtype, axes))
        return name

    def output(self, name: str, value: str, axes: Axes) -> None:
        """Declare a float32 output."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(self._described(name, np.float32, axes))

    def to_bytes(self, facts: Mapping[str, Any]) -> bytes:
        """The file's bytes, a pure function of the graph and of the facts in its metadata."""
        helper = self._onnx.helper
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, self._tensors)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR,
            producer_name="vidgru",
            producer_version=version("vidgru"),
        )
        text = json.dumps(facts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        helper.set_model_props(model, {METADATA: text})
        self._onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def _described(self, name: str, dtype: type[np.generic], axes: Axes) -> Any:
        helper = self._onnx.helper
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(axes))

    # --- nodes --------------------------------------------------------------------------------------------------------

    def add(self, operator: str, *inputs: str | Array | float, **attributes: Any) -> str:
        """A node of one output. Inputs that are no names are constants; "" leaves one out."""
        return self.add_many(operator, 1, *inputs, **attributes)[0]

    def add_many(self, operator: str, outputs: int, *inputs: str | Array | float, **attributes: Any) -> list[str]:
        """A node of several outputs."""
        name = f"{operator}_{len(self._nodes)}"
        names = [name if number == 0 else f"{name}.{number}" for number in range(outputs)]
        given = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self._nodes.append(self._onnx.helper.make_node(operator, given, names, name=name, **attributes))
        return names

    def _constant(self, value: Array | float) -> str:
        array = np.asarray(value, dtype=np.float32 if isinstance(value, float) else None)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._tensors.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), self._constants[key]))
        return self._constants[key]

    # --- what comes again and again -----------------------------------------------------------------------------------

    def linear(self, value: str, layer: nn.Linear) -> str:
        """A linear layer over the last axis."""
        product = self.add("MatMul", value, numbers(layer.weight).T)
        return product if layer.bias is None else self.add("Add", product, numbers(layer.bias))

    def norm(self, value: str, layer: nn.LayerNorm) -> str:
        """Layer normalisation over the last axis."""
        weights = numbers(layer.weight), numbers(layer.bias)
        return self.add("LayerNormalization", value, *weights, axis=-1, epsilon=layer.eps)

    def cast(self, value: str, dtype: type[np.generic]) -> str:
        """The value in another type."""
        return self.add("Cast", value, to=int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))

    def size(self, value: str, axis: int) -> str:
        """How long an axis is, int64 [1]."""
        return self.add("Shape", value, start=axis, end=axis + 1)

    def reshape(self, value: str, *sizes: str | int) -> str:
        """The value in another shape; sizes are numbers, or int64 [1]."""
        return self.add("Reshape", value, self.joined(*sizes))

    def joined(self, *sizes: str | int) -> str:
        """Sizes one after another, int64 [n]."""
        return self.add("Concat", *(ints(size) if isinstance(size, int) else size for size in sizes), axis=0)

    def counted(self, size: str) -> str:
        """0, 1, 2, ... as int64, so many as int64 [1] says."""
        return self.add("Range", ints(), self.add("Squeeze", size), np.array(1))

    def masked(self, value: str, mask: str) -> str:
        """The value where the mask is True, and else what a softmax takes for nothing."""
        return self.add("Where", mask, value, _LOWEST)

    def chosen(self, value: str, mask: str) -> str:
        """The elements of a value where the mask, of its shape, is True, one after another."""
        return self.add("Compress", value, self.reshape(mask, -1))

    def rows(self, counts: str) -> tuple[str, str]:
        """Rows that lie one group after another, laid out side by side.

        Args:
            counts: int64 [n], rows of each group.

        Returns:
            Index of the rows of each group, int64 [n, most], `most` at least 1, and which of them there are, bool
            [n, most]. Where there is none, the index is at most the number of all rows: one row more has to follow.
        """
        most = self.add("Max", self.add("ReduceMax", counts, keepdims=1), ints(1))
        place = self.add("Unsqueeze", self.counted(most), ints(0))
        wide = self.add("Unsqueeze", counts, ints(1))
        there = self.add("Less", place, wide)
        stop = self.add("Unsqueeze", self.add("CumSum", counts, ints()), ints(1))
        index = self.add("Add", self.add("Sub", stop, wide), place)
        return self.add("Min", index, self.add("ReduceSum", counts, keepdims=1)), there


def numbers(tensor: Tensor) -> Array:
    """A parameter as a constant."""
    array: Array = tensor.detach().cpu().numpy()
    return array


def recurrent_weights(layers: nn.RNNBase, layer: int = 0) -> tuple[Array, Array, Array]:
    """W, R and B of a recurrent layer as ONNX lays them out: a row a direction, gates in its order."""
    order, rows = _GATES[layers.mode], []
    for way in ("", "_reverse") if layers.bidirectional else ("",):
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        gates = [np.split(numbers(getattr(layers, f"{kind}_l{layer}{way}")), len(order)) for kind in kinds]
        w, r, own, recurrent = (np.concatenate([each[gate] for gate in order]) for each in gates)
        rows.append((w, r, np.concatenate([own, recurrent])))
    w, r, b = (np.stack(each) for each in zip(*rows, strict=True))
    return w, r, b


def ints(*values: int) -> Array:
    """Int64 numbers: none is the number 0, else [n]."""
    return np.array(values, np.int64) if values else np.array(0, np.int64)
