"""A report as one HTML file that needs no network: graph, timeline and tables to explore."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib import resources

from orchestrator.report.data import MethodReport, Report
from orchestrator.report.layout import lay_out

_SCRIPTS = ("base.js", "graph.js", "tables.js", "page.js")


def render_html(report: Report, title: str = "") -> str:
    """Return the page.

    title: what the report is about, such as a file's name.
    """
    parts = {
        "TITLE": _escaped(f"{title} - orchestrator report" if title else "orchestrator report"),
        "STYLE": _read("page.css"),
        "DATA": _payload(report, title),
        "SCRIPT": "\n".join(_read(name) for name in _SCRIPTS),
    }
    page = _read("page.html")
    # In one pass, so that nothing in the report can look like a placeholder.
    pieces = page.split("@@")
    return "".join(parts[piece] if index % 2 else piece for index, piece in enumerate(pieces))


def _payload(report: Report, title: str) -> str:
    layouts = [lay_out(method) for method in report.methods]
    report = replace(report, methods=tuple(map(_without_dangling_edges, report.methods)))
    data = {"title": title, "report": asdict(report), "layouts": [asdict(each) for each in layouts]}
    text = json.dumps(data, separators=(",", ":"))
    # Inside <script>, HTML's parser looks for "</script" and "<!--", whatever the script's type.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _without_dangling_edges(method: MethodReport) -> MethodReport:
    """Leave out what the page could not draw, as a damaged file may hold it."""
    known = {atom.id for atom in method.atoms}
    edges = [
        replace(edge, consumers=tuple(name for name in edge.consumers if name in known))
        for edge in method.edges
    ]
    return replace(method, edges=tuple(edges))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _read(name: str) -> str:
    return (resources.files("orchestrator.report") / "page" / name).read_text(encoding="utf-8")
