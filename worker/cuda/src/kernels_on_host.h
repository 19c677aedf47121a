// Stands in for CUDA's headers if the kernels are compiled for the host (CAMSHAFT_ON_HOST).
//
// Owns the place of a block in its grid, the two half-precision formats, and the list of kernels by
// name with a way to run one with arguments as `cuLaunchKernel` takes them. Does no arithmetic of
// the kernels. Downstream: kernels_common.h, the emulated driver in tests/gpu/emulator, and the
// tests in ../tests/kernels_on_host. kernels.cu defines the two functions at the end; it is
// compiled once, and sources that only call kernels include this header.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

struct BlockIndex {
  unsigned x, y, z;
};

// The place of the block that this thread of the host runs. A block's threads run one after the
// other, phase by phase: see FOR_EACH_THREAD in kernels_common.h.
inline thread_local BlockIndex blockIdx = {0, 0, 0};

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The bits without the lowest `dropped` ones, rounded to nearest, ties to even.
inline uint32_t without_low_bits(uint32_t bits, int dropped) {
  uint32_t kept = bits >> dropped;
  uint32_t rest = bits & ((1u << dropped) - 1), half = 1u << (dropped - 1);
  return kept + (rest > half || (rest == half && (kept & 1)) ? 1 : 0);
}

// IEEE half precision: 5 bits of exponent, 10 bits of fraction.
struct Half {
  uint16_t bits;
};

inline Half half_of_float(float value) {
  uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffff, result;
  if (magnitude > 0x7f800000) {
    result = 0x7fff;  // A NaN, as the device writes it.
  } else if (magnitude >= 0x477ff000) {
    result = 0x7c00;  // From 65,520 on: the nearest is infinity.
  } else if (magnitude >= 0x38800000) {
    // From 2^-14 on. The exponent's offset is 15 instead of 127. A carry out of the fraction goes
    // into the exponent, as it should.
    result = without_low_bits(magnitude - (112u << 23), 13);
  } else if (magnitude >= 0x33000000) {
    // From 2^-25 on: a whole number of 2^-24. The fraction with its leading one moves down.
    uint32_t fraction = (magnitude & 0x7fffff) | 0x800000;
    result = without_low_bits(fraction, 126 - static_cast<int>(magnitude >> 23));
  } else {
    result = 0;
  }
  return Half{static_cast<uint16_t>((bits >> 16 & 0x8000) | result)};
}

inline float float_of_half(Half half) {
  uint32_t sign = static_cast<uint32_t>(half.bits & 0x8000) << 16;
  uint32_t exponent = half.bits >> 10 & 31, fraction = half.bits & 0x3ff;
  if (exponent == 31) return float_of_bits(sign | 0x7f800000 | fraction << 13);
  if (exponent > 0) return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
  float magnitude = static_cast<float>(fraction) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

// bfloat16: the upper half of a float.
struct BFloat16 {
  uint16_t bits;
};

inline BFloat16 bfloat16_of_float(float value) {
  uint32_t bits = bits_of(value);
  bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
  return BFloat16{static_cast<uint16_t>(is_nan ? 0x7fff : without_low_bits(bits, 16))};
}

inline float float_of_bfloat16(BFloat16 value) {
  return float_of_bits(static_cast<uint32_t>(value.bits) << 16);
}

// A kernel that can be run by name.
struct HostKernel {
  void (*run)(void **arguments);
  std::vector<unsigned> argument_bytes;
};

// All kernels. Each is noted before `main` starts.
inline std::map<std::string, HostKernel> &host_kernels() {
  static std::map<std::string, HostKernel> kernels;
  return kernels;
}

template <typename... Arguments, size_t... Index>
void call_with_values(void (*kernel)(Arguments...), void **arguments,
                      std::index_sequence<Index...>) {
  kernel(*static_cast<Arguments *>(arguments[Index])...);
}

// Runs one block of a kernel. `arguments` are pointers to the values of its arguments.
template <typename... Arguments>
void call_with_pointers(void (*kernel)(Arguments...), void **arguments) {
  call_with_values(kernel, arguments, std::index_sequence_for<Arguments...>());
}

template <typename... Arguments>
bool note_kernel(const char *name, void (*)(Arguments...), void (*run)(void **)) {
  host_kernels()[name] = HostKernel{run, {static_cast<unsigned>(sizeof(Arguments))...}};
  return true;
}

// The bytes of each argument of a kernel, at most `most` of them, to `bytes`. Returns how many
// arguments it has, or -1 if there is no such kernel. Who runs a kernel later than it is launched
// copies its arguments by these.
extern "C" int camshaft_argument_bytes(const char *name, unsigned *bytes, int most);

// Runs a kernel's blocks one after the other, on this thread. `arguments` are as `cuLaunchKernel`
// takes them: pointers to values. Returns 0; 1 if there is no such kernel; 2 if it can't run with
// such blocks or so much shared memory.
extern "C" int camshaft_launch(const char *name, const unsigned grid[3], const unsigned block[3],
                               unsigned shared_bytes, void **arguments);
