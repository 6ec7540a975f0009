import json
import os
import pickle
import resource
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_models import make_model
from importer_nets import keras_arrays, keras_forward, keras_generator, random_generator, save_keras, save_keras3

from engine.backends.base import BackendOptions
from engine.choice import open_backend
from engine.errors import ModelError
from engine.importers.check import TOLERANCE, check_picture, float_error, import_model
from engine.importers.net import evaluate
from engine.importers.torch import read_torch
from engine.metrics import psnr
from engine.model_store import check_name
from engine.spec import ModelSpec, look_weights


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def saved(path, **values):
    net = random_generator(**values)
    torch.save(net.state_dict(), path)
    return net


def original(net, view):
    """What the original makes of a picture, float (H, W, 3) in -1..1."""
    x = torch.from_numpy(view.astype(np.float64)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        return net.double()(x)[0].permute(1, 2, 0).numpy()


CASES = [
    {"blocks": 9},
    {"blocks": 6, "ngf": 12},
    {"blocks": 6, "norm": "affine"},
    {"blocks": 6, "norm": "batch"},
    {"blocks": 3, "norm": "none"},
    {"blocks": 6, "dropout": True},
    {"blocks": 2, "padding": "zero"},
    {"blocks": 2, "padding": "zero", "dropout": True, "norm": "batch"},
    {"blocks": 2, "resize": "reflect"},
    {"blocks": 2, "resize": "zero", "norm": "affine"},
]


@pytest.mark.parametrize("values", CASES, ids=lambda v: "-".join(map(str, v.values())))
def test_pytorch_cyclegan_comes_out_the_same(tmp_path, values):
    net = saved(tmp_path / "latest_net_G_A.pth", **values)
    view = check_picture()
    expected = original(net, view)
    read = read_torch(tmp_path / "latest_net_G_A.pth")
    direct = evaluate(read, view.astype(np.float64).transpose(2, 0, 1) / 127.5 - 1).transpose(1, 2, 0)
    assert np.abs(direct - expected).max() < 1e-9
    assert float_error(read.config("auto"), read.weights(), view, expected) < TOLERANCE
    report = import_model(tmp_path / "latest_net_G_A.pth", tmp_path / "models" / "mine", name="mine")
    assert report.kind == "PyTorch CycleGAN" and report.error < TOLERANCE and report.psnr > 40
    assert report.spec.config["n_blocks"] == values["blocks"] and report.spec.config["ngf"] == values.get("ngf", 8)
    padded = values.get("padding") != "zero"
    assert len(report.notes) == (values.get("norm") == "batch") + ("resize" in values) + padded
    assert any("replication looks the same" in note for note in report.notes) == padded


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("depth", [2, 3])
def test_cyclegan_keras_comes_out_the_same(tmp_path, rng, depth, resize, version):
    pytest.importorskip("h5py")
    kinds = {"depth": depth, "resize": resize, "blocks": 3 if version == 2 else 9}
    layers = keras_arrays(rng, ngf=8, **kinds)
    if version == 2:
        path = save_keras(tmp_path / "G_A2B_model_weights_epoch_200.hdf5", layers, nested=resize)
    else:  # so many layers that _10 comes before _2 in the file
        path = save_keras3(tmp_path / "generator.weights.h5", layers)
    view = check_picture()
    x = torch.from_numpy(view.astype(np.float64)).permute(2, 0, 1)[None] / 127.5 - 1
    expected = keras_forward(layers, x, **kinds)[0].permute(1, 2, 0).numpy()
    from engine.importers.keras import read_keras

    read = read_keras(path)
    assert float_error(read.config("auto"), read.weights(), view, expected) < TOLERANCE
    report = import_model(path, tmp_path / "mine", name="mine", look="monet")
    assert report.spec.looks == ("monet",) and report.spec.multiple == 2**depth and report.psnr > 40


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras with NumPy 2
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_what_keras_3_itself_writes_comes_out_the_same(tmp_path, norm):
    """Built, evaluated and saved by Keras; instance norm is its group norm, or a layer like keras_contrib's."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras = pytest.importorskip("keras", minversion="3", reason="Keras 3 comes with the extra [tensorflow]")
    net = keras_generator(keras, norm)
    rng = np.random.default_rng(5)
    net.set_weights([rng.normal(0.2 if w.ndim == 1 else 0, 0.2, w.shape) for w in net.get_weights()])
    net.save_weights(tmp_path / "generator.weights.h5")
    view = check_picture()
    expected = net(view[None].astype(np.float32) / 127.5 - 1).numpy()[0]
    from engine.importers.keras import read_keras

    read = read_keras(tmp_path / "generator.weights.h5")
    assert float_error(read.config("auto"), read.weights(), view, expected) < TOLERANCE
    assert import_model(tmp_path / "generator.weights.h5", tmp_path / "m", name="m").psnr > 40


@pytest.mark.parametrize("kind", ["pth", "hdf5"])
def test_backends_agree_and_tiles_fit_together(tmp_path, rng, kind):
    if kind == "pth":
        saved(tmp_path / "net.pth", blocks=3, padding="zero")
    else:
        pytest.importorskip("h5py")
        save_keras(tmp_path / "net.hdf5", keras_arrays(rng, blocks=2))
    spec = import_model(tmp_path / f"net.{kind}", tmp_path / "m", name="m").spec
    image = rng.integers(0, 256, (1, 256, 256, 3)).astype(np.uint8)
    results = {}
    for name in ("openvino", "torch", "mnn"):
        with open_backend(tmp_path / "m", name=name, options=BackendOptions(precision="fp32")) as backend:
            statistics = backend.probe(image, look_weights(spec, "auto"))
            results[name] = backend.render(image, statistics)
            r = spec.radius
            tile = np.ascontiguousarray(image[:, 64:, 64:])
            part = backend.render(tile, statistics)
            inner = np.abs(part[:, r:, r:].astype(int) - results[name][:, 64 + r :, 64 + r :]).max()
            assert inner <= 1, "a tile differs from the whole picture beyond the receptive field"
    assert psnr(results["openvino"], results["torch"]) > 55
    assert psnr(results["mnn"], results["torch"]) > 50


def test_wrapped_and_prefixed_state_dicts_are_found(tmp_path):
    net = random_generator(blocks=2)
    view = check_picture()
    expected = original(net, view)
    state = {f"module.{k}": v.float() for k, v in net.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "wrapped.pth")
    read = read_torch(tmp_path / "wrapped.pth")
    assert float_error(read.config("auto"), read.weights(), view, expected) < TOLERANCE


def test_statistics_of_early_instance_norm_are_left_out(tmp_path):
    net = random_generator(blocks=2)
    view = check_picture()
    expected = original(net, view)
    state = net.float().state_dict()
    for key in [k for k in state if k.endswith("bias")]:
        place, _, number = key.removesuffix(".bias").rpartition(".")
        if f"{place}.{int(number) + 2}.weight" in state or int(number) < 20:
            state[f"{place}.{int(number) + 1}.running_mean"] = torch.full_like(state[key], 7.0)
            state[f"{place}.{int(number) + 1}.running_var"] = torch.full_like(state[key], 7.0)
    torch.save(state, tmp_path / "old.pth")
    read = read_torch(tmp_path / "old.pth")
    assert float_error(read.config("auto"), read.weights(), view, expected) < TOLERANCE


class Evil:
    def __reduce__(self):
        return (Path.write_text, (Path("pwned"), "x"))


def test_code_in_a_checkpoint_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, "evil.pth")
    Path("evil.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pth", "evil.pt"):
        with pytest.raises(ModelError, match=r"state_dict|cannot be read"):
            import_model(Path(name), tmp_path / "m", name="m")
    assert not Path("pwned").exists() and not (tmp_path / "m").exists()


def keras3_file(path, layers):
    import h5py

    with h5py.File(path, "w") as file:
        file.create_group("layers")
        for layer in layers:
            file[f"layers/{layer}/vars/0"] = np.zeros((3, 3, 4, 4) if "conv" in layer else (4, 4), np.float32)


def test_what_is_no_generator_is_refused_in_one_line(tmp_path):
    def refuse(content, match, name="x.pth"):
        torch.save(content, tmp_path / name)
        with pytest.raises(ModelError, match=match) as caught:
            import_model(tmp_path / name, tmp_path / "m", name="m")
        assert "\n" not in str(caught.value)

    refuse({"model.model.1.model.2.weight": torch.zeros(2, 2, 4, 4)}, "U-Net")
    refuse({"conv1.weight": torch.zeros(4, 3, 3, 3)}, "not a ResNet generator")
    refuse([1, 2], "no state dict")
    grey = random_generator(blocks=1).state_dict()
    grey["model.1.weight"] = torch.zeros(8, 1, 7, 7)
    refuse(grey, "RGB")
    broken = random_generator(blocks=1).state_dict()
    broken["model.1.weight"] = torch.full((8, 3, 7, 7), torch.nan)
    refuse(broken, "not finite")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:3000])
    (tmp_path / "text.hdf5").write_text("no")
    for name, layers in (("odd.h5", ["dense", "conv2d"]), ("empty.h5", [])):
        keras3_file(tmp_path / name, layers)
        with pytest.raises(ModelError, match="as no generator has them"):
            import_model(tmp_path / name, tmp_path / "m", name="m")
    for name, match in (("cut.pth", "complete"), ("text.hdf5", "Keras|h5py"), ("gone.pth", "does not exist")):
        with pytest.raises(ModelError, match=match):
            import_model(tmp_path / name, tmp_path / "m", name="m")
    assert not (tmp_path / "m").exists() and not list(tmp_path.glob(".import-*"))


def without(*parts):
    return lambda state: {k: v for k, v in state.items() if not any(part in k for part in parts)}


def reshaped(key, *shape):
    return lambda state: {**state, key: torch.zeros(shape)}


# With nine blocks: stem 1, halvings 4 and 7, blocks 10 to 18, doublings 19 and 22, head 26.
HARM = {
    "first block": (without("model.10."), "leave a gap"),
    "middle block": (without("model.13."), "leave a gap"),
    "last block": (without("model.18."), "lacks layers before model.19"),
    "half block": (without("model.13.conv_block.5."), "leave a gap|not a ResNet"),
    "halving": (without("model.4."), "leave a gap|not a ResNet"),
    "doubling": (without("model.19."), "lacks layers|doublings|not a ResNet"),
    "both of a level": (without("model.7.", "model.19."), "leave a gap|not a ResNet"),
    "head": (without("model.26."), "RGB|doublings|not a ResNet|lacks layers"),
    "norm": (without("model.13.conv_block.2."), "mixture"),
    "variance": (without("model.13.conv_block.2.running_var"), "half of its statistics"),
    "bias": (reshaped("model.26.bias", 5), "bias has the shape"),
    "scale": (reshaped("model.8.weight", 7), "gamma has the shape"),
    "kernel": (reshaped("model.13.conv_block.1.weight", 32, 32, 5, 5), "expected"),
    "wide": (reshaped("model.4.weight", 16, 9, 3, 3), "expected 8 to 16"),
    "oblong": (reshaped("model.1.weight", 8, 3, 7, 5), "shape"),
    "flat": (reshaped("model.1.weight", 8, 3), "not a ResNet|leave a gap|halvings"),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.filterwarnings("error")
def test_a_state_dict_with_a_hole_or_a_wrong_shape_is_refused(tmp_path, harm):
    change, match = HARM[harm]
    torch.save(change(random_generator(blocks=9, norm="batch").state_dict()), tmp_path / "x.pth")
    with pytest.raises(ModelError, match=match) as caught:
        import_model(tmp_path / "x.pth", tmp_path / "m", name="m")
    assert "\n" not in str(caught.value) and not (tmp_path / "m").exists()


@pytest.mark.parametrize("resize", ["", "zero", "reflect"])
def test_a_net_without_its_first_or_middle_block_is_refused(tmp_path, resize):
    for number in (10, 12):
        state = random_generator(blocks=6, resize=resize).state_dict()
        torch.save(without(f"model.{number}.conv_block")(state), tmp_path / "x.pth")
        with pytest.raises(ModelError, match="leave a gap"):
            import_model(tmp_path / "x.pth", tmp_path / "m", name="m")


def test_wrong_shapes_in_keras_files_are_refused(tmp_path, rng):
    h5py = pytest.importorskip("h5py")

    def damaged(change, match, version=2):
        path = tmp_path / ("x.hdf5" if version == 2 else "x.weights.h5")
        path.unlink(missing_ok=True)
        layers = keras_arrays(rng, blocks=3)
        path = save_keras(path, layers) if version == 2 else save_keras3(path, layers)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(ModelError, match=match) as caught:
            import_model(path, tmp_path / "m", name="m")
        assert "\n" not in str(caught.value)

    def reshape(ending, shape):
        def change(file):
            names = []
            file.visit(lambda name: names.append(name) if name.endswith(ending) else None)
            del file[names[1]]
            file[names[1]] = np.zeros(shape, np.float32)

        return change

    damaged(reshape("kernel:0", (3, 3, 5, 16)), "expected|shape|convolutions")
    damaged(reshape("bias:0", (5,)), "bias has the shape")
    damaged(reshape("gamma:0", (5,)), "gamma has the shape")
    damaged(reshape("kernel:0", (2, 2)), "does not belong|convolutions")

    def text(file):
        reshape("bias:0", (1,))(file)
        names = []
        file.visit(lambda name: names.append(name) if name.endswith("bias:0") else None)
        del file[names[0]]
        file[names[0]] = "words"

    damaged(text, "cannot be read as weights of Keras")

    def hole(file):
        del file["layers/conv2d_3"]

    damaged(hole, "a layer is missing|no generator has them", version=3)


@pytest.fixture
def small_files():
    """The kernel refuses files beyond 64 KB, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_keeps_the_model_that_is_there(tmp_path, small_files):
    saved(tmp_path / "small.pth", blocks=1, ngf=1)
    import_model(tmp_path / "small.pth", tmp_path / "models" / "m", name="m")
    before = {p.name: p.read_bytes() for p in (tmp_path / "models" / "m").iterdir()}
    layers = random_generator(blocks=3, ngf=8).state_dict()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    torch.save(layers, tmp_path / "large.pth")
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
    with pytest.raises(ModelError, match=r"cannot be written \(.*\): free some space") as caught:
        import_model(tmp_path / "large.pth", tmp_path / "models" / "m", name="m")
    assert "\n" not in str(caught.value)
    assert {p.name: p.read_bytes() for p in (tmp_path / "models" / "m").iterdir()} == before
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["m"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    saved(tmp_path / "net.pth", blocks=1)
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(ModelError, match=r"cannot be written .*STYLIZE_MODELS"):
        import_model(tmp_path / "net.pth", tmp_path / "models" / "m", name="m")


def test_a_checkpoint_without_its_config_is_one_line(tmp_path):
    from safetensors.numpy import save_file

    for metadata in ({}, {"config": "{"}, {"config": "{}"}, {"config": "[]"}, {"config": '{"architecture": "light"}'}):
        save_file({"a": np.zeros(2, np.float32)}, tmp_path / "x.safetensors",
                  metadata={"format": "firewatch-generator-1", **metadata})  # fmt: skip
        with pytest.raises(ModelError, match=r"x\.safetensors|unknown architecture") as caught:
            import_model(tmp_path / "x.safetensors", tmp_path / "m", name="m")
        assert "\n" not in str(caught.value)


def test_auto_is_no_name_for_a_model():
    with pytest.raises(ValueError, match="auto stands for"):
        check_name("auto")


def test_a_pair_is_taken_over_with_its_hashes(tmp_path):
    make_model(tmp_path / "source", "skip")
    report = import_model(tmp_path / "source", tmp_path / "models" / "copy", name="copy")
    spec = ModelSpec.load(tmp_path / "models" / "copy")
    spec.verify(tmp_path / "models" / "copy")
    assert spec.name == "copy" and report.kind == "ONNX pair" and set(spec.hashes) == set(report.spec.hashes)


def damage_hash(folder):
    (folder / "render.onnx").write_bytes((folder / "render.onnx").read_bytes() + b"x")


def without_hashes(folder):
    values = json.loads((folder / "spec.json").read_text())
    values["hashes"] = None
    (folder / "spec.json").write_text(json.dumps(values))


def rename_input(folder):
    import onnx

    without_hashes(folder)
    model = onnx.load(folder / "render.onnx")
    for node in model.graph.node:
        node.input[:] = ["pictures" if name == "tiles" else name for name in node.input]
    model.graph.input[[v.name for v in model.graph.input].index("tiles")].name = "pictures"
    onnx.save(model, folder / "render.onnx")


def float_input(folder):
    import onnx

    without_hashes(folder)
    model = onnx.load(folder / "probe.onnx")
    model.graph.input[[v.name for v in model.graph.input].index("look")].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save(model, folder / "probe.onnx")


def old_opset(folder):
    import onnx

    without_hashes(folder)
    model = onnx.load(folder / "render.onnx")
    model.opset_import[0].version = 30
    onnx.save(model, folder / "render.onnx")


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (damage_hash, "sha256"),
        (rename_input, "expected tiles"),
        (float_input, "look should be FLOAT 1 x 2"),
        (old_opset, "opset 30|no valid ONNX"),
        (lambda folder: (folder / "probe.onnx").unlink(), "has no probe.onnx"),
        (lambda folder: (folder / "spec.json").unlink(), "no spec.json"),
    ],
    ids=["hash", "names", "shape", "opset", "half", "spec"],
)
def test_a_damaged_pair_is_refused(tmp_path, harm, match):
    make_model(tmp_path / "source", "plain")
    harm(tmp_path / "source")
    with pytest.raises(ModelError, match=match):
        import_model(tmp_path / "source", tmp_path / "copy", name="copy")
    assert not (tmp_path / "copy").exists()
