//! Why a file of weights can't be read.

/// Why a file of weights can't be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
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
}
