"""Builds a TensorRT plan of one custom node on the CPU: run by test_plugin_plan.py in a process of its own.

    python plan_with_plugin.py LIBRARY OPERATION DTYPE OUTPUTS      prints one line of JSON
"""

import json
import sys

import tensorrt_bindings as trt
from onnx import TensorProto, helper

from universeg_rt.runners.gpu.tensorrt import plugin as loading


def model(operation: str, dtype: str, outputs: int) -> bytes:
    """A Relu, the custom node with dynamic B, K and S, and a Relu: the plugin must live among native layers."""
    kind = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}[dtype]
    info = helper.make_tensor_value_info
    names = [f"out{i}" for i in range(outputs)]
    node = helper.make_node(operation, ["term", "query_term", "weights"], names, domain="universeg_rt", name="custom",
                            plugin_namespace="universeg_rt", plugin_version="1", negative_slope=0.01)
    node.attribute.append(helper.make_attribute("outputs", outputs))
    nodes = [
        helper.make_node("Relu", ["support_term"], ["term"]), node,
        helper.make_node("Relu", [names[-1]], ["last"])
    ]
    graph = helper.make_graph(
        nodes, "one_node",
        [info("support_term", kind, [1, "K", "S", 8, 17, 16]), info("query_term", kind, ["B", "K", 1, 8, 17, 16]),
         info("weights", TensorProto.FLOAT, ["K", "S"])],
        [info(name, kind, None) for name in (*names[:-1], "last")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("universeg_rt", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def main(library: str, operation: str, dtype: str, outputs: str) -> None:
    logger = trt.Logger(trt.Logger.ERROR)
    loading.load(library, trt)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model(operation, dtype, int(outputs))):
        raise SystemExit("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("support_term", (1, 1, 1, 8, 17, 16), (1, 1, 4, 8, 17, 16), (1, 2, 16, 8, 17, 16))
    profile.set_shape("query_term", (1, 1, 1, 8, 17, 16), (2, 1, 1, 8, 17, 16), (4, 2, 1, 8, 17, 16))
    profile.set_shape("weights", (1, 1), (1, 4), (2, 16))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SystemExit("TensorRT built no plan")
    outputs_found = [network.get_output(i) for i in range(network.num_outputs)]
    print(json.dumps({
        "layers": [str(network.get_layer(i).type).split(".")[-1] for i in range(network.num_layers)],
        "shapes": [list(o.shape) for o in outputs_found],
        "types": sorted({str(o.dtype).split(".")[-1] for o in outputs_found}),
        "named": operation.encode() in bytes(plan),
    }))


if __name__ == "__main__":
    main(*sys.argv[1:])
