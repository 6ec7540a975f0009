"""Every kind of photo comes in as RGB uint8, upright, in sRGB."""

import struct
import warnings

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, TiffImagePlugin, features

from stylize.errors import InputError
from stylize.media.image.read import image_size, read_image


def close(left, right, most=1):
    return np.abs(left.astype(int) - right.astype(int)).max() <= most


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_lossless_formats_come_in_exactly(tmp_path, gradient, suffix):
    Image.fromarray(gradient).save(tmp_path / f"a{suffix}")
    picture = read_image(tmp_path / f"a{suffix}")
    assert np.array_equal(picture.data, gradient)
    assert picture.alpha is None and picture.depth == 8 and picture.notes == ()
    assert picture.data.flags.c_contiguous and picture.data.flags.writeable


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif", ".heic"])
def test_lossy_formats_come_in_nearly(tmp_path, gradient, suffix):
    import pillow_heif

    pillow_heif.register_heif_opener()
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    Image.fromarray(gradient).save(tmp_path / f"a{suffix}", quality=90)
    assert np.abs(read_image(tmp_path / f"a{suffix}").data.astype(int) - gradient).mean() < 3.5


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_mode(tmp_path, gradient, mode):
    source = Image.fromarray(gradient)
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(source, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    else:
        image = source.convert(mode)
    image.save(tmp_path / "a.tif")
    picture = read_image(tmp_path / "a.tif")
    wanted = gradient if mode == "LAB" else np.asarray(image.convert("RGB"))
    assert np.abs(picture.data.astype(int) - wanted).mean() < (3 if mode == "LAB" else 0.01)
    assert (picture.alpha is not None) == mode.endswith("A")


def test_transparency_of_palettes_and_single_colours_is_alpha(tmp_path):
    pixels = np.array([[0, 1], [2, 3]], np.uint8)
    palette = Image.new("P", (2, 2))
    palette.putdata([0, 1, 2, 3])
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    palette.save(tmp_path / "p.png", transparency=2)
    picture = read_image(tmp_path / "p.png")
    assert picture.alpha.tolist() == [[255, 255], [0, 255]]
    assert picture.data[1, 1].tolist() == [100, 110, 120]
    Image.fromarray(pixels).save(tmp_path / "l.png", transparency=1)
    assert read_image(tmp_path / "l.png").alpha.tolist() == [[255, 0], [255, 255]]


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_rounded_not_cut(tmp_path, suffix, channels):
    deep = np.random.default_rng(7).integers(0, 65536, (9, 13, channels), np.uint16)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(cv2.imencode(suffix, deep.squeeze())[1].tobytes())
    picture = read_image(path)
    colour = deep[..., 2::-1] if channels > 1 else np.repeat(deep, 3, axis=2)
    assert picture.depth == 16
    assert np.array_equal(picture.data, np.round(colour / 257).astype(np.uint8))
    if channels == 4:
        assert np.array_equal(picture.alpha, deep[..., 3]) and picture.alpha.dtype == np.uint16


def oriented(picture, orientation):
    """EXIF orientation by its definition: where row 0 and column 0 of the stored picture belong."""
    if orientation in (5, 6, 7, 8):
        picture = picture.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", "16.tif"])
def test_orientation_is_applied_and_reset(tmp_path, gradient, suffix, orientation):
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    if suffix == ".tif":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[274] = orientation
        Image.fromarray(gradient).save(path, tiffinfo=tags)
    elif suffix == "16.tif":
        tags = [(274, 3, 1, orientation, True)]
        tifffile.imwrite(path, gradient.astype(np.uint16) * 257, photometric="rgb", metadata=None, extratags=tags)
    else:
        Image.fromarray(gradient).save(path, exif=exif.tobytes(), lossless=True)
    picture = read_image(path)
    assert np.array_equal(picture.data, oriented(gradient, orientation))
    kept = Image.Exif()
    kept.load(picture.metadata.exif)
    assert kept[274] == 1


def profile(kind):
    """A matrix profile like Display P3: sRGB's bytes with the primaries moved."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    columns = {
        b"rXYZ": (0.5151, 0.2412, -0.0011),
        b"gXYZ": (0.2920, 0.6922, 0.0419),
        b"bXYZ": (0.1571, 0.0666, 0.7841),
    }
    if kind == "p3":
        for number in range(struct.unpack_from(">I", data, 128)[0]):
            name, at, _ = struct.unpack_from(">4sII", data, 132 + 12 * number)
            if name in columns:
                struct.pack_into(">3i", data, at + 8, *(round(value * 65536) for value in columns[name]))
    return bytes(data)


def test_a_wide_profile_is_converted_and_srgb_is_left_alone(tmp_path, gradient):
    Image.fromarray(gradient).save(tmp_path / "p3.png", icc_profile=profile("p3"))
    Image.fromarray(gradient).save(tmp_path / "srgb.png", icc_profile=profile("srgb"))
    wide, plain = read_image(tmp_path / "p3.png"), read_image(tmp_path / "srgb.png")
    assert np.array_equal(plain.data, gradient)
    # Display P3 (128, 0, 0)-like reds lie outside sRGB; a mid colour moves away from grey.
    assert np.abs(wide.data.astype(int) - gradient).max() > 8
    grey = np.full((4, 4, 3), 100, np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png", icc_profile=profile("p3"))
    assert close(read_image(tmp_path / "grey.png").data, grey)


def test_a_grey_photo_with_an_rgb_profile_is_read(tmp_path, gradient):
    Image.fromarray(gradient[..., 0]).save(tmp_path / "a.jpg", icc_profile=profile("srgb"), quality=100)
    assert close(read_image(tmp_path / "a.jpg").data[..., 1], gradient[..., 0], 3)


def test_a_damaged_profile_is_left_out_with_a_word(tmp_path, gradient):
    Image.fromarray(gradient).save(tmp_path / "a.png", icc_profile=b"nonsense" * 30)
    picture = read_image(tmp_path / "a.png")
    assert np.array_equal(picture.data, gradient) and picture.metadata.icc is None
    assert "ICC profile" in picture.notes[0]


def refuse(path, *words):
    with pytest.raises(InputError) as caught:
        read_image(path)
    message = str(caught.value)
    assert "\n" not in message and path.name in message
    for word in words:
        assert word in message


def test_what_is_no_photo_is_refused_in_one_line(tmp_path, gradient):
    (tmp_path / "text.jpg").write_text("dear diary")
    (tmp_path / "empty.jpg").touch()
    refuse(tmp_path / "text.jpg", "not a picture")
    refuse(tmp_path / "empty.jpg", "empty")
    refuse(tmp_path / "missing.jpg", "no such file")
    (tmp_path / "folder.jpg").mkdir()
    refuse(tmp_path / "folder.jpg", "stylize folder")
    Image.fromarray(gradient).save(tmp_path / "cut.jpg")
    data = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) * 2 // 3])
    refuse(tmp_path / "cut.jpg", "cut off")


def test_a_pipe_does_not_hang(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    refuse(tmp_path / "pipe.jpg", "regular file")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_several_pictures_in_one_are_refused(tmp_path, gradient, suffix):
    frames = [Image.fromarray(np.roll(gradient, number * 9, axis=1)) for number in range(3)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    refuse(tmp_path / f"a{suffix}", "3 pages" if suffix == ".tif" else "3 frames")


def test_a_single_gif_is_a_photo(tmp_path, gradient):
    Image.fromarray(gradient).quantize(64).save(tmp_path / "a.gif")
    assert read_image(tmp_path / "a.gif").data.shape == gradient.shape


def test_of_a_phones_several_pictures_the_first_counts(tmp_path, gradient):
    image = Image.fromarray(gradient)
    image.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[image.resize((8, 8))], quality=95)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.n_frames == 2
    assert read_image(tmp_path / "a.jpg").data.shape == gradient.shape


def test_a_heic_or_avif_that_is_cut_off_is_refused(tmp_path, gradient):
    import pillow_heif

    pillow_heif.register_heif_opener()
    for suffix in (".heic", ".avif"):
        path = tmp_path / f"a{suffix}"
        if suffix == ".avif" and not features.check("avif"):
            continue
        Image.fromarray(gradient).save(path)
        path.write_bytes(path.read_bytes()[:-5])
        refuse(path, "5 bytes are missing")


def test_a_tiff_with_a_preview_is_one_photo(tmp_path, gradient):
    preview = Image.fromarray(gradient[::4, ::4])
    preview.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(gradient).save(tmp_path / "a.tif", save_all=True, append_images=[preview])
    assert np.array_equal(read_image(tmp_path / "a.tif").data, gradient)


def test_absurd_sizes_are_refused_before_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    struct.pack_into(">II", data, 16, 100_000, 90_000)
    import zlib

    struct.pack_into(">I", data, 29, zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)
    refuse(path, "100000 x 90000", "megapixels")
    assert image_size(path) == (100_000, 90_000)


@pytest.mark.slow
def test_a_hundred_megapixels_are_allowed(tmp_path):
    Image.new("L", (12_000, 9_000), 77).save(tmp_path / "big.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read_image(tmp_path / "big.png")
    assert picture.data.shape == (9_000, 12_000, 3)
    with pytest.raises(InputError, match="megapixels"):
        read_image(tmp_path / "big.png", max_megapixels=100)


def test_pillows_own_limit_is_left_as_it_was(tmp_path, gradient):
    before = Image.MAX_IMAGE_PIXELS
    Image.fromarray(gradient).save(tmp_path / "a.png")
    read_image(tmp_path / "a.png")
    assert before == Image.MAX_IMAGE_PIXELS is not None


def test_float_samples_are_refused(tmp_path, gradient):
    Image.fromarray(gradient).convert("F").save(tmp_path / "a.tif")
    refuse(tmp_path / "a.tif", "32 bits")


def test_real_photos(photos):
    turned = read_image(photos / "exif_orientation8.jpg")
    with Image.open(photos / "exif_orientation8.jpg") as stored:
        assert turned.data.shape[:2] == (stored.width, stored.height)
        assert np.array_equal(turned.data, np.rot90(np.asarray(stored)))
    phone = read_image(photos / "p23_lake_iphone13.heic")
    assert phone.data.shape == (3024, 4032, 3)
    assert len(phone.metadata.icc) > 400 and phone.notes == ()
    exif = Image.Exif()
    exif.load(phone.metadata.exif)
    assert exif[271] == "Apple" and exif.get_ifd(0x8825)
