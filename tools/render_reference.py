"""Write docs/reference: config groups and registered components with their options, types and defaults.

    python tools/render_reference.py            write the pages
    python tools/render_reference.py --check    exit 1 when a page on disk differs from what would be written

The text of an option is the string below its field, read from the source; nothing is written by hand.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import sys
import textwrap
import types
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

from fairseq_ecg.cli.list import paper
from fairseq_ecg.compose.groups import FIXED_GROUPS, field_types
from fairseq_ecg.plugins import load_built_ins
from fairseq_ecg.registry import FAILURES, REGISTRIES, Entry

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_DIR = ROOT / "docs" / "reference"
NOTICE = "<!-- Written by tools/render_reference.py from the sources; changes made here are lost. -->"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_DIR, help="folder of the pages")
    parser.add_argument("--check", action="store_true", help="compare with the pages on disk, write nothing")
    arguments = parser.parse_args(argv)
    load_built_ins()
    if FAILURES:
        print("\n".join(map(str, FAILURES)), file=sys.stderr)
        return 1
    pages = render()
    stale = sorted(
        {name for name, text in pages.items() if _read(arguments.out / name) != text}
        | {path.name for path in _written_pages(arguments.out) if path.name not in pages}
    )
    if arguments.check:
        for name in stale:
            print(
                f"{arguments.out / name} is out of date; run python tools/render_reference.py",
                file=sys.stderr,
            )
        return 1 if stale else 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in pages:
            (arguments.out / name).write_text(pages[name], encoding="utf-8")
        else:
            (arguments.out / name).unlink()
    print(f"{len(pages)} pages in {arguments.out}, {len(stale)} of them changed")
    return 0


def render() -> dict[str, str]:
    """File name -> text, for every page."""
    kinds = [kind for kind, registry in REGISTRIES.items() if registry.names()]
    pages = {"config.md": _config_page()}
    for kind in kinds:
        parts = [f"# {_plural(kind).capitalize()}", NOTICE]
        parts += [_component(entry) for entry in REGISTRIES[kind]]
        pages[f"{_plural(kind)}.md"] = "\n\n".join(parts) + "\n"
    links = [f"* [{name.removesuffix('.md')}]({name})" for name in pages]
    intro = "Options as YAML keys and command-line overrides: `group.option=value`."
    pages["index.md"] = "\n\n".join(["# Reference", NOTICE, intro, "\n".join(links)]) + "\n"
    return pages


def _config_page() -> str:
    parts = ["# Config groups of every run", NOTICE]
    for group, config_class in FIXED_GROUPS.items():
        parts += [f"## `{group}`", options_table(config_class)]
    return "\n\n".join(parts) + "\n"


def _component(entry: Entry) -> str:
    """One component: its docstring, where it is, and its options."""
    file = Path(inspect.getsourcefile(entry.factory) or "")
    where = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    facts = [f"`{where}`", *([paper(entry)] if paper(entry) else [])]
    doc = inspect.getdoc(entry.factory) or ""
    # Shape: and Raises: blocks are laid out by their indentation, which only fenced text keeps.
    summary, _, rest = doc.partition("\n\n")
    body = [f"```text\n{rest}\n```"] if rest else []
    return "\n\n".join(
        [
            f"## `{entry.name}`",
            " ".join(summary.split()),
            "; ".join(facts),
            *body,
            options_table(entry.config),
        ]
    )


def options_table(config_class: type[Any]) -> str:
    """A Markdown table of the options of a dataclass."""
    annotations, docs = field_types(config_class), field_docs(config_class)
    rows = [
        f"| `{item.name}` | {_type_name(annotations[item.name])} | {_default(item)} "
        f"| {docs.get(item.name, '')} |"
        for item in dataclasses.fields(config_class)
        if item.init
    ]
    return "\n".join(["| option | type | default | |", "|---|---|---|---|", *rows]) if rows else "No options."


def field_docs(config_class: type[Any]) -> dict[str, str]:
    """Field name -> the string below it in the source, of the class and of those it derives from."""
    docs: dict[str, str] = {}
    for cls in reversed(config_class.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str() as text)),
                ):
                    docs[name] = " ".join(text.split()).replace("``", "`").replace("|", "\\|")
    return docs


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " / ".join(f"`{member.value}`" for member in annotation)
    if get_origin(annotation) is types.UnionType:
        return " or ".join(_type_name(item) for item in get_args(annotation))
    if annotation is types.NoneType:
        return "null"
    if get_origin(annotation) in (list, tuple):
        return f"list of {_type_name(get_args(annotation)[0])}"
    return str(getattr(annotation, "__name__", annotation))


def _default(item: dataclasses.Field[Any]) -> str:
    if item.default_factory is not dataclasses.MISSING:
        value = item.default_factory()
    elif item.default is dataclasses.MISSING:
        return "required"
    else:
        value = item.default
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value.value if isinstance(value, Enum) else value!r}`".replace("|", "\\|")


def _plural(kind: str) -> str:
    return "criteria" if kind == "criterion" else f"{kind}s"


def _written_pages(folder: Path) -> list[Path]:
    """Pages this tool wrote earlier; pages written by hand are none of its business."""
    return [path for path in folder.glob("*.md") if NOTICE in path.read_text(encoding="utf-8")]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    raise SystemExit(main())
