//! A file of weights in safetensors' format, and where the network lies in it.

use std::sync::Arc;

use bytes::Bytes;
use safetensors::SafeTensors;

use super::converted::Converted;
use super::error::CheckpointError;
use super::naming::{Naming, TensorNames};
use super::structure::{Shapes, find_head, find_network};
use super::tensor_filter::{TensorFilter, is_under};
use super::weights::{Weights, describe, describe_names};

/// With more networks in a file, none is compared with another.
const MOST_COMPARED: usize = 4;

/// A file of weights, with the names of the network's tensors in it.
#[derive(Clone, Debug)]
pub struct WeightsFile {
    bytes: Bytes,
    /// The tensors that count.
    shapes: Arc<Shapes>,
    names: TensorNames,
    choice: Option<String>,
}

impl WeightsFile {
    /// Reads the header of a converted file, and finds the network.
    ///
    /// # Errors
    /// If it is not a safetensors file, or a truncated one; if it has several networks, or nothing
    /// under the user's key.
    pub(crate) fn new(
        converted: Converted,
        filter: &TensorFilter,
    ) -> Result<Self, CheckpointError> {
        let Converted { file: bytes, choice, part } = converted;
        let tensors = SafeTensors::deserialize(&bytes).map_err(CheckpointError::NotSafetensors)?;
        let mut shapes = read_shapes(&tensors, filter, part.as_deref())?;
        if let Err(networks) = find_network(&shapes) {
            drop_copies(&tensors, &networks, &mut shapes);
        }
        let names = find_network(&shapes).map_err(|found| {
            let prefix = |names: TensorNames| match names.prefix().trim_end_matches(['.', '/']) {
                "" => "no prefix".to_owned(),
                prefix => prefix.to_owned(),
            };
            let found: Vec<_> = found.into_iter().map(prefix).collect();
            CheckpointError::SeveralNetworks(describe(&found))
        })?;
        let choice = choice.map(|choice| choice.to_string());
        Ok(Self { bytes, shapes: Arc::new(shapes), names, choice })
    }

    /// Reads the header of a safetensors file of which every tensor counts.
    ///
    /// # Errors
    /// As [`Self::new`].
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn of_safetensors(file: Bytes) -> Result<Self, CheckpointError> {
        Self::new(Converted { file, choice: None, part: None }, &TensorFilter::default())
    }

    /// The safetensors file.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Which of several state_dicts was taken, if the file has several.
    #[must_use]
    pub fn choice(&self) -> Option<&str> {
        self.choice.as_deref()
    }

    /// Opens the file to read tensors.
    ///
    /// # Errors
    /// If it is not a safetensors file.
    pub fn open(&self) -> candle_core::Result<Weights<'_>> {
        Weights::open(&self.bytes, Arc::clone(&self.shapes), self.names.clone())
    }

    /// Finds the head of `classes` classes and `inputs` inputs.
    ///
    /// # Errors
    /// If several linear layers fit.
    pub(crate) fn with_head(self, classes: usize, inputs: usize) -> Result<Self, CheckpointError> {
        let names = find_head(&self.shapes, self.names, classes, inputs).map_err(|found| {
            let found: Vec<_> = found.iter().map(|head| format!("{head}*")).collect();
            CheckpointError::SeveralHeads(describe(&found))
        })?;
        Ok(Self { names, ..self })
    }

    /// The same tensors with other values, as `bytes` has them.
    pub(crate) fn with_bytes(&self, bytes: Bytes) -> Self {
        Self { bytes, ..self.clone() }
    }

    /// How the file names the network's tensors.
    pub(crate) fn names(&self) -> &TensorNames {
        &self.names
    }
}

/// The shapes of the tensors that count, of those under `part` if there is one.
fn read_shapes(
    tensors: &SafeTensors<'_>,
    filter: &TensorFilter,
    part: Option<&str>,
) -> Result<Shapes, CheckpointError> {
    let all = tensors.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec()));
    let mut shapes: Shapes = all.filter(|(name, _)| filter.takes(name)).collect();
    if let Some(key) = part {
        let there = describe_names(&shapes);
        shapes.retain(|name, _| is_under(key, name));
        if shapes.is_empty() {
            return Err(CheckpointError::NoKey { key: key.to_owned(), there });
        }
    }
    Ok(shapes)
}

/// Leaves out the tensors of further networks that are the first network's, to the byte: a module
/// that two others refer to is in a file twice.
fn drop_copies(tensors: &SafeTensors<'_>, networks: &[TensorNames], shapes: &mut Shapes) {
    let Some((first, further)) = networks.split_first() else { return };
    // A file made to do harm could have thousands.
    if first.naming() != Naming::Torchvision || networks.len() > MOST_COMPARED {
        return;
    }
    let own: Vec<_> = shapes.keys().filter_map(|name| name.strip_prefix(first.prefix())).collect();
    let pairs = further.iter().flat_map(|other| {
        own.iter().map(|name| (format!("{}{name}", first.prefix()), other.in_file(name)))
    });
    let same = |(one, other): &(String, String)| match (tensors.tensor(one), tensors.tensor(other))
    {
        (Ok(a), Ok(b)) => one != other && a == b,
        _ => false,
    };
    let copies: Vec<_> = pairs.filter(same).map(|(_, copy)| copy).collect();
    for copy in copies {
        shapes.remove(&copy);
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    fn file(tensors: &[(&str, u8)]) -> Converted {
        let values: Vec<_> = tensors.iter().map(|&(name, value)| (name, [value; 4])).collect();
        let views = values
            .iter()
            .map(|(name, value)| (*name, TensorView::new(Dtype::F32, vec![1], value).unwrap()));
        let file = safetensors::serialize(views, None).unwrap().into();
        Converted { file, choice: None, part: None }
    }

    #[test]
    fn a_network_that_is_there_twice_is_one() {
        let names = ["layer1.0.conv1.weight", "layer4.0.conv1.weight", "conv1.weight"];
        let modules = ["4.0.conv1.weight", "7.0.conv1.weight", "0.weight"];
        let all = |last: u8| {
            let one = names.iter().map(|name| format!("backbone.{name}"));
            let other = modules.iter().map(|name| format!("features.{name}"));
            let names: Vec<_> = one.chain(other).collect();
            let values = [1, 2, 3, 1, 2, last];
            let named: Vec<_> = names.iter().map(String::as_str).zip(values).collect();
            WeightsFile::new(file(&named), &TensorFilter::default())
        };
        let found = all(3).unwrap();
        assert_eq!(found.names.prefix(), "backbone.");
        assert_eq!(found.shapes.len(), 3);
        // What differs is not left out: it will be found to be used by nothing.
        assert!(all(4).unwrap().shapes.contains_key("features.0.weight"));
    }

    #[test]
    fn a_key_that_is_no_dict_chooses_by_the_first_part_of_names() {
        let tensors = [
            ("encoder_q.layer1.0.conv1.weight", 1),
            ("encoder_q.layer4.0.conv1.weight", 2),
            ("encoder_k.layer1.0.conv1.weight", 3),
            ("encoder_k.layer4.0.conv1.weight", 4),
        ];
        let read = |key: Option<&str>, ignored: &[&str]| {
            let ignored = ignored.iter().map(|pattern| (*pattern).to_owned()).collect();
            let filter = TensorFilter { ignored, key: None };
            let part = key.map(str::to_owned);
            let read = WeightsFile::new(Converted { part, ..file(&tensors) }, &filter);
            read.map(|file| file.names.prefix().to_owned()).map_err(|error| error.to_string())
        };
        let error = read(None, &[]).unwrap_err();
        assert!(error.contains("begin with encoder_k, encoder_q; choose one"), "{error}");
        assert_eq!(read(Some("encoder_q"), &[]).as_deref(), Ok("encoder_q."));
        assert_eq!(read(None, &["encoder_k.*"]).as_deref(), Ok("encoder_q."));
        let error = read(Some("encoder"), &[]).unwrap_err();
        assert!(error.contains("nothing under \"encoder\"; it has encoder_k.layer1"), "{error}");
    }
}
