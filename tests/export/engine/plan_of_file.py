"""Builds a TensorRT-RTX plan of an ONNX file with one input, without a plugin: run by test_frozen.py in a process of
its own.

    python plan_of_file.py FILE LARGEST_BATCH      prints one line of JSON
"""

import json
import sys

import tensorrt_rtx as trt

from universeg_rt.export.engine import features


def main(path: str, largest: str) -> None:
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = features.create_network(trt, builder)
    parser = trt.OnnxParser(network, logger)
    with open(path, "rb") as file:
        if not parser.parse(file.read()):
            raise SystemExit("; ".join(features.parser_errors(parser)))
    query = network.get_input(0)
    image = tuple(query.shape)[1:]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape(query.name, (1, *image), (1, *image), (int(largest), *image))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SystemExit("TensorRT built no plan")
    print(
        json.dumps({
            "inputs": [network.get_input(i).name for i in range(network.num_inputs)],
            "outputs": [[network.get_output(i).name, list(network.get_output(i).shape)]
                        for i in range(network.num_outputs)],
            "layers": sorted({str(network.get_layer(i).type).split(".")[-1]
                              for i in range(network.num_layers)}),
            "bytes": len(bytes(plan)),
        }))


if __name__ == "__main__":
    main(*sys.argv[1:])
