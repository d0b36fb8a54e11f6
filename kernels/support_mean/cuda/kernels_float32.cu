// Every kernel for float32.
#include "device_run.cuh"

namespace universeg {
namespace support_mean {

template void dispatch_typed<float>(const support_mean_problem&, const support_mean_launch&, DeviceRunner&);

}  // namespace support_mean
}  // namespace universeg
