import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from media import make_clip
from program import Program

from stylize.html.report import SMALL_SIDE, Entry, folder_entries, page, pair_of, report_path

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Tags, attributes and text; fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag, **wanted):
        return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in wanted.items())]


def made(*entries, **settings):
    when = datetime(2024, 5, 4, 12, tzinfo=timezone.utc)
    return page("A <title> & more", list(entries), settings, seconds=4000, made=when)


def picture(value, height=30, width=40):
    return np.full((height, width, 3), value, np.uint8)


def test_the_page_asks_the_network_for_nothing():
    pair = pair_of(picture(10), picture(200), "a.jpg", 800)
    text = made(Entry(source="a.jpg", target="b.jpg", status="done", seconds=2, pairs=(pair,)), look="dusk")
    parsed = Page(text)
    (policy,) = parsed.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'") and "data:" in policy["content"]
    for _, attributes in parsed.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "http" not in re.sub(r'http-equiv="', "", text) and "url(" not in text and "@import" not in text


def test_every_slider_has_two_pictures_and_a_name_for_the_keyboard():
    pairs = tuple(pair_of(picture(10), picture(200), f"{i}.jpg", 800) for i in range(3))
    parsed = Page(made(Entry(source="v.mp4", target="w.mp4", status="done", pairs=pairs)))
    ranges = parsed.all("input", type="range")
    assert [r["aria-label"] for r in ranges] == [f"How much of {i}.jpg is shown before" for i in range(3)]
    assert len(parsed.all("img")) == 6 and all(image["alt"] and image["width"] == "40" for image in parsed.all("img"))
    assert parsed.all("html", lang="en") and parsed.all("meta", name="viewport")


def test_names_of_files_are_text_whatever_is_in_them():
    evil = "<img src=x onerror=alert(1)>\"'&.jpg"
    pair = pair_of(picture(1), picture(2), evil, 800)
    bytes_name = os.fsdecode(b"caf\xe9.jpg")
    text = made(
        Entry(source=evil, target=evil, status="failed", messages=(evil,), seconds=1, pairs=(pair,)),
        Entry(source=bytes_name, target="", status="left"),
        model=evil,
    )
    parsed = Page(text)
    assert not any("onerror" in attributes for _, attributes in parsed.tags)
    assert evil in "".join(parsed.words)
    text.encode()


def test_failures_stand_first_and_files_can_be_filtered():
    parsed = Page(
        made(
            Entry(source="a.jpg", target="", status="done", seconds=9),
            Entry(source="b.jpg", target="lost.jpg", status="failed", messages=("photos/b.jpg: cut off",)),
            tile=None,
            ten_bit=False,
        )
    )
    words = "".join(parsed.words)
    assert "photos/b.jpg" not in words[: words.index("Files")], "its name stands there once"
    assert "lost.jpg" not in words and "by itself" in words and "None" not in words and "no" in parsed.words
    assert words.index("What went wrong") < words.index("Files") and "b.jpg: cut off" in words
    assert [b["data-status"] for b in parsed.all("button")] == ["all", "done", "failed"]
    assert [r["data-status"] for r in parsed.all("tr") if "data-status" in r] == ["done", "failed"]
    assert "1 h 6 min" in words and "1 done, 1 failed" in words


def test_pictures_are_made_small_and_of_one_size():
    pair = pair_of(picture(9, 600, 1200), picture(9, 300, 600), "x", SMALL_SIDE)
    assert (pair.width, pair.height) == (320, 160)
    for data in (pair.before, pair.after):
        assert cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape == (160, 320, 3)


def test_one_report_for_several_videos_goes_where_all_are():
    assert report_path([Path("x/hike.mp4")]) == Path("x/hike.report.html")
    assert report_path([Path("/x/a/1.mp4"), Path("/x/b/2.mp4")]) == Path("/x/report.html")


@pytest.mark.parametrize("command", ["folder", "video", "videos"])
def test_a_page_of_the_users_own_stays(tmp_path, monkeypatch, capsys, skip_model, landscape, command):
    """And nothing is rendered before that is said; a report of ours is replaced by the next."""
    program = Program(monkeypatch, capsys)
    films = [make_clip(tmp_path / f"{name}.mp4", frames=3) for name in "ab"]
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), landscape[:64, :96])
    out = tmp_path / "out"
    out.mkdir()
    given, page = {
        "folder": (("folder", photos, "-o", out), out / "report.html"),
        "video": (("video", films[0], "-o", out / "a.mp4"), out / "a.report.html"),
        "videos": (("video", *films, "-o", out), out / "report.html"),
    }[command]
    given = (*given, "--model", skip_model, "--report")
    page.write_text("<html>my own</html>")
    done = program(*given, expect=1)
    assert page.name in done.err and "--overwrite" in done.err and done.err.count("\n") == 1
    assert page.read_text() == "<html>my own</html>"
    assert list(out.iterdir()) == [page]
    program(*given, "--overwrite")
    assert Page(page.read_text(encoding="utf-8")).all("table")
    if command == "folder":
        program(*given)  # nothing left to do, and a new page
    assert Page(page.read_text(encoding="utf-8")).all("table")


def test_folder_and_video_write_one(tmp_path, monkeypatch, capsys, skip_model, landscape):
    program = Program(monkeypatch, capsys)
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), landscape[:64, :96])
    (photos / "bad.jpg").write_bytes(b"\xff\xd8 no photo")
    assert "report:" in program("folder", photos, "--model", skip_model, "--report", expect=1).out
    parsed = Page((photos / "stylized" / "report.html").read_text(encoding="utf-8"))
    assert len(parsed.all("input", type="range")) == 1 and len(parsed.all("li")) == 1
    words = "".join(parsed.words)
    assert "bad.jpg" in words and str(skip_model) in words
    again = program("folder", photos, "--model", skip_model, "--report", "-o", photos / "stylized", expect=1).out
    assert "1 skipped" in again, "the report is no photo"
    clip = make_clip(tmp_path / "clip.mp4", frames=6)
    program("video", clip, "-o", tmp_path / "out.mp4", "--model", skip_model, "--report")
    parsed = Page((tmp_path / "out.report.html").read_text(encoding="utf-8"))
    words = "".join(parsed.words)
    assert len(parsed.all("img")) == 2 and "6 frames" in words
    assert "mnn" in words or "openvino" in words, "what was chosen, not auto"


def test_photos_without_a_picture_keep_their_row(tmp_path):
    from stylize.photos.report import FolderReport, PhotoReport

    (tmp_path / "b.jpg").write_bytes(b"damaged")
    photo = PhotoReport(source=str(tmp_path / "a.jpg"), target=str(tmp_path / "b.jpg"), status="done")
    report = FolderReport(source=str(tmp_path), output=str(tmp_path), photos=(photo,), ignored={}, seconds=1)
    (entry,) = folder_entries(report)
    assert entry.pairs == () and entry.source == "a.jpg"


FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def browser_profile(folder):
    return f"--user-data-dir={folder / 'profile'}"


CHECK = """<script>
const say = (name, value) => { document.body.dataset[name] = String(value); };
window.onerror = (message) => say("error", message);
window.addEventListener("load", () => {
  const range = document.querySelector(".pair input"), pair = document.querySelector(".pair");
  range.value = 20; range.dispatchEvent(new Event("input"));
  say("at", getComputedStyle(pair).getPropertyValue("--at").trim());
  say("clip", getComputedStyle(pair.querySelector(".after")).clipPath);
  say("loaded", [...document.images].every((image) => image.complete && image.naturalWidth > 0));
  say("wide", document.documentElement.scrollWidth > window.innerWidth);
  document.querySelector("button[data-status=failed]").click();
  say("rows", [...document.querySelectorAll("tr[data-status]")].filter((row) => !row.hidden).length);
});
</script></body>"""


def test_in_a_browser_the_slider_moves_and_the_pictures_load(tmp_path, chromium):
    pairs = tuple(pair_of(picture(10, 300, 400), picture(200, 300, 400), f"{i}.jpg", 800) for i in range(3))
    long = "a-very-long-name-without-any-break-" * 6 + ".jpg"
    text = made(
        Entry(source=long, target=long, status="done", seconds=3, detail="1920 x 1080", pairs=pairs),
        Entry(source="b.jpg", target="", status="failed", messages=("b.jpg: cut off",)),
        model="light",
    )
    (tmp_path / "page.html").write_text(text.replace("</body>", CHECK), encoding="utf-8")
    done = subprocess.run(
        [
            chromium,
            *FLAGS,
            browser_profile(tmp_path),
            "--window-size=500,800",
            "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (body,) = re.findall(r"<body([^>]*)>", done.stdout)
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', body))
    assert "error" not in found, found
    assert found["at"] == "20%" and "20%" in found["clip"]
    assert found["loaded"] == "true" and found["wide"] == "false" and found["rows"] == "1"
