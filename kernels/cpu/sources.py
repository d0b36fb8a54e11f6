"""What the native CPU part is compiled from, stated once: setup.py and the sanitizers' tests read it. Paths lie in this
folder."""

import platform

ROOMS = ("arithmetic", "inference", "training", "bindings", "selftest")  # each is on the include path
FLAGS = ("-std=c++17", "-O3", "-fvisibility=hidden", "-Wno-psabi", "-pthread")
LIBRARY = {  # file: options of its own
    "arithmetic/kernels_plain.cpp": (),
    "arithmetic/instructions.cpp": (),
    "arithmetic/memory.cpp": (),
    "arithmetic/pool.cpp": (),
    "inference/loops.cpp": (),
    "inference/network.cpp": (),
    "inference/prepare.cpp": (),
    "inference/static_network.cpp": (),
    "inference/weights.cpp": (),
    "inference/workspace.cpp": (),
    "training/training.cpp": (),
}
if platform.machine() in ("x86_64", "AMD64"):
    LIBRARY |= {"arithmetic/kernels_avx2.cpp": ("-mavx2", "-mfma"), "arithmetic/kernels_avx512.cpp": ("-mavx512f",)}
BINDINGS = {"bindings/module.cpp": (), "bindings/static_module.cpp": (), "bindings/training_module.cpp": ()}
