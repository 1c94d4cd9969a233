"""What a conversion made, as text and as a document."""

from __future__ import annotations

from fpstate.image import Image
from fpstate.report import SCHEMA, Document, hexmask

__all__ = ["document", "text"]


def document(source: Image, made: Image) -> Document:
    """Return both headers and sizes."""
    return {"schema": SCHEMA, "from": _one(source), "to": _one(made), "lost": _lost(source, made)}


def _lost(source: Image, made: Image) -> str:
    """Return the components that were in use and have no place in the result, in names."""
    return source.caps.cpu.catalogue.names(source.xstate_bv & ~made.xstate_bv)


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
    lost = _lost(source, made)
    return f"{_words(source)}\n-> {_words(made)}" + (f"\nleft out: {lost}" if lost != "none" else "")


def _words(image: Image) -> str:
    names = image.caps.cpu.catalogue.names
    has = names(image.components)
    in_use = names(image.xstate_bv)
    return f"{image.format}, {image.places.end} bytes, {has}" + (f"; in use {in_use}" if in_use != has else "")
