// The engines: which graphs they support, how they differ, and how an execution gets onto a stream.
//
//   0  on tensor cores: f32 is rounded to TF32
//   1  f32 as it is; needs a workspace
//   2  for 16 bits only: sums are rounded to the tensors' type, which a caller must not choose

#include "emulator.h"
#include "cudnn.h"

namespace emulator::dnn {

namespace {

constexpr int POINTWISE_ADD = 0, POINTWISE_RELU = 100;
constexpr int CROSS_CORRELATION = 1;
constexpr int NOTE_TENSOR_CORE = 0, NOTE_REDUCED_PRECISION_REDUCTION = 2;
constexpr int MODE_B = 1, MODE_FALLBACK = 2;

bool is_half(const std::vector<Operation> &operations) {
  return operations[0].input.type != DATA_FLOAT;
}

Status check_pattern(const std::vector<Operation> &operations) {
  const Operation &first = operations[0];
  bool forward = first.kind == FORWARD_OPERATION;
  bool alone = operations.size() == 1;
  bool pattern = forward ? operations.size() <= 4 : first.kind == BACKWARD_DATA_OPERATION && alone;
  for (size_t i = 1; pattern && i < operations.size(); i++) {
    const Operation &step = operations[i];
    bool add = step.pointwise.mode == POINTWISE_ADD && step.has_second;
    bool relu = step.pointwise.mode == POINTWISE_RELU && !step.has_second;
    pattern = step.kind == POINTWISE_OPERATION && (add || relu) && step.input.is_virtual &&
              step.input.uid == operations[i - 1].output.uid && step.alpha == 1 && step.beta == 1;
  }
  if (!pattern || operations.back().output.is_virtual) {
    return fail(NOT_SUPPORTED_GRAPH_PATTERN, "no engine is made for such a graph");
  }
  const Convolution &convolution = first.convolution;
  if (convolution.mode != CROSS_CORRELATION || convolution.dilation[0] != 1 ||
      convolution.dilation[1] != 1 || first.alpha != 1 || first.beta != 0) {
    return fail(NOT_SUPPORTED, "a convolution is flipped, dilated, scaled or added to its output");
  }
  for (const Operation &step : operations) {
    bool float_math = step.pointwise.math_type == DATA_FLOAT && step.convolution.compute_type == DATA_FLOAT;
    if (!float_math) return fail(NOT_SUPPORTED_DATA_TYPE, "sums are not computed in f32");
    bool second = !step.has_second || step.second.is_channels_last();
    if (!second || !step.input.is_channels_last() || !step.output.is_channels_last()) {
      return fail(NOT_SUPPORTED_LAYOUT, "a tensor's channels are not last");
    }
  }
  return OK;
}

// A tensor of an execution in memory.
struct Use {
  Tensor tensor;
  uint64_t pointer;
  bool is_output;
};

bool overlap(const Use &a, const Use &b) {
  return a.pointer < b.pointer + b.tensor.bytes() && b.pointer < a.pointer + a.tensor.bytes();
}

// The tensors that are not virtual, with their pointers.
Status collect_uses(const std::vector<Operation> &operations, const Descriptor &pack,
                    std::vector<Use> &uses) {
  auto ids = pack.get<int64_t>(PACK_UNIQUE_IDS);
  auto pointers = pack.get<uint64_t>(PACK_POINTERS);
  std::map<int64_t, uint64_t> found;
  for (size_t i = 0; i < ids.size(); i++) found[ids[i]] = pointers[i];
  for (const Operation &operation : operations) {
    std::vector<std::pair<Tensor, bool>> tensors = {{operation.input, false}, {operation.output, true}};
    if (operation.has_second) tensors.push_back({operation.second, false});
    for (const auto &[tensor, is_output] : tensors) {
      if (tensor.is_virtual) continue;
      auto pointer = found.find(tensor.uid);
      if (pointer == found.end()) {
        return fail(BAD_PARAM, "the variant pack lacks tensor " + std::to_string(tensor.uid));
      }
      if (pointer->second == 0) return fail(BAD_PARAM_NULL_POINTER, "a tensor's pointer is null");
      if (pointer->second % tensor.alignment != 0) {
        return fail(BAD_PARAM_MISALIGNED_POINTER, "a tensor's pointer is not as aligned as it says");
      }
      uses.push_back({tensor, pointer->second, is_output});
    }
  }
  return OK;
}

// Only a tensor that is added, and is as large, may be where the output is.
Status check_overlaps(const std::vector<Use> &uses) {
  for (const Use &output : uses) {
    for (const Use &input : uses) {
      bool same = output.pointer == input.pointer && output.tensor.bytes() == input.tensor.bytes();
      bool added = same && input.tensor.uid != uses[0].tensor.uid;
      if (output.is_output && !input.is_output && overlap(output, input) && !added) {
        return fail(BAD_PARAM, "tensor " + std::to_string(input.tensor.uid) + " overlaps the output");
      }
    }
  }
  return OK;
}

std::string name_of(const std::vector<Operation> &operations) {
  const Operation &first = operations[0];
  std::string name = first.kind == FORWARD_OPERATION ? "a convolution of [" : "a data gradient of [";
  for (int64_t side : first.input.dims) name += " " + std::to_string(side);
  return name + " ] with " + std::to_string(operations.size() - 1) + " further steps";
}

}  // namespace

int64_t engine_count(const std::vector<Operation> &operations) {
  return is_half(operations) ? 3 : 2;
}

Status find_engines(const std::vector<Operation> &operations, int mode, std::vector<int64_t> &engines) {
  Status status = check_pattern(operations);
  if (status != OK) return status;
  if (operations.size() > 1 && environment_number("CAMSHAFT_EMULATE_NO_FUSION", 0) != 0) {
    // cuDNN says so in either way.
    if (mode != MODE_FALLBACK) return OK;
    return fail(NOT_SUPPORTED_GRAPH_PATTERN, "no engine is made for such a graph");
  }
  if (mode == MODE_FALLBACK) {
    engines = {1};
  } else if (is_half(operations)) {
    engines = mode == MODE_B ? std::vector<int64_t>{1, 2} : std::vector<int64_t>{2, 0, 1};
  } else {
    engines = mode == MODE_B ? std::vector<int64_t>{1, 0} : std::vector<int64_t>{0, 1};
  }
  return OK;
}

std::vector<int> numerical_notes(const std::vector<Operation> &operations, int64_t engine) {
  if (engine == 2) return {NOTE_TENSOR_CORE, NOTE_REDUCED_PRECISION_REDUCTION};
  if (engine == 0 || is_half(operations)) return {NOTE_TENSOR_CORE};
  return {};
}

int64_t workspace_bytes(const std::vector<Operation> &operations, int64_t engine) {
  return engine == 1 ? 4096 + 256 * operations[0].input.dims[0] : 0;
}

const std::vector<Operation> *plan_graph(const Descriptor &plan, int64_t *engine) {
  auto *config = plan.one<Descriptor *>(PLAN_CONFIG, nullptr);
  auto *chosen = config->one<Descriptor *>(CONFIG_ENGINE, nullptr);
  *engine = chosen->one<int64_t>(ENGINE_GLOBAL_INDEX, 0);
  return &plan.operations;
}

Status execute(const Handle &handle, const Descriptor &plan, const Descriptor &pack) {
  if (lost()) return fail(EXECUTION_FAILED_CUDA_DRIVER, "the device is lost");
  if (!lives(plan)) {
    report("cuDNN: something that a plan is made of was destroyed before the plan was executed");
    return fail(BAD_PARAM, "something that the plan is made of was destroyed");
  }
  int64_t engine;
  const std::vector<Operation> &operations = *plan_graph(plan, &engine);
  std::vector<Use> uses;
  Status status = collect_uses(operations, pack, uses);
  if (status == OK) status = check_overlaps(uses);
  if (status != OK) return status;
  int64_t workspace_size = workspace_bytes(operations, engine);
  uint64_t workspace = pack.one<uint64_t>(PACK_WORKSPACE, 0);
  if (workspace_size > 0 && workspace == 0) {
    return fail(BAD_PARAM_NULL_POINTER, "the plan needs a workspace");
  }
  Program program{operations, {}, engine == 0 && !is_half(operations), engine == 2};
  for (const Use &use : uses) program.pointers[use.tensor.uid] = use.pointer;
  std::string name = name_of(operations);
  auto work = [=]() -> emulator::Status {
    for (const Use &use : uses) {
      std::string what = name + ", tensor " + std::to_string(use.tensor.uid);
      auto status = check_range(what, use.pointer, use.tensor.bytes());
      if (status != SUCCESS) return status;
    }
    if (workspace_size > 0) {
      auto status = check_range(name + ", workspace", workspace, workspace_size);
      if (status != SUCCESS) return status;
      // Whoever keeps something in a workspace loses it.
      char *bytes = reinterpret_cast<char *>(workspace);
      std::fill(bytes, bytes + workspace_size, char(0xff));
    }
    compute(program);
    return SUCCESS;
  };
  if (enqueue(handle.stream, name, work, true) != SUCCESS) {
    return fail(EXECUTION_FAILED_CUDA_DRIVER, "the stream takes no work");
  }
  return OK;
}

}  // namespace emulator::dnn
