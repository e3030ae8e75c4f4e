"""The routes as OpenAPI 3.1, from the table that serves them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mien import __version__
from mien.core.contracts import JSON

if TYPE_CHECKING:
    from mien.web.responses import ApiRoute

MEANINGS = {
    "id": ("string", "id of a model or a run, from /api/models"),
    "seen": ("integer", "images seen"),
    "at": ("string", "address of a face: 42, 42,0.25,0.5 or 42~7:0.3; repeat it for a walk"),
    "drag": ("string", "name of a drag: a newer request of the same drag replaces this one, which gets 204"),
    "label": ("string", "NAME:VALUE with a value in [0, 1]; repeat for more"),
    "direction": ("string", "NAME:AMOUNT in standard deviations; repeat for more"),
    "layers": ("string", "coarse, middle, fine or 2-3: where directions act, for a model with style stages"),
    "truncation": ("number", "truncation psi: 0 is the mean face, 1 is no truncation"),
    "style": (
        "string",
        "SEED:STAGES with coarse, middle, fine or 2-3: style mixing with another seed, for a model with style stages",
    ),
    "size": ("integer", "height and width in pixels, for a resolution-free model"),
    "first": ("integer", "the first seed"),
    "count": ("integer", "number of faces, or of directions to find"),
    "columns": ("integer", "columns of the sheet"),
    "quick": (
        "integer",
        "1 draws thumbnails: by a flow in few steps and within 2/255 of them, by any other model as ever",
    ),
    "strength": ("number", "distance of children from their parent, in [0, 1]"),
    "frames": ("integer", "frames of the film"),
    "fps": ("number", "frames a second"),
    "loop": ("integer", "1 returns to the first face"),
    "format": ("string", "webp, gif or mp4"),
    "zoom": ("integer", "magnification"),
    "solver": (
        "string",
        "ODE solver of a flow: multistep:12, midpoint:6, euler:8, heun:12, rk4:6 or adaptive:1e-4",
    ),
    "guidance": (
        "number",
        "guidance scale of a label-conditional model; 1 is no guidance",
    ),
    "align": ("integer", "1 aligns the photograph by its face, where the extra `faces` is installed"),
    "steps": ("integer", "steps of descent; without it, the model's encoder is used"),
    "name": ("string", "name of the new direction, up to 40 characters"),
    "request": ("string", "save, pause, resume or stop"),
    "minutes": ("number", "minutes of training"),
    "from": ("string", "name of a bundled model to go on from; without it, training begins with noise"),
    "photographs": ("integer", "1 trains on the photographs that were added"),
}


def describe(table: Sequence[ApiRoute]) -> JSON:
    """The OpenAPI document of a table of routes."""
    paths: JSON = {}
    for route in table:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        inside = re.findall(r"\{(\w+)\}", path)
        parameters = [parameter(name, "path") for name in inside]
        operation: JSON = {
            "summary": route.summary,
            "parameters": parameters,
            "responses": {
                "200": {"description": route.summary, "content": {route.media_type: {}}},
                "default": {
                    "description": "an error in three parts",
                    "content": {"application/json": {"schema": ERROR}},
                },
            },
        }
        if route.path.endswith("/project"):
            operation["requestBody"] = {"content": {kind: {} for kind in ("image/jpeg", "image/png", "image/webp")}}
            parameters += [parameter(name, "query") for name in route.parameters]
        elif route.method == "POST" and route.parameters:
            fields = {name: {"type": MEANINGS[name][0], "description": MEANINGS[name][1]} for name in route.parameters}
            operation["requestBody"] = {
                "content": {"application/json": {"schema": {"type": "object", "properties": fields}}}
            }
        else:
            parameters += [parameter(name, "query") for name in route.parameters]
        if route.needs_token:
            operation["security"] = [{"token": []}]
        paths.setdefault(path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "mien's explorer", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def parameter(name: str, where: str) -> JSON:
    """One parameter of a path or a query."""
    kind, meaning = MEANINGS[name]
    return {"name": name, "in": where, "required": where == "path", "description": meaning, "schema": {"type": kind}}


ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "integer"},
                **{name: {"type": "string"} for name in ("message", "why", "hint")},
            },
        }
    },
}
