"""What the stand-in's parser makes of an ONNX file: a network of layers and tensors, or errors."""

from __future__ import annotations

import onnx

from . import ILogger

TYPES = {
    onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF", onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT64: "INT64", onnx.TensorProto.INT32: "INT32", onnx.TensorProto.BOOL: "BOOL"
}


class Tensor:
    def __init__(self, name, dtype, shape=()):
        self.name, self.dtype, self.shape = name, dtype, tuple(shape)


class Layer:
    def __init__(self, node, types):
        trt = self.trt
        self.name, self.outputs = node.name, [Tensor(n, types.get(n, trt.DataType.FLOAT)) for n in node.output]
        self.type = {"Constant": trt.LayerType.CONSTANT, "Shape": trt.LayerType.SHAPE}.get(node.op_type,
                                                                                         trt.LayerType.CONVOLUTION)
        self.num_outputs = len(self.outputs)
        self.held, self.held_outputs = None, {}

    def get_output(self, i):
        return self.outputs[i]


class TypedLayer:
    precision = property(lambda self: self.held, lambda self, value: setattr(self, "held", value))

    def set_output_type(self, i, value):
        self.held_outputs[i] = value


class Network:
    def __init__(self, flags):
        self.flags, self.layers, self.inputs, self.nodes, self.content = flags, [], [], [], b""

    num_layers = property(lambda self: len(self.layers))
    num_inputs = property(lambda self: len(self.inputs))

    def get_layer(self, i):
        return self.layers[i]

    def get_input(self, i):
        return self.inputs[i]

    def has(self, name):
        flag = getattr(self.trt.NetworkDefinitionCreationFlag, name, None)
        return flag is not None and bool(self.flags & 1 << int(flag))


class ParserError:
    def __init__(self, position, node):
        self._position, self._node = position, node

    def desc(self):
        return "No importer registered for op"

    def node(self):
        return self._position


class NamedError:
    def node_name(self):
        return self._node.name

    def node_operator(self):
        return self._node.op_type


class OnnxParser:
    def __init__(self, network, logger):
        self.network, self.logger, self.errors = network, logger, []

    num_errors = property(lambda self: len(self.errors))

    def get_error(self, i):
        return self.errors[i]

    def parse(self, content):
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
        if self.wants_explicit_batch and not self.network.has("EXPLICIT_BATCH"):
            self.logger.log(ILogger.ERROR,
                            "This version of the ONNX parser only supports networks with an explicit batch dimension")
            return False
        self.errors = [self.trt.IParserError(i, n)
                       for i, n in enumerate(model.graph.node) if n.domain and not model.functions]
        graph = model.graph
        types = {v.name: self.trt.DataType[TYPES[v.type.tensor_type.elem_type]]
                 for v in (*graph.input, *graph.output, *graph.value_info)}
        constants = {i.name for i in graph.initializer}
        self.network.nodes, self.network.content = list(graph.node), bytes(content)
        self.network.layers = [self.trt.ILayer(n, types) for n in graph.node]
        self.network.inputs = [
            Tensor(v.name, types[v.name], [d.dim_value or -1 for d in v.type.tensor_type.shape.dim])
            for v in graph.input if v.name not in constants]
        return not self.errors
