"""Loading CUDA and cuDNN for ONNX Runtime, with a stand-in for its `preload_dlls`."""

from __future__ import annotations

import sys

from universeg_rt.runners.gpu.provider import preload


def test_libraries_that_came_with_pytorch_are_found_wherever_they_lie(tmp_path, monkeypatch, capsys):
    folders = [tmp_path / "torch" / "nvidia" / name / "lib" for name in ("cu13", "cudnn")]
    for folder in folders:
        folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "runtime"), str(tmp_path / "torch")])
    loaded = []

    def preload_dlls(cuda=True, cudnn=True, msvc=True, directory=None):
        print("Failed to load libcufft.so.12")
        loaded.append((cuda, cudnn, directory))

    preload(preload_dlls)
    assert loaded == [(True, False, str(folders[0])), (False, True, str(folders[1])), (True, True, None)]
    assert capsys.readouterr().out == ""


def test_what_fails_to_load_is_left_to_the_session(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    def preload_dlls(**_):
        raise RuntimeError("Invalid parameter of directory")

    preload(preload_dlls)
