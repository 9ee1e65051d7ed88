"""The compiled kernels under AddressSanitizer and UndefinedBehaviorSanitizer, in processes of their own."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from paradigms.kernels import cpu

ROOT = Path(__file__).parents[3]
TESTS = Path(__file__).with_name("test_cpu.py")

RUN_TESTS = """
import sys
from pathlib import Path

import pytest


class UseLibrary:
    def pytest_configure(self):
        from paradigms.kernels import cpu

        cpu.LIBRARY = Path(sys.argv[1])
        assert cpu.list_instruction_sets() == ("baseline",)


sys.exit(pytest.main(sys.argv[2:], plugins=[UseLibrary()]))
"""

RUN_CASE = """
import sys
from pathlib import Path

import torch

from paradigms.functional import Geometry, Outside, Terms
from paradigms.kernels import cpu
from paradigms.kernels.problem import Problem

cpu.LIBRARY = Path(sys.argv[1])
x = torch.randn(1, 6, 4, 2, 8)
terms = Terms(x, x, None, None, torch.zeros(2, 15), 1.0)
call, _ = cpu._make_call(Problem(terms, x, Geometry("window", (2, 3)), Outside(None, None), None))
call.point("out", torch.empty_like(x))
call.point("normalizer", torch.empty(1, 6, 4, 2, 2))
{mistake}
call.run(cpu.Task.FORWARD)
"""

MISTAKES = {
    "a read beyond a tensor": ("call.point('rb', torch.zeros(29))", "AddressSanitizer: heap-buffer-overflow"),
    "a division by zero": ("call.c.group = 0", "runtime error: division by zero"),
}


def find_runtimes() -> list[str]:
    """What is to be loaded first: the sanitizer's library, and that of C++, whose functions it replaces."""
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    found = []
    for name in ("libasan.so", "libstdc++.so"):
        command = [*compiler.split(), f"-print-file-name={name}"]
        found.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    return found


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or not cpu.is_available() or not all(map(os.path.isabs, find_runtimes())),
        reason="no sanitizers here",
    ),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the shortest vectors; the code is the same for all."""
    folder = tmp_path_factory.mktemp("sanitized")
    options = ("--sanitize", f"--build-lib={folder}", f"--build-temp={folder / 'objects'}")
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", *options],
        cwd=ROOT,
        env={**os.environ, "PARADIGMS_INSTRUCTION_SETS": "baseline"},
        check=True,
    )
    return folder / "paradigms" / "kernels" / cpu.LIBRARY.name


def run_sanitized(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {
        "LD_PRELOAD": ":".join(find_runtimes()),
        "ASAN_OPTIONS": "detect_leaks=0",  # what Python keeps to the end would be reported
        "OMP_WAIT_POLICY": "passive",
    }
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(library: Path, mistake: str) -> None:
    code, report = MISTAKES[mistake]
    done = run_sanitized(RUN_CASE.format(mistake=code), library)
    assert done.returncode != 0
    assert report in done.stderr


def test_the_tests_of_the_kernels_find_none(library: Path) -> None:
    options = ("-q", "-p", "no:cacheprovider", "--capture=no")  # whatever ends the process is to be seen
    done = run_sanitized(RUN_TESTS, library, *options, TESTS)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert " passed" in done.stdout
