//! What to do about an image that can't be explained, by the programs' options.
//!
//! The library's [`ExplainError`] says what is wrong; failure records also say which option to
//! change. To add advice, extend the match.

use camshaft_model::ExplainError;

/// The advice, to be put directly behind the text of the error; empty if there is none.
pub(super) fn advice_on(error: &ExplainError) -> &'static str {
    match error {
        ExplainError::NoLabel => "; use --labels folder or a list with labels, or another --target",
        ExplainError::LogitsNotFinite | ExplainError::MapNotFinite { .. } => {
            "; if it runs in f16, use --precision f32"
        }
        ExplainError::UnknownLabel { .. } | ExplainError::AmbiguousLabel { .. } => {
            "; say with --label-map which class it is, or use another --target"
        }
        ExplainError::UnknownClass { .. }
        | ExplainError::AmbiguousClass { .. }
        | ExplainError::UnknownLayer { .. } => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::exit::ExitCause;

    #[test]
    fn a_failure_says_which_option_to_change() {
        let text = |error: ExplainError| ExitCause::from(error).to_string();
        assert_eq!(
            text(ExplainError::NoLabel),
            "the image has no label to explain; use --labels folder or a list with labels, or \
             another --target"
        );
        assert_eq!(
            text(ExplainError::LogitsNotFinite),
            "the model's logits are not finite; if it runs in f16, use --precision f32"
        );
        assert_eq!(
            text(ExplainError::MapNotFinite { class: "cat".to_owned() }),
            "the map for class \"cat\" is not finite; if it runs in f16, use --precision f32"
        );
        assert_eq!(
            text(ExplainError::AmbiguousLabel { label: "crane".to_owned() }),
            "the label \"crane\" could be several of the model's classes; say with --label-map \
             which class it is, or use another --target"
        );
        let classes = "cat, dog".to_owned();
        assert_eq!(
            text(ExplainError::UnknownClass { name: "whale".to_owned(), classes }),
            "the model has no class \"whale\"; its classes are cat, dog"
        );
    }
}
