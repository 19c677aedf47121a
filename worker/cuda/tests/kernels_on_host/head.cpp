// The head: means, logits, top classes, maps, and the gradient that goes back from it.
#include <cmath>
#include <limits>

#include "testing.h"

namespace {

const double NOT_A_NUMBER = std::numeric_limits<double>::quiet_NaN();

struct Shape {
  int images, positions, channels, classes;
  bool flatten;
};

const Shape SHAPES[] = {{3, 49, 512, 10, false}, {5, 6, 40, 2, false}, {1, 70, 72, 1000, false},
                        {2, 130, 9, 3, false},   {5, 49, 264, 2, true}, {2, 5, 19, 11, true}};

// A head with random weights, and what a plain computation makes of random features.
struct Head {
  Shape shape;
  Numbers features, weight, bias, cam_weight;
  Numbers pooled, logits, maps;
  std::vector<int> labels, tops;

  Head(Random &random, Format format, const Shape &with) : shape(with) {
    auto [images, positions, channels, classes, flatten] = shape;
    int depth = channels * (flatten ? positions : 1);
    features = random.numbers(format, images * positions * channels, -0.5, 2);
    weight = random.numbers(Format::F32, classes * depth, -0.1, 0.1);
    bias = random.numbers(Format::F32, classes, -1, 1);
    cam_weight = random.numbers(Format::F32, classes * channels, -0.1, 0.1);
    for (int image = 0; image < images; image++) {
      // The first image has no label, the second one that is no class.
      labels.push_back(image == 0 ? -1 : image == 1 ? classes : random.below(classes));
    }
    compute();
  }

  double feature(int image, int position, int channel) const {
    return features[(image * shape.positions + position) * shape.channels + channel];
  }

  void compute() {
    for (int image = 0; image < shape.images; image++) {
      for (int c = 0; c < shape.channels; c++) {
        double sum = 0;
        for (int p = 0; p < shape.positions; p++) sum += feature(image, p, c);
        pooled.push_back(sum / shape.positions);
      }
      for (int k = 0; k < shape.classes; k++) logits.push_back(logit(image, k));
      tops.push_back(top_of(image));
      for (int of : {tops[image], labels[image]}) {
        for (int p = 0; p < shape.positions; p++) maps.push_back(map_value(image, of, p));
      }
    }
  }

  double logit(int image, int k) const {
    double sum = bias[k];
    int channels = shape.channels, positions = shape.positions;
    for (int c = 0; c < channels; c++) {
      if (!shape.flatten) sum += weight[k * channels + c] * pooled[image * channels + c];
      for (int p = 0; shape.flatten && p < positions; p++) {
        sum += weight[(k * channels + c) * positions + p] * feature(image, p, c);
      }
    }
    return sum;
  }

  int top_of(int image) const {
    int top = -1;
    for (int k = 0; k < shape.classes; k++) {
      double value = logits[image * shape.classes + k];
      if (std::isnan(value)) continue;
      if (top < 0 || value > logits[image * shape.classes + top]) top = k;
    }
    return top < 0 ? 0 : top;
  }

  double map_value(int image, int of, int position) const {
    if (of < 0 || of >= shape.classes) return 0;
    double sum = 0;
    for (int c = 0; c < shape.channels; c++) {
      sum += cam_weight[of * shape.channels + c] * feature(image, position, c);
    }
    return rectified(sum);
  }

  std::string name() const {
    return "of " + std::to_string(shape.images) + "x" + std::to_string(shape.positions) + "x" +
           std::to_string(shape.channels) + " to " + std::to_string(shape.classes) +
           (shape.flatten ? ", flattened" : "");
  }
};

void test_head_of(Random &random, Format format, const Shape &shape) {
  Head head(random, format, shape);
  auto [images, positions, channels, classes, flatten] = shape;
  Memory features = Memory::of(format, head.features), labels = Memory::of(head.labels);
  Memory weight = Memory::of(Format::F32, head.weight), bias = Memory::of(Format::F32, head.bias);
  Memory cam_weight = Memory::of(Format::F32, head.cam_weight);
  Memory pooled = Memory::room(Format::F32, head.pooled.size());
  Memory logits = Memory::room(Format::F32, head.logits.size());
  Memory maps = Memory::room(Format::F32, head.maps.size());
  Memory tops = Memory::room(Format::F32, images);
  launch("head_pool", format, images * divided(groups(format, channels), 256),
         {features, pooled, positions, channels});
  expect_close("head_pool " + head.name(), format, pooled.numbers(Format::F32), head.pooled,
               of_sums());
  launch("head_logits", format, divided(images, 4) * divided(classes, 8),
         {features, pooled, weight, bias, logits, flatten, images, positions, channels, classes});
  expect_close("head_logits " + head.name(), format, logits.numbers(Format::F32), head.logits,
               of_sums());
  launch("head_maps", format, images * divided(positions, 64),
         {features, cam_weight, logits, labels, maps, tops, positions, channels, classes});
  expect_equal("tops " + head.name(), format, tops.ints(), head.tops);
  expect_close("head_maps " + head.name(), format, maps.numbers(Format::F32), head.maps,
               of_sums());
}

// The top class of one image with the given logits.
int top_of(Format format, const Numbers &logits) {
  int classes = static_cast<int>(logits.size()), channels = 8;
  Memory features = Memory::of(format, Numbers(channels, 1));
  Memory cam_weight = Memory::of(Format::F32, Numbers(classes * channels, 1));
  Memory of_logits = Memory::of(Format::F32, logits), labels = Memory::of(std::vector<int>{-1});
  Memory maps = Memory::room(Format::F32, 2), tops = Memory::room(Format::F32, 1);
  launch("head_maps", format, 1,
         {features, cam_weight, of_logits, labels, maps, tops, 1, channels, classes});
  return tops.ints()[0];
}

void test_tops(Format format) {
  const double infinity = std::numeric_limits<double>::infinity();
  std::vector<int> found, expected;
  auto add = [&](const Numbers &logits, int top) {
    found.push_back(top_of(format, logits));
    expected.push_back(top);
  };
  add({1, 3, 3, 2}, 1);
  add({NOT_A_NUMBER, -5, NOT_A_NUMBER, -4}, 3);
  add({NOT_A_NUMBER, NOT_A_NUMBER}, 0);
  add({-infinity, -infinity}, 0);
  add({NOT_A_NUMBER, -infinity}, 1);
  add({1, infinity, infinity}, 1);
  // Ties and NaN among more classes than a block has threads.
  Numbers many(1000, -1);
  many[0] = NOT_A_NUMBER;
  many[999] = many[520] = many[264] = 7;
  add(many, 264);
  expect_equal("the first largest logit wins, and never a NaN", format, found, expected);
}

void test_gradient(Random &random, Format format, const Shape &shape) {
  Head head(random, format, shape);
  auto [images, positions, channels, classes, flatten] = shape;
  std::vector<int> rows = {classes - 1, 0, classes / 2};
  const float scale = 128;
  Numbers expected;
  for (int k : rows) {
    for (int p = 0; p < positions; p++) {
      for (int c = 0; c < channels; c++) {
        expected.push_back(flatten ? head.weight[(k * channels + c) * positions + p] * scale
                                   : head.weight[k * channels + c] / positions * scale);
      }
    }
  }
  Memory of_classes = Memory::of(rows), weight = Memory::of(Format::F32, head.weight);
  Memory output = Memory::room(format, expected.size());
  size_t row_groups = positions * groups(format, channels);
  launch("head_gradient", format, rows.size() * divided(row_groups, 256),
         {of_classes, weight, output, flatten, scale, positions, channels});
  expect_close("head_gradient " + head.name(), format, output.numbers(format), expected,
               of_results(format));
}

}  // namespace

void test_head(Random &random) {
  for (Format format : FORMATS) {
    test_tops(format);
    for (const Shape &shape : SHAPES) {
      test_head_of(random, format, shape);
      test_gradient(random, format, shape);
    }
  }
}
