// Kernels that change or copy rows of channels.
#include <cmath>
#include <limits>

#include "testing.h"

namespace {

struct Shape {
  int rows, channels;
  // Bytes by which the memory starts later than at a multiple of 16.
  size_t offset;
};

const Shape SHAPES[] = {{50, 64, 0}, {7, 24, 0}, {9, 5, 0}, {3, 1, 0}, {6, 32, 4}};

std::string name(const std::string &kernel, const Shape &shape) {
  return kernel + " of " + std::to_string(shape.rows) + "x" + std::to_string(shape.channels);
}

size_t row_blocks(Format format, const Shape &shape) {
  return divided(shape.rows * groups(format, shape.channels), 256);
}

void test_bias(Random &random, Format format, const Shape &shape) {
  size_t count = static_cast<size_t>(shape.rows) * shape.channels;
  Numbers values = random.numbers(format, count, -2, 2);
  Numbers residual = random.numbers(format, count, -2, 2);
  Numbers bias = random.numbers(format, shape.channels, -1, 1);
  values[count / 2] = std::numeric_limits<double>::quiet_NaN();
  for (bool has_residual : {false, true}) {
    for (bool relu : {false, true}) {
      Numbers expected(count);
      for (size_t i = 0; i < count; i++) {
        double sum = values[i] + bias[i % shape.channels] + (has_residual ? residual[i] : 0);
        expected[i] = relu ? rectified(sum) : sum;
      }
      Memory in_place = Memory::of(format, values, shape.offset);
      Memory of_bias = Memory::of(format, bias, shape.offset);
      Memory of_residual = Memory::of(format, residual, shape.offset);
      Argument second = has_residual ? Argument(of_residual) : Argument(nullptr);
      launch("add_bias_relu", format, row_blocks(format, shape),
             {in_place, of_bias, second, relu, static_cast<long long>(shape.rows), shape.channels});
      std::string what = name("add_bias_relu", shape) + (has_residual ? " with residual" : "") +
                         (relu ? " and ReLU" : "");
      expect_close(what, format, in_place.numbers(format), expected, of_results(format));
    }
  }
}

void test_affine(Random &random, Format format, const Shape &shape) {
  size_t count = static_cast<size_t>(shape.rows) * shape.channels;
  Numbers values = random.numbers(format, count, -2, 2);
  Numbers scale = random.numbers(Format::F32, shape.channels, -2, 2);
  Numbers shift = random.numbers(Format::F32, shape.channels, -1, 1);
  for (bool has_shift : {false, true}) {
    for (bool relu : {false, true}) {
      Numbers expected(count);
      for (size_t i = 0; i < count; i++) {
        size_t c = i % shape.channels;
        double result = values[i] * scale[c] + (has_shift ? shift[c] : 0);
        expected[i] = relu ? rectified(result) : result;
      }
      Memory in_place = Memory::of(format, values, shape.offset);
      Memory of_scale = Memory::of(Format::F32, scale), of_shift = Memory::of(Format::F32, shift);
      Argument third = has_shift ? Argument(of_shift) : Argument(nullptr);
      launch("affine", format, row_blocks(format, shape),
             {in_place, of_scale, third, relu, static_cast<long long>(shape.rows), shape.channels});
      expect_close(name("affine", shape) + (has_shift ? " with shift" : "") +
                       (relu ? " and ReLU" : ""),
                   format, in_place.numbers(format), expected, of_results(format));
    }
  }
}

void test_flat(Random &random, Format format, const Shape &shape) {
  size_t count = static_cast<size_t>(shape.rows) * shape.channels;
  size_t blocks = divided(groups(format, count), 256);
  Numbers gradient = random.numbers(format, count, -2, 2), masked(count), sums(count);
  Numbers output = random.numbers(format, count, -1, 1);
  for (size_t i = 0; i < count; i++) {
    output[i] = rectified(output[i]);
    masked[i] = output[i] > 0 ? gradient[i] : 0;
    sums[i] = gradient[i] + output[i];
  }
  Memory of_gradient = Memory::of(format, gradient, shape.offset);
  Memory of_output = Memory::of(format, output, shape.offset);
  long long values = static_cast<long long>(count);
  launch("relu_mask", format, blocks, {of_gradient, of_output, values});
  expect_close(name("relu_mask", shape), format, of_gradient.numbers(format), masked, {0, 0});
  Memory to = Memory::of(format, gradient, shape.offset);
  launch("add", format, blocks, {to, of_output, values});
  expect_close(name("add", shape), format, to.numbers(format), sums, of_results(format));
}

void test_gather(Random &random, Format format, const Shape &shape) {
  Numbers from = random.numbers(format, static_cast<size_t>(shape.rows) * shape.channels, -2, 2);
  std::vector<int> indices = {shape.rows - 1, 0, shape.rows / 2, 0};
  Numbers expected;
  for (int index : indices) {
    for (int c = 0; c < shape.channels; c++) expected.push_back(from[index * shape.channels + c]);
  }
  Memory of_from = Memory::of(format, from, shape.offset), of_indices = Memory::of(indices);
  Memory to = Memory::room(format, expected.size(), shape.offset);
  launch("gather_rows", format, indices.size() * divided(groups(format, shape.channels), 256),
         {of_from, of_indices, to, shape.channels});
  expect_close(name("gather_rows", shape), format, to.numbers(format), expected, {0, 0});
}

// Here the rows are positions of one image.
void test_ablate(Random &random, Format format, const Shape &shape) {
  size_t count = static_cast<size_t>(shape.rows) * shape.channels;
  Numbers features = random.numbers(format, count, -2, 2), expected;
  int first = shape.channels / 3, copies = shape.channels - first;
  for (int copy = 0; copy < copies; copy++) {
    for (size_t i = 0; i < count; i++) {
      bool is_ablated = static_cast<int>(i) % shape.channels == first + copy;
      expected.push_back(is_ablated ? 0 : features[i]);
    }
  }
  Memory of_features = Memory::of(format, features, shape.offset);
  Memory output = Memory::room(format, expected.size(), shape.offset);
  size_t copy_groups = shape.rows * groups(format, shape.channels);
  launch("ablate", format, copies * divided(copy_groups, 256),
         {of_features, output, first, shape.rows, shape.channels});
  expect_close(name("ablate", shape), format, output.numbers(format), expected, {0, 0});
}

void test_planes(Random &random, Format format, const Shape &shape) {
  const int images = 2, positions = shape.rows, channels = shape.channels;
  size_t count = static_cast<size_t>(images) * positions * channels;
  Numbers rows = random.numbers(format, count, -2, 2), planes(count);
  for (size_t i = 0; i < count; i++) {
    size_t image = i / (positions * channels), p = i / channels % positions, c = i % channels;
    planes[(image * channels + c) * positions + p] = rows[i];
  }
  size_t blocks = images * divided(positions, 32) * divided(channels, 32);
  Memory of_rows = Memory::of(format, rows, shape.offset);
  Memory of_planes = Memory::room(Format::F32, count);
  launch("export_planes", format, blocks, {of_rows, of_planes, positions, channels});
  expect_close(name("export_planes", shape), format, of_planes.numbers(Format::F32), planes,
               {0, 0});
  Memory back = Memory::room(format, count, shape.offset);
  launch("import_planes", format, blocks, {of_planes, back, positions, channels});
  expect_close(name("import_planes", shape), format, back.numbers(format), rows, {0, 0});
}

}  // namespace

void test_rows(Random &random) {
  for (Format format : FORMATS) {
    for (const Shape &shape : SHAPES) {
      test_bias(random, format, shape);
      test_affine(random, format, shape);
      test_flat(random, format, shape);
      test_gather(random, format, shape);
      test_ablate(random, format, shape);
      test_planes(random, format, shape);
    }
    // More than a block, and more than a tile each way.
    test_flat(random, format, {1, 5003, 0});
    test_gather(random, format, {5, 5000, 0});
    test_planes(random, format, {130, 40, 0});
    test_ablate(random, format, {300, 8, 0});
    test_bias(random, format, {700, 24, 0});
  }
}
