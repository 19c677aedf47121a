// The driver's calls for memory: allocating, copying, filling.

#include <cstring>

#include "driver.h"
#include "memory.h"

using namespace emulator;

namespace {

// What the device pretends to have. The real memory is taken when it is touched.
uint64_t total_bytes() {
  static const uint64_t total = environment_number("CAMSHAFT_EMULATE_MEMORY", 16LL << 30);
  return total;
}

bool has_room(uint64_t bytes) {
  uint64_t used = device_memory().used_bytes();
  return used <= total_bytes() && bytes <= total_bytes() - used;
}

Status allocate(uint64_t *pointer, uint64_t bytes) {
  if (bytes == 0) return INVALID_VALUE;
  if (!has_room(bytes)) {
    // Frees that are queued make room, as in the driver's pools.
    Status status = drain_all();
    if (status != SUCCESS) return status;
  }
  if (!has_room(bytes)) return OUT_OF_MEMORY;
  *pointer = device_memory().allocate(bytes);
  return *pointer == 0 ? OUT_OF_MEMORY : SUCCESS;
}

Status allocate_on(uint64_t *pointer, uint64_t bytes, void *handle) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Stream *stream = find_stream(handle);
  if (stream == nullptr) return INVALID_HANDLE;
  Status status = forbid_on_captured(*stream, "cuMemAllocAsync");
  return status == SUCCESS ? allocate(pointer, bytes) : status;
}

// Where the host's end of a copy lies.
enum class HostSide { Pinned, Pageable, Outside };

HostSide host_side(const std::string &what, const void *pointer, uint64_t bytes) {
  uint64_t address = reinterpret_cast<uint64_t>(pointer);
  if (host_memory().contains(address, bytes)) return HostSide::Pinned;
  bool touches = host_memory().touches(address) || host_memory().touches(address + bytes - 1);
  if (!touches) return HostSide::Pageable;
  report(what + ": " + std::to_string(bytes) + " bytes are more than the pinned memory has");
  return HostSide::Outside;
}

Status check_pinned(const std::string &what, const void *pointer, uint64_t bytes) {
  if (host_memory().contains(reinterpret_cast<uint64_t>(pointer), bytes)) return SUCCESS;
  report(what + ": the pinned memory was freed before the copy ran");
  return ILLEGAL_ADDRESS;
}

Status copy_to_device(const std::string &what, uint64_t to, const void *from, uint64_t bytes) {
  Status status = check_range(what, to, bytes);
  if (status == SUCCESS) memcpy(reinterpret_cast<void *>(to), from, bytes);
  return status;
}

Status copy_to_host(const std::string &what, void *to, uint64_t from, uint64_t bytes) {
  Status status = check_range(what, from, bytes);
  if (status == SUCCESS) memcpy(to, reinterpret_cast<const void *>(from), bytes);
  return status;
}

Status copy_on_device(const std::string &what, uint64_t to, uint64_t from, uint64_t bytes) {
  Status status = check_range(what + ", to", to, bytes);
  if (status == SUCCESS) status = check_range(what + ", from", from, bytes);
  if (status == SUCCESS) {
    memmove(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes);
  }
  return status;
}

Status fill(const std::string &what, uint64_t to, unsigned value, unsigned value_bytes, uint64_t count) {
  Status status = check_range(what, to, count * value_bytes);
  if (status != SUCCESS) return status;
  char *bytes = reinterpret_cast<char *>(to);
  for (uint64_t i = 0; i < count; i++) memcpy(bytes + i * value_bytes, &value, value_bytes);
  return SUCCESS;
}

// Work that the call itself waits for. An error of it is an error of the device.
Status run_now(void *stream, const char *call, const Work &work) {
  Status status = forbid_in_capture(call);
  if (status == SUCCESS) status = drain(*find_stream(stream));
  if (status == SUCCESS) status = work();
  if (status != SUCCESS) driver().lost = status;
  return status;
}

}  // namespace

EMULATED Status cuMemGetInfo_v2(size_t *free_bytes, size_t *all_bytes) {
  Call call(Needs::Context);
  uint64_t used = device_memory().used_bytes();
  *all_bytes = total_bytes();
  *free_bytes = used < total_bytes() ? total_bytes() - used : 0;
  return call.status;
}

EMULATED Status cuDeviceTotalMem_v2(size_t *bytes, int) {
  Call call(Needs::Driver);
  *bytes = total_bytes();
  return call.status;
}

EMULATED Status cuMemAlloc_v2(uint64_t *pointer, size_t bytes) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Status status = forbid_in_capture("cuMemAlloc");
  return status == SUCCESS ? allocate(pointer, bytes) : status;
}

EMULATED Status cuMemAllocAsync(uint64_t *pointer, size_t bytes, void *stream) {
  return allocate_on(pointer, bytes, stream);
}

EMULATED Status cuMemAllocFromPoolAsync(uint64_t *pointer, size_t bytes, void *, void *stream) {
  return allocate_on(pointer, bytes, stream);
}

EMULATED Status cuMemFree_v2(uint64_t pointer) {
  Call call(Needs::Driver);
  if (call.status != SUCCESS || pointer == 0) return call.status;
  Status status = forbid_in_capture("cuMemFree");
  if (status == SUCCESS) status = drain_all();
  if (status != SUCCESS) return status;
  if (device_memory().release(pointer)) return SUCCESS;
  report("cuMemFree: no allocation starts at the pointer");
  return INVALID_VALUE;
}

EMULATED Status cuMemFreeAsync(uint64_t pointer, void *handle) {
  Call call(Needs::Driver);
  if (call.status != SUCCESS || pointer == 0) return call.status;
  Stream *stream = find_stream(handle);
  if (stream == nullptr) return INVALID_HANDLE;
  Status status = forbid_on_captured(*stream, "cuMemFreeAsync");
  if (status != SUCCESS) return status;
  Allocation *allocation = device_memory().starting_at(pointer);
  if (allocation == nullptr || allocation->freed_soon) {
    report("cuMemFreeAsync: no allocation starts at the pointer, or it is freed twice");
    return INVALID_VALUE;
  }
  allocation->freed_soon = true;
  auto work = [pointer] { return device_memory().release(pointer) ? SUCCESS : INVALID_VALUE; };
  return enqueue(handle, "cuMemFreeAsync", work, false);
}

EMULATED Status cuMemHostAlloc(void **pointer, size_t bytes, unsigned) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Status status = forbid_in_capture("cuMemHostAlloc");
  if (status != SUCCESS) return status;
  if (bytes == 0) return INVALID_VALUE;
  uint64_t address = host_memory().allocate(bytes);
  *pointer = reinterpret_cast<void *>(address);
  return address == 0 ? OUT_OF_MEMORY : SUCCESS;
}

EMULATED Status cuMemAllocHost_v2(void **pointer, size_t bytes) {
  return cuMemHostAlloc(pointer, bytes, 0);
}

EMULATED Status cuMemFreeHost(void *pointer) {
  Call call(Needs::Driver);
  if (host_memory().release(reinterpret_cast<uint64_t>(pointer))) return call.status;
  report("cuMemFreeHost: no allocation starts at the pointer");
  return INVALID_VALUE;
}

EMULATED Status cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *handle) {
  Call call(Needs::Context);
  if (call.status != SUCCESS || bytes == 0) return call.status;
  Stream *stream = find_stream(handle);
  if (stream == nullptr) return INVALID_HANDLE;
  const std::string what = "a copy to the device";
  switch (host_side(what, from, bytes)) {
    case HostSide::Outside:
      return driver().lost = ILLEGAL_ADDRESS;
    case HostSide::Pinned: {
      auto work = [=] {
        Status status = check_pinned(what, from, bytes);
        return status == SUCCESS ? copy_to_device(what, to, from, bytes) : status;
      };
      return enqueue(handle, what, work, false);
    }
    case HostSide::Pageable:
      break;
  }
  Status status = forbid_on_captured(*stream, "a copy from pageable memory");
  if (status != SUCCESS) return status;
  // The driver has read pageable memory when the call returns.
  const char *values = static_cast<const char *>(from);
  auto copy = std::make_shared<std::vector<char>>(values, values + bytes);
  auto work = [=] { return copy_to_device(what, to, copy->data(), bytes); };
  return enqueue(handle, what, work, false);
}

EMULATED Status cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) {
  Call call(Needs::Context);
  if (call.status != SUCCESS || bytes == 0) return call.status;
  auto work = [=] { return copy_to_device("cuMemcpyHtoD", to, from, bytes); };
  return run_now(nullptr, "cuMemcpyHtoD", work);
}

EMULATED Status cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *handle) {
  Call call(Needs::Context);
  if (call.status != SUCCESS || bytes == 0) return call.status;
  Stream *stream = find_stream(handle);
  if (stream == nullptr) return INVALID_HANDLE;
  const std::string what = "a copy to the host";
  switch (host_side(what, to, bytes)) {
    case HostSide::Outside:
      return driver().lost = ILLEGAL_ADDRESS;
    case HostSide::Pinned: {
      auto work = [=] {
        Status status = check_pinned(what, to, bytes);
        return status == SUCCESS ? copy_to_host(what, to, from, bytes) : status;
      };
      return enqueue(handle, what, work, false);
    }
    case HostSide::Pageable:
      break;
  }
  Status status = forbid_on_captured(*stream, "a copy to pageable memory");
  if (status != SUCCESS) return status;
  // The call returns when the copy is done.
  status = drain(*stream);
  if (status == SUCCESS) status = copy_to_host(what, to, from, bytes);
  if (status != SUCCESS) driver().lost = status;
  return status;
}

EMULATED Status cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) {
  Call call(Needs::Context);
  if (call.status != SUCCESS || bytes == 0) return call.status;
  auto work = [=] { return copy_to_host("cuMemcpyDtoH", to, from, bytes); };
  return run_now(nullptr, "cuMemcpyDtoH", work);
}

EMULATED Status cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
  Call call(Needs::Context);
  if (call.status != SUCCESS || bytes == 0) return call.status;
  const std::string what = "a copy on the device";
  if (to < from + bytes && from < to + bytes) {
    report(what + ": its source and its target overlap");
    return INVALID_VALUE;
  }
  return enqueue(stream, what, [=] { return copy_on_device(what, to, from, bytes); }, false);
}

EMULATED Status cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t bytes) {
  Call call(Needs::Context);
  if (call.status != SUCCESS || bytes == 0) return call.status;
  auto work = [=] { return copy_on_device("cuMemcpyDtoD", to, from, bytes); };
  return run_now(nullptr, "cuMemcpyDtoD", work);
}

EMULATED Status cuMemcpyPeerAsync(uint64_t to, void *, uint64_t from, void *, size_t bytes,
                                  void *stream) {
  return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}

EMULATED Status cuMemsetD8Async(uint64_t to, unsigned char value, size_t count, void *stream) {
  Call call(Needs::Context);
  if (call.status != SUCCESS || count == 0) return call.status;
  return enqueue(stream, "cuMemsetD8", [=] { return fill("cuMemsetD8", to, value, 1, count); }, false);
}

EMULATED Status cuMemsetD32Async(uint64_t to, unsigned value, size_t count, void *stream) {
  Call call(Needs::Context);
  if (call.status != SUCCESS || count == 0) return call.status;
  auto work = [=] { return fill("cuMemsetD32", to, value, 4, count); };
  return enqueue(stream, "cuMemsetD32", work, false);
}

EMULATED Status cuMemsetD8_v2(uint64_t to, unsigned char value, size_t count) {
  Call call(Needs::Context);
  if (call.status != SUCCESS || count == 0) return call.status;
  return run_now(nullptr, "cuMemsetD8", [=] { return fill("cuMemsetD8", to, value, 1, count); });
}

EMULATED Status cuMemsetD32_v2(uint64_t to, unsigned value, size_t count) {
  Call call(Needs::Context);
  if (call.status != SUCCESS || count == 0) return call.status;
  return run_now(nullptr, "cuMemsetD32", [=] { return fill("cuMemsetD32", to, value, 4, count); });
}

// Pools: there is one, and it keeps nothing.

namespace {
uint64_t release_threshold = 0;
char pool;
}  // namespace

EMULATED Status cuDeviceGetDefaultMemPool(void **result, int) {
  Call call(Needs::Driver);
  *result = &pool;
  return call.status;
}

EMULATED Status cuDeviceGetMemPool(void **result, int device) {
  return cuDeviceGetDefaultMemPool(result, device);
}

EMULATED Status cuMemPoolTrimTo(void *, size_t) {
  Call call(Needs::Driver);
  return call.status;
}

// Attributes by their numbers in cuda.h; those from 4 on are sizes of 64 bits, the others flags.
EMULATED Status cuMemPoolSetAttribute(void *, int attribute, void *value) {
  Call call(Needs::Driver);
  constexpr int RELEASE_THRESHOLD = 4;
  if (attribute == RELEASE_THRESHOLD) memcpy(&release_threshold, value, sizeof release_threshold);
  return call.status;
}

EMULATED Status cuMemPoolGetAttribute(void *, int attribute, void *value) {
  Call call(Needs::Driver);
  uint64_t size = attribute == 4 ? release_threshold : device_memory().used_bytes();
  if (attribute < 4) {
    memset(value, 0, sizeof(int));
  } else {
    memcpy(value, &size, sizeof size);
  }
  return call.status;
}
