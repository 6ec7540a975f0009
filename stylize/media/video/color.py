"""The filter chains between stored samples and RGB: colour, tone mapping, deinterlacing, rate.

Everything outside is full-range RGB with BT.709 primaries and transfer.  Both directions go through zscale
(zimg), which computes in floating point and rounds once; swscale only rearranges planes.

Tone mapping of PQ (SMPTE ST 2084) and HLG (ARIB STD-B67) to SDR, per pixel: to linear light with 203 cd/m2,
the reference white of ITU-R BT.2408, as 1.0 (HLG as shown on a 1,000 cd/m2 display); from BT.2020 to BT.709
primaries; then with m = max(R, G, B) all three are multiplied by f(m)/m, where f is the identity below 0.3 and
above it the Moebius curve (a x + b)/(c x + d) that continues it smoothly (value and slope) and takes
1,000 cd/m2 (4.93) to 1.0; then the inverse of the BT.1886 display curve (power 1/2.4).
"""

from __future__ import annotations

from fractions import Fraction

from stylize.media.video.probe import VideoInfo

__all__ = ["KNEE", "PEAK_NITS", "WHITE_NITS", "decode_filters", "encode_filters"]

WHITE_NITS = 203
"""Light of diffuse white in HDR (BT.2408); it becomes 1.0 before the curve."""
PEAK_NITS = 1000
"""Light that becomes SDR white; brighter samples are clipped."""
KNEE = 0.3
"""Below this linear value the curve changes nothing."""


def decode_filters(info: VideoInfo, *, fps: Fraction | None = None) -> str:
    """The chain that turns decoded frames of `info` into RGB of ``info.width`` x ``info.height``."""
    chain: list[str] = []
    if info.interlaced:
        chain.append("bwdif=mode=send_frame:parity=auto:deint=interlaced")
    if fps is not None:
        chain.append(f"fps={fps.numerator}/{fps.denominator}")
    color = info.color
    size = f"w={info.width}:h={info.height}"
    across, down = _covered(info.pixel_format)
    if info.width % across or info.height % down:
        signal = "full" if color.full_range else "limited"
        chain.append(f"scale=in_range={signal}:out_range={signal}:flags=bicubic+accurate_rnd+full_chroma_inp")
        chain.append(f"format={_with_whole_chroma(info.pixel_format)}")
    if color.matrix == "gbr":  # swscale picks planes of any packed or paletted RGB; nothing is computed
        chain.append("format=gbrp16" if _deep(info.pixel_format) else "format=gbrp")
        if color.transfer is None:
            return ",".join([*chain, f"zscale={size}:min=gbr:m=gbr", "format=gbrp"])
    read = f"min={color.matrix}:rin={'full' if color.full_range else 'limited'}"
    if color.transfer is not None:
        primaries = color.primaries or "bt2020"
        chain += [
            f"zscale={size}:{read}:pin={primaries}:tin={color.transfer}:m=gbr:r=full:t=linear:npl={WHITE_NITS}",
            "format=gbrpf32le",
            "zscale=p=bt709",
            f"tonemap=mobius:param={KNEE}:desat=0:peak={PEAK_NITS / WHITE_NITS:.6f}",
            "zscale=m=gbr:r=full:p=bt709:t=bt709",
        ]
    elif color.primaries not in {None, "bt709"}:
        chain.append(f"zscale={size}:{read}:pin={color.primaries}:tin=bt709:m=gbr:r=full:p=bt709:t=bt709")
    else:
        chain.append(f"zscale={size}:{read}:pin=bt709:tin=bt709:m=gbr:r=full:p=bt709:t=bt709")
    return ",".join([*chain, "format=gbrp"])


def _covered(pixel_format: str) -> tuple[int, int]:
    """Columns and rows that a chroma sample covers; zimg takes no picture that has only a part of them."""
    import av

    layout = av.VideoFormat(pixel_format, 64, 64)
    return 64 // (layout.chroma_width(64) or 64), 64 // (layout.chroma_height(64) or 64)


def _with_whole_chroma(pixel_format: str) -> str:
    """The planar 4:4:4 format of the same depth."""
    import av

    bits = av.VideoFormat(pixel_format, 64, 64).components[0].bits
    return "yuv444p" if bits == 8 else f"yuv444p{bits}le"


def _deep(pixel_format: str) -> bool:
    return any(depth in pixel_format for depth in ("48", "64", "p9", "p10", "p12", "p14", "p16", "x2", "f16", "f32"))


def encode_filters(pixel_format: str, sample_aspect_ratio: Fraction, size: tuple[int, int]) -> str:
    """The chain from RGB of `size` (width, height) to `pixel_format`: BT.709, limited range unless it is RGB itself."""
    # H.264 and HEVC have 16 bits for each of the two numbers
    aspect = f"setsar={sample_aspect_ratio.numerator}/{sample_aspect_ratio.denominator}:max=65535"
    if pixel_format.startswith(("gbr", "rgb", "bgr", "pal")):
        return f"format={pixel_format},{aspect}"
    matrix = "zscale=min=gbr:rin=full:pin=bt709:tin=bt709:m=bt709:r=limited:p=bt709:t=bt709"
    width, height = size
    across, down = _covered(pixel_format)
    right, bottom = -width % across, -height % down
    if not right and not bottom:
        return f"format=gbrp,{matrix},format={pixel_format},{aspect}"
    border = f"pad={width + right}:{height + bottom},fillborders=right={right}:bottom={bottom}:mode=smear"
    crop = f"crop={width}:{height}:0:0:exact=1"
    return f"format=gbrp,{border},{matrix},format={pixel_format},{crop},{aspect}"
