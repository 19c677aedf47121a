// The inside of the emulated cuDNN: descriptors, and what they mean once they are finalized. The
// numbers are those of cuDNN's headers, https://docs.nvidia.com/deeplearning/cudnn/backend/latest/.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace emulator::dnn {

enum Status : int {
  OK = 0,
  NOT_INITIALIZED = 1001,
  BAD_PARAM = 2000,
  BAD_PARAM_NULL_POINTER = 2002,
  BAD_PARAM_MISALIGNED_POINTER = 2003,
  BAD_PARAM_NOT_FINALIZED = 2004,
  BAD_PARAM_OUT_OF_BOUND = 2005,
  BAD_PARAM_SIZE_INSUFFICIENT = 2006,
  BAD_PARAM_SHAPE_MISMATCH = 2008,
  BAD_PARAM_DUPLICATED_ENTRIES = 2009,
  BAD_PARAM_ATTRIBUTE_TYPE = 2010,
  BAD_PARAM_DESCRIPTOR_TYPE = 2012,
  NOT_SUPPORTED = 3000,
  NOT_SUPPORTED_GRAPH_PATTERN = 3001,
  NOT_SUPPORTED_SHAPE = 3002,
  NOT_SUPPORTED_DATA_TYPE = 3003,
  NOT_SUPPORTED_LAYOUT = 3004,
  EXECUTION_FAILED_CUDA_DRIVER = 5001,
};

enum Kind : int {
  POINTWISE = 0,
  CONVOLUTION = 1,
  ENGINE = 2,
  ENGINE_CONFIG = 3,
  HEURISTICS = 4,
  PLAN = 5,
  KNOB_CHOICE = 7,
  FORWARD_OPERATION = 10,
  BACKWARD_DATA_OPERATION = 12,
  POINTWISE_OPERATION = 13,
  OPERATION_GRAPH = 15,
  VARIANT_PACK = 16,
  TENSOR = 17,
};

enum Type : int {
  TYPE_HANDLE = 0,
  TYPE_DATA_TYPE = 1,
  TYPE_BOOLEAN = 2,
  TYPE_INT64 = 3,
  TYPE_FLOAT = 4,
  TYPE_DOUBLE = 5,
  TYPE_VOID_PTR = 6,
  TYPE_CONVOLUTION_MODE = 7,
  TYPE_HEUR_MODE = 8,
  TYPE_KNOB_TYPE = 9,
  TYPE_NAN_PROPAGATION = 10,
  TYPE_NUMERICAL_NOTE = 11,
  TYPE_POINTWISE_MODE = 14,
  TYPE_DESCRIPTOR = 15,
  TYPE_BEHAVIOR_NOTE = 19,
  TYPE_REORDERING = 20,
  TYPE_INT32 = 23,
};

enum Name : int {
  POINTWISE_MODE = 0,
  POINTWISE_MATH_PREC = 1,
  POINTWISE_NAN_PROPAGATION = 2,
  POINTWISE_RELU_LOWER_CLIP = 3,
  POINTWISE_RELU_UPPER_CLIP = 4,
  CONVOLUTION_COMP_TYPE = 100,
  CONVOLUTION_CONV_MODE = 101,
  CONVOLUTION_DILATIONS = 102,
  CONVOLUTION_FILTER_STRIDES = 103,
  CONVOLUTION_POST_PADDINGS = 104,
  CONVOLUTION_PRE_PADDINGS = 105,
  CONVOLUTION_SPATIAL_DIMS = 106,
  HEURISTICS_MODE = 200,
  HEURISTICS_GRAPH = 201,
  HEURISTICS_RESULTS = 202,
  HEURISTICS_SM_COUNT = 203,
  CONFIG_ENGINE = 300,
  CONFIG_KNOB_CHOICES = 302,
  PLAN_HANDLE = 400,
  PLAN_CONFIG = 401,
  PLAN_WORKSPACE_SIZE = 402,
  KNOB_CHOICE_TYPE = 600,
  KNOB_CHOICE_VALUE = 601,
  FORWARD_ALPHA = 700,
  FORWARD_BETA = 701,
  FORWARD_CONVOLUTION = 702,
  FORWARD_W = 703,
  FORWARD_X = 704,
  FORWARD_Y = 705,
  BACKWARD_ALPHA = 706,
  BACKWARD_BETA = 707,
  BACKWARD_CONVOLUTION = 708,
  BACKWARD_W = 709,
  BACKWARD_DX = 710,
  BACKWARD_DY = 711,
  OPERATION_POINTWISE = 750,
  OPERATION_X = 751,
  OPERATION_B = 752,
  OPERATION_Y = 753,
  OPERATION_ALPHA1 = 754,
  OPERATION_ALPHA2 = 755,
  GRAPH_HANDLE = 800,
  GRAPH_OPERATIONS = 801,
  GRAPH_ENGINE_COUNT = 802,
  TENSOR_BYTE_ALIGNMENT = 900,
  TENSOR_DATA_TYPE = 901,
  TENSOR_DIMENSIONS = 902,
  TENSOR_STRIDES = 903,
  TENSOR_UNIQUE_ID = 906,
  TENSOR_IS_VIRTUAL = 907,
  TENSOR_IS_BY_VALUE = 908,
  TENSOR_REORDERING = 909,
  PACK_UNIQUE_IDS = 1000,
  PACK_POINTERS = 1001,
  PACK_WORKSPACE = 1003,
  ENGINE_GRAPH = 1300,
  ENGINE_GLOBAL_INDEX = 1301,
  ENGINE_KNOB_INFO = 1302,
  ENGINE_NUMERICAL_NOTE = 1303,
  ENGINE_BEHAVIOR_NOTE = 1305,
  ENGINE_SM_COUNT = 1306,
};

enum DataType : int { DATA_FLOAT = 0, DATA_HALF = 2, DATA_BFLOAT16 = 9 };

struct Tensor {
  int64_t uid = 0;
  int type = DATA_FLOAT;
  int64_t alignment = 0;
  bool is_virtual = false;
  // N, C, H, W; for weights outputs, inputs, rows and columns.
  int64_t dims[4] = {};
  int64_t strides[4] = {};

  int64_t values() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
  int64_t value_bytes() const { return type == DATA_FLOAT ? 4 : 2; }
  int64_t bytes() const { return values() * value_bytes(); }
  // Whether channels lie side by side, and pixels behind each other without gaps.
  bool is_channels_last() const;
  bool operator==(const Tensor &other) const;
};

struct Convolution {
  int compute_type = DATA_FLOAT;
  int mode = 0;
  int64_t before[2] = {}, after[2] = {}, stride[2] = {}, dilation[2] = {};
};

// One step behind a convolution.
struct Pointwise {
  int mode = 0;
  int math_type = DATA_FLOAT;
  bool keeps_nan = false;
  double lower_clip = 0;
};

struct Operation {
  int kind = 0;
  Convolution convolution;
  Pointwise pointwise;
  float alpha = 1, beta = 0;
  // What it reads and writes. `second` is the weights of a convolution, or `b` of a pointwise step.
  Tensor input, second, output;
  bool has_second = false;
};

struct Attribute {
  int type;
  int64_t count;
  std::vector<char> bytes;
};

struct Descriptor {
  int kind;
  bool finalized = false;
  // Destroyed by its owner. The object is kept, so that a later use is found out.
  bool destroyed = false;
  std::map<int, Attribute> attributes = {};
  // What a finalized one means: its own kind's of these.
  Tensor tensor = {};
  Convolution convolution = {};
  Pointwise pointwise = {};
  Operation operation = {};
  std::vector<Operation> operations = {};

  bool has(Name name) const { return attributes.count(name) != 0; }
  // The attribute's values, empty if it is not set.
  template <typename T>
  std::vector<T> get(Name name) const {
    auto found = attributes.find(name);
    if (found == attributes.end()) return {};
    const T *values = reinterpret_cast<const T *>(found->second.bytes.data());
    return std::vector<T>(values, values + found->second.count);
  }
  template <typename T>
  T one(Name name, T otherwise) const {
    auto found = attributes.find(name);
    if (found == attributes.end() || found->second.count == 0) return otherwise;
    memcpy(&otherwise, found->second.bytes.data(), sizeof otherwise);
    return otherwise;
  }
  void put(Name name, Type type, const void *values, int64_t count);
};

struct Handle {
  void *stream = nullptr;
};

// Sets the message of `cudnnGetLastErrorString`.
Status fail(Status status, const std::string &message);

// Bytes of a value of an attribute's type; 0 if it is not known.
size_t type_bytes(int type);

// checks.cpp: what cuDNN checks, and what the descriptor means.
Status check_attribute(const Descriptor &descriptor, int name, int type, int64_t count);
Status finalize(Descriptor &descriptor);
// The descriptor that an attribute refers to, if it lives, is finalized and of this kind.
Status referred(const Descriptor &descriptor, Name name, Kind kind, Descriptor **found);
// Whether the descriptor and all that it refers to live.
bool lives(const Descriptor &descriptor);

// engines.cpp: which engines there are for a graph, and what they are like.
Status find_engines(const std::vector<Operation> &operations, int mode, std::vector<int64_t> &engines);
int64_t engine_count(const std::vector<Operation> &operations);
std::vector<int> numerical_notes(const std::vector<Operation> &operations, int64_t engine);
int64_t workspace_bytes(const std::vector<Operation> &operations, int64_t engine);
const std::vector<Operation> *plan_graph(const Descriptor &plan, int64_t *engine);
Status execute(const Handle &handle, const Descriptor &plan, const Descriptor &pack);

// convolution.cpp: the numbers.
struct Program {
  std::vector<Operation> operations;
  std::map<int64_t, uint64_t> pointers;
  // Rounds inputs to 10 bits, as tensor cores do.
  bool tf32;
  // Rounds sums to the output's format after each tap.
  bool reduced_sums;
};
void compute(const Program &program);

}  // namespace emulator::dnn
