// Checks the emulator itself: convolutions and data gradients against sums that are written down
// plainly, a kernel, captures, and that faults are found. `build.sh --test` runs it.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cudnn.h"

using namespace emulator::dnn;

extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuStreamCreate(void **, unsigned);
int cuStreamSynchronize(void *);
int cuStreamBeginCapture_v2(void *, unsigned);
int cuStreamEndCapture(void *, void **);
int cuGraphInstantiateWithFlags(void **, void *, unsigned long long);
int cuGraphLaunch(void *, void *);
int cuMemAlloc_v2(uint64_t *, size_t);
int cuMemFree_v2(uint64_t);
int cuMemHostAlloc(void **, size_t, unsigned);
int cuMemcpyHtoD_v2(uint64_t, const void *, size_t);
int cuMemcpyDtoH_v2(void *, uint64_t, size_t);
int cuMemcpyHtoDAsync_v2(uint64_t, const void *, size_t, void *);
int cuMemcpyDtoHAsync_v2(void *, uint64_t, size_t, void *);
int cuMemsetD8Async(uint64_t, unsigned char, size_t, void *);
int cuModuleLoadData(void **, const void *);
int cuModuleGetFunction(void **, void *, const char *);
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
                   void **, void **);
int cudnnCreate(void **);
int cudnnSetStream(void *, void *);
void cudnnGetLastErrorString(char *, size_t);
int cudnnBackendCreateDescriptor(int, void **);
int cudnnBackendDestroyDescriptor(void *);
int cudnnBackendSetAttribute(void *, int, int, int64_t, const void *);
int cudnnBackendGetAttribute(void *, int, int, int64_t, int64_t *, void *);
int cudnnBackendFinalize(void *);
int cudnnBackendExecute(void *, void *, void *);
}

namespace {

void expect_equal(long found, long expected, const char *what) {
  if (found == expected) return;
  char message[300] = "";
  cudnnGetLastErrorString(message, sizeof message);
  fprintf(stderr, "%s: %ld, not %ld; %s\n", what, found, expected, message);
  exit(1);
}

#define DO(call) expect_equal(call, 0, #call)

struct Builder {
  void *descriptor;
  explicit Builder(int kind) { DO(cudnnBackendCreateDescriptor(kind, &descriptor)); }
  template <typename T>
  Builder &set(int name, int type, std::vector<T> values) {
    DO(cudnnBackendSetAttribute(descriptor, name, type, values.size(), values.data()));
    return *this;
  }
  void *done() {
    DO(cudnnBackendFinalize(descriptor));
    return descriptor;
  }
};

using Ints = std::vector<int64_t>;

void *tensor(int64_t uid, const Ints &dims, bool is_virtual = false) {
  Ints strides = {dims[1] * dims[2] * dims[3], 1, dims[1] * dims[3], dims[1]};
  return Builder(TENSOR)
      .set(TENSOR_DATA_TYPE, TYPE_DATA_TYPE, std::vector<int>{DATA_FLOAT})
      .set(TENSOR_DIMENSIONS, TYPE_INT64, dims)
      .set(TENSOR_STRIDES, TYPE_INT64, strides)
      .set(TENSOR_UNIQUE_ID, TYPE_INT64, Ints{uid})
      .set(TENSOR_BYTE_ALIGNMENT, TYPE_INT64, Ints{16})
      .set(TENSOR_IS_VIRTUAL, TYPE_BOOLEAN, std::vector<char>{is_virtual})
      .done();
}

void *step(int mode, void *x, void *b, void *y) {
  void *pointwise = Builder(POINTWISE)
                        .set(POINTWISE_MODE, TYPE_POINTWISE_MODE, std::vector<int>{mode})
                        .set(POINTWISE_MATH_PREC, TYPE_DATA_TYPE, std::vector<int>{DATA_FLOAT})
                        .done();
  Builder operation(POINTWISE_OPERATION);
  operation.set(OPERATION_POINTWISE, TYPE_DESCRIPTOR, std::vector<void *>{pointwise})
      .set(OPERATION_X, TYPE_DESCRIPTOR, std::vector<void *>{x})
      .set(OPERATION_Y, TYPE_DESCRIPTOR, std::vector<void *>{y});
  if (b != nullptr) operation.set(OPERATION_B, TYPE_DESCRIPTOR, std::vector<void *>{b});
  return operation.done();
}

struct Shape {
  int64_t n, c, h, w, k, side, stride, before, after;
  int64_t rows() const { return (h + before + after - side) / stride + 1; }
  int64_t columns() const { return (w + before + after - side) / stride + 1; }
};

void *convolution(const Shape &s) {
  return Builder(CONVOLUTION)
      .set(CONVOLUTION_SPATIAL_DIMS, TYPE_INT64, Ints{2})
      .set(CONVOLUTION_COMP_TYPE, TYPE_DATA_TYPE, std::vector<int>{DATA_FLOAT})
      .set(CONVOLUTION_CONV_MODE, TYPE_CONVOLUTION_MODE, std::vector<int>{1})
      .set(CONVOLUTION_PRE_PADDINGS, TYPE_INT64, Ints{s.before, s.before})
      .set(CONVOLUTION_POST_PADDINGS, TYPE_INT64, Ints{s.after, s.after})
      .set(CONVOLUTION_DILATIONS, TYPE_INT64, Ints{1, 1})
      .set(CONVOLUTION_FILTER_STRIDES, TYPE_INT64, Ints{s.stride, s.stride})
      .done();
}

// The first plan without numerical notes: f32 as it is.
void *plan(void *handle, const std::vector<void *> &operations, int64_t *workspace) {
  void *graph = Builder(OPERATION_GRAPH)
                    .set(GRAPH_OPERATIONS, TYPE_DESCRIPTOR, operations)
                    .set(GRAPH_HANDLE, TYPE_HANDLE, std::vector<void *>{handle})
                    .done();
  void *heuristics = Builder(HEURISTICS)
                         .set(HEURISTICS_GRAPH, TYPE_DESCRIPTOR, std::vector<void *>{graph})
                         .set(HEURISTICS_MODE, TYPE_HEUR_MODE, std::vector<int>{3})
                         .done();
  void *configs[4], *engine;
  for (void *&config : configs) config = Builder(ENGINE_CONFIG).descriptor;
  int64_t found, notes;
  DO(cudnnBackendGetAttribute(heuristics, HEURISTICS_RESULTS, TYPE_DESCRIPTOR, 4, &found, configs));
  for (int64_t i = 0; i < found; i++) {
    engine = Builder(ENGINE).descriptor;
    DO(cudnnBackendGetAttribute(configs[i], CONFIG_ENGINE, TYPE_DESCRIPTOR, 1, nullptr, &engine));
    int note;
    DO(cudnnBackendGetAttribute(engine, ENGINE_NUMERICAL_NOTE, TYPE_NUMERICAL_NOTE, 1, &notes, &note));
    if (notes > 0) continue;
    void *made = Builder(PLAN)
                     .set(PLAN_HANDLE, TYPE_HANDLE, std::vector<void *>{handle})
                     .set(PLAN_CONFIG, TYPE_DESCRIPTOR, std::vector<void *>{configs[i]})
                     .done();
    DO(cudnnBackendGetAttribute(made, PLAN_WORKSPACE_SIZE, TYPE_INT64, 1, nullptr, workspace));
    return made;
  }
  expect_equal(0, 1, "a plan without notes");
  return nullptr;
}

std::vector<float> numbers(int64_t count, unsigned seed) {
  std::vector<float> values(count);
  for (float &value : values) {
    seed = seed * 1664525 + 1013904223;
    value = float(seed >> 16) / 32768 - 1;
  }
  return values;
}

uint64_t upload(const std::vector<float> &values) {
  uint64_t pointer;
  DO(cuMemAlloc_v2(&pointer, values.size() * 4));
  DO(cuMemcpyHtoD_v2(pointer, values.data(), values.size() * 4));
  return pointer;
}

void expect_near(const std::vector<float> &found, const std::vector<double> &expected, const char *what) {
  for (size_t i = 0; i < expected.size(); i++) {
    if (std::fabs(found[i] - expected[i]) <= 1e-4) continue;
    fprintf(stderr, "%s: value %zu is %f, not %f\n", what, i, found[i], expected[i]);
    exit(1);
  }
}

// Calls `add(output, input, weight)` for every product of a convolution, with indices channels last.
template <typename Add>
void for_each_product(const Shape &s, Add add) {
  for (int64_t n = 0; n < s.n; n++)
    for (int64_t y = 0; y < s.rows(); y++)
      for (int64_t x = 0; x < s.columns(); x++)
        for (int64_t r = 0; r < s.side; r++)
          for (int64_t q = 0; q < s.side; q++) {
            int64_t from_y = y * s.stride - s.before + r, from_x = x * s.stride - s.before + q;
            if (from_y < 0 || from_y >= s.h || from_x < 0 || from_x >= s.w) continue;
            for (int64_t k = 0; k < s.k; k++)
              for (int64_t c = 0; c < s.c; c++) {
                add(((n * s.rows() + y) * s.columns() + x) * s.k + k,
                    ((n * s.h + from_y) * s.w + from_x) * s.c + c, ((k * s.side + r) * s.side + q) * s.c + c);
              }
          }
}

struct Device {
  void *handle, *stream;
};

void *pack(const Ints &ids, const std::vector<uint64_t> &pointers, int64_t workspace_bytes) {
  uint64_t workspace = 0;
  if (workspace_bytes > 0) DO(cuMemAlloc_v2(&workspace, workspace_bytes));
  return Builder(VARIANT_PACK)
      .set(PACK_UNIQUE_IDS, TYPE_INT64, ids)
      .set(PACK_POINTERS, TYPE_VOID_PTR, pointers)
      .set(PACK_WORKSPACE, TYPE_VOID_PTR, std::vector<uint64_t>{workspace})
      .done();
}

void check_forward(const Device &device, const Shape &s) {
  Ints out = {s.n, s.k, s.rows(), s.columns()};
  void *x = tensor(1, {s.n, s.c, s.h, s.w}), *w = tensor(2, {s.k, s.c, s.side, s.side});
  void *z = tensor(3, out), *b = tensor(4, {1, s.k, 1, 1}), *y = tensor(5, out);
  void *v1 = tensor(11, out, true), *v2 = tensor(12, out, true), *v3 = tensor(13, out, true);
  void *conv = Builder(FORWARD_OPERATION)
                   .set(FORWARD_X, TYPE_DESCRIPTOR, std::vector<void *>{x})
                   .set(FORWARD_W, TYPE_DESCRIPTOR, std::vector<void *>{w})
                   .set(FORWARD_Y, TYPE_DESCRIPTOR, std::vector<void *>{v1})
                   .set(FORWARD_CONVOLUTION, TYPE_DESCRIPTOR, std::vector<void *>{convolution(s)})
                   .set(FORWARD_ALPHA, TYPE_FLOAT, std::vector<float>{1})
                   .set(FORWARD_BETA, TYPE_FLOAT, std::vector<float>{0})
                   .done();
  int64_t workspace;
  void *made = plan(device.handle, {conv, step(0, v1, z, v2), step(0, v2, b, v3), step(100, v3, nullptr, y)},
                    &workspace);
  auto xs = numbers(s.n * s.c * s.h * s.w, 1), ws = numbers(s.k * s.c * s.side * s.side, 2);
  auto zs = numbers(s.n * s.k * s.rows() * s.columns(), 3), bs = numbers(s.k, 4);
  std::vector<double> expected(zs.begin(), zs.end());
  for (size_t i = 0; i < expected.size(); i++) expected[i] += bs[i % s.k];
  for_each_product(s, [&](int64_t o, int64_t i, int64_t j) { expected[o] += double(xs[i]) * ws[j]; });
  for (double &value : expected) value = std::fmax(value, 0);
  std::vector<float> found(zs.size());
  uint64_t output = upload(found);
  void *bound = pack({1, 2, 3, 4, 5}, {upload(xs), upload(ws), upload(zs), upload(bs), output}, workspace);
  // As a graph: nothing runs while it is captured, and it runs as often as it is launched.
  void *graph, *executable;
  DO(cuStreamBeginCapture_v2(device.stream, 1));
  DO(cudnnBackendExecute(device.handle, made, bound));
  DO(cuStreamEndCapture(device.stream, &graph));
  DO(cuGraphInstantiateWithFlags(&executable, graph, 0));
  for (int round = 0; round < 2; round++) {
    DO(cuMemsetD8Async(output, 0, found.size() * 4, device.stream));
    DO(cuGraphLaunch(executable, device.stream));
    DO(cuStreamSynchronize(device.stream));
    DO(cuMemcpyDtoH_v2(found.data(), output, found.size() * 4));
    expect_near(found, expected, "a convolution");
  }
}

void check_gradient(const Device &device, const Shape &s) {
  void *dx = tensor(1, {s.n, s.c, s.h, s.w}), *w = tensor(2, {s.k, s.c, s.side, s.side});
  void *dy = tensor(3, {s.n, s.k, s.rows(), s.columns()});
  void *operation = Builder(BACKWARD_DATA_OPERATION)
                        .set(BACKWARD_DX, TYPE_DESCRIPTOR, std::vector<void *>{dx})
                        .set(BACKWARD_W, TYPE_DESCRIPTOR, std::vector<void *>{w})
                        .set(BACKWARD_DY, TYPE_DESCRIPTOR, std::vector<void *>{dy})
                        .set(BACKWARD_CONVOLUTION, TYPE_DESCRIPTOR, std::vector<void *>{convolution(s)})
                        .set(BACKWARD_ALPHA, TYPE_FLOAT, std::vector<float>{1})
                        .set(BACKWARD_BETA, TYPE_FLOAT, std::vector<float>{0})
                        .done();
  int64_t workspace;
  void *made = plan(device.handle, {operation}, &workspace);
  auto ws = numbers(s.k * s.c * s.side * s.side, 2), dys = numbers(s.n * s.k * s.rows() * s.columns(), 3);
  std::vector<double> expected(s.n * s.c * s.h * s.w);
  for_each_product(s, [&](int64_t o, int64_t i, int64_t j) { expected[i] += double(dys[o]) * ws[j]; });
  std::vector<float> found(expected.size());
  uint64_t output = upload(found);
  DO(cudnnBackendExecute(device.handle, made,
                         pack({1, 2, 3}, {output, upload(ws), upload(dys)}, workspace)));
  DO(cuStreamSynchronize(device.stream));
  DO(cuMemcpyDtoH_v2(found.data(), output, found.size() * 4));
  expect_near(found, expected, "a data gradient");
  cudnnBackendDestroyDescriptor(w);
  void *again = pack({1, 2, 3}, {output, upload(ws), upload(dys)}, workspace);
  expect_equal(cudnnBackendExecute(device.handle, made, again), BAD_PARAM, "a plan whose tensor is gone");
}

// A kernel runs later than it is launched, with the arguments that it was launched with.
void check_kernel(const Device &device) {
  void *module, *function;
  DO(cuModuleLoadData(&module, "any image"));
  expect_equal(cuModuleGetFunction(&function, module, "no such kernel"), 500, "an unknown kernel");
  DO(cuModuleGetFunction(&function, module, "add_f32"));
  uint64_t to = upload({1, 2}), from = upload({3, 4});
  long long count = 2;
  void *arguments[] = {&to, &from, &count};
  DO(cuLaunchKernel(function, 1, 1, 1, 256, 1, 1, 0, device.stream, arguments, nullptr));
  count = 0;
  std::vector<float> found(2);
  DO(cuStreamSynchronize(device.stream));
  DO(cuMemcpyDtoH_v2(found.data(), to, 8));
  expect_near(found, {4, 6}, "a kernel");
}

// Results are not there before they are waited for; then they are.
void check_order(const Device &device) {
  void *pinned;
  DO(cuMemHostAlloc(&pinned, 8, 0));
  auto *values = static_cast<float *>(pinned);
  uint64_t pointer = upload({1, 2});
  values[0] = 5;
  DO(cuMemcpyDtoHAsync_v2(values, pointer, 8, device.stream));
  expect_equal(long(values[0]), 5, "a result that nobody waited for");
  DO(cuStreamSynchronize(device.stream));
  expect_equal(long(values[0]), 1, "a result that was waited for");
}

// Last, since the device is lost by it.
void check_faults(const Device &device) {
  void *first = Builder(TENSOR).descriptor;
  expect_equal(cudnnBackendFinalize(first), BAD_PARAM, "a tensor without attributes");
  uint64_t pointer = upload({1, 2});
  float values[3] = {};
  DO(cuMemcpyHtoDAsync_v2(pointer, values, 12, device.stream));
  expect_equal(cuStreamSynchronize(device.stream), 700, "a copy past the end of its memory");
  expect_equal(cuMemFree_v2(pointer), 700, "a call after the device was lost");
}

}  // namespace

int main() {
  void *context;
  Device device;
  DO(cuInit(0));
  DO(cuDevicePrimaryCtxRetain(&context, 0));
  DO(cuCtxSetCurrent(context));
  DO(cuStreamCreate(&device.stream, 1));
  DO(cudnnCreate(&device.handle));
  DO(cudnnSetStream(device.handle, device.stream));
  for (const Shape &shape : {Shape{2, 8, 9, 7, 16, 3, 1, 1, 1}, Shape{1, 5, 10, 11, 8, 3, 2, 1, 1},
                             Shape{3, 8, 6, 6, 8, 1, 2, 0, 0}, Shape{1, 12, 8, 8, 8, 4, 1, 2, 1},
                             Shape{1, 32, 64, 64, 64, 3, 1, 1, 1}}) {
    check_forward(device, shape);
    check_gradient(device, shape);
  }
  check_kernel(device);
  check_order(device);
  check_faults(device);
  puts("the emulator computes and finds faults as it should");
}
