// What cuDNN checks: which attributes a descriptor has, of which types, which must be set, and whether
// they fit each other.

#include <algorithm>
#include <set>

#include "cudnn.h"

namespace emulator::dnn {

namespace {

// An attribute of a kind of descriptors.
struct Rule {
  int kind, name, type;
  int64_t most;
  enum { Required, Optional, ReadOnly } need;
};

constexpr Rule RULES[] = {
    {TENSOR, TENSOR_DATA_TYPE, TYPE_DATA_TYPE, 1, Rule::Required},
    {TENSOR, TENSOR_DIMENSIONS, TYPE_INT64, 8, Rule::Required},
    {TENSOR, TENSOR_STRIDES, TYPE_INT64, 8, Rule::Required},
    {TENSOR, TENSOR_UNIQUE_ID, TYPE_INT64, 1, Rule::Required},
    {TENSOR, TENSOR_BYTE_ALIGNMENT, TYPE_INT64, 1, Rule::Required},
    {TENSOR, TENSOR_IS_VIRTUAL, TYPE_BOOLEAN, 1, Rule::Optional},
    {TENSOR, TENSOR_IS_BY_VALUE, TYPE_BOOLEAN, 1, Rule::Optional},
    {TENSOR, TENSOR_REORDERING, TYPE_REORDERING, 1, Rule::Optional},
    {CONVOLUTION, CONVOLUTION_COMP_TYPE, TYPE_DATA_TYPE, 1, Rule::Required},
    {CONVOLUTION, CONVOLUTION_CONV_MODE, TYPE_CONVOLUTION_MODE, 1, Rule::Required},
    {CONVOLUTION, CONVOLUTION_DILATIONS, TYPE_INT64, 3, Rule::Required},
    {CONVOLUTION, CONVOLUTION_FILTER_STRIDES, TYPE_INT64, 3, Rule::Required},
    {CONVOLUTION, CONVOLUTION_POST_PADDINGS, TYPE_INT64, 3, Rule::Required},
    {CONVOLUTION, CONVOLUTION_PRE_PADDINGS, TYPE_INT64, 3, Rule::Required},
    {CONVOLUTION, CONVOLUTION_SPATIAL_DIMS, TYPE_INT64, 1, Rule::Required},
    {POINTWISE, POINTWISE_MODE, TYPE_POINTWISE_MODE, 1, Rule::Required},
    {POINTWISE, POINTWISE_MATH_PREC, TYPE_DATA_TYPE, 1, Rule::Required},
    {POINTWISE, POINTWISE_NAN_PROPAGATION, TYPE_NAN_PROPAGATION, 1, Rule::Optional},
    {POINTWISE, POINTWISE_RELU_LOWER_CLIP, TYPE_DOUBLE, 1, Rule::Optional},
    {POINTWISE, POINTWISE_RELU_UPPER_CLIP, TYPE_DOUBLE, 1, Rule::Optional},
    {FORWARD_OPERATION, FORWARD_ALPHA, TYPE_FLOAT, 1, Rule::Required},
    {FORWARD_OPERATION, FORWARD_BETA, TYPE_FLOAT, 1, Rule::Required},
    {FORWARD_OPERATION, FORWARD_CONVOLUTION, TYPE_DESCRIPTOR, 1, Rule::Required},
    {FORWARD_OPERATION, FORWARD_W, TYPE_DESCRIPTOR, 1, Rule::Required},
    {FORWARD_OPERATION, FORWARD_X, TYPE_DESCRIPTOR, 1, Rule::Required},
    {FORWARD_OPERATION, FORWARD_Y, TYPE_DESCRIPTOR, 1, Rule::Required},
    {BACKWARD_DATA_OPERATION, BACKWARD_ALPHA, TYPE_FLOAT, 1, Rule::Required},
    {BACKWARD_DATA_OPERATION, BACKWARD_BETA, TYPE_FLOAT, 1, Rule::Required},
    {BACKWARD_DATA_OPERATION, BACKWARD_CONVOLUTION, TYPE_DESCRIPTOR, 1, Rule::Required},
    {BACKWARD_DATA_OPERATION, BACKWARD_W, TYPE_DESCRIPTOR, 1, Rule::Required},
    {BACKWARD_DATA_OPERATION, BACKWARD_DX, TYPE_DESCRIPTOR, 1, Rule::Required},
    {BACKWARD_DATA_OPERATION, BACKWARD_DY, TYPE_DESCRIPTOR, 1, Rule::Required},
    {POINTWISE_OPERATION, OPERATION_POINTWISE, TYPE_DESCRIPTOR, 1, Rule::Required},
    {POINTWISE_OPERATION, OPERATION_X, TYPE_DESCRIPTOR, 1, Rule::Required},
    {POINTWISE_OPERATION, OPERATION_B, TYPE_DESCRIPTOR, 1, Rule::Optional},
    {POINTWISE_OPERATION, OPERATION_Y, TYPE_DESCRIPTOR, 1, Rule::Required},
    {POINTWISE_OPERATION, OPERATION_ALPHA1, TYPE_FLOAT, 1, Rule::Optional},
    {POINTWISE_OPERATION, OPERATION_ALPHA2, TYPE_FLOAT, 1, Rule::Optional},
    {OPERATION_GRAPH, GRAPH_HANDLE, TYPE_HANDLE, 1, Rule::Required},
    {OPERATION_GRAPH, GRAPH_OPERATIONS, TYPE_DESCRIPTOR, 64, Rule::Required},
    {OPERATION_GRAPH, GRAPH_ENGINE_COUNT, TYPE_INT64, 1, Rule::ReadOnly},
    {HEURISTICS, HEURISTICS_MODE, TYPE_HEUR_MODE, 1, Rule::Required},
    {HEURISTICS, HEURISTICS_GRAPH, TYPE_DESCRIPTOR, 1, Rule::Required},
    {HEURISTICS, HEURISTICS_SM_COUNT, TYPE_INT32, 1, Rule::Optional},
    {HEURISTICS, HEURISTICS_RESULTS, TYPE_DESCRIPTOR, INT64_MAX, Rule::ReadOnly},
    {ENGINE, ENGINE_GRAPH, TYPE_DESCRIPTOR, 1, Rule::Required},
    {ENGINE, ENGINE_GLOBAL_INDEX, TYPE_INT64, 1, Rule::Required},
    {ENGINE, ENGINE_SM_COUNT, TYPE_INT32, 1, Rule::Optional},
    {ENGINE, ENGINE_NUMERICAL_NOTE, TYPE_NUMERICAL_NOTE, INT64_MAX, Rule::ReadOnly},
    {ENGINE, ENGINE_BEHAVIOR_NOTE, TYPE_BEHAVIOR_NOTE, INT64_MAX, Rule::ReadOnly},
    {ENGINE, ENGINE_KNOB_INFO, TYPE_DESCRIPTOR, INT64_MAX, Rule::ReadOnly},
    {ENGINE_CONFIG, CONFIG_ENGINE, TYPE_DESCRIPTOR, 1, Rule::Required},
    {ENGINE_CONFIG, CONFIG_KNOB_CHOICES, TYPE_DESCRIPTOR, INT64_MAX, Rule::Optional},
    {KNOB_CHOICE, KNOB_CHOICE_TYPE, TYPE_KNOB_TYPE, 1, Rule::Required},
    {KNOB_CHOICE, KNOB_CHOICE_VALUE, TYPE_INT64, 1, Rule::Required},
    {PLAN, PLAN_HANDLE, TYPE_HANDLE, 1, Rule::Required},
    {PLAN, PLAN_CONFIG, TYPE_DESCRIPTOR, 1, Rule::Required},
    {PLAN, PLAN_WORKSPACE_SIZE, TYPE_INT64, 1, Rule::ReadOnly},
    {VARIANT_PACK, PACK_UNIQUE_IDS, TYPE_INT64, INT64_MAX, Rule::Required},
    {VARIANT_PACK, PACK_POINTERS, TYPE_VOID_PTR, INT64_MAX, Rule::Required},
    {VARIANT_PACK, PACK_WORKSPACE, TYPE_VOID_PTR, 1, Rule::Required},
};

std::string number(int64_t value) { return std::to_string(value); }

Status copy_pair(const Descriptor &from, Name name, int64_t (&to)[2]) {
  auto values = from.get<int64_t>(name);
  if (values.size() != 2) return fail(NOT_SUPPORTED, "a convolution is not two-dimensional");
  std::copy(values.begin(), values.end(), to);
  return OK;
}

Status finalize_tensor(Descriptor &descriptor) {
  Tensor &tensor = descriptor.tensor;
  auto dims = descriptor.get<int64_t>(TENSOR_DIMENSIONS);
  auto strides = descriptor.get<int64_t>(TENSOR_STRIDES);
  if (dims.size() != strides.size()) {
    return fail(BAD_PARAM_SHAPE_MISMATCH, "a tensor has other strides than dimensions");
  }
  if (dims.size() != 4) return fail(NOT_SUPPORTED_SHAPE, "a tensor does not have four dimensions");
  for (size_t i = 0; i < 4; i++) {
    if (dims[i] <= 0 || strides[i] <= 0) {
      return fail(BAD_PARAM, "a tensor's dimension or stride is not positive");
    }
    tensor.dims[i] = dims[i];
    tensor.strides[i] = strides[i];
  }
  tensor.uid = descriptor.one<int64_t>(TENSOR_UNIQUE_ID, 0);
  tensor.type = descriptor.one<int>(TENSOR_DATA_TYPE, 0);
  tensor.alignment = descriptor.one<int64_t>(TENSOR_BYTE_ALIGNMENT, 0);
  tensor.is_virtual = descriptor.one<char>(TENSOR_IS_VIRTUAL, 0) != 0;
  if (tensor.type != DATA_FLOAT && tensor.type != DATA_HALF && tensor.type != DATA_BFLOAT16) {
    return fail(NOT_SUPPORTED_DATA_TYPE, "data type " + number(tensor.type) + " is not emulated");
  }
  bool power = tensor.alignment > 0 && (tensor.alignment & (tensor.alignment - 1)) == 0;
  if (!power || tensor.alignment % tensor.value_bytes() != 0) {
    return fail(BAD_PARAM, "a tensor's alignment is " + number(tensor.alignment));
  }
  return OK;
}

Status finalize_convolution(Descriptor &descriptor) {
  Convolution &convolution = descriptor.convolution;
  convolution.compute_type = descriptor.one<int>(CONVOLUTION_COMP_TYPE, 0);
  convolution.mode = descriptor.one<int>(CONVOLUTION_CONV_MODE, 0);
  if (descriptor.one<int64_t>(CONVOLUTION_SPATIAL_DIMS, 0) != 2) {
    return fail(NOT_SUPPORTED, "a convolution is not two-dimensional");
  }
  Status status = copy_pair(descriptor, CONVOLUTION_PRE_PADDINGS, convolution.before);
  if (status == OK) status = copy_pair(descriptor, CONVOLUTION_POST_PADDINGS, convolution.after);
  if (status == OK) status = copy_pair(descriptor, CONVOLUTION_FILTER_STRIDES, convolution.stride);
  if (status == OK) status = copy_pair(descriptor, CONVOLUTION_DILATIONS, convolution.dilation);
  if (status != OK) return status;
  for (int i = 0; i < 2; i++) {
    if (convolution.stride[i] < 1 || convolution.dilation[i] < 1 || convolution.before[i] < 0 ||
        convolution.after[i] < 0) {
      return fail(BAD_PARAM, "a convolution's stride, dilation or padding is out of range");
    }
  }
  return OK;
}

// The shapes of a convolution, whichever direction it is computed in: `x` is the wide side.
Status check_shapes(const Convolution &convolution, const Tensor &x, const Tensor &w, const Tensor &y) {
  bool fits = x.dims[0] == y.dims[0] && x.dims[1] == w.dims[1] && y.dims[1] == w.dims[0];
  for (int i = 0; i < 2; i++) {
    int64_t window = convolution.dilation[i] * (w.dims[2 + i] - 1) + 1;
    int64_t room = x.dims[2 + i] + convolution.before[i] + convolution.after[i] - window;
    fits = fits && room >= 0 && y.dims[2 + i] == room / convolution.stride[i] + 1;
  }
  if (fits) return OK;
  std::string shapes;
  for (const Tensor *tensor : {&x, &w, &y}) {
    shapes += " [";
    for (int64_t side : tensor->dims) shapes += " " + number(side);
    shapes += " ]";
  }
  return fail(BAD_PARAM_SHAPE_MISMATCH, "a convolution's shapes do not fit:" + shapes);
}

Status finalize_convolution_operation(Descriptor &descriptor) {
  bool forward = descriptor.kind == FORWARD_OPERATION;
  Descriptor *convolution, *x, *w, *y;
  Status status = referred(descriptor, forward ? FORWARD_CONVOLUTION : BACKWARD_CONVOLUTION,
                           CONVOLUTION, &convolution);
  if (status == OK) status = referred(descriptor, forward ? FORWARD_X : BACKWARD_DX, TENSOR, &x);
  if (status == OK) status = referred(descriptor, forward ? FORWARD_W : BACKWARD_W, TENSOR, &w);
  if (status == OK) status = referred(descriptor, forward ? FORWARD_Y : BACKWARD_DY, TENSOR, &y);
  if (status != OK) return status;
  status = check_shapes(convolution->convolution, x->tensor, w->tensor, y->tensor);
  if (status != OK) return status;
  Operation &operation = descriptor.operation;
  operation.kind = descriptor.kind;
  operation.convolution = convolution->convolution;
  operation.alpha = descriptor.one<float>(forward ? FORWARD_ALPHA : BACKWARD_ALPHA, 1);
  operation.beta = descriptor.one<float>(forward ? FORWARD_BETA : BACKWARD_BETA, 0);
  operation.input = forward ? x->tensor : y->tensor;
  operation.second = w->tensor;
  operation.has_second = true;
  operation.output = forward ? y->tensor : x->tensor;
  if (operation.input.type != operation.second.type) {
    return fail(NOT_SUPPORTED_DATA_TYPE, "a convolution's input and weights have different types");
  }
  return OK;
}

Status finalize_pointwise(Descriptor &descriptor) {
  Pointwise &pointwise = descriptor.pointwise;
  pointwise.mode = descriptor.one<int>(POINTWISE_MODE, 0);
  pointwise.math_type = descriptor.one<int>(POINTWISE_MATH_PREC, 0);
  pointwise.keeps_nan = descriptor.one<int>(POINTWISE_NAN_PROPAGATION, 0) != 0;
  pointwise.lower_clip = descriptor.one<double>(POINTWISE_RELU_LOWER_CLIP, 0);
  return OK;
}

Status finalize_pointwise_operation(Descriptor &descriptor) {
  Descriptor *pointwise, *x, *y, *b = nullptr;
  Status status = referred(descriptor, OPERATION_POINTWISE, POINTWISE, &pointwise);
  if (status == OK) status = referred(descriptor, OPERATION_X, TENSOR, &x);
  if (status == OK) status = referred(descriptor, OPERATION_Y, TENSOR, &y);
  if (status == OK && descriptor.has(OPERATION_B)) {
    status = referred(descriptor, OPERATION_B, TENSOR, &b);
  }
  if (status != OK) return status;
  Operation &operation = descriptor.operation;
  operation.kind = POINTWISE_OPERATION;
  operation.pointwise = pointwise->pointwise;
  operation.alpha = descriptor.one<float>(OPERATION_ALPHA1, 1);
  operation.beta = descriptor.one<float>(OPERATION_ALPHA2, 1);
  operation.input = x->tensor;
  operation.output = y->tensor;
  operation.has_second = b != nullptr;
  if (b != nullptr) operation.second = b->tensor;
  for (int i = 0; i < 4; i++) {
    int64_t side = x->tensor.dims[i];
    bool spreads = b == nullptr || b->tensor.dims[i] == side || b->tensor.dims[i] == 1;
    if (y->tensor.dims[i] != side || !spreads) {
      return fail(BAD_PARAM_SHAPE_MISMATCH, "the tensors of a pointwise operation do not fit");
    }
  }
  return OK;
}

Status finalize_graph(Descriptor &descriptor) {
  std::map<int64_t, Tensor> tensors;
  std::set<int64_t> written, read;
  for (auto *pointer : descriptor.get<Descriptor *>(GRAPH_OPERATIONS)) {
    if (pointer == nullptr || !lives(*pointer) || !pointer->finalized) {
      return fail(BAD_PARAM_NOT_FINALIZED, "an operation of a graph is not finalized or was destroyed");
    }
    const Operation &operation = pointer->operation;
    std::vector<Tensor> uses = {operation.input, operation.output};
    if (operation.has_second) uses.push_back(operation.second);
    for (const Tensor &tensor : uses) {
      auto [found, fresh] = tensors.emplace(tensor.uid, tensor);
      if (!fresh && !(found->second == tensor)) {
        return fail(BAD_PARAM_DUPLICATED_ENTRIES, "two tensors have the id " + number(tensor.uid));
      }
      bool is_output = tensor.uid == operation.output.uid;
      if (!is_output && tensor.is_virtual && written.count(tensor.uid) == 0) {
        return fail(BAD_PARAM, "virtual tensor " + number(tensor.uid) + " is read before it is made");
      }
      if (!is_output) read.insert(tensor.uid);
    }
    if (!written.insert(operation.output.uid).second) {
      return fail(BAD_PARAM_DUPLICATED_ENTRIES,
                  "tensor " + number(operation.output.uid) + " is written twice");
    }
    descriptor.operations.push_back(operation);
  }
  for (const auto &[uid, tensor] : tensors) {
    if (tensor.is_virtual && read.count(uid) == 0) {
      return fail(BAD_PARAM, "virtual tensor " + number(uid) + " is not read in its graph");
    }
  }
  return OK;
}

Status finalize_engine(Descriptor &descriptor) {
  Descriptor *graph;
  Status status = referred(descriptor, ENGINE_GRAPH, OPERATION_GRAPH, &graph);
  if (status != OK) return status;
  descriptor.operations = graph->operations;
  int64_t index = descriptor.one<int64_t>(ENGINE_GLOBAL_INDEX, -1);
  if (index >= 0 && index < engine_count(graph->operations)) return OK;
  return fail(NOT_SUPPORTED, "the graph has no engine " + number(index));
}

Status finalize_pack(Descriptor &descriptor) {
  auto ids = descriptor.get<int64_t>(PACK_UNIQUE_IDS);
  if (ids.size() != descriptor.get<void *>(PACK_POINTERS).size()) {
    return fail(BAD_PARAM, "a variant pack has other pointers than ids");
  }
  if (std::set<int64_t>(ids.begin(), ids.end()).size() != ids.size()) {
    return fail(BAD_PARAM_DUPLICATED_ENTRIES, "a variant pack names a tensor twice");
  }
  return OK;
}

Status check_parts(Descriptor &descriptor, Name name, Kind kind) {
  Descriptor *part;
  Status status = referred(descriptor, name, kind, &part);
  if (status == OK) descriptor.operations = part->operations;
  return status;
}

}  // namespace

bool Tensor::is_channels_last() const {
  const int64_t expected[4] = {dims[1] * dims[2] * dims[3], 1, dims[1] * dims[3], dims[1]};
  for (int i = 0; i < 4; i++) {
    // The stride of a side of one is never used.
    if (dims[i] != 1 && strides[i] != expected[i]) return false;
  }
  return true;
}

bool Tensor::operator==(const Tensor &other) const {
  return uid == other.uid && type == other.type && is_virtual == other.is_virtual &&
         std::equal(dims, dims + 4, other.dims) && std::equal(strides, strides + 4, other.strides);
}

bool lives(const Descriptor &descriptor) {
  if (descriptor.destroyed) return false;
  for (const auto &[name, attribute] : descriptor.attributes) {
    if (attribute.type != TYPE_DESCRIPTOR) continue;
    for (auto *part : descriptor.get<Descriptor *>(Name(name))) {
      if (part == nullptr || !lives(*part)) return false;
    }
  }
  return true;
}

Status referred(const Descriptor &descriptor, Name name, Kind kind, Descriptor **found) {
  *found = descriptor.one<Descriptor *>(name, nullptr);
  std::string what = "the descriptor in attribute " + number(name);
  if (*found == nullptr) return fail(BAD_PARAM_NULL_POINTER, what + " is null");
  if (!lives(**found)) return fail(BAD_PARAM, what + ", or one of its parts, was destroyed");
  if ((*found)->kind != kind) return fail(BAD_PARAM_DESCRIPTOR_TYPE, what + " has another type");
  if (!(*found)->finalized) return fail(BAD_PARAM_NOT_FINALIZED, what + " is not finalized");
  return OK;
}

Status check_attribute(const Descriptor &descriptor, int name, int type, int64_t count) {
  for (const Rule &rule : RULES) {
    if (rule.kind != descriptor.kind || rule.name != name) continue;
    if (rule.type != type) {
      return fail(BAD_PARAM_ATTRIBUTE_TYPE, "attribute " + number(name) + " is not of type " + number(type));
    }
    bool fits = count >= 0 && count <= rule.most;
    return fits ? OK : fail(BAD_PARAM_OUT_OF_BOUND, "attribute " + number(name) + " has too many values");
  }
  return fail(BAD_PARAM, "descriptors of type " + number(descriptor.kind) + " have no attribute " +
                             number(name));
}

Status finalize(Descriptor &descriptor) {
  for (const Rule &rule : RULES) {
    if (rule.kind == descriptor.kind && rule.need == Rule::Required && !descriptor.has(Name(rule.name))) {
      return fail(BAD_PARAM, "attribute " + number(rule.name) + " is not set");
    }
  }
  switch (descriptor.kind) {
    case TENSOR: return finalize_tensor(descriptor);
    case CONVOLUTION: return finalize_convolution(descriptor);
    case POINTWISE: return finalize_pointwise(descriptor);
    case FORWARD_OPERATION:
    case BACKWARD_DATA_OPERATION: return finalize_convolution_operation(descriptor);
    case POINTWISE_OPERATION: return finalize_pointwise_operation(descriptor);
    case OPERATION_GRAPH: return finalize_graph(descriptor);
    case ENGINE: return finalize_engine(descriptor);
    case ENGINE_CONFIG: return check_parts(descriptor, CONFIG_ENGINE, ENGINE);
    case PLAN: return check_parts(descriptor, PLAN_CONFIG, ENGINE_CONFIG);
    case VARIANT_PACK: return finalize_pack(descriptor);
    case KNOB_CHOICE: return OK;
    case HEURISTICS: {
      Status status = check_parts(descriptor, HEURISTICS_GRAPH, OPERATION_GRAPH);
      std::vector<int64_t> engines;
      if (status != OK) return status;
      return find_engines(descriptor.operations, descriptor.one<int>(HEURISTICS_MODE, 0), engines);
    }
    default: return fail(NOT_SUPPORTED, "descriptor type " + number(descriptor.kind) + " is not emulated");
  }
}

}  // namespace emulator::dnn
