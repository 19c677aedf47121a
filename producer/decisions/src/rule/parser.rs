//! Reads a rule.
//!
//! ```text
//! rule      = and { "or" and }
//! and       = part { "and" part }
//! part      = "not" part | "(" rule ")" | condition | word
//! condition = field operator value
//! operator  = "=" | "!=" | ">" | ">=" | "<" | "<=" | "~"
//! ```
//!
//! Pure. Every text is either read or refused with the place where it is wrong.

use camshaft_common::printable::shortened;

use super::{Condition, Expression, NumberField, NumberOperator, RuleError, TextField, WORDS};

/// How deep brackets may be nested: each level takes some of the stack.
const MAX_DEPTH: usize = 50;
/// The longest rule, in characters. It goes into every decision that it makes.
const MAX_CHARACTERS: usize = 2000;
/// Characters that are shown of what is wrong.
const SHOWN: usize = 30;
/// How alike a word and a known one must be to be taken for a slip.
const LEAST_SIMILARITY: f64 = 0.75;

pub(super) fn parse(text: &str) -> Result<Expression, RuleError> {
    let length = text.chars().count();
    if length > MAX_CHARACTERS {
        let found = format!("the rule has {length} characters");
        let allowed = format!("use at most {MAX_CHARACTERS}, or several rules");
        return Err(RuleError { character: MAX_CHARACTERS + 1, found, allowed });
    }
    let mut parser = Parser { text, tokens: tokens(text)?, at: 0 };
    let expression = parser.rule(0)?;
    match parser.tokens.get(parser.at) {
        None => Ok(expression),
        Some(_) => Err(parser.wrong("and, or, or the end of the rule is allowed here")),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Operator(&'static str),
    /// `and`, a word, a field or a value.
    Bare(String),
    /// A value in quotes.
    Quoted(String),
}

/// The longer ones first.
const OPERATORS: [&str; 7] = ["!=", ">=", "<=", "=", ">", "<", "~"];

/// The tokens with where each begins, in bytes.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, RuleError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator));
        let (token, length) = match (first, operator) {
            (space, _) if space.is_whitespace() => {
                at += space.len_utf8();
                continue;
            }
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Close, 1),
            (_, Some(operator)) => (Token::Operator(operator), operator.len()),
            ('\'' | '"', _) => {
                let inside = &rest[1..];
                let Some(end) = inside.find(first) else {
                    let allowed = format!("close the quote with {first}");
                    return Err(error_at(text, at, &allowed));
                };
                (Token::Quoted(inside[..end].to_owned()), end + 2)
            }
            // Alone it is no operator.
            ('!', None) => return Err(error_at(text, at, "use not, or != to compare")),
            _ => {
                let ends = |c: char| c.is_whitespace() || "()'\"=!<>~".contains(c);
                let end = rest.find(ends).unwrap_or(rest.len());
                (Token::Bare(rest[..end].to_owned()), end)
            }
        };
        tokens.push((at, token));
        at += length;
    }
    Ok(tokens)
}

/// The error at a byte of the text.
fn error_at(text: &str, at: usize, allowed: &str) -> RuleError {
    let character = text[..at].chars().count() + 1;
    let found = match text[at..].trim() {
        "" => "the end of the rule".to_owned(),
        rest => format!("{:?}", shortened(rest, SHOWN)),
    };
    RuleError { character, found, allowed: allowed.to_owned() }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    at: usize,
}

impl Parser<'_> {
    fn rule(&mut self, depth: usize) -> Result<Expression, RuleError> {
        let mut parts = vec![self.and(depth)?];
        while self.takes("or") {
            parts.push(self.and(depth)?);
        }
        Ok(one_or(parts, Expression::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Expression, RuleError> {
        let mut parts = Vec::new();
        loop {
            match self.part(depth)? {
                // Brackets in a chain of `and` change nothing.
                Expression::And(inner) => parts.extend(inner),
                part => parts.push(part),
            }
            if !self.takes("and") {
                return Ok(one_or(parts, Expression::And));
            }
        }
    }

    fn part(&mut self, depth: usize) -> Result<Expression, RuleError> {
        if depth >= MAX_DEPTH {
            return Err(
                self.wrong(&format!("use at most {MAX_DEPTH} brackets and nots in another"))
            );
        }
        if self.takes("not") {
            return Ok(Expression::Not(Box::new(self.part(depth + 1)?)));
        }
        match self.tokens.get(self.at).map(|(_, token)| token.clone()) {
            Some(Token::Open) => {
                self.at += 1;
                let inner = self.rule(depth + 1)?;
                match self.tokens.get(self.at) {
                    Some((_, Token::Close)) => self.at += 1,
                    _ => return Err(self.wrong("and, or, or ) is allowed here")),
                }
                Ok(inner)
            }
            Some(Token::Bare(name)) => {
                if matches!(self.tokens.get(self.at + 1), Some((_, Token::Operator(_)))) {
                    return self.condition(&name).map(Expression::Condition);
                }
                let word = WORDS.into_iter().find(|word| *word == name);
                let word = word.ok_or_else(|| self.unknown(&name))?;
                self.at += 1;
                Ok(Expression::Word(word))
            }
            _ => Err(self.wrong(
                "a kind or problem of a finding, best, a comparison such as score>0.95, not, or ( is \
                 allowed here",
            )),
        }
    }

    fn condition(&mut self, name: &str) -> Result<Condition, RuleError> {
        let number = NumberField::ALL.into_iter().find(|(known, _)| *known == name);
        let text = TextField::ALL.into_iter().find(|(known, _)| *known == name);
        if number.is_none() && text.is_none() {
            return Err(self.unknown(name));
        }
        self.at += 1;
        let Some((_, Token::Operator(operator))) = self.tokens.get(self.at).cloned() else {
            return Err(self.wrong("an operator is allowed here"));
        };
        if let Some((_, field)) = number {
            let operator = match operator {
                ">" => NumberOperator::Greater,
                ">=" => NumberOperator::AtLeast,
                "<" => NumberOperator::Less,
                "<=" => NumberOperator::AtMost,
                "=" => NumberOperator::Equal,
                "!=" => NumberOperator::Unequal,
                _ => return Err(self.wrong("a number is compared with >, >=, <, <=, = or !=")),
            };
            self.at += 1;
            let value = self.value().and_then(|value| value.parse::<f32>().ok());
            let value = value.filter(|value| value.is_finite());
            let value =
                value.ok_or_else(|| self.wrong("a number is allowed here, such as 0.95"))?;
            self.at += 1;
            return Ok(Condition::Number(field, operator, value));
        }
        let Some((_, field)) = text else { return Err(self.unknown(name)) };
        if operator == "~" && field == TextField::Key {
            self.at += 1;
            let wanted = "a glob of keys is allowed here, such as 'cat/**'";
            let value = self.value().ok_or_else(|| self.wrong(wanted))?;
            let glob = value.parse().map_err(|error| self.wrong(&format!("{wanted}: {error}")))?;
            self.at += 1;
            return Ok(Condition::Key(glob));
        }
        let differs = match operator {
            "=" => false,
            "!=" => true,
            "~" => return Err(self.wrong("~ goes with key only; compare with = or !=")),
            _ => return Err(self.wrong("a text is compared with = or !=, key also with ~")),
        };
        self.at += 1;
        let value = self.value();
        let value = value.ok_or_else(|| {
            self.wrong("a text is allowed here, in quotes if it has spaces or brackets")
        })?;
        self.at += 1;
        Ok(Condition::Text(field, differs, value))
    }

    /// The value that is next.
    fn value(&self) -> Option<String> {
        match self.tokens.get(self.at)? {
            (_, Token::Bare(value) | Token::Quoted(value)) => Some(value.clone()),
            _ => None,
        }
    }

    /// Goes on if the next token is this word.
    fn takes(&mut self, word: &str) -> bool {
        let is_next =
            matches!(self.tokens.get(self.at), Some((_, Token::Bare(next))) if next == word);
        self.at += usize::from(is_next);
        is_next
    }

    fn wrong(&self, allowed: &str) -> RuleError {
        let at = self.tokens.get(self.at).map_or(self.text.len(), |(at, _)| *at);
        error_at(self.text, at, allowed)
    }

    /// The error about a name that is neither a word nor a field.
    fn unknown(&self, name: &str) -> RuleError {
        let fields = || {
            let numbers = NumberField::ALL.into_iter().map(|(name, _)| name);
            numbers.chain(TextField::ALL.into_iter().map(|(name, _)| name))
        };
        let known = WORDS.into_iter().chain(fields()).chain(["and", "or", "not"]);
        let similarity = |known: &str| strsim::jaro_winkler(known, name);
        let nearest = known
            .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
            .filter(|known| similarity(known) >= LEAST_SIMILARITY);
        let is_field = fields().any(|field| field == name);
        let allowed = match nearest {
            _ if is_field => "compare it, such as score>0.95 or label=cat".to_owned(),
            Some(nearest) => format!("that is no word of a rule; do you mean {nearest}?"),
            None => {
                let fields: Vec<_> = fields().collect();
                format!(
                    "that is no word of a rule; words are {}; fields to compare are {}",
                    WORDS.join(", "),
                    fields.join(", ")
                )
            }
        };
        self.wrong(&allowed)
    }
}

/// The only part, or all of them together.
fn one_or(mut parts: Vec<Expression>, all: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            all(parts)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Rule;

    #[test]
    fn rules_of_the_manual_are_read() {
        for text in [
            "label-error",
            "label-error and score>0.95",
            "exact and not conflict",
            "duplicate and not (leak or conflict) and label=cat",
            "(blurred or dark) and split=train",
            "key~'cat/**' and outlier",
            "failure and failure=undecodable",
            "label != \"big dog\" and wrong and probability >= 0.99",
            "best",
            "not not dark",
        ] {
            let rule: Rule = text.parse().unwrap();
            assert_eq!(rule.to_string(), text);
        }
    }

    #[test]
    fn errors_tell_the_place_and_what_is_allowed() {
        for (text, character, parts) in [
            ("", 1, ["the end of the rule", "kind or problem"]),
            ("label-eror", 1, ["\"label-eror\"", "label-error?"]),
            ("zzz", 1, ["\"zzz\"", "words are label-error"]),
            ("label-error score>1", 13, ["\"score>1\"", "and, or"]),
            ("label-error and", 16, ["the end", "allowed here"]),
            ("(dark or grey", 14, ["the end", "or )"]),
            ("score>high", 7, ["\"high\"", "a number"]),
            ("score>NaN", 7, ["\"NaN\"", "a number"]),
            ("score~0.5", 6, ["\"~0.5\"", "compared with"]),
            ("score", 1, ["\"score\"", "compare it"]),
            ("label>cat", 6, ["\">cat\"", "= or !="]),
            ("label~'c*'", 6, ["key only", "= or !="]),
            ("label='cat", 7, ["\"'cat\"", "close the quote"]),
            ("key~'['", 5, ["\"'['\"", "glob"]),
            ("!dark", 1, ["\"!dark\"", "use not"]),
            ("猫 and dark", 1, ["\"猫 and dark\"", "no word"]),
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert_eq!(error.character, character, "{text}: {error}");
            let error = error.to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
        let deep = "(".repeat(1000) + "dark" + &")".repeat(999);
        assert!(deep.parse::<Rule>().unwrap_err().to_string().contains("at most"));
        let long = "not ".repeat(400) + "dark";
        assert!(long.parse::<Rule>().unwrap_err().to_string().contains("at most"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
            if let Err(error) = text.parse::<Rule>() {
                prop_assert!(error.character <= text.chars().count() + 1);
            }
        }

        #[test]
        fn no_words_in_any_order_make_the_parser_panic(
            words in proptest::collection::vec(
                proptest::sample::select(vec![
                    "and", "or", "not", "(", ")", "dark", "best", "score", "label", "key", ">", "=", "~",
                    "!=", "0.5", "'a b'", "'", "猫",
                ]),
                0..20,
            ),
        ) {
            let text = words.join(" ");
            if let Ok(rule) = text.parse::<Rule>() {
                // What is read once is read again.
                prop_assert!(rule.to_string().parse::<Rule>().is_ok());
            }
        }
    }
}
