#include "memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "emulator.h"

namespace emulator {

namespace {

constexpr uint64_t PAGE = 4096;
// As the driver's: https://docs.nvidia.com/cuda/cuda-c-programming-guide/#device-memory-accesses.
constexpr uint64_t ALIGNMENT = 256;
// Larger allocations get their pattern at the start only: filling the workspaces of a network would
// take longer than its pass.
constexpr uint64_t FILLED = 64 << 20;
constexpr int PATTERN = 0xff;

uint64_t round_up(uint64_t value, uint64_t step) { return (value + step - 1) / step * step; }

const char *volatile running = nullptr;
struct sigaction previous;

// The allocation that ends or starts next to the address, for a message.
void describe(char *text, size_t size, uint64_t address) {
  uint64_t nearest = UINT64_MAX;
  snprintf(text, size, "no allocation is near");
  for (const auto &[start, allocation] : device_memory().all()) {
    uint64_t end = start + allocation.bytes;
    uint64_t distance = address < start ? start - address : address < end ? 0 : address - end;
    if (distance < nearest) {
      nearest = distance;
      snprintf(text, size, "%llu bytes %s the allocation of %llu bytes at 0x%llx",
               (unsigned long long)(address >= start && address < end ? address - start : distance),
               address < start ? "before" : address < end ? "into" : "behind",
               (unsigned long long)allocation.bytes, (unsigned long long)start);
    }
  }
}

void on_fault(int, siginfo_t *info, void *) {
  if (running != nullptr) {
    char near[200], line[400];
    uint64_t address = reinterpret_cast<uint64_t>(info->si_addr);
    describe(near, sizeof near, address);
    int length = snprintf(line, sizeof line, "emulated GPU: %s touched 0x%llx: %s\n", running,
                          (unsigned long long)address, near);
    if (write(STDERR_FILENO, line, std::min<size_t>(length, sizeof line - 1)) < 0) _exit(139);
  }
  // The same instruction faults again, and then the former handler has it.
  sigaction(SIGSEGV, &previous, nullptr);
}

}  // namespace

uint64_t Memory::allocate(uint64_t bytes) {
  uint64_t rounded = round_up(bytes, ALIGNMENT);
  uint64_t usable = round_up(rounded, PAGE);
  uint64_t mapped = usable + 2 * PAGE;
  void *mapping = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return 0;
  char *pages = static_cast<char *>(mapping) + PAGE;
  if (mprotect(pages, usable, PROT_READ | PROT_WRITE) != 0) {
    munmap(mapping, mapped);
    return 0;
  }
  memset(pages, PATTERN, std::min(usable, FILLED));
  // At the end of its pages, so that a step over the end is a step into the page behind them.
  uint64_t start = reinterpret_cast<uint64_t>(pages) + usable - rounded;
  allocations[start] = Allocation{bytes, static_cast<char *>(mapping), mapped, false};
  used += bytes;
  return start;
}

bool Memory::release(uint64_t pointer) {
  auto found = allocations.find(pointer);
  if (found == allocations.end()) return false;
  const Allocation &allocation = found->second;
  // Gives the memory back and keeps the addresses.
  mmap(allocation.mapping, allocation.mapped_bytes, PROT_NONE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  used -= allocation.bytes;
  allocations.erase(found);
  return true;
}

void Memory::release_all() {
  while (!allocations.empty()) release(allocations.begin()->first);
}

Allocation *Memory::starting_at(uint64_t pointer) {
  auto found = allocations.find(pointer);
  return found == allocations.end() ? nullptr : &found->second;
}

bool Memory::contains(uint64_t pointer, uint64_t bytes) const {
  auto after = allocations.upper_bound(pointer);
  if (after == allocations.begin()) return false;
  auto [start, allocation] = *std::prev(after);
  uint64_t offset = pointer - start;
  return offset <= allocation.bytes && bytes <= allocation.bytes - offset;
}

bool Memory::touches(uint64_t pointer) const { return contains(pointer, 1); }

Memory &device_memory() {
  // Never destroyed: threads may still use it when the process ends.
  static Memory &memory = *new Memory;
  return memory;
}

Memory &host_memory() {
  static Memory &memory = *new Memory;
  return memory;
}

void watch_for_faults() {
  static bool installed = false;
  if (installed) return;
  installed = true;
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &previous);
}

void set_running(const char *what) { running = what; }

Status check_range(const std::string &what, uint64_t pointer, uint64_t bytes) {
  if (device_memory().contains(pointer, bytes)) return SUCCESS;
  char near[200];
  describe(near, sizeof near, pointer);
  char line[400];
  snprintf(line, sizeof line, "%llu bytes at 0x%llx are not in one living allocation: %s",
           (unsigned long long)bytes, (unsigned long long)pointer, near);
  report(what + ": " + line);
  return ILLEGAL_ADDRESS;
}

}  // namespace emulator
