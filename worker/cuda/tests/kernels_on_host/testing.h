// What the tests share: number formats in double, memory with guards, launches that check their
// arguments, and comparisons that print a line each. Knows no kernel.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "../../src/kernels_on_host.h"

typedef std::vector<double> Numbers;

enum class Format { F32, BF16, F16 };

inline const Format FORMATS[] = {Format::F32, Format::BF16, Format::F16};

// The end of the kernels' names.
std::string suffix(Format format);
size_t bytes_of(Format format);
// Half of the distance from 1 to the next number: the error of rounding.
double rounding(Format format);
// The nearest number of the format.
double rounded(Format format, double value);

// Numbers from a generator that starts the same each time.
class Random {
 public:
  double uniform(double from, double to);
  int below(int end);
  // Numbers of the format.
  Numbers numbers(Format format, size_t count, double from, double to);

 private:
  std::mt19937_64 generator_{18};
};

// Memory as a kernel sees it. It starts at a multiple of 64 bytes, or `offset` bytes later, and has
// guards on both sides, which no kernel may write to.
class Memory {
 public:
  Memory(size_t bytes, size_t offset);
  Memory(const Memory &) = delete;
  Memory(Memory &&) = default;

  static Memory of(Format format, const Numbers &values, size_t offset = 0);
  static Memory of(const std::vector<float> &values);
  static Memory of(const std::vector<int> &values);
  static Memory of(const std::vector<uint8_t> &values);
  // Room for values of the format; each byte is set to something that is no sensible number.
  static Memory room(Format format, size_t count, size_t offset = 0);

  void *start() { return storage_.data() + first_; }
  Numbers numbers(Format format) const;
  std::vector<int> ints() const;
  bool guards_hold() const;

 private:
  std::vector<uint8_t> storage_;
  size_t first_, bytes_;
};

// An argument of a launch: its value's bytes.
struct Argument {
  std::vector<uint8_t> value;
  // What the pointer points to, if it is one of this test's.
  const Memory *memory = nullptr;

  Argument(Memory &memory);
  Argument(std::nullptr_t);
  Argument(int value);
  Argument(bool value);
  Argument(long long value);
  Argument(float value);
};

// Runs a kernel for a format, and ends the test with a message if it has other arguments, or writes
// outside of its memory.
void launch(const std::string &kernel, Format format, size_t blocks,
            std::vector<Argument> arguments);

size_t divided(size_t items, size_t by);
// Groups of 16 bytes of a row.
size_t groups(Format format, size_t channels);
double rectified(double value);

// How far a number may be from the expected one: `relative` of the expected one's size, plus
// `absolute`.
struct Tolerance {
  double relative, absolute;
};

// Of results that are rounded to the format, of sums of a few values.
Tolerance of_results(Format format);
// Of f32 results.
Tolerance of_sums();

// Prints a line, and remembers a failure. NaN equals NaN.
void expect_close(const std::string &what, Format format, const Numbers &found,
                  const Numbers &expected, Tolerance tolerance);
void expect_equal(const std::string &what, Format format, const std::vector<int> &found,
                  const std::vector<int> &expected);
void expect(const std::string &what, bool holds);

// Ends the program's report: kernels that were never run are failures. The exit status.
int finish();

void test_conversions();
void test_input(Random &random);
void test_pooling(Random &random);
void test_head(Random &random);
void test_maps(Random &random);
void test_rows(Random &random);
