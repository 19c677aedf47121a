// Kernels that write the network's input, in all layouts.
#include "testing.h"

namespace {

struct Shape {
  int images, height, width;
  // 4 or 8: padded; 16: space to depth.
  int channels;
};

const Shape SHAPES[] = {{2, 5, 7, 4}, {3, 40, 33, 8}, {1, 2, 2, 16}, {2, 46, 58, 16}};

// Zeros around an image in the layout of space to depth, before and after it.
const int BEFORE = 2, AFTER = 1;

// Rows or columns of the output.
int side_of(const Shape &shape, int side) {
  return shape.channels == 16 ? BEFORE + side / 2 + AFTER : side;
}

// The network's input of values that `value(image, channel, y, x)` gives.
template <typename Value>
Numbers laid_out(const Shape &shape, Value value) {
  int fold = shape.channels == 16 ? 2 : 1, before = fold == 2 ? BEFORE : 0;
  int rows = side_of(shape, shape.height), columns = side_of(shape, shape.width);
  Numbers output;
  for (int image = 0; image < shape.images; image++) {
    for (int pixel = 0; pixel < rows * columns; pixel++) {
      int top = (pixel / columns - before) * fold, left = (pixel % columns - before) * fold;
      bool is_inside = top >= 0 && top < shape.height && left >= 0 && left < shape.width;
      for (int c = 0; c < shape.channels; c++) {
        int part = c / 3;
        bool has_value = is_inside && part < fold * fold;
        output.push_back(has_value ? value(image, c % 3, top + part / 2, left + part % 2) : 0);
      }
    }
  }
  return output;
}

size_t blocks(const Shape &shape) {
  int pixels = side_of(shape, shape.height) * side_of(shape, shape.width);
  return shape.images * divided(pixels, 1024);
}

void test_pixels(Random &random, Format format, const Shape &shape) {
  int area = shape.height * shape.width;
  std::vector<uint8_t> pixels(shape.images * area * 3);
  for (uint8_t &pixel : pixels) pixel = static_cast<uint8_t>(random.below(256));
  Numbers table = random.numbers(Format::F32, 3 * 256, -3, 3);
  std::vector<int> sources = {2, 0, 1};
  Numbers expected = laid_out(shape, [&](int image, int c, int y, int x) {
    uint8_t pixel = pixels[(image * area + y * shape.width + x) * 3 + sources[c]];
    return rounded(format, table[c * 256 + pixel]);
  });
  Memory input = Memory::of(pixels), of_table = Memory::of(Format::F32, table);
  Memory of_sources = Memory::of(sources), output = Memory::room(format, expected.size());
  launch("normalise_pixels", format, blocks(shape),
         {input, of_table, of_sources, output, shape.channels, shape.height, shape.width});
  expect_close("normalise_pixels to " + std::to_string(shape.channels) + " channels", format,
               output.numbers(format), expected, {0, 0});
}

void test_scaled(Random &random, Format format, const Shape &shape) {
  int area = shape.height * shape.width;
  Numbers values = random.numbers(Format::F32, shape.images * 3 * area, -3, 3);
  Numbers expected = laid_out(shape, [&](int image, int c, int y, int x) {
    return rounded(format, values[(image * 3 + c) * area + y * shape.width + x]);
  });
  Memory input = Memory::of(Format::F32, values), output = Memory::room(format, expected.size());
  launch("scale_in", format, blocks(shape),
         {input, output, shape.channels, shape.height, shape.width});
  expect_close("scale_in to " + std::to_string(shape.channels) + " channels", format,
               output.numbers(format), expected, {0, 0});
}

}  // namespace

void test_input(Random &random) {
  for (Format format : FORMATS) {
    for (const Shape &shape : SHAPES) {
      test_pixels(random, format, shape);
      test_scaled(random, format, shape);
    }
  }
}
