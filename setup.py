"""Installs the five top-level folders as one package, so that nothing called `export` lands in site-packages.

The native CPU runner is compiled where a C++ compiler is found and left out, with a warning, where none is: installing
never fails for it. UNIVERSEG_RT_NATIVE=0 leaves it out, UNIVERSEG_RT_NATIVE=1 fails where it cannot be built (its tests
then fail in place of being skipped), UNIVERSEG_RT_BUILD_KERNELS=1 also builds the CUDA kernels that can be built.
"""

import glob
import os
import runpy
import subprocess
import sys

from setuptools import Distribution, Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

TOP_LEVEL = {
    "universeg_rt": "universeg_rt",
    "universeg_rt.export": "export",
    "universeg_rt.kernels": "kernels",
    "universeg_rt.training": "training",
    "universeg_rt.benchmarks": "benchmarks",
}

packages = []
for package, folder in TOP_LEVEL.items():
    packages += [package] + [f"{package}.{name}" for name in find_packages(folder)]

KERNELS = os.environ.get("UNIVERSEG_RT_BUILD_KERNELS") == "1"  # off: installing needs no compiler
NATIVE = os.environ.get("UNIVERSEG_RT_NATIVE") != "0"
REQUIRED = os.environ.get("UNIVERSEG_RT_NATIVE") == "1"

CPU = "kernels/cpu/"
NATIVE_PARTS = runpy.run_path(CPU + "sources.py")
SOURCES = NATIVE_PARTS["LIBRARY"] | NATIVE_PARTS["BINDINGS"]


class BuildPy(build_py):
    """With UNIVERSEG_RT_BUILD_KERNELS=1 also builds the native parts of kernels/ that can be built here
    (kernels/build.py)."""

    def run(self):
        super().run()
        if KERNELS:
            folder = "kernels" if self.editable_mode else os.path.join(self.build_lib, "universeg_rt", "kernels")
            subprocess.run([sys.executable, os.path.join("kernels", "build.py"), "--out", folder], check=True)


class BuildExt(build_ext):
    """Compiles each file of the native runner for its own instruction set; warns where it is left out."""

    def build_extension(self, ext):
        try:
            self._build(ext)
        except Exception as error:  # compilers, and what looks for them, raise many types
            if REQUIRED:
                raise
            print(
                f"WARNING: universeg_rt is built without its native CPU runner ({type(error).__name__}: {error}). "
                "runner=\"auto\" will "
                "take ONNX Runtime, which is slower. Install GCC or Clang and reinstall universeg_rt to have it; "
                "UNIVERSEG_RT_NATIVE=0 leaves it out on purpose.", file=sys.stderr, flush=True)

    def _build(self, ext):
        import pybind11

        if self.compiler.compiler_type != "unix":
            raise RuntimeError("the native runner needs GCC or Clang; without it ONNX Runtime is used")
        compile_one = self.compiler._compile

        def compile_for(obj, src, *rest):
            # rest: extension, cc_args, extra_postargs, pp_opts
            return compile_one(obj, src, *rest[:2], [*rest[2], *SOURCES[os.path.relpath(src, CPU)]], *rest[3:])

        self.compiler._compile = compile_for
        ext.include_dirs.append(pybind11.get_include())
        try:
            super().build_extension(ext)
        finally:
            self.compiler._compile = compile_one


class NativeDistribution(Distribution):
    """Names the wheel after this platform when it holds compiled libraries."""

    def has_ext_modules(self):
        return KERNELS or NATIVE


native = Extension(
    "universeg_rt._native",
    [CPU + name for name in SOURCES],
    depends=sorted(glob.glob(CPU + "**/*.h", recursive=True)),
    include_dirs=[CPU + room for room in NATIVE_PARTS["ROOMS"]],
    extra_compile_args=[*NATIVE_PARTS["FLAGS"],
                        "-g0"],  # Python's own flags ask for debug information, 95 % of the library
    extra_link_args=["-pthread"],
    language="c++",
    optional=not REQUIRED)
setup(packages=packages, package_dir=TOP_LEVEL, ext_modules=[native] if NATIVE else [],
      cmdclass={"build_py": BuildPy, "build_ext": BuildExt}, distclass=NativeDistribution)
