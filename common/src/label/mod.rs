//! Which of a model's classes a label means.
//!
//! A label is what a folder or a list calls a class; a model has names of its own. Owns the rules by
//! which the two are matched, in this order: the name as it is, the name in other spelling
//! ([`fold`]), a further name such as a WordNet id, the class index, a synonym. The first rule that
//! finds a class decides. A label that two classes could mean is not matched. Upstream: the names in a
//! model's configuration, or in results. Downstream: the worker, the report, `--label-map`.

mod folded;
mod wordnet;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

pub use folded::fold;
pub use wordnet::is_wordnet_id;

/// Why a label means none of the model's classes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error,
)]
#[serde(rename_all = "kebab-case")]
pub enum LabelProblem {
    /// No class has this name, number or WordNet id.
    #[error("is none of the model's classes")]
    Unknown,
    /// Several classes have it.
    #[error("could be several of the model's classes")]
    Ambiguous,
}

/// A class of a model.
#[derive(Clone, Copy, Debug)]
pub struct NamedClass<'a> {
    /// Class index.
    pub index: usize,
    /// Class name. It may list synonyms, separated by commas: `tabby, tabby cat`.
    pub name: &'a str,
    /// Further names, such as a WordNet id.
    pub aliases: &'a [String],
}

/// Finds the classes that labels mean.
#[derive(Clone, Debug, Default)]
pub struct LabelMatcher {
    names: ClassesByText,
    folded_names: ClassesByText,
    /// Folded aliases.
    aliases: ClassesByText,
    /// By WordNet id.
    wordnet: ClassesByText,
    /// Names without WordNet ids, and their parts between commas, folded.
    synonyms: ClassesByText,
    /// By class index.
    classes: HashMap<usize, KnownClass>,
    /// Two classes or more are called by a number. A number is then a name, never an index.
    numbers_are_names: bool,
}

#[derive(Clone, Debug)]
struct KnownClass {
    name: String,
    wordnet_id: Option<String>,
}

impl LabelMatcher {
    /// A matcher for these classes. They may be some of a model's, as results name them.
    #[must_use]
    pub fn new<'a>(classes: impl IntoIterator<Item = NamedClass<'a>>) -> Self {
        let mut matcher = Self::default();
        let mut numbers = 0;
        for class in classes {
            matcher.add(class);
            numbers += usize::from(is_number(class.name));
        }
        matcher.numbers_are_names = numbers > 1;
        matcher
    }

    fn add(&mut self, class: NamedClass<'_>) {
        let NamedClass { index, name, aliases } = class;
        let folded = fold(name);
        let (mut id, without_id) = wordnet::split(&folded);
        self.names.add(name.to_owned(), index);
        // Without its id, `n02123045 tabby` is `tabby`.
        for synonym in without_id.split(',').chain([without_id.as_str()]) {
            self.synonyms.add(synonym.trim().to_owned(), index);
        }
        for alias in aliases {
            let alias = fold(alias);
            id = id.or_else(|| is_wordnet_id(&alias).then(|| alias.clone()));
            self.aliases.add(alias, index);
        }
        self.folded_names.add(folded, index);
        if let Some(id) = &id {
            self.wordnet.add(id.clone(), index);
        }
        self.classes.insert(index, KnownClass { name: name.to_owned(), wordnet_id: id });
    }

    /// The index of the class that a label means.
    ///
    /// # Errors
    /// If the label means no class, or could mean several.
    ///
    /// ```
    /// use camshaft_common::label::{LabelMatcher, LabelProblem, NamedClass};
    ///
    /// let names = ["Egyptian cat", "tabby, tabby cat"];
    /// let classes = names.iter().enumerate();
    /// let matcher = LabelMatcher::new(classes.map(|(index, &name)| NamedClass { index, name, aliases: &[] }));
    /// assert_eq!(matcher.find("egyptian_cat"), Ok(0));
    /// assert_eq!(matcher.find("Tabby"), Ok(1));
    /// assert_eq!(matcher.find("1"), Ok(1));
    /// assert_eq!(matcher.find("dog"), Err(LabelProblem::Unknown));
    /// ```
    pub fn find(&self, label: &str) -> Result<usize, LabelProblem> {
        // Most labels are names as they are.
        if let Some(found) = self.names.get(label) {
            return found;
        }
        let folded = fold(label);
        let found = self
            .folded_names
            .get(&folded)
            .or_else(|| self.aliases.get(&folded))
            .or_else(|| self.by_wordnet_id(&folded))
            .or_else(|| self.by_index(label.trim()))
            .or_else(|| self.synonyms.get(&folded));
        found.unwrap_or(Err(LabelProblem::Unknown))
    }

    /// The name of a class.
    #[must_use]
    pub fn name(&self, class: usize) -> Option<&str> {
        self.classes.get(&class).map(|class| &*class.name)
    }

    /// A label that means this class and no other: its name, or else its index. `None` if there is
    /// no such label, because another class has both.
    #[must_use]
    pub fn label_of(&self, class: usize) -> Option<String> {
        let labels = [self.name(class)?.to_owned(), class.to_string()];
        labels.into_iter().find(|label| self.find(label) == Ok(class))
    }

    /// A label with a WordNet id, perhaps with words as well: `n02123045-tabby`. Both must agree, if
    /// the model knows both.
    fn by_wordnet_id(&self, folded: &str) -> Option<Result<usize, LabelProblem>> {
        let (id, words) = wordnet::split(folded);
        let id = id?;
        let by_id = self.wordnet.get(&id);
        let by_words = self.folded_names.get(&words).or_else(|| self.synonyms.get(&words));
        match (by_id, by_words) {
            (Some(Ok(class)), Some(Ok(other))) if class != other => {
                Some(Err(LabelProblem::Ambiguous))
            }
            (Some(found), _) => Some(found),
            // The id is not that of the class that has the words for its name.
            (None, Some(Ok(class))) if self.has_wordnet_id(class) => {
                Some(Err(LabelProblem::Unknown))
            }
            (None, found) => found,
        }
    }

    fn has_wordnet_id(&self, class: usize) -> bool {
        self.classes.get(&class).is_some_and(|class| class.wordnet_id.is_some())
    }

    fn by_index(&self, label: &str) -> Option<Result<usize, LabelProblem>> {
        // Programs that read tables take a column of numbers with gaps for fractions, and write 281.0.
        let label = label.strip_suffix(".0").unwrap_or(label);
        if self.numbers_are_names || !is_number(label) {
            return None;
        }
        let index = label.parse().ok().filter(|index| self.classes.contains_key(index));
        index.map(Ok)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The classes that have a text for a name; `None` if several have it.
#[derive(Clone, Debug, Default)]
struct ClassesByText(HashMap<String, Option<usize>>);

impl ClassesByText {
    fn add(&mut self, text: String, class: usize) {
        if text.is_empty() {
            return;
        }
        let known = self.0.entry(text).or_insert(Some(class));
        if *known != Some(class) {
            *known = None;
        }
    }

    fn get(&self, text: &str) -> Option<Result<usize, LabelProblem>> {
        self.0.get(text).map(|class| class.ok_or(LabelProblem::Ambiguous))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: Result<usize, LabelProblem> = Err(LabelProblem::Unknown);
    const AMBIGUOUS: Result<usize, LabelProblem> = Err(LabelProblem::Ambiguous);

    fn matcher(names: &[&str]) -> LabelMatcher {
        let classes = names.iter().enumerate();
        LabelMatcher::new(classes.map(|(index, name)| NamedClass { index, name, aliases: &[] }))
    }

    fn check(matcher: &LabelMatcher, expected: &[(&str, Result<usize, LabelProblem>)]) {
        for (label, class) in expected {
            assert_eq!(matcher.find(label), *class, "{label}");
        }
    }

    #[test]
    fn case_and_separators_do_not_matter() {
        let pets = matcher(&["cat", "Great Dane", "Straße", "bull-mastiff", "été"]);
        check(
            &pets,
            &[
                ("cat", Ok(0)),
                ("Cat", Ok(0)),
                ("CAT ", Ok(0)),
                ("great_dane", Ok(1)),
                ("GREAT-DANE", Ok(1)),
                ("great  dane", Ok(1)),
                ("greatdane", UNKNOWN),
                ("STRASSE", Ok(2)),
                ("Bull Mastiff", Ok(3)),
                // As macOS writes the names of files.
                ("E\u{301}te\u{301}", Ok(4)),
                ("cats", UNKNOWN),
                ("", UNKNOWN),
                ("-", UNKNOWN),
            ],
        );
    }

    #[test]
    fn a_name_that_two_classes_have_is_not_guessed_and_the_exact_one_wins() {
        let cranes = matcher(&["crane", "crane", "Polish", "polish"]);
        check(
            &cranes,
            &[("crane", AMBIGUOUS), ("Crane", AMBIGUOUS), ("polish", Ok(3)), ("POLISH", AMBIGUOUS)],
        );
    }

    #[test]
    fn every_class_has_a_label_of_its_own_if_there_can_be_one() {
        let names = matcher(&["cat", "crane", "crane"]);
        let labels = [0, 1, 2, 3].map(|class| names.label_of(class));
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(labels, [text("cat"), text("1"), text("2"), None]);
        assert_eq!(matcher(&["a", "a", "0"]).label_of(0), None, "another class is called 0");
    }

    #[test]
    fn digits_are_an_index_unless_classes_are_numbers() {
        check(
            &matcher(&["cat", "dog"]),
            &[
                ("0", Ok(0)),
                ("1", Ok(1)),
                ("01", Ok(1)),
                ("2", UNKNOWN),
                ("-1", UNKNOWN),
                ("1.0", Ok(1)),
                ("1.5", UNKNOWN),
            ],
        );
        check(&matcher(&["cat", "0"]), &[("0", Ok(1)), ("1", Ok(1))]);
        let digits = matcher(&["1", "2", "3"]);
        check(&digits, &[("1", Ok(0)), ("0", UNKNOWN), ("3", Ok(2))]);
        check(&matcher(&["-1", "0", "1"]), &[("-1", Ok(0)), ("1", Ok(2))]);
    }

    #[test]
    fn any_synonym_that_only_one_class_has_will_do() {
        let classes = matcher(&[
            "tabby, tabby cat",
            "crane",
            "maillot",
            "maillot, tank suit",
            "bird, crane",
            "cock,rooster",
        ]);
        check(
            &classes,
            &[
                ("tabby", Ok(0)),
                ("Tabby_Cat", Ok(0)),
                ("tabby,tabby_cat", Ok(0)),
                ("crane", Ok(1)),
                ("maillot", Ok(2)),
                ("tank suit", Ok(3)),
                ("rooster", Ok(5)),
                ("cat", UNKNOWN),
            ],
        );
        let cats = matcher(&["tabby, cat", "siamese, cat"]);
        check(&cats, &[("cat", AMBIGUOUS), ("siamese", Ok(1))]);
    }

    #[test]
    fn wordnet_ids_are_found_in_aliases_and_names() {
        let ids = ["n02123045".to_owned(), "n02123159".to_owned()];
        let names = ["tabby, tabby cat", "tiger cat"];
        let classes = names.iter().zip(&ids).enumerate();
        let classes = LabelMatcher::new(classes.map(|(index, (name, id))| NamedClass {
            index,
            name,
            aliases: std::slice::from_ref(id),
        }));
        let named = matcher(&["n02123045 tabby, tabby cat", "n02123159 tiger cat"]);
        for matcher in [classes, named] {
            check(
                &matcher,
                &[
                    ("n02123045", Ok(0)),
                    ("N02123159", Ok(1)),
                    ("n02123045-tabby", Ok(0)),
                    ("n02123045 some cat", Ok(0)),
                    ("tiger cat", Ok(1)),
                    ("tabby cat", Ok(0)),
                    ("n02123045-tiger_cat", AMBIGUOUS),
                    ("n00000001", UNKNOWN),
                    ("n00000001-tiger_cat", UNKNOWN),
                    ("n0212304", UNKNOWN),
                ],
            );
        }
        // The model has no ids: the words of the folder name will do.
        check(&matcher(&["Chihuahua"]), &[("n02085620-Chihuahua", Ok(0)), ("n02085620", UNKNOWN)]);
    }

    #[test]
    fn aliases_are_names() {
        let aliases = ["0001".to_owned(), "felis catus".to_owned()];
        let cat = NamedClass { index: 7, name: "cat", aliases: &aliases };
        let matcher = LabelMatcher::new([cat]);
        check(
            &matcher,
            &[
                ("0001", Ok(7)),
                ("Felis_catus", Ok(7)),
                ("7", Ok(7)),
                ("0", UNKNOWN),
                ("cat", Ok(7)),
            ],
        );
    }
}
