#pragma once

#include "tierpool/device/stream.hpp"

namespace tierpool {

/// Holds what is given to `later` from now on until the present work of `earlier` is done; blocks nothing. Throws
/// DeviceError when a stream is gone, of another device, or the device has no event left.
void order_after(DeviceStreams& streams, StreamHandle later, StreamHandle earlier);

}  // namespace tierpool
