from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
import torch

from training.evaluation.metrics import gradient_similarity
from training.image_pool import ImagePool
from training.losses import blur, diff_augment, edge_loss, lsgan, pair_loss, structure_loss, total_variation
from training.objective import StepDraws
from training.trainer import Trainer


def test_lsgan_by_hand():
    scores = [torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([[0.5]])]
    # scale 1: (1 + 0 + 1 + 4) / 4 = 1.5; scale 2: 0.25
    assert lsgan(scores, 1.0).item() == pytest.approx(0.875)
    # scale 1: (0 + 1 + 4 + 9) / 4 = 3.5; scale 2: 0.25
    assert lsgan(scores, 0.0).item() == pytest.approx(1.875)


def test_edges_and_total_variation_by_hand():
    image = torch.tensor([[0.0, 1.0], [4.0, 2.0]]).view(1, 1, 2, 2)
    # |dx| = 1, 2; |dy| = 4, 1
    assert total_variation(image).item() == pytest.approx(1.5 + 2.5)
    assert edge_loss(image, image + 3.0).item() == 0.0
    assert pair_loss(image, image + 3.0, 7.0).item() == pytest.approx(3.0)
    assert pair_loss(image, torch.zeros_like(image), 0.5).item() == pytest.approx(7 / 4 + 2.0)


def test_blur_keeps_colour_and_drops_detail():
    checkers = (torch.arange(16)[:, None] + torch.arange(16)[None]) % 2
    assert torch.equal(blur(checkers.float().view(1, 1, 16, 16)), torch.full((1, 1, 2, 2), 0.5))


def test_structure_loss_is_the_metric():
    # A grey frame, because the metric reflects borders and the loss leaves them out.
    photo = np.full((64, 96, 3), 128, np.uint8)
    photo[8:-8, 8:-8] = np.random.default_rng(0).integers(0, 256, (48, 80, 3))
    soft = np.asarray(cv2.GaussianBlur(photo, (0, 0), 1.5), np.uint8)
    losses = {}
    for name, image in (("same", photo), ("soft", soft)):
        a, b = (torch.from_numpy(x).permute(2, 0, 1)[None].float() / 127.5 - 1 for x in (image, photo))
        losses[name] = structure_loss(a, b).item() * (30 * 46) / (32 * 48)
    assert losses["same"] == pytest.approx(0, abs=1e-6)
    assert losses["soft"] == pytest.approx(1 - gradient_similarity(soft, photo), abs=3e-3) and losses["soft"] > 0.1


def test_structure_loss_gives_lost_edges_back(tiny, tmp_path):
    trainer = Trainer(tiny(lambda_structure=3.0, lambda_frame=0.0), tmp_path)
    o, batch = trainer.objective, trainer.dataset.sample(0)
    draws = StepDraws(seed=0, step=0, batch=1, rows=slice(None))
    o.netG_A = Constant(lambda x: x)
    assert o.warmup(batch, draws)["structure"].item() == pytest.approx(0, abs=1e-6)
    o.netG_A = Constant(lambda x: 0 * x)
    crop = batch.real_A[1:]  # the view is left out
    assert o.warmup(batch, draws)["structure"].item() == pytest.approx(3 * structure_loss(0 * crop, crop).item())
    image = (0.3 * crop).requires_grad_()
    structure_loss(image, crop).backward()
    with torch.no_grad():
        assert structure_loss(image - 20 * image.grad, crop) < structure_loss(image, crop)


class Constant(torch.nn.Module):
    """A stand-in network that returns what it is told."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, look=None):
        return self.function(x)


def test_generator_losses_by_hand(tiny, tmp_path):
    config = tiny(
        lambda_cycle=10.0,
        lambda_identity=0.5,
        lambda_pair=2.0,
        lambda_frame=0.0,
        lambda_flat=0.0,
        augment=False,
        warmup_steps=0,
    )
    trainer = Trainer(config, tmp_path)
    o, batch = trainer.objective, trainer.dataset.sample(0)
    o.netG_A, o.netG_B = Constant(lambda x: x + 0.25), Constant(lambda x: x + 0.125)
    o.judge_A, o.judge_B = Constant(lambda x: [torch.full((1, 1), 0.5)]), Constant(lambda x: [torch.full((1, 1), 0.2)])
    losses, fakes = o.generators(batch, StepDraws(seed=0, step=0, batch=1, rows=slice(None)))
    assert torch.equal(fakes["fake_B"], batch.real_A[1:] + 0.25)  # the crop, without the view
    expected = {
        "G_A": 0.25, "G_B": 0.64,
        "cycle_A": 10 * 0.375, "cycle_B": 10 * 0.375,
        "idt_A": 0.5 * 10 * 0.25, "idt_B": 0.5 * 10 * 0.125,
        "pair_A": 2.0 * (blur(batch.real_A + 0.25) - blur(batch.pair_A)).abs().mean().item(),
    }  # fmt: skip
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(expected, rel=1e-4)


def test_discriminator_losses_by_hand(tiny, tmp_path):
    trainer = Trainer(tiny(label_smoothing=0.1, augment=False, warmup_steps=0, views=False), tmp_path)
    o, batch = trainer.objective, trainer.dataset.sample(0)
    o.netD_A = Constant(lambda x: [x.new_tensor([0.7 if torch.equal(x, batch.real_B) else 0.2])])
    o.netD_B = Constant(lambda x: [x.new_tensor([0.9 if torch.equal(x, batch.real_A) else 0.0])])
    losses = o.discriminators(batch, batch.pair_A, batch.pair_A, trainer._draws())
    # D_A: half of (0.7 - 0.9)^2 + 0.2^2; D_B: half of (0.9 - 0.9)^2 + 0
    assert losses["D_A"].item() == pytest.approx(0.5 * (0.04 + 0.04))
    assert losses["D_B"].item() == pytest.approx(0.0, abs=1e-7)


def test_identity_and_frame_losses_come_every_kth_step(tiny, tmp_path):
    trainer = Trainer(tiny(identity_every=2, frame_every=3, warmup_steps=0), tmp_path)
    batch = trainer.dataset.sample(0)
    seen = []
    for trainer.step in range(6):
        losses, _ = trainer.objective.generators(batch, trainer._draws())
        seen.append(("idt_A" in losses, "frame" in losses))
    assert seen == [(True, True), (False, False), (True, False), (False, True), (True, False), (False, False)]


def test_frame_loss_is_zero_for_a_function_of_single_pixels(tiny, tmp_path):
    trainer = Trainer(tiny(), tmp_path)
    o, batch = trainer.objective, trainer.dataset.sample(0)
    draws = trainer._draws()
    o.netG_A = Constant(lambda x: (x * 4).round() / 4 * 0 + 0.5)
    assert o._frame_difference(batch, o.netG_A(batch.real_A), draws).item() == 0.0
    o.netG_A = Constant(lambda x: x)  # what is left is the noise, mean |N(0, 0.02)| = 0.016
    assert o._frame_difference(batch, batch.real_A, draws).item() == pytest.approx(0.016, abs=0.003)
    y = torch.arange(32.0).view(1, 1, 32, 1).expand(1, 3, 32, 32)
    o.netG_A = Constant(lambda x: x + y)  # tied to the place: moving the photo must move the result
    assert draws.shift() != (0, 0)
    assert o._frame_difference(batch, batch.real_A + y, draws).item() > 0.5


def test_judges_get_no_gradient_from_the_generators(tiny, tmp_path):
    trainer = Trainer(tiny(warmup_steps=0), tmp_path)
    losses, _ = trainer.objective.generators(trainer.dataset.sample(0), trainer._draws())
    sum(losses.values()).backward()
    assert all(p.grad is None for net in (trainer.netD_A, trainer.netD_B) for p in net.parameters())
    assert all(p.grad is not None for p in trainer.netG_A.parameters())
    assert all(p.requires_grad for p in trainer.netD_A.parameters())


def test_augmentation_moves_and_cuts_the_same_way_for_the_same_draws():
    image = torch.rand(2, 3, 32, 32)
    draws = torch.tensor([[5, 3, 8, 9], [0, 0, 0, 0]])
    out = diff_augment(image, draws)
    assert torch.equal(out, diff_augment(image, draws))
    assert torch.equal(out[1:], diff_augment(image[1:], draws[1:]))  # each image by its own row
    # A quarter of each side is cut out; row 0: y = 5 % 9, x = 3 % 9, a hole at 8 % 24, 9 % 24.
    assert (out[0, :, 8:16, 9:17] == 0).all()
    padded = torch.nn.functional.pad(image[:1], (4, 4, 4, 4), mode="reflect")[0]
    assert torch.equal(out[0, :, :8], padded[:, 5 : 5 + 8, 3 : 3 + 32])


def test_pool_of_zero_hands_through():
    fakes = torch.rand(2, 3, 4, 4)
    assert ImagePool(0).query(fakes, random.Random(0)) is fakes


def test_pool_fills_then_swaps_half_of_the_time():
    pool, rng = ImagePool(5), random.Random(0)
    fakes = torch.arange(5.0).view(5, 1, 1, 1)
    assert torch.equal(pool.query(fakes, rng), fakes)
    assert [float(i) for i in pool.images] == [0, 1, 2, 3, 4]
    held, swaps = {0.0, 1.0, 2.0, 3.0, 4.0}, 0
    for value in range(100, 300):
        out = float(pool.query(torch.full((1, 1, 1, 1), float(value)), rng))
        if out != value:
            swaps += 1
            assert out in held
            held = held - {out} | {float(value)}
        assert {float(i) for i in pool.images} == held
    assert 75 < swaps < 125


def test_pool_cuts_the_graph_and_keeps_copies():
    fake = torch.ones(1, 1, 2, 2, requires_grad=True)
    pool = ImagePool(2)
    assert not pool.query(fake * 2, random.Random(0)).requires_grad
    base = torch.zeros(1, 1, 2, 2)
    pool.query(base, random.Random(0))
    base += 5
    assert float(pool.images[1].sum()) == 0
