#include "device/fake_cuda_state.hpp"

// Memory of the device and pinned memory. The driver's own names, hence none of ours.

namespace tierpool::testing {

extern "C" {

CuResult cuMemGetInfo_v2(std::size_t* free_bytes, std::size_t* total_bytes) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemGetInfo_v2")
  *total_bytes = kFakeCudaBytes;
  *free_bytes = kFakeCudaBytes - state().used[static_cast<std::size_t>(current_device())];
  return kCuSuccess;
}
CuResult cuMemAlloc_v2(CuAddress* address, std::size_t bytes) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemAlloc_v2")
  if (bytes == 0) {
    return misuse(kInvalidValue);
  }
  if (bytes > kFakeCudaBytes || !take(current_device(), bytes)) {
    return kCuOutOfMemory;
  }
  // 512 bytes behind a page: as aligned as the reference promises, and no more.
  *address = map_addresses(bytes + kPage, kPage, PROT_READ | PROT_WRITE) + 512;
  state().blocks[*address] = {bytes, current_device()};
  return kCuSuccess;
}
CuResult cuMemFree_v2(CuAddress address) {
  const bool opened = pass_gate();
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemFree_v2")
  const auto found = state().blocks.find(address);
  if (found == state().blocks.end()) {
    return misuse(kInvalidValue);
  }
  state().used[static_cast<std::size_t>(found->second.device)] -= found->second.bytes;
  munmap(at(address - 512), found->second.bytes + kPage);
  state().blocks.erase(found);
  return opened ? kCuSuccess : misuse(kCuNotReady);
}
CuResult cuMemcpy(CuAddress destination, CuAddress source, std::size_t bytes) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemcpy")
  std::memcpy(at(destination), at(source), bytes);
  return kCuSuccess;
}
CuResult cuMemcpyAsync(CuAddress destination, CuAddress source, std::size_t bytes, CuStream stream) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemcpyAsync")
  if (check_stream(stream) != kCuSuccess) {
    return kInvalidHandle;
  }
  if (!can_access(current_device(), destination) || !can_access(current_device(), source)) {
    return misuse(kInvalidValue);
  }
  enqueue(queue_of(stream), {{destination, source, bytes}, {}});
  return kCuSuccess;
}
CuResult cuMemcpyPeerAsync(CuAddress destination, CuContext destination_context, CuAddress source,
                           CuContext source_context, std::size_t bytes, CuStream stream) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemcpyPeerAsync")
  if (check_stream(stream) != kCuSuccess) {
    return kInvalidHandle;
  }
  if (!can_access(static_cast<Context*>(destination_context)->device, destination) ||
      !can_access(static_cast<Context*>(source_context)->device, source)) {
    return misuse(kInvalidValue);
  }
  enqueue(queue_of(stream), {{destination, source, bytes}, {}});
  return kCuSuccess;
}

CuResult cuMemHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemHostAlloc")
  if (bytes == 0) {
    return misuse(kInvalidValue);
  }
  const CuAddress address = map_addresses(bytes, kPage, PROT_READ | PROT_WRITE);
  if (address == 0 || bytes > (std::size_t{1} << 40)) {
    return kCuOutOfMemory;
  }
  *pointer = at(address);
  state().host_blocks[*pointer] = bytes;
  return kCuSuccess;
}
CuResult cuMemFreeHost(void* pointer) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemFreeHost")
  const auto found = state().host_blocks.find(pointer);
  if (found == state().host_blocks.end()) {
    return misuse(kInvalidValue);
  }
  munmap(pointer, found->second);
  state().host_blocks.erase(found);
  return kCuSuccess;
}
CuResult cuMemHostRegister_v2(void* pointer, std::size_t bytes, unsigned flags) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemHostRegister_v2")
  auto* begins = static_cast<char*>(pointer);
  const auto after = state().registered.lower_bound(begins + bytes);
  const bool overlaps =
      after != state().registered.begin() && std::prev(after)->first + std::prev(after)->second > begins;
  if (bytes == 0 || (flags & ~3U) != 0 || overlaps) {
    return misuse(overlaps ? kAlreadyRegistered : kInvalidValue);
  }
  state().registered[begins] = bytes;
  return kCuSuccess;
}
CuResult cuMemHostUnregister(void* pointer) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemHostUnregister")
  return state().registered.erase(static_cast<char*>(pointer)) == 1 ? kCuSuccess : misuse(kNotRegistered);
}

CuResult cuMemGetAllocationGranularity(std::size_t* bytes, const CuMemoryProperties*, int) {
  FAKE_CUDA_BEGIN(begin, "cuMemGetAllocationGranularity")
  *bytes = kGranule;
  return kCuSuccess;
}
CuResult cuMemAddressReserve(CuAddress* address, std::size_t bytes, std::size_t alignment, CuAddress,
                             unsigned long long) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemAddressReserve")
  if (bytes == 0 || bytes % kGranule != 0) {
    return misuse(kInvalidValue);
  }
  *address = map_addresses(bytes, std::max(alignment, kGranule), PROT_NONE);
  if (*address == 0) {
    return kCuOutOfMemory;
  }
  state().reserved[*address] = bytes;
  return kCuSuccess;
}
CuResult cuMemAddressFree(CuAddress address, std::size_t bytes) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemAddressFree")
  const auto found = state().reserved.find(address);
  const auto mapped = state().mappings.lower_bound(address);
  if (found == state().reserved.end() || found->second != bytes ||
      (mapped != state().mappings.end() && mapped->first < address + bytes)) {
    return misuse(kInvalidValue);
  }
  munmap(at(address), bytes);
  state().reserved.erase(found);
  return kCuSuccess;
}
CuResult cuMemCreate(CuMemoryHandle* handle, std::size_t bytes, const CuMemoryProperties* properties,
                     unsigned long long) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemCreate")
  if (bytes == 0 || bytes % kGranule != 0 || properties->type != kCuPinnedAllocation) {
    return misuse(kInvalidValue);
  }
  if (!take(properties->location.id, bytes)) {
    return kCuOutOfMemory;
  }
  *handle = state().next_handle++;
  state().handles[*handle] = {bytes, properties->location.id, 1};
  return kCuSuccess;
}
CuResult cuMemRelease(CuMemoryHandle handle) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemRelease")
  if (state().handles.count(handle) == 0) {
    return misuse(kInvalidValue);
  }
  release(handle);
  return kCuSuccess;
}
CuResult cuMemMap(CuAddress address, std::size_t bytes, std::size_t offset, CuMemoryHandle handle, unsigned long long) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemMap")
  const auto found = state().handles.find(handle);
  const auto after = state().mappings.lower_bound(address + bytes);
  const bool overlaps =
      after != state().mappings.begin() && std::prev(after)->first + std::prev(after)->second.bytes > address;
  if (found == state().handles.end() || found->second.bytes != bytes || offset != 0 || overlaps ||
      !is_reserved(address, bytes)) {
    return misuse(kInvalidValue);
  }
  ++found->second.references;
  state().mappings[address] = {bytes, handle, {}};
  return kCuSuccess;
}
CuResult cuMemUnmap(CuAddress address, std::size_t bytes) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemUnmap")
  if (!is_whole_mappings(address, bytes)) {
    return misuse(kInvalidValue);
  }
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  mmap(at(address), bytes, PROT_NONE, flags, -1, 0);
  for (const CuAddress end = address + bytes; address < end;) {
    const auto found = state().mappings.find(address);
    address += found->second.bytes;
    release(found->second.handle);
    state().mappings.erase(found);
  }
  return kCuSuccess;
}
CuResult cuMemSetAccess(CuAddress address, std::size_t bytes, const CuMemoryAccess* access, std::size_t count) {
  FAKE_CUDA_BEGIN(begin_in_context, "cuMemSetAccess")
  if (count == 0 || access->flags != kCuReadWrite || !is_whole_mappings(address, bytes)) {
    return misuse(kInvalidValue);
  }
  for (auto mapping = state().mappings.find(address);
       mapping != state().mappings.end() && mapping->first < address + bytes; ++mapping) {
    for (std::size_t i = 0; i < count; ++i) {
      mapping->second.accesses.insert(access[i].location.id);
    }
  }
  mprotect(at(address), bytes, PROT_READ | PROT_WRITE);
  return kCuSuccess;
}

}  // extern "C"
}  // namespace tierpool::testing
