//! Reads a list of keys, from a file or standard input, as a stream of images.
//!
//! [`list_lines`](crate::images::list_lines) reads a single line.

use std::io::ErrorKind;

use camshaft_common::key::ImageKeyError;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::mpsc;

use crate::images::found_image::FoundImage;

use crate::images::list_lines::{LineError, ListLines, MAX_LINE_BYTES};

/// Why a list can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ListFileError {
    /// The file can't be read.
    #[error("cannot read the list {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line has a key that is longer than that of any image.
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
    /// A line is not CSV.
    #[error("the list {path} is not CSV like its header: {source}; correct it and start again")]
    Csv {
        /// The file.
        path: String,
        /// Where and why.
        #[source]
        source: csv::Error,
    },
    /// A line is longer than any key with its label. Most often the file is no list at all.
    #[error(
        "the list {path}, line {line}: it has more than {MAX_LINE_BYTES} bytes; write one key a \
         line and start again"
    )]
    LineTooLong {
        /// The file.
        path: String,
        /// Counted from 1.
        line: u64,
    },
}

impl ListFileError {
    fn of_line(path: &str, line: u64, error: LineError) -> Self {
        let path = path.to_owned();
        match error {
            LineError::Key(source) => Self::Key { path, line, source },
            LineError::Csv(source) => Self::Csv { path, source },
            LineError::TooLong => Self::LineTooLong { path, line },
        }
    }
}

type Item = Result<FoundImage, ListFileError>;

/// Reads a list (`-`: standard input), as a stream.
pub(crate) fn read(path: String) -> BoxStream<'static, Item> {
    let (sender, receiver) = mpsc::channel(1024);
    tokio::spawn(async move {
        if let Err(error) = read_to(&path, &sender).await {
            // Fails if the stream was dropped: then nobody needs the error.
            sender.send(Err(error)).await.unwrap_or_default();
        }
    });
    stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    })
    .boxed()
}

async fn read_to(path: &str, sender: &mpsc::Sender<Item>) -> Result<(), ListFileError> {
    let read_error = |source| ListFileError::Read { path: path.to_owned(), source };
    let mut lines: Box<dyn AsyncBufRead + Send + Unpin> = if path == "-" {
        Box::new(BufReader::new(tokio::io::stdin()))
    } else {
        Box::new(BufReader::new(tokio::fs::File::open(path).await.map_err(read_error)?))
    };
    let mut list = ListLines::default();
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        // A file without line ends may have any size: read no more than a line may have.
        let mut bounded = (&mut lines).take(MAX_LINE_BYTES as u64 + 1);
        if bounded.read_until(b'\n', &mut line).await.map_err(read_error)? == 0 {
            return Ok(());
        }
        number += 1;
        if line.len() > MAX_LINE_BYTES {
            return Err(ListFileError::of_line(path, number, LineError::TooLong));
        }
        let text = str::from_utf8(&line)
            .map_err(|error| read_error(std::io::Error::new(ErrorKind::InvalidData, error)))?;
        let read = list.read(text).map_err(|error| ListFileError::of_line(path, number, error))?;
        let Some(image) = read.map(FoundImage::from) else { continue };
        if sender.send(Ok(image)).await.is_err() {
            return Ok(());
        }
    }
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
    async fn a_key_that_no_image_can_have_ends_nothing() {
        assert_eq!(
            list("a.jpg\n../b.jpg\nc//d\t.jpg\n%=x%0A.jpg\n").await.unwrap(),
            ["a.jpg", "%=%2E%2E/b.jpg", "c/%=/%=d%09.jpg", "%=x%0A.jpg"]
                .map(|key| (key.to_owned(), None))
        );
        assert_eq!(list("key,label\n,cat\n").await.unwrap(), [("%=".into(), Some("cat".into()))]);
    }

    #[tokio::test]
    async fn a_line_of_any_length_is_not_held() {
        let longest = MAX_LINE_BYTES - "a.jpg,\n".len();
        let label = "x".repeat(longest);
        let images = list(&format!("key,label\na.jpg,{label}\n")).await.unwrap();
        assert_eq!(images[0].1.as_ref(), Some(&label));
        let error = list(&format!("key,label\na.jpg,{label}x\n")).await.unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("one key a line"), "{error}");
        // The longest line may end within a character: the error is the same.
        let error = list(&"é".repeat(MAX_LINE_BYTES)).await.unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("one key a line"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_list_is_an_error() {
        let images = read("/no/such/list".to_owned());
        assert!(images.try_collect::<Vec<_>>().await.is_err());
    }
}
