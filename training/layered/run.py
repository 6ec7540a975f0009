"""One training of the layered generator from a folder of photos: labels, layout, fields, checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from engine.conditions import MAP_STRIDE, Conditions
from engine.errors import PaletteError
from engine.looks.layout import complete
from engine.looks.measured_palette import measured_palette
from engine.looks.palette import palette_vectors
from training.data.image_io import read_rgb
from training.errors import DataError
from training.files import save_tensors
from training.generator.checkpoint import save_generator
from training.generator.config import LayersConfig
from training.generator.layered_networks import LayoutNet, checkpoint_weights
from training.layered.adversary import Adversary
from training.layered.crops import FieldsExample, Photos
from training.layered.fields_training import BATCH, FieldsTrainer
from training.layered.layout_tuning import tune_layout
from training.teacher.filters import Image
from training.teacher.labels import LABEL_SIDE, VIEW_SIDE, Labels, label_photos, scaled
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
    layout_seconds: float = 0.0
    """Time for all of the layout network after that, once."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch: int = BATCH
    """Crops in a step of the fields."""
    art: Sequence[Path] = ()
    """Pictures that a projected discriminator compares the painted fields with; none: pairs alone."""

    def train(self, seconds: float) -> Path:
        """Label what is not labelled, train the layout once and the fields for so long; the checkpoint."""
        photos = list(label_photos(self.labels))
        layout = self.layout_net(photos)
        examples = [self.example(layout, photo) for photo in photos]
        trainer = FieldsTrainer(
            self.config, examples, self.folder / "fields.pt", device=self.device, batch=self.batch,
            adversary=self._adversary(layout),
        )  # fmt: skip
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
        if self.layout_seconds:
            labelled = Photos([self.example(net, photo) for photo in photos], self.device)
            tune_layout(net.to(self.device), labelled, self.layout_seconds)
        save_tensors(path, net.cpu().state_dict() if self.layout_seconds else net.head_state())
        return net.eval()

    def _adversary(self, layout: LayoutNet) -> Adversary | None:
        """The judge of the painted fields, where there is art; art of one colour has no palette and is left out."""
        pictures, palettes = [], []
        for path in self.art:
            picture = scaled(read_rgb(path), LABEL_SIDE, MAP_STRIDE)
            view, seen = _seen(layout, picture)
            try:
                palette = measured_palette(view, seen.maps["layout"])
            except PaletteError as error:
                log.warning("%s is left out: %s", path, error)
                continue
            pictures.append(picture)
            palettes.append(palette_vectors([(palette, 1.0)]))
        if self.art and not pictures:
            raise DataError(f"{self.art[0].parent} holds no art with sky and land: give another folder to --art")
        return Adversary(pictures, palettes, self.device) if self.art else None

    def example(self, layout: LayoutNet, photo: Path) -> FieldsExample:
        """A photo with what the layout network says of it, as `probe` would, and the teacher's fields."""
        image = self.labels.image(photo)
        _, seen = _seen(layout, image)
        size = image.shape[1] // MAP_STRIDE, image.shape[0] // MAP_STRIDE
        small = cv2.resize(seen.maps["layout"].transpose(1, 2, 0), size, interpolation=cv2.INTER_LINEAR)
        cells = np.asarray(small * 255 + 0.5, np.uint8)
        return FieldsExample(image=image, layout=cells, tone=seen.vectors["tone"], fields=self.labels.fields(photo))


@torch.no_grad()
def _seen(layout: LayoutNet, image: Image) -> tuple[Image, Conditions]:
    """The view of a picture, and what a layout network on the CPU says of it, without a palette."""
    view = scaled(image, VIEW_SIDE, 32)
    x = torch.from_numpy(view).permute(2, 0, 1)[None].float() / 127.5 - 1
    return view, complete(view, Conditions(vectors={}, maps={"layout": layout.layout(x)[0].numpy()}))
