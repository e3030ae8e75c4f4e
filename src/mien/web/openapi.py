"""The routes as OpenAPI 3.1, from the table that serves them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mien import __version__
from mien.core.contracts import JSON

if TYPE_CHECKING:
    from mien.web.responses import Door

MEANINGS = {
    "id": ("string", "of a model or a run, from /api/models"),
    "seen": ("integer", "images seen"),
    "at": ("string", "the address of a face: 42, 42,0.25,0.5, 42~7:0.3; several for a walk"),
    "drag": ("string", "names a drag: a newer question of the same drag takes the place of this one, which gets 204"),
    "label": ("string", "NAME:VALUE with a value in [0, 1]; repeat for more"),
    "direction": ("string", "NAME:AMOUNT in standard deviations; repeat for more"),
    "truncation": ("number", "share of the way from the mean face: under 1, faces are more typical"),
    "style": (
        "string",
        "SEED:STAGES, coarse, middle, fine or 2-3: styles of another seed, for a model whose stages have some",
    ),
    "size": ("integer", "height and width in pixels, for a model that paints at any"),
    "first": ("integer", "the first seed"),
    "count": ("integer", "how many"),
    "columns": ("integer", "of the sheet"),
    "strength": ("number", "how far children stand from their parent, in [0, 1]"),
    "frames": ("integer", "of the film"),
    "fps": ("number", "frames a second"),
    "loop": ("integer", "1 comes back to the first face"),
    "format": ("string", "webp, gif or mp4"),
    "zoom": ("integer", "magnification"),
    "solver": (
        "string",
        "of a flow: multistep, midpoint, euler, heun, rk4 or adaptive, a colon, and the steps or the tolerance",
    ),
    "guidance": ("number", "of a flow with labels: over 1, faces show more of what is asked for"),
    "align": ("integer", "1 levels the face first, where that can be done"),
    "steps": ("integer", "of descent; without any, the model's encoder answers at once"),
    "wish": ("string", "save, pause, resume or stop"),
    "minutes": ("number", "of training"),
}


def describe(table: Sequence[Door]) -> JSON:
    """The OpenAPI document of a table of routes."""
    paths: JSON = {}
    for door in table:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", door.path)
        inside = re.findall(r"\{(\w+)\}", path)
        parameters = [parameter(name, "path") for name in inside]
        operation: JSON = {
            "summary": door.summary,
            "parameters": parameters,
            "responses": {
                "200": {"description": door.summary, "content": {door.gives: {}}},
                "default": {
                    "description": "an error in three parts",
                    "content": {"application/json": {"schema": ERROR}},
                },
            },
        }
        if door.path.endswith("/project"):
            operation["requestBody"] = {"content": {kind: {} for kind in ("image/jpeg", "image/png", "image/webp")}}
            parameters += [parameter(name, "query") for name in door.parameters]
        elif door.method == "POST" and door.parameters:
            fields = {name: {"type": MEANINGS[name][0], "description": MEANINGS[name][1]} for name in door.parameters}
            operation["requestBody"] = {
                "content": {"application/json": {"schema": {"type": "object", "properties": fields}}}
            }
        else:
            parameters += [parameter(name, "query") for name in door.parameters]
        if door.token:
            operation["security"] = [{"token": []}]
        paths.setdefault(path, {})[door.method.lower()] = operation
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
