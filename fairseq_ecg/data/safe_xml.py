"""XML from strangers: no entities of its own, nothing fetched, bounded depth and size.

A document type that names an external file (``<!DOCTYPE RestingECG SYSTEM "restecg.dtd">``) is passed over
unread; one that declares entities is refused, since a kilobyte of them can expand to gigabytes.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from xml.parsers import expat

from fairseq_ecg.data.raw_files import check_size, one_line
from fairseq_ecg.errors import DataError

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 64
MAX_ELEMENTS = 200_000

# Some writers forget that & is a mark of its own in XML ("AT&T").
_BARE_AMPERSAND = re.compile(rb"&(?!(?:[A-Za-z][A-Za-z0-9]*|#[0-9]+|#x[0-9A-Fa-f]+);)")


def parse_xml(path: Path) -> ElementTree.Element:
    """Read an XML file whole.

    Raises:
        DataError: not well-formed XML, declared entities, too deep or too large.
    """
    check_size(path, MAX_BYTES)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return _parse(path, content)
    except DataError as error:
        repaired = _BARE_AMPERSAND.sub(b"&amp;", content)
        if repaired == content:
            raise
        try:
            return _parse(path, repaired)
        except DataError:
            raise error from None


def _parse(path: Path, content: bytes) -> ElementTree.Element:
    builder = ElementTree.TreeBuilder()
    depth = count = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth += 1
        count += 1
        if depth > MAX_DEPTH or count > MAX_ELEMENTS:
            raise DataError(
                f"{path}: more than {MAX_DEPTH} levels or {MAX_ELEMENTS} elements; no ECG file has that many"
            )
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: Any) -> int:
        raise DataError(f"{path}: declares or uses XML entities, which are not allowed in an ECG file")

    parser = expat.ParserCreate()
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.SkippedEntityHandler = refuse
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, ValueError, LookupError, AssertionError) as error:
        raise DataError(f"{path} is not well-formed XML: {one_line(error)}; it may be truncated") from None
