"""Blind sheets and the count of orders, with a key and tables made by hand."""

from __future__ import annotations

import csv
import json
import random
from itertools import pairwise

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from training.cli import main
from training.errors import DataError, TrainingError
from training.evaluation.blind import blind_table, count_orders, orders_for, write_sheets

COLORS = {"old": (250, 0, 0), "new": (0, 250, 0), "other": (0, 0, 250)}


def plain(color) -> np.ndarray:
    return np.full((60, 90, 3), color, np.uint8)


def test_sheets_show_what_the_key_says(tmp_path):
    names, photos = ["a", "b", "c", "d"], [plain((250, 250, 250))] * 4
    results = {name: [plain(color)] * 4 for name, color in COLORS.items()}
    key = write_sheets(tmp_path / "sheets", names, photos, results, seed=3)
    assert key == tmp_path / "sheets.key.json"
    assert sorted(p.name for p in (tmp_path / "sheets").iterdir()) == [
        "orders.csv", "sheet-01.jpg", "sheet-02.jpg", "sheet-03.jpg", "sheet-04.jpg",
    ]  # fmt: skip
    values = json.loads(key.read_text())
    # Two tiles in a row: photo, A; B, C.  The middle of each tile has the generator's colour.
    for sheet, row in values["sheets"].items():
        image = cv2.imread(str(tmp_path / "sheets" / f"{sheet}.jpg"))[..., ::-1]
        height = image.shape[0] // 2
        for letter, (y, x) in {"A": (0, 1), "B": (1, 0), "C": (1, 1)}.items():
            middle = image[y * height + height // 2, x * 640 + 320]
            assert np.abs(middle.astype(int) - COLORS[row[letter]]).max() < 12, (sheet, letter)
    assert [row["photo"] for row in values["sheets"].values()] == names
    assert "old" not in (tmp_path / "sheets" / "orders.csv").read_text()
    with (tmp_path / "sheets" / "orders.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["sheet"] for r in rows] == list(values["sheets"])
    assert list(rows[0]) == ["sheet", "order", *(f"{m} {a}" for m in ("style", "place") for a in "ABC")]
    with pytest.raises(TrainingError, match="there already"):
        write_sheets(tmp_path / "sheets", names, photos, results)
    with pytest.raises(TrainingError, match="2 to 26"):
        write_sheets(tmp_path / "one", names, photos, {"old": results["old"]})


def test_orders_change_and_are_balanced():
    orders = orders_for(["x", "y", "z"], 30, random.Random(1))
    assert len(set(orders)) > 3
    assert all(a != b for a, b in pairwise(orders))
    for place in range(3):
        assert [sum(o[place] == name for o in orders) for name in "xyz"] == [10, 10, 10]
    assert orders != orders_for(["x", "y", "z"], 30, random.Random(2))
    assert len(orders_for(["x", "y"], 5, random.Random(0))) == 5


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "k.key.json"
    sheets = {
        "sheet-01": {"photo": "p", "A": "old", "B": "new"},
        "sheet-02": {"photo": "q", "A": "new", "B": "old"},
        "sheet-03": {"photo": "r", "A": "new", "B": "old"},
    }
    path.write_text(json.dumps({"generators": ["old", "new"], "sheets": sheets}))
    return path


def test_orders_are_counted_by_hand(key, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(
        "sheet,order,style A,style B,place A,place B\n"
        "sheet-01,BA,4,8,9,6\n"  # new first
        "sheet-02.jpg, b a ,7,5,8,\n"  # old first; one mark is missing
        "sheet-02,AB,,,,\n"  # somebody else: new first
        "sheet-03,,,,,\n"  # not done yet
    )
    scores = count_orders(key, table)
    new, old = scores["new"], scores["old"]
    assert (new.first, new.sheets, old.first, old.sheets) == (2, 3, 1, 3)
    assert (new.rank, old.rank) == (pytest.approx(4 / 3), pytest.approx(5 / 3))
    assert (new.style, old.style) == (pytest.approx((8 + 7) / 2), pytest.approx((4 + 5) / 2))
    assert (new.place, old.place) == (pytest.approx((6 + 8) / 2), pytest.approx(9))
    lines = blind_table(scores).splitlines()
    assert lines[2] == "| new | 2 | 3 | 67% | 1.33 | 7.5 | 7.0 |"
    result = CliRunner().invoke(main, ["evaluate", "--blind-key", str(key), "--orders", str(table)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sheet,order\nsheet-09,AB\n", "line 2: the key has no sheet 'sheet-09'"),
        ("sheet,order\nsheet-01,AB\nsheet-02,AC\n", "line 3: the order 'AC' should name each of A, B once"),
        ("sheet,order\nsheet-01,AAB\n", "each of A, B once"),
        ("sheet,order,style A\nsheet-01,AB,good\n", "mark 'good' should be a number 0..10"),
        ("sheet,order,style A\nsheet-01,AB,11\n", "mark '11'"),
        ("sheet,order,style A\nsheet-01,AB,nan\n", "mark 'nan'"),
        ("sheet;order\nsheet-01;AB\n", "lacks the columns sheet and order"),
        ("sheet,order\nsheet-01,\n", "holds no order"),
        ("", "holds no order"),
    ],
)
def test_a_wrong_table_is_one_line(key, tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        count_orders(key, tmp_path / "t.csv")
    assert message in str(caught.value)
    result = CliRunner().invoke(main, ["evaluate", "--blind-key", str(key), "--orders", str(tmp_path / "t.csv")])
    assert result.exit_code == 1 and result.output.count("\n") == 1


def test_a_wrong_key_is_one_line(tmp_path):
    (tmp_path / "t.csv").write_text("sheet,order\n")
    for content in (b"\xff", b"[]", b'{"sheets": {"a": 3}, "generators": []}'):
        (tmp_path / "k").write_bytes(content)
        with pytest.raises(DataError, match="key of blind sheets"):
            count_orders(tmp_path / "k", tmp_path / "t.csv")
    for options in (["--blind-key", "x"], ["--orders", "x"], [], ["run"], ["run", "--blind-key", "a", "--orders", "b"]):
        assert CliRunner().invoke(main, ["evaluate", *options]).exit_code == 2
