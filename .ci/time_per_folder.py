"""Print how long the tests of each folder took, from a junit file."""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter

seconds: Counter[str] = Counter()
count: Counter[str] = Counter()
for case in ElementTree.parse(sys.argv[1]).getroot().iter("testcase"):
    folder = ".".join((case.get("classname") or "?").split(".")[:2])
    seconds[folder] += float(case.get("time") or 0.0)
    count[folder] += 1
for folder, total in seconds.most_common():
    print(f"{total:8.1f} s  {count[folder]:5d} tests  {folder}")
