"""From finished segments to the target: a video with all its streams, a GIF, or a folder of pictures."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from stylize.errors import OutputError
from stylize.media.ffmpeg import FfmpegProcess, command_line, explain, file_url
from stylize.media.video.codecs import Encoder, encoder_for
from stylize.media.video.join import SegmentFeed, feed_container, join_segments, last_duration
from stylize.media.video.probe import VideoInfo
from stylize.media.video.settings import VideoSettings, default_codec, output_kind
from stylize.media.video.sink import FrameFormat, VideoSink, sync_file
from stylize.media.video.streams import StreamPlan, plan_streams
from stylize.media.video.verify import verify_length, verify_video

__all__ = ["OutputPlan", "deliver", "image_names", "plan_output"]


@dataclass(frozen=True, kw_only=True)
class OutputPlan:
    """How a target comes about."""

    info: VideoInfo
    """The source."""
    target: Path
    """The final name: a file, a pattern with a number, or a folder."""
    kind: str
    """video, gif or images."""
    encoder: Encoder
    """How segments are encoded."""
    streams: tuple[StreamPlan, ...]
    """What becomes of the source's other streams."""
    time_base: Fraction
    """Seconds a tick of all output times."""
    rate: Fraction | None
    """Nominal frames a second."""
    notes: tuple[str, ...]
    """What the user should know before it starts."""

    def sink(self, path: Path) -> VideoSink:
        """An encoder for one segment at `path`."""
        images = self.kind == "images"
        return VideoSink(
            Path(str(path).replace("%", "%%")) / f"%08d{self.image_suffix}" if images else path,
            encoder=self.encoder,
            frames=FrameFormat(
                width=self.info.width,
                height=self.info.height,
                time_base=self.time_base,
                rate=self.rate,
                sample_aspect_ratio=self.info.sample_aspect_ratio,
            ),
            container="image2" if images else feed_container(self.encoder),
        )

    @property
    def image_suffix(self) -> str:
        """Format of an image sequence, PNG for a plain folder."""
        return self.target.suffix.lower() or ".png"


def plan_output(info: VideoInfo, target: Path, settings: VideoSettings) -> OutputPlan:
    """Settle everything about the output that can be known before the first frame.

    Raises:
        ValueError: settings that do not go together.
        ToolError: the encoder is missing.
    """
    kind = output_kind(target)
    rate = settings.fps or info.nominal_rate
    encoder = encoder_for(
        default_codec(target, settings), width=info.width, height=info.height, rate=rate, settings=settings
    )
    if kind == "images":
        encoder = _image_encoder(target.suffix.lower() or ".png", settings)
    streams = plan_streams(info, target) if kind == "video" else ()
    notes = [plan.note for plan in streams if plan.note] + ([encoder.note] if encoder.note else [])
    if kind != "video" and any(other.kind in {"audio", "subtitle"} for other in info.others):
        notes.append(
            f"sound and subtitles are left out: {'a GIF' if kind == 'gif' else 'a folder of pictures'} has none"
        )
    if kind == "video" and any(plan.stream.picture and plan.action == "copy" for plan in streams):
        odd = [name for name in info.metadata if name.startswith("com.")]
        if odd and target.suffix.lower() in {".mp4", ".m4v", ".mov"}:
            notes.append(f"tags left out, the container takes a cover or them: {', '.join(odd)}; .mkv takes both")
    if info.captions:
        notes.append("closed captions inside the picture (CEA-608 or 708) are left out: extract them with CCExtractor")
    if kind != "video" and info.spherical:
        notes.append("that it is a 360-degree picture is left out: only video files can tell")
    if info.has_alpha:
        notes.append("transparency is left out: the output is opaque")
    if info.dynamic_range != "SDR":
        notes.append(f"{info.dynamic_range} is tone-mapped to SDR")
    if info.color.guessed:
        name = "BT.601" if info.color.matrix == "smpte170m" else info.color.matrix.upper().replace("BT", "BT.")
        notes.append(f"the source does not tell its colours: read as {name}, {info.height} lines high")
    if info.jumps:
        places = "in one place" if len(info.jumps) == 1 else f"in {len(info.jumps)} places"
        leaps = ", ".join(f"{float(jump):+.3f} s" for jump in info.jumps[:4])
        notes.append(f"the source's clock jumps {places} ({leaps}): taken out, pictures and sound alike")
    if info.interlaced:
        notes.append("the source is interlaced: deinterlaced, one frame per frame")
    return OutputPlan(
        info=info,
        target=target,
        kind=kind,
        encoder=encoder,
        streams=streams,
        time_base=_time_base(info, settings),
        rate=rate,
        notes=tuple(notes),
    )


def _time_base(info: VideoInfo, settings: VideoSettings) -> Fraction:
    return info.time_base if settings.fps is None else 1 / settings.fps


def _image_encoder(suffix: str, settings: VideoSettings) -> Encoder:
    lossy = {
        ".jpg": ("mjpeg", "-q:v", "2", "-huffman", "optimal"),
        ".jpeg": ("mjpeg", "-q:v", "2", "-huffman", "optimal"),
        ".webp": ("libwebp", "-quality", "92"),
        ".tif": ("tiff", "-compression_algo", "deflate"),
        ".tiff": ("tiff", "-compression_algo", "deflate"),
        ".bmp": ("bmp",),
        ".png": ("png",),
    }
    pixel_format = {".jpg": "yuvj444p", ".jpeg": "yuvj444p", ".bmp": "bgr24", ".webp": "bgra"}.get(suffix, "rgb24")
    return Encoder(
        codec="images",
        pixel_format=pixel_format,
        arguments=("-c:v", *lossy[suffix], *settings.encoder_args),
        tag=None,
        note=None,
    )


def deliver(
    plan: OutputPlan,
    segments: Sequence[Path],
    *,
    ticks: Sequence[int],
    work: Path,
    settings: VideoSettings,
    stop: threading.Event | None,
    stage: Callable[[str], None],
    damaged: bool = False,
) -> list[str]:
    """Make the target out of finished segments, complete or not at all.

    Args:
        plan: from `plan_output`.
        segments: encoded files (or folders of pictures) in order.
        ticks: time of every frame in ticks of ``plan.time_base``.
        work: folder on the target's disk for what is not finished.
        settings: the job's settings.
        stop: ends the work early when set (KeyboardInterrupt).
        stage: told what is being done: "join", "verify".
        damaged: not all of the source could be decoded, so the result may be shorter.

    Returns:
        Complaints about the source's other streams.

    Raises:
        StylizeError: the target cannot be made; nothing is left under its name.
    """
    stage("join")
    if plan.kind == "images":
        _move_images(plan, segments, work=work, overwrite=settings.overwrite)
        return []
    part = work / f"joined.part{plan.target.suffix.lower()}"
    complaints: list[str] = []
    if plan.kind == "gif":
        _write_gif(segments, part, ticks=ticks, plan=plan, work=work, stop=stop)
    else:
        complaints = join_segments(
            segments,
            part,
            info=plan.info,
            plans=plan.streams,
            pts=ticks,
            time_base=plan.time_base,
            encoder=plan.encoder,
            suffix=plan.target.suffix,
            stop=stop,
        )
        stage("verify")
        times = [tick * plan.time_base for tick in ticks]
        size = (plan.info.width, plan.info.height)
        verify_video(part, times=times, size=size, plans=plan.streams, decode=settings.verify, stop=stop)
        if settings.verify and not damaged:
            verify_length(plan.info, times)
    _name(part, plan.target, overwrite=settings.overwrite)
    return complaints


def _name(part: Path, target: Path, *, overwrite: bool) -> None:
    """Give a finished file its name; OutputError if that cannot be."""
    if target.exists() and not overwrite:
        raise OutputError(f"{target} has appeared meanwhile: choose another name, or --overwrite to replace it")
    try:
        part.replace(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror}): choose another target") from error


def _write_gif(
    segments: Sequence[Path],
    part: Path,
    *,
    ticks: Sequence[int],
    plan: OutputPlan,
    work: Path,
    stop: threading.Event | None,
) -> None:
    """Two passes: one palette for the whole film, then the film (times are rounded to 1/100 s, as GIF has it)."""
    import ffmpeg

    palette = work / "palette.part.png"
    last = last_duration(plan.info, [tick * plan.time_base for tick in ticks[-2:]])
    for number in (1, 2):
        feed = SegmentFeed(segments, ticks, time_base=plan.time_base, container=feed_container(plan.encoder), last=last)
        with feed:
            film = ffmpeg.input("pipe:0", format="mov", itsoffset=f"{float(-feed.shift):.6f}")["v:0"]
            if number == 1:
                stream = ffmpeg.output(film, file_url(palette), vf="palettegen", update=1, format="image2")
            else:
                dithered = ffmpeg.filter([film, ffmpeg.input(file_url(palette))], "paletteuse", diff_mode="rectangle")
                stream = dithered.output(file_url(part), format="gif", fps_mode="passthrough", loop=0)
            with FfmpegProcess(command_line(stream, before=["-copyts"]), stdin=feed.pipe) as process:
                code = feed.wait(process, stop)
        if code != 0:
            raise explain(process.complaints, "writing the GIF failed")
    sync_file(part)


def image_names(target: Path, count: int) -> list[Path]:
    """Final names of `count` pictures: the pattern's, or ``00000001.png`` ... in a folder, numbered from 1.

    Raises:
        ValueError: a pattern with anything but one ``%d`` or ``%05d`` in it.
    """
    if not target.suffix:
        return [target / f"{number:08d}.png" for number in range(1, count + 1)]
    if len(re.findall(r"%", target.name)) != 1 or not re.search(r"%0?\d*d", target.name):
        raise ValueError(f"{target.name}: write the number once, as %d or %05d")
    return [target.with_name(target.name % number) for number in range(1, count + 1)]


def _move_images(plan: OutputPlan, segments: Sequence[Path], *, work: Path, overwrite: bool) -> None:
    """Give the pictures their names; a folder appears as a whole, a pattern's files each as a whole."""
    pictures = [picture for segment in segments for picture in sorted(segment.iterdir())]
    names = image_names(plan.target, len(pictures))
    begun = work / "delivering"  # an interrupted delivery left names that are ours
    taken = next((name for name in names if name.exists()), None)
    if taken is not None and not overwrite and not begun.exists():
        raise OutputError(f"{taken} exists already: choose another name, or --overwrite to replace it")
    try:
        begun.touch()
        names[0].parent.mkdir(parents=True, exist_ok=True)
        for picture, name in zip(pictures, names, strict=True):
            waiting = work / f"waiting.part{picture.suffix}"
            waiting.unlink(missing_ok=True)
            try:
                os.link(picture, waiting)
            except OSError:
                shutil.copyfile(picture, waiting)
            waiting.replace(name)
    except OSError as error:
        raise OutputError(f"{plan.target} cannot be written ({error.strerror}): choose another target") from error
