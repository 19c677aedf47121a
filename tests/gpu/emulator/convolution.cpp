// The numbers: convolutions and their data gradients, channels last, in plain loops with sums in f32.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <thread>

#include "cudnn.h"
#include "kernels_on_host.h"

namespace emulator::dnn {

namespace {

using Row = std::vector<float>;

// Calls `work` for each index, on some threads if it is worth it.
void for_each_index(int64_t count, double operations, const std::function<void(int64_t)> &work) {
  int64_t threads = operations < 2e7 ? 1 : std::min<int64_t>(4, std::thread::hardware_concurrency());
  auto part = [&](int64_t number) {
    for (int64_t i = number; i < count; i += threads) work(i);
  };
  std::vector<std::thread> others;
  for (int64_t number = 1; number < threads; number++) others.emplace_back(part, number);
  part(0);
  for (std::thread &other : others) other.join();
}

float read_half(int type, uint16_t bits) {
  return type == DATA_HALF ? float_of_half(Half{bits}) : float_of_bfloat16(BFloat16{bits});
}

uint16_t write_half(int type, float value) {
  return type == DATA_HALF ? half_of_float(value).bits : bfloat16_of_float(value).bits;
}

float round_to(int type, float value) {
  return type == DATA_FLOAT ? value : read_half(type, write_half(type, value));
}

// As tensor cores read f32: with 10 bits after the point.
float round_to_tf32(float value) {
  constexpr int dropped = 13;
  return std::isfinite(value) ? float_of_bits(without_low_bits(bits_of(value), dropped) << dropped) : value;
}

// A tensor's values, in the order of memory.
std::vector<float> load(const Tensor &tensor, uint64_t pointer, bool tf32) {
  std::vector<float> values(tensor.values());
  if (tensor.type == DATA_FLOAT) {
    memcpy(values.data(), reinterpret_cast<const void *>(pointer), tensor.bytes());
  } else {
    const auto *bits = reinterpret_cast<const uint16_t *>(pointer);
    for (size_t i = 0; i < values.size(); i++) values[i] = read_half(tensor.type, bits[i]);
  }
  if (tf32) std::transform(values.begin(), values.end(), values.begin(), round_to_tf32);
  return values;
}

void store(const Tensor &tensor, uint64_t pointer, int64_t first, const Row &row) {
  if (tensor.type == DATA_FLOAT) {
    memcpy(reinterpret_cast<float *>(pointer) + first, row.data(), row.size() * 4);
    return;
  }
  auto *bits = reinterpret_cast<uint16_t *>(pointer) + first;
  for (size_t i = 0; i < row.size(); i++) bits[i] = write_half(tensor.type, row[i]);
}

// `sums[j] += factors[i] * weights[i][j]` for `count` rows of `width` weights, `step` apart.
void add_products(float *__restrict sums, const float *factors, const float *__restrict weights,
                  int64_t count, int64_t width, int64_t step) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const float *w0 = weights + i * step, *w1 = w0 + step, *w2 = w1 + step, *w3 = w2 + step;
    float f0 = factors[i], f1 = factors[i + 1], f2 = factors[i + 2], f3 = factors[i + 3];
    for (int64_t j = 0; j < width; j++) {
      sums[j] += f0 * w0[j] + f1 * w1[j] + f2 * w2[j] + f3 * w3[j];
    }
  }
  for (; i < count; i++) {
    for (int64_t j = 0; j < width; j++) sums[j] += factors[i] * weights[i * step + j];
  }
}

void reduce(Row &sums, const Program &program) {
  if (!program.reduced_sums) return;
  for (float &sum : sums) sum = round_to(program.operations[0].input.type, sum);
}

// [outputs, rows, columns, inputs] to [rows, columns, inputs, outputs].
std::vector<float> outputs_last(const Tensor &w, const std::vector<float> &weights) {
  int64_t outputs = w.dims[0], depth = w.dims[1] * w.dims[2] * w.dims[3];
  std::vector<float> turned(weights.size());
  for (int64_t o = 0; o < outputs; o++) {
    for (int64_t d = 0; d < depth; d++) turned[d * outputs + o] = weights[o * depth + d];
  }
  return turned;
}

// One row of the output of a convolution.
void forward_row(const Program &program, const std::vector<float> &x, const std::vector<float> &weights,
                 int64_t image, int64_t y, Row &sums) {
  const Operation &operation = program.operations[0];
  const Convolution &convolution = operation.convolution;
  const auto &[n, inputs, height, width] = operation.input.dims;
  const auto &[outputs, inputs_again, rows, columns] = operation.second.dims;
  int64_t out_width = operation.output.dims[3];
  for (int64_t r = 0; r < rows; r++) {
    int64_t from_y = y * convolution.stride[0] - convolution.before[0] + r;
    if (from_y < 0 || from_y >= height) continue;
    for (int64_t s = 0; s < columns; s++) {
      const float *tap = &weights[(r * columns + s) * inputs * outputs];
      for (int64_t column = 0; column < out_width; column++) {
        int64_t from_x = column * convolution.stride[1] - convolution.before[1] + s;
        if (from_x < 0 || from_x >= width) continue;
        const float *pixel = &x[((image * height + from_y) * width + from_x) * inputs];
        add_products(&sums[column * outputs], pixel, tap, inputs, outputs, outputs);
      }
      reduce(sums, program);
    }
  }
}

// One row of the gradient of a convolution's input.
void gradient_row(const Program &program, const std::vector<float> &dy, const std::vector<float> &weights,
                  int64_t image, int64_t y, Row &sums) {
  const Operation &operation = program.operations[0];
  const Convolution &convolution = operation.convolution;
  const auto &[n, outputs, out_height, out_width] = operation.input.dims;
  const auto &[outputs_again, inputs, rows, columns] = operation.second.dims;
  int64_t width = operation.output.dims[3];
  for (int64_t r = 0; r < rows; r++) {
    int64_t steps = y + convolution.before[0] - r;
    if (steps < 0 || steps % convolution.stride[0] != 0) continue;
    int64_t from_y = steps / convolution.stride[0];
    if (from_y >= out_height) continue;
    for (int64_t s = 0; s < columns; s++) {
      const float *tap = &weights[(r * columns + s) * inputs];
      for (int64_t from_x = 0; from_x < out_width; from_x++) {
        int64_t column = from_x * convolution.stride[1] - convolution.before[1] + s;
        if (column < 0 || column >= width) continue;
        const float *pixel = &dy[((image * out_height + from_y) * out_width + from_x) * outputs];
        add_products(&sums[column * inputs], pixel, tap, outputs, inputs, rows * columns * inputs);
      }
      reduce(sums, program);
    }
  }
}

// A pointwise step's second tensor, spread over the output's shape.
struct Addend {
  const Tensor &tensor;
  std::vector<float> values;

  float at(int64_t image, int64_t channel, int64_t y, int64_t x) const {
    const int64_t place[4] = {image, channel, y, x};
    int64_t index = 0;
    for (int i = 0; i < 4; i++) {
      if (tensor.dims[i] != 1) index += place[i] * tensor.strides[i];
    }
    return values[index];
  }
};

// The pointwise steps, each rounded to the type of the tensor that it makes.
void finish_row(const Program &program, const std::vector<Addend> &addends, int64_t image, int64_t y,
                Row &row) {
  int64_t channels = program.operations.back().output.dims[1];
  size_t next = 0;
  if (program.operations.size() > 1) {
    for (float &value : row) value = round_to(program.operations[0].output.type, value);
  }
  for (size_t i = 1; i < program.operations.size(); i++) {
    const Operation &step = program.operations[i];
    const Addend *addend = step.has_second ? &addends[next++] : nullptr;
    float lowest = static_cast<float>(step.pointwise.lower_clip);
    for (size_t j = 0; j < row.size(); j++) {
      float value = row[j];
      if (addend != nullptr) {
        value += addend->at(image, j % channels, y, j / channels);
      } else if (!(value > lowest) && !(std::isnan(value) && step.pointwise.keeps_nan)) {
        // Without being told to keep it, cuDNN makes a NaN a zero.
        value = lowest;
      }
      row[j] = round_to(step.output.type, value);
    }
  }
}

}  // namespace

void compute(const Program &program) {
  const Operation &first = program.operations[0];
  const Tensor &output = program.operations.back().output;
  bool forward = first.kind == FORWARD_OPERATION;
  std::vector<float> input = load(first.input, program.pointers.at(first.input.uid), program.tf32);
  std::vector<float> weights = load(first.second, program.pointers.at(first.second.uid), program.tf32);
  if (forward) weights = outputs_last(first.second, weights);
  std::vector<Addend> addends;
  for (size_t i = 1; i < program.operations.size(); i++) {
    const Operation &step = program.operations[i];
    if (!step.has_second) continue;
    addends.push_back({step.second, load(step.second, program.pointers.at(step.second.uid), false)});
  }
  int64_t rows = output.dims[2];
  int64_t row_values = output.dims[1] * output.dims[3];
  int64_t narrow = forward ? output.values() : first.input.values();
  double operations = double(narrow) * first.second.values() / first.second.dims[0];
  uint64_t pointer = program.pointers.at(output.uid);
  for_each_index(output.dims[0] * rows, operations, [&](int64_t index) {
    Row row(row_values, 0.0f);
    int64_t image = index / rows, y = index % rows;
    auto compute_row = forward ? forward_row : gradient_row;
    compute_row(program, input, weights, image, y, row);
    finish_row(program, addends, image, y, row);
    store(output, pointer, index * row_values, row);
  });
}

}  // namespace emulator::dnn
