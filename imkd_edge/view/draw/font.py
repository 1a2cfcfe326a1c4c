"""Masks of text in a font of the machine, for names in any script: Pillow renders them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Pillow looks for these files in the system's font folders; later ones serve the scripts that earlier ones lack.
_REGULAR = ("DejaVuSans", "NotoSans-Regular", "LiberationSans-Regular", "Arial", "arial", "Helvetica")
_BOLD = ("DejaVuSans-Bold", "NotoSans-Bold", "LiberationSans-Bold", "Arial Bold", "arialbd", "Helvetica")
_OTHER_SCRIPTS = ("NotoSansCJK-Regular", "wqy-microhei", "wqy-zenhei", "Unifont", "Arial Unicode")
_NO_CHARACTER = "\uffff"  # drawn as the font's glyph for what it lacks


@dataclass(frozen=True)
class Mask:
    """Text as coverage, with its position relative to the start of the baseline."""

    coverage: np.ndarray  # (h, w) uint8
    left: int  # px
    top: int  # px; negative above the baseline
    advance: float  # px to the end of the text


@lru_cache(maxsize=4096)
def text_mask(text: str, size: int, bold: bool) -> Mask:
    """Renders text; a character that no font has becomes its ASCII form, or "?".

    Args:
        text: one line.
        size: of the font, px.
        bold: whether to take the bold face.
    """
    font, text = _font_of(text, size, bold)
    left, top, right, bottom = (round(value) for value in font.getbbox(text, anchor="ls"))
    image = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), text, 255, font, anchor="ls")
    return Mask(np.asarray(image), left, top, font.getlength(text))


def _font_of(text: str, size: int, bold: bool) -> tuple[Any, str]:
    """The first font that has every character, and the text; without such a font the first, and the text in ASCII."""
    fonts = _fonts(size, bold)
    for font in fonts:
        if not any(_lacks(font, character) for character in set(text)):
            return font, text
    return fonts[0], "".join(map(_ascii, text))


def _ascii(character: str) -> str:
    base = unicodedata.normalize("NFKD", character)[0]
    return base if base.isascii() else "?"


@lru_cache
def _fonts(size: int, bold: bool) -> tuple[Any, ...]:
    names = (*(_BOLD if bold else _REGULAR), *_OTHER_SCRIPTS)
    fonts = [font for name in names for font in _open(name, size)]
    return (*fonts, ImageFont.load_default(size)) if fonts else (ImageFont.load_default(size),)


def _open(name: str, size: int) -> list[Any]:
    for ending in (".ttf", ".ttc", ".otf"):
        try:
            return [ImageFont.truetype(name + ending, size)]
        except OSError:
            continue
    return []


@lru_cache(maxsize=4096)
def _lacks(font: Any, character: str) -> bool:
    if character.isspace():
        return False
    glyph, absent = font.getmask(character), font.getmask(_NO_CHARACTER)
    return glyph.size == absent.size and bytes(glyph) == bytes(absent)
