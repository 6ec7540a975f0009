"""Looks of models with a layout: palettes, files, pictures, mixtures, haze and layers, and what is refused."""

import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from engine.errors import PaletteError
from engine.looks.palette_file import shipped_palettes
from stylize import Stylizer
from stylize.cli import stylize
from stylize.errors import InputError

MINE = """
sky = ["#000000", "#808080"]
land = [
  "#101010",
  "#ff0000",
]
lit = "#ffffff"
"""


def open_with(model, **values):
    return Stylizer(model=str(model), backend="openvino", threads=1, **values)


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return str(path)


def test_every_look_that_comes_with_the_program(layered_model, landscape):
    with open_with(layered_model) as stylizer:
        assert stylizer.looks.names == (*shipped_palettes(), "auto") and stylizer.chosen["look"] == "dusk"
        pictures = [stylizer.restyled(look=name).image(landscape) for name in stylizer.looks.names]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert np.abs(one.astype(int) - other).mean() > 2


def test_a_palette_of_a_file(layered_model, landscape, mine):
    with open_with(layered_model, look_file=mine) as stylizer:
        table = stylizer.probe(landscape).vectors["sky_lut"]
        assert stylizer.chosen["look"] == "mine"
    grey = table[:, 8, :63]
    assert np.ptp(grey, axis=0).max() < 1e-3 and grey[0, 0] < 0.01 and grey[0, -1] == pytest.approx(0.502, abs=0.01)
    with open_with(layered_model, look_file=mine, look="mine=0.5,dusk=0.5") as stylizer:
        mixed = stylizer.probe(landscape).vectors["sky_lut"]
    with open_with(layered_model, look="dusk") as stylizer:
        dusk = stylizer.probe(landscape).vectors["sky_lut"]
    assert (np.abs(mixed - table).max() > 0.1) and (np.abs(mixed - dusk).max() > 0.1)


def test_the_key_follows_the_file_and_not_its_place(layered_model, mine, tmp_path):
    def key(path, **values):
        return open_with(layered_model, look_file=str(path), **values).key

    before = key(mine)
    (tmp_path / "there").mkdir()
    moved = tmp_path / "there" / "mine.toml"
    moved.write_text(MINE)
    assert key(moved) == before and key(moved, look="mine") == before and key(moved, haze=0.5) != before
    moved.write_text(MINE.replace("#101010", "#111010"))
    assert key(moved) != before


def test_a_look_measured_on_a_picture(layered_model, landscape, tmp_path):
    source = tmp_path / "wall paper.png"
    cv2.imwrite(str(source), landscape[..., ::-1])
    with open_with(layered_model, look_from=str(source)) as stylizer:
        first = stylizer.probe(landscape).vectors
        again = stylizer.restyled(look="wall-paper", strength=0.5).probe(landscape).vectors
        assert stylizer.chosen["look"] == "wall-paper"
        assert stylizer.restyled(look_from=None, look="day").probe(landscape).vectors["land_lut"].std() > 0
    assert all(np.array_equal(first[name], again[name]) for name in first)
    colours = landscape.reshape(-1, 3) / 255
    for name in ("sky_lut", "land_lut"):  # no colour that the picture is far from
        found = first[name].reshape(3, -1).T
        found = found if name == "land_lut" else first[name][:, :, :63].reshape(3, -1).T
        nearest = [np.abs(colours - c).sum(1).min() for c in found[::97]]
        assert np.median(nearest) < 0.25


def test_haze_and_layers(layered_model, landscape):
    with open_with(layered_model, look="dusk") as stylizer:
        clear = stylizer.probe(landscape).vectors
        full = stylizer.restyled(haze=1.0).probe(landscape).vectors
        cut = stylizer.restyled(layers=4).probe(landscape).vectors
        one = stylizer.restyled(layers=1).probe(landscape).vectors
    assert np.array_equal(full["land_lut"][:, 0], clear["land_lut"][:, 0])  # what is near stays
    horizon = np.array([0xFF, 0xE2, 0xA0]) / 255
    np.testing.assert_allclose(full["land_lut"][:, -1], horizon[:, None] * np.ones(33), atol=2e-3)
    assert clear["controls"].tolist()[0::4] == [3, 0] and cut["controls"].tolist()[0::4] == [3, 3]
    assert one["controls"].tolist()[0::4] == [1, 0] and np.ptp(one["land_lut"], axis=1).max() == 0


def test_auto_says_what_it_took(layered_model, landscape):
    with open_with(layered_model, look="auto") as stylizer:
        stylizer.image(landscape)
        assert stylizer.chosen["look"].startswith("auto (") and "%" in stylizer.chosen["look"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINE.replace("lit", "light"), r"mine.toml, line 7: unknown key light: did you mean lit\?"),
        (MINE.replace("#ff0000", "red"), "mine.toml, line 5: land: a colour is #rrggbb, got 'red'"),
        (MINE.replace(', "#808080"', ""), "mine.toml, line 2: sky takes 2 to 16 colours, got 1"),
        (MINE.replace('lit = "#ffffff"', "lit = 3"), 'mine.toml, line 7: lit is written lit = "#ffc880", got 3'),
        (MINE.replace('lit = "#ffffff"', ""), "mine.toml: lit is missing: what the sun shines on"),
        (MINE.replace('lit = "#', "lit = #"), r"mine.toml is no TOML \(.*line 7"),
    ],
)
def test_files_that_are_no_palette(layered_model, mine, tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(PaletteError, match=message):
        open_with(layered_model, look_file=mine)


def test_pictures_that_are_no_look(layered_model, tmp_path):
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.full((60, 80, 3), 90, np.uint8))
    with (
        pytest.raises(PaletteError, match=r"grey\.png: the picture is of one colour"),
        open_with(layered_model, look_from=str(grey)),
    ):
        pass
    with pytest.raises(InputError, match=r"none\.png cannot be read"):
        open_with(layered_model, look_from=str(tmp_path / "none.png"))
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(InputError, match=r"text\.png"), open_with(layered_model, look_from=str(text)):
        pass


def test_what_is_refused(layered_model, mine, skip_model):
    with pytest.raises(ValueError, match=r"unknown look 'dusc': did you mean dusk\? layers has dusk, golden"):
        open_with(layered_model, look="dusc")
    with pytest.raises(ValueError, match=r"the weight of a look is a number, such as dusk=0\.7, got 'dusk=much'"):
        open_with(layered_model, look="dusk=much")
    with pytest.raises(ValueError, match="layers are 1 to 32, got 0"):
        open_with(layered_model, layers=0)
    with pytest.raises(ValueError, match="haze lies between 0 and 1, got 2"):
        open_with(layered_model, haze=2)
    for values in ({"look_file": mine}, {"haze": 0.5}, {"layers": 3}):
        with pytest.raises(ValueError, match="has looks of its own and no palettes: leave --"):
            Stylizer(model=str(skip_model), **values)


def run(*words):
    return CliRunner().invoke(stylize, list(map(str, words)))


def test_the_command(tmp_path):
    listed = run("looks")
    assert listed.exit_code == 0 and "\x1b" not in listed.stdout
    assert all(name in listed.stdout for name in (*shipped_palettes(), "auto"))
    values = json.loads(run("looks", "--json").stdout)
    assert values["dusk"]["lit"] == shipped_palettes()["dusk"].lit and len(values) == 8
    target = tmp_path / "my.toml"
    assert run("looks", "--write", "dusk", target).exit_code == 0
    from engine.looks.palette_file import read_palette

    assert read_palette(target) == shipped_palettes()["dusk"]
    again = run("looks", "--write", "dusk", target)
    assert again.exit_code != 0 and "exists already" in str(again.exception)
    unknown = run("looks", "--write", "dsk", tmp_path / "other.toml")
    assert unknown.exit_code == 2 and "did you mean dusk" in unknown.output


def test_swatches_in_a_terminal(monkeypatch, capsys):
    from engine.looks.palette import Palette
    from stylize.commands.looks import _swatches

    shown = _swatches(Palette(sky=("#010203", "#ff8000"), land=("#000000", "#ffffff"), lit="#102030"))
    assert "\x1b[48;2;1;2;3m   \x1b[0m\x1b[48;2;255;128;0m   " in shown and shown.count("48;2") == 5


def test_preview_knows_every_look(layered_model, landscape, tmp_path):
    source = tmp_path / "lake.png"
    cv2.imwrite(str(source), landscape[..., ::-1])
    made = run("preview", source, "--looks", "all", "--model", layered_model, "--backend", "openvino")
    assert made.exit_code == 0, made.output
    lines = source.with_name("lake.preview.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == [*shipped_palettes(), "auto"]
