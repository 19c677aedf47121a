//! WordNet ids in labels and class names: `n` and eight digits, as ImageNet's folders are called.

/// True for a WordNet id such as `n02123045`.
#[must_use]
pub fn is_wordnet_id(text: &str) -> bool {
    text.len() == 9
        && text.starts_with('n')
        && text.bytes().skip(1).all(|byte| byte.is_ascii_digit())
}

/// The WordNet id in a folded text, and the text without it. `None` if there is none, or if there are
/// several.
pub(super) fn split(folded: &str) -> (Option<String>, String) {
    let bare = |word: &str| word.trim_matches(|letter: char| !letter.is_alphanumeric()).to_owned();
    let words = folded.split_inclusive([' ', ',', ':']);
    let ids: Vec<_> = words.clone().map(bare).filter(|word| is_wordnet_id(word)).collect();
    let [id] = &ids[..] else { return (None, folded.to_owned()) };
    let rest: String = words.filter(|word| bare(word) != *id).collect();
    let rest = rest.trim_matches(|letter: char| matches!(letter, ' ' | ',' | ':')).to_owned();
    (Some(id.clone()), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_among_words() {
        for (text, id, rest) in [
            ("n02123045", Some("n02123045"), ""),
            ("n02123045 tabby,tabby cat", Some("n02123045"), "tabby,tabby cat"),
            ("n02123045: tabby", Some("n02123045"), "tabby"),
            ("tabby (n02123045)", Some("n02123045"), "tabby"),
            ("tabby", None, "tabby"),
            ("n02123045 n02123159", None, "n02123045 n02123159"),
        ] {
            assert_eq!(split(text), (id.map(str::to_owned), rest.to_owned()), "{text}");
        }
    }
}
