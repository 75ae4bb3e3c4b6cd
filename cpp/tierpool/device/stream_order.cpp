#include "tierpool/device/stream_order.hpp"

#include <string>

#include "tierpool/base/errors.hpp"

namespace tierpool {

void order_after(DeviceStreams& streams, StreamHandle later, StreamHandle earlier) {
  const EventHandle event = streams.create_event();
  if (event == kNoEvent) {
    throw DeviceError("Cannot order stream " + std::to_string(later) + " after stream " + std::to_string(earlier) +
                      ": the device has no event left");
  }
  const bool ordered = streams.record_event(event, earlier) && streams.wait_event(later, event);
  streams.destroy_event(event);  // what waits for it keeps it
  if (!ordered) {
    throw DeviceError("Cannot order stream " + std::to_string(later) + " after stream " + std::to_string(earlier) +
                      ": one of them is gone or of another device");
  }
}

}  // namespace tierpool
