//! Splits a record of a list into its fields: RFC 4180, with any delimiter, and with spaces around
//! fields taken off.

/// Why a record can't be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// A quote is still open at the end. The field may go on in the next line.
    #[error("a quote is not closed")]
    OpenQuote,
    /// Something follows a closing quote that is no delimiter.
    #[error("text follows a closing quote; write a quote inside quotes twice")]
    TextAfterQuote,
}

/// The fields of a record, which may have line ends inside quotes. Without a delimiter it is one
/// field.
///
/// # Errors
/// If quotes are not as they have to be.
pub(crate) fn split(record: &str, delimiter: Option<char>) -> Result<Vec<String>, FieldsError> {
    if !record.contains('"') {
        return Ok(match delimiter {
            Some(delimiter) => {
                record.split(delimiter).map(|field| field.trim().to_owned()).collect()
            }
            None => vec![record.trim().to_owned()],
        });
    }
    let mut fields = Vec::new();
    let mut rest = record;
    loop {
        let (field, after) = match skip_spaces(rest, delimiter).strip_prefix('"') {
            Some(quoted) => read_quoted(quoted, delimiter)?,
            None => match delimiter.and_then(|delimiter| rest.find(delimiter)) {
                Some(end) => (rest[..end].trim().to_owned(), &rest[end..]),
                None => (rest.trim().to_owned(), ""),
            },
        };
        fields.push(field);
        let next = delimiter.and_then(|delimiter| after.strip_prefix(delimiter));
        let Some(next) = next else { return Ok(fields) };
        rest = next;
    }
}

/// A field behind its opening quote, and what follows its closing quote: the end, or a delimiter.
fn read_quoted(text: &str, delimiter: Option<char>) -> Result<(String, &str), FieldsError> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or(FieldsError::OpenQuote)?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        let Some(more) = rest.strip_prefix('"') else { break };
        field.push('"');
        rest = more;
    }
    let after = skip_spaces(rest, delimiter);
    let ends = after.is_empty() || delimiter.is_some_and(|delimiter| after.starts_with(delimiter));
    if ends { Ok((field.trim().to_owned(), after)) } else { Err(FieldsError::TextAfterQuote) }
}

fn skip_spaces(text: &str, delimiter: Option<char>) -> &str {
    text.trim_start_matches(|letter: char| letter.is_whitespace() && Some(letter) != delimiter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_trimmed_and_quotes_taken_off() {
        for (record, delimiter, fields) in [
            ("a.jpg, cat ,", Some(','), &["a.jpg", "cat", ""][..]),
            (r#""b,1.jpg", "big ""dog""" ,x"#, Some(','), &["b,1.jpg", "big \"dog\"", "x"]),
            ("a b.jpg;5\" disk", Some(';'), &["a b.jpg", "5\" disk"]),
            ("a\t\"b\tc\"\t", Some('\t'), &["a", "b\tc", ""]),
            ("\"two\nlines\",x", Some(','), &["two\nlines", "x"]),
            (" a, b.jpg ", None, &["a, b.jpg"]),
            ("\"a, b.jpg\"", None, &["a, b.jpg"]),
            ("", Some(','), &[""]),
        ] {
            assert_eq!(split(record, delimiter).unwrap(), fields, "{record:?}");
        }
    }

    #[test]
    fn quotes_that_do_not_match_are_errors() {
        assert_eq!(split("\"a,b", Some(',')), Err(FieldsError::OpenQuote));
        assert_eq!(split("a,\"b\"\"", Some(',')), Err(FieldsError::OpenQuote));
        assert_eq!(split("\"a\"b,c", Some(',')), Err(FieldsError::TextAfterQuote));
    }
}
