// See testing.h.
#include "testing.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <set>

namespace {

const size_t GUARD_BYTES = 64;
const uint8_t GUARD = 0xa5;
// As f32, bf16 and f16 a large negative number.
const uint8_t UNWRITTEN = 0xe7;

int failures = 0;
std::set<std::string> run_kernels;

double decoded(Format format, const uint8_t *bytes) {
  float value;
  Half half;
  BFloat16 bfloat16;
  switch (format) {
    case Format::F32:
      std::memcpy(&value, bytes, sizeof value);
      return value;
    case Format::BF16:
      std::memcpy(&bfloat16, bytes, sizeof bfloat16);
      return float_of_bfloat16(bfloat16);
    default:
      std::memcpy(&half, bytes, sizeof half);
      return float_of_half(half);
  }
}

void encode(Format format, double number, uint8_t *bytes) {
  float value = static_cast<float>(number);
  Half half = half_of_float(value);
  BFloat16 bfloat16 = bfloat16_of_float(value);
  const void *from = &value;
  if (format == Format::BF16) from = &bfloat16;
  if (format == Format::F16) from = &half;
  std::memcpy(bytes, from, bytes_of(format));
}

template <typename T>
std::vector<uint8_t> bytes_of_value(T value) {
  std::vector<uint8_t> bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

[[noreturn]] void stop(const std::string &message) {
  std::printf("FAILED: %s\n", message.c_str());
  std::exit(1);
}

void report(const std::string &line, bool holds) {
  std::printf("%s%s\n", holds ? "" : "FAILED: ", line.c_str());
  if (!holds) failures++;
}

}  // namespace

std::string suffix(Format format) {
  if (format == Format::F32) return "f32";
  return format == Format::BF16 ? "bf16" : "f16";
}

size_t bytes_of(Format format) { return format == Format::F32 ? 4 : 2; }

double rounding(Format format) {
  if (format == Format::F32) return std::ldexp(1.0, -24);
  return std::ldexp(1.0, format == Format::BF16 ? -8 : -11);
}

double rounded(Format format, double value) {
  uint8_t bytes[4];
  encode(format, value, bytes);
  return decoded(format, bytes);
}

double Random::uniform(double from, double to) {
  return std::uniform_real_distribution<double>(from, to)(generator_);
}

int Random::below(int end) { return std::uniform_int_distribution<int>(0, end - 1)(generator_); }

Numbers Random::numbers(Format format, size_t count, double from, double to) {
  Numbers values(count);
  for (double &value : values) value = rounded(format, uniform(from, to));
  return values;
}

Memory::Memory(size_t bytes, size_t offset)
    : storage_(bytes + offset + 2 * GUARD_BYTES + 64, GUARD), bytes_(bytes) {
  size_t start = reinterpret_cast<size_t>(storage_.data()) + GUARD_BYTES;
  first_ = GUARD_BYTES + (64 - start % 64) % 64 + offset;
}

Memory Memory::of(Format format, const Numbers &values, size_t offset) {
  Memory memory = room(format, values.size(), offset);
  uint8_t *to = static_cast<uint8_t *>(memory.start());
  for (size_t i = 0; i < values.size(); i++) encode(format, values[i], to + i * bytes_of(format));
  return memory;
}

Memory Memory::of(const std::vector<float> &values) {
  return of(Format::F32, Numbers(values.begin(), values.end()));
}

Memory Memory::of(const std::vector<int> &values) {
  Memory memory(values.size() * sizeof(int), 0);
  if (!values.empty()) std::memcpy(memory.start(), values.data(), memory.bytes_);
  return memory;
}

Memory Memory::of(const std::vector<uint8_t> &values) {
  Memory memory(values.size(), 0);
  if (!values.empty()) std::memcpy(memory.start(), values.data(), memory.bytes_);
  return memory;
}

Memory Memory::room(Format format, size_t count, size_t offset) {
  Memory memory(count * bytes_of(format), offset);
  std::memset(memory.start(), UNWRITTEN, memory.bytes_);
  return memory;
}

Numbers Memory::numbers(Format format) const {
  Numbers values(bytes_ / bytes_of(format));
  for (size_t i = 0; i < values.size(); i++) {
    values[i] = decoded(format, storage_.data() + first_ + i * bytes_of(format));
  }
  return values;
}

std::vector<int> Memory::ints() const {
  std::vector<int> values(bytes_ / sizeof(int));
  std::memcpy(values.data(), storage_.data() + first_, bytes_);
  return values;
}

bool Memory::guards_hold() const {
  for (size_t i = 0; i < storage_.size(); i++) {
    bool is_guard = i < first_ || i >= first_ + bytes_;
    if (is_guard && storage_[i] != GUARD) return false;
  }
  return true;
}

Argument::Argument(Memory &memory) : value(bytes_of_value(memory.start())), memory(&memory) {}
Argument::Argument(std::nullptr_t) : value(bytes_of_value(static_cast<void *>(nullptr))) {}
Argument::Argument(int number) : value(bytes_of_value(number)) {}
Argument::Argument(bool flag) : value(bytes_of_value(flag ? 1 : 0)) {}
Argument::Argument(long long number) : value(bytes_of_value(number)) {}
Argument::Argument(float number) : value(bytes_of_value(number)) {}

void launch(const std::string &kernel, Format format, size_t blocks,
            std::vector<Argument> arguments) {
  std::string name = kernel + "_" + suffix(format);
  unsigned bytes[16];
  int count = camshaft_argument_bytes(name.c_str(), bytes, 16);
  if (count != static_cast<int>(arguments.size())) {
    stop(name + " has " + std::to_string(count) + " arguments");
  }
  std::vector<void *> pointers;
  for (int i = 0; i < count; i++) {
    if (bytes[i] != arguments[i].value.size()) {
      stop(name + ": argument " + std::to_string(i) + " has another size");
    }
    pointers.push_back(arguments[i].value.data());
  }
  unsigned grid[3] = {static_cast<unsigned>(blocks), 1, 1}, block[3] = {256, 1, 1};
  int status = camshaft_launch(name.c_str(), grid, block, 0, pointers.data());
  if (status != 0) stop(name + " can't be run: " + std::to_string(status));
  for (const Argument &argument : arguments) {
    if (argument.memory != nullptr && !argument.memory->guards_hold()) {
      stop(name + " writes outside of its memory");
    }
  }
  run_kernels.insert(name);
}

size_t divided(size_t items, size_t by) { return (items + by - 1) / by; }

size_t groups(Format format, size_t channels) { return divided(channels, 16 / bytes_of(format)); }

double rectified(double value) { return value < 0 ? 0 : value; }

Tolerance of_results(Format format) {
  // The result is rounded once; sums in f32 before it may differ by a little.
  double smallest = format == Format::F16 ? 0x1p-25 : 0;
  return {rounding(format) * 1.01 + (format == Format::F32 ? 1e-6 : 0), smallest + 1e-6};
}

Tolerance of_sums() { return {2e-6, 2e-6}; }

void expect_close(const std::string &what, Format format, const Numbers &found,
                  const Numbers &expected, Tolerance tolerance) {
  double largest = 0;
  size_t wrong = 0, first_wrong = 0;
  bool same_length = found.size() == expected.size();
  for (size_t i = 0; same_length && i < found.size(); i++) {
    if (found[i] == expected[i] || (std::isnan(found[i]) && std::isnan(expected[i]))) continue;
    double difference = std::abs(found[i] - expected[i]);
    if (difference > largest) largest = difference;
    if (!(difference <= tolerance.relative * std::abs(expected[i]) + tolerance.absolute)) {
      if (wrong++ == 0) first_wrong = i;
    }
  }
  std::string line = what + ", " + suffix(format) + ": " + std::to_string(found.size()) + " values";
  char numbers[200];
  std::snprintf(numbers, sizeof numbers, ", largest difference %.2g", largest);
  line += numbers;
  if (wrong > 0) {
    std::snprintf(numbers, sizeof numbers, "; %zu are wrong, first at %zu: %.8g instead of %.8g",
                  wrong, first_wrong, found[first_wrong], expected[first_wrong]);
    line += numbers;
  }
  report(line, same_length && wrong == 0);
}

void expect_equal(const std::string &what, Format format, const std::vector<int> &found,
                  const std::vector<int> &expected) {
  std::string line = what + ", " + suffix(format) + ": " + std::to_string(found.size()) + " values";
  report(line + (found == expected ? " are equal" : " differ"), found == expected);
}

void expect(const std::string &what, bool holds) { report(what, holds); }

int finish() {
  for (const auto &kernel : host_kernels()) {
    if (run_kernels.count(kernel.first) == 0) report(kernel.first + " was never run", false);
  }
  std::printf("%zu kernels, %d failures\n", run_kernels.size(), failures);
  return failures == 0 ? 0 : 1;
}
