//! Reads a list, from a file or standard input, as a stream of images.
//!
//! A file is read more than once: first for its format and for keys that it has twice, so that what is
//! wrong with any of its lines is told before the first image is done, then for its images. A pipe
//! can be read once only; its images come as its lines do.
//! [`list_lines`](crate::images::list_lines) reads a single line.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek};
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;

use camshaft_common::location::Location;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;
use tracing::warn;

use crate::images::found_image::FoundImage;
use crate::images::list_columns::{ColumnsError, ListColumns};
use crate::images::list_format::ListFormat;
use crate::images::list_key::KeyBase;
use crate::images::list_lines::{LineError, LineProblem, ListLines, ListedImage, MAX_LINE_BYTES};
use crate::images::list_repetitions::{FirstLines, KeyHasher, OtherLabel, PartOfKeys, Repetitions};

/// Lines at the beginning that tell the format.
const FIRST_LINES: usize = 50;
/// The keys of this much of a list are held at once, to find those that it has twice: at 50 bytes a
/// line ten million, which take 80 MB.
const PART_BYTES: u64 = 512 << 20;

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
        source: io::Error,
    },
    /// It is not known which columns are keys and labels.
    #[error("the list {path} can't be read: {source}")]
    Columns {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: ColumnsError,
    },
    /// A line names no image.
    #[error("the list {path}, {source}; correct it and start again")]
    Line {
        /// The file.
        path: String,
        /// Which line, and why.
        #[source]
        source: LineError,
    },
    /// A line is not text.
    #[error("the list {path}, line {line}: it is not UTF-8 text; save the list as UTF-8")]
    NotText {
        /// The file.
        path: String,
        /// Counted from 1.
        line: u64,
    },
    /// A key has two labels.
    #[error("the list {path}: {source}")]
    OtherLabel {
        /// The file.
        path: String,
        /// Which.
        #[source]
        source: OtherLabel,
    },
    /// A bug.
    #[error("reading the list {path} ended with a panic")]
    Panicked {
        /// The file.
        path: String,
    },
}

/// A list of images.
#[derive(Clone, Debug)]
pub(crate) struct ListFile {
    /// `-`: standard input.
    path: String,
    base: KeyBase,
    columns: ListColumns,
}

type Item = Result<FoundImage, ListFileError>;

/// What the thread that reads tells.
enum Message {
    Image(FoundImage),
    Failed(ListFileError),
    End,
}

impl ListFile {
    /// The list at `path` (`-`: standard input), of images below `base`.
    pub(crate) fn new(path: String, base: &Location, columns: ListColumns) -> Self {
        Self { path, base: KeyBase::new(base), columns }
    }

    /// The path.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// True if it can be read once only.
    pub(crate) fn is_standard_input(&self) -> bool {
        self.path == "-"
    }

    /// Reads the list as a stream. A key that it has twice comes once.
    pub(crate) fn read(&self) -> BoxStream<'static, Item> {
        let (sender, receiver) = mpsc::channel(1024);
        let (list, path) = (self.clone(), self.path.clone());
        // A thread of its own does not keep the program from ending while it waits for standard input.
        thread::spawn(move || {
            let last = match list.send_images(&sender) {
                Ok(()) => Message::End,
                Err(error) => Message::Failed(error),
            };
            // Fails if the stream was dropped: then nobody needs it.
            sender.blocking_send(last).unwrap_or_default();
        });
        let receiver = Some(receiver);
        stream::unfold((receiver, path), |(receiver, path)| async move {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Some(Message::Image(image)) => Some((Ok(image), (Some(receiver), path))),
                Some(Message::Failed(error)) => Some((Err(error), (None, path))),
                Some(Message::End) => None,
                None => Some((Err(ListFileError::Panicked { path: path.clone() }), (None, path))),
            }
        })
        .boxed()
    }

    fn send_images(&self, sender: &mpsc::Sender<Message>) -> Result<(), ListFileError> {
        self.visit_images(|image| {
            let sent = sender.blocking_send(Message::Image(image.into()));
            if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    }

    /// The whole list, as it names its images. A key that it has twice comes once. Blocks.
    #[cfg(feature = "embedded")]
    pub(crate) fn read_whole(&self) -> Result<Vec<ListedImage>, ListFileError> {
        let mut images = Vec::new();
        self.visit_images(|image| {
            images.push(image);
            ControlFlow::Continue(())
        })?;
        Ok(images)
    }

    /// Calls `send` with each image, until it breaks off.
    fn visit_images(
        &self,
        mut send: impl FnMut(ListedImage) -> ControlFlow<()>,
    ) -> Result<(), ListFileError> {
        if self.is_standard_input() {
            return self.send_once(io::stdin().lock(), send);
        }
        let mut file = File::open(&self.path).map_err(|source| self.read_error(source))?;
        let kind = file.metadata().map_err(|source| self.read_error(source))?;
        if kind.is_dir() {
            return Err(self.read_error(ErrorKind::IsADirectory.into()));
        }
        if !kind.is_file() {
            return self.send_once(BufReader::new(file), send);
        }
        let format = self.recognise_file(&mut file)?;
        let mut repetitions = self.find_repetitions(&mut file, &format)?;
        repetitions.forget_lines();
        self.for_each(&mut file, &format, |image| {
            let is_new = repetitions.note(&image).map_err(|source| self.other_label(source))?;
            Ok(if is_new { send(image) } else { ControlFlow::Continue(()) })
        })
    }

    /// Sends the images of a list that can be read once only, as its lines come.
    fn send_once(
        &self,
        reader: impl BufRead,
        mut send: impl FnMut(ListedImage) -> ControlFlow<()>,
    ) -> Result<(), ListFileError> {
        let mut lines = Lines { list: self, reader, line: Vec::new(), number: 0 };
        // Its writer may wait for what becomes of the first lines before it writes more.
        let mut first_lines = String::new();
        while first_lines.trim().is_empty() {
            let Some(line) = lines.next()? else { break };
            first_lines.push_str(line);
        }
        let mut list = ListLines::new(self.recognise(&first_lines)?, self.base.clone());
        let mut seen = FirstLines::default();
        let mut visit =
            |list: &mut ListLines, line: &str| -> Result<ControlFlow<()>, ListFileError> {
                let image = list.read(line).map_err(|source| self.line_error(source))?;
                let Some(image) = image else { return Ok(ControlFlow::Continue(())) };
                let is_new = seen.note(&image).map_err(|source| self.other_label(source))?;
                Ok(if is_new { send(image) } else { ControlFlow::Continue(()) })
            };
        for line in first_lines.split_inclusive('\n') {
            if visit(&mut list, line)?.is_break() {
                return Ok(());
            }
        }
        while let Some(line) = lines.next()? {
            if visit(&mut list, line)?.is_break() {
                return Ok(());
            }
        }
        list.end().map_err(|source| self.line_error(source))
    }

    /// Finds out how a file is written, by its first lines.
    fn recognise_file(&self, file: &mut File) -> Result<ListFormat, ListFileError> {
        let mut lines = self.lines(file)?;
        let mut first_lines = String::new();
        for _ in 0..FIRST_LINES {
            let Some(line) = lines.next()? else { break };
            first_lines.push_str(line);
        }
        self.recognise(&first_lines)
    }

    /// Finds out how the list is written.
    fn recognise(&self, first_lines: &str) -> Result<ListFormat, ListFileError> {
        let extension = Path::new(&self.path).extension().unwrap_or_default();
        let is_json_lines =
            ["jsonl", "ndjson"].iter().any(|known| extension.eq_ignore_ascii_case(known));
        let format = ListFormat::recognise(first_lines, is_json_lines, &self.columns);
        let format =
            format.map_err(|source| ListFileError::Columns { path: self.path.clone(), source })?;
        if let Some(columns) = format.columns_without_labels() {
            warn!(
                list = self.path,
                columns,
                "no column of the list is called as labels are; if one has labels, name it with \
                 --label-column"
            );
        }
        Ok(format)
    }

    /// Reads the whole list, and finds the keys that it has twice.
    fn find_repetitions(
        &self,
        file: &mut File,
        format: &ListFormat,
    ) -> Result<Repetitions, ListFileError> {
        let bytes = file.metadata().map_err(|source| self.read_error(source))?.len();
        let parts = bytes / PART_BYTES + 1;
        let hasher = KeyHasher::default();
        let mut suspected = HashSet::new();
        for part in 0..parts {
            let mut keys = PartOfKeys::new(part, parts);
            self.for_each(file, format, |image| {
                keys.add(hasher.hash(&image));
                Ok(ControlFlow::Continue(()))
            })?;
            suspected.extend(keys.into_repeated());
        }
        let mut repetitions = Repetitions::new(suspected, hasher);
        if !repetitions.is_empty() {
            self.for_each(file, format, |image| {
                repetitions.note(&image).map_err(|source| self.other_label(source))?;
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(repetitions)
    }

    /// Reads the list from its beginning, until `visit` breaks off.
    fn for_each(
        &self,
        file: &mut File,
        format: &ListFormat,
        mut visit: impl FnMut(ListedImage) -> Result<ControlFlow<()>, ListFileError>,
    ) -> Result<(), ListFileError> {
        let mut lines = self.lines(file)?;
        let mut list = ListLines::new(format.clone(), self.base.clone());
        while let Some(line) = lines.next()? {
            let image = list.read(line).map_err(|source| self.line_error(source))?;
            let Some(image) = image else { continue };
            if visit(image)?.is_break() {
                return Ok(());
            }
        }
        list.end().map_err(|source| self.line_error(source))
    }

    fn lines<'a>(
        &'a self,
        file: &'a mut File,
    ) -> Result<Lines<'a, BufReader<&'a mut File>>, ListFileError> {
        file.rewind().map_err(|source| self.read_error(source))?;
        Ok(Lines { list: self, reader: BufReader::new(file), line: Vec::new(), number: 0 })
    }

    fn line_error(&self, source: LineError) -> ListFileError {
        ListFileError::Line { path: self.path.clone(), source }
    }

    fn other_label(&self, source: OtherLabel) -> ListFileError {
        ListFileError::OtherLabel { path: self.path.clone(), source }
    }

    fn read_error(&self, source: io::Error) -> ListFileError {
        ListFileError::Read { path: self.path.clone(), source }
    }
}

/// The lines of a list, with their ends.
struct Lines<'a, R> {
    list: &'a ListFile,
    reader: R,
    line: Vec<u8>,
    /// Lines read so far.
    number: u64,
}

impl<R: BufRead> Lines<'_, R> {
    /// The next line; `None` at the end of the list.
    fn next(&mut self) -> Result<Option<&str>, ListFileError> {
        self.line.clear();
        // A file without line ends may have any size: read no more than a line may have.
        let mut bounded = (&mut self.reader).take(MAX_LINE_BYTES as u64 + 1);
        let read = bounded.read_until(b'\n', &mut self.line);
        if read.map_err(|source| self.list.read_error(source))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let (path, line) = (|| self.list.path.clone(), self.number);
        if self.line.len() > MAX_LINE_BYTES {
            let source = LineError { line, problem: LineProblem::TooLong };
            return Err(ListFileError::Line { path: path(), source });
        }
        match str::from_utf8(&self.line) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(ListFileError::NotText { path: path(), line }),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    async fn list_of(
        content: &[u8],
        columns: ListColumns,
    ) -> Result<Vec<(String, Option<String>)>, ListFileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let images = ListFile::new(path, &"/data".parse().unwrap(), columns).read();
        images.map_ok(|image| (image.key.to_string(), image.label)).try_collect().await
    }

    async fn list(content: &str) -> Result<Vec<(String, Option<String>)>, ListFileError> {
        list_of(content.as_bytes(), ListColumns::default()).await
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
    }

    #[tokio::test]
    async fn a_record_without_a_key_is_named_by_its_line() {
        for content in ["key,label\na.jpg,cat\n,cat\n", "key\na.jpg\n\"\"\n"] {
            let error = list(content).await.unwrap_err().to_string();
            assert!(error.contains("line 3: it has no key"), "{error}");
        }
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
    async fn a_missing_list_and_a_folder_are_errors() {
        for path in ["/no/such/list", "/"] {
            let list =
                ListFile::new(path.into(), &"/data".parse().unwrap(), ListColumns::default());
            assert!(list.read().try_collect::<Vec<_>>().await.is_err(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_key_comes_once_and_with_one_label() {
        let images = list("key,label\na.jpg,cat\nb.jpg,dog\n./a.jpg,cat\n").await.unwrap();
        assert_eq!(images.len(), 2);
        let images = list("b.jpg\na.jpg\nb.jpg\nb.jpg\n").await.unwrap();
        assert_eq!(images, [("b.jpg".into(), None), ("a.jpg".into(), None)]);
        let error = list("key,label\na.jpg,cat\nb.jpg,dog\n/data/a.jpg,dog\n").await.unwrap_err();
        assert!(error.to_string().contains("lines 2 and 4"), "{error}");
    }

    #[tokio::test]
    async fn what_is_wrong_with_any_line_is_told_before_the_first_image() {
        let mut content = "key,label\n".to_owned();
        (0..100).for_each(|at| content.push_str(&format!("{at}.jpg,cat\n")));
        content.push_str("a.jpg,\"cat\n");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let list = ListFile::new(path, &"/data".parse().unwrap(), ListColumns::default());
        let error = list.read().try_next().await.unwrap_err().to_string();
        assert!(error.contains("line 102") && error.contains("not closed"), "{error}");
    }

    #[tokio::test]
    async fn text_of_another_encoding_is_refused() {
        let utf_16: Vec<u8> = "key,label\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let content = [&b"\xff\xfe"[..], &utf_16].concat();
        let error = list_of(&content, ListColumns::default()).await.unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("UTF-8"), "{error}");
    }

    #[tokio::test]
    async fn the_images_of_a_pipe_come_before_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("list");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let path = pipe.to_str().unwrap().to_owned();
        let list = ListFile::new(path, &"/data".parse().unwrap(), ListColumns::default());
        let mut images = list.read();
        let mut writer = std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
        let mut write = |text: &str| io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
        for (text, key, label) in [
            ("key;label\na.jpg;cat\n", "a.jpg", "cat"),
            ("a.jpg;cat\n\"b.jpg\";dog\n", "b.jpg", "dog"),
        ] {
            write(text);
            let image = images.try_next().await.unwrap().unwrap();
            assert_eq!((image.key.as_str(), image.label.as_deref()), (key, Some(label)));
        }
        write("b.jpg;cat\n");
        let error = images.try_next().await.unwrap_err().to_string();
        assert!(error.contains("lines 4 and 5"), "{error}");
    }
}
