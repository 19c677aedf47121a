//! cuDNN's backend descriptors as Rust values.
//!
//! Owns that descriptors are freed, once and in the right order, and that an attribute is set to
//! values of its own type. A descriptor keeps all descriptors that it refers to, and cuDNN's
//! handle, alive: a plan keeps its engine, which keeps the heuristics that named it, which keep
//! the graph, which keeps its operations, which keep their tensors. What the descriptors mean is
//! not known here. Upstream: [`library`](super::library). Downstream: graphs and plans.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use cudarc::cudnn::sys;
use cudarc::cudnn::sys::cudnnBackendAttributeType_t as AttributeType;

pub(super) use cudarc::cudnn::sys::cudnnBackendDescriptorType_t as DescriptorKind;
pub(super) use cudarc::cudnn::sys::cudnnDataType_t as DataType;

use super::library::{Handle, check};
use crate::error::CudaError;
use crate::memory::DevicePointer;

// An address on the device is set as `void *`.
const _: () = assert!(size_of::<DevicePointer>() == size_of::<*mut c_void>());

/// A type of an attribute's values.
///
/// # Safety
/// A slice of the type is what cuDNN reads for `TYPE`.
pub(super) unsafe trait AttributeValue: Copy {
    /// cuDNN's name of the type.
    const TYPE: AttributeType;
}

/// A type of values that cuDNN may write.
///
/// # Safety
/// Any bits are a value of the type. So it is no enum: a later cuDNN may know more cases.
pub(super) unsafe trait ReadableValue: AttributeValue + Default {}

// SAFETY: `int64_t`.
unsafe impl AttributeValue for i64 {
    const TYPE: AttributeType = AttributeType::CUDNN_TYPE_INT64;
}
// SAFETY: an integer.
unsafe impl ReadableValue for i64 {}
// SAFETY: `float`.
unsafe impl AttributeValue for f32 {
    const TYPE: AttributeType = AttributeType::CUDNN_TYPE_FLOAT;
}
// SAFETY: C++'s `bool`, one byte that is 0 or 1.
unsafe impl AttributeValue for bool {
    const TYPE: AttributeType = AttributeType::CUDNN_TYPE_BOOLEAN;
}
// SAFETY: as large as `void *`, which is asserted above.
unsafe impl AttributeValue for DevicePointer {
    const TYPE: AttributeType = AttributeType::CUDNN_TYPE_VOID_PTR;
}
// SAFETY: the bindings' own enum.
unsafe impl AttributeValue for DataType {
    const TYPE: AttributeType = AttributeType::CUDNN_TYPE_DATA_TYPE;
}
// SAFETY: the bindings' own enum.
unsafe impl AttributeValue for sys::cudnnConvolutionMode_t {
    const TYPE: AttributeType = AttributeType::CUDNN_TYPE_CONVOLUTION_MODE;
}
// SAFETY: the bindings' own enum.
unsafe impl AttributeValue for sys::cudnnPointwiseMode_t {
    const TYPE: AttributeType = AttributeType::CUDNN_TYPE_POINTWISE_MODE;
}
// SAFETY: the bindings' own enum.
unsafe impl AttributeValue for sys::cudnnNanPropagation_t {
    const TYPE: AttributeType = AttributeType::CUDNN_TYPE_NAN_PROPOGATION;
}
// SAFETY: the bindings' own enum.
unsafe impl AttributeValue for sys::cudnnBackendHeurMode_t {
    const TYPE: AttributeType = AttributeType::CUDNN_TYPE_HEUR_MODE;
}

/// What cuDNN notes about an engine's numbers: a value of `cudnnBackendNumericalNote_t`, or one
/// that a later cuDNN has added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct NumericalNote(u32);

impl NumericalNote {
    /// The note with a name in the bindings.
    pub(super) const fn named(note: sys::cudnnBackendNumericalNote_t) -> Self {
        Self(note as u32)
    }
}

// SAFETY: an enum of C is an `int`, which has the size of `u32`.
unsafe impl AttributeValue for NumericalNote {
    const TYPE: AttributeType = AttributeType::CUDNN_TYPE_NUMERICAL_NOTE;
}
// SAFETY: an integer.
unsafe impl ReadableValue for NumericalNote {}

/// An attribute whose values are of type `V`. All there are lie in [`attribute`].
#[derive(Debug)]
pub(super) struct Attribute<V> {
    name: sys::cudnnBackendAttributeName_t,
    values: PhantomData<V>,
}

/// Declares attributes: a name here, its values' type, and cuDNN's name without its prefix.
macro_rules! attributes {
    ($($name:ident: $values:ty = $theirs:ident,)*) => {
        /// The attributes that are used, each with the type of its values.
        pub(in crate::cudnn) mod attribute {
            use cudarc::cudnn::sys;

            use super::{Attribute, DataType, Descriptor, DevicePointer, Handle, NumericalNote};

            $(pub(in crate::cudnn) const $name: Attribute<$values> = Attribute {
                name: sys::cudnnBackendAttributeName_t::$theirs,
                values: std::marker::PhantomData,
            };)*
        }
    };
}

attributes! {
    TENSOR_DATA_TYPE: DataType = CUDNN_ATTR_TENSOR_DATA_TYPE,
    TENSOR_DIMENSIONS: i64 = CUDNN_ATTR_TENSOR_DIMENSIONS,
    TENSOR_STRIDES: i64 = CUDNN_ATTR_TENSOR_STRIDES,
    TENSOR_ID: i64 = CUDNN_ATTR_TENSOR_UNIQUE_ID,
    TENSOR_ALIGNMENT: i64 = CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT,
    TENSOR_IS_VIRTUAL: bool = CUDNN_ATTR_TENSOR_IS_VIRTUAL,
    CONVOLUTION_DIMENSIONS: i64 = CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS,
    CONVOLUTION_COMPUTE_TYPE: DataType = CUDNN_ATTR_CONVOLUTION_COMP_TYPE,
    CONVOLUTION_MODE: sys::cudnnConvolutionMode_t = CUDNN_ATTR_CONVOLUTION_CONV_MODE,
    CONVOLUTION_PADDING_BEFORE: i64 = CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS,
    CONVOLUTION_PADDING_AFTER: i64 = CUDNN_ATTR_CONVOLUTION_POST_PADDINGS,
    CONVOLUTION_DILATIONS: i64 = CUDNN_ATTR_CONVOLUTION_DILATIONS,
    CONVOLUTION_STRIDES: i64 = CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES,
    FORWARD_INPUT: Descriptor = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
    FORWARD_WEIGHTS: Descriptor = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
    FORWARD_OUTPUT: Descriptor = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
    FORWARD_CONVOLUTION: Descriptor = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
    FORWARD_ALPHA: f32 = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
    FORWARD_BETA: f32 = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
    DATA_GRADIENT_OF_OUTPUT: Descriptor = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
    DATA_GRADIENT_WEIGHTS: Descriptor = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
    DATA_GRADIENT_OF_INPUT: Descriptor = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
    DATA_GRADIENT_CONVOLUTION: Descriptor = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
    DATA_GRADIENT_ALPHA: f32 = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
    DATA_GRADIENT_BETA: f32 = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
    POINTWISE_MODE: sys::cudnnPointwiseMode_t = CUDNN_ATTR_POINTWISE_MODE,
    POINTWISE_COMPUTE_TYPE: DataType = CUDNN_ATTR_POINTWISE_MATH_PREC,
    POINTWISE_NOT_A_NUMBER: sys::cudnnNanPropagation_t = CUDNN_ATTR_POINTWISE_NAN_PROPAGATION,
    POINTWISE_FUNCTION: Descriptor = CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
    POINTWISE_INPUT: Descriptor = CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
    POINTWISE_SECOND_INPUT: Descriptor = CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
    POINTWISE_OUTPUT: Descriptor = CUDNN_ATTR_OPERATION_POINTWISE_YDESC,
    GRAPH_OPERATIONS: Descriptor = CUDNN_ATTR_OPERATIONGRAPH_OPS,
    GRAPH_HANDLE: Handle = CUDNN_ATTR_OPERATIONGRAPH_HANDLE,
    HEURISTICS_GRAPH: Descriptor = CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
    HEURISTICS_MODE: sys::cudnnBackendHeurMode_t = CUDNN_ATTR_ENGINEHEUR_MODE,
    HEURISTICS_RESULTS: Descriptor = CUDNN_ATTR_ENGINEHEUR_RESULTS,
    CONFIGURATION_ENGINE: Descriptor = CUDNN_ATTR_ENGINECFG_ENGINE,
    ENGINE_NUMERICAL_NOTES: NumericalNote = CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
    PLAN_HANDLE: Handle = CUDNN_ATTR_EXECUTION_PLAN_HANDLE,
    PLAN_CONFIGURATION: Descriptor = CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
    PLAN_WORKSPACE_BYTES: i64 = CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
    PACK_IDS: i64 = CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
    PACK_POINTERS: DevicePointer = CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
    PACK_WORKSPACE: DevicePointer = CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
}

/// Owns one of cuDNN's descriptors, without what it refers to.
#[derive(Debug)]
struct RawDescriptor(sys::cudnnBackendDescriptor_t);

// SAFETY: cuDNN's functions may be called on any thread, and a descriptor belongs to none.
unsafe impl Send for RawDescriptor {}
// SAFETY: a descriptor is changed only while a builder owns it. From then on it is only read. That
// a plan runs on one thread at a time is the business of `plan`.
unsafe impl Sync for RawDescriptor {}

impl RawDescriptor {
    fn new(kind: DescriptorKind) -> Result<Self, CudaError> {
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` has room for a descriptor.
        let status = unsafe { sys::cudnnBackendCreateDescriptor(kind, &raw mut raw) };
        check(status, &format!("the creation of {kind:?}"))?;
        Ok(Self(raw))
    }

    /// # Safety
    /// `values` points to `count` values of what cuDNN reads for `values_type`, or is dangling if
    /// `count` is 0.
    unsafe fn set(
        &self,
        name: sys::cudnnBackendAttributeName_t,
        values_type: AttributeType,
        count: usize,
        values: *const c_void,
    ) -> Result<(), CudaError> {
        // SAFETY: the descriptor is alive; the rest is the caller's promise.
        let status = unsafe {
            sys::cudnnBackendSetAttribute(self.0, name, values_type, count as i64, values)
        };
        check(status, &format!("the setting of {name:?}"))
    }

    /// Returns how many values there are, `most` at most.
    ///
    /// # Safety
    /// `values` points to `most` values of what cuDNN writes for `values_type`.
    unsafe fn get(
        &self,
        name: sys::cudnnBackendAttributeName_t,
        values_type: AttributeType,
        most: usize,
        values: *mut c_void,
    ) -> Result<usize, CudaError> {
        let mut count = 0;
        // SAFETY: the descriptor is alive; the rest is the caller's promise.
        let status = unsafe {
            sys::cudnnBackendGetAttribute(
                self.0,
                name,
                values_type,
                most as i64,
                &raw mut count,
                values,
            )
        };
        check(status, &format!("the reading of {name:?}"))?;
        // cuDNN counts all values, though it writes no more than it is asked for.
        Ok(usize::try_from(count).unwrap_or(0).min(most))
    }
}

impl Drop for RawDescriptor {
    fn drop(&mut self) {
        // SAFETY: it was created once, and nothing refers to it any more.
        let status = unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
        if let Err(error) = check(status, "the end of a descriptor") {
            tracing::debug!(%error, "a descriptor of cuDNN is not freed");
        }
    }
}

/// A descriptor that is complete and does not change any more, with all that it refers to.
#[derive(Debug)]
pub(super) struct Descriptor {
    // Fields are dropped in this order: first the descriptor, then what it refers to.
    raw: RawDescriptor,
    parts: Vec<Arc<Self>>,
    handle: Option<Arc<Handle>>,
}

impl Descriptor {
    /// The descriptor itself, for calls while `self` is alive.
    pub(super) fn raw(&self) -> sys::cudnnBackendDescriptor_t {
        self.raw.0
    }

    /// Up to `most` values of an attribute.
    ///
    /// # Errors
    /// If the descriptor has no such attribute.
    pub(super) fn get<V: ReadableValue>(
        &self,
        attribute: Attribute<V>,
        most: usize,
    ) -> Result<Vec<V>, CudaError> {
        let mut values = vec![V::default(); most];
        let target = values.as_mut_ptr().cast();
        // SAFETY: `values` has `most` values, and may hold any bits.
        let count = unsafe { self.raw.get(attribute.name, V::TYPE, most, target) }?;
        values.truncate(count);
        Ok(values)
    }

    /// Up to `most` descriptors of a kind that cuDNN makes for this one.
    ///
    /// # Errors
    /// If the descriptor has no such attribute.
    pub(super) fn get_descriptors(
        self: &Arc<Self>,
        attribute: Attribute<Self>,
        kind: DescriptorKind,
        most: usize,
    ) -> Result<Vec<Arc<Self>>, CudaError> {
        // cuDNN fills in descriptors that the caller has created.
        let created =
            (0..most).map(|_| RawDescriptor::new(kind)).collect::<Result<Vec<_>, CudaError>>()?;
        let mut raw: Vec<_> = created.iter().map(|descriptor| descriptor.0).collect();
        let (values_type, target) =
            (AttributeType::CUDNN_TYPE_BACKEND_DESCRIPTOR, raw.as_mut_ptr().cast());
        // SAFETY: `raw` has `most` descriptors.
        let count = unsafe { self.raw.get(attribute.name, values_type, most, target) }?;
        let complete = |raw| Arc::new(Self { raw, parts: vec![Arc::clone(self)], handle: None });
        Ok(created.into_iter().take(count).map(complete).collect())
    }
}

/// A descriptor whose attributes are being set.
#[derive(Debug)]
pub(super) struct DescriptorBuilder(Descriptor);

impl DescriptorBuilder {
    /// A descriptor without attributes.
    ///
    /// # Errors
    /// If cuDNN does not know the kind, or memory is short.
    pub(super) fn new(kind: DescriptorKind) -> Result<Self, CudaError> {
        let raw = RawDescriptor::new(kind)?;
        Ok(Self(Descriptor { raw, parts: Vec::new(), handle: None }))
    }

    /// Sets an attribute to plain values.
    ///
    /// # Errors
    /// If cuDNN refuses them.
    pub(super) fn set<V: AttributeValue>(
        self,
        attribute: Attribute<V>,
        values: &[V],
    ) -> Result<Self, CudaError> {
        let source = values.as_ptr().cast();
        // SAFETY: `AttributeValue` promises that the slice is what cuDNN reads.
        unsafe { self.0.raw.set(attribute.name, V::TYPE, values.len(), source) }?;
        Ok(self)
    }

    /// Sets an attribute to descriptors, and keeps them.
    ///
    /// # Errors
    /// If cuDNN refuses them.
    pub(super) fn refer(
        mut self,
        attribute: Attribute<Descriptor>,
        to: &[&Arc<Descriptor>],
    ) -> Result<Self, CudaError> {
        let raw: Vec<_> = to.iter().map(|descriptor| descriptor.raw()).collect();
        let (values_type, source) =
            (AttributeType::CUDNN_TYPE_BACKEND_DESCRIPTOR, raw.as_ptr().cast());
        // SAFETY: `raw` are descriptors that are alive.
        unsafe { self.0.raw.set(attribute.name, values_type, raw.len(), source) }?;
        self.0.parts.extend(to.iter().map(|&descriptor| Arc::clone(descriptor)));
        Ok(self)
    }

    /// Sets an attribute to cuDNN's handle, and keeps it.
    ///
    /// # Errors
    /// If cuDNN refuses it.
    pub(super) fn with_handle(
        mut self,
        attribute: Attribute<Handle>,
        handle: &Arc<Handle>,
    ) -> Result<Self, CudaError> {
        let raw = handle.raw();
        let source = (&raw const raw).cast();
        // SAFETY: `raw` is one handle that is alive.
        unsafe { self.0.raw.set(attribute.name, AttributeType::CUDNN_TYPE_HANDLE, 1, source) }?;
        self.0.handle = Some(Arc::clone(handle));
        Ok(self)
    }

    /// Lets cuDNN check and complete the descriptor. `what` names it, for the error.
    ///
    /// # Errors
    /// If the attributes do not fit together, or cuDNN does not support them.
    pub(super) fn finalise(self, what: &str) -> Result<Arc<Descriptor>, CudaError> {
        // SAFETY: the descriptor is alive.
        check(unsafe { sys::cudnnBackendFinalize(self.0.raw()) }, what)?;
        Ok(Arc::new(self.0))
    }
}
