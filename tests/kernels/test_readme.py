"""What kernels/README.md shows is true: its C++ compiles, its commands exist, its kernel tables match the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from universeg_rt.kernels.support_mean.host import module as host

FOLDER = Path(__file__).resolve().parents[2] / "kernels"
TEXT = (FOLDER / "README.md").read_text()

# Enough of the CUDA runtime for the snippet: what it declares, not what it does.
AROUND = """
#include <cstddef>
#include <cstdio>
int cudaMalloc(void**, std::size_t);
%s
void call(void* stream) {
%s
}
"""


def test_the_cpp_example_compiles(tmp_path):
    import shutil

    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler was found")
    code = re.search(r"```cpp\n(.*?)```", TEXT, re.S).group(1)
    include, body = code.split("\n", 1)
    (tmp_path / "example.cpp").write_text(AROUND % (include, body))
    done = subprocess.run([
        "c++", "-std=c++11", "-Wall", "-Werror", "-fsyntax-only", "-I", FOLDER / "support_mean" / "cuda",
        tmp_path / "example.cpp"
    ], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "c.c").write_text('#include "support_mean.h"\nint main(void) { return SUPPORT_MEAN_OK; }\n')
    assert subprocess.run([
        "cc", "-std=c99", "-Wall", "-Werror", "-fsyntax-only", "-I", FOLDER / "support_mean" / "cuda", tmp_path / "c.c"
    ]).returncode == 0


def test_the_commands_exist():
    for name in sorted(set(re.findall(r"python -m (universeg_rt\.kernels[.\w]+)", TEXT))):
        done = subprocess.run([sys.executable, "-m", name, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, name
        for line in re.findall(rf"python -m {re.escape(name)}([^\n#`]*)", TEXT):
            for option in re.findall(r"--[a-z-]+", line):
                assert option in done.stdout, (name, option)


def test_the_tables_list_every_kernel():
    tables = re.findall(r"\| \| what changes .*?\n\n", TEXT, re.S)
    assert len(tables) == 2
    for table, form in zip(tables, ("mean", "conv_pool")):
        assert tuple(int(n) for n in re.findall(r"^\| (\d) \|", table, re.M)) == host.KERNELS[form]
