//! List files: one key a line, or CSV with a header that has `key` and perhaps `label`.

use camshaft_common::key::{ImageKey, ImageKeyError};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

use crate::source::FoundImage;

/// Why a list can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListFileError {
    /// The file can't be read.
    #[error("cannot read the list {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line has no key.
    #[error("the list {path}, line {line}: {source}; correct it and start again")]
    Key {
        /// The file.
        path: String,
        /// Counted from 1.
        line: u64,
        /// Why.
        #[source]
        source: ImageKeyError,
    },
    /// A line is no CSV, or has another number of fields than the header.
    #[error("the list {path} is not CSV like its header: {source}; correct it and start again")]
    Csv {
        /// The file.
        path: String,
        /// Where and why.
        #[source]
        source: csv::Error,
    },
}

type Item = Result<FoundImage, ListFileError>;

/// Reads a list (`-`: standard input), as a stream.
pub(crate) fn read(path: String) -> BoxStream<'static, Item> {
    let (sender, receiver) = mpsc::channel(1024);
    tokio::spawn(async move {
        if let Err(error) = read_to(&path, &sender).await {
            // Whoever dropped the stream has no use for the error.
            sender.send(Err(error)).await.unwrap_or_default();
        }
    });
    stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    })
    .boxed()
}

async fn read_to(path: &str, sender: &mpsc::Sender<Item>) -> Result<(), ListFileError> {
    let failed = |source| ListFileError::Read { path: path.to_owned(), source };
    let mut lines: Box<dyn AsyncBufRead + Send + Unpin> = if path == "-" {
        Box::new(BufReader::new(tokio::io::stdin()))
    } else {
        Box::new(BufReader::new(tokio::fs::File::open(path).await.map_err(failed)?))
    };
    let mut header = Header::default();
    let mut line = String::new();
    let mut number = 0;
    loop {
        line.clear();
        if lines.read_line(&mut line).await.map_err(failed)? == 0 {
            return Ok(());
        }
        number += 1;
        let text = line.trim_end_matches(['\n', '\r']);
        let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { text };
        if text.trim().is_empty() || (number == 1 && header.read(text)) {
            continue;
        }
        let (key, label) = header
            .fields(text)
            .map_err(|source| ListFileError::Csv { path: path.to_owned(), source })?;
        let key = ImageKey::parse(key).map_err(|source| ListFileError::Key {
            path: path.to_owned(),
            line: number,
            source,
        })?;
        let image = FoundImage { key, etag: None, size_bytes: None, last_modified: None, label };
        if sender.send(Ok(image)).await.is_err() {
            return Ok(());
        }
    }
}

/// Which columns hold key and label; none where the list is plain lines.
#[derive(Default)]
struct Header {
    columns: Option<(usize, Option<usize>)>,
}

impl Header {
    /// Takes the first line where it is a CSV header with a `key` column.
    fn read(&mut self, text: &str) -> bool {
        let Ok(names) = record(text) else { return false };
        let column = |wanted: &str| names.iter().position(|name| name.trim() == wanted);
        self.columns = column("key").map(|key| (key, column("label")));
        self.columns.is_some()
    }

    fn fields(&self, text: &str) -> Result<(String, Option<String>), csv::Error> {
        let Some((key, label)) = self.columns else {
            return Ok((text.to_owned(), None));
        };
        let fields = record(text)?;
        let field = |column: usize| fields.get(column).map(str::to_owned);
        let label = label.and_then(field).filter(|label| !label.is_empty());
        // A missing key is an empty one, and so refused with its line number.
        Ok((field(key).unwrap_or_default(), label))
    }
}

fn record(line: &str) -> Result<csv::StringRecord, csv::Error> {
    let mut record = csv::StringRecord::new();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    reader.read_record(&mut record)?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    async fn list(content: &str) -> Result<Vec<(String, Option<String>)>, ListFileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let images = read(file.path().to_str().unwrap().to_owned());
        images.map_ok(|image| (image.key.to_string(), image.label)).try_collect().await
    }

    #[tokio::test]
    async fn plain_lines_are_keys_commas_and_all() {
        assert_eq!(
            list("cat/a.jpg\r\n\ndog/b, c.jpg\n").await.unwrap(),
            [("cat/a.jpg".into(), None), ("dog/b, c.jpg".into(), None)]
        );
    }

    #[tokio::test]
    async fn csv_has_keys_and_labels() {
        assert_eq!(
            list("\u{feff}key,label\na.jpg,cat\n\"b,1.jpg\",\"big \"\"dog\"\"\"\nc.jpg,\n")
                .await
                .unwrap(),
            [
                ("a.jpg".into(), Some("cat".into())),
                ("b,1.jpg".into(), Some("big \"dog\"".into())),
                ("c.jpg".into(), None)
            ]
        );
        assert_eq!(list("label,key\ncat,a.jpg\n").await.unwrap()[0].0, "a.jpg");
    }

    #[tokio::test]
    async fn a_bad_key_is_named_with_its_line() {
        let error = list("a.jpg\n../b.jpg\n").await.unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("../b.jpg"), "{error}");
        assert!(list("key,label\n,cat\n").await.is_err());
    }

    #[tokio::test]
    async fn a_missing_list_is_an_error() {
        let images = read("/no/such/list".to_owned());
        assert!(images.try_collect::<Vec<_>>().await.is_err());
    }
}
