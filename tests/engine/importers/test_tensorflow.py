"""Checkpoints of TensorFlow programs: what is read from them does what TensorFlow computes with their layers.

The generators are written down here a second time, with TensorFlow's own functions and the original
variables' names, in float64; `engine.importers.net` has no part in that.
"""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ModelError
from engine.importers.check import TOLERANCE, check_picture, float_error, import_model
from engine.importers.net import evaluate
from engine.importers.tensorflow import checkpoint_prefix, net_of_variables

BLOCKS, NGF = 3, 8


def xhujoy(scope, blocks=BLOCKS):
    """(convolution, norm, kind) of every layer in turn."""
    g = f"{scope}/g_"
    yield f"{g}e1_c/Conv/weights", f"{g}e1_bn", "stem"
    for i in (2, 3):
        yield f"{g}e{i}_c/Conv/weights", f"{g}e{i}_bn", "down"
    for i in range(1, blocks + 1):
        for j in (1, 2):
            yield f"{g}r{i}_c{j}/Conv/weights", f"{g}r{i}_bn{j}", "block"
    for i in (1, 2):
        yield f"{g}d{i}_dc/Conv2d_transpose/weights", f"{g}d{i}_bn", "up"
    yield f"{g}pred_c/Conv/weights", None, "head"


def vanhuyz(scope, blocks=BLOCKS):
    yield f"{scope}/c7s1_32/weights", f"{scope}/c7s1_32/instance_norm", "stem"
    for i in (64, 128):
        yield f"{scope}/d{i}/weights", f"{scope}/d{i}/instance_norm", "down"
    for i in range(1, blocks + 1):
        for j in (1, 2):
            layer = f"{scope}/R{4 * NGF}_{i}/layer{j}"
            yield f"{layer}/weights{j}", f"{layer}/instance_norm", "block"
    for i in (64, 32):
        yield f"{scope}/u{i}/weights", f"{scope}/u{i}/instance_norm", "up"
    yield f"{scope}/output/weights", None, "head"


def lynnho(scope, blocks=BLOCKS):
    kinds = ["stem", "down", "down", *["block"] * 2 * blocks, "up", "up", "head"]
    for i, kind in enumerate(kinds):
        norm = None if kind == "head" else f"{scope}/layer_with_weights-{2 * i + 1}"
        yield f"{scope}/layer_with_weights-{2 * i}/kernel", norm, kind


MAKERS = {"xhujoy": (xhujoy, "generatorA2B"), "vanhuyz": (vanhuyz, "G"), "LynnHo": (lynnho, "G_A2B")}
NORMS = {"xhujoy": ("scale", "offset"), "vanhuyz": ("scale", "offset"), "LynnHo": ("gamma", "beta")}
EPS = {"xhujoy": 1e-5, "vanhuyz": 1e-5, "LynnHo": 1e-3}


def drawn(maker, scope, seed=0, blocks=BLOCKS):
    """Variables of a generator by name, and its layers in order."""
    rng = np.random.default_rng(seed)
    layers = list(MAKERS[maker][0](scope, blocks))
    values, width = {}, NGF
    for conv, norm, kind in layers:
        cin, cout = {"stem": (3, NGF), "head": (NGF, 3), "down": (width, 2 * width), "up": (width, width // 2)}.get(
            kind, (width, width)
        )
        kernel = 7 if kind in ("stem", "head") else 3
        shape = (kernel, kernel, cout, cin) if kind == "up" else (kernel, kernel, cin, cout)
        gain = 0.3 if kind == "head" else 1.0
        values[conv] = rng.normal(0, gain * np.sqrt(2 / (kernel**2 * cin)), shape).astype(np.float32)
        if norm is not None:
            scale, offset = NORMS[maker]
            values[f"{norm}/{scale}"] = rng.uniform(0.5, 1.5, cout).astype(np.float32)
            values[f"{norm}/{offset}"] = rng.normal(0, 0.2, cout).astype(np.float32)
            width = cout
    if maker == "LynnHo":  # whose last convolution alone has a bias
        values[layers[-1][0].replace("kernel", "bias")] = rng.normal(0, 0.2, 3).astype(np.float32)
    return values, layers


@pytest.fixture(scope="module")
def tf():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tensorflow", reason="the extra [tensorflow] is not installed")


def computed(tf, maker, values, layers, x):
    """What TensorFlow makes of (1, H, W, 3) in -1..1, in float64."""

    def conv(x, name, kind):
        w = tf.constant(values[name], tf.float64)
        if kind == "up":
            n, h, wide, _ = x.shape
            return tf.nn.conv2d_transpose(x, w, (n, 2 * h, 2 * wide, w.shape[2]), 2, "SAME")
        if kind == "down":
            return tf.nn.conv2d(x, w, 2, "SAME")
        p = w.shape[0] // 2
        x = tf.nn.conv2d(tf.pad(x, [[0, 0], [p, p], [p, p], [0, 0]], "REFLECT"), w, 1, "VALID")
        bias = values.get(name.replace("kernel", "bias")) if name.endswith("kernel") else None
        return x if bias is None else x + bias

    def norm(x, name):
        mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
        scale, offset = (values[f"{name}/{p}"] for p in NORMS[maker])
        return tf.nn.batch_normalization(x, mean, variance, offset, scale, EPS[maker])

    layers = list(layers)
    while layers:
        name, normed, kind = layers.pop(0)
        if kind == "block":
            y = tf.nn.relu(norm(conv(x, name, kind), normed))
            name, normed, kind = layers.pop(0)
            x = x + norm(conv(y, name, kind), normed)
        elif kind == "head":
            x = tf.nn.tanh(conv(x, name, kind))
        else:
            x = tf.nn.relu(norm(conv(x, name, kind), normed))
    return x[0].numpy()


def nested(tf, values):
    """Objects whose checkpoint has these names."""
    if all(isinstance(value, np.ndarray) for value in values.values()):
        nodes = {name: tf.Variable(value, name=name) for name, value in values.items()}
    else:
        nodes = {name: nested(tf, value) for name, value in values.items()}
    return tf.train.Checkpoint(**nodes)


def saved(tf, maker, values, folder):
    """The checkpoint that the program writes, with an optimiser's slots and a discriminator; its common name."""
    folder.mkdir()
    if maker == "LynnHo":
        tree = {}
        for name, value in {**values, "D_A/layer_with_weights-0/kernel": np.ones((4, 4, 3, 8), np.float32)}.items():
            scope, layer, parameter = name.split("/")
            tree.setdefault(scope, {}).setdefault(layer, {})[parameter] = value
        nodes = nested(tf, tree)
        return tf.train.CheckpointManager(nodes, str(folder), max_to_keep=1, checkpoint_name="ckpt").save()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in values.items():
            v1.get_variable(name, initializer=value)
            v1.get_variable(f"{name}/Adam", initializer=np.ones_like(value))
        v1.get_variable("discriminatorB/d_h0_conv/Conv/weights", initializer=np.ones((4, 4, 3, 8), np.float32))
        v1.get_variable("D_Y/C64/weights", initializer=np.ones((4, 4, 3, 8), np.float32))
        v1.get_variable("beta1_power", initializer=np.float32(0.5))
        session.run(v1.global_variables_initializer())
        return v1.train.Saver().save(session, str(folder / "cyclegan.model"), global_step=1002)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_checkpoint_comes_out_the_same(tf, tmp_path, maker):
    scope = MAKERS[maker][1]
    values, layers = drawn(maker, scope)
    prefix = saved(tf, maker, values, tmp_path / "checkpoint")
    view = check_picture()
    expected = computed(tf, maker, values, layers, view[None].astype(np.float64) / 127.5 - 1)
    read = net_of_variables(values, "values")
    direct = evaluate(read, view.astype(np.float64).transpose(2, 0, 1) / 127.5 - 1).transpose(1, 2, 0)
    assert np.abs(direct - expected).max() < 1e-9
    assert float_error(read.config("auto"), read.weights(), view, expected) < TOLERANCE
    report = import_model(tmp_path / "checkpoint", tmp_path / "mine", name="mine", look="monet")
    assert report.kind == f"CycleGAN-tensorflow ({maker})" and report.error < TOLERANCE and report.psnr > 40
    assert report.spec.config["n_blocks"] == BLOCKS and report.spec.config["ngf"] == NGF and not report.notes
    # Any of its names will do, and the same comes out.
    for name in (prefix, f"{prefix}.index", f"{prefix}.data-00000-of-00001"):
        again = import_model(Path(name), tmp_path / "again", name="mine")
        assert again.spec.hashes["render.onnx"] == report.spec.hashes["render.onnx"]


def test_one_of_two_generators_is_chosen(tf, tmp_path):
    both = {**drawn("xhujoy", "generatorA2B")[0], **drawn("xhujoy", "generatorB2A", seed=1)[0]}
    prefix = saved(tf, "xhujoy", both, tmp_path / "checkpoint")
    first = import_model(tmp_path / "checkpoint", tmp_path / "a", name="a")
    second = import_model(tmp_path / "checkpoint", tmp_path / "b", name="b", generator="generatorB2A")
    assert "generatorB2A" in first.notes[0]
    assert first.spec.hashes["generator.safetensors"] != second.spec.hashes["generator.safetensors"]
    with pytest.raises(ModelError, match="no generator 'G': choose generatorA2B, generatorB2A"):
        import_model(tmp_path / "checkpoint", tmp_path / "c", name="c", generator="G")
    data = tmp_path / "checkpoint" / f"{prefix.rpartition('/')[2]}.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:2000])
    (tmp_path / "text.ckpt.index").write_text("no")
    for damaged in (tmp_path / "checkpoint", tmp_path / "text.ckpt"):
        with pytest.raises(ModelError, match="cannot be read as a TensorFlow checkpoint") as caught:
            import_model(damaged, tmp_path / "c", name="c")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("maker", MAKERS)
def test_variables_are_told_by_their_names(maker):
    """The same without TensorFlow: every layer lies where it belongs, whatever the order of the names."""
    values, layers = drawn(maker, MAKERS[maker][1], blocks=11)
    others = {f"{name}/Adam_1": value for name, value in values.items()}
    net = net_of_variables({**others, **dict(sorted(values.items()))}, "x")
    read = [layer for _, layer in net.normed()] + [net.head]
    assert len(read) == len(layers)
    for (conv, norm, _), layer in zip(layers, read, strict=True):
        np.testing.assert_array_equal(layer.weight, values[conv].transpose(3, 2, 0, 1))
        if norm is not None:
            np.testing.assert_array_equal(layer.norm.gamma, values[f"{norm}/{NORMS[maker][0]}"])
            assert (layer.norm.eps, layer.norm.eps_outside) == (EPS[maker], 0)
    assert (net.down[0].pad, net.up[0].pad, net.up[0].transposed) == ("same", "same", True)


def test_what_is_no_generator_is_refused(tmp_path):
    unet = {"generatorA2B/g_e1_conv/Conv/weights": np.zeros((4, 4, 3, 8), np.float32)}
    with pytest.raises(ModelError, match="holds no ResNet generator"):
        net_of_variables(unet, "unet")
    early, _ = drawn("xhujoy", "generatorA2B")
    early |= {f"generatorA2B/g_pred_bn/{p}": np.ones(3, np.float32) for p in ("scale", "offset")}
    with pytest.raises(ModelError, match="norm behind the last layer"):
        net_of_variables(early, "early")
    (tmp_path / "x.pth").write_bytes(b"")
    with pytest.raises(ModelError, match="holds one model"):
        import_model(tmp_path / "x.pth", tmp_path / "m", name="m", generator="G")


def test_a_checkpoint_is_found_by_any_of_its_names(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("model.ckpt-7.index", "model.ckpt-7.data-00000-of-00001", "model.ckpt-7.meta", "model.ckpt-5.index"):
        (folder / name).write_bytes(b"")
    assert checkpoint_prefix(folder) is None
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "/elsewhere/run/model.ckpt-7"\nall_model_checkpoint_paths: "/x/model.ckpt-5"\n'
    )
    wanted = folder / "model.ckpt-7"
    for name in ("", "model.ckpt-7", "model.ckpt-7.index", "model.ckpt-7.meta", "model.ckpt-7.data-00000-of-00001"):
        assert checkpoint_prefix(folder / name) == wanted
    assert checkpoint_prefix(folder / "model.ckpt-6") is None


def test_without_tensorflow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "model.ckpt-7.index").write_bytes(b"")
    with pytest.raises(ModelError, match=r"pip install tensorflow"):
        import_model(tmp_path / "model.ckpt-7", tmp_path / "m", name="m")
