// What training/network/winograd.py calls of universeg_rt._native. Arrays are float32, C-ordered, aligned to 64 bytes where they are maps.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>

#include "network.h"
#include "training.h"

namespace py = pybind11;
using Array = py::array_t<float, py::array::c_style | py::array::forcecast>;

namespace {

// The pool of the last number of threads; one convolution at a time. Never destroyed: a thread may work in it as the process exits.
struct Training {
  std::unique_ptr<universeg::Pool> pool;
  universeg::Turn turn{[this] { new (&pool) std::unique_ptr<universeg::Pool>; }};
};
Training& training = *new Training;

universeg::Pool& pool_of(int threads) {
  if (threads < 1) throw py::value_error("threads must be positive");
  if (!training.pool || training.pool->threads() != threads) training.pool = std::make_unique<universeg::Pool>(threads);
  return *training.pool;
}

void check_aligned(const Array& x) {
  if (reinterpret_cast<uintptr_t>(x.data()) % 64) throw py::value_error("maps are aligned to 64 bytes");
}

universeg::Maps maps(const Array& x, int block) {
  if (x.ndim() != 4 || x.shape(3) < block || x.shape(3) % block || !x.size())
    throw py::value_error("maps are (N,H,W,C), C a multiple of " + std::to_string(block));
  check_aligned(x);
  return {x.data(), (int)x.shape(0), (int)x.shape(1), (int)x.shape(2), (int)x.shape(3)};
}

void convolve(const Array& x, const Array& weights, const std::optional<Array>& bias, py::array_t<float, py::array::c_style>& out, int threads) {
  const auto* kernels = universeg::choose_kernels("auto");
  const auto in = maps(x, kernels->block), to = maps(out, kernels->block);
  if (to.count != in.count || to.height != in.height || to.width != in.width) throw py::value_error("out is of another size than x");
  if (weights.size() != 36L * in.channels * to.channels || (bias && bias->size() != to.channels))
    throw py::value_error("weights are (36,O/block,I,block), bias is (O,)");
  maps(weights, kernels->block);
  const float *w = weights.data(), *b = bias ? bias->data() : nullptr;
  float* y = out.mutable_data();
  py::gil_scoped_release release;
  std::lock_guard<universeg::Turn> lock(training.turn);
  universeg::convolve(*kernels, pool_of(threads), in, w, to.channels, b, y);
}

py::array_t<float> convolve_gradient(const Array& x, const Array& gradient, int threads) {
  const auto* kernels = universeg::choose_kernels("auto");
  const auto in = maps(x, kernels->block), dy = maps(gradient, kernels->block);
  if (dy.count != in.count || dy.height != in.height || dy.width != in.width) throw py::value_error("x and gradient are of one size");
  py::array_t<float> out({36, in.channels, dy.channels});
  float* sums = out.mutable_data();
  py::gil_scoped_release release;
  std::lock_guard<universeg::Turn> lock(training.turn);
  universeg::convolve_gradient(*kernels, pool_of(threads), in, dy, sums);
  return out;
}

// images (T,S,2,H,W), weights (9,2,25,O), add (T,Q,H,W,O), entry_weights (T,Q,S): calls body(maps of a query, its number).
template <typename Body>
void each_query(const Array& images, const Array& weights, const Array& add, const Array& entry_weights, float slope, const Body& body) {
  const auto* kernels = universeg::choose_kernels("auto");
  const bool fit = images.ndim() == 5 && add.ndim() == 5 && entry_weights.ndim() == 3 && weights.ndim() == 4 && images.shape(2) == 2 &&
                   images.shape(0) == add.shape(0) && images.shape(3) == add.shape(2) && images.shape(4) == add.shape(3) &&
                   entry_weights.shape(0) == add.shape(0) && entry_weights.shape(1) == add.shape(1) &&
                   entry_weights.shape(2) == images.shape(1) && weights.shape(0) == 9 && weights.shape(1) == 2 && weights.shape(2) == 25 &&
                   weights.shape(3) == add.shape(4);
  if (!fit || add.shape(4) % kernels->block || add.shape(2) % 2 || add.shape(3) % 2 || add.shape(2) < 4 || add.shape(3) < 4)
    throw py::value_error("images are (T,S,2,H,W), weights (9,2,25,O), add (T,Q,H,W,O), entry_weights (T,Q,S), H and W even");
  check_aligned(weights), check_aligned(add);
  const long queries = add.shape(1), entries = images.shape(1), size = add.shape(2) * add.shape(3), outputs = add.shape(4);
  for (long i = 0; i < add.shape(0) * queries; ++i)
    body(*kernels, universeg::FirstMaps{weights.data(), images.data() + i / queries * entries * 2 * size, add.data() + i * size * outputs,
                                        entry_weights.data() + i * entries, (int)entries, (int)add.shape(2), (int)add.shape(3),
                                        (int)outputs, slope}, i);
}

void check_first(const Array& x, long size) {
  if (x.size() != size) throw py::value_error("a map has another size");
  check_aligned(x);
}

using Out = py::array_t<float, py::array::c_style>;

void first_forward(const Array& images, const Array& weights, const Array& add, const Array& entry_weights, float slope, Out& pooled,
                   Out& mean, int threads) {
  check_first(mean, add.size());
  check_first(pooled, add.size() * images.shape(1) / 4);
  float *p = pooled.mutable_data(), *m = mean.mutable_data();
  py::gil_scoped_release release;
  std::lock_guard<universeg::Turn> lock(training.turn);
  each_query(images, weights, add, entry_weights, slope, [&](const universeg::Kernels& k, const universeg::FirstMaps& f, long i) {
    const long size = (long)f.height * f.width * f.outputs;
    universeg::first_forward(k, pool_of(threads), f, p + i * f.entries * (size / 4), m + i * size);
  });
}

Out first_backward(const Array& images, const Array& weights, const Array& add, const Array& entry_weights, float slope,
                   const Array& pooled, const Array& mean, Out& add_gradient, int threads) {
  check_first(mean, add.size());
  check_first(add_gradient, add.size());
  check_first(pooled, add.size() * images.shape(1) / 4);
  Out sums({9, 2, 25, (int)weights.shape(3)});
  float *a = add_gradient.mutable_data(), *s = sums.mutable_data();
  std::fill_n(s, sums.size(), 0.f);
  {
    py::gil_scoped_release release;
    std::lock_guard<universeg::Turn> lock(training.turn);
    each_query(images, weights, add, entry_weights, slope, [&](const universeg::Kernels& k, const universeg::FirstMaps& f, long i) {
      const long size = (long)f.height * f.width * f.outputs;
      universeg::first_backward(k, pool_of(threads), f, pooled.data() + i * f.entries * (size / 4), mean.data() + i * size, a + i * size, s);
    });
  }
  return sums;
}

}  // namespace

void add_training(py::module_& m) {
  m.def("block", [] { return universeg::choose_kernels("auto")->block; }, "Channels of convolve() are multiples of this.");
  m.def("convolve", &convolve, py::arg("x"), py::arg("weights"), py::arg("bias"), py::arg("out"), py::arg("threads"),
        "3x3 convolution of (N,H,W,I) by transformed weights (36,O/block,I,block) into out (N,H,W,O).");
  m.def("convolve_gradient", &convolve_gradient, py::arg("x"), py::arg("gradient"), py::arg("threads"),
        "The transformed weights' gradient (36,I,O) of convolve(), from x (N,H,W,I) and out's gradient.");
  m.def("first_forward", &first_forward, py::arg("images"), py::arg("weights"), py::arg("add"), py::arg("entry_weights"), py::arg("slope"),
        py::arg("pooled"), py::arg("mean"), py::arg("threads"),
        "The first block's support branch into pooled (T,Q,S,H/2,W/2,O) and mean (T,Q,H,W,O).");
  m.def("first_backward", &first_backward, py::arg("images"), py::arg("weights"), py::arg("add"), py::arg("entry_weights"), py::arg("slope"),
        py::arg("pooled"), py::arg("mean"), py::arg("add_gradient"), py::arg("threads"),
        "From both results' gradients to add's (written) and the weights' (9,2,25,O).");
}
