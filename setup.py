"""Installs the five top-level folders as one package, so that nothing called `export` lands in site-packages."""

import os
import subprocess
import sys

from setuptools import Distribution, find_packages, setup
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

NATIVE = os.environ.get("UNIVERSEG_BUILD_KERNELS") == "1"  # off: installing needs no compiler


class BuildPy(build_py):
    """With UNIVERSEG_BUILD_KERNELS=1 also builds the native parts of kernels/ that can be built here (kernels/build.py)."""

    def run(self):
        super().run()
        if NATIVE:
            folder = "kernels" if self.editable_mode else os.path.join(self.build_lib, "universeg_rt", "kernels")
            subprocess.run([sys.executable, os.path.join("kernels", "build.py"), "--out", folder], check=True)


class NativeDistribution(Distribution):
    """Names the wheel after this platform when it holds compiled libraries."""

    def has_ext_modules(self):
        return NATIVE


setup(packages=packages, package_dir=TOP_LEVEL, cmdclass={"build_py": BuildPy}, distclass=NativeDistribution)
