"""Style and scripts of the page; nothing is loaded from elsewhere."""

from __future__ import annotations

from stylize.html.assets import PAIR_CSS

__all__ = ["CSS", "JOBS_SCRIPT", "PAIR_SCRIPT", "PICTURES", "PICTURES_SCRIPT"]

CSS = (
    """
.gradio-container { --accent: #d9652b; --good: #2c6e49; --bad: #a4243b; --soft: var(--body-text-color-subdued);
  max-width: 90rem !important; margin: 0 auto; }
.dark .gradio-container, .dark.gradio-container { --accent: #f19a5f; --good: #7cc79b; --bad: #f0899a; }
footer { display: none !important; }
#title h1 { font-size: 1.4rem; margin: 0; } #title p { margin: 0; color: var(--soft); }
.pair img { border-radius: .4rem; }
#pair figure, #results figure { margin: 0; } #pair figcaption { display: none; }
#results .grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
#results figcaption { font-size: .85rem; color: var(--soft); overflow-wrap: anywhere; }
.pair input { accent-color: var(--accent); }
.empty { display: grid; place-items: center; min-height: 14rem; color: var(--soft); text-align: center; padding: 1rem;
  border: 1px dashed var(--border-color-primary); border-radius: .5rem; }
.pictures { border: 0; margin: 0; padding: 0; display: grid; gap: .5rem;
  grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); }
.pictures legend { font-weight: 600; margin-bottom: .3rem; padding: 0; }
.pictures label { position: relative; display: block; border-radius: .45rem; overflow: hidden; cursor: pointer;
  border: 3px solid transparent; background: var(--background-fill-secondary); }
.pictures img { display: block; width: 100%; aspect-ratio: 16 / 9; object-fit: cover; margin: 0; }
.pictures span { display: block; padding: .1rem .35rem; font-size: .8rem; overflow-wrap: anywhere; line-height: 1.35; }
.pictures input { position: absolute; opacity: 0; inset: 0; margin: 0; width: 100%; height: 100%; cursor: pointer; }
.pictures label:has(:checked) { border-color: var(--accent); }
.pictures label:has(:focus-visible) { outline: 3px solid var(--accent); outline-offset: 2px; }
#files .icon-wrap, #files .or { display: none; }
.jobs .do > * { margin: 0 !important; }
#open { align-self: center; max-height: 3.2rem; }
#message:empty, #message div:empty { display: none; }
.error { color: var(--bad); font-weight: 600; overflow-wrap: anywhere; } .note { color: var(--good); }
.plan { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; margin: 0; font-family: inherit; }
.jobs { list-style: none; margin: 0; padding: 0; display: grid; gap: .6rem; }
.jobs li { border: 1px solid var(--border-color-primary); border-radius: .5rem; padding: .6rem .75rem; margin: 0; }
.jobs .head { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline; }
.jobs b { overflow-wrap: anywhere; } .jobs .state { color: var(--soft); font-size: .85rem; }
.jobs progress { width: 100%; height: .7rem; accent-color: var(--accent); }
.jobs .do { display: flex; flex-wrap: wrap; gap: .4rem; margin-top: .35rem; }
.jobs button, .jobs a.button { font: inherit; font-size: .85rem; padding: .3rem .75rem; border-radius: .4rem;
  border: 1px solid var(--border-color-primary); background: var(--button-secondary-background-fill); cursor: pointer;
  color: var(--body-text-color); text-decoration: none; }
.jobs button:focus-visible, .jobs a:focus-visible { outline: 3px solid var(--accent); }
@media (max-width: 40rem) { .pictures { grid-template-columns: repeat(3, 1fr); }
  .gradio-container > main { padding: .5rem !important; } }
"""
    + PAIR_CSS
)

PICTURES = """<fieldset class="pictures"><legend>{{title}}</legend>{{#each options}}<label>
<input type="radio" name="{{../title}}" value="{{value}}" aria-label="{{label}}">
<img src="{{image}}" alt=""><span>{{label}}</span></label>{{/each}}</fieldset>"""
"""Pictures to choose one of: radio buttons, for keyboards and screen readers as for the mouse."""

PICTURES_SCRIPT = """
const show = () => {
  for (const input of element.querySelectorAll("input")) input.checked = input.value === String(props.value);
};
watch(["value", "options"], show);
show();
element.addEventListener("change", (event) => {
  props.value = event.target.value;
  trigger("input");
});
"""

PAIR_SCRIPT = """
const places = {};
const move = (range) => {
  places[range.ariaLabel] = range.value;
  range.closest(".pair").style.setProperty("--at", range.value + "%");
};
const show = () => {
  for (const range of element.querySelectorAll(".pair input")) {
    range.value = places[range.ariaLabel] ?? range.value;
    move(range);
  }
};
element.addEventListener("input", (event) => move(event.target));
watch("value", show);
show();
"""
"""Moves the border of a pair, and leaves it there when the picture changes."""

JOBS_SCRIPT = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("click", { action: button.dataset.action, job: button.dataset.job });
});
"""
