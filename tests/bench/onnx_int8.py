#!/usr/bin/python3
"""Rewrites an ONNX model so that its linear layers multiply in int8, quantised as they run.

    /usr/bin/python3 tests/bench/onnx_int8.py MODEL.onnx OUT.onnx

Needs the onnx package. It writes the ops that ONNX Runtime's own quantize_dynamic writes, whose
package is not at hand here: weights in int8, symmetric, one scale for each output; the input of
each linear layer in uint8, one scale for the tensor, found at each pass:

    x -> DynamicQuantizeLinear -> MatMulInteger(weight) -> Cast -> Mul(both scales) -> Add(bias)

ONNX Runtime fuses this chain into one kernel. Attention's own two products stay in float, as with
quantize_dynamic.
"""

import sys

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper


def quantised(weight):
    """(K, N) float32 -> (K, N) int8 and the N scales."""
    scale = numpy.maximum(numpy.abs(weight).max(axis=0), 1e-12) / 127
    return numpy.rint(weight / scale).astype(numpy.int8), scale.astype(numpy.float32)


def integer_product(name, x, weight, output):
    """The nodes and initializers of output = x @ weight."""
    values, scale = quantised(weight)
    constants = [numpy_helper.from_array(values, f"{name}/w"),
                 numpy_helper.from_array(scale, f"{name}/w_scale"),
                 numpy_helper.from_array(numpy.zeros(len(scale), numpy.int8), f"{name}/w_zero")]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", [x],
                         [f"{name}/x", f"{name}/x_scale", f"{name}/x_zero"]),
        helper.make_node("MatMulInteger", [f"{name}/x", f"{name}/w", f"{name}/x_zero",
                                           f"{name}/w_zero"], [f"{name}/sum"]),
        helper.make_node("Cast", [f"{name}/sum"], [f"{name}/float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}/x_scale", f"{name}/w_scale"], [f"{name}/scale"]),
        helper.make_node("Mul", [f"{name}/float", f"{name}/scale"], [output]),
    ]
    return nodes, constants


def linear_weight(node, weights):
    """The (K, N) matrix of a node that is a linear layer, else None."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights:
        return None
    weight = numpy_helper.to_array(weights[node.input[1]])
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return weight.T if transposed else weight


def rewrite(graph):
    """Returns how many layers were rewritten."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes, count = [], 0
    for node in graph.node:
        weight = linear_weight(node, weights)
        if weight is None:
            nodes.append(node)
            continue
        name, has_bias = f"int8_{count}", len(node.input) > 2
        output = f"{name}/product" if has_bias else node.output[0]
        product, constants = integer_product(name, node.input[0], weight, output)
        nodes += product
        if has_bias:
            nodes.append(helper.make_node("Add", [output, node.input[2]], [node.output[0]]))
        graph.initializer.extend(constants)
        count += 1
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
    return count


def main():
    model = onnx.load(sys.argv[1])
    if rewrite(model.graph) == 0:
        sys.exit("no linear layer with constant weights found")
    onnx.save(model, sys.argv[2])


if __name__ == "__main__":
    main()
