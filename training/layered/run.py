"""One training of the layered generator from a folder of photos: labels, layout, fields, checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from engine.conditions import MAP_STRIDE, Conditions
from engine.layout import complete
from training.files import save_tensors
from training.generator.checkpoint import save_generator
from training.generator.config import LayersConfig
from training.generator.layered_networks import LayoutNet, checkpoint_weights
from training.layered.crops import FieldsExample
from training.layered.fields_training import FieldsTrainer
from training.teacher.labels import VIEW_SIDE, Labels, label_photos, scaled
from training.teacher.layout_training import fit_features, train_head

__all__ = ["LayersRun"]

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class LayersRun:
    """Trains a generator of the architecture `layers`; what is done is kept in a folder, and a new run goes on there.

    The folder holds ``labels/`` (see `training.teacher.labels`), ``layout.pt`` (the head of the layout),
    ``fields.pt`` (the fields, with the optimizer) and, at the end, ``generator.safetensors``.
    """

    labels: Labels
    folder: Path
    config: LayersConfig
    layout_steps: int = 6000
    """Updates of the layout's head."""

    def train(self, seconds: float) -> Path:
        """Label what is not labelled, train the layout once and the fields for so long; the checkpoint."""
        photos = list(label_photos(self.labels))
        layout = self.layout_net(photos)
        examples = [self.example(layout, photo) for photo in photos]
        trainer = FieldsTrainer(self.config, examples, self.folder / "fields.pt")
        trainer.run(seconds)
        trainer.net.load_state_dict(trainer.mean)
        path = self.folder / "generator.safetensors"
        save_generator(path, checkpoint_weights(layout, trainer.net), self.config, steps=trainer.step)
        return path

    def layout_net(self, photos: Sequence[Path]) -> LayoutNet:
        """The layout network of the run: trained on the teacher's sky and depth, or as it was kept."""
        net, path = LayoutNet(self.config), self.folder / "layout.pt"
        if path.is_file():
            net.load_state_dict(torch.load(path, weights_only=True), strict=False)
            return net.eval()
        examples = []
        for photo in photos:
            sky, depth = (self.labels.fields(photo)[..., i].astype(np.float32) / np.float32(255) for i in (0, 1))
            examples.append(self.labels.example(photo, np.asarray(sky, np.float32), np.asarray(depth, np.float32)))
        fit_features(net, examples)
        log.info("the layout learns from %d photos", len(examples))
        train_head(net, examples, self.layout_steps)
        save_tensors(path, net.head_state())
        return net.eval()

    @torch.no_grad()
    def example(self, layout: LayoutNet, photo: Path) -> FieldsExample:
        """A photo with what the layout network says of it, as `probe` would, and the teacher's fields."""
        image = self.labels.image(photo)
        height, width = image.shape[:2]
        view = scaled(image, VIEW_SIDE, 32)
        seen = layout.head(self.labels.features(photo)[None].float())[0]
        found = torch.stack([torch.sigmoid(seen[0]), seen[1].clamp(0, 1)]).numpy()
        whole = complete(view, Conditions(vectors={}, maps={"layout": found}))
        size = width // MAP_STRIDE, height // MAP_STRIDE
        small = cv2.resize(whole.maps["layout"].transpose(1, 2, 0), size, interpolation=cv2.INTER_LINEAR)
        cells = np.asarray(small * 255 + 0.5, np.uint8)
        return FieldsExample(image=image, layout=cells, tone=whole.vectors["tone"], fields=self.labels.fields(photo))
