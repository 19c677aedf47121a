// What both libraries of the emulator share. `libcuda.so.1` defines it, `libcudnn.so.9` calls it:
// cuDNN's work goes into the driver's streams, and its tensors must lie in the driver's memory.
// Neither knows how the other looks to its callers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace emulator {

// The driver's results (`CUresult`) that the emulator returns.
enum Status : int {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_OUT_OF_RESOURCES = 701,
  CONTEXT_IS_DESTROYED = 709,
  MISALIGNED_ADDRESS = 716,
  LAUNCH_FAILED = 719,
  NOT_SUPPORTED = 801,
  STREAM_CAPTURE_UNSUPPORTED = 900,
  STREAM_CAPTURE_INVALIDATED = 901,
  STREAM_CAPTURE_UNMATCHED = 903,
  STREAM_CAPTURE_ISOLATION = 905,
  CAPTURED_EVENT = 907,
  STREAM_CAPTURE_WRONG_THREAD = 908,
};

// Something a stream does later. It returns an error only if the device would be lost by it.
using Work = std::function<Status()>;

// One lock for everything: a call holds it from start to end, and so does the work that it waits for.
std::recursive_mutex &lock();

// Success, or the error that the device was lost by.
Status lost();

// Whether a primary context is retained.
bool has_context();

// Whether `stream` is one that a caller may use.
bool is_stream(void *stream);

// Appends work to a stream, or to the graph that the stream is captured into. `what` names it in
// messages. `counts`: it is a launch or an execution, of which CAMSHAFT_EMULATE_LOST counts.
Status enqueue(void *stream, std::string what, Work work, bool counts);

// Success if all bytes lie in one living allocation; else prints a line and returns ILLEGAL_ADDRESS.
Status check_range(const std::string &what, uint64_t pointer, uint64_t bytes);

// Prints a line on standard error.
void report(const std::string &line);

// A number from the environment.
long long environment_number(const char *name, long long otherwise);

}  // namespace emulator
