"""Print one of README's commands: the code block after ``<!-- command: NAME -->``."""

import re
import sys
from pathlib import Path

name = sys.argv[1]
text = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
match = re.search(rf"<!-- command: {re.escape(name)} -->\s*```(?:bash|sh)\n(.*?)\n```", text, re.DOTALL)
if match is None:
    sys.exit(f"README.md has no command block named {name!r}")
command = match.group(1)
if "\n" in command:
    sys.exit(f"README.md: command {name!r} is more than one line")
print(command)
