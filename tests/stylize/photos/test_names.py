"""Names in any script, and names that are no text at all."""

import json
import os
import unicodedata
from pathlib import Path, PurePath

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylize.files import shown
from stylize.media.formats import READ_SUFFIXES
from stylize.media.image.settings import ImageSettings
from stylize.photos.job import FolderJob, stylize_folder
from stylize.result_name import assign_results

SUFFIXES = st.sampled_from([".jpg", ".JPG", ".jpeg", ".png", ".heic", ".gif", ".tif"])
HOSTILE = st.sampled_from(
    [
        "-rf",
        "a b",
        "a\nb",
        "a\tb",
        "'\"",
        "$(x)",
        "%s%n",
        "{0}",
        "CON",
        "a;b",
        "é",
        "e\u0301",
        "山",
        "שלום",
        "🏔",
        "\u202e",
        "*",
        "?",
        "\\",
        "~",
        "#",
        "&",
        "x" * 200,
        "\udcff\udcfe",
        "İ",
        "ß",
        "SS",
        "a.part",
        "stylized",
        " ",
        "a.",
    ]
)
CHARACTERS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
STEMS = st.one_of(HOSTILE, CHARACTERS).filter(lambda stem: not stem.startswith("."))


def fits(name):
    return len(os.fsencode(name)) <= 200


@given(st.lists(st.tuples(STEMS, SUFFIXES), min_size=1, max_size=5, unique=True))
@settings(max_examples=60, deadline=None)
def test_hostile_names_come_through(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("names")
    picture = Image.fromarray(np.zeros((2, 3, 3), np.uint8))
    made = []
    for stem, suffix in names:
        name = stem + ".png" if suffix in (".heic", ".gif") else stem + suffix
        if not fits(name) or PurePath(name).name != name or (root / name).exists():
            continue
        picture.save(root / "x.bin", format="PNG")
        (root / "x.bin").rename(root / name)
        if PurePath(name).suffix.lower() in READ_SUFFIXES:
            made.append(name)
    if not made:
        return
    report = stylize_folder(FolderJob(source=root, transform_key="net"), np.array)
    assert report.complete and report.count("done") == len(made), [photo.message for photo in report.photos]
    results = [photo.target for photo in report.photos]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in results}) == len(made)
    assert all(Path(name).is_file() for name in results)
    json.loads(json.dumps(report.as_dict()))
    again = stylize_folder(FolderJob(source=root, transform_key="net"), np.array)
    assert {photo.reason for photo in again.photos} == {"up-to-date"}


PATHS = st.builds(
    lambda folders, stem, suffix: PurePath(*folders, stem + suffix),
    st.lists(st.sampled_from(["A", "a", "b.jpg", "É", "E\u0301"]), max_size=2),
    st.sampled_from(["a", "A", "a-2", "a.heic", "b", "ß", "SS", "é", "e\u0301"]),
    SUFFIXES,
)


@given(st.lists(PATHS, max_size=25, unique=True), st.sampled_from(["keep", "jpeg", "png"]), st.data())
@settings(max_examples=200, deadline=None)
def test_every_photo_gets_a_place_of_its_own(paths, kind, data):
    how = ImageSettings(format=kind)
    targets = assign_results(paths, how.suffix_for)
    key = lambda path: unicodedata.normalize("NFC", unicodedata.normalize("NFC", path.as_posix()).casefold())  # noqa: E731
    assert targets.keys() == set(paths) and len({key(target) for target in targets.values()}) == len(paths)
    for source, target in targets.items():
        assert target.parent == source.parent and target.suffix == how.suffix_for(source)
    assert assign_results(reversed(paths), how.suffix_for) == targets
    # What an earlier run of some of them named keeps its name, and the whole is still without collision.
    earlier = assign_results([path for path in paths if data.draw(st.booleans())], how.suffix_for)
    known = {target.as_posix(): source.as_posix() for source, target in earlier.items()}
    later = assign_results(paths, how.suffix_for, known=known)
    assert len({key(target) for target in later.values()}) == len(paths)
    parents = {key(parent) for path in paths for parent in path.parents}
    assert all(later[source] == target for source, target in earlier.items() if key(target) not in parents)
    # An interrupted run, which did some in the planned places, goes on to the same places.
    half = {targets[path].as_posix(): path.as_posix() for path in paths if data.draw(st.booleans())}
    assert assign_results(paths, how.suffix_for, known=half) == targets


@given(st.text(st.characters(), max_size=30))
def test_shown_names_are_one_printable_line(text):
    assert shown(text).isprintable()
    shown(text).encode("utf-8")
