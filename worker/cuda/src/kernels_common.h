// What all kernels share: how their threads are written down, the number formats, and how groups of
// neighbouring channels are loaded and stored. Knows no kernel. Downstream: kernels.cu.
//
// The same source is compiled by nvcc for the device and by g++ for the host, where it is tested.
// So a kernel is a sequence of phases:
//
//     FOR_EACH_THREAD(thread) { … }    // one phase: `continue` ends it for this thread
//     WAIT_FOR_THREADS();              // between two phases
//     FOR_EACH_THREAD(thread) { … }
//
// On the device each thread runs each phase once. On the host one thread runs a phase for all
// threads of the block, then the next phase. So a value that lives on from one phase to another is
// kept in SHARED memory, or is the same for all threads. Shuffles between threads, atomics and PTX
// have no counterpart on the host and are not used.
#pragma once

#ifdef CAMSHAFT_ON_HOST
#include <cmath>

#include "kernels_on_host.h"

#define DEVICE static inline
#define MEMBER inline
#define SHARED static thread_local
#define UNROLL
#define FOR_EACH_THREAD(thread) for (int thread = 0; thread < THREADS; thread++)
#define WAIT_FOR_THREADS() static_cast<void>(0)
#define NOTE_KERNEL(name)                       \
  static const bool noted_##name = note_kernel( \
      #name, name, [](void **arguments) { call_with_pointers(name, arguments); });
#define GLOBAL static void
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define DEVICE static __device__ __forceinline__
#define MEMBER __device__ __forceinline__
#define SHARED __shared__
#define UNROLL _Pragma("unroll")
#define FOR_EACH_THREAD(thread) \
  for (int thread = threadIdx.x, running = 1; running; running = 0)
#define WAIT_FOR_THREADS() __syncthreads()
#define NOTE_KERNEL(name)
#define GLOBAL extern "C" __global__ void __launch_bounds__(THREADS)

typedef __half Half;
typedef __nv_bfloat16 BFloat16;
#endif

// Threads of a block, in all kernels.
const int THREADS = 256;

#ifdef CAMSHAFT_ON_HOST
DEVICE float to_float(Half value) { return float_of_half(value); }
DEVICE float to_float(BFloat16 value) { return float_of_bfloat16(value); }
#else
DEVICE float to_float(Half value) { return __half2float(value); }
DEVICE float to_float(BFloat16 value) { return __bfloat162float(value); }
#endif
DEVICE float to_float(float value) { return value; }

// Rounds a float to the nearest number of a format, ties to even.
template <typename T>
struct Rounded;
template <>
struct Rounded<float> {
  static MEMBER float of(float value) { return value; }
};
#ifdef CAMSHAFT_ON_HOST
template <>
struct Rounded<Half> {
  static MEMBER Half of(float value) { return half_of_float(value); }
};
template <>
struct Rounded<BFloat16> {
  static MEMBER BFloat16 of(float value) { return bfloat16_of_float(value); }
};
#else
template <>
struct Rounded<Half> {
  static MEMBER Half of(float value) { return __float2half_rn(value); }
};
template <>
struct Rounded<BFloat16> {
  static MEMBER BFloat16 of(float value) { return __float2bfloat16_rn(value); }
};
#endif

// Zero for negative values. NaN stays NaN, so that a caller sees it.
DEVICE float rectified(float value) { return value < 0.f ? 0.f : value; }

DEVICE int smaller(int a, int b) { return a < b ? a : b; }

// Values that are loaded and stored in one step of 16 bytes, or in several.
template <typename T, int COUNT>
struct alignas(sizeof(T) * COUNT < 16 ? sizeof(T) * COUNT : 16) Values {
  T at[COUNT];
};

// How many values of a format are 16 bytes: a group.
template <typename T>
struct Group {
  static const int SIZE = 16 / sizeof(T);
};

// How a row of channels is divided into groups. The last one may be short.
template <typename T>
struct Groups {
  int channels;
  int count;
  // True if each group starts at a multiple of 16 bytes and is whole.
  bool aligned;

  // Of rows that lie one after another from each of the given addresses on.
  MEMBER Groups(int row_channels, const void *a, const void *b = nullptr, const void *c = nullptr) {
    size_t addresses = reinterpret_cast<size_t>(a) | reinterpret_cast<size_t>(b) |
                       reinterpret_cast<size_t>(c);
    channels = row_channels;
    count = (row_channels + Group<T>::SIZE - 1) / Group<T>::SIZE;
    aligned = addresses % 16 == 0 && row_channels % Group<T>::SIZE == 0;
  }

  // The first channel of a group.
  MEMBER int first(int group) const { return group * Group<T>::SIZE; }

  // The channels of a group.
  MEMBER int size(int group) const { return smaller(Group<T>::SIZE, channels - first(group)); }

  // Loads a group of the row that starts at `row`, as floats. `V` is `T` or float. A short group
  // ends with zeros.
  template <typename V>
  MEMBER void load(const V *row, int group, float *values) const {
    const V *from = row + first(group);
    if (aligned) {
      typedef Values<V, Group<T>::SIZE> Whole;
      Whole whole = *reinterpret_cast<const Whole *>(from);
      UNROLL for (int k = 0; k < Group<T>::SIZE; k++) values[k] = to_float(whole.at[k]);
    } else {
      int present = size(group);
      UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
        values[k] = k < present ? to_float(from[k]) : 0.f;
      }
    }
  }

  // Stores a group to the row that starts at `row`.
  template <typename V>
  MEMBER void store(V *row, int group, const float *values) const {
    V *to = row + first(group);
    if (aligned) {
      typedef Values<V, Group<T>::SIZE> Whole;
      Whole whole;
      UNROLL for (int k = 0; k < Group<T>::SIZE; k++) whole.at[k] = Rounded<V>::of(values[k]);
      *reinterpret_cast<Whole *>(to) = whole;
    } else {
      int present = size(group);
      UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
        if (k < present) to[k] = Rounded<V>::of(values[k]);
      }
    }
  }
};

// Which part of the work a block has: each image (or row) is divided among `blocks` blocks.
struct BlockPlace {
  int image;
  // Of this image, from 0.
  int block;
};

DEVICE BlockPlace block_place(int blocks) {
  int index = static_cast<int>(blockIdx.x);
  return BlockPlace{index / blocks, index % blocks};
}

DEVICE int blocks_for(int items, int items_of_block) {
  return (items + items_of_block - 1) / items_of_block;
}

// The number of this thread's item, of all blocks together.
DEVICE long long item_of(int thread) {
  return static_cast<long long>(blockIdx.x) * THREADS + thread;
}

// Defines the kernels `name_f32`, `name_bf16` and `name_f16`, which call the function template
// `name`. `parameters` use the format as `T`; `arguments` are their names; both in parentheses.
#define KERNEL(name, parameters, arguments)               \
  KERNEL_FOR(name, f32, float, parameters, arguments)     \
  KERNEL_FOR(name, bf16, BFloat16, parameters, arguments) \
  KERNEL_FOR(name, f16, Half, parameters, arguments)

#define KERNEL_FOR(name, format, type, parameters, arguments) \
  namespace of_##format {                                     \
  typedef type T;                                             \
  GLOBAL name##_##format parameters { name<T> arguments; }    \
  NOTE_KERNEL(name##_##format)                                \
  }
