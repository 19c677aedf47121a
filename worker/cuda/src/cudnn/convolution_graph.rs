//! A convolution as a graph of cuDNN's operations, alone or with all that follows it: one graph is
//! one call, which reads and writes each activation once.
//!
//! Owns the shapes, the layout and the numbers of the tensors. Every tensor is NHWC ("channels
//! last"). Sums are f32: so are the virtual tensors, which lie between the operations of a graph
//! and exist in registers only. Does not choose who computes a graph. Upstream:
//! [`descriptor`](super::descriptor). Downstream: [`plan`](super::plan), and the passes, which
//! describe their convolutions by [`ConvolutionProblem`].

use std::fmt;
use std::sync::Arc;

use cudarc::cudnn::sys::cudnnConvolutionMode_t as ConvolutionMode;
use cudarc::cudnn::sys::cudnnNanPropagation_t as NanPropagation;
use cudarc::cudnn::sys::cudnnPointwiseMode_t as PointwiseMode;
use serde::{Deserialize, Serialize};

use super::descriptor::{
    DataType, Descriptor, DescriptorBuilder, DescriptorKind as Kind, attribute,
};
use super::library::Cudnn;
use crate::error::CudaError;
use crate::number_format::NumberFormat;

/// Where each tensor starts, in bytes: a multiple of this. Engines read 16 bytes at once.
pub(super) const TENSOR_ALIGNMENT: usize = 16;

/// The number of a graph's tensor, by which a call names its address.
pub(super) type TensorId = i64;

/// What a convolution reads: its input, or for a data gradient the gradient of its output.
pub(super) const INPUT: TensorId = 1;
/// `[outputs, kernel, kernel, inputs]`.
pub(super) const WEIGHTS: TensorId = 2;
/// Added to the convolution, with the output's shape.
pub(super) const RESIDUAL: TensorId = 3;
/// `[outputs]`.
pub(super) const BIAS: TensorId = 4;
/// What a graph writes.
pub(super) const OUTPUT: TensorId = 5;

// Virtual tensors.
const CONVOLVED: TensorId = 11;
const WITH_RESIDUAL: TensorId = 12;
const WITH_BIAS: TensorId = 13;

/// The sizes of a convolution of a batch. For a gradient these are the forward convolution's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConvolutionShape {
    /// Images in the batch.
    pub(crate) images: usize,
    /// Rows of the input.
    pub(crate) height: usize,
    /// Columns of the input.
    pub(crate) width: usize,
    /// Channels of the input.
    pub(crate) inputs: usize,
    /// Channels of the output.
    pub(crate) outputs: usize,
    /// Height and width of the filter.
    pub(crate) kernel: usize,
    /// Step between outputs, at least 1.
    pub(crate) stride: usize,
    /// Zeros before and after each row and column.
    pub(crate) padding: [usize; 2],
}

impl ConvolutionShape {
    /// Rows of the output.
    pub(crate) fn output_height(&self) -> usize {
        self.output_side(self.height)
    }

    /// Columns of the output.
    pub(crate) fn output_width(&self) -> usize {
        self.output_side(self.width)
    }

    /// 0 if the filter is larger than the padded input. cuDNN refuses such a tensor.
    fn output_side(&self, side: usize) -> usize {
        let [before, after] = self.padding;
        let room = (side + before + after).checked_sub(self.kernel);
        room.map_or(0, |room| room / self.stride + 1)
    }

    fn input_dimensions(&self) -> [usize; 4] {
        [self.images, self.inputs, self.height, self.width]
    }

    fn weight_dimensions(&self) -> [usize; 4] {
        [self.outputs, self.inputs, self.kernel, self.kernel]
    }

    fn output_dimensions(&self) -> [usize; 4] {
        [self.images, self.outputs, self.output_height(), self.output_width()]
    }
}

/// What is computed of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ConvolutionKind {
    /// The convolution, plus a residual or not, plus the bias, then ReLU or not.
    Forward {
        /// Whether a residual is added.
        residual: bool,
        /// Whether ReLU follows.
        relu: bool,
    },
    /// The convolution alone.
    Plain,
    /// The gradient of the input, from that of the output and the weights.
    DataGradient,
}

impl fmt::Display for ConvolutionKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Forward { residual: false, relu: false } => "convolution + bias",
            Self::Forward { residual: false, relu: true } => "convolution + bias + relu",
            Self::Forward { residual: true, relu: false } => "convolution + residual + bias",
            Self::Forward { residual: true, relu: true } => "convolution + residual + bias + relu",
            Self::Plain => "convolution",
            Self::DataGradient => "data gradient",
        })
    }
}

/// All that decides which engines can compute a convolution, and how fast each does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConvolutionProblem {
    /// Its sizes.
    pub(crate) shape: ConvolutionShape,
    /// What is computed.
    pub(crate) kind: ConvolutionKind,
    /// The number format of all tensors in memory.
    pub(crate) format: NumberFormat,
}

/// Names the problem in messages, and in the cache of plans: another text makes another entry.
impl fmt::Display for ConvolutionProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match self.format {
            NumberFormat::F32 => "f32",
            NumberFormat::Tf32 => "tf32",
            NumberFormat::Bf16 => "bf16",
            NumberFormat::F16 => "f16",
        };
        let ConvolutionShape { images, height, width, inputs, outputs, kernel, stride, padding } =
            self.shape;
        let [before, after] = padding;
        write!(
            formatter,
            "{format} {} of {images} images of {height}x{width}, {inputs} to {outputs} channels, \
             {kernel}x{kernel}, stride {stride}, padding {before} and {after}",
            self.kind
        )
    }
}

impl ConvolutionProblem {
    fn data_type(&self) -> DataType {
        match self.format {
            // Whether f32 is multiplied as TF32 is the engine's choice, not the tensors'.
            NumberFormat::F32 | NumberFormat::Tf32 => DataType::CUDNN_DATA_FLOAT,
            NumberFormat::Bf16 => DataType::CUDNN_DATA_BFLOAT16,
            NumberFormat::F16 => DataType::CUDNN_DATA_HALF,
        }
    }

    /// A tensor in memory.
    fn tensor(&self, id: TensorId, dimensions: [usize; 4]) -> Result<Arc<Descriptor>, CudaError> {
        tensor(id, self.data_type(), dimensions)?.finalise("a tensor of a convolution")
    }

    /// A tensor of f32 between two operations, with the output's shape.
    fn virtual_tensor(&self, id: TensorId) -> Result<Arc<Descriptor>, CudaError> {
        tensor(id, DataType::CUDNN_DATA_FLOAT, self.shape.output_dimensions())?
            .set(attribute::TENSOR_IS_VIRTUAL, &[true])?
            .finalise("a virtual tensor of a convolution")
    }
}

/// What a convolution's ReLU returns for a NaN. Zero hides that a sum was too large for f16. Some of
/// cuDNN's engines can only return zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum NotANumber {
    /// It stays.
    Kept,
    /// It becomes zero. This is what cuDNN does unless it is told otherwise.
    Zeroed,
}

/// The graph that computes a problem. `not_a_number` is for its ReLU, if it has one.
///
/// # Errors
/// If cuDNN supports no such graph, or the sizes make no sense.
pub(super) fn operation_graph(
    cudnn: &Cudnn,
    problem: &ConvolutionProblem,
    not_a_number: NotANumber,
) -> Result<Arc<Descriptor>, CudaError> {
    let operations = match problem.kind {
        ConvolutionKind::Forward { residual, relu } => {
            forward(problem, residual, relu.then_some(not_a_number))?
        }
        ConvolutionKind::Plain => {
            let output = problem.tensor(OUTPUT, problem.shape.output_dimensions())?;
            vec![convolve(problem, &output)?]
        }
        ConvolutionKind::DataGradient => vec![data_gradient(problem)?],
    };
    let operations: Vec<&Arc<Descriptor>> = operations.iter().collect();
    DescriptorBuilder::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?
        .refer(attribute::GRAPH_OPERATIONS, &operations)?
        .with_handle(attribute::GRAPH_HANDLE, cudnn.handle())?
        .finalise(&format!("the graph of a {problem}"))
}

/// The convolution, its residual, its bias and its ReLU, in the order that cuDNN's engines for
/// this pattern expect.
fn forward(
    problem: &ConvolutionProblem,
    residual: bool,
    relu: Option<NotANumber>,
) -> Result<Vec<Arc<Descriptor>>, CudaError> {
    let shape = &problem.shape;
    let bias = problem.tensor(BIAS, [1, shape.outputs, 1, 1])?;
    let output = problem.tensor(OUTPUT, shape.output_dimensions())?;
    let mut sum = problem.virtual_tensor(CONVOLVED)?;
    let mut operations = vec![convolve(problem, &sum)?];
    if residual {
        let added = problem.tensor(RESIDUAL, shape.output_dimensions())?;
        let with_residual = problem.virtual_tensor(WITH_RESIDUAL)?;
        operations.push(add(&sum, &added, &with_residual)?);
        sum = with_residual;
    }
    if let Some(not_a_number) = relu {
        let with_bias = problem.virtual_tensor(WITH_BIAS)?;
        operations.push(add(&sum, &bias, &with_bias)?);
        operations.push(rectify(&with_bias, &output, not_a_number)?);
    } else {
        operations.push(add(&sum, &bias, &output)?);
    }
    Ok(operations)
}

/// The convolution of input and weights.
fn convolve(
    problem: &ConvolutionProblem,
    output: &Arc<Descriptor>,
) -> Result<Arc<Descriptor>, CudaError> {
    let shape = &problem.shape;
    let input = problem.tensor(INPUT, shape.input_dimensions())?;
    let weights = problem.tensor(WEIGHTS, shape.weight_dimensions())?;
    DescriptorBuilder::new(Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)?
        .refer(attribute::FORWARD_INPUT, &[&input])?
        .refer(attribute::FORWARD_WEIGHTS, &[&weights])?
        .refer(attribute::FORWARD_OUTPUT, &[output])?
        .refer(attribute::FORWARD_CONVOLUTION, &[&convolution(shape)?])?
        .set(attribute::FORWARD_ALPHA, &[1.0])?
        .set(attribute::FORWARD_BETA, &[0.0])?
        .finalise("a convolution")
}

/// The gradient of the input. It has the input's shape, and what it is computed from the output's.
fn data_gradient(problem: &ConvolutionProblem) -> Result<Arc<Descriptor>, CudaError> {
    let shape = &problem.shape;
    let of_output = problem.tensor(INPUT, shape.output_dimensions())?;
    let weights = problem.tensor(WEIGHTS, shape.weight_dimensions())?;
    let of_input = problem.tensor(OUTPUT, shape.input_dimensions())?;
    DescriptorBuilder::new(Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR)?
        .refer(attribute::DATA_GRADIENT_OF_OUTPUT, &[&of_output])?
        .refer(attribute::DATA_GRADIENT_WEIGHTS, &[&weights])?
        .refer(attribute::DATA_GRADIENT_OF_INPUT, &[&of_input])?
        .refer(attribute::DATA_GRADIENT_CONVOLUTION, &[&convolution(shape)?])?
        .set(attribute::DATA_GRADIENT_ALPHA, &[1.0])?
        .set(attribute::DATA_GRADIENT_BETA, &[0.0])?
        .finalise("a data gradient")
}

/// How a filter moves. Networks call cross-correlation a convolution.
fn convolution(shape: &ConvolutionShape) -> Result<Arc<Descriptor>, CudaError> {
    let [before, after] = shape.padding.map(integer);
    let stride = integer(shape.stride);
    DescriptorBuilder::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?
        .set(attribute::CONVOLUTION_DIMENSIONS, &[2])?
        .set(attribute::CONVOLUTION_COMPUTE_TYPE, &[DataType::CUDNN_DATA_FLOAT])?
        .set(attribute::CONVOLUTION_MODE, &[ConvolutionMode::CUDNN_CROSS_CORRELATION])?
        .set(attribute::CONVOLUTION_PADDING_BEFORE, &[before, before])?
        .set(attribute::CONVOLUTION_PADDING_AFTER, &[after, after])?
        .set(attribute::CONVOLUTION_DILATIONS, &[1, 1])?
        .set(attribute::CONVOLUTION_STRIDES, &[stride, stride])?
        .finalise("a convolution's padding and stride")
}

/// `output = first + second`. `second` is repeated along dimensions of 1.
fn add(
    first: &Arc<Descriptor>,
    second: &Arc<Descriptor>,
    output: &Arc<Descriptor>,
) -> Result<Arc<Descriptor>, CudaError> {
    let sum = function(PointwiseMode::CUDNN_POINTWISE_ADD)?.finalise("a sum")?;
    pointwise(&sum, first)?
        .refer(attribute::POINTWISE_SECOND_INPUT, &[second])?
        .refer(attribute::POINTWISE_OUTPUT, &[output])?
        .finalise("a sum of tensors")
}

/// `output = max(input, 0)`.
fn rectify(
    input: &Arc<Descriptor>,
    output: &Arc<Descriptor>,
    not_a_number: NotANumber,
) -> Result<Arc<Descriptor>, CudaError> {
    let mut relu = function(PointwiseMode::CUDNN_POINTWISE_RELU_FWD)?;
    if not_a_number == NotANumber::Kept {
        relu =
            relu.set(attribute::POINTWISE_NOT_A_NUMBER, &[NanPropagation::CUDNN_PROPAGATE_NAN])?;
    }
    pointwise(&relu.finalise("the function of a ReLU")?, input)?
        .refer(attribute::POINTWISE_OUTPUT, &[output])?
        .finalise("a ReLU")
}

/// A function of single values, in f32.
fn function(mode: PointwiseMode) -> Result<DescriptorBuilder, CudaError> {
    DescriptorBuilder::new(Kind::CUDNN_BACKEND_POINTWISE_DESCRIPTOR)?
        .set(attribute::POINTWISE_MODE, &[mode])?
        .set(attribute::POINTWISE_COMPUTE_TYPE, &[DataType::CUDNN_DATA_FLOAT])
}

/// A function of each value of a tensor, which still lacks its second input, if any, and its
/// output.
fn pointwise(
    function: &Arc<Descriptor>,
    input: &Arc<Descriptor>,
) -> Result<DescriptorBuilder, CudaError> {
    DescriptorBuilder::new(Kind::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)?
        .refer(attribute::POINTWISE_FUNCTION, &[function])?
        .refer(attribute::POINTWISE_INPUT, &[input])
}

/// A tensor with dimensions in the order `[N, C, H, W]`, which cuDNN has for every layout.
fn tensor(
    id: TensorId,
    data_type: DataType,
    dimensions: [usize; 4],
) -> Result<DescriptorBuilder, CudaError> {
    let dimensions = dimensions.map(integer);
    DescriptorBuilder::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
        .set(attribute::TENSOR_DATA_TYPE, &[data_type])?
        .set(attribute::TENSOR_DIMENSIONS, &dimensions)?
        .set(attribute::TENSOR_STRIDES, &channels_last_strides(dimensions))?
        .set(attribute::TENSOR_ID, &[id])?
        .set(attribute::TENSOR_ALIGNMENT, &[integer(TENSOR_ALIGNMENT)])
}

/// Steps between neighbours in each dimension of `[N, C, H, W]` if channels lie closest.
fn channels_last_strides([_, channels, height, width]: [i64; 4]) -> [i64; 4] {
    let row = width.saturating_mul(channels);
    [height.saturating_mul(row), 1, row, channels]
}

/// A size as cuDNN takes it. One that does not fit becomes one that cuDNN refuses.
fn integer(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SHAPE: ConvolutionShape = ConvolutionShape {
        images: 8,
        height: 224,
        width: 160,
        inputs: 3,
        outputs: 64,
        kernel: 7,
        stride: 2,
        padding: [3, 3],
    };

    #[test]
    fn outputs_shrink_by_stride_and_what_the_padding_does_not_give_back() {
        assert_eq!((SHAPE.output_height(), SHAPE.output_width()), (112, 80));
        assert_eq!(SHAPE.output_dimensions(), [8, 64, 112, 80]);
        let pointwise = ConvolutionShape { kernel: 1, stride: 1, padding: [0, 0], ..SHAPE };
        assert_eq!((pointwise.output_height(), pointwise.output_width()), (224, 160));
        let odd = ConvolutionShape { height: 7, kernel: 3, padding: [1, 1], ..SHAPE };
        assert_eq!(odd.output_height(), 4);
    }

    /// A 7×7 filter of stride 2 on blocks of 2×2 pixels is a 4×4 filter of stride 1, with two
    /// blocks of zeros before and one after.
    #[test]
    fn padding_may_differ_before_and_after() {
        let blocks = ConvolutionShape {
            height: 112,
            width: 80,
            inputs: 16,
            kernel: 4,
            stride: 1,
            padding: [2, 1],
            ..SHAPE
        };
        assert_eq!((blocks.output_height(), blocks.output_width()), (112, 80));
    }

    #[test]
    fn a_filter_larger_than_its_input_has_no_output() {
        let small = ConvolutionShape { height: 3, padding: [1, 1], ..SHAPE };
        assert_eq!(small.output_height(), 0);
    }

    #[test]
    fn channels_are_neighbours_then_columns_then_rows() {
        assert_eq!(channels_last_strides([8, 64, 112, 80]), [112 * 80 * 64, 1, 80 * 64, 64]);
        // Weights [O, I, k, k] lie as [O, k, k, I].
        assert_eq!(channels_last_strides([64, 16, 4, 4]), [256, 1, 64, 16]);
        // A bias is one pixel.
        assert_eq!(channels_last_strides([1, 64, 1, 1]), [64, 1, 64, 64]);
        assert_eq!(channels_last_strides([1, i64::MAX, 2, 2])[0], i64::MAX);
    }

    #[test]
    fn problems_that_differ_have_different_names() {
        let kinds = [
            ConvolutionKind::Forward { residual: false, relu: false },
            ConvolutionKind::Forward { residual: false, relu: true },
            ConvolutionKind::Forward { residual: true, relu: false },
            ConvolutionKind::Forward { residual: true, relu: true },
            ConvolutionKind::Plain,
            ConvolutionKind::DataGradient,
        ];
        let formats =
            [NumberFormat::F32, NumberFormat::Tf32, NumberFormat::Bf16, NumberFormat::F16];
        let shapes = [
            SHAPE,
            ConvolutionShape { images: 16, ..SHAPE },
            ConvolutionShape { height: 160, width: 224, ..SHAPE },
            ConvolutionShape { inputs: 64, outputs: 3, ..SHAPE },
            ConvolutionShape { stride: 1, ..SHAPE },
            ConvolutionShape { kernel: 5, ..SHAPE },
            ConvolutionShape { padding: [2, 3], ..SHAPE },
            ConvolutionShape { padding: [3, 2], ..SHAPE },
        ];
        let mut names = HashSet::new();
        for shape in shapes {
            for kind in kinds {
                for format in formats {
                    names.insert(ConvolutionProblem { shape, kind, format }.to_string());
                }
            }
        }
        assert_eq!(names.len(), shapes.len() * kinds.len() * formats.len());
    }

    /// Entries of caches on disk would be lost with another name.
    #[test]
    fn a_problems_name_stays() {
        let kind = ConvolutionKind::Forward { residual: true, relu: true };
        let problem = ConvolutionProblem { shape: SHAPE, kind, format: NumberFormat::Bf16 };
        assert_eq!(
            problem.to_string(),
            "bf16 convolution + residual + bias + relu of 8 images of 224x160, 3 to 64 channels, \
             7x7, stride 2, padding 3 and 3"
        );
    }
}
