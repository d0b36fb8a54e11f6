"""Everything that runs the network, behind one face: `prepare` a support, then `run` queries, arrays in and arrays
out."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from universeg_rt.bundle.bundle import Bundle
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.errors import RunnerError
from universeg_rt.kernels.support_mean.check.steps import one_line
from universeg_rt.runners import open_runner
from universeg_rt.runners.base import Runner
from universeg_rt.runners.gpu.onnxruntime import OnnxRuntimeCuda
from universeg_rt.runners.gpu.provider import PROVIDER
from universeg_rt.runners.libraries import import_onnxruntime

from . import artefacts, chosen, machine
from .arithmetic import FLOATS, torch_type
from .captured import Captured
from .folded_torch import FoldedInference, kernel_support_mean


class Contender:
    """precision: fp32, tf32, fp16 or int8. side: whose work it does, `reference` or `folded` (export/folds/cost.py).

    prepare(support (K,S,2,H,W), weights (K,S)) -> anything; run(that, queries (B,1,H,W)) -> logits (B,K,1,H,W) on the
    host.
    """

    precision, side = "fp32", "folded"

    def prepare(self, support: np.ndarray, weights: np.ndarray) -> object:
        raise NotImplementedError

    def run(self, prepared: object, queries: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class TorchReference(Contender):
    """The reference network in PyTorch, one member after the other, as published; its support lies on the device."""

    side = "reference"

    def __init__(self, state: dict, precision: str, compiled: bool = False, channels_last: bool = False) -> None:
        from universeg_rt.training.network.reference import UniverSeg

        torch = self.torch = state["torch"]
        self.precision, self.device = precision, state["device"]
        self.dtype = torch_type(torch, precision)
        network = UniverSeg(state["spec"]).eval()
        network.load_state_dict({key: torch.from_numpy(value) for key, value in state["weights"].items()})
        self.network = network.to(self.device, self.dtype)
        if channels_last:  # of the weights: the maps follow them from the first convolution on
            self.network.to(memory_format=torch.channels_last)
        if compiled:
            self.network = torch.compile(self.network, dynamic=False, backend=state["options"].compile_backend)

    def prepare(self, support, weights):
        torch = self.torch
        x = torch.from_numpy(support).to(self.device, self.dtype)
        return x, torch.from_numpy(weights).to(self.device, self.dtype)

    def run(self, prepared, queries):
        torch = self.torch
        machine.set_tf32(torch, self.precision == "tf32")
        with torch.inference_mode():
            support, weights = prepared
            q = torch.from_numpy(queries).to(self.device, self.dtype)
            batch, out = len(q), []
            for x, w in zip(support, weights):
                x, w = x.expand(batch, *x.shape), w.expand(batch, -1)
                out.append(self.network(q, x[:, :, :1], x[:, :, 1:], w))
            return torch.stack(out, dim=1).float().cpu().numpy()


class TorchFolded(Contender):
    """Our folded network in PyTorch, captured as a CUDA graph; its support-mean operations by PyTorch or by our
    kernels."""

    def __init__(self, state: dict, precision: str, kernels: bool = False, channels_last: bool = False) -> None:
        torch = self.torch = state["torch"]
        self.state, self.precision, self.device = state, precision, state["device"]
        self.dtype = torch_type(torch, precision)
        support_mean = None
        if kernels:
            if "kernel_device" not in state:
                raise RunnerError(state.get("no_kernels", "the kernels were not built"))
            support_mean = kernel_support_mean(state["kernel_device"], channels_last)
        self.network = FoldedInference(state["spec"], state["weights"], self.device, self.dtype, support_mean,
                                       channels_last)

    def prepare(self, support, weights):
        torch = self.torch
        machine.set_tf32(torch, self.precision == "tf32")
        with torch.inference_mode():
            x = torch.from_numpy(support).to(self.device, self.dtype)
            return {"prepared": self.network.prepare(x, torch.from_numpy(weights).to(self.device)), "graphs": {}}

    def run(self, prepared, queries):
        torch = self.torch
        machine.set_tf32(torch, self.precision == "tf32")
        with torch.inference_mode():
            if self.device != "cuda":
                return self._forward(prepared["prepared"], torch.from_numpy(queries)).numpy()
            runs = prepared["graphs"].setdefault(queries.shape, [0, None])
            runs[0] += 1
            if runs[1] is None and runs[0] > 1:  # a support that is used once is not worth a capture
                if self.state.get("graph_pool") is None:  # one for all graphs of a cell: they never run at once
                    self.state["graph_pool"] = torch.cuda.graph_pool_handle()
                runs[1] = Captured(partial(self._forward, prepared["prepared"]), queries.shape, self.device,
                                   self.state["graph_pool"])
            if runs[1] is None:
                return self._forward(prepared["prepared"], torch.from_numpy(queries).to(self.device)).cpu().numpy()
            return runs[1](queries)

    def _forward(self, prepared, query):
        return self.network.forward(query.to(self.dtype), prepared).float()


class OfRunner(Contender):
    """One of the SDK's runners."""

    def __init__(self, runner: Runner, precision: str) -> None:
        self.runner, self.precision = runner, precision

    def prepare(self, support, weights):
        return self.runner.prepare(support, weights)

    def run(self, prepared, queries):
        return self.runner.run(prepared, queries)


class PlainOnnx(Contender):
    """The plain export of the reference on ONNX Runtime, one member after the other; its support lies on the device."""

    side = "reference"

    def __init__(self, state: dict, tf32: bool) -> None:
        onnxruntime = import_onnxruntime()
        if not state.get("plain"):
            raise RunnerError("there is no plain export of the reference")
        self.ort, self.files, self.sessions = onnxruntime, state["plain"], {}
        self.precision = "tf32" if tf32 else "fp32"
        self.gpu = state["device"] == "cuda"
        self.providers = [(PROVIDER, {"use_tf32": str(int(tf32))})] if self.gpu else ["CPUExecutionProvider"]
        if self.gpu:
            OnnxRuntimeCuda(ModelBytes.of_file(next(iter(self.files.values()))), None,
                            graphs=False)  # refuses where the provider does not start

    def prepare(self, support, weights):
        if not np.allclose(weights, 1 / weights.shape[1]):
            raise RunnerError("a plain export has equal weights only")
        entries, place = support.shape[1], ("cuda", 0) if self.gpu else ("cpu", 0)
        if entries not in self.sessions:
            if entries not in self.files:
                raise RunnerError(f"no plain export of S = {entries}")
            options = self.ort.SessionOptions()
            options.log_severity_level = 3
            self.sessions = {
                entries: self.ort.InferenceSession(str(self.files[entries]), options, providers=self.providers)
            }
        members = []
        for x in support:
            binding = self.sessions[entries].io_binding()
            for name, channel in (("support_images", slice(0, 1)), ("support_labels", slice(1, 2))):
                value = self.ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(x[None, :, channel]), *place)
                binding.bind_ortvalue_input(name, value)
            binding.bind_output("logits", "cpu")
            members.append(binding)
        return self.sessions[entries], members

    def run(self, prepared, queries):
        session, members = prepared
        out = []
        for query in queries:
            row = []
            for binding in members:
                binding.bind_cpu_input("query", np.ascontiguousarray(query[None]))
                session.run_with_iobinding(binding)
                row.append(binding.copy_outputs_to_cpu()[0][0])
            out.append(np.stack(row))
        return np.stack(out)


def run_contenders(state: dict, entry: dict) -> None:
    """Starts all that can be started; of the others the reason is kept."""
    found: dict[str, Contender] = {}
    entry["started"], entry["skipped"] = [], {}
    wanted = state["options"].contenders
    artefacts.find_earlier(state)

    def start(name: str, make: Callable[[], Contender]) -> None:
        if why := chosen.left_out(state["options"], name):
            entry["skipped"][name] = why
            return
        try:
            found[name] = make()
        except Exception as error:  # each library has errors of its own; the reason is what counts here
            entry["skipped"][name] = one_line(error)
            state["say"](f"{name}: skipped, {one_line(error)}")

    for precision in FLOATS:
        start(f"reference {precision}", partial(TorchReference, state, precision))
    start("reference fp16 nhwc", partial(TorchReference, state, "fp16", channels_last=True))
    for precision in ("tf32", "fp16"):
        name = f"torch.compile {precision}"
        if state["options"].compile or any(part in name for part in wanted or ()):
            start(name, partial(_compiled, state, precision))
        else:
            entry["skipped"][name] = "left out: it compiles anew for every shape, for minutes (--compile)"
    for precision in FLOATS:
        start(f"folded torch {precision}", partial(TorchFolded, state, precision))
        start(f"folded torch {precision} kernels", partial(TorchFolded, state, precision, kernels=True))
    start("folded torch fp16 nhwc", partial(TorchFolded, state, "fp16", channels_last=True))
    start("folded torch fp16 nhwc kernels", partial(TorchFolded, state, "fp16", kernels=True, channels_last=True))
    for tf32 in (False, True):
        start(f"plain onnxruntime {'tf32' if tf32 else 'fp32'}", partial(PlainOnnx, state, tf32))
    _start_onnxruntime(state, start)
    _start_engines(state, start)
    state["contenders"] = found
    entry["started"] = list(found)
    entry["passed"] = bool(found)


def _start_onnxruntime(state: dict, start: Callable) -> None:
    bundle, gpu = state.get("bundle"), state["device"] == "cuda"

    def of(precision: str, **options) -> Contender:
        if bundle is None:
            raise RunnerError("there is no bundle")
        runner = OnnxRuntimeCuda(bundle.load(precision, "predict"), bundle.load(precision, "prepare"),
                                 **options, **({} if gpu else {"provider": "CPUExecutionProvider"}))
        runner.precision = precision
        return OfRunner(runner, "tf32" if options.get("tf32") else precision)

    start("onnxruntime fp32", lambda: of("fp32"))
    start("onnxruntime tf32", lambda: of("fp32", tf32=True))
    start("onnxruntime fp16", lambda: of("fp16"))
    start("onnxruntime fp16 nhwc", lambda: of("fp16", nhwc=True))
    start("onnxruntime fp16 no graph", lambda: of("fp16", graphs=False))
    start("onnxruntime int8", lambda: of("int8"))


def _start_engines(state: dict, start: Callable) -> None:
    def of(builder: str, precision: str, folder: Path) -> Contender:
        return OfRunner(open_runner(Bundle.open(folder), builder, precision), precision)

    for label, built in state.get("engine_bundles", {}).items():
        start(label, partial(of, *built))
    for builder in ("tensorrt", "tensorrt-rtx"):
        if not any(label.startswith(f"{builder} ") for label in state.get("engine_bundles", {})):
            def refuse() -> Contender:
                raise RunnerError("there is no engine; see the step engines")

            start(builder, refuse)


def _compiled(state: dict, precision: str) -> Contender:
    if state["device"] == "cuda" and importlib.util.find_spec("triton") is None:
        raise RunnerError("triton is not installed, which torch.compile needs on a GPU (pip install triton)")
    return TorchReference(state, precision, compiled=True)
