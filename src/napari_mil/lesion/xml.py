"""What the XML formats share: safe parsing, numbers and colours."""

from __future__ import annotations

from xml.etree.ElementTree import Element, ParseError, indent, tostring

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from napari_mil.errors import LesionError

from .classes import Rgb
from .parts import OutlineError


def parse(data: bytes, where: str) -> Element:
    """Root of an XML document from untrusted bytes; LesionError when it is broken or not safe."""
    try:
        root: Element = fromstring(data)
    except ParseError as error:
        line, column = error.position
        raise LesionError(
            f"{where}: not well-formed XML at line {line}, column {column}; expected a complete file. "
            "Export it again, it may have been cut off."
        ) from error
    except (DefusedXmlException, ValueError, LookupError) as error:
        raise LesionError(
            f"{where}: the XML has entities or an encoding that we don't open; expected plain annotations. "
            "Export it again from the program it came from."
        ) from error
    return root


def to_bytes(root: Element) -> bytes:
    """An indented UTF-8 document."""
    indent(root, "\t")
    text: bytes = tostring(root, encoding="UTF-8", xml_declaration=True)
    return text + b"\n"


def read_number(text: str | int | None) -> float:
    """A number as programs write it, with a decimal comma too; OutlineError when it is none."""
    try:
        return float(str(text).strip().replace(",", "."))
    except ValueError:
        raise OutlineError(f"has a point with {text!r} where a number is expected") from None


def number(value: float) -> str:
    """A number in full precision, whole ones without a fraction."""
    return str(int(value)) if value.is_integer() else repr(value)


def rgb_of_hex(text: str | None) -> Rgb | None:
    """(r, g, b) of "#rrggbb"; None when it is something else."""
    digits = (text or "").strip().lstrip("#")
    try:
        value = int(digits, 16)
    except ValueError:
        return None
    return (value >> 16 & 255, value >> 8 & 255, value & 255) if len(digits) == 6 else None


def hex_color(color: Rgb) -> str:
    """ "#rrggbb" of (r, g, b)."""
    return "#{:02x}{:02x}{:02x}".format(*color)
