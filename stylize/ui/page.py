"""The page: controls of Gradio around a `Studio`, which knows what they mean."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from stylize.errors import fault
from stylize.ui.assets import JOBS_SCRIPT, PAIR_SCRIPT, PICTURES, PICTURES_SCRIPT
from stylize.ui.jobs import UNFINISHED, Job
from stylize.ui.studio import Studio

__all__ = ["HEAD", "THEME", "build_page"]

THEME = gr.themes.Base(
    primary_hue="orange", neutral_hue="stone", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)
"""With the fonts of the system: none is loaded."""
HEAD = '<meta name="referrer" content="no-referrer">'
EVERY = 0.7
"""Seconds from one look at the jobs to the next."""
EMPTY = '<p class="empty">Drop a video or photos above, or type the path of a file or folder on this machine.</p>'
SLIDERS = {
    "strength": ("Strength", 0.0, 1.0, 0.05, 1.0, "0 is the photo, 1 the painting."),
    "haze": ("Haze", 0.0, 1.0, 0.05, 0.0, "How far the distance fades into the sky."),
    "layers": ("Layers", 0, 8, 1, 0, "Cuts the land into so many layers by distance; 0 leaves it uncut."),
    "detail": ("Detail", 0.25, 2.0, 0.05, 1.0, "How fine the shapes are."),
    "keep_color": ("Kept colour", 0.0, 1.0, 0.05, 0.0, "How much of the photo's own colours stays."),
}
"""Label, least, most, step, default and explanation of a field of `Choice`."""
ACTIONS = {
    "waiting": ("cancel",),
    "running": ("pause", "cancel"),
    "paused": ("resume", "cancel"),
    "interrupted": ("resume", "remove"),
    "cancelled": ("resume", "remove"),
    "failed": ("resume", "remove"),
    "done": ("show", "remove"),
    "damaged": ("show", "remove"),
}
"""Status of a job -> what can be done with it."""


class _Page:
    """The controls, and what follows from each; every handler gives all of `outputs`, most of them unchanged."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.quiet = False
        """Whether the list of jobs that was sent last is still true."""
        self._build()

    def _build(self) -> None:
        gr.HTML("<h1>Firewatch stylizer</h1><p>On this machine alone; nothing is sent anywhere.</p>", elem_id="title")
        with gr.Row(equal_height=True):
            self.path = gr.Textbox(
                label="Video, photo or folder on this machine", placeholder="/home/me/hike.mp4", scale=5, max_lines=1
            )
            self.open = gr.Button("Open", variant="primary", scale=1, min_width=110, elem_id="open")
            self.files = gr.File(
                label="or drop a video or photos here",
                file_count="multiple",
                type="filepath",
                height=110,
                scale=4,
                elem_id="files",
            )
        self.message = gr.HTML("", elem_id="message", js_on_load=None)
        with gr.Row():
            with gr.Column(scale=5, min_width=340):
                self.pair = gr.HTML(EMPTY, elem_id="pair", js_on_load=PAIR_SCRIPT)
                self.strip = _pictures("Picture", "strip")
                self.looks = _pictures("Look", "looks")
            with gr.Column(scale=2, min_width=300):
                self.sliders = {name: _slider(name) for name in SLIDERS}
                self.ends = gr.Dropdown(
                    [("the same look to the end", "")], value="", label="Look at the end of the video"
                )
                self.model = gr.Dropdown(["auto", "light", "full"], value="auto", label="Model")
                self.wallpaper = gr.Image(
                    type="filepath",
                    label="A look from a picture (a wallpaper, a screenshot)",
                    sources=["upload"],
                    elem_id="wallpaper",
                    height=150,
                )
                self.target = gr.Textbox(label="Result", max_lines=1)
                with gr.Row():
                    self.plan = gr.Button("Plan", min_width=90)
                    self.start = gr.Button("Start", variant="primary", min_width=90)
                self.planned = gr.HTML("", elem_id="plan", js_on_load=None)
        with gr.Accordion("As a command", open=False):
            self.command = gr.Textbox(label="Does the same", lines=2, interactive=False, buttons=["copy"])
            self.save = gr.Button("Save as stylize.toml")
        self.jobs = gr.HTML("", elem_id="jobs", js_on_load=JOBS_SCRIPT)
        self.results = gr.HTML("", elem_id="results", js_on_load=PAIR_SCRIPT)
        self.timer = gr.Timer(EVERY)
        self.outputs = [
            self.path, self.message, self.pair, self.strip, self.looks, self.ends, self.target, self.planned,
            self.command, self.wallpaper, self.jobs, self.results, self.model, *self.sliders.values(),
        ]  # fmt: skip

    def connect(self, page: gr.Blocks) -> None:
        """What happens when something is done."""
        do = self._on
        do(page.load, self._everything, [])
        do(self.open.click, self._open, [self.path])
        do(self.path.submit, self._open, [self.path])
        do(self.files.upload, self._upload, [self.files])
        do(self.strip.input, self._frame, [self.strip])
        do(self.looks.input, self._look, [self.looks])
        do(self.ends.input, self._ends, [self.ends])
        do(self.model.input, self._model, [self.model])
        do(self.wallpaper.upload, self._wallpaper, [self.wallpaper])
        do(self.wallpaper.clear, self._wallpaper, [])
        for name, slider in self.sliders.items():
            do(slider.input, lambda value, name=name: self._slide(name, value), [slider])
            do(slider.release, self._released, [])
        do(self.target.change, self._target, [self.target])
        do(self.plan.click, self._plan, [])
        do(self.start.click, self._start, [])
        do(self.save.click, self._save, [])
        do(self.timer.tick, self._tick, [])
        do(self.jobs.click, self._job, [])

    def _on(self, event: Callable[..., Any], handler: Callable[..., dict[Any, Any]], inputs: list[Any]) -> None:
        @wraps(handler)  # Gradio looks at its signature
        def safe(*values: Any) -> dict[Any, Any]:
            try:
                return handler(*values) if handler == self._tick else {self.message: "", **handler(*values)}
            except Exception as error:  # the same line as on the command line
                return {self.message: f'<p class="error" role="alert">Error: {html.escape(fault(error))}</p>'}

        event(
            safe, inputs, self.outputs, show_progress="hidden", trigger_mode="always_last", queue=True,
            concurrency_limit=4, api_visibility="private",
        )  # fmt: skip

    # -- what is shown ------------------------------------------------------------------------------

    def _everything(self) -> dict[Any, Any]:
        """All that depends on what is open; also after the page was loaded again."""
        self.quiet = False
        studio = self.studio
        if studio.source is None:
            return {self.jobs: self._job_list()}
        ends = [("the same look to the end", ""), *((name, name) for name in studio.looks() if studio.source.video)]
        target = str(studio.target or studio.source.tasks[0].target)
        return {
            **self._changed(swatches=True, strip=True),
            self.path: str(studio.source.path),
            self.ends: gr.update(choices=ends, value=studio.choice.ends, visible=studio.source.video),
            self.target: target,
            self.planned: "",
            self.jobs: self._job_list(),
            self.model: studio.choice.model,
            self.wallpaper: studio.choice.wallpaper or None,
            **{slider: getattr(studio.choice, name) for name, slider in self.sliders.items()},
        }

    def _changed(self, *, swatches: bool = False, strip: bool = False) -> dict[Any, Any]:
        studio = self.studio
        if studio.source is None:
            return {}
        shown: dict[Any, Any] = {}
        look = studio.choice.look or studio.live.opened(studio.style(), video=studio.source.video).looks.usual
        shown[self.pair] = studio.pair()
        shown[self.command] = studio.command()
        if strip or studio.choice.ends:
            shown[self.strip] = gr.HTML(value=str(studio.choice.frame), options=studio.strip())
        if swatches:
            shown[self.looks] = gr.HTML(value=look, options=studio.swatches())
        return shown

    def _choose(self, **values: Any) -> None:
        self.studio.choice = dataclasses.replace(self.studio.choice, **values)

    # -- what is done -------------------------------------------------------------------------------

    def _open(self, path: str) -> dict[Any, Any]:
        if not path.strip():
            raise ValueError("no path was given: type that of a video, a photo or a folder")
        self.studio.open(Path(path.strip().strip('"')))
        return self._everything()

    def _upload(self, files: list[str] | None) -> dict[Any, Any]:
        self.studio.open(self.studio.take_in(files or []))
        return self._everything()

    def _frame(self, value: str) -> dict[Any, Any]:
        self._choose(frame=int(value))
        return self._changed(swatches=True)

    def _look(self, value: str) -> dict[Any, Any]:
        self._choose(look=value)
        return self._changed()

    def _ends(self, value: str) -> dict[Any, Any]:
        self._choose(ends=value or "")
        return self._changed(strip=True)

    def _model(self, value: str) -> dict[Any, Any]:
        self._choose(model=value)
        return self._changed(swatches=True)

    def _wallpaper(self, file: str | None = None) -> dict[Any, Any]:
        self.studio.opened()
        kept = str(self.studio.take_in([file])) if file else ""
        before = self.studio.choice
        self._choose(wallpaper=kept, look="")
        try:
            return self._everything()
        except Exception:
            self.studio.choice = before
            raise

    def _slide(self, name: str, value: float) -> dict[Any, Any]:
        self._choose(**{name: int(value) if name == "layers" else float(value)})
        return self._changed()

    def _released(self) -> dict[Any, Any]:
        return self._changed(swatches=True)

    def _target(self, path: str) -> dict[Any, Any]:
        if self.studio.source is None or not path.strip():
            return {}
        self.studio.target = Path(path.strip()).expanduser().absolute()
        return {self.command: self.studio.command()}

    def _plan(self) -> dict[Any, Any]:
        return {self.planned: f'<pre class="plan">{html.escape(self.studio.plan())}</pre>'}

    def _start(self) -> dict[Any, Any]:
        plan = self._plan()
        self.studio.start()
        return {**plan, self.jobs: self._job_list()}

    def _save(self) -> dict[Any, Any]:
        path = self.studio.save()
        return {
            self.message: f'<p class="note" role="status">{html.escape(str(path))} is written: the commands take it</p>'
        }

    def _tick(self) -> dict[Any, Any]:
        jobs = self.studio.queue.jobs
        busy = any(job.status in ("waiting", "running", "paused") for job in jobs)
        if self.quiet and not busy:
            return {self.jobs: gr.skip()}
        self.quiet = not busy
        return {self.jobs: self._job_list()}

    def _job(self, event: gr.EventData) -> dict[Any, Any]:
        action, name = str(event.action), str(event.job)
        self.quiet = False
        if action == "show":
            return {self.results: self.studio.results(name)}
        self.studio.queue.do(action, name)
        gone = {self.results: ""} if action == "remove" else {}
        return {self.jobs: self._job_list(), **gone}

    def _job_list(self) -> str:
        jobs = self.studio.queue.jobs
        return f'<ul class="jobs" aria-label="Jobs">{"".join(map(_job_html, reversed(jobs)))}</ul>' if jobs else ""


def _job_html(job: Job) -> str:
    """One job of the list."""
    text, target = html.escape, job.task.target
    state = [job.status]
    if job.total:
        state.append(f"{job.done} of {job.total} {job.unit}")
    if job.status == "running" and job.fps:
        state.append(f"{job.fps:.1f} {job.unit} a second")
        if job.seconds_left is not None:
            minutes, seconds = divmod(round(job.seconds_left), 60)
            state.append(f"{minutes}:{seconds:02d} left")
    bar = ""
    if job.status in UNFINISHED and job.total:
        bar = f'<progress max="{job.total}" value="{job.done}" aria-label="Progress of {text(target.name)}"></progress>'
    buttons = [
        f'<button type="button" data-action="{action}" data-job="{job.id}" '
        f'aria-label="{action} {text(target.name)}">{action}</button>'
        for action in ACTIONS[job.status]
    ]
    if job.status in ("done", "damaged") and target.is_file():
        buttons.insert(1, f'<a class="button" href="/result/{job.id}" download>download</a>')
    kind = "error" if job.status in ("failed", "damaged") else "state"
    note = f'<p class="{kind}">{text(job.message)}</p>' if job.message else ""
    return (
        f'<li data-status="{job.status}"><div class="head"><b>{text(str(target))}</b>'
        f'<span class="state" role="status">{text(", ".join(state))}</span></div>{bar}{note}'
        f'<div class="do">{"".join(buttons)}</div></li>'
    )


def _pictures(title: str, name: str) -> gr.HTML:
    return gr.HTML(
        value="", html_template=PICTURES, js_on_load=PICTURES_SCRIPT, options=[], title=title, elem_id=name
    )  # fmt: skip


def _slider(name: str) -> gr.Slider:
    label, least, most, step, value, info = SLIDERS[name]
    return gr.Slider(least, most, value=value, step=step, label=label, info=info, elem_id=name)


def build_page(studio: Studio) -> gr.Blocks:
    """The page of a studio, not yet served."""
    page: gr.Blocks
    with gr.Blocks(title="Firewatch stylizer", analytics_enabled=False) as page:
        _Page(studio).connect(page)
    return page
