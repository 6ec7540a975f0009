"""Generators as other programs build and save them, with random weights; independent of `engine.importers.net`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int, norm, bias: bool, padding: str, dropout: bool) -> None:
        super().__init__()
        pad = [nn.ReflectionPad2d(1)] if padding == "reflect" else []
        p = 0 if padding == "reflect" else 1
        layers = [*pad, nn.Conv2d(width, width, 3, padding=p, bias=bias), norm(width), nn.ReLU()]
        layers += [nn.Dropout(0.5)] if dropout else []
        layers += [*pad, nn.Conv2d(width, width, 3, padding=p, bias=bias), norm(width)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv_block(x)


class Generator(nn.Module):
    """The ResNet generator of the PyTorch CycleGAN."""

    def __init__(self, ngf=8, blocks=6, norm="instance", padding="reflect", dropout=False, resize="") -> None:
        super().__init__()
        make = {
            "instance": lambda c: nn.InstanceNorm2d(c, affine=False, track_running_stats=False),
            "affine": lambda c: nn.InstanceNorm2d(c, affine=True),
            "batch": lambda c: nn.BatchNorm2d(c, affine=True),
            "none": lambda c: nn.Identity(),
        }[norm]
        bias = norm in ("instance", "affine")
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7, bias=bias), make(ngf), nn.ReLU()]
        for c in (ngf, 2 * ngf):
            layers += [nn.Conv2d(c, 2 * c, 3, stride=2, padding=1, bias=bias), make(2 * c), nn.ReLU()]
        layers += [Block(4 * ngf, make, bias, padding, dropout) for _ in range(blocks)]
        for c in (4 * ngf, 2 * ngf):
            if resize:
                pad = [nn.ReflectionPad2d(1)] if resize == "reflect" else []
                layers += [nn.Upsample(scale_factor=2, mode="nearest"), *pad]
                layers += [nn.Conv2d(c, c // 2, 3, padding=0 if pad else 1, bias=bias)]
            else:
                layers += [nn.ConvTranspose2d(c, c // 2, 3, stride=2, padding=1, output_padding=1, bias=bias)]
            layers += [make(c // 2), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh())

    def forward(self, x):
        return self.model(x)


def random_generator(seed: int = 0, **values) -> Generator:
    """In evaluation mode, every parameter and running statistic drawn."""
    torch.manual_seed(seed)
    net = Generator(**values).eval()
    for name, value in net.state_dict().items():
        if value.ndim == 4:
            fan = value[0].numel()
            # Without normalisation residual blocks must add little, or the net runs away.
            tame = 0.3 if values.get("norm") == "none" and "conv_block" in name else 1.0
            value.normal_(0, tame * (2.0 / fan) ** 0.5)
        elif name.endswith("running_var"):
            value.uniform_(2, 4)
        elif name.endswith("weight") and value.ndim == 1:
            value.uniform_(0.5, 1.2)
        elif value.is_floating_point():
            value.normal_(0, 0.2)
    net.state_dict()[f"model.{len(net.model) - 2}.weight"].mul_(0.3)
    return net


def keras_arrays(rng, *, ngf=8, blocks=9, depth=2, resize=False):
    """(layer name, {weight name: array}) in the order in which CycleGAN-Keras lists its layers."""
    counts: dict[str, int] = {}
    layers: list[tuple[str, dict[str, np.ndarray]]] = []

    def add(kind, **arrays):
        counts[kind] = counts.get(kind, 0) + 1
        layers.append((f"{kind}_{counts[kind]}", {k: v.astype(np.float32) for k, v in arrays.items()}))

    def conv(kernel, cin, cout, gain=1.0):
        w = rng.normal(0, gain * np.sqrt(2 / (kernel**2 * cin)), (kernel, kernel, cin, cout))
        add("conv2d", kernel=w, bias=rng.normal(0, 0.2, cout))

    def norm(c):
        add("instance_normalization", gamma=rng.uniform(0.5, 1.5, c), beta=rng.normal(0, 0.2, c))

    add("reflection_padding2d")
    conv(7, 3, ngf)
    norm(ngf)
    width = ngf
    for _ in range(depth):
        conv(3, width, 2 * width)
        width *= 2
        norm(width)
        add("activation")
    for _ in range(2 * blocks):
        add("reflection_padding2d")
        conv(3, width, width)
        norm(width)
    for _ in range(depth):
        if resize:
            conv(3, width, width // 2)
        else:
            w = rng.normal(0, np.sqrt(2 / (9 * width / 4)), (3, 3, width // 2, width))
            add("conv2d_transpose", kernel=w, bias=rng.normal(0, 0.2, width // 2))
        width //= 2
        norm(width)
    conv(7, ngf, 3, gain=0.3)
    return layers


def save_keras(path: Path, layers, *, nested: bool = False) -> Path:
    """HDF5 as ``save_weights`` writes it (``save`` puts the same into a group)."""
    import h5py

    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if nested else file
        root.attrs["layer_names"] = [name.encode() for name, _ in layers]
        for name, arrays in layers:
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{key}:0".encode() for key in arrays]
            for key, value in arrays.items():
                group[f"{name}/{key}:0"] = value
    return path


def save_keras3(path: Path, layers) -> Path:
    """``.weights.h5`` of Keras 3: layers numbered within each kind, their arrays numbered too, groups by name."""
    import h5py

    counts: dict[str, int] = {}
    with h5py.File(path, "w") as file:
        for name, arrays in layers:
            kind = name.rpartition("_")[0]
            number = counts.get(kind, 0)
            counts[kind] = number + 1
            group = file.create_group(f"layers/{kind}_{number}/vars" if number else f"layers/{kind}/vars")
            for i, value in enumerate(arrays.values()):
                group[str(i)] = value
        file.create_group("vars")
    return path


def keras_forward(layers, x, *, blocks=9, depth=2, resize=False):
    """What Keras computes, with torch's functions: TensorFlow's `same` padding and keras_contrib's norm.

    x is (1, 3, H, W), all in float64.
    """
    import torch.nn.functional as F

    arrays = iter([a for _, a in layers if a])

    def t(a):
        return torch.from_numpy(a.astype(np.float64))

    def conv(x, pad):
        a = next(arrays)
        kernel = a["kernel"].shape[0]
        stride = 2 if pad == "same" else 1
        x = F.pad(x, (0, 1, 0, 1)) if pad == "same" else F.pad(x, (kernel // 2,) * 4, mode="reflect")
        return F.conv2d(x, t(a["kernel"]).permute(3, 2, 0, 1), t(a["bias"]), stride)

    def transposed(x):
        # The gradient of the strided convolution, which is how TensorFlow defines it.
        a = next(arrays)
        w = t(a["kernel"]).permute(3, 2, 0, 1)
        blank = torch.zeros(1, w.shape[1], 2 * x.shape[2], 2 * x.shape[3], dtype=torch.float64, requires_grad=True)
        y = F.conv2d(F.pad(blank, (0, 1, 0, 1)), w, None, 2)
        (gradient,) = torch.autograd.grad(y, blank, x)
        return gradient + t(a["bias"])[None, :, None, None]

    def norm(x):
        a = next(arrays)
        deviation = x.std(dim=(2, 3), keepdim=True, correction=0) + 1e-5
        x = (x - x.mean(dim=(2, 3), keepdim=True)) / deviation
        return x * t(a["gamma"])[None, :, None, None] + t(a["beta"])[None, :, None, None]

    x = torch.relu(norm(conv(x, "reflect")))
    for _ in range(depth):
        x = torch.relu(norm(conv(x, "same")))
    for _ in range(blocks):
        y = torch.relu(norm(conv(x, "reflect")))
        x = x + norm(conv(y, "reflect"))
    for _ in range(depth):
        x = conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), "reflect") if resize else transposed(x)
        x = torch.relu(norm(x))
    return torch.tanh(conv(x, "reflect"))


def keras_generator(keras, norm, *, ngf=8, blocks=6):
    """A CycleGAN generator in Keras 3, with layers as one writes them there."""
    ops, layers = keras.ops, keras.layers

    @keras.saving.register_keras_serializable()
    class InstanceNormalization(layers.Layer):
        def build(self, shape):
            self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")
            self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros", name="beta")

        def call(self, x):
            mean = ops.mean(x, axis=(1, 2), keepdims=True)
            deviation = ops.std(x, axis=(1, 2), keepdims=True) + 1e-5
            return (x - mean) / deviation * self.gamma + self.beta

    class Reflect(layers.Layer):
        def __init__(self, n):
            super().__init__()
            self.n = n

        def call(self, x):
            return ops.pad(x, [[0, 0], [self.n, self.n], [self.n, self.n], [0, 0]], mode="reflect")

    def normed(x):
        make = InstanceNormalization if norm == "instance" else lambda: layers.GroupNormalization(groups=-1)
        return make()(x)

    x = inputs = layers.Input((None, None, 3))
    x = layers.ReLU()(normed(layers.Conv2D(ngf, 7)(Reflect(3)(x))))
    for i in (2, 4):
        x = layers.ReLU()(normed(layers.Conv2D(i * ngf, 3, strides=2, padding="same")(x)))
    for _ in range(blocks):
        y = layers.ReLU()(normed(layers.Conv2D(4 * ngf, 3)(Reflect(1)(x))))
        x = layers.Add()([x, normed(layers.Conv2D(4 * ngf, 3)(Reflect(1)(y)))])
    for i in (2, 1):
        x = layers.ReLU()(normed(layers.Conv2DTranspose(i * ngf, 3, strides=2, padding="same")(x)))
    return keras.Model(inputs, layers.Activation("tanh")(layers.Conv2D(3, 7)(Reflect(3)(x))))
