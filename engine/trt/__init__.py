"""TensorRT and CUDA: the libraries' interfaces, and plans with their sidecars."""
