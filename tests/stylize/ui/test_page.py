"""The page of `stylize ui` in a real Chromium, against the real command."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest
from media import decode, make_clip

pytest.importorskip("gradio")
sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright

pytestmark = pytest.mark.xdist_group("browser")
WAIT = 180_000
"""Milliseconds that a busy machine may take for anything."""


def landscape(height, width, hills=3):
    rows = np.linspace(0, 1, height)[:, None, None]
    image = np.uint8(np.ones((height, width, 1)) * (90 + 130 * rows) * np.array([0.6, 0.8, 1.0]) * 0.9)
    for i in range(hills):
        ridge = height * (0.45 + 0.15 * i) + height / 12 * np.sin(np.arange(width) * (0.02 + 0.01 * i) + i)
        image[np.arange(height)[:, None] > ridge] = np.array([60, 90, 60]) - 18 * i
    return image


class Server:
    """The command in a process of its own, as a user has it."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "XDG_DATA_HOME": str(folder / "data"), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "stylize", "ui", "--no-browser", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line):
                self.address = found[0]
                return
        raise AssertionError("".join(lines))

    def end(self, page=None):
        if page is not None:
            page.goto("about:blank")  # it would go on asking
        self.process.send_signal(signal.SIGINT)
        rest = self.process.communicate(timeout=60)[0]
        assert "Traceback" not in rest, rest
        assert self.process.returncode == 0

    @property
    def jobs(self):
        return json.loads((self.folder / "data/firewatch-stylizer/ui/jobs.json").read_text())


def refused(folder, command, **environment):
    """Standard error of a command that does not begin."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "XDG_DATA_HOME": str(folder / "data"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0 and "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def serve():
    servers = []

    def make(*arguments):
        servers.append(Server(*arguments))
        return servers[-1]

    yield make
    for server in servers:
        if server.process.returncode is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture(scope="module")
def playing():
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture
def browser(playing, chromium):
    browser = playing.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
    yield browser
    browser.close()


@pytest.fixture
def watched(browser):
    """A page, whose console is to have no errors and whose requests all go to this machine."""
    faults = []

    def watch(**settings):
        page = browser.new_context(accept_downloads=True, **settings).new_page()
        page.set_default_timeout(WAIT)
        page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" and not left(m) else None)
        page.on("pageerror", lambda error: faults.append(f"script: {error}"))
        page.on("request", lambda r: None if local(r.url) else faults.append(f"request: {r.url}"))
        return page

    yield watch
    assert faults == []


def left(message):
    """Whether Gradio complains that a page which was left, or loaded again, has ended its own requests."""
    return message.text.startswith(("AbortError: signal is aborted", "Unexpected error Connection errored out"))


def local(url):
    return url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def after(page):
    return page.locator("#pair img.after").get_attribute("src")


def changed(page, before):
    page.wait_for_function("was => document.querySelector('#pair img.after')?.src !== was", arg=before, timeout=WAIT)
    return after(page)


def of_status(page, *names):
    page.wait_for_selector(", ".join(f"#jobs li[data-status={name}]" for name in names), timeout=WAIT)


def press(page, action):
    page.locator(f"#jobs button[data-action={action}]").first.click()


def test_a_video_from_the_first_look_to_the_download(tmp_path, serve, watched):
    clip = make_clip(tmp_path / "hike.mp4", size=(640, 360), frames=400, audio=("sine=440",))
    server = serve(tmp_path / "work", clip)
    page = watched(viewport={"width": 1300, "height": 1000})
    page.goto(server.address)
    page.wait_for_selector("#pair img.after")
    assert "token" not in page.url
    assert page.locator("#strip label").count() == 6
    assert page.locator("#looks label").count() == 9  # eight palettes, and auto

    first = after(page)
    page.get_by_role("radio", name="night").check(force=True)
    night = changed(page, first)
    page.locator("#haze input[type=number]").fill("0.8")
    page.locator("#haze input[type=number]").press("Enter")
    hazy = changed(page, night)
    assert len({first, night, hazy}) == 3

    page.get_by_role("button", name="As a command").click()
    page.wait_for_function("[...document.querySelectorAll('textarea')].some(t => t.value.includes('--haze 0.8'))")
    command = next(t for t in page.locator("textarea").all() if "stylize video" in t.input_value()).input_value()
    assert "--look night" in command and str(clip) in command
    page.get_by_role("button", name="Save as stylize.toml").click()
    page.wait_for_selector("#message .note")
    assert 'look = "night"' in (tmp_path / "work/stylize.toml").read_text()
    page.get_by_role("button", name="Save as stylize.toml").click()
    page.wait_for_selector("#message .error")
    assert "exists already" in page.inner_text("#message")

    page.get_by_role("button", name="Plan").click()
    page.wait_for_selector("#plan pre")
    assert "640 x 360, 400 frames" in page.inner_text("#plan") and "audio" in page.inner_text("#plan")
    page.get_by_role("button", name="Start").click()
    of_status(page, "running")
    page.wait_for_selector("#jobs progress")
    press(page, "pause")
    of_status(page, "paused")
    press(page, "resume")
    of_status(page, "running")
    press(page, "cancel")
    of_status(page, "cancelled")
    assert not (tmp_path / "hike.firewatch.mp4").exists()

    page.reload()
    of_status(page, "cancelled")
    page.wait_for_selector("#pair img.after")
    page.wait_for_function("document.querySelector('#haze input[type=number]').value === '0.8'")
    assert page.locator("#looks input:checked").input_value() == "night"
    server.end(page)
    assert [job["status"] for job in server.jobs] == ["cancelled"]

    server = serve(tmp_path / "work")  # the program was closed: the job is still there
    page.goto(server.address)
    of_status(page, "cancelled")
    press(page, "resume")
    of_status(page, "done")
    with page.expect_download() as download:
        page.get_by_text("download", exact=True).click()
    download.value.save_as(tmp_path / "got.mp4")
    press(page, "show")
    page.wait_for_selector("#results .pair")
    server.end(page)
    assert (tmp_path / "got.mp4").read_bytes() == (tmp_path / "hike.firewatch.mp4").read_bytes()
    found = decode(tmp_path / "got.mp4")
    assert len(found.pictures) == 400
    again = subprocess.run(
        [sys.executable, "-m", "stylize", "video", clip, "--look", "night", "--haze", "0.8"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert again.returncode != 0 and "exists" in again.stderr  # it is the result of the command itself


def test_photos_a_wallpaper_and_a_broken_file(tmp_path, serve, watched):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.jpg"), landscape(240, 320, 2 + i))
    (folder / "broken.jpg").write_bytes((folder / "0.jpg").read_bytes()[:900])
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 100)
    wall = np.zeros((90, 160, 3), np.uint8)
    wall[:45], wall[45:, :80], wall[45:, 80:] = (200, 120, 40), (30, 30, 120), (20, 10, 60)
    cv2.imwrite(str(tmp_path / "wall.png"), wall)

    server = serve(tmp_path / "work")
    page = watched(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.goto(server.address)
    page.wait_for_selector("#pair .empty")
    box = page.get_by_label("Video, photo or folder on this machine")
    box.fill(str(tmp_path / "broken.mp4"))
    page.get_by_role("button", name="Open").click()
    page.wait_for_selector("#message .error")
    assert "broken.mp4" in page.inner_text("#message") and len(page.inner_text("#message").splitlines()) == 1

    box.fill(str(folder))
    box.press("Enter")
    page.wait_for_selector("#pair img.after")
    page.wait_for_function("document.querySelector('#message').innerText === ''")
    assert page.locator("#strip label").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")  # on a phone
    before = after(page)
    page.locator("#wallpaper input[type=file]").set_input_files(tmp_path / "wall.png")
    changed(page, before)
    page.wait_for_function("document.querySelectorAll('#looks label').length === 10")

    page.get_by_role("button", name="Start").click()
    of_status(page, "damaged")
    assert "broken.jpg" in page.inner_text("#jobs .error")
    server.end(page)
    assert sorted(p.name for p in (folder / "stylized").glob("*.jpg")) == ["0.jpg", "1.jpg", "2.jpg"]


def test_uploads_are_kept_in_the_folder_that_is_told_and_emptied(tmp_path, serve, watched):
    cv2.imwrite(str(tmp_path / "one.png"), landscape(240, 320))
    server = serve(tmp_path / "work")
    page = watched()
    page.goto(server.address)
    page.locator("#files input[type=file]").set_input_files(tmp_path / "one.png")
    page.wait_for_selector("#pair img.after")
    uploads = tmp_path / "work/data/firewatch-stylizer/ui/uploads"
    assert len(list(uploads.glob("photos-*/one.png"))) == 1
    page.get_by_role("button", name="Start").click()
    of_status(page, "done")
    server.end(page)
    assert list(uploads.glob("**/*.png")) == []
    assert [p.name for p in (tmp_path / "work").glob("*.png")] == ["one.firewatch.png"]


def test_all_can_be_done_with_the_keyboard_and_has_a_name(tmp_path, serve, watched):
    cv2.imwrite(str(tmp_path / "one.png"), landscape(240, 320))
    server = serve(tmp_path / "work", tmp_path / "one.png")
    page = watched()
    page.goto(server.address)
    page.wait_for_selector("#looks label")
    before = after(page)
    page.locator("#looks input:checked").focus()
    page.keyboard.press("ArrowRight")
    changed(page, before)
    unnamed = page.evaluate(
        """[...document.querySelectorAll('input, button, textarea, select')].filter(e => e.offsetParent !== null
        && !e.ariaLabel && !e.getAttribute('aria-labelledby') && !e.labels?.length && !e.title
        && !e.innerText.trim()).map(e => e.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []
    server.end(page)


def test_nobody_else_is_served(tmp_path, serve):
    secret = tmp_path / "secret.txt"
    secret.write_text("not for pages")
    server = serve(tmp_path / "work")
    base, token = server.address.split("/?token=")

    def status(path, **headers):
        try:
            with urllib.request.urlopen(urllib.request.Request(base + path, headers=headers), timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    port = base.rsplit(":", 1)[1]
    cookie = {"Cookie": f"stylize-token-{port}={token}"}
    assert status("/")[0] == 403
    assert status("/?token=wrong")[0] == 403
    assert status("/gradio_api/info")[0] == 403
    assert status("/", **cookie)[0] == 200
    assert status("/", Host=f"evil.example:{port}", **cookie)[0] == 421
    assert status("/", Origin="http://evil.example", **cookie)[0] == 403
    assert status("/result/none", **cookie)[0] == 404
    for path in (f"/gradio_api/file={secret}", "/gradio_api/file=/etc/hostname", "/gradio_api/file=data"):
        code, text = status(path, **cookie)
        assert code in (403, 404) and b"not for pages" not in text
    other = refused(tmp_path, ["-m", "stylize", "ui", "--no-browser"], XDG_DATA_HOME=str(tmp_path / "work/data"))
    assert "runs already" in other
    server.end()


def test_a_port_that_is_taken_is_named(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = refused(tmp_path, ["-m", "stylize", "ui", "--no-browser", "--port", str(port)])
    assert f"port {port} is taken" in told


def test_without_gradio_one_line_says_what_to_install(tmp_path):
    code = "import sys; sys.modules['gradio'] = None; from stylize.__main__ import main; main()"
    told = refused(tmp_path, ["-c", code, "ui", "--no-browser"])
    assert "gradio" in told.lower() and "pip install" in told
    assert len(told.strip().splitlines()) == 1
