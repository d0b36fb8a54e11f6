// The kernels for processors with AVX-512F.
#define VECTOR_BYTES 64
#define KERNELS_NAME "avx512"
#include "kernels_impl.h"

namespace universeg {
const Kernels* avx512_kernels() { return &KERNELS; }
}  // namespace universeg
