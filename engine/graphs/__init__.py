"""ONNX graphs of a model's program, and the folder that a checkpoint becomes."""
