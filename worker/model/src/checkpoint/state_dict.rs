//! Which dict in a pickled checkpoint is the model's state_dict.
//!
//! A training program nests it under a key, beside an optimiser's state and often beside a second
//! one with averaged weights. If there are several, the usual key decides, and the choice is told.
//! Upstream: [`pickle`](super::pickle). Downstream: [`torch`](super::torch).

use std::collections::HashSet;
use std::fmt;

use super::error::CheckpointError;
use super::pickle::{Pickle, PickleValue, ValueIndex};
use super::weights::describe;

/// Keys under which training programs store the state_dict, in the order they are looked up.
const STATE_KEYS: [&str; 5] = ["state_dict", "model_state_dict", "model", "net", "weights"];
/// Training programs nest it at most this deep: `{"checkpoint": {"model": {…}}}`.
const MAX_NESTING: usize = 3;
/// The longest name of a tensor. Names of networks that are wrapped several times have some hundred.
pub(super) const MAX_TENSOR_NAME_BYTES: usize = 1024;
/// A convolution's weight has this many axes.
const CONVOLUTION_RANK: usize = 4;

/// A state_dict, and what else the file has.
#[derive(Debug)]
pub(super) struct FoundStateDict {
    /// The dict.
    pub(super) index: ValueIndex,
    /// How it was chosen, if there are several.
    pub(super) choice: Option<StateDictChoice>,
    /// True if it lies under the user's key.
    pub(super) by_key: bool,
}

/// Which of several state_dicts was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateDictChoice {
    taken: String,
    others: Vec<String>,
}

impl fmt::Display for StateDictChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was taken; the file also has {}", self.taken, describe(&self.others))
    }
}

/// A dict that holds a network's weights, and the keys that lead to it.
struct Candidate<'a> {
    path: Vec<&'a str>,
    index: ValueIndex,
}

impl Candidate<'_> {
    fn name(&self) -> String {
        if self.path.is_empty() { "the top level".to_owned() } else { self.path.join(".") }
    }

    /// Smaller for a more usual place. None if a key is not a usual one.
    fn rank(&self) -> Option<Vec<usize>> {
        let place = |key: &&str| STATE_KEYS.iter().position(|known| key == known);
        self.path.iter().map(place).collect()
    }
}

/// Finds the state_dict of a pickled checkpoint: the one under `key` if there is one, else the only
/// one, else the one under the most usual key.
pub(super) fn find(pickle: &Pickle, key: Option<&str>) -> Result<FoundStateDict, CheckpointError> {
    if let Some(index) = key.and_then(|key| under(pickle, pickle.root(), key, 0)) {
        return Ok(FoundStateDict { index, choice: None, by_key: true });
    }
    let candidates = candidates(pickle);
    let found = |index, choice| FoundStateDict { index, choice, by_key: false };
    let taken = match &candidates[..] {
        [] => return Ok(found(find_any(pickle)?, None)),
        [only] => return Ok(found(only.index, None)),
        several => {
            several.iter().filter_map(|one| Some((one.rank()?, one))).min_by(|a, b| a.0.cmp(&b.0))
        }
    };
    let names = |which: &dyn Fn(&Candidate<'_>) -> bool| -> Vec<String> {
        candidates.iter().filter(|one| which(one)).map(Candidate::name).collect()
    };
    let Some((_, taken)) = taken else {
        return Err(CheckpointError::SeveralStateDicts(describe(&names(&|_| true))));
    };
    let others = names(&|one| one.index != taken.index);
    Ok(found(taken.index, Some(StateDictChoice { taken: taken.name(), others })))
}

/// The dicts that hold a network's weights, those nearest to the top first. Each dict is looked into
/// once, however often the file refers to it.
fn candidates(pickle: &Pickle) -> Vec<Candidate<'_>> {
    let mut candidates = Vec::new();
    let mut seen = HashSet::from([pickle.root()]);
    let mut level = vec![Candidate { path: Vec::new(), index: pickle.root() }];
    for depth in 0..=MAX_NESTING {
        let mut next = Vec::new();
        for Candidate { path, index } in level {
            let PickleValue::Dict(entries) = pickle.value(index) else { continue };
            let inner = entries.iter().filter_map(|&(key, value)| {
                let key = pickle.text(key)?;
                let is_new =
                    matches!(pickle.value(value), PickleValue::Dict(_)) && seen.insert(value);
                is_new.then(|| Candidate { path: [&path[..], &[key]].concat(), index: value })
            });
            if depth < MAX_NESTING {
                next.extend(inner);
            }
            if has_weights(pickle, entries) {
                candidates.push(Candidate { path, index });
            }
        }
        level = next;
    }
    candidates
}

/// The dict with a network's weights under the user's key, whose parts are separated by dots.
fn under(pickle: &Pickle, index: ValueIndex, key: &str, depth: usize) -> Option<ValueIndex> {
    let PickleValue::Dict(entries) = pickle.value(index) else { return None };
    // Of two entries with one key Python keeps the last.
    let last = |rest: &dyn Fn(&str) -> Option<usize>| {
        entries.iter().rev().find_map(|&(key, value)| Some((rest(pickle.text(key)?)?, value)))
    };
    if let Some((_, value)) = last(&|text| (text == key).then_some(0)) {
        let PickleValue::Dict(entries) = pickle.value(value) else { return None };
        return has_weights(pickle, entries).then_some(value);
    }
    let (skipped, value) = last(&|text| {
        let is_first = key.strip_prefix(text).is_some_and(|rest| rest.starts_with('.'));
        is_first.then_some(text.len() + 1)
    })?;
    if depth + 1 == MAX_NESTING { None } else { under(pickle, value, &key[skipped..], depth + 1) }
}

fn has_weights(pickle: &Pickle, entries: &[(ValueIndex, ValueIndex)]) -> bool {
    entries.iter().any(|&(key, value)| is_convolution(pickle, key, value))
}

/// True for a network's convolution: a tensor of four axes whose name has several parts. An
/// optimiser's state of a parameter has such tensors too, called `exp_avg`.
fn is_convolution(pickle: &Pickle, key: ValueIndex, value: ValueIndex) -> bool {
    // Names are read last: a file made to do harm may refer to a long one countless times.
    let is_name = |name: &str| name.len() <= MAX_TENSOR_NAME_BYTES && name.contains(['.', '/']);
    is_tensor(pickle, value)
        && rank(pickle, value, 0).is_none_or(|r| r == CONVOLUTION_RANK)
        && pickle.text(key).is_some_and(is_name)
}

/// The number of axes of a tensor; none if it is of an unknown kind.
fn rank(pickle: &Pickle, index: ValueIndex, depth: usize) -> Option<usize> {
    let (callable, arguments) = pickle.call(index)?;
    match (pickle.global(callable)?, arguments) {
        (("torch._utils", "_rebuild_tensor_v2"), &[_, _, shape, ..]) => {
            Some(pickle.tuple(shape)?.len())
        }
        // A parameter, and an instance of a subclass, wrap a tensor.
        (("torch._utils", name), &[tensor, ..])
            if depth == 0 && name.starts_with("_rebuild_parameter") =>
        {
            rank(pickle, tensor, 1)
        }
        (("torch._tensor", "_rebuild_from_type_v2"), &[_, _, arguments, ..]) => {
            Some(pickle.tuple(*pickle.tuple(arguments)?.get(2)?)?.len())
        }
        _ => None,
    }
}

/// True if a value is a tensor, of a kind that can be read or not.
pub(super) fn is_tensor(pickle: &Pickle, index: ValueIndex) -> bool {
    let global = pickle.call(index).and_then(|(callable, _)| pickle.global(callable));
    matches!(global, Some(("torch._utils" | "torch._tensor", name)) if name.starts_with("_rebuild"))
}

/// Finds any dict of tensors under the usual keys, so that an error can say what it lacks.
fn find_any(pickle: &Pickle) -> Result<ValueIndex, CheckpointError> {
    let mut index = pickle.root();
    for _ in 0..=MAX_NESTING {
        let PickleValue::Dict(entries) = pickle.value(index) else { break };
        let is_named = |&(key, value): &(ValueIndex, ValueIndex)| {
            pickle.text(key).is_some() && is_tensor(pickle, value)
        };
        if entries.iter().any(is_named) {
            return Ok(index);
        }
        let of = |wanted: &str| {
            let entry = entries.iter().find(|&&(key, _)| pickle.text(key) == Some(wanted));
            entry.map(|&(_, value)| value)
        };
        match STATE_KEYS.into_iter().find_map(of) {
            Some(inner) => index = inner,
            None if entries.iter().any(|&(key, _)| pickle.text(key) == Some("param_groups")) => {
                let what = "it holds an optimiser's state; take the file with the model's";
                return Err(CheckpointError::NoStateDict(what.to_owned()));
            }
            None => {
                let keys = entries.iter().filter_map(|&(key, _)| pickle.text(key));
                let keys = keys.take(5).collect::<Vec<_>>().join(", ");
                return Err(CheckpointError::NoStateDict(format!(
                    "its keys are {keys}; put the tensors under \"state_dict\""
                )));
            }
        }
    }
    Err(match class_of(pickle, index) {
        Some(class) => CheckpointError::WholeModule { class },
        None => CheckpointError::NoStateDict("it holds no dict of tensors".into()),
    })
}

/// The class of a pickled object, as `module.Name`.
fn class_of(pickle: &Pickle, index: ValueIndex) -> Option<String> {
    let (callable, arguments) = pickle.call(index)?;
    let (module, name) = match pickle.global(callable)? {
        // `copyreg._reconstructor(class, object, None)`
        ("copyreg" | "copy_reg", _) => pickle.global(*arguments.first()?)?,
        global => global,
    };
    Some(format!("{module}.{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pickled value in the text form of protocol 0's mark and strings, enough for dicts.
    enum Item {
        Tensor,
        Dict(Vec<(&'static str, Item)>),
    }

    use Item::{Dict, Tensor};

    fn write(item: &Item, out: &mut Vec<u8>) {
        match item {
            // torch._utils._rebuild_tensor_v2(None, 0, (1, 1, 1, 1), (1, 1, 1, 1))
            Tensor => out.extend(
                b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00(K\x01K\x01K\x01K\x01t(K\x01K\x01K\x01K\x01ttR",
            ),
            Dict(entries) => {
                out.push(b'}');
                for (key, value) in entries {
                    out.extend([b'U', key.len() as u8]);
                    out.extend(key.as_bytes());
                    write(value, out);
                    out.push(b's');
                }
            }
        }
    }

    fn weights() -> Item {
        Dict(vec![("layer1.0.conv1.weight", Tensor)])
    }

    /// The choice, or an empty text if there was none to make; or the error.
    fn chosen(root: &Item, key: Option<&str>) -> Result<String, String> {
        let mut bytes = b"\x80\x02".to_vec();
        write(root, &mut bytes);
        bytes.push(b'.');
        let pickle = Pickle::read(&bytes).unwrap();
        let found = find(&pickle, key).map_err(|error| error.to_string())?;
        let PickleValue::Dict(entries) = pickle.value(found.index) else { panic!("no dict") };
        assert_eq!(pickle.text(entries[0].0), Some("layer1.0.conv1.weight"));
        Ok(found.choice.map(|choice| choice.to_string()).unwrap_or_default())
    }

    #[test]
    fn the_usual_key_is_taken_and_the_others_are_told() {
        for averaged in ["state_dict_ema", "model_ema", "ema_state_dict", "ema"] {
            let both = Dict(vec![(averaged, weights()), ("state_dict", weights())]);
            let told = chosen(&both, None).unwrap();
            assert_eq!(told, format!("state_dict was taken; the file also has {averaged}"));
            assert_eq!(chosen(&both, Some(averaged)).unwrap(), "");
        }
        let nested =
            Dict(vec![("checkpoint", Dict(vec![("model", weights()), ("ema", weights())]))]);
        assert!(chosen(&nested, None).unwrap_err().contains("checkpoint.model, checkpoint.ema"));
        assert_eq!(chosen(&nested, Some("checkpoint.ema")).unwrap(), "");
    }

    #[test]
    fn an_only_state_dict_is_taken_whatever_its_key() {
        for key in ["state_dict", "ema", "student"] {
            assert_eq!(chosen(&Dict(vec![(key, weights())]), None).unwrap(), "");
        }
        // An optimiser's state of a parameter is no network.
        let state = Dict(vec![("exp_avg", Tensor)]);
        let optimizer = Dict(vec![("layer1.0.conv1.weight", state)]);
        let both = Dict(vec![("optimizer", optimizer), ("params", weights())]);
        assert_eq!(chosen(&both, None).unwrap(), "");
    }

    #[test]
    fn a_dict_that_is_met_first_too_deep_is_found_nearer_to_the_top() {
        // {"a": {"b": {"c": {"d": D}}}, "x": D}
        let mut bytes = b"\x80\x02}U\x01a}U\x01b}U\x01c}U\x01d".to_vec();
        write(&weights(), &mut bytes);
        bytes.extend(b"q\x00ssssU\x01xh\x00s.");
        let pickle = Pickle::read(&bytes).unwrap();
        let found = find(&pickle, None).unwrap();
        assert!(
            matches!(pickle.value(found.index), PickleValue::Dict(entries) if entries.len() == 1)
        );
        assert_eq!(find(&pickle, Some("x")).unwrap().index, found.index);
    }

    #[test]
    fn a_dict_that_is_referred_to_countless_times_costs_no_more_than_its_references() {
        // A key of a megabyte, for one dict, a million times.
        let mut bytes = b"\x80\x02}(X\x00\x00\x10\x00".to_vec();
        bytes.extend(vec![b'k'; 1 << 20]);
        bytes.extend(b"q\x00");
        write(&weights(), &mut bytes);
        bytes.extend(b"q\x01");
        bytes.extend(b"h\x00h\x01".repeat(1_000_000));
        bytes.extend(b"u.");
        let pickle = Pickle::read(&bytes).unwrap();
        assert_eq!(candidates(&pickle).len(), 1);
    }

    #[test]
    fn two_unusual_keys_are_told_and_none_is_chosen() {
        let both = Dict(vec![("student", weights()), ("teacher", weights())]);
        let error = chosen(&both, None).unwrap_err();
        assert!(error.contains("student, teacher; choose one"), "{error}");
        assert_eq!(chosen(&both, Some("teacher")).unwrap(), "");
    }
}
