"""Builds the compiled kernels of the CPU: one library for all instruction sets, optional, without Python's interface.

Everything else about the package stands in pyproject.toml. Where there is no compiler the package installs all the
same, and attention on the CPU runs in torch.
"""

import os
import platform
import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = Path("paradigms/kernels/native")
SOURCES = runpy.run_path("paradigms/kernels/sources.py")["digest_sources"]()
WARNINGS = ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-ignored-attributes"]
COMMON = ["-O2", "-g0", "-std=c++17", "-fPIC", "-fvisibility=hidden", *WARNINGS]
STRICT = ["-Werror", "-fsyntax-only"]
SANITIZERS = ["-O0", "-g1", "-fno-wrapv", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
OPENMP = ["-fopenmp"]
X86_64 = {
    "avx512": (64, "-mavx512f -mavx512vl -mavx512bw -mavx512dq -mavx2 -mfma -mprefer-vector-width=512"),
    "avx2": (32, "-mavx2 -mfma"),
}
INSTRUCTION_SETS = {"baseline": (16, ""), **(X86_64 if platform.machine() in ("x86_64", "AMD64") else {})}
"""Bytes of a vector and the compiler's flags. The best that a machine has is chosen when the library is loaded."""

WANTED = os.environ.get("PARADIGMS_INSTRUCTION_SETS", " ".join(INSTRUCTION_SETS)).split()
"""Fewer build faster; `baseline` must be among them."""

if not {"baseline"} <= set(WANTED) <= set(INSTRUCTION_SETS):
    raise SystemExit(f"PARADIGMS_INSTRUCTION_SETS: `baseline` and any of {list(INSTRUCTION_SETS)}, got {WANTED}")


class BuildKernels(build_ext):
    """Compiles the same source once for each instruction set and links the objects."""

    user_options: ClassVar = [
        *build_ext.user_options,
        ("strict", None, "report the compiler's warnings as errors, build nothing"),
        ("sanitize", None, "build with the sanitizers of addresses and of undefined behaviour"),
    ]
    boolean_options: ClassVar = [*build_ext.boolean_options, "strict", "sanitize"]

    def initialize_options(self) -> None:
        """As `pip install` builds."""
        super().initialize_options()
        self.strict = self.sanitize = False

    def get_ext_filename(self, fullname: str) -> str:
        """No tag of a Python: the library is called through ctypes."""
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def build_extension(self, ext: Extension) -> None:
        """Called for the one extension that there is."""
        ext.optional = not (self.strict or self.sanitize)
        objects, threads = self._compile_library()
        with ThreadPoolExecutor() as pool:  # each waits for a process of the compiler
            objects += [made for part in pool.map(self._compile_kernels, WANTED) for made in part]
        if self.strict:
            return
        target = self.get_ext_fullpath(ext.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        flags = threads + (SANITIZERS if self.sanitize else [])
        self.compiler.link_shared_object(objects, target, extra_postargs=flags, target_lang="c++")

    def _compile_library(self) -> tuple[list[str], list[str]]:
        """And how to link it: with OpenMP, whose threads are torch's own, or without where the compiler has none."""
        sources = [("PARADIGMS_SOURCES", f'"{SOURCES}"')]
        try:
            return self._compile("library.cpp", "library", sources, OPENMP), OPENMP
        except CompileError:
            return self._compile("library.cpp", "library", sources), ["-pthread"]

    def _compile_kernels(self, instruction_set: str) -> list[str]:
        num_bytes, flags = INSTRUCTION_SETS[instruction_set]
        macros = [("PARADIGMS_ISA", instruction_set), ("PARADIGMS_VECTOR_BYTES", str(num_bytes))]
        return self._compile("kernels.cpp", instruction_set, macros, flags.split())

    def _compile(
        self, source: str, folder: str, macros: list[tuple[str, str]] | None = None, flags: list[str] | None = None
    ) -> list[str]:
        asked = STRICT if self.strict else SANITIZERS if self.sanitize else []
        return self.compiler.compile(
            [str(NATIVE / source)],
            output_dir=str(Path(self.build_temp) / folder),
            macros=macros,
            extra_postargs=COMMON + (flags or []) + asked,
        )


class AnyPython(bdist_wheel):
    """One wheel for every Python and torch on a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """The platform's alone."""
        return "py3", "none", super().get_tag()[2]


setup(
    packages=[*find_packages(include=["harness*", "paradigms*"]), "harness.experiments"],  # the latter: experiments/
    ext_modules=[Extension("paradigms.kernels._native", sources=[str(NATIVE / "kernels.cpp")], optional=True)],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": AnyPython},
)
