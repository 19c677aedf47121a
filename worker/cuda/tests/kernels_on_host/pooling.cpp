// Max-pooling and its gradient, with ties, NaN, and rows of channels that are not whole groups.
#include <cmath>
#include <limits>

#include "testing.h"

namespace {

struct Shape {
  int images, height, width, channels;
  // Bytes by which the memory starts later than at a multiple of 16.
  size_t offset;
};

const Shape SHAPES[] = {{2, 8, 9, 24, 0}, {1, 7, 6, 64, 0}, {3, 5, 5, 5, 0}, {1, 1, 1, 8, 0},
                        {2, 11, 4, 16, 4}, {1, 2, 3, 3, 0}};

int pooled_side(int side) { return (side + 2 - 3) / 2 + 1; }

// Calls `visit(index of the output, index of the input)` for each value of each window, row by row.
template <typename Visit>
void for_each_in_windows(const Shape &shape, Visit visit) {
  int rows = pooled_side(shape.height), columns = pooled_side(shape.width);
  for (int window = 0; window < shape.images * rows * columns; window++) {
    int image = window / (rows * columns), row = window / columns % rows, column = window % columns;
    for (int y = 2 * row - 1; y <= 2 * row + 1; y++) {
      for (int x = 2 * column - 1; x <= 2 * column + 1; x++) {
        if (y < 0 || x < 0 || y >= shape.height || x >= shape.width) continue;
        int pixel = (image * shape.height + y) * shape.width + x;
        for (int c = 0; c < shape.channels; c++) {
          visit(window * shape.channels + c, pixel * shape.channels + c);
        }
      }
    }
  }
}

void test(Random &random, Format format, const Shape &shape, bool ties) {
  size_t count = static_cast<size_t>(shape.images) * shape.height * shape.width * shape.channels;
  int rows = pooled_side(shape.height), columns = pooled_side(shape.width);
  size_t pooled_count = static_cast<size_t>(shape.images) * rows * columns * shape.channels;
  Numbers input(count);
  // With ties the values are 0, 1 and 2, as a ReLU's many zeros.
  for (double &value : input) {
    value = ties ? random.below(3) : rounded(format, random.uniform(0, 4));
  }
  if (ties) input[count / 2] = std::numeric_limits<double>::quiet_NaN();
  Numbers pooled(pooled_count, -std::numeric_limits<double>::infinity());
  for_each_in_windows(shape, [&](int to, int from) {
    if (std::isnan(input[from]) || input[from] > pooled[to]) pooled[to] = input[from];
  });
  Numbers d_pooled = random.numbers(format, pooled_count, -2, 2), d_input(count, 0);
  std::vector<bool> taken(pooled_count);
  for_each_in_windows(shape, [&](int to, int from) {
    if (taken[to] || !(std::isnan(input[from]) || input[from] == pooled[to])) return;
    taken[to] = true;
    d_input[from] += d_pooled[to];
  });

  Memory of_input = Memory::of(format, input, shape.offset);
  Memory of_pooled = Memory::room(format, pooled_count, shape.offset);
  std::string size = std::to_string(shape.height) + "x" + std::to_string(shape.width) + "x" +
                     std::to_string(shape.channels) + (ties ? " with ties" : "");
  size_t pooled_groups = rows * columns * groups(format, shape.channels);
  launch("max_pool", format, shape.images * divided(pooled_groups, 256),
         {of_input, of_pooled, shape.height, shape.width, shape.channels});
  expect_close("max_pool of " + size, format, of_pooled.numbers(format), pooled, {0, 0});

  Memory of_d_pooled = Memory::of(format, d_pooled, shape.offset);
  Memory of_d_input = Memory::room(format, count, shape.offset);
  size_t input_groups = shape.height * shape.width * groups(format, shape.channels);
  launch("max_pool_gradient", format, shape.images * divided(input_groups, 256),
         {of_input, of_pooled, of_d_pooled, of_d_input, shape.height, shape.width, shape.channels});
  expect_close("max_pool_gradient of " + size, format, of_d_input.numbers(format), d_input,
               of_results(format));
}

}  // namespace

void test_pooling(Random &random) {
  for (Format format : FORMATS) {
    for (const Shape &shape : SHAPES) {
      for (bool ties : {false, true}) test(random, format, shape, ties);
    }
  }
}
