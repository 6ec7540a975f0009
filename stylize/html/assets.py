"""Style and script of the report page; both go into the page itself, which asks the network for nothing."""

from __future__ import annotations

__all__ = ["CSS", "PAIR_CSS", "SCRIPT"]

PAIR_CSS = """
.pair { position: relative; --at: 50%; touch-action: pan-y; margin: 0 auto;
  max-width: calc(75vh * var(--ratio)); }
.pair img { display: block; width: 100%; height: auto; }
.pair img.after { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at)); }
.pair::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 3px #000; pointer-events: none; }
.pair input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
.pair:focus-within { outline: 3px solid var(--accent); outline-offset: -3px; }
.pair span { position: absolute; bottom: .4rem; padding: .05rem .4rem; border-radius: .25rem; font-size: .75rem;
  background: #000a; color: #fff; pointer-events: none; }
.pair span.l { left: .4rem; } .pair span.r { right: .4rem; }
"""
"""Before and after in one place, with a range that moves the border; needs a colour `--accent`."""

CSS = """
:root { color-scheme: light dark; --ink: #1d2129; --soft: #5c6470; --paper: #fbfaf8; --card: #fff;
  --line: #dcd8d2; --accent: #b4471f; --bar: #d9793f; --good: #2c6e49; --bad: #a4243b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e9e6e1; --soft: #a3a8b0; --paper: #15181d; --card: #1d2128;
  --line: #343a44; --accent: #f19a5f; --bar: #c76a35; --good: #7cc79b; --bad: #f0899a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .75rem; }
p { margin: .25rem 0; }
.soft { color: var(--soft); }
.bad { color: var(--bad); } .good { color: var(--good); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1rem;
  align-items: start; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
figcaption { padding: .5rem .75rem; overflow-wrap: anywhere; font-size: .9rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
thead th { overflow-wrap: normal; white-space: nowrap; }
td.short { white-space: nowrap; } td.optional { min-width: 10rem; } th[scope=row] { width: 12rem; }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
.chart { display: grid; grid-template-columns: minmax(6rem, 30%) 1fr auto; gap: .25rem .6rem; align-items: center;
  font-size: .85rem; }
.chart .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.chart .bar { background: var(--bar); height: .8rem; border-radius: .2rem; min-width: 2px; }
.filter button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 1rem; padding: .2rem .8rem; margin: 0 .3rem .5rem 0; cursor: pointer; }
.filter button[aria-pressed=true] { border-color: var(--accent); color: var(--accent); font-weight: 600; }
button:focus-visible { outline: 3px solid var(--accent); }
@media (max-width: 34rem) { body { padding: .6rem; } .optional { display: none; } }
@media print { .pair input, .filter { display: none; } }
"""

SCRIPT = """
"use strict";
for (const pair of document.querySelectorAll(".pair")) {
  const range = pair.querySelector("input");
  const move = () => pair.style.setProperty("--at", range.value + "%");
  range.addEventListener("input", move);
  move();
}
const buttons = document.querySelectorAll(".filter button");
for (const button of buttons) {
  button.addEventListener("click", () => {
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    const wanted = button.dataset.status;
    for (const row of document.querySelectorAll("tr[data-status]"))
      row.hidden = wanted !== "all" && row.dataset.status !== wanted;
  });
}
"""
