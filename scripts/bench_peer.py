"""The way a CycleGAN is usually run on a video, as the benchmark's yardstick: PyTorch eager, float32.

Statistics of the instance norm are taken inside the network from each frame, frames go one by one from
cv2.VideoCapture through the network into cv2.VideoWriter.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*layer(width, width, 3), *layer(width, width, 3)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same."""
        return x + self.body(x)


def layer(cin: int, cout: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Reflection padding, convolution, instance norm, ReLU."""
    convolution = nn.Conv2d(cin, cout, kernel, stride)
    return [nn.ReflectionPad2d(kernel // 2), convolution, nn.InstanceNorm2d(cout, affine=True), nn.ReLU(inplace=True)]


def generator(filters: int, blocks: int = 9) -> nn.Module:
    """The ResNet generator of Johnson et al. (2016) as CycleGAN uses it: c7s1, two down, blocks, two up, c7s1."""
    layers = layer(3, filters, 7)
    layers += layer(filters, 2 * filters, 3, 2) + layer(2 * filters, 4 * filters, 3, 2)
    layers += [Block(4 * filters) for _ in range(blocks)]
    for width in (4 * filters, 2 * filters):
        layers.append(nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1))
        layers += [nn.InstanceNorm2d(width // 2, affine=True), nn.ReLU(inplace=True)]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(filters, 3, 7), nn.Tanh()]
    return nn.Sequential(*layers).eval()


@torch.inference_mode()
def frames(clip: Path, target: Path, filters: int, blocks: int = 9) -> Iterator[dict[str, float]]:
    """Stylize a clip; yield seconds of wall and CPU time for each frame, decoding and writing included."""
    net = generator(filters, blocks)
    reader = cv2.VideoCapture(str(clip))
    size = (int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), reader.get(cv2.CAP_PROP_FPS), size)
    try:
        while True:
            wall, cpu = time.perf_counter(), time.process_time()
            good, bgr = reader.read()
            if not good:
                return
            rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            x = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1
            y = ((net(x)[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
            writer.write(cv2.cvtColor(y, cv2.COLOR_RGB2BGR))
            yield {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    finally:
        reader.release()
        writer.release()
