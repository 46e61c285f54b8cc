"""Compare this package with the golden numbers of fixture folders, one line per array.

Usage: check_golden.py FOLDER... [--json]

A folder is known by its name: ``fairseq_signals_classifier_seed7`` is checked by the module of
``golden_checks`` with the longest name it starts with. A folder that holds one sub-folder per case is checked
case by case; a single case is known by its parent's name. Exit status: 0 all passed, 1 a comparison failed,
2 a folder is unknown or lacks files.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import traceback
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run as a script from anywhere, against the checkout it lies in
    sys.path.insert(0, str(ROOT))

from fairseq_ecg.errors import ConfigError, FairseqEcgError  # noqa: E402
from tools.golden_checks.report import Line, Report  # noqa: E402

SYSTEMS = sorted(
    path.stem
    for path in (ROOT / "tools" / "golden_checks").glob("*.py")
    if path.stem not in ("__init__", "report")
)


def system_of(name: str) -> str | None:
    """The checker whose name is the longest prefix of a folder's name."""
    matches = [system for system in SYSTEMS if name == system or name.startswith(f"{system}_")]
    return max(matches, key=len, default=None)


def cases_of(folder: Path) -> tuple[str, list[Path]]:
    """The checker of a folder and the folders to give it: its cases, or itself.

    Raises:
        ConfigError: the folder does not exist or no checker knows it.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    system = system_of(folder.name)
    if system is None:
        system = system_of(folder.parent.name)
        if system is None:
            raise ConfigError(
                f"{folder.name}: no checker's name begins this folder's or its parent's name; "
                f"known: {', '.join(SYSTEMS)}"
            )
        return system, [folder]
    if (folder / "config.json").exists() or (folder / "io.npz").exists():
        return system, [folder]
    cases = sorted(path for path in folder.iterdir() if path.is_dir() and (path / "config.json").exists())
    return system, cases or [folder]


def check_folder(folder: Path) -> Report:
    """Run the checker of one folder over all its cases.

    Raises:
        FairseqEcgError, OSError, KeyError: the folder is unknown, or a file or array of it is missing.
    """
    system, cases = cases_of(folder)
    module: ModuleType = importlib.import_module(f"tools.golden_checks.{system}")
    whole = Report()
    for case in cases:
        report = Report()
        try:
            module.check(case, report)
        except (FairseqEcgError, OSError, KeyError):
            raise
        except (
            Exception
        ) as error:  # a defect of the checker or the package fails this case, not the other ones
            traceback.print_exc()
            report.fail("checker", f"{type(error).__name__}: {error}")
        prefix = f"{case.name}/" if case != folder.resolve() else ""
        whole.lines += [
            Line(
                f"{prefix}{line.name}", line.abs_error, line.rel_error, line.tolerance, line.passed, line.note
            )
            for line in report.lines
        ]
    return whole


def print_report(folder: Path, report: Report) -> None:
    width = max((len(line.name) for line in report.lines), default=0)
    print(f"{folder}\n  {'array':<{width}}  {'abs error':>9}  {'rel error':>9}  {'tolerance':<16}  result")
    for line in report.lines:
        result = "pass" if line.passed else "FAIL"
        note = f"  {line.note}" if line.note else ""
        print(
            f"  {line.name:<{width}}  {line.abs_error:9.2e}  {line.rel_error:9.2e}  "
            f"{line.tolerance:<16}  {result}{note}"
        )
    failed = sum(not line.passed for line in report.lines)
    verdict = "pass" if report.passed else "FAIL"
    print(
        f"{verdict}: {folder.resolve().name}, {len(report.lines)} arrays compared, {failed} failed",
        flush=True,
    )


def plain_line(line: Line) -> dict[str, object]:
    """JSON has no infinity: an error that could not be measured is null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in line.to_dict().items()
    }


def main(argv: list[str] | None = None) -> int:
    description, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="check_golden.py",
        description=description,
        epilog=rest.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of the tables")
    parser.add_argument(
        "--known", action="store_true", help="name the folders of systems without a checker, and go on"
    )
    args = parser.parse_args(argv)
    status, results = 0, []
    folders = args.folders
    if args.known:
        unknown = [folder for folder in folders if system_of(folder.resolve().name) is None]
        folders = [folder for folder in folders if folder not in unknown]
        if unknown:
            print(f"not checked, for want of a checker: {', '.join(folder.name for folder in unknown)}")
    for folder in folders:
        try:
            report = check_folder(folder)
        except (FairseqEcgError, OSError, KeyError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            print(f"check_golden: {folder}: {reason}", file=sys.stderr)
            status = 2
            continue
        if not report.passed:
            status = max(status, 1)
        if args.json:
            lines = [plain_line(line) for line in report.lines]
            results.append({"folder": str(folder), "passed": report.passed, "arrays": lines})
        else:
            print_report(folder, report)
    if args.json:
        print(json.dumps(results, indent=1))
    return status


if __name__ == "__main__":
    sys.exit(main())
