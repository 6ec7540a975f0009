"""Kinds of photos that people bring; what is right says another reader, or the numbers that the file was made of."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from stylize.errors import InputError
from stylize.media.image import tiff
from stylize.media.image.read import image_size, read_image
from stylize.media.image.settings import ImageSettings
from stylize.photos.job import stylize_image


@pytest.fixture
def cases(shared: Path) -> Path:
    if not (shared / "cases" / "photo").is_dir():
        pytest.skip("no cases here")
    return shared / "cases" / "photo"


@pytest.fixture
def deep():
    """Noise of 16 bits, ``(24, 40, 4)``."""
    return np.random.default_rng(3).integers(0, 65536, (24, 40, 4), np.uint16)


@pytest.fixture(params=[True, False], ids=["imagecodecs", "libtiff"])
def codecs(request, monkeypatch):
    """With imagecodecs, and as where it is not installed."""
    if request.param:
        pytest.importorskip("imagecodecs", reason="imagecodecs is not installed")
        return
    monkeypatch.setattr(tiff, "_has_codecs", lambda: False)


def eight(values, most=65535):
    return np.round(values.astype(np.float64) * 255 / most).astype(np.uint8)


def rgb(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def test_planar_and_tiled_and_big_endian(tmp_path, deep):
    colour = deep[..., :3]
    tifffile.imwrite(tmp_path / "p.tif", np.moveaxis(colour, -1, 0), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "t.tif", colour, photometric="rgb", tile=(16, 16), byteorder=">", bigtiff=True)
    for name in ("p.tif", "t.tif"):
        picture = read_image(tmp_path / name)
        assert np.array_equal(picture.data, eight(colour)) and picture.depth == 16


@pytest.mark.parametrize("compression", ["none", "zlib", "lzma", "lzw", "zstd"])
def test_grey_of_16_bits_in_every_compression(tmp_path, deep, codecs, compression):
    path = tmp_path / "a.tif"
    if compression == "none":
        tifffile.imwrite(path, deep[..., 0], photometric="minisblack")
    else:
        pytest.importorskip("imagecodecs", reason="writes the other compressions")
        tifffile.imwrite(path, deep[..., 0], photometric="minisblack", compression=compression, predictor=True)
    picture = read_image(path)
    assert np.array_equal(picture.data, rgb(eight(deep[..., 0]))) and picture.depth == 16


@pytest.mark.parametrize("compression", ["lzw", "jpeg", "packbits"])
def test_colour_of_8_bits_in_common_compressions(tmp_path, gradient, codecs, compression):
    pytest.importorskip("imagecodecs", reason="writes the compressions")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, gradient, photometric="ycbcr" if compression == "jpeg" else "rgb", compression=compression)
    with Image.open(path) as image:
        assert np.abs(read_image(path).data.astype(int) - np.asarray(image.convert("RGB"))).max() <= 2


def test_colour_of_16_bits_in_lzw(tmp_path, deep, codecs):
    pytest.importorskip("imagecodecs", reason="writes LZW")
    tifffile.imwrite(tmp_path / "a.tif", deep[..., :3], photometric="rgb", compression="lzw", predictor=True)
    assert np.array_equal(read_image(tmp_path / "a.tif").data, eight(deep[..., :3]))


def test_what_nothing_here_decodes_names_the_package(tmp_path, deep, monkeypatch):
    pytest.importorskip("imagecodecs", reason="writes ZSTD")
    tifffile.imwrite(tmp_path / "a.tif", deep[..., :3], photometric="rgb", compression="zstd")
    monkeypatch.setattr(tiff, "_has_codecs", lambda: False)
    with pytest.raises(InputError, match=r"16 bits in ZSTD needs .*: pip install imagecodecs"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_white_is_zero(tmp_path, deep, bits):
    stored = deep[..., 0] > 32767 if bits == 1 else deep[..., 0] if bits == 16 else (deep[..., 0] >> 8).astype(np.uint8)
    if bits == 1:
        pytest.importorskip("imagecodecs", reason="packs bits")
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    most = (1 << bits) - 1
    assert np.array_equal(read_image(tmp_path / "a.tif").data, rgb(eight(most - stored.astype(np.int64), most)))


def test_grey_of_12_bits(tmp_path, cases, codecs):
    with Image.open(cases / "g12.tif") as image:
        wanted = rgb(eight(np.asarray(image), 4095))
    picture = read_image(cases / "g12.tif")
    assert np.array_equal(picture.data, wanted) and picture.depth == 16


@pytest.mark.parametrize("name", ["rgb16_planar.tif", "g16_white0.tif", "g16.tif"])
def test_tiff_cases(cases, name):
    stored = tifffile.imread(cases / name)
    stored = np.moveaxis(stored, 0, -1) if stored.ndim == 3 else rgb(stored)
    wanted = eight(stored)
    assert np.array_equal(read_image(cases / name).data, 255 - wanted if "white0" in name else wanted)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha", "unspecified"])
def test_opacity_multiplied_in_or_not(tmp_path, kind, dtype):
    most = np.iinfo(dtype).max
    alpha = np.linspace(most // 4, most, 40).round().astype(dtype)[None].repeat(24, 0)
    colour = np.full((24, 40, 3), [most, most // 2, 0], dtype)
    stored = (colour * (alpha / most)[..., None]).round().astype(dtype) if kind == "assocalpha" else colour
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([stored, alpha]), photometric="rgb", extrasamples=[kind])
    picture = read_image(tmp_path / "a.tif")
    assert np.abs(picture.data.astype(int) - eight(colour, most)).max() <= 2
    assert picture.alpha is None if kind == "unspecified" else np.array_equal(picture.alpha, alpha)


def test_of_several_pages_the_photo_counts(tmp_path, gradient, cases):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(gradient[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
        writer.write(gradient, photometric="rgb", metadata=None, extratags=[(271, 2, 6, "Maker", True)])
        writer.write(gradient[..., 0] > 99, photometric="mask", subfiletype=4, metadata=None)
    picture = read_image(path)
    assert np.array_equal(picture.data, gradient) and "mask" in picture.notes[0]
    exif = Image.Exif()
    exif.load(picture.metadata.exif)
    assert exif[271] == "Maker"
    for read in (read_image, image_size):
        with pytest.raises(InputError, match="raw data: develop it first"):
            read(cases / "x.dng")


@pytest.mark.parametrize("photometric", ["palette", "separated"])
def test_palettes_and_inks_are_as_pillow_reads_them(tmp_path, gradient, photometric):
    image = Image.fromarray(gradient).convert("P" if photometric == "palette" else "CMYK")
    image.save(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif").data, np.asarray(image.convert("RGB")))


def test_colour_in_lab_of_16_bits(tmp_path):
    lab = np.full((8, 8, 3), [65535 // 2, 20 << 8, (-30 << 8) & 0xFFFF], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", lab, photometric="cielab")
    profile = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    narrow = Image.frombytes("LAB", (8, 8), np.full((8, 8, 3), [127, 20, -30 & 0xFF], np.uint8).tobytes())
    wanted = np.asarray(ImageCms.profileToProfile(narrow, *profile, outputMode="RGB")).astype(int)
    picture = read_image(tmp_path / "a.tif")
    assert np.abs(picture.data.astype(int) - wanted).max() <= 3 and "8 bits" in picture.notes[0]


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float16", "float64"])
def test_samples_that_are_refused(tmp_path, gradient, dtype):
    tifffile.imwrite(tmp_path / "a.tif", gradient.astype(dtype), photometric="rgb")
    with pytest.raises(InputError, match="save it with 8 or 16 bits first"):
        read_image(tmp_path / "a.tif")


def test_grey_heic_of_10_bits(tmp_path, cases):
    import pillow_heif

    levels = np.linspace(0, 1023, 64).round().astype(np.uint16)[None].repeat(48, 0)
    pillow_heif.from_bytes("L;16", (64, 48), (levels << 6).tobytes()).save(tmp_path / "a.heic", quality=-1)
    assert np.abs(read_image(tmp_path / "a.heic").data.astype(int) - rgb(eight(levels, 1023))).max() <= 1
    stored = np.asarray(pillow_heif.open_heif(cases / "L_10__128x128.heif")) >> 6
    assert np.array_equal(read_image(cases / "L_10__128x128.heif").data, rgb(eight(stored, 1023)))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_the_tags_of_a_tiff_reach_every_format(tmp_path, gradient, suffix):
    exif = Image.Exif()
    exif[271], exif[306], exif[274] = "Maker", "2024:05:06 07:08:09", 1
    exif.get_ifd(0x8769).update({0x9003: "2024:05:06 07:08:09", 0x829A: 0.01, 0x927C: b"NOTE", 0xA005: {1: "R98"}})
    exif.get_ifd(0x8825).update({1: "N", 2: (46.0, 30.0, 15.5)})
    exif[0x8769] = exif[0x8825] = 0  # so that Pillow writes the two
    Image.fromarray(gradient).save(tmp_path / "a.tif", exif=exif, dpi=(300, 300))
    stylize_image(tmp_path / "a.tif", tmp_path / f"b{suffix}", np.array, ImageSettings())
    with Image.open(tmp_path / f"b{suffix}") as image:
        kept = image.getexif()
        assert kept[271] == "Maker" and kept[306] == "2024:05:06 07:08:09"
        assert kept.get_ifd(0x8769)[0x829A] == pytest.approx(0.01) and kept.get_ifd(0x8769)[0x927C] == b"NOTE"
        assert kept.get_ifd(0xA005)[1] == "R98" and kept.get_ifd(0x8825)[2] == (46.0, 30.0, 15.5)
        assert [round(value) for value in image.info["dpi"]] == [300, 300]


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels, *before, after=()):
    """A PNG of 16 bits, unfiltered, with chunks before and behind its pixels."""
    height, width, samples = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = [chunk(b"IHDR", head), *before, chunk(b"IDAT", zlib.compress(rows)), *after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("clear", [False, True])
def test_png_of_16_bits_with_every_kind_of_opacity(tmp_path, deep, samples, clear):
    if clear and samples in (2, 4):
        return  # PNG 1.2, section 4.2.1.1: no tRNS beside alpha
    pixels = deep[..., :samples]
    key = [chunk(b"tRNS", pixels[3, 5].astype(">u2").tobytes())] if clear else []
    (tmp_path / "a.png").write_bytes(png(pixels, *key))
    picture = read_image(tmp_path / "a.png")
    colour = pixels[..., :3] if samples > 2 else pixels[..., :1].repeat(3, 2)
    assert np.array_equal(picture.data, eight(colour)) and picture.depth == 16
    if clear:
        assert np.array_equal(picture.alpha == 0, (pixels == pixels[3, 5]).all(axis=2))
    else:
        assert picture.alpha is None if samples in (1, 3) else np.array_equal(picture.alpha, pixels[..., -1])


def test_png_case_with_a_clear_grey(cases):
    with Image.open(cases / "g16_trns.png") as image:
        levels, clear = np.asarray(image), image.info["transparency"]
    assert np.array_equal(read_image(cases / "g16_trns.png").alpha == 0, levels == clear)


def test_exif_behind_the_pixels_turns_the_picture(tmp_path, deep, cases):
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "a.png").write_bytes(png(deep, after=[chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))]))
    assert np.array_equal(read_image(tmp_path / "a.png").data, eight(np.rot90(deep[..., :3], -1)))
    with Image.open(cases / "rgb8_exif6_after.png") as image:
        wanted = np.rot90(np.asarray(image), -1)
    assert np.array_equal(read_image(cases / "rgb8_exif6_after.png").data, wanted)


def test_large_texts_and_profiles_do_not_matter(tmp_path, gradient, cases):
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 3_000_000, zip=True)
    info.add_text("bomb", "x" * 50_000_000, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(gradient).save(tmp_path / "a.png", pnginfo=info, icc_profile=profile + bytes(3_000_000))
    picture = read_image(tmp_path / "a.png")
    assert np.array_equal(picture.data, gradient) and len(picture.metadata.icc) > 3_000_000
    assert "left out" in picture.notes[0] and dict(picture.metadata.text)["workflow"] == "x" * 3_000_000
    stylize_image(tmp_path / "a.png", tmp_path / "b.png", np.array, ImageSettings())
    assert (tmp_path / "b.png").stat().st_size < 100_000
    assert read_image(cases / "rgb8_ztxt_bomb.png").data.shape == (96, 128, 3)


@pytest.mark.parametrize("name", ["xmp", "APP1", "8bim", "iptc", "exif"])
def test_profiles_in_the_manner_of_imagemagick(tmp_path, gradient, name):
    iptc = b"\x1c\x02\x05\x00\x04Lake"
    resource = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    exif = Image.Exif()
    exif[271] = "Maker"
    body = {
        "xmp": b"<x:xmpmeta/>",
        "APP1": b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>",
        "8bim": resource,
        "iptc": iptc,
        "exif": exif.tobytes(),
    }[name]
    lines = "\n".join(body.hex()[at : at + 72] for at in range(0, 2 * len(body), 72))
    info = PngImagePlugin.PngInfo()
    info.add_text(f"Raw profile type {name}", f"\n{name}\n{len(body):8}\n{lines}\n", zip=True)
    Image.fromarray(gradient).save(tmp_path / "a.png", pnginfo=info)
    kept = read_image(tmp_path / "a.png").metadata
    assert kept.xmp == (b"<x:xmpmeta/>" if name in ("xmp", "APP1") else None)
    assert kept.iptc == (iptc if name in ("8bim", "iptc") else None)
    assert (kept.exif is not None and b"Maker" in kept.exif) == (name == "exif")


def test_the_metadata_of_imagemagick_reaches_the_result(tmp_path, cases):
    stylize_image(cases / "full_im.png", tmp_path / "a.jpg", np.array, ImageSettings())
    with Image.open(cases / "full_im.png") as source:
        packet = bytes.fromhex("".join(source.info["Raw profile type xmp"].split("\n")[3:]))
    with Image.open(tmp_path / "a.jpg") as image:
        assert b"Title" in image.info["photoshop"][0x0404]
        assert image.info["xmp"].count(b"x:xmpmeta") == packet.count(b"x:xmpmeta") > 0


def test_a_profile_that_was_cut_off(tmp_path, gradient, cases):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for size in (100, 140, 300, len(profile) - 40):
        Image.fromarray(gradient).save(tmp_path / "a.png", icc_profile=profile[:size])
        picture = read_image(tmp_path / "a.png")
        assert np.array_equal(picture.data, gradient) and any("ICC profile" in note for note in picture.notes), size
    with Image.open(cases / "icc_trunc.jpg") as image:
        wanted = np.asarray(image)
    picture = read_image(cases / "icc_trunc.jpg")
    assert np.array_equal(picture.data, wanted) and "ICC profile" in picture.notes[0]


def lut_profile(*, back):
    """A profile with tables (ICC.1, section 10.10): the way to the screen is the identity, the way back `back`."""

    def table(first, last):
        """An mft1 of 3 to 3 channels: identity curves, and a cube of two corners a side, each channel from its own."""
        cube = [channel for r in (0, 1) for g in (0, 1) for b in (0, 1)
                for channel in (first + (last - first) * np.array([r, g, b]))]  # fmt: skip
        head = b"mft1" + bytes(4) + bytes([3, 3, 2, 0]) + struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65536)
        return head + bytes(range(256)) * 3 + bytes(np.array(cube, np.uint8).tolist()) + bytes(range(256)) * 3

    tables = {b"A2B0": table(0, 255), b"B2A0": table(0, 255 if back else 0)}
    base = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {}
    for number in range(struct.unpack_from(">I", base, 128)[0]):
        name, at, size = struct.unpack_from(">4sII", base, 132 + 12 * number)
        if name in (b"desc", b"wtpt", b"cprt"):
            tags[name] = bytes(base[at : at + size])
    tags |= tables
    head, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        head += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = base[:128]
    header[20:24] = b"XYZ "
    struct.pack_into(">I", header, 0, 128 + len(head) + len(body))
    return bytes(header) + head + body


def test_a_profile_without_a_way_back_does_not_make_black_pictures(tmp_path, gradient):
    Image.fromarray(gradient).save(tmp_path / "a.png", icc_profile=lut_profile(back=False))
    picture = read_image(tmp_path / "a.png")
    report = stylize_image(tmp_path / "a.png", tmp_path / "b.png", np.array, ImageSettings())
    assert "cannot be written to" in report.notes[0]
    with Image.open(tmp_path / "b.png") as image:
        assert np.abs(np.asarray(image).astype(int) - picture.data).max() <= 1


def test_animated_webp_is_refused_with_a_way_on(tmp_path, gradient):
    from stylize.media.video.probe import probe_video

    frames = [Image.fromarray(np.roll(gradient, 9 * number, axis=1)) for number in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="animation of 3 frames, not a photo: save it as MP4 or GIF"):
        read_image(tmp_path / "a.webp")
    with pytest.raises(InputError, match="does not decode WebP animations: save it as MP4 or GIF"):
        probe_video(tmp_path / "a.webp")
