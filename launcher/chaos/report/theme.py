"""theme: the colours of the page and of its pictures, in a light and a dark scheme.

matplotlib knows no CSS variables: it draws each role in a colour that nothing else has, which
the picture then exchanges for the variable.
"""

from __future__ import annotations

from typing import NamedTuple


class Shade(NamedTuple):
    light: str
    dark: str


SHADES = {
    "page": Shade("#ffffff", "#14171c"),
    "panel": Shade("#f5f6f8", "#1c2027"),
    "line": Shade("#d9dde3", "#333a45"),
    "faint": Shade("#5c6672", "#9aa5b3"),
    "ink": Shade("#1a1f26", "#e4e8ee"),
    "good": Shade("#00705a", "#3ecf9f"),
    "bad": Shade("#c2281d", "#ff7a6b"),
    "doubt": Shade("#9a5b00", "#ffb84d"),
    "life": Shade("#9fc3e6", "#3a6591"),
    "other-life": Shade("#5f96cc", "#5c90c4"),
    "low": Shade("#a9cbea", "#36587a"),
    "middle": Shade("#4f8fca", "#5b9bd8"),
    "high": Shade("#174a7c", "#b5d8fa"),
    "series-0": Shade("#0b66b0", "#5aaef0"),
    "series-1": Shade("#00785a", "#3ecf9f"),
    "series-2": Shade("#8a4fa3", "#c792dd"),
    "series-3": Shade("#8f6400", "#e0b04a"),
    "series-4": Shade("#00788a", "#4cc4d6"),
    "series-5": Shade("#5b6470", "#a7b1be"),
}
SERIES = [role for role in SHADES if role.startswith("series-")]
MARKS = ["o", "s", "D", "v", "^", "P"]  # of the series, for those who do not see their colours
STAND_INS = {role: f"#f1{number:02x}e7" for number, role in enumerate(SHADES)}

LAYOUT = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);line-height:1.5;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-size:15px}
main,header,footer{max-width:1120px;margin:0 auto;padding:0 24px}
header{padding-top:36px}
footer{padding-top:8px;padding-bottom:48px;color:var(--faint);font-size:13px}
h1{font-size:27px;line-height:1.25;margin:0 0 4px}
h2{font-size:19px;margin:44px 0 6px;padding-top:16px;border-top:1px solid var(--line)}
h3{font-size:15px;margin:24px 0 6px}
p{margin:6px 0 12px;max-width:80ch}
.faint,figcaption{color:var(--faint)}
.held{color:var(--good);font-weight:650}
.broken{color:var(--bad);font-weight:650}
.unknown{color:var(--doubt);font-weight:650}
.held,.broken,.unknown{white-space:nowrap}
.result{font-size:19px;display:inline-block;border:2px solid currentColor;border-radius:6px;
padding:3px 14px;margin:10px 0 4px}
nav{margin:14px 0 0;font-size:14px}
nav a{color:inherit;margin-right:16px}
dl.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(138px,1fr));gap:10px;
margin:18px 0 0}
dl.tiles div{background:var(--panel);border:1px solid var(--line);border-radius:8px;
padding:9px 13px}
dl.tiles dt{font-size:13px;color:var(--faint)}
dl.tiles dd{margin:0;font-size:21px;font-weight:600;font-variant-numeric:tabular-nums}
dl.tiles dd small{font-size:13px;font-weight:400;color:var(--faint)}
figure{margin:14px 0 20px}
.wide{overflow-x:auto;margin:8px 0 14px}
.wide:focus-visible{outline:2px solid var(--series-0)}
svg{display:block;width:100%;height:auto;min-width:680px}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif!important}
figcaption{font-size:13.5px;margin-top:6px;max-width:100ch}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:4px 20px 4px 0;text-align:left;vertical-align:top;border-bottom:1px solid
var(--line)}
th{font-weight:500}
thead th{color:var(--faint);font-size:13px;vertical-align:bottom}
.group{text-align:right;border-bottom:1px solid var(--faint)}
thead td{border:0}
.number{text-align:right;white-space:nowrap}
details{margin:10px 0}
summary{cursor:pointer;font-weight:500}
pre{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:12px 16px;
overflow-x:auto;font-size:13px;line-height:1.45;
font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}
code{font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.93em}
@media print{body{font-size:11px}svg{min-width:0}}
"""


def css() -> str:
    """The style sheet of the page."""
    light = ";".join(f"--{role}:{shade.light}" for role, shade in SHADES.items())
    dark = ";".join(f"--{role}:{shade.dark}" for role, shade in SHADES.items())
    schemes = f":root{{color-scheme:light dark;{light}}}"
    return f"{schemes}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{LAYOUT}"
