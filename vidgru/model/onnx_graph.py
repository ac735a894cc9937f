"""Write ONNX graphs node by node.

Graphs are written by hand instead of traced, so that all varying axes stay dynamic, a recurrent layer is one node, no
names, paths or versions of a tracer are included, and equal models give equal bytes.
Operators: https://onnx.ai/onnx/operators.
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
from vidgru.model.member_layers import MemberLayerNorm, MemberLinear
from vidgru.types import Array

_OPSET, _IR = 18, 8  # supported by onnxruntime since 1.14
_GATE_ORDER = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2), "RNN_TANH": (0,)}  # ONNX's gates as indices into PyTorch's
_LOWEST = float(np.finfo(np.float32).min)

Axes = Sequence[int | str]  # sizes, or names of dynamic axes


class GraphWriter:
    """Builds a graph. Methods return the names of values; inputs may also be constants, as arrays or numbers.

    Args:
        name: Name of the graph.

    Raises:
        MissingDependencyError: The package `onnx` is not installed.
    """

    def __init__(self, name: str) -> None:
        try:
            import onnx
        except ModuleNotFoundError:
            raise MissingDependencyError(
                "exporting to ONNX needs the package onnx, which is not installed", 'pip install "vidgru[onnx]"'
            ) from None
        self._onnx: Any = onnx
        self._name = name
        self._nodes: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}  # names by content, to store each once
        self._initializers: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, dtype: type[np.generic], axes: Axes) -> str:
        """Declare an input."""
        self._inputs.append(self._value_info(name, dtype, axes))
        return name

    def output(self, name: str, value: str, axes: Axes) -> None:
        """Declare a float32 output."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(self._value_info(name, np.float32, axes))

    def to_bytes(self, metadata: Mapping[str, Any]) -> bytes:
        """Return the file's bytes, a pure function of the graph and its metadata."""
        helper = self._onnx.helper
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, self._initializers)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR,
            producer_name="vidgru",
            producer_version=version("vidgru"),
        )
        text = json.dumps(metadata, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        helper.set_model_props(model, {METADATA: text})
        self._onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def _value_info(self, name: str, dtype: type[np.generic], axes: Axes) -> Any:
        helper = self._onnx.helper
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(axes))

    def add(self, operator: str, *inputs: str | Array | float, **attributes: Any) -> str:
        """Add a node with one output; the input "" omits an optional one."""
        return self.add_many(operator, 1, *inputs, **attributes)[0]

    def add_many(self, operator: str, outputs: int, *inputs: str | Array | float, **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        name = f"{operator}_{len(self._nodes)}"
        names = [name if number == 0 else f"{name}.{number}" for number in range(outputs)]
        input_names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self._nodes.append(self._onnx.helper.make_node(operator, input_names, names, name=name, **attributes))
        return names

    def _constant(self, value: Array | float) -> str:
        array = np.asarray(value, dtype=np.float32 if isinstance(value, float) else None, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._initializers.append(self._onnx.numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def linear(self, value: str, layer: MemberLinear) -> str:
        """Map [members,n,inputs], or [n,inputs] that members share, to [members,n,outputs]."""
        product = self.add("MatMul", value, numbers(layer.weight).transpose(0, 2, 1))
        return product if layer.bias is None else self.add("Add", product, numbers(layer.bias)[:, None])

    def norm(self, value: str, layer: MemberLayerNorm) -> str:
        """Apply layer normalization to the last axis of [members,n,width]."""
        weight, bias = numbers(layer.weight)[:, None], numbers(layer.bias)[:, None]
        scale = np.ones(weight.shape[2], np.float32)  # the operator takes no scale per member
        normal = self.add("LayerNormalization", value, scale, axis=-1, epsilon=layer.eps)
        return self.add("Add", self.add("Mul", normal, weight), bias)

    def cast(self, value: str, dtype: type[np.generic]) -> str:
        """Convert a value to another type."""
        return self.add("Cast", value, to=int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))

    def size(self, value: str, axis: int) -> str:
        """Return the size of an axis, int64 [1]."""
        return self.add("Shape", value, start=axis, end=axis + 1)

    def reshape(self, value: str, *sizes: str | int) -> str:
        """Reshape a value; sizes are numbers or int64 [1]."""
        shape = self.add("Concat", *(ints(size) if isinstance(size, int) else size for size in sizes), axis=0)
        return self.add("Reshape", value, shape)

    def masked(self, value: str, mask: str) -> str:
        """Replace a value where the mask is False by the lowest number, which a softmax gives no weight."""
        return self.add("Where", mask, value, _LOWEST)

    def compress(self, value: str, mask: str) -> str:
        """Return the elements of a value where the mask of the same shape is True, as one axis."""
        return self.add("Compress", value, self.reshape(mask, -1))

    def rows(self, counts: str) -> tuple[str, str]:
        """Return the padded row indices of consecutive groups of rows.

        Args:
            counts: int64 [n], rows per group.

        Returns:
            Index of the rows of each group, int64 [n,most] with `most` at least 1, and a mask, bool [n,most]. Padding
            indices are at most the number of rows, so the indexed value needs one row more.
        """
        most = self.add("Max", self.add("ReduceMax", counts, keepdims=1), ints(1))
        position = self.add("Unsqueeze", self.add("Range", ints(), self.add("Squeeze", most), np.array(1)), ints(0))
        sizes = self.add("Unsqueeze", counts, ints(1))
        mask = self.add("Less", position, sizes)
        stop = self.add("Unsqueeze", self.add("CumSum", counts, ints()), ints(1))
        index = self.add("Add", self.add("Sub", stop, sizes), position)
        return self.add("Min", index, self.add("ReduceSum", counts, keepdims=1)), mask


def numbers(tensor: Tensor) -> Array:
    """Return a parameter as an array."""
    array: Array = tensor.detach().cpu().numpy()
    return array


def recurrent_weights(layers: nn.RNNBase, layer: int = 0) -> tuple[Array, Array, Array]:
    """Return W, R and B of a recurrent layer in ONNX's layout: one row per direction, gates in ONNX's order."""
    order, rows = _GATE_ORDER[layers.mode], []
    for direction in ("", "_reverse") if layers.bidirectional else ("",):
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        gates = [np.split(numbers(getattr(layers, f"{kind}_l{layer}{direction}")), len(order)) for kind in kinds]
        w, r, input_bias, recurrent_bias = (np.concatenate([split[gate] for gate in order]) for split in gates)
        rows.append((w, r, np.concatenate([input_bias, recurrent_bias])))
    w, r, b = (np.stack(tensors) for tensors in zip(*rows, strict=True))
    return w, r, b


def ints(*values: int) -> Array:
    """Return int64 [n]; without values the scalar 0."""
    return np.array(values, np.int64) if values else np.array(0, np.int64)
