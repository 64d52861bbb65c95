"""Stands for adb and a phone behind it: writes down each call, and answers as the file FAKE_ADB says.

{"log": FILE, "state": [STATUS, TEXT], "answers": [[REGULAR EXPRESSION, STATUS, TEXT], ...]}: the first expression that
is found in a shell command answers it; where TEXT is a list, the calls take its elements in turns.
"""

import json
import os
import re
import sys
from pathlib import Path


def answer(arguments: list[str]) -> tuple[int, str]:
    """Status and output of one call."""
    script = json.loads(Path(os.environ["FAKE_ADB"]).read_text())
    log = Path(script["log"])
    calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    with log.open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    if arguments[0] == "-s":
        arguments = arguments[2:]
    if arguments[0] == "get-state":
        return script["state"][0], script["state"][1]
    if arguments[0] == "push":
        return (0, "1 file pushed") if Path(arguments[1]).is_file() else (1, "cannot stat")
    for pattern, status, text in script["answers"]:
        if re.search(pattern, arguments[1]):
            if isinstance(text, list):
                earlier = sum(bool(call[-2:-1] == ["shell"] and re.search(pattern, call[-1])) for call in calls)
                text = text[earlier % len(text)]
            return status, text
    return 0, ""


if __name__ == "__main__":
    status, text = answer(sys.argv[1:])
    print(text, file=sys.stderr if status else sys.stdout)
    sys.exit(status)
