// The half-precision formats of kernels_on_host.h.
#include <cmath>

#include "testing.h"

namespace {

// True if no neighbour of `found` is nearer to `value`, and of two that are equally near the even
// one was taken. `magnitude_of` gives the number of a magnitude's bits; `infinity` is the bits of
// infinity, which is treated as the next number after the largest.
bool is_nearest(double value, uint16_t found, uint16_t infinity, double (*magnitude_of)(uint32_t)) {
  double magnitude = std::abs(value);
  uint32_t bits = found & 0x7fff;
  double error = std::abs(magnitude_of(bits) - magnitude);
  for (int step = -1; step <= 1; step += 2) {
    int64_t other = static_cast<int64_t>(bits) + step;
    if (other < 0 || other > infinity) continue;
    double other_error = std::abs(magnitude_of(static_cast<uint32_t>(other)) - magnitude);
    if (other_error < error || (other_error == error && bits % 2 == 1)) return false;
  }
  return true;
}

double half_magnitude(uint32_t bits) {
  uint32_t exponent = bits >> 10, fraction = bits & 0x3ff;
  if (exponent == 0) return std::ldexp(fraction, -24);
  return std::ldexp(1024 + fraction, static_cast<int>(exponent) - 25);
}

double bfloat16_magnitude(uint32_t bits) {
  uint32_t exponent = bits >> 7, fraction = bits & 0x7f;
  if (exponent == 0) return std::ldexp(fraction, -133);
  return std::ldexp(128 + fraction, static_cast<int>(exponent) - 134);
}

// Values that are rounded: spread over all floats, and around the ties between halves.
template <typename Visit>
void for_each_float(Visit visit) {
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 4099) {
    visit(float_of_bits(static_cast<uint32_t>(bits)));
  }
  for (uint32_t high = 0; high < 0x10000; high++) {
    for (uint32_t low : {0x0000u, 0x0fffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u, 0xf000u}) {
      visit(float_of_bits(high << 16 | low));
    }
  }
}

}  // namespace

void test_conversions() {
  bool half_rounds = true, bfloat16_rounds = true;
  for_each_float([&](float value) {
    uint16_t half = half_of_float(value).bits, bfloat16 = bfloat16_of_float(value).bits;
    if (std::isnan(value)) {
      half_rounds = half_rounds && (half & 0x7fff) > 0x7c00;
      bfloat16_rounds = bfloat16_rounds && (bfloat16 & 0x7fff) > 0x7f80;
      return;
    }
    if (std::isinf(value)) {
      half_rounds = half_rounds && (half & 0x7fff) == 0x7c00;
      bfloat16_rounds = bfloat16_rounds && (bfloat16 & 0x7fff) == 0x7f80;
      return;
    }
    bool same_sign = half >> 15 == std::signbit(value) && bfloat16 >> 15 == std::signbit(value);
    // Half: what is larger than the tie between the largest number and the next stays infinite.
    bool is_large = std::abs(static_cast<double>(value)) >= 65536;
    bool half_nearest = is_large ? (half & 0x7fff) == 0x7c00
                                 : is_nearest(value, half, 0x7c00, half_magnitude);
    half_rounds = half_rounds && same_sign && half_nearest;
    bfloat16_rounds =
        bfloat16_rounds && same_sign && is_nearest(value, bfloat16, 0x7f80, bfloat16_magnitude);
  });
  expect("floats are rounded to the nearest half, ties to even", half_rounds);
  expect("floats are rounded to the nearest bfloat16, ties to even", bfloat16_rounds);
  bool half_returns = true, bfloat16_returns = true;
  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    uint16_t pattern = static_cast<uint16_t>(bits);
    float half = float_of_half(Half{pattern}), bfloat16 = float_of_bfloat16(BFloat16{pattern});
    bool half_is_nan = (bits & 0x7fff) > 0x7c00, bfloat16_is_nan = (bits & 0x7fff) > 0x7f80;
    half_returns = half_returns && (half_is_nan ? std::isnan(half)
                                                : half_of_float(half).bits == pattern);
    bfloat16_returns =
        bfloat16_returns && (bfloat16_is_nan ? std::isnan(bfloat16)
                                             : bfloat16_of_float(bfloat16).bits == pattern);
  }
  expect("each half is itself after a way through float", half_returns);
  expect("each bfloat16 is itself after a way through float", bfloat16_returns);
}
