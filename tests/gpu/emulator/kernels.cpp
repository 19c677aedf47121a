// Modules, functions and launches. The kernels are those of worker/cuda/src/kernels.cu, compiled for the
// host and found by their names; what a module's image holds does not matter.

#include <cstring>

#include "driver.h"
#include "memory.h"

// Of worker/cuda/src/kernels_on_host.h, which is compiled with the kernels.
extern "C" int camshaft_argument_bytes(const char *name, unsigned *bytes, int most);
extern "C" int camshaft_launch(const char *name, const unsigned grid[3], const unsigned block[3],
                               unsigned shared_bytes, void **arguments);

using namespace emulator;

namespace {

struct Function {
  std::string name;
  std::vector<unsigned> argument_bytes;
  int most_shared_bytes;
};

struct Module {
  std::map<std::string, std::unique_ptr<Function>> functions;
};

constexpr int MOST_ARGUMENTS = 64;
constexpr int SHARED_BYTES = 48 << 10, SHARED_BYTES_IF_ASKED = 99 << 10;
constexpr int MOST_DYNAMIC_SHARED_BYTES = 8;

std::map<void *, std::unique_ptr<Module>> &modules() {
  static auto &all = *new std::map<void *, std::unique_ptr<Module>>;
  return all;
}

Function *find_function(void *handle) {
  for (const auto &[module_handle, module] : modules()) {
    for (const auto &[name, function] : module->functions) {
      if (function.get() == handle) return function.get();
    }
  }
  return nullptr;
}

Status load_module(void **module, const void *image) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  if (image == nullptr) return INVALID_VALUE;
  auto made = std::make_unique<Module>();
  *module = made.get();
  modules()[made.get()] = std::move(made);
  return SUCCESS;
}

// The values of a launch's arguments, copied at the call.
using Values = std::vector<std::vector<char>>;

// Arguments of eight bytes are pointers, unless they are too small for one.
Status check_pointers(const std::string &kernel, const Values &values) {
  for (size_t i = 0; i < values.size(); i++) {
    uint64_t value = 0;
    if (values[i].size() != sizeof value) continue;
    memcpy(&value, values[i].data(), sizeof value);
    constexpr uint64_t LOWEST_POINTER = 1ull << 32;
    if (value < LOWEST_POINTER) continue;
    Status status = check_range(kernel + ", argument " + std::to_string(i), value, 1);
    if (status != SUCCESS) return status;
  }
  return SUCCESS;
}

Status run(const std::string &kernel, const unsigned (&grid)[3], const unsigned (&block)[3],
           unsigned shared_bytes, Values values) {
  Status status = check_pointers(kernel, values);
  if (status != SUCCESS) return status;
  std::vector<void *> arguments;
  for (auto &value : values) arguments.push_back(value.data());
  if (camshaft_launch(kernel.c_str(), grid, block, shared_bytes, arguments.data()) == 0) return SUCCESS;
  report(kernel + " does not run with such blocks or so much shared memory");
  return LAUNCH_FAILED;
}

bool fits_device(const unsigned (&grid)[3], const unsigned (&block)[3]) {
  constexpr unsigned MOST_GRID[3] = {2147483647, 65535, 65535}, MOST_BLOCK[3] = {1024, 1024, 64};
  for (int i = 0; i < 3; i++) {
    bool fits = grid[i] > 0 && grid[i] <= MOST_GRID[i] && block[i] > 0 && block[i] <= MOST_BLOCK[i];
    if (!fits) return false;
  }
  return block[0] * block[1] * block[2] <= 1024;
}

}  // namespace

EMULATED Status cuModuleLoadData(void **module, const void *image) { return load_module(module, image); }

EMULATED Status cuModuleLoadDataEx(void **module, const void *image, unsigned, int *, void **) {
  return load_module(module, image);
}

EMULATED Status cuModuleLoadFatBinary(void **module, const void *image) {
  return load_module(module, image);
}

EMULATED Status cuModuleUnload(void *module) {
  Call call(Needs::Driver);
  return modules().erase(module) == 1 ? call.status : INVALID_HANDLE;
}

EMULATED Status cuModuleGetFunction(void **function, void *handle, const char *name) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  auto module = modules().find(handle);
  if (module == modules().end()) return INVALID_HANDLE;
  unsigned bytes[MOST_ARGUMENTS];
  int count = camshaft_argument_bytes(name, bytes, MOST_ARGUMENTS);
  if (count < 0 || count > MOST_ARGUMENTS) {
    report(std::string("there is no kernel ") + name);
    return NOT_FOUND;
  }
  auto &place = module->second->functions[name];
  if (!place) place.reset(new Function{name, {bytes, bytes + count}, SHARED_BYTES});
  *function = place.get();
  return SUCCESS;
}

EMULATED Status cuModuleGetGlobal_v2(uint64_t *, size_t *, void *, const char *) { return NOT_FOUND; }

EMULATED Status cuFuncGetAttribute(int *value, int attribute, void *handle) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Function *function = find_function(handle);
  if (function == nullptr) return INVALID_HANDLE;
  constexpr int MOST_THREADS = 0;
  *value = attribute == MOST_THREADS                ? 1024
           : attribute == MOST_DYNAMIC_SHARED_BYTES ? function->most_shared_bytes
                                                    : 0;
  return SUCCESS;
}

EMULATED Status cuFuncSetAttribute(void *handle, int attribute, int value) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Function *function = find_function(handle);
  if (function == nullptr) return INVALID_HANDLE;
  if (attribute != MOST_DYNAMIC_SHARED_BYTES) return SUCCESS;
  if (value < 0 || value > SHARED_BYTES_IF_ASKED) return INVALID_VALUE;
  function->most_shared_bytes = value;
  return SUCCESS;
}

EMULATED Status cuFuncSetCacheConfig(void *function, int) {
  Call call(Needs::Context);
  return find_function(function) == nullptr ? INVALID_HANDLE : call.status;
}

EMULATED Status cuLaunchKernel(void *handle, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                               unsigned block_x, unsigned block_y, unsigned block_z,
                               unsigned shared_bytes, void *stream, void **arguments, void **extra) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Function *function = find_function(handle);
  if (function == nullptr) return INVALID_HANDLE;
  if (extra != nullptr) return NOT_SUPPORTED;
  const unsigned grid[3] = {grid_x, grid_y, grid_z}, block[3] = {block_x, block_y, block_z};
  if (!fits_device(grid, block) || shared_bytes > unsigned(function->most_shared_bytes)) {
    report(function->name + ": the device has no such grids, blocks, or so much shared memory");
    return INVALID_VALUE;
  }
  Values values;
  for (size_t i = 0; i < function->argument_bytes.size(); i++) {
    const char *value = static_cast<const char *>(arguments[i]);
    values.emplace_back(value, value + function->argument_bytes[i]);
  }
  auto work = [=, name = function->name] { return run(name, grid, block, shared_bytes, values); };
  return enqueue(stream, function->name, work, true);
}
