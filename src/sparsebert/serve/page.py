"""The page of the interface: one file that loads nothing, as a server behind a firewall needs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from starlette.responses import HTMLResponse

STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color-scheme:light dark}"
    "code,pre{font-family:monospace}pre{overflow:auto;border:1px solid;padding:1em}"
)
NOTHING_ELSE = "default-src 'none'; style-src 'unsafe-inline'"


def page_of(interface: Mapping[str, Any]) -> HTMLResponse:
    """An OpenAPI document to read; browsers are told to load nothing for it."""
    title = f"{interface['info']['title']} {interface['info']['version']}"
    routes = [
        f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(told.get('description', ''))} "
        f"Answers: {', '.join(told['responses'])}.</p>"
        for path, methods in interface["paths"].items()
        for method, told in methods.items()
    ]
    parts = [
        f"<h2><code>{escape(name)}</code></h2><pre>{escape(json.dumps(schema, indent=1))}</pre>"
        for name, schema in interface["components"]["schemas"].items()
    ]
    page = (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
        f'<h1>{escape(title)}</h1><p>For programs: <a href="openapi.json">openapi.json</a></p>'
        f"{''.join(routes)}{''.join(parts)}</html>"
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": NOTHING_ELSE})
