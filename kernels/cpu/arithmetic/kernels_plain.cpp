// The kernels for any processor.
#define VECTOR_BYTES 16
#define KERNELS_NAME "plain"
#include "kernels_impl.h"

namespace universeg {
const Kernels* plain_kernels() { return &KERNELS; }
}  // namespace universeg
