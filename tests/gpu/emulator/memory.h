// The device's and the pinned host memory of the emulator. Not known outside of libcuda.so.1.
#pragma once

#include <cstdint>
#include <map>

namespace emulator {

struct Allocation {
  uint64_t bytes;
  char *mapping;
  uint64_t mapped_bytes;
  // A free is queued, but has not run.
  bool freed_soon;
};

// Allocations between pages that nothing may touch. Addresses are never used twice, so that a
// pointer to freed memory is found out. Fresh memory is NaN in every format: all bits are ones.
class Memory {
 public:
  // 0 if the machine has no more memory.
  uint64_t allocate(uint64_t bytes);
  // False if no allocation starts at `pointer`.
  bool release(uint64_t pointer);
  void release_all();
  // The allocation that starts at `pointer`, if there is one.
  Allocation *starting_at(uint64_t pointer);
  // Whether all of the bytes lie in one allocation.
  bool contains(uint64_t pointer, uint64_t bytes) const;
  // Whether any allocation contains the address.
  bool touches(uint64_t pointer) const;
  uint64_t used_bytes() const { return used; }
  const std::map<uint64_t, Allocation> &all() const { return allocations; }

 private:
  std::map<uint64_t, Allocation> allocations;
  uint64_t used = 0;
};

Memory &device_memory();
Memory &host_memory();

// From now on a kernel that reads or writes outside of all allocations ends the process with a line
// that names the kernel.
void watch_for_faults();

// The work that runs now, for that line; a null pointer if there is none.
void set_running(const char *what);

}  // namespace emulator
