//! What a network's outputs mean: only logits of classes that exclude each other can be run.

use serde_json::Value;

use super::fields::{Refusal, field};

/// Refuses a configuration, in any format, that says its outputs are something else.
/// transformers' `problem_type` also decides with which loss a model was trained.
pub(super) fn check(config: &Value) -> Result<(), Refusal> {
    match field(config, &["problem_type"]) {
        None => Ok(()),
        Some(problem) if problem == "single_label_classification" => Ok(()),
        Some(problem) => Err(format!(
            "\"problem_type\" is {problem}; only models that choose one of several classes can be \
             run, \"single_label_classification\": a softmax over the outputs of others would give \
             wrong probabilities"
        )),
    }
}
