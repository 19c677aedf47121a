// The driver's start, its device and its contexts, and the names of its errors.

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "driver.h"
#include "memory.h"

namespace emulator {

namespace {

// One primary context is all there is.
char primary_context;
thread_local void *context_of_thread = nullptr;

bool has_device() { return environment_number("CAMSHAFT_EMULATE_NO_DEVICE", 0) == 0; }

struct ErrorName {
  int status;
  const char *name;
  const char *text;
};

constexpr ErrorName ERROR_NAMES[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {MISALIGNED_ADDRESS, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
     "capture was not initiated in this stream"},
    {STREAM_CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
     "dependency created on uncaptured work in another stream"},
    {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT",
     "operation not permitted on an event last recorded in a capturing stream"},
    {STREAM_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
};

const ErrorName *find_error(int status) {
  for (const ErrorName &error : ERROR_NAMES) {
    if (error.status == status) return &error;
  }
  return nullptr;
}

// Attributes by their numbers in cuda.h. A small device: what fits here fits elsewhere.
int device_attribute(int attribute) {
  switch (attribute) {
    case 1: return 1024;          // threads of a block
    case 2: case 3: return 1024;  // block, x and y
    case 4: return 64;            // block, z
    case 5: return 2147483647;    // grid, x
    case 6: case 7: return 65535; // grid, y and z
    case 8: return 48 << 10;      // shared memory of a block
    case 10: return 32;           // warp
    case 16: return 2;            // multiprocessors
    case 31: return 1;            // concurrent kernels
    case 38: return 4 << 20;      // L2 cache
    case 40: return 2;            // copy engines
    case 41: return 1;            // unified addressing
    case 75: return 8;            // compute capability, major
    case 76: return 6;            // compute capability, minor
    case 81: return 100 << 10;    // shared memory of a multiprocessor
    case 97: return 99 << 10;     // shared memory of a block, if asked for
    case 115: return 1;           // memory pools
    default: return 0;
  }
}

}  // namespace

std::recursive_mutex &lock() {
  static std::recursive_mutex &mutex = *new std::recursive_mutex;
  return mutex;
}

Driver &driver() {
  static Driver &one = *new Driver;
  return one;
}

Status lost() { return driver().lost; }
bool has_context() { return driver().context_count > 0; }
void *current_context() { return context_of_thread; }

void report(const std::string &line) { fprintf(stderr, "emulated GPU: %s\n", line.c_str()); }

long long environment_number(const char *name, long long otherwise) {
  const char *text = getenv(name);
  return text == nullptr || *text == 0 ? otherwise : atoll(text);
}

Call::Call(Needs needs) : status(SUCCESS), guard(lock()) {
  if (needs == Needs::Nothing) return;
  if (!driver().initialised) {
    status = NOT_INITIALIZED;
  } else if (driver().lost != SUCCESS) {
    status = driver().lost;
  } else if (needs == Needs::Context && context_of_thread == nullptr) {
    report("a call without a context that is current on its thread");
    status = INVALID_CONTEXT;
  } else if (needs == Needs::Context && driver().context_count == 0) {
    status = CONTEXT_IS_DESTROYED;
  }
}

}  // namespace emulator

using namespace emulator;

EMULATED Status cuInit(unsigned flags) {
  Call call(Needs::Nothing);
  if (flags != 0) return INVALID_VALUE;
  if (!has_device()) return NO_DEVICE;
  driver().initialised = true;
  watch_for_faults();
  return SUCCESS;
}

EMULATED Status cuDriverGetVersion(int *version) {
  *version = static_cast<int>(environment_number("CAMSHAFT_EMULATE_DRIVER", 13000));
  return SUCCESS;
}

EMULATED Status cuGetErrorName(int status, const char **name) {
  const ErrorName *error = find_error(status);
  *name = error == nullptr ? nullptr : error->name;
  return error == nullptr ? INVALID_VALUE : SUCCESS;
}

EMULATED Status cuGetErrorString(int status, const char **text) {
  const ErrorName *error = find_error(status);
  *text = error == nullptr ? nullptr : error->text;
  return error == nullptr ? INVALID_VALUE : SUCCESS;
}

EMULATED Status cuDeviceGetCount(int *count) {
  Call call(Needs::Driver);
  *count = has_device() ? 1 : 0;
  return call.status;
}

EMULATED Status cuDeviceGet(int *device, int ordinal) {
  Call call(Needs::Driver);
  if (call.status != SUCCESS) return call.status;
  if (ordinal != 0) return INVALID_DEVICE;
  *device = 0;
  return SUCCESS;
}

EMULATED Status cuDeviceGetName(char *name, int size, int device) {
  Call call(Needs::Driver);
  if (device != 0) return INVALID_DEVICE;
  snprintf(name, size, "Emulated GPU");
  return call.status;
}

EMULATED Status cuDeviceGetUuid_v2(char *uuid, int device) {
  Call call(Needs::Driver);
  if (device != 0) return INVALID_DEVICE;
  memcpy(uuid, "emulated device!", 16);
  return call.status;
}

EMULATED Status cuDeviceGetAttribute(int *value, int attribute, int device) {
  Call call(Needs::Driver);
  if (device != 0) return INVALID_DEVICE;
  *value = device_attribute(attribute);
  return call.status;
}

EMULATED Status cuDevicePrimaryCtxRetain(void **context, int device) {
  Call call(Needs::Driver);
  if (call.status != SUCCESS) return call.status;
  if (device != 0) return INVALID_DEVICE;
  driver().context_count++;
  *context = &primary_context;
  return SUCCESS;
}

EMULATED Status cuDevicePrimaryCtxRelease_v2(int device) {
  Call call(Needs::Driver);
  if (device != 0) return INVALID_DEVICE;
  if (driver().context_count == 0) return INVALID_CONTEXT;
  if (driver().context_count > 1) {
    driver().context_count--;
    return call.status;
  }
  Status status = call.status == SUCCESS ? drain_all() : call.status;
  driver().context_count = 0;
  if (!device_memory().all().empty()) {
    report("the context was released with " + std::to_string(device_memory().all().size()) +
           " allocations, " + std::to_string(device_memory().used_bytes()) + " bytes in total");
  }
  device_memory().release_all();
  host_memory().release_all();
  return status;
}

EMULATED Status cuDevicePrimaryCtxGetState(int, unsigned *flags, int *active) {
  Call call(Needs::Driver);
  *flags = 0;
  *active = has_context() ? 1 : 0;
  return call.status;
}

EMULATED Status cuCtxGetCurrent(void **context) {
  Call call(Needs::Driver);
  *context = context_of_thread;
  return call.status;
}

EMULATED Status cuCtxSetCurrent(void *context) {
  Call call(Needs::Driver);
  if (call.status != SUCCESS) return call.status;
  if (context != nullptr && context != &primary_context) return INVALID_CONTEXT;
  context_of_thread = context;
  return SUCCESS;
}

EMULATED Status cuCtxGetDevice(int *device) {
  Call call(Needs::Context);
  *device = 0;
  return call.status;
}

EMULATED Status cuCtxSetFlags(unsigned) {
  Call call(Needs::Context);
  return call.status;
}

EMULATED Status cuCtxSynchronize() {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Status status = forbid_in_capture("cuCtxSynchronize");
  return status == SUCCESS ? drain_all() : status;
}
