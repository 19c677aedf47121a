// Tests the kernels of ../../src on the host, in each number format, against plain references in
// double. Prints a line for each comparison, and ends with status 1 after a failure.
//
// Covers the arithmetic, the indices, and what lies at the ends of rows. Does not show that threads
// of a device wait for each other where they have to, or how fast it is.
#include "testing.h"

int main() {
  Random random;
  test_conversions();
  test_input(random);
  test_pooling(random);
  test_head(random);
  test_maps(random);
  test_rows(random);
  return finish();
}
