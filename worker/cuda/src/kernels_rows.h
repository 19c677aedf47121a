// Kernels that change or copy rows of channels: what follows a convolution if cuDNN has no fused
// one, steps of the backward pass, and copies between the device's layout and the host's. A part of
// kernels.cu.
#pragma once

#include "kernels_common.h"

// values = relu(values + residual + bias): values and residual `[rows, C]`, bias `[C]`. There may
// be no residual, and the ReLU may be left out. Blocks: rows × groups / 256, rounded up.
template <typename T>
DEVICE void add_bias_relu(T *values, const T *bias, const T *residual, int relu, long long rows,
                          int channels) {
  Groups<T> groups(channels, values, bias, residual);
  FOR_EACH_THREAD(thread) {
    long long item = item_of(thread);
    if (item >= rows * groups.count) continue;
    int group = static_cast<int>(item % groups.count);
    size_t row = static_cast<size_t>(item / groups.count) * channels;
    float sums[Group<T>::SIZE], others[Group<T>::SIZE];
    groups.load(values + row, group, sums);
    if (residual != nullptr) {
      groups.load(residual + row, group, others);
      UNROLL for (int k = 0; k < Group<T>::SIZE; k++) sums[k] += others[k];
    }
    groups.load(bias, group, others);
    UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
      sums[k] += others[k];
      if (relu) sums[k] = rectified(sums[k]);
    }
    groups.store(values + row, group, sums);
  }
}
KERNEL(add_bias_relu,
       (T *values, const T *bias, const T *residual, int relu, long long rows, int channels),
       (values, bias, residual, relu, rows, channels))

// values = relu(values * scale + shift): values `[rows, C]`, scale and shift `[C]`, f32. There may
// be no shift, and the ReLU may be left out. Blocks: rows × groups / 256, rounded up.
template <typename T>
DEVICE void affine(T *values, const float *scale, const float *shift, int relu, long long rows,
                   int channels) {
  Groups<T> groups(channels, values, scale, shift);
  FOR_EACH_THREAD(thread) {
    long long item = item_of(thread);
    if (item >= rows * groups.count) continue;
    int group = static_cast<int>(item % groups.count);
    size_t row = static_cast<size_t>(item / groups.count) * channels;
    float results[Group<T>::SIZE], factors[Group<T>::SIZE], summands[Group<T>::SIZE] = {};
    groups.load(values + row, group, results);
    groups.load(scale, group, factors);
    if (shift != nullptr) groups.load(shift, group, summands);
    UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
      results[k] = results[k] * factors[k] + summands[k];
      if (relu) results[k] = rectified(results[k]);
    }
    groups.store(values + row, group, results);
  }
}
KERNEL(affine,
       (T *values, const float *scale, const float *shift, int relu, long long rows, int channels),
       (values, scale, shift, relu, rows, channels))

// One long row of `count` values, in which a thread has one group: the first of it, how many values
// it has (none past the end), and whether it is one load.
template <typename T>
struct FlatGroup {
  long long first;
  Groups<T> groups;

  MEMBER FlatGroup(int thread, long long count, const void *a, const void *b)
      : first(item_of(thread) * Group<T>::SIZE),
        groups(static_cast<int>(count - first < Group<T>::SIZE ? count - first : Group<T>::SIZE), a,
               b) {}
};

// gradient = 0 wherever the ReLU's output is zero. Blocks: groups / 256, rounded up.
template <typename T>
DEVICE void relu_mask(T *gradient, const T *output, long long count) {
  FOR_EACH_THREAD(thread) {
    FlatGroup<T> flat(thread, count, gradient, output);
    if (flat.first >= count) continue;
    float gradients[Group<T>::SIZE], outputs[Group<T>::SIZE];
    flat.groups.load(gradient + flat.first, 0, gradients);
    flat.groups.load(output + flat.first, 0, outputs);
    UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
      if (outputs[k] <= 0.f) gradients[k] = 0.f;
    }
    flat.groups.store(gradient + flat.first, 0, gradients);
  }
}
KERNEL(relu_mask, (T *gradient, const T *output, long long count), (gradient, output, count))

// to = to + from. Blocks: groups / 256, rounded up.
template <typename T>
DEVICE void add(T *to, const T *from, long long count) {
  FOR_EACH_THREAD(thread) {
    FlatGroup<T> flat(thread, count, to, from);
    if (flat.first >= count) continue;
    float sums[Group<T>::SIZE], others[Group<T>::SIZE];
    flat.groups.load(to + flat.first, 0, sums);
    flat.groups.load(from + flat.first, 0, others);
    UNROLL for (int k = 0; k < Group<T>::SIZE; k++) sums[k] += others[k];
    flat.groups.store(to + flat.first, 0, sums);
  }
}
KERNEL(add, (T *to, const T *from, long long count), (to, from, count))

// Row `indices[r]` of `from` to row r of `to`. Blocks: rows of `to` × (groups of a row / 256,
// rounded up).
template <typename T>
DEVICE void gather_rows(const T *from, const int *indices, T *to, int row_values) {
  Groups<T> groups(row_values, from, to);
  BlockPlace place = block_place(blocks_for(groups.count, THREADS));
  FOR_EACH_THREAD(thread) {
    int group = place.block * THREADS + thread;
    if (group >= groups.count) continue;
    float values[Group<T>::SIZE];
    groups.load(from + static_cast<size_t>(indices[place.image]) * row_values, group, values);
    groups.store(to + static_cast<size_t>(place.image) * row_values, group, values);
  }
}
KERNEL(gather_rows, (const T *from, const int *indices, T *to, int row_values),
       (from, indices, to, row_values))

// Copies of one image's features `[P, C]`, each with one channel set to zero: `first_channel` in
// the first copy, the next one in the second. Blocks: copies × (groups of an image / 256, rounded
// up).
template <typename T>
DEVICE void ablate(const T *features, T *output, int first_channel, int positions, int channels) {
  Groups<T> groups(channels, features, output);
  int items = positions * groups.count;
  BlockPlace place = block_place(blocks_for(items, THREADS));
  FOR_EACH_THREAD(thread) {
    int item = place.block * THREADS + thread;
    if (item >= items) continue;
    int group = item % groups.count, position = item / groups.count;
    int ablated = first_channel + place.image - groups.first(group);
    float values[Group<T>::SIZE];
    groups.load(features + static_cast<size_t>(position) * channels, group, values);
    UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
      if (k == ablated) values[k] = 0.f;
    }
    size_t pixel = static_cast<size_t>(place.image) * positions + position;
    groups.store(output + pixel * channels, group, values);
  }
}
KERNEL(ablate, (const T *features, T *output, int first_channel, int positions, int channels),
       (features, output, first_channel, positions, channels))

// Side of the tiles that matrices are transposed in.
const int TILE = 32;
const int TILE_ROWS = THREADS / TILE;

// Which tile of a matrix `[rows, columns]` a block has: of which image, and where it starts.
struct TilePlace {
  int image, row, column;
};

DEVICE TilePlace tile_place(int rows, int columns) {
  int across = blocks_for(columns, TILE);
  BlockPlace place = block_place(blocks_for(rows, TILE) * across);
  return TilePlace{place.image, place.block / across * TILE, place.block % across * TILE};
}

// Transposes a matrix `[rows, columns]` for each image, and changes the format. Blocks: images ×
// (rows / 32, rounded up) × (columns / 32, rounded up). `tile` is shared, with rows that are one
// longer than a tile's, so that threads read from different banks.
template <typename From, typename To>
DEVICE void transpose(const From *from, To *to, float *tile, int rows, int columns) {
  TilePlace place = tile_place(rows, columns);
  size_t start = static_cast<size_t>(place.image) * rows * columns;
  FOR_EACH_THREAD(thread) {
    int column = thread % TILE;
    for (int row = thread / TILE; row < TILE; row += TILE_ROWS) {
      int y = place.row + row, x = place.column + column;
      if (y >= rows || x >= columns) continue;
      size_t index = start + static_cast<size_t>(y) * columns + x;
      tile[row * (TILE + 1) + column] = to_float(from[index]);
    }
  }
  WAIT_FOR_THREADS();
  FOR_EACH_THREAD(thread) {
    int row = thread % TILE;
    for (int column = thread / TILE; column < TILE; column += TILE_ROWS) {
      int y = place.row + row, x = place.column + column;
      if (y >= rows || x >= columns) continue;
      float value = tile[row * (TILE + 1) + column];
      to[start + static_cast<size_t>(x) * rows + y] = Rounded<To>::of(value);
    }
  }
}

// `[N, P, C]` to `[N, C, P]` in f32. Blocks: see transpose.
template <typename T>
DEVICE void export_planes(const T *from, float *to, int positions, int channels) {
  SHARED float tile[TILE * (TILE + 1)];
  transpose(from, to, tile, positions, channels);
}
KERNEL(export_planes, (const T *from, float *to, int positions, int channels),
       (from, to, positions, channels))

// `[N, C, P]` in f32 to `[N, P, C]`. Blocks: see transpose.
template <typename T>
DEVICE void import_planes(const float *from, T *to, int positions, int channels) {
  SHARED float tile[TILE * (TILE + 1)];
  transpose(from, to, tile, channels, positions);
}
KERNEL(import_planes, (const float *from, T *to, int positions, int channels),
       (from, to, positions, channels))
