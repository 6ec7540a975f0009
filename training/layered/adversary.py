"""A projected discriminator for fields: it sees them painted, in the colours of the art that it compares them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.looks.torch_shader import shade, sky_place
from training.generator.projected import ProjectedDiscriminator
from training.layered.crops import F32, U8, Canvases, drawn_box
from training.losses import HINGE, diff_augment

__all__ = ["Adversary"]

LEARNING_RATE = 5e-4
SOFTNESS = 0.2
"""Least width of a border in levels, so that gradients get through; see `engine.looks.torch_shader.shade`."""
SHARE = 0.3
"""Of the pairs' gradient at the last layer that the judge's has there (Esser et al. 2021, arXiv 2012.09841)."""


class Adversary:
    """Judges painted fields against art; what it says is weighted so that the pairs remain the anchor.

    Every fake is painted with the palette of the art beside it, so that colours tell nothing and shapes all.

    Args:
        art: pictures, RGB uint8 ``(H, W, 3)``.
        palettes: the vectors `sky_lut`, `land_lut` and `controls` of each.
        device: where it is trained.
    """

    def __init__(self, art: Sequence[U8], palettes: Sequence[Mapping[str, F32]], device: torch.device) -> None:
        if not art:
            raise ValueError("no art to compare with: give a folder that holds some")
        self.sizes, self.device = [picture.shape[:2] for picture in art], device
        self.art = Canvases(art, device)
        names = ("sky_lut", "land_lut", "controls")
        self.palettes = [torch.from_numpy(np.stack([p[name] for p in palettes])).to(device) for name in names]
        self.judge = ProjectedDiscriminator().to(device)
        learning = [p for p in self.judge.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(learning, LEARNING_RATE, betas=(0.0, 0.99))

    def losses(self, fields: Tensor, layouts: Tensor, factor: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """What the fields are to lower, and the judge's own loss on the same batch.

        Args:
            fields: sky, depth, tone, cloud ``(N, 4, h, w)``.
            layouts: with sky coordinate and glow, ``(N, 4, h, w)``.
            factor: the picture is larger than the fields by this.
            rng: draws the art.
        """
        count = len(fields)
        chosen = rng.integers(len(self.sizes), size=count)
        boxes = np.array([drawn_box(rng, self.sizes[i], self.art.side) for i in chosen], np.float32)
        numbers = torch.from_numpy(chosen).to(self.device)
        real = self.art.cut(numbers, torch.from_numpy(boxes).to(self.device), 0) * 2 - 1
        sky_lut, land_lut, controls = (table.index_select(0, numbers) for table in self.palettes)
        place = sky_place(layouts[:, 2:3], layouts[:, 3:4], controls, sky_lut.shape[3])
        fake = shade(fields, place, sky_lut, land_lut, controls, factor, SOFTNESS) * 2 - 1
        draws = torch.from_numpy(rng.integers(1 << 20, size=(3, count, 4)))
        generator = HINGE.generator(self.judge(diff_augment(fake, draws[0])))
        on_real, on_fake = self.judge(diff_augment(real, draws[1])), self.judge(diff_augment(fake.detach(), draws[2]))
        return generator, HINGE.discriminator(on_real, on_fake)

    def weight(self, pairs: Tensor, gan: Tensor, layer: Tensor) -> Tensor:
        """What the judge's word is multiplied with: `SHARE` of the ratio of the gradients at the last layer."""
        ours, theirs = (torch.autograd.grad(loss, layer, retain_graph=True)[0].norm() for loss in (pairs, gan))
        return torch.as_tensor(SHARE * ours / (theirs + 1e-6)).detach()

    def learn(self, loss: Tensor) -> None:
        """One update of the judge."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """All that a run needs to go on; the trunk is always the same."""
        judge = {name: value for name, value in self.judge.state_dict().items() if not name.startswith("trunk.")}
        return {"judge": judge, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.judge.load_state_dict(state["judge"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
