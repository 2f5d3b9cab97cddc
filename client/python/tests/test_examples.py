"""The programs that a newcomer tries first, as they stand.

The one thing to know: the README's program is read out of the README. This file must not change a program but for
the one line that the README says.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]
README = PACKAGE.parents[1] / "README.md"
SUM = sum(x * x for x in range(10_000))


def said(*command: object) -> str:
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("ways", [[], ["-m", "raylet", "run"]], ids=["raylet", "ray"])
def test_the_first_program_of_the_readme_runs(tmp_path: Path, ways: list[str]) -> None:
    text = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    assert text.startswith("import raylet as ray ")
    program = tmp_path / "program.py"
    program.write_text(text.replace("import raylet as ray", "import ray") if ways else text)
    assert said(*ways, program) == f"{SUM}\n"


def test_the_first_example_runs() -> None:
    assert said(PACKAGE / "examples/first.py").startswith(f"{SUM:,} after ")
