//! The paths of results under OUT.
//!
//! One key has one place, so that an image that is done twice has one result. Does no I/O.

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use crate::explain::{FusedLayers, Method, OverlayFormat};
use crate::key::{ImageKey, SHORTENED};
use crate::location::Location;

mod owners;

pub use owners::{KeyDigest, ResultOwners};

/// The record of the run.
pub const RUN_FILE: &str = "run.json";
/// The measures of `--trust-sample`.
pub const TRUST_FILE: &str = "trust.json";
/// The proofs of `--prove-shortcuts`.
pub const SHORTCUTS_FILE: &str = "shortcuts.json";
/// Folder of prediction files.
pub const PREDICTIONS: &str = "predictions";
/// Folder of overlays.
pub const OVERLAYS: &str = "overlays";
/// Folder of failure files.
pub const FAILURES: &str = "failures";

/// Folder of the report.
pub const REPORT: &str = "report";
/// The results that the last report could not use: see
/// [`unusable_results`](crate::unusable_results).
pub const UNUSABLE_FILE: &str = "report/unusable.jsonl.gz";
/// Folder of the run's images, by generation: see [`manifest`](crate::manifest).
pub const MANIFEST: &str = "manifest";

/// Folder of the parts of decisions: `decisions/<writer>/<number>.jsonl`.
pub const DECISIONS: &str = "decisions";
/// The decisions of all parts, merged: one row for each image.
pub const DECISIONS_FILE: &str = "decisions.parquet";

const RESULT_SUFFIX: &str = ".json";
/// Hexadecimal digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;

/// Linux's limit on a name (`NAME_MAX`).
const MAX_LOCAL_NAME_BYTES: usize = 255;
/// Linux's limit on a path (`PATH_MAX`, without the NUL).
const MAX_LOCAL_PATH_BYTES: usize = 4095;
/// A local file has a longer name while it is written: `a.json#1`.
const UNFINISHED_SUFFIX_BYTES: usize = 2;
/// The limit of S3 and others on a key.
const MAX_OBJECT_KEY_BYTES: usize = 1024;

/// The places of an image's results below one OUT.
///
/// A key is part of the names of its results. If such a name would be too long for the store, it has
/// a digest in place of the key: `predictions/%~<64 hexadecimal digits>.json`. Its content then tells
/// the key: see [`results`](crate::results).
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The longest path below OUT.
    max_path_bytes: usize,
    /// The longest name of a folder.
    max_folder_bytes: usize,
    /// The longest name of a file.
    max_file_bytes: usize,
}

impl Layout {
    /// The places below `out`. Depends on what names its store can hold.
    #[must_use]
    pub fn of(out: &Location) -> Self {
        match out.local_path() {
            Some(folder) => {
                let folder = folder.as_os_str().len() + UNFINISHED_SUFFIX_BYTES + 1;
                Self {
                    max_path_bytes: MAX_LOCAL_PATH_BYTES.saturating_sub(folder),
                    max_folder_bytes: MAX_LOCAL_NAME_BYTES,
                    max_file_bytes: MAX_LOCAL_NAME_BYTES - UNFINISHED_SUFFIX_BYTES,
                }
            }
            None => {
                let prefix = percent_decode_str(out.as_url().path()).count();
                let max_path_bytes = MAX_OBJECT_KEY_BYTES.saturating_sub(prefix);
                // Only the whole path is limited.
                let (max_folder_bytes, max_file_bytes) = (max_path_bytes, max_path_bytes);
                Self { max_path_bytes, max_folder_bytes, max_file_bytes }
            }
        }
    }

    /// `predictions/<image key>.json`.
    ///
    /// ```
    /// use camshaft_common::key::ImageKey;
    /// use camshaft_common::layout::Layout;
    ///
    /// let layout = Layout::of(&"s3://bucket/out".parse().unwrap());
    /// let key = ImageKey::parse("cat/a.jpg").unwrap();
    /// assert_eq!(layout.prediction(&key), "predictions/cat/a.jpg.json");
    /// ```
    #[must_use]
    pub fn prediction(&self, key: &ImageKey) -> String {
        self.place(PREDICTIONS, key.as_str(), "", RESULT_SUFFIX)
    }

    /// `failures/<image key>.json`.
    #[must_use]
    pub fn failure(&self, key: &ImageKey) -> String {
        self.place(FAILURES, key.as_str(), "", RESULT_SUFFIX)
    }

    /// `overlays/<image key>.jpg` for an image's first explanation. The names of the others say how
    /// they differ from the first: `overlays/<image key>.layer-cam.layer3.class-7.jpg`.
    #[must_use]
    pub fn overlay(
        &self,
        key: &ImageKey,
        differs: OverlayDifference<'_>,
        format: OverlayFormat,
    ) -> Option<String> {
        let extension = format!(".{}", format.extension()?);
        let OverlayDifference { method, layer, class } = differs;
        let difference: String = [
            method.map(|method| format!(".{method}")),
            layer.map(|layer| format!(".{layer}")),
            class.map(|class| format!(".class-{class}")),
        ]
        .into_iter()
        .flatten()
        .collect();
        Some(self.place(OVERLAYS, key.as_str(), &difference, &extension))
    }

    fn place(&self, folder: &str, name: &str, difference: &str, suffix: &str) -> String {
        let whole = format!("{folder}/{name}{difference}{suffix}");
        if self.fits(&whole) {
            return whole;
        }
        let short = format!("{folder}/{SHORTENED}{}{difference}{suffix}", digest(name));
        if self.fits(&short) {
            return short;
        }
        format!("{folder}/{SHORTENED}{}{suffix}", digest(&format!("{name}{difference}")))
    }

    fn fits(&self, path: &str) -> bool {
        let mut names = path.rsplit('/');
        path.len() <= self.max_path_bytes
            && names.next().is_some_and(|file| file.len() <= self.max_file_bytes)
            && names.all(|folder| folder.len() <= self.max_folder_bytes)
    }
}

/// SHA-256 in hexadecimal digits.
fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How an explanation differs from the first one of its image.
#[derive(Clone, Copy, Debug, Default)]
pub struct OverlayDifference<'a> {
    /// Its method, if another.
    pub method: Option<Method>,
    /// Its layers, if others.
    pub layer: Option<&'a FusedLayers>,
    /// The index of its class, if another.
    pub class: Option<usize>,
}

/// What the name of a result tells of its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultName {
    /// The image's key.
    Key(ImageKey),
    /// A digest. The result's content tells the key.
    Shortened,
}

/// What a result's path below `predictions/` or `failures/` tells of its image; `None` if the file is
/// not a result.
#[must_use]
pub fn result_name(path_below_folder: &str) -> Option<ResultName> {
    let name = path_below_folder.strip_suffix(RESULT_SUFFIX)?;
    if let Some(digest) = name.strip_prefix(SHORTENED) {
        let is_digest =
            digest.len() == DIGEST_DIGITS && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        return is_digest.then_some(ResultName::Shortened);
    }
    ImageKey::parse(name).ok().map(ResultName::Key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_contracts() {
        let layout = Layout::of(&"/out".parse().unwrap());
        let key = ImageKey::parse("cat/a.jpg").unwrap();
        assert_eq!(layout.prediction(&key), "predictions/cat/a.jpg.json");
        assert_eq!(layout.failure(&key), "failures/cat/a.jpg.json");
        let overlay = |differs, format| layout.overlay(&key, differs, format);
        let first = OverlayDifference::default();
        let layer = "layer3+layer4".parse().unwrap();
        let method = Some(Method::GradCamPlusPlus);
        let other = OverlayDifference { method, layer: Some(&layer), class: Some(1) };
        for (differs, format, path) in [
            (first, OverlayFormat::Jpeg, Some("overlays/cat/a.jpg.jpg")),
            (
                other,
                OverlayFormat::Png,
                Some("overlays/cat/a.jpg.grad-cam++.layer3+layer4.class-1.png"),
            ),
            (first, OverlayFormat::None, None),
        ] {
            assert_eq!(overlay(differs, format).as_deref(), path);
        }
    }

    #[test]
    fn results_name_their_image() {
        let key = ImageKey::parse("cat/a.json").unwrap();
        assert_eq!(result_name("cat/a.json.json"), Some(ResultName::Key(key)));
        assert_eq!(result_name("cat/a.jpg.tmp"), None);
        assert_eq!(result_name("a.jpg.json#1"), None);
        assert_eq!(result_name("%~x.json"), None);
    }

    #[test]
    fn a_name_that_the_store_cannot_hold_has_a_digest() {
        let local = Layout::of(&"/out".parse().unwrap());
        let bucket = Layout::of(&"s3://bucket/a/prefix".parse().unwrap());
        let layer = "layer1.2.conv3+layer2.2.conv3+layer3.2.conv3+layer4.2.conv3".parse().unwrap();
        let method = Some(Method::EigenGradCam);
        let other = OverlayDifference { method, layer: Some(&layer), class: Some(999) };
        // 248 bytes and `.json`, and `#1` while it is written, are 255.
        for (layout, bytes, whole) in
            [(local, 248, true), (local, 249, false), (bucket, 998, true), (bucket, 999, false)]
        {
            let key = ImageKey::parse("x".repeat(bytes)).unwrap();
            let path = layout.prediction(&key);
            let below = path.strip_prefix("predictions/").unwrap();
            assert_eq!(path.contains("xxx"), whole, "{path}");
            assert_eq!(result_name(below) == Some(ResultName::Shortened), !whole, "{path}");
            let other = layout.overlay(&key, other, OverlayFormat::Jpeg).unwrap();
            assert!(other.ends_with(".class-999.jpg") && layout.fits(&other), "{other}");
        }
        let long = "layer4.2.conv3+".repeat(30) + "layer4";
        let path = local.place(OVERLAYS, "a.jpg", &long, ".png");
        assert!(local.fits(&path) && path.ends_with(".png"), "{path}");
    }

    #[test]
    fn a_deep_folder_leaves_less_room() {
        let deep = Layout::of(&format!("/{}", "d/".repeat(1900)).parse().unwrap());
        let key = ImageKey::parse("e/".repeat(150) + "a.jpg").unwrap();
        assert!(deep.prediction(&key).contains("%~"));
        assert!(!Layout::of(&"/out".parse().unwrap()).prediction(&key).contains("%~"));
    }
}
