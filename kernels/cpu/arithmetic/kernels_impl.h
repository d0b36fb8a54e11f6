// The kernels for one vector size (VECTOR_BYTES); included once by each file that is compiled for an instruction set.
#include "first_training_impl.h"
#include "gradient_impl.h"
#include "rows_impl.h"
#include "winograd_impl.h"

namespace universeg {

static const Kernels KERNELS = {KERNELS_NAME, BLOCK, winograd_row, scratch_floats, gradient_rows, gradient_scratch_floats,
                                first_forward, first_backward, first_block_rows, small_row, upsample_row, pool_row, head_row};

}  // namespace universeg
