// The engine's own kernels: what cuDNN's convolutions do not do.
//
// Owns their arithmetic. Knows no network: kernels.rs says what each takes, and launches it with as
// many blocks as the comment of each kernel here says. Activations are `[N, H, W, C]` ("channels
// last") in the format `T`; sums are floats. `P` is H × W. Tested on the host by
// ../tests/kernels_on_host; see kernels_common.h for how one source serves both.
#include "kernels_common.h"

// ---- The network's input ----

// Reads pixels `[N, H, W, 3]` of bytes, each through a table `[3][256]` by input channel.
struct PixelSource {
  const unsigned char *pixels;
  const float *table;
  // The channel of a pixel that each input channel is read from.
  int channel_of[3];
  int area;

  MEMBER void read(int image, int pixel, float *values) const {
    const unsigned char *from = pixels + (static_cast<size_t>(image) * area + pixel) * 3;
    UNROLL for (int c = 0; c < 3; c++) values[c] = table[c * 256 + from[channel_of[c]]];
  }
};

// Reads values `[N, 3, H, W]` that are scaled already.
struct PlaneSource {
  const float *values;
  int area;

  MEMBER void read(int image, int pixel, float *to) const {
    const float *from = values + static_cast<size_t>(image) * 3 * area + pixel;
    UNROLL for (int c = 0; c < 3; c++) to[c] = from[static_cast<size_t>(c) * area];
  }
};

// One pixel of `[N, H, W, CHANNELS]`, with zeros after the third channel.
template <typename T, int CHANNELS, typename Source>
DEVICE void write_padded(const Source &source, T *output, int image, int pixel) {
  float values[CHANNELS] = {};
  source.read(image, pixel, values);
  Values<T, CHANNELS> whole;
  UNROLL for (int c = 0; c < CHANNELS; c++) whole.at[c] = Rounded<T>::of(values[c]);
  size_t index = static_cast<size_t>(image) * source.area + pixel;
  reinterpret_cast<Values<T, CHANNELS> *>(output)[index] = whole;
}

// Blocks of 2×2 pixels: the zeros around an image that the stem's filter reaches, before and after
// it in both directions. They are stored, so that its convolution needs no padding.
const int BORDER_BEFORE = 2;
const int BORDER = BORDER_BEFORE + 1;

// The input as blocks of 2×2 pixels: `[N, H/2 + 3, W/2 + 3, 16]`.
struct FoldedShape {
  int rows, columns;

  // H and W are even.
  MEMBER FoldedShape(int height, int width)
      : rows(height / 2 + BORDER), columns(width / 2 + BORDER) {}

  MEMBER int pixels() const { return rows * columns; }
};

// One pixel of a folded input, of four of the image: channel (dy*2 + dx)*3 + c, zeros from 12.
template <typename T, typename Source>
DEVICE void write_to_depth(const Source &source, T *output, int image, int pixel, int width,
                           FoldedShape shape) {
  int y = pixel / shape.columns - BORDER_BEFORE, x = pixel % shape.columns - BORDER_BEFORE;
  bool is_inside = y >= 0 && y < shape.rows - BORDER && x >= 0 && x < shape.columns - BORDER;
  float values[16] = {};
  if (is_inside) {
    UNROLL for (int dy = 0; dy < 2; dy++) {
      UNROLL for (int dx = 0; dx < 2; dx++) {
        source.read(image, (2 * y + dy) * width + 2 * x + dx, values + (dy * 2 + dx) * 3);
      }
    }
  }
  Values<T, 16> whole;
  UNROLL for (int c = 0; c < 16; c++) whole.at[c] = Rounded<T>::of(values[c]);
  size_t index = static_cast<size_t>(image) * shape.pixels() + pixel;
  reinterpret_cast<Values<T, 16> *>(output)[index] = whole;
}

// Pixels of the output that a thread writes. The table is copied once for all of them.
const int PIXELS_OF_THREAD = 4;

// `channels` is 4 or 8 for the padded layout, and 16 for space to depth.
template <typename T, typename Source>
DEVICE void write_input(const Source &source, T *output, int channels, int height, int width,
                        int thread) {
  FoldedShape folded(height, width);
  int pixels = channels == 16 ? folded.pixels() : source.area;
  BlockPlace place = block_place(blocks_for(pixels, THREADS * PIXELS_OF_THREAD));
  for (int step = 0; step < PIXELS_OF_THREAD; step++) {
    int pixel = (place.block * PIXELS_OF_THREAD + step) * THREADS + thread;
    if (pixel >= pixels) return;
    if (channels == 16) {
      write_to_depth<T>(source, output, place.image, pixel, width, folded);
    } else if (channels == 8) {
      write_padded<T, 8>(source, output, place.image, pixel);
    } else {
      write_padded<T, 4>(source, output, place.image, pixel);
    }
  }
}

// Blocks: images × (pixels of the output / 1024, rounded up).
template <typename T>
DEVICE void normalise_pixels(const unsigned char *pixels, const float *table, const int *sources,
                             T *output, int channels, int height, int width) {
  SHARED float shared_table[3 * 256];
  FOR_EACH_THREAD(thread) {
    for (int i = thread; i < 3 * 256; i += THREADS) shared_table[i] = table[i];
  }
  WAIT_FOR_THREADS();
  FOR_EACH_THREAD(thread) {
    PixelSource source = {
        pixels, shared_table, {sources[0], sources[1], sources[2]}, height * width};
    write_input<T>(source, output, channels, height, width, thread);
  }
}
KERNEL(normalise_pixels,
       (const unsigned char *pixels, const float *table, const int *sources, T *output,
        int channels, int height, int width),
       (pixels, table, sources, output, channels, height, width))

// Blocks: as for normalise_pixels.
template <typename T>
DEVICE void scale_in(const float *values, T *output, int channels, int height, int width) {
  FOR_EACH_THREAD(thread) {
    PlaneSource source = {values, height * width};
    write_input<T>(source, output, channels, height, width, thread);
  }
}
KERNEL(scale_in, (const float *values, T *output, int channels, int height, int width),
       (values, output, channels, height, width))

// ---- Max-pooling: windows of 3×3, stride 2, padding 1 ----

DEVICE int pooled_side(int side) { return (side - 1) / 2 + 1; }

// One side of a window: `[start, end)` of the input.
struct Window {
  int start, end;
};

DEVICE Window window_of(int index, int side) {
  int start = 2 * index - 1;
  return Window{start < 0 ? 0 : start, smaller(start + 3, side)};
}

// Blocks: images × (groups of the output / 256, rounded up). NaN stays NaN, as in PyTorch.
template <typename T>
DEVICE void max_pool(const T *input, T *output, int height, int width, int channels) {
  int rows = pooled_side(height), columns = pooled_side(width);
  Groups<T> groups(channels, input, output);
  int items = rows * columns * groups.count;
  BlockPlace place = block_place(blocks_for(items, THREADS));
  FOR_EACH_THREAD(thread) {
    int item = place.block * THREADS + thread;
    if (item >= items) continue;
    int group = item % groups.count, pixel = item / groups.count;
    Window y_window = window_of(pixel / columns, height);
    Window x_window = window_of(pixel % columns, width);
    const T *image = input + static_cast<size_t>(place.image) * height * width * channels;
    float largest[Group<T>::SIZE];
    UNROLL for (int k = 0; k < Group<T>::SIZE; k++) largest[k] = -INFINITY;
    for (int y = y_window.start; y < y_window.end; y++) {
      for (int x = x_window.start; x < x_window.end; x++) {
        float values[Group<T>::SIZE];
        groups.load(image + (static_cast<size_t>(y) * width + x) * channels, group, values);
        UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
          if (values[k] > largest[k] || values[k] != values[k]) largest[k] = values[k];
        }
      }
    }
    size_t index = static_cast<size_t>(place.image) * rows * columns + pixel;
    groups.store(output + index * channels, group, largest);
  }
}
KERNEL(max_pool, (const T *input, T *output, int height, int width, int channels),
       (input, output, height, width, channels))

// Whether a value takes its window's gradient, if no value before it does.
DEVICE bool wins(float value, float largest) { return value == largest || value != value; }

// Blocks: images × (groups of the input / 256, rounded up). Of equal values the first in a window,
// row by row, has the gradient, as in PyTorch and in worker/model/src/network/pooling.rs. Each
// thread gathers what comes to its pixel: two threads never add to one value.
template <typename T>
DEVICE void max_pool_gradient(const T *input, const T *output, const T *d_output, T *d_input,
                              int height, int width, int channels) {
  int rows = pooled_side(height), columns = pooled_side(width);
  Groups<T> groups(channels, input, output, d_output);
  groups.aligned = groups.aligned && Groups<T>(channels, d_input).aligned;
  int items = height * width * groups.count;
  BlockPlace place = block_place(blocks_for(items, THREADS));
  FOR_EACH_THREAD(thread) {
    int item = place.block * THREADS + thread;
    if (item >= items) continue;
    int group = item % groups.count, pixel = item / groups.count;
    int y = pixel / width, x = pixel % width;
    size_t start = static_cast<size_t>(place.image) * height * width;
    size_t pooled_start = static_cast<size_t>(place.image) * rows * columns;
    float values[Group<T>::SIZE], sums[Group<T>::SIZE] = {};
    groups.load(input + (start + pixel) * channels, group, values);
    // The windows that the pixel lies in: one or two each way.
    for (int row = y / 2; row <= (y + 1) / 2 && row < rows; row++) {
      for (int column = x / 2; column <= (x + 1) / 2 && column < columns; column++) {
        size_t window = (pooled_start + static_cast<size_t>(row) * columns + column) * channels;
        float largest[Group<T>::SIZE];
        groups.load(output + window, group, largest);
        bool winning[Group<T>::SIZE], any = false;
        UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
          winning[k] = wins(values[k], largest[k]);
          any = any || winning[k];
        }
        if (!any) continue;
        Window y_window = window_of(row, height), x_window = window_of(column, width);
        for (int above = y_window.start; above <= y; above++) {
          int end = above < y ? x_window.end : x;
          for (int before = x_window.start; before < end; before++) {
            float others[Group<T>::SIZE];
            size_t other = start + static_cast<size_t>(above) * width + before;
            groups.load(input + other * channels, group, others);
            UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
              if (wins(others[k], largest[k])) winning[k] = false;
            }
          }
        }
        float gradient[Group<T>::SIZE];
        groups.load(d_output + window, group, gradient);
        UNROLL for (int k = 0; k < Group<T>::SIZE; k++) {
          if (winning[k]) sums[k] += gradient[k];
        }
      }
    }
    groups.store(d_input + (start + pixel) * channels, group, sums);
  }
}
KERNEL(max_pool_gradient,
       (const T *input, const T *output, const T *d_output, T *d_input, int height, int width,
        int channels),
       (input, output, d_output, d_input, height, width, channels))

#include "kernels_head.h"
#include "kernels_maps.h"
#include "kernels_rows.h"

#ifdef CAMSHAFT_ON_HOST
extern "C" int camshaft_argument_bytes(const char *name, unsigned *bytes, int most) {
  auto kernel = host_kernels().find(name);
  if (kernel == host_kernels().end()) return -1;
  int count = static_cast<int>(kernel->second.argument_bytes.size());
  for (int i = 0; i < smaller(count, most); i++) bytes[i] = kernel->second.argument_bytes[i];
  return count;
}

extern "C" int camshaft_launch(const char *name, const unsigned grid[3], const unsigned block[3],
                               unsigned shared_bytes, void **arguments) {
  auto kernel = host_kernels().find(name);
  if (kernel == host_kernels().end()) return 1;
  // All kernels have blocks of this shape, a grid of one dimension, and no dynamic shared memory.
  bool known_shape = block[0] == THREADS && block[1] == 1 && block[2] == 1 && grid[1] == 1 &&
                     grid[2] == 1 && shared_bytes == 0;
  if (!known_shape) return 2;
  for (unsigned x = 0; x < grid[0]; x++) {
    blockIdx = {x, 0, 0};
    kernel->second.run(arguments);
  }
  return 0;
}
#endif
