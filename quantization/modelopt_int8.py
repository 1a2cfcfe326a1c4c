"""INT8 by nvidia-modelopt: a program for an environment of its own, as its [onnx] extra needs another onnxruntime.

    python modelopt_int8.py FLOAT.onnx INPUTS.npz INT8.onnx METHOD [NODE_IN_FLOAT ...]

INPUTS.npz: an array of each input, all frames along the first axis. METHOD: max or entropy.
"""

import sys

import numpy as np
from modelopt.onnx.quantization import quantize

source, inputs, out, method, *excluded = sys.argv[1:]
with np.load(inputs) as arrays:
    quantize(
        source,
        calibration_data=dict(arrays),
        calibration_method=method,
        calibration_eps=["cpu"],
        nodes_to_exclude=[f"^{name}$" for name in excluded],
        high_precision_dtype="fp32",
        output_path=out,
        log_level="WARNING",
    )
