"""What the black-box tests of the Open Inference Protocol share: requests as clients write them,
and answers taken apart."""

import base64
import json
import random
import struct

from vitserve import Case, Server

BOTH = ["logits", "probabilities"]


def pixels_of(width, height, seed):
    """The bytes of png(width, height, seed)."""
    noise = random.Random(seed)
    return b"".join(noise.randbytes(3 * width) for _ in range(height))


def nested(data, *shape):
    """A flat list as lists of lists."""
    if len(shape) == 1:
        return list(data)
    step = len(data) // shape[0]
    return [nested(data[i:i + step], *shape[1:]) for i in range(0, len(data), step)]


def elements(*pictures):
    """A BYTES tensor."""
    return b"".join(struct.pack("<I", len(picture)) + picture for picture in pictures)


def text_of(picture):
    return base64.b64encode(picture).decode()


def tensor_input(name, datatype, shape, tensor):
    """An input whose tensor is behind the JSON."""
    return {"name": name, "shape": shape, "datatype": datatype,
            "parameters": {"binary_data_size": len(tensor)}}


def json_input(name, datatype, shape, data):
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def binary_request(request, *tensors):
    """The headers and the body."""
    head = json.dumps(request).encode()
    return ({"Inference_Header_Content_Length": str(len(head))}, head + b"".join(tensors))


def unpack_bytes(tensor):
    values = []
    while tensor:
        (length,) = struct.unpack_from("<I", tensor)
        values.append(tensor[4:4 + length].decode())
        tensor = tensor[4 + length:]
    return values


def read_outputs(answer):
    """[(name, datatype, shape, values)] of a good answer: numbers, or strings."""
    if answer.status != 200:
        raise AssertionError(answer)
    length = answer.headers.get("inference-header-content-length")
    expected = "application/json" if length is None else "application/octet-stream"
    if answer.headers["content-type"] != expected:
        raise AssertionError(answer.headers)
    head = json.loads(answer.body if length is None else answer.body[:int(length)])
    rest = b"" if length is None else answer.body[int(length):]
    outputs = []
    for output in head["outputs"]:
        if "data" in output:
            values = output["data"]
        else:
            size = output["parameters"]["binary_data_size"]
            tensor, rest = rest[:size], rest[size:]
            values = (unpack_bytes(tensor) if output["datatype"] == "BYTES" else
                      list(struct.unpack(f"<{size // 4}f", tensor)))
        outputs.append((output["name"], output["datatype"], output["shape"], values))
    if rest:
        raise AssertionError(f"{len(rest)} bytes left over")
    return outputs


def float_bits(values):
    return struct.pack(f"<{len(values)}f", *values)


class OipCase(Case):
    options = ("--max-batch", "8")
    model = ()
    name = "fashion_vit"
    S = 28  # side of the crop
    K = 10  # classes

    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server(*cls.options, model=cls.model))
        cls.path = f"/v2/models/{cls.name}"

    def get(self, path, status=200):
        answer = self.server.request("GET", path)
        self.assertEqual(answer.status, status, answer)
        self.assertEqual(answer.headers["content-type"], "application/json")
        return answer.json

    def infer(self, request, *tensors, **headers):
        """An answer; binary where there are tensors."""
        body = json.dumps(request).encode()
        if tensors:
            lengths, body = binary_request(request, *tensors)
            headers |= lengths
        return self.server.request("POST", self.path + "/infer", body, **headers)

    def classified(self, picture):
        """The logits that /classify gives."""
        return self.server.classify(picture, "?logits=1").results[0]["logits"]
