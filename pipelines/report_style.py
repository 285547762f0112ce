"""The look of the report page, and the shell that holds it: one file, nothing fetched, nothing that runs."""

from __future__ import annotations

import base64
import hashlib

from .report_charts import text

CSS = """
:root {
  color-scheme: light dark;
  --paper: #faf8f4; --card: #fffefb; --ink: #1c2024; --soft: #59616a; --line: #dfdad0; --wash: #f1ede4;
  --kept: #1e747c; --rejected: #cf7f2d; --duplicates: #7d63b0; --quarantined: #b8404f; --cut: #1c2024;
  --gone: #f6d5c4; --new: #cde6e1;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", "Noto Serif", Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", SFMono-Regular, Menlo, Consolas, "Noto Sans Mono", "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131618; --card: #1a1e21; --ink: #e8e5df; --soft: #a3a9af; --line: #2f353a; --wash: #22272b;
    --kept: #4fb0b8; --rejected: #dfa05a; --duplicates: #a993d8; --quarantined: #e27685; --cut: #e8e5df;
    --gone: #5c2f22; --new: #1d4a48;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 400 16px/1.55 var(--sans); }
main, header, footer { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font: 600 clamp(1.9rem, 5vw, 2.75rem)/1.15 var(--serif); margin: .15rem 0 .75rem; letter-spacing: -.01em;
  overflow-wrap: anywhere; }
h2 { font: 600 1.5rem/1.25 var(--serif); margin: 0 0 .35rem; }
h3 { font: 600 1rem/1.35 var(--sans); margin: 0; overflow-wrap: anywhere; }
p { margin: 0 0 .75rem; max-width: 44rem; }
section { padding-top: 2.75rem; }
a { color: var(--kept); text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--kept); outline-offset: 2px; }
code, .code { font: .92em/1.45 var(--mono); overflow-wrap: anywhere; }
table code, h3 code { overflow-wrap: break-word; font-size: inherit; }
.eyebrow { margin: 0; font: 600 .78rem/1.4 var(--sans); letter-spacing: .09em; text-transform: uppercase;
  color: var(--soft); }
.lead { font: 400 1.2rem/1.5 var(--serif); margin-bottom: 1.1rem; }
.soft, .note { color: var(--soft); }
.note { font-size: .9rem; }
.bad { border-left: 4px solid var(--quarantined); padding: .5rem .9rem; background: var(--wash); font-weight: 600; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 1.5rem 0 0; padding: .7rem 0;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); font-size: .92rem; }
nav a { color: inherit; text-decoration: none; display: inline-block; padding: .15rem 0; }
nav a:hover { text-decoration: underline; }
svg { display: block; overflow: visible; }
svg text { fill: var(--soft); font: 12px var(--sans); font-variant-numeric: tabular-nums; }
svg text.cut { fill: var(--cut); font-weight: 600; }
.kept { fill: var(--kept); } .rejected { fill: var(--rejected); }
.duplicates { fill: var(--duplicates); } .quarantined { fill: var(--quarantined); }
.bar { background: var(--wash); border-radius: 2px; overflow: hidden; }
.axis { stroke: var(--line); } line.cut { stroke: var(--cut); stroke-width: 1.5; stroke-dasharray: 3 2; }
.key { list-style: none; margin: .9rem 0 1rem; padding: 0; display: grid; gap: .6rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); }
.key svg { display: inline-block; margin-right: .45rem; }
.key b { display: block; font: 600 1.45rem/1.2 var(--serif); font-variant-numeric: tabular-nums; }
.key span { color: var(--soft); font-size: .88rem; display: block; }
.legend { font-size: .88rem; color: var(--soft); margin: .4rem 0 .6rem; }
.legend svg { display: inline-block; margin: 0 .35rem 0 0; } .legend span { white-space: nowrap;
  margin-right: 1.1rem; }
.funnel { list-style: none; margin: 1rem 0 1.5rem; padding: 0; }
.funnel li { padding: .5rem 0 .6rem; border-top: 1px solid var(--line); display: grid; gap: .1rem 1rem;
  grid-template-columns: 1fr auto; }
.funnel li > svg { grid-column: 1 / -1; margin-top: .25rem; }
.funnel .count { font-variant-numeric: tabular-nums; text-align: right; }
.funnel .gone { grid-column: 1 / -1; font-size: .88rem; color: var(--soft); }
@media (min-width: 48rem) {
  .funnel li { grid-template-columns: 12rem 1fr 9rem; align-items: center; }
  .funnel li > svg { grid-column: 2; grid-row: 1; margin: 0; } .funnel .count { grid-column: 3; }
  .funnel .gone { grid-column: 2 / -1; }
}
.scroll { overflow-x: auto; max-width: 100%; margin: .75rem 0; background: var(--card);
  border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
caption { text-align: left; padding: .6rem .8rem 0; color: var(--soft); font-size: .85rem; }
th, td { padding: .42rem .8rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-weight: 600; font-size: .82rem; white-space: nowrap; }
tbody th { font-weight: 400; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.w { min-width: 7rem; width: 24%; vertical-align: middle; } td.u { min-width: 14rem; }
td.p code { white-space: nowrap; }
@media (max-width: 34rem) { .w { display: none; } table { font-size: .85rem; } th, td { padding: .4rem; } caption {
  padding: .5rem .55rem 0; } }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(19.5rem, 100%), 1fr));
  margin: 1rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem .9rem;
  min-width: 0; margin: 0; }
.card h3 { font: 600 .92rem/1.4 var(--mono); } .card p { font-size: .85rem; color: var(--soft);
  margin: .1rem 0 .4rem; }
details { border: 1px solid var(--line); border-radius: 6px; background: var(--card); margin: .5rem 0; }
summary { cursor: pointer; padding: .6rem .9rem; display: grid; grid-template-columns: 1rem 1fr auto;
  gap: .1rem .5rem; align-items: baseline; }
summary::before { content: "+"; font: 600 1rem/1 var(--mono); color: var(--soft); }
details[open] > summary::before { content: "–"; }
summary::-webkit-details-marker { display: none; }
summary h3 { min-width: 0; } summary .count { color: var(--soft); font-size: .9rem;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.inner { padding: 0 .9rem .6rem; }
article { border-top: 1px solid var(--line); padding: .7rem 0 .5rem; min-width: 0; }
.url { font: .88rem/1.45 var(--mono); overflow-wrap: anywhere; margin: 0; max-width: none; unicode-bidi: isolate; }
.meta { color: var(--soft); font-size: .85rem; margin: .1rem 0 .35rem; max-width: none; overflow-wrap: anywhere; }
pre { margin: .3rem 0; padding: .6rem .75rem; background: var(--wash); border-radius: 4px;
  font: .84rem/1.5 var(--mono);
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 15rem; overflow: auto; contain: paint;
  unicode-bidi: isolate; }
.pair { display: grid; gap: 0 1rem; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.pair > div { min-width: 0; } .pair pre { max-height: 24rem; }
del, ins { color: var(--ink); border-radius: 2px; box-decoration-break: clone; -webkit-box-decoration-break: clone; }
del { background: var(--gone); text-decoration: line-through; }
ins { background: var(--new); text-decoration: underline; text-underline-offset: .15em; }
line.curve { stroke: var(--duplicates); stroke-width: 2; stroke-linecap: round; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .3rem 1.2rem; margin: .75rem 0; }
dt { color: var(--soft); } dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
footer { padding-top: 3rem; padding-bottom: 3rem; color: var(--soft); font-size: .88rem; }
@media print { nav { display: none; } pre { max-height: none; } body { background: #fff; } }
"""


def page(title: str, body: str) -> bytes:
    """Wrap a body into a whole page. Its policy allows this style sheet, by its hash, and no script and no request."""
    digest = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    head = '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"{head}\n<title>{text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    ).encode()
