// cuDNN's functions: handles, messages, and descriptors as bags of attributes.

#include "cudnn.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "emulator.h"

namespace emulator::dnn {

namespace {

thread_local std::string last_message;

std::set<void *> &handles() {
  static std::set<void *> &all = *new std::set<void *>;
  return all;
}

std::set<void *> &descriptors() {
  static std::set<void *> &all = *new std::set<void *>;
  return all;
}

// The descriptor behind a caller's pointer.
Status open(void *pointer, Descriptor **descriptor) {
  if (pointer == nullptr) return fail(BAD_PARAM_NULL_POINTER, "a descriptor is null");
  if (descriptors().count(pointer) == 0) return fail(BAD_PARAM, "there is no such descriptor");
  *descriptor = static_cast<Descriptor *>(pointer);
  if ((*descriptor)->destroyed) return fail(BAD_PARAM, "a descriptor is used after it was destroyed");
  return OK;
}

// Makes a caller's descriptor a finalized one with what `from` has.
Status fill(void *pointer, Kind kind, const Descriptor &from) {
  Descriptor *to;
  Status status = open(pointer, &to);
  if (status != OK) return status;
  if (to->kind != kind) return fail(BAD_PARAM_DESCRIPTOR_TYPE, "an output descriptor has another type");
  *to = from;
  to->finalized = true;
  return OK;
}

// Gives values to a caller, no more than it asked for.
template <typename T>
Status give(const std::vector<T> &values, int64_t wanted, int64_t *count, void *out) {
  int64_t given = out == nullptr ? 0 : std::min<int64_t>(wanted, values.size());
  if (given > 0) memcpy(out, values.data(), given * sizeof(T));
  if (count != nullptr) *count = out == nullptr || wanted == 0 ? values.size() : given;
  return OK;
}

Descriptor engine_descriptor(Descriptor *graph, int64_t index) {
  Descriptor engine{ENGINE};
  engine.put(ENGINE_GRAPH, TYPE_DESCRIPTOR, &graph, 1);
  engine.put(ENGINE_GLOBAL_INDEX, TYPE_INT64, &index, 1);
  engine.operations = graph->operations;
  engine.finalized = true;
  return engine;
}

Status give_results(const Descriptor &heuristics, int64_t wanted, int64_t *count, void *out) {
  Descriptor *graph;
  Status status = referred(heuristics, HEURISTICS_GRAPH, OPERATION_GRAPH, &graph);
  if (status != OK) return status;
  std::vector<int64_t> engines;
  status = find_engines(graph->operations, heuristics.one<int>(HEURISTICS_MODE, 0), engines);
  if (status != OK) return status;
  int64_t given = out == nullptr ? 0 : std::min<int64_t>(wanted, engines.size());
  for (int64_t i = 0; i < given; i++) {
    // The engine belongs to no caller, and is kept for good.
    auto *engine = new Descriptor(engine_descriptor(graph, engines[i]));
    Descriptor config{ENGINE_CONFIG};
    config.put(CONFIG_ENGINE, TYPE_DESCRIPTOR, &engine, 1);
    config.operations = graph->operations;
    status = fill(static_cast<void **>(out)[i], ENGINE_CONFIG, config);
    if (status != OK) return status;
  }
  if (count != nullptr) *count = out == nullptr || wanted == 0 ? engines.size() : given;
  return OK;
}

Status give_engine(const Descriptor &config, int64_t wanted, int64_t *count, void *out) {
  auto *engine = config.one<Descriptor *>(CONFIG_ENGINE, nullptr);
  if (count != nullptr) *count = 1;
  if (out == nullptr || wanted == 0) return OK;
  return fill(*static_cast<void **>(out), ENGINE, *engine);
}

// What is not stored but follows from the descriptor; false if `name` is no such attribute.
bool give_derived(const Descriptor &from, int name, int64_t wanted, int64_t *count, void *out,
                  Status &status) {
  if (from.kind == HEURISTICS && name == HEURISTICS_RESULTS) {
    status = give_results(from, wanted, count, out);
  } else if (from.kind == ENGINE_CONFIG && name == CONFIG_ENGINE) {
    status = give_engine(from, wanted, count, out);
  } else if (from.kind == ENGINE_CONFIG && name == CONFIG_KNOB_CHOICES) {
    status = give(std::vector<void *>{}, wanted, count, out);
  } else if (from.kind == ENGINE && name == ENGINE_NUMERICAL_NOTE) {
    auto notes = numerical_notes(from.operations, from.one<int64_t>(ENGINE_GLOBAL_INDEX, 0));
    status = give(notes, wanted, count, out);
  } else if (from.kind == ENGINE && (name == ENGINE_BEHAVIOR_NOTE || name == ENGINE_KNOB_INFO)) {
    status = give(std::vector<int>{}, wanted, count, out);
  } else if (from.kind == PLAN && name == PLAN_WORKSPACE_SIZE) {
    int64_t engine;
    const auto *operations = plan_graph(from, &engine);
    status = give(std::vector<int64_t>{workspace_bytes(*operations, engine)}, wanted, count, out);
  } else if (from.kind == OPERATION_GRAPH && name == GRAPH_ENGINE_COUNT) {
    status = give(std::vector<int64_t>{engine_count(from.operations)}, wanted, count, out);
  } else {
    return false;
  }
  return true;
}

}  // namespace

Status fail(Status status, const std::string &message) {
  last_message = "emulated cuDNN: " + message;
  return status;
}

size_t type_bytes(int type) {
  switch (type) {
    case TYPE_HANDLE: case TYPE_INT64: case TYPE_DOUBLE: case TYPE_VOID_PTR: case TYPE_DESCRIPTOR:
      return 8;
    case TYPE_BOOLEAN:
      return 1;
    case TYPE_DATA_TYPE: case TYPE_FLOAT: case TYPE_CONVOLUTION_MODE: case TYPE_HEUR_MODE:
    case TYPE_KNOB_TYPE: case TYPE_NAN_PROPAGATION: case TYPE_NUMERICAL_NOTE:
    case TYPE_POINTWISE_MODE: case TYPE_BEHAVIOR_NOTE: case TYPE_REORDERING: case TYPE_INT32:
      return 4;
    default:
      return 0;
  }
}

void Descriptor::put(Name name, Type type, const void *values, int64_t count) {
  const char *bytes = static_cast<const char *>(values);
  attributes[name] = Attribute{type, count, {bytes, bytes + count * type_bytes(type)}};
}

}  // namespace emulator::dnn

using namespace emulator::dnn;
using Guard = std::lock_guard<std::recursive_mutex>;

EMULATED size_t cudnnGetVersion() {
  return emulator::environment_number("CAMSHAFT_EMULATE_CUDNN", 91400);
}

EMULATED size_t cudnnGetCudartVersion() { return 13000; }

EMULATED const char *cudnnGetErrorString(int status) {
  switch (status) {
    case OK: return "CUDNN_STATUS_SUCCESS";
    case NOT_INITIALIZED: return "CUDNN_STATUS_NOT_INITIALIZED";
    case BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
    case BAD_PARAM_NULL_POINTER: return "CUDNN_STATUS_BAD_PARAM_NULL_POINTER";
    case BAD_PARAM_MISALIGNED_POINTER: return "CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER";
    case BAD_PARAM_NOT_FINALIZED: return "CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED";
    case BAD_PARAM_OUT_OF_BOUND: return "CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND";
    case BAD_PARAM_SIZE_INSUFFICIENT: return "CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT";
    case BAD_PARAM_SHAPE_MISMATCH: return "CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH";
    case BAD_PARAM_DUPLICATED_ENTRIES: return "CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES";
    case BAD_PARAM_ATTRIBUTE_TYPE: return "CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE";
    case BAD_PARAM_DESCRIPTOR_TYPE: return "CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE";
    case NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
    case NOT_SUPPORTED_GRAPH_PATTERN: return "CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN";
    case NOT_SUPPORTED_SHAPE: return "CUDNN_STATUS_NOT_SUPPORTED_SHAPE";
    case NOT_SUPPORTED_DATA_TYPE: return "CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE";
    case NOT_SUPPORTED_LAYOUT: return "CUDNN_STATUS_NOT_SUPPORTED_LAYOUT";
    case EXECUTION_FAILED_CUDA_DRIVER: return "CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER";
    default: return "CUDNN_STATUS_unknown";
  }
}

EMULATED void cudnnGetLastErrorString(char *message, size_t size) {
  if (message == nullptr || size == 0) return;
  size_t length = std::min(size - 1, last_message.size());
  memcpy(message, last_message.data(), length);
  message[length] = 0;
  last_message.clear();
}

EMULATED Status cudnnCreate(void **handle) {
  Guard guard(emulator::lock());
  if (emulator::lost()) return fail(EXECUTION_FAILED_CUDA_DRIVER, "the device is lost");
  if (!emulator::has_context()) return fail(NOT_INITIALIZED, "there is no context");
  *handle = new Handle;
  handles().insert(*handle);
  return OK;
}

EMULATED Status cudnnDestroy(void *handle) {
  Guard guard(emulator::lock());
  if (handles().erase(handle) == 0) return fail(BAD_PARAM, "there is no such handle");
  delete static_cast<Handle *>(handle);
  return OK;
}

EMULATED Status cudnnSetStream(void *handle, void *stream) {
  Guard guard(emulator::lock());
  if (handles().count(handle) == 0) return fail(BAD_PARAM, "there is no such handle");
  if (!emulator::is_stream(stream)) return fail(BAD_PARAM, "there is no such stream");
  static_cast<Handle *>(handle)->stream = stream;
  return OK;
}

EMULATED Status cudnnGetStream(void *handle, void **stream) {
  Guard guard(emulator::lock());
  if (handles().count(handle) == 0) return fail(BAD_PARAM, "there is no such handle");
  *stream = static_cast<Handle *>(handle)->stream;
  return OK;
}

EMULATED Status cudnnBackendCreateDescriptor(int kind, void **descriptor) {
  Guard guard(emulator::lock());
  if (descriptor == nullptr) return fail(BAD_PARAM_NULL_POINTER, "no place for a descriptor");
  *descriptor = new Descriptor{kind};
  descriptors().insert(*descriptor);
  return OK;
}

EMULATED Status cudnnBackendDestroyDescriptor(void *pointer) {
  Guard guard(emulator::lock());
  Descriptor *descriptor;
  Status status = open(pointer, &descriptor);
  if (status == OK) descriptor->destroyed = true;
  return status;
}

EMULATED Status cudnnBackendSetAttribute(void *pointer, int name, int type, int64_t count,
                                         const void *values) {
  Guard guard(emulator::lock());
  Descriptor *descriptor;
  Status status = open(pointer, &descriptor);
  if (status != OK) return status;
  if (descriptor->finalized) return fail(BAD_PARAM, "an attribute is set after finalize");
  if (values == nullptr) return fail(BAD_PARAM_NULL_POINTER, "an attribute has no values");
  status = check_attribute(*descriptor, name, type, count);
  if (status == OK) descriptor->put(Name(name), Type(type), values, count);
  return status;
}

EMULATED Status cudnnBackendFinalize(void *pointer) {
  Guard guard(emulator::lock());
  Descriptor *descriptor;
  Status status = open(pointer, &descriptor);
  if (status != OK) return status;
  if (descriptor->finalized) return fail(BAD_PARAM, "a descriptor is finalized twice");
  status = finalize(*descriptor);
  descriptor->finalized = status == OK;
  return status;
}

EMULATED Status cudnnBackendGetAttribute(void *pointer, int name, int type, int64_t wanted,
                                         int64_t *count, void *values) {
  Guard guard(emulator::lock());
  Descriptor *descriptor;
  Status status = open(pointer, &descriptor);
  if (status != OK) return status;
  if (!descriptor->finalized) {
    return fail(BAD_PARAM_NOT_FINALIZED, "an attribute is read before finalize");
  }
  status = check_attribute(*descriptor, name, type, wanted);
  if (status != OK) return status;
  if (give_derived(*descriptor, name, wanted, count, values, status)) return status;
  auto found = descriptor->attributes.find(name);
  int64_t stored = found == descriptor->attributes.end() ? 0 : found->second.count;
  int64_t given = values == nullptr ? 0 : std::min(wanted, stored);
  if (given > 0) memcpy(values, found->second.bytes.data(), given * type_bytes(type));
  if (count != nullptr) *count = values == nullptr || wanted == 0 ? stored : given;
  return OK;
}

EMULATED Status cudnnBackendExecute(void *handle, void *plan_pointer, void *pack_pointer) {
  Guard guard(emulator::lock());
  if (handles().count(handle) == 0) return fail(BAD_PARAM, "there is no such handle");
  Descriptor *plan, *pack;
  Status status = open(plan_pointer, &plan);
  if (status == OK) status = open(pack_pointer, &pack);
  if (status != OK) return status;
  if (plan->kind != PLAN || pack->kind != VARIANT_PACK) {
    return fail(BAD_PARAM_DESCRIPTOR_TYPE, "an execution needs a plan and a variant pack");
  }
  if (!plan->finalized || !pack->finalized) {
    return fail(BAD_PARAM_NOT_FINALIZED, "a plan or a variant pack is not finalized");
  }
  return execute(*static_cast<Handle *>(handle), *plan, *pack);
}
