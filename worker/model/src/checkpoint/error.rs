//! Why a file of weights can't be read.

/// Why a file of weights can't be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Nothing was written into the file, or nothing of it was copied.
    #[error("the file is empty; copy it again")]
    Empty,
    /// A repository was cloned without Git LFS.
    #[error("the file is a Git LFS pointer, not the weights; run `git lfs pull`")]
    LfsPointer,
    /// A download got an error page instead of the file.
    #[error("the file is a web page, not weights; download it again")]
    WebPage,
    /// `torch.save` of PyTorch before 1.6.
    #[error(
        "the file is in PyTorch's format of before 1.6; load it with torch.load and write its \
         state_dict again with torch.save or safetensors"
    )]
    LegacyTorch,
    /// The file holds a pickled object, not a dict of tensors.
    #[error(
        "the file holds a pickled {class}, which can't be read without running its code; write \
         its state_dict() instead"
    )]
    WholeModule {
        /// The object's class in Python.
        class: String,
    },
    /// The file has no dict of tensors. The text says what it has.
    #[error("the file has no state_dict: {0}")]
    NoStateDict(String),
    /// A file of Keras: HDF5 or a `.keras` archive.
    #[error(
        "the file is Keras' ({0}); convert it to safetensors with the few lines of Python in \
         docs/models.md"
    )]
    Keras(&'static str),
    /// The file is truncated or corrupt. The text says what is wrong.
    #[error("the file is damaged ({0}); copy it again")]
    Damaged(String),
    /// The file begins like no known format of weights.
    #[error(
        "the file is of no known format: it begins neither as safetensors, nor as a zip archive or an \
         old pickle (PyTorch's .pth), nor as HDF5 (Keras'); is it the right file, and whole?"
    )]
    Unrecognised,
    /// The file begins as safetensors, and is truncated or damaged.
    #[error("the file is not a whole safetensors file ({0}); copy it again")]
    NotSafetensors(#[source] safetensors::SafeTensorError),
    /// A tensor of a state_dict is stored in a way that can't be read.
    #[error(
        "its tensor {name} is {kind}, which can't be read; write the model's state_dict with plain \
         f32, f16 or bf16 tensors"
    )]
    Tensor {
        /// Its name.
        name: String,
        /// What it is.
        kind: String,
    },
    /// Two files of one checkpoint have a tensor of the same name.
    #[error("two of its files have a tensor {0}; keep the files of one checkpoint only")]
    TwoShards(String),
    /// Several state_dicts could be the model's.
    #[error("it has several state_dicts and nothing tells which is the model's: {0}; choose one")]
    SeveralStateDicts(String),
    /// Several networks lie in one state_dict. The text says what stands before their names.
    #[error(
        "it has several networks, whose names begin with {0}; choose one, or ignore the others"
    )]
    SeveralNetworks(String),
    /// Several linear layers could be the head. The text names them.
    #[error(
        "it has several linear layers with the model's number of classes: {0}; ignore those that \
         are not the head"
    )]
    SeveralHeads(String),
    /// Neither a key of the file nor the first part of its names is what the user chose.
    #[error("it has nothing under {key:?}; it has {there}")]
    NoKey {
        /// What the user chose.
        key: String,
        /// What is there.
        there: String,
    },
}
