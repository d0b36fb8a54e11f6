// The kernels for processors with AVX2 and FMA.
#define VECTOR_BYTES 32
#define KERNELS_NAME "avx2"
#include "kernels_impl.h"

namespace universeg {
const Kernels* avx2_kernels() { return &KERNELS; }
}  // namespace universeg
