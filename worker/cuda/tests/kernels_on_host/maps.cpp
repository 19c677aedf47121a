// Channel weights and maps of the gradient methods.
#include <cmath>

#include "testing.h"

namespace {

struct Shape {
  int rows, positions, channels;
};

const Shape SHAPES[] = {{2, 49, 2048}, {3, 200, 64}, {1, 7, 24}, {2, 33, 5}, {1, 1, 8}};

// A target layer's output and its scaled gradients, both `[R, P, C]`.
struct Layer {
  Shape shape;
  Numbers activations, gradients;
  double inverse_scale = 0.125;

  Layer(Random &random, Format format, const Shape &with) : shape(with) {
    size_t count = static_cast<size_t>(shape.rows) * shape.positions * shape.channels;
    activations = random.numbers(format, count, -0.5, 2);
    gradients = random.numbers(format, count, -8, 8);
    for (double &value : activations) value = rectified(value);
    // A channel that is zero, and gradients that are.
    for (size_t i = 1; i < count; i += shape.channels) activations[i] = 0;
    for (size_t i = 2; i < count; i += 7) gradients[i] = 0;
  }

  size_t index(int row, int position, int channel) const {
    return (static_cast<size_t>(row) * shape.positions + position) * shape.channels + channel;
  }

  double gradient(size_t index) const { return gradients[index] * inverse_scale; }

  double weight(int rule, int row, int channel) const {
    double sum = 0, products = 0, of_gradients = 0, weight = 0;
    for (int p = 0; p < shape.positions; p++) {
      size_t i = index(row, p, channel);
      sum += activations[i];
      of_gradients += gradient(i);
      products += activations[i] * gradient(i);
    }
    if (rule == 0) return of_gradients / shape.positions;
    if (rule == 2) return products / (sum + 1e-7);
    for (int p = 0; p < shape.positions; p++) {
      double g = gradient(index(row, p, channel));
      weight += rectified(g) * g * g / (2 * g * g + g * g * g * sum + 1e-6);
    }
    return weight;
  }

  std::string name() const {
    return "of " + std::to_string(shape.rows) + "x" + std::to_string(shape.positions) + "x" +
           std::to_string(shape.channels);
  }
};

// The rule of Grad-CAM++ divides by what is near zero if a gradient is negative: f32 differs from
// double by more there. Where that is so, the gradient has no part in the weight.
Tolerance of_weights(int rule) { return rule == 1 ? Tolerance{2e-5, 2e-5} : of_sums(); }

void test_weights(Random &random, Format format, const Shape &shape) {
  Layer layer(random, format, shape);
  const char *const rules[] = {"Grad-CAM", "Grad-CAM++", "XGrad-CAM"};
  Memory activations = Memory::of(format, layer.activations);
  Memory gradients = Memory::of(format, layer.gradients);
  size_t blocks = shape.rows * divided(groups(format, shape.channels), 4);
  for (int rule = 0; rule < 3; rule++) {
    Numbers expected;
    for (int row = 0; row < shape.rows; row++) {
      for (int c = 0; c < shape.channels; c++) expected.push_back(layer.weight(rule, row, c));
    }
    Memory output = Memory::room(Format::F32, expected.size());
    float inverse_scale = static_cast<float>(layer.inverse_scale);
    launch("channel_weights", format, blocks,
           {activations, gradients, output, rule, inverse_scale, shape.positions, shape.channels});
    expect_close(std::string("channel_weights by ") + rules[rule] + " " + layer.name(), format,
                 output.numbers(Format::F32), expected, of_weights(rule));
  }
}

// Threads for one position, as kernels.rs computes them.
int lanes(Format format, int channels) {
  int lanes = 1;
  while (lanes < 32 && lanes < static_cast<int>(groups(format, channels))) lanes *= 2;
  return lanes;
}

// Maps of the sums of `part(row, position, channel)`.
template <typename Part>
Numbers maps_of(const Shape &shape, Part part) {
  Numbers maps;
  for (int row = 0; row < shape.rows; row++) {
    for (int p = 0; p < shape.positions; p++) {
      double sum = 0;
      for (int c = 0; c < shape.channels; c++) sum += part(row, p, c);
      maps.push_back(rectified(sum));
    }
  }
  return maps;
}

void test_maps_of(Random &random, Format format, const Shape &shape) {
  Layer layer(random, format, shape);
  Memory activations = Memory::of(format, layer.activations);
  Memory gradients = Memory::of(format, layer.gradients);
  int threads = lanes(format, shape.channels);
  size_t blocks = shape.rows * divided(shape.positions, 256 / threads);

  Numbers weights = random.numbers(Format::F32, shape.rows * shape.channels, -0.1, 0.1);
  Numbers expected = maps_of(shape, [&](int row, int p, int c) {
    return layer.activations[layer.index(row, p, c)] * weights[row * shape.channels + c];
  });
  Memory of_weights = Memory::of(Format::F32, weights);
  Memory output = Memory::room(Format::F32, expected.size());
  launch("weighted_maps", format, blocks,
         {activations, of_weights, output, threads, shape.positions, shape.channels});
  expect_close("weighted_maps " + layer.name(), format, output.numbers(Format::F32), expected,
               of_sums());

  for (int rule : {0, 1}) {
    expected = maps_of(shape, [&](int row, int p, int c) {
      size_t i = layer.index(row, p, c);
      double gradient = layer.gradient(i);
      return layer.activations[i] * (rule == 1 ? rectified(gradient) : gradient);
    });
    float inverse_scale = static_cast<float>(layer.inverse_scale);
    launch("gradient_maps", format, blocks,
           {activations, gradients, output, rule, inverse_scale, threads, shape.positions,
            shape.channels});
    // Sums of up to 2,048 products of some ones.
    expect_close(std::string("gradient_maps by ") + (rule == 1 ? "LayerCAM " : "HiResCAM ") +
                     layer.name(),
                 format, output.numbers(Format::F32), expected, {2e-6, 1e-4});
  }
}

}  // namespace

void test_maps(Random &random) {
  for (Format format : FORMATS) {
    for (const Shape &shape : SHAPES) {
      test_weights(random, format, shape);
      test_maps_of(random, format, shape);
    }
  }
}
