"""Colour bars through an identity generator, against numpy's own arithmetic for each encoding."""

import av
import numpy as np
import pytest
from media import decode, run_ffmpeg, stylized

BARS = np.array(
    [
        [235, 235, 235],
        [180, 180, 16],
        [16, 180, 180],
        [40, 160, 60],
        [160, 60, 150],
        [190, 40, 30],
        [30, 40, 190],
        [128, 128, 128],
        [16, 16, 16],
        [222, 140, 90],
    ],
    np.float64,
)
WIDTH = 16
KR_KB = {
    "bt709": (0.2126, 0.0722),
    "smpte170m": (0.299, 0.114),
    "bt470bg": (0.299, 0.114),
    "bt2020nc": (0.2627, 0.0593),
}


def to_yuv(rgb, matrix, full, bits):
    """R'G'B' 0-1 to integer Y'CbCr, ITU-R BT.709 section 3 and BT.2020 table 4."""
    kr, kb = KR_KB[matrix]
    luma = rgb @ np.array([kr, 1 - kr - kb, kb])
    cb = (rgb[:, 2] - luma) / (2 * (1 - kb))
    cr = (rgb[:, 0] - luma) / (2 * (1 - kr))
    unit = 2 ** (bits - 8)
    if full:
        top = 2**bits - 1
        values = [luma * top, cb * top + 2 ** (bits - 1), cr * top + 2 ** (bits - 1)]
    else:
        values = [(luma * 219 + 16) * unit, (cb * 224 + 128) * unit, (cr * 224 + 128) * unit]
    return [np.clip(np.round(value), 0, 2**bits - 1).astype(np.uint16) for value in values]


def from_yuv709(frame):
    """Limited-range BT.709 yuv420p to R'G'B' 0-255, the mean of each bar."""
    planes = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size).astype(float) for plane in frame.planes]
    result = []
    for bar in range(len(BARS)):
        x = bar * WIDTH
        luma = planes[0][:, x + 4 : x + WIDTH - 4].mean()
        cb, cr = (plane[:, x // 2 + 2 : (x + WIDTH) // 2 - 2].mean() for plane in planes[1:])
        y, b, r = (luma - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
        red, blue = y + 1.5748 * r, y + 1.8556 * b
        green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
        result.append([red, green, blue])
    return np.array(result) * 255


def bars_clip(path, rgb, *, pixel_format, matrix, full, tags):
    """Three frames of bars with code values `rgb` (0-1), stored exactly."""
    bits = 10 if "10" in pixel_format else 8
    planes = []
    for number, values in enumerate(to_yuv(rgb, matrix, full, bits)):
        across = WIDTH // (2 if number and "444" not in pixel_format else 1)
        rows = 32 // (2 if number and "420" in pixel_format else 1)
        plane = np.repeat(values, across)[None].repeat(rows, 0)
        planes.append(plane.astype("<u2" if bits > 8 else np.uint8).tobytes())
    raw = path.with_suffix(".yuv")
    raw.write_bytes(b"".join(planes) * 3)
    given = ["-f", "rawvideo", "-pix_fmt", pixel_format, "-s", f"{WIDTH * len(rgb)}x32", "-r", "25", "-i", raw]
    marks = {"range": "full" if full else "limited", **tags}
    mark = ":".join(f"{name}={value}" for name, value in marks.items())
    run_ffmpeg(*given, "-vf", f"setparams={mark}", "-c:v", "libx264", "-qp", "0", path)
    return path


def passed_through(source, target):
    report = stylized(source, target, codec="h264", crf=1)
    with av.open(str(target)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        frames = list(container.decode(video=0))
    assert frames[0].format.name == "yuv420p"
    return from_yuv709(frames[1]), report


SDR = [
    (pixel_format, matrix, full)
    for pixel_format, matrix, full in [
        ("yuv420p", "bt709", False),
        ("yuv420p", "bt709", True),
        ("yuv420p", "smpte170m", False),
        ("yuv420p", "bt470bg", True),
        ("yuv422p", "smpte170m", False),
        ("yuv444p", "bt709", False),
        ("yuv420p10le", "bt709", False),
        ("yuv422p10le", "bt2020nc", False),
        ("yuv444p10le", "bt709", True),
        ("yuv420p10le", "bt2020nc", True),
    ]
]


@pytest.mark.parametrize(("pixel_format", "matrix", "full"), SDR)
def test_matrices_and_ranges(tmp_path, pixel_format, matrix, full):
    tags = {"colorspace": matrix}
    clip = bars_clip(tmp_path / "in.mkv", BARS / 255, pixel_format=pixel_format, matrix=matrix, full=full, tags=tags)
    bars, _ = passed_through(clip, tmp_path / "out.mp4")
    assert np.abs(bars - BARS).mean(axis=1).max() <= 1.5


@pytest.mark.parametrize(("width", "matrix"), [(160, "smpte170m"), (1280, "bt709")])
def test_untagged_is_guessed_by_size_and_said(tmp_path, width, matrix):
    rgb = np.repeat(BARS / 255, width // 160, axis=0)
    clip = bars_clip(tmp_path / "in.mkv", rgb, pixel_format="yuv420p", matrix=matrix, full=False, tags={})
    target = tmp_path / "out.mp4"
    report = stylized(clip, target)
    assert any("colours" in warning for warning in report.warnings)
    step = WIDTH * (width // 160)
    got = np.array([decode(target).pictures[0][16, bar * step + step // 2] for bar in range(len(BARS))], float)
    assert np.abs(got - BARS).mean(axis=1).max() <= 1.5


def test_rgb_source_is_not_touched(tmp_path):
    clip = tmp_path / "in.mkv"
    picture = np.repeat(BARS.astype(np.uint8), WIDTH, axis=0)[None].repeat(32, 0)
    (tmp_path / "in.rgb").write_bytes(picture.tobytes() * 2)
    size = f"{picture.shape[1]}x{picture.shape[0]}"
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "25", "-i", tmp_path / "in.rgb"]
    run_ffmpeg(*given, "-c:v", "ffv1", "-pix_fmt", "gbrp", clip)
    stylized(clip, tmp_path / "out.mkv")
    assert np.array_equal(decode(tmp_path / "out.mkv").pictures[1], picture)


PRIMARIES_TO_XYZ = {
    "bt709": [(0.640, 0.330), (0.300, 0.600), (0.150, 0.060)],
    "bt2020": [(0.708, 0.292), (0.170, 0.797), (0.131, 0.046)],
    "smpte170m": [(0.630, 0.340), (0.310, 0.595), (0.155, 0.070)],
}


def rgb_to_xyz(name):
    """Normalised primary matrix for white D65 (SMPTE RP 177)."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in PRIMARIES_TO_XYZ[name]]).T
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    return columns * np.linalg.solve(columns, white)


def in_709(linear, primaries):
    return linear @ (np.linalg.inv(rgb_to_xyz("bt709")) @ rgb_to_xyz(primaries)).T


@pytest.mark.parametrize(("primaries", "matrix"), [("bt2020", "bt2020nc"), ("smpte170m", "smpte170m")])
def test_tagged_primaries_are_converted(tmp_path, primaries, matrix):
    muted = 64 + BARS * 0.4  # inside the BT.709 gamut
    tags = {"colorspace": matrix, "color_primaries": primaries, "color_trc": "bt709"}
    clip = bars_clip(tmp_path / "in.mkv", muted / 255, pixel_format="yuv420p10le", matrix=matrix, full=False, tags=tags)
    bars, _ = passed_through(clip, tmp_path / "out.mp4")
    expected = np.clip(in_709((muted / 255) ** 2.4, primaries), 0, 1) ** (1 / 2.4) * 255
    assert np.abs(bars - expected).mean(axis=1).max() <= 1.5


def pq_nits(code):
    """Inverse of SMPTE ST 2084: code 0-1 to cd/m2."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = np.asarray(code) ** (1 / m2)
    return 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def hlg_nits(code):
    """ARIB STD-B67 as shown on a 1,000 cd/m2 display: scene light, then each channel to the power 1.2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    code = np.asarray(code)
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    return 1000 * scene**1.2


def mobius(linear, knee=0.3, peak=1000 / 203):
    """The documented curve, on the largest of R, G, B."""
    signal = np.maximum(linear.max(axis=1, keepdims=True), 1e-6)
    a = -knee * knee * (peak - 1) / (knee * knee - 2 * knee + peak)
    b = (knee * knee - 2 * knee * peak + peak) / (peak - 1)
    curved = (b * b + 2 * b * knee + knee * knee) / (b - a) * (signal + a) / (signal + b)
    return linear * np.where(signal <= knee, signal, curved) / signal


@pytest.mark.parametrize(
    ("transfer", "nits", "codes"),
    [("smpte2084", pq_nits, 0.25 + BARS / 255 * 0.45), ("arib-std-b67", hlg_nits, 0.2 + BARS / 255 * 0.7)],
)
def test_hdr_follows_the_documented_curve(tmp_path, transfer, nits, codes):
    grey = codes.mean(axis=1, keepdims=True)
    codes = grey + (codes - grey) * 0.4  # inside the BT.709 gamut
    tags = {"colorspace": "bt2020nc", "color_primaries": "bt2020", "color_trc": transfer}
    clip = bars_clip(tmp_path / "in.mkv", codes, pixel_format="yuv420p10le", matrix="bt2020nc", full=False, tags=tags)
    bars, report = passed_through(clip, tmp_path / "out.mp4")
    linear = in_709(nits(codes) / 203, "bt2020")
    expected = np.clip(mobius(linear), 0, 1) ** (1 / 2.4) * 255
    assert np.abs(bars - expected).mean(axis=1).max() <= 1.5
    assert any("tone-mapped" in warning for warning in report.warnings)
