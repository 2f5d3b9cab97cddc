"""The behaviour recorded from Ray, an area of the suite at a time.

The one thing to know: a case that differs is a fault unless `CONFORMANCE.md` lists it by name with the
reason; one that is listed and does not differ is a fault, too. This file must not know any case.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]
SUITE = PACKAGE.parents[1] / "tests" / "conformance"
AREAS = sorted(path.stem for path in (SUITE / "cases").glob("*.py"))


def listed(area):
    """The cases of an area that differ for a reason."""
    file = PACKAGE / "CONFORMANCE.md"
    text = file.read_text() if file.exists() else ""
    return set(re.findall(rf"`({area}::\w+)`", text))


@pytest.mark.parametrize("area", AREAS)
def test_an_area_does_what_ray_did(area):
    command = [sys.executable, "run.py", "--module", "raylet", "--against", "expected", "--only", area]
    done = subprocess.run(command, cwd=SUITE, capture_output=True, text=True)
    assert re.search(r"^\d+ passed, \d+ failed$", done.stdout, re.MULTILINE), done.stdout + done.stderr
    differing = set(re.findall(r"^FAIL (\w+::\w+)$", done.stdout, re.MULTILINE))
    assert differing == listed(area), done.stdout
    assert "session ended badly" not in done.stdout and "did not exit" not in done.stdout, done.stdout
