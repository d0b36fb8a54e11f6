"""Installs the five top-level folders as one package, so that nothing called `export` lands in site-packages."""

from setuptools import find_packages, setup

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

setup(packages=packages, package_dir=TOP_LEVEL)
