"""What a conversion made, as text and as a document."""

from __future__ import annotations

from fpstate.image import Image
from fpstate.report import SCHEMA, Document, hexmask

__all__ = ["document", "text"]


def document(source: Image, made: Image) -> Document:
    """Return both headers and sizes."""
    return {"schema": SCHEMA, "from": _one(source), "to": _one(made)}


def _one(image: Image) -> Document:
    names = image.caps.cpu.catalogue.names
    return {
        "cpu": image.caps.cpu.name,
        "format": image.format,
        "size": image.places.end,
        "xstate_bv": hexmask(image.xstate_bv),
        "xcomp_bv": hexmask(image.xcomp_bv),
        "components": names(image.components),
        "in_use": names(image.xstate_bv),
    }


def text(source: Image, made: Image) -> str:
    """Return one line."""
    return f"{_words(source)} -> {_words(made)}"


def _words(image: Image) -> str:
    names = image.caps.cpu.catalogue.names
    return f"{image.format}, {image.places.end} bytes, {names(image.components)} (in use: {names(image.xstate_bv)})"
