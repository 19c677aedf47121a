//! Which tensors of a file count: not what training programs keep for themselves, not what the user
//! ignores, and only the chosen part if there is one.

/// Ends of the names of numbers that a training keeps beside the weights. No forward pass needs
/// them: `nn.BatchNorm2d`'s number of batches, and `swa_utils.AveragedModel`'s number of models.
const BOOKKEEPING: [&str; 2] = ["num_batches_tracked", "n_averaged"];

/// What a user says about the tensors of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorFilter {
    /// Patterns of names to ignore.
    pub ignored: Vec<String>,
    /// The key of a state_dict, or the first part of the names.
    pub key: Option<String>,
}

impl TensorFilter {
    /// True if the tensor called `name` counts.
    pub(crate) fn takes(&self, name: &str) -> bool {
        let last = name.rsplit(['.', '/']).next().unwrap_or(name);
        !BOOKKEEPING.contains(&last) && !self.ignores(name)
    }

    /// True if the user ignores the tensor called `name`.
    pub(super) fn ignores(&self, name: &str) -> bool {
        self.ignored.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
    }
}

/// True if `name` lies under `key`: `encoder_q` and `encoder_q.conv1.weight`.
pub(crate) fn is_under(key: &str, name: &str) -> bool {
    let key = key.trim_end_matches(['.', '/']);
    name.strip_prefix(key).is_some_and(|rest| key.is_empty() || rest.starts_with(['.', '/']))
}

/// True if a pattern matches a whole name. `*` stands for any characters, dots too, `?` for one.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Where to go on if the last `*` has to stand for one character more.
    let mut again = None;
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                again = Some((at + 1, read));
                at += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == name[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((after, start)) = again else { return false };
                again = Some((after, start + 1));
                (at, read) = (after, start + 1);
            }
        }
    }
    pattern[at..].iter().all(|&rest| rest == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_a_question_mark_for_one() {
        for (pattern, name, fits) in [
            ("projector.*", "projector.0.weight", true),
            ("projector.*", "projectors.0.weight", false),
            ("*.num", "a.b.num", true),
            ("*.num", "a.b.num.c", false),
            ("*a*b*", "xaxbx", true),
            ("*ab", "aab", true),
            ("fc.?", "fc.1", true),
            ("fc.?", "fc.", false),
            ("", "", true),
            ("*", "", true),
            ("fc", "fc.weight", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn counters_of_a_training_never_count() {
        let filter = TensorFilter { ignored: vec!["ssl_*".into()], key: None };
        for (name, taken) in [
            ("bn1.num_batches_tracked", false),
            ("n_averaged", false),
            ("ssl_head.weight", false),
            ("bn1.weight", true),
            ("se.n_averaged.weight", true),
        ] {
            assert_eq!(filter.takes(name), taken, "{name}");
        }
        assert!(is_under("a.b", "a.b.c") && is_under("a.b.", "a.b.c") && !is_under("a.b", "a.bc"));
    }
}
