"""Photos go out with everything that came in beside the pixels, whole or not at all."""

import contextlib
import functools
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from stylize.errors import OutputError
from stylize.files import part_path
from stylize.media.image.color import is_srgb, srgb_profile
from stylize.media.image.exif import descriptive_entries, exif_as_shown, orientation_of
from stylize.media.image.metadata import Metadata, iptc_from_photoshop, xmp_as_shown
from stylize.media.image.read import Picture, read_image
from stylize.media.image.settings import ImageSettings
from stylize.media.image.write import write_image
from stylize.photos.job import stylize_image

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" xmp:Rating="5">'
    b"<exif:PixelXDimension>999</exif:PixelXDimension>"
    b"<xmp:Thumbnails><rdf:Alt>AAAA</rdf:Alt></xmp:Thumbnails></rdf:Description></x:xmpmeta>"
)
IPTC = b"\x1c\x02\x05\x00\x04Lake\x1c\x02\x50\x00\x03Ann"
IDENTITY = np.array


def exif_block(*, orientation=6, thumbnail=True, order="<"):
    """IFD0 (make, orientation, EXIF), EXIF (date, width, height, a maker's note), IFD1 with a thumbnail."""
    pack = lambda code, *values: struct.pack(order + code, *values)  # noqa: E731
    note = b"MAKERNOTE-with-offsets"
    head = (b"II" if order == "<" else b"MM") + pack("HI", 42, 8)
    make_at = 8 + 2 + 3 * 12 + 4
    exif_at = make_at + 6
    note_at = exif_at + 2 + 3 * 12 + 4
    second = note_at + len(note)
    jpeg_at = second + 2 + 2 * 12 + 4
    first = pack("H", 3) + pack("HHII", 271, 2, 6, make_at) + pack("HHIHH", 274, 3, 1, orientation, 0)
    first += pack("HHII", 0x8769, 4, 1, exif_at) + pack("I", second if thumbnail else 0) + b"Maker\0"
    inner = pack("H", 3) + pack("HHII", 0x927C, 7, len(note), note_at) + pack("HHII", 0xA002, 4, 1, 999)
    inner += pack("HHIHH", 0xA003, 3, 1, 888, 0) + pack("I", 0) + note
    small = b"\xff\xd8THUMB\xff\xd9"
    last = pack("H", 2) + pack("HHII", 0x201, 4, 1, jpeg_at) + pack("HHII", 0x202, 4, 1, len(small)) + pack("I", 0)
    return head + first + inner + ((last + small) if thumbnail else b"")


@pytest.fixture
def like(gradient):
    return Picture(
        data=gradient,
        alpha=np.arange(1200, dtype=np.uint8).reshape(30, 40),
        metadata=Metadata(
            exif=exif_as_shown(exif_block(), width=40, height=30),
            xmp=xmp_as_shown(XMP, width=40, height=30, turned=True),
            iptc=IPTC,
            dpi=(300.0, 300.0),
            comment=b"hello",
            text=(("Title", "Lake"), ("Author", "Ann \u5c71")),
        ),
        times=(1_000_000_000_000_000_000, 1_100_000_000_123_456_000),
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_corrected_in_place(order):
    block = exif_block(order=order)
    shown = exif_as_shown(block, width=40, height=30)
    assert orientation_of(block) == 6 and orientation_of(shown) == 1
    assert b"THUMB" not in shown and len(shown) < len(block)
    assert shown.index(b"MAKERNOTE") == block.index(b"MAKERNOTE")
    kept = Image.Exif()
    kept.load(shown)
    assert kept.get_ifd(0x8769)[0xA002] == 40 and kept.get_ifd(0x8769)[0xA003] == 30


@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(1, 200))
@settings(max_examples=200, deadline=None)
def test_damaged_exif_is_a_value_error_or_nothing(position, value, cut):
    block = bytearray(exif_block())
    block[position % len(block)] = value
    for data in (bytes(block), bytes(block[:cut])):
        for work in (orientation_of, lambda data: exif_as_shown(data, width=1, height=1), descriptive_entries):
            with contextlib.suppress(ValueError, struct.error):
                work(data)


def test_xmp_is_corrected_and_otherwise_kept():
    shown = xmp_as_shown(XMP, width=40, height=30, turned=True)
    assert b'tiff:Orientation="1"' in shown and b">40<" in shown and b'xmp:Rating="5"' in shown
    assert b"Thumbnails" not in shown
    assert b'tiff:Orientation="6"' in xmp_as_shown(XMP, width=40, height=30, turned=False)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_metadata_survives_every_format(tmp_path, like, suffix):
    path = tmp_path / f"a{suffix}"
    write_image(path, like.data, like, ImageSettings())
    back = read_image(path)
    exif = Image.Exif()
    exif.load(back.metadata.exif)
    assert exif[271] == "Maker" and exif[274] == 1
    assert exif.get_ifd(0x8769)[0x927C] == b"MAKERNOTE-with-offsets"
    assert exif.get_ifd(0x8769)[0xA002] == 40
    assert back.metadata.xmp == like.metadata.xmp
    if suffix != ".webp":
        assert back.metadata.iptc == IPTC
        assert [round(value) for value in back.metadata.dpi] == [300, 300]
    if suffix == ".jpg":
        assert back.metadata.comment == b"hello"
    if suffix == ".png":
        assert back.metadata.text == like.metadata.text
    with Image.open(path) as image:  # another reader finds them, too
        assert image.getexif()[271] == "Maker"
        image.load()


def test_metadata_can_be_left_out(tmp_path, like):
    write_image(tmp_path / "a.jpg", like.data, like, ImageSettings(metadata=False))
    back = read_image(tmp_path / "a.jpg").metadata
    assert back.exif is None and back.xmp is None and back.iptc is None and back.comment is None


def test_a_jpegs_iptc_is_found_among_other_resources():
    other = b"8BIM" + struct.pack(">H", 1000) + b"\x03abc" + struct.pack(">I", 3) + b"xyz\0"
    mine = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
    assert iptc_from_photoshop(b"Photoshop 3.0\0" + other + mine) == IPTC
    assert iptc_from_photoshop(other) is None and iptc_from_photoshop(b"") is None


def test_metadata_too_large_for_jpeg_is_named(tmp_path, gradient):
    big = Picture(data=gradient, metadata=Metadata(xmp=b"x" * 70_000))
    written = write_image(tmp_path / "a.jpg", gradient, big, ImageSettings())
    assert "XMP" in written.notes[0] and read_image(tmp_path / "a.jpg").metadata.xmp is None
    write_image(tmp_path / "a.png", gradient, big, ImageSettings())
    assert read_image(tmp_path / "a.png").metadata.xmp == big.metadata.xmp


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_is_kept(tmp_path, like, suffix):
    write_image(tmp_path / f"a{suffix}", like.data, like, ImageSettings(lossless=True))
    back = read_image(tmp_path / f"a{suffix}")
    assert np.array_equal(back.alpha, like.alpha) and np.array_equal(back.data, like.data)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_without_alpha_a_picture_is_put_on_white_with_a_word(tmp_path, gradient, suffix):
    clear = Picture(data=gradient, alpha=np.zeros((30, 40), np.uint8))
    written = write_image(tmp_path / f"a{suffix}", gradient, clear, ImageSettings())
    assert "white" in written.notes[0] and read_image(tmp_path / f"a{suffix}").data.min() >= 254
    opaque = Picture(data=gradient, alpha=np.full((30, 40), 255, np.uint8))
    assert write_image(tmp_path / f"b{suffix}", gradient, opaque, ImageSettings()).notes == ()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_go_out_as_sixteen_bits(tmp_path, gradient, suffix, order):
    alpha = np.random.default_rng(3).integers(0, 65536, (30, 40), np.uint16)
    exif = exif_as_shown(exif_block(order=order), width=40, height=30)
    like = Picture(data=gradient, alpha=alpha, depth=16, metadata=Metadata(exif=exif))
    write_image(tmp_path / f"a{suffix}", gradient, like, ImageSettings())
    stored = cv2.imread(str(tmp_path / f"a{suffix}"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert np.array_equal(stored[..., 2::-1], gradient.astype(np.uint16) * 257)
    assert np.array_equal(stored[..., 3], alpha)
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.getexif()[271] == "Maker"
    write_image(tmp_path / "a.jpg", gradient, like, ImageSettings())
    assert read_image(tmp_path / "a.jpg").depth == 8


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([".png", ".tif", ".bmp"]), st.booleans(), st.integers(0, 9)
)
@settings(max_examples=60, deadline=None)
def test_any_size_comes_back_as_it_was(tmp_path_factory, height, width, suffix, deep, level):
    rng = np.random.default_rng(height * 100 + width)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    like = Picture(data=rgb, depth=16 if deep else 8)
    path = tmp_path_factory.mktemp("size") / f"a{suffix}"
    write_image(path, rgb, like, ImageSettings(compression=level))
    back = read_image(path)
    assert np.array_equal(back.data, rgb) and back.depth == (16 if deep and suffix != ".bmp" else 8)


def test_a_large_tiff_has_several_strips(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (900, 700, 3), np.uint8)
    write_image(tmp_path / "a.tif", rgb, Picture(data=rgb), ImageSettings())
    assert np.array_equal(read_image(tmp_path / "a.tif").data, rgb)


@functools.cache
def wide_profile():
    """A profile with exchanged red and green: unmistakable."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ").replace(b"tmpX", b"gXYZ")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_results_come_back_in_the_sources_profile(tmp_path, gradient, suffix):
    source = tmp_path / "source.png"
    Image.fromarray(gradient).save(source, icc_profile=wide_profile())
    picture = read_image(source)
    assert np.abs(picture.data[..., ::-1][..., 1:].astype(int) - gradient[..., :2]).max() <= 2  # exchanged
    assert stylize_image(source, tmp_path / f"a{suffix}", IDENTITY, ImageSettings(lossless=True)).notes == ()
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.info["icc_profile"] == wide_profile()
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - gradient).mean() < 3
    stylize_image(source, tmp_path / f"s{suffix}", IDENTITY, ImageSettings(lossless=True, profile="srgb"))
    with Image.open(tmp_path / f"s{suffix}") as image:
        assert image.info["icc_profile"] != wide_profile()
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - picture.data).mean() < 3


def test_the_srgb_profile_is_the_same_at_any_time_of_day():
    data = srgb_profile()
    assert is_srgb(data) and data[24:36] == struct.pack(">6H", 2000, 1, 1, 0, 0, 0)


def test_a_cmyk_photo_comes_back_in_srgb(tmp_path, gradient):
    Image.fromarray(gradient).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    stylize_image(tmp_path / "a.jpg", tmp_path / "b.jpg", IDENTITY, ImageSettings())
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.mode == "RGB"
        assert np.abs(np.asarray(image).astype(int) - gradient).mean() < 3


def test_times_are_kept_on_request(tmp_path, like):
    write_image(tmp_path / "a.png", like.data, like, ImageSettings(keep_times=True))
    write_image(tmp_path / "b.png", like.data, like, ImageSettings())
    assert (tmp_path / "a.png").stat().st_mtime_ns == like.times[1]
    assert (tmp_path / "b.png").stat().st_mtime_ns != like.times[1]


def test_quality_is_used(tmp_path, gradient):
    sizes = [
        write_image(tmp_path / f"{quality}.jpg", gradient, Picture(data=gradient), ImageSettings(quality=quality)).size
        for quality in (20, 60, 92)
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3


def test_nothing_is_overwritten_unasked(tmp_path, like):
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="--overwrite"):
        write_image(path, like.data, like, ImageSettings())
    assert path.read_bytes() == b"precious"
    write_image(path, like.data, like, ImageSettings(overwrite=True))
    assert np.array_equal(read_image(path).data, like.data)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_the_source_is_never_the_target(tmp_path, gradient):
    Image.fromarray(gradient).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    for name in ("a.png", "link.png"):
        with pytest.raises(OutputError, match="source itself"):
            stylize_image(tmp_path / "a.png", tmp_path / name, IDENTITY, ImageSettings(overwrite=True))


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.xyz", "unknown kind"), ("a", "unknown kind"), ("file/a.png", "is a file"), ("d.png", "folder")],
)
def test_bad_targets_are_refused_before_the_work(tmp_path, gradient, name, words):
    Image.fromarray(gradient).save(tmp_path / "s.png")
    (tmp_path / "file").touch()
    (tmp_path / "d.png").mkdir()
    with pytest.raises(OutputError, match=words):
        stylize_image(tmp_path / "s.png", tmp_path / name, IDENTITY, ImageSettings())


def test_formats_that_cannot_hold_the_size_say_so(tmp_path):
    wide = np.zeros((1, 70_000, 3), np.uint8)
    for suffix in (".jpg", ".webp"):
        with pytest.raises(OutputError, match="at most"):
            write_image(tmp_path / f"a{suffix}", wide, Picture(data=wide), ImageSettings())
    write_image(tmp_path / "a.png", wide, Picture(data=wide), ImageSettings())
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_failure_before_the_rename_leaves_nothing(tmp_path, like):
    def fail(_):
        assert part_path(tmp_path / "a.png").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / "a.png", like.data, like, ImageSettings(), before_rename=fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": 0},
        {"quality": 101},
        {"format": "gif"},
        {"jobs": 9},
        {"compression": -1},
        {"profile": "x"},
        {"max_megapixels": 0},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImageSettings(**wrong)


def test_a_transform_that_changes_the_size_is_our_own_bug(tmp_path, gradient):
    Image.fromarray(gradient).save(tmp_path / "s.png")
    with pytest.raises(ValueError, match="keeps size"):
        stylize_image(tmp_path / "s.png", tmp_path / "t.png", lambda rgb: rgb[1:], ImageSettings())


def test_real_photos_through_identity(tmp_path, photos):
    for name in ("exif_orientation8.jpg", "p23_lake_iphone13.heic"):
        report = stylize_image(photos / name, tmp_path / f"{name}.jpg", IDENTITY, ImageSettings(keep_times=True))
        source, result = read_image(photos / name), read_image(tmp_path / f"{name}.jpg")
        assert (report.height, report.width) == source.data.shape[:2] == result.data.shape[:2]
        assert np.abs(source.data.astype(int) - result.data).mean() < 3
        assert result.metadata.exif == source.metadata.exif and result.metadata.icc == source.metadata.icc
        assert result.times[1] == source.times[1]


def test_png_chunks_are_sound(tmp_path, like):
    write_image(tmp_path / "a.png", like.data, like, ImageSettings())
    data = (tmp_path / "a.png").read_bytes()
    at, kinds = 8, []
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        assert zlib.crc32(data[at + 4 : at + 8 + size]) == struct.unpack_from(">I", data, at + 8 + size)[0]
        kinds.append(kind)
        at += 12 + size
    assert kinds[0] == b"IHDR" and kinds[-1] == b"IEND" and kinds.count(b"eXIf") == 1
    assert kinds.index(b"eXIf") < kinds.index(b"IDAT")
