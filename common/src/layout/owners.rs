//! Whose results the objects in OUT are, by their names.
//!
//! The name of a prediction or failure tells one image. That of an overlay may also say how its
//! explanation differs from the image's first one, and a key may end as if it said so: then it may be of
//! one of several images. Does no I/O. Downstream: `--prune`, which removes results of images that have
//! gone.

use sha2::{Digest, Sha256};
use strum::VariantArray;

use super::{DIGEST_DIGITS, Layout, OVERLAYS, RESULT_SUFFIX};
use crate::explain::{Choices, ExplainOptions, FusedLayers, Method, OverlayFormat};
use crate::key::{ImageKey, SHORTENED};

/// The start of what an overlay's name says about the class.
const CLASS: &str = "class-";
/// The longest that it says: [`CLASS`], and any number of 64 bits.
const MAX_CLASS_BYTES: usize = CLASS.len() + 20;
/// The longest ending of an overlay's name, with its dot.
const MAX_EXTENSION_BYTES: usize = ".webp".len();

/// The first eight bytes of the SHA-256 of an image's key. A name that is too long for its store has
/// all of it in place of the key. Of a million images, a further one has the digest of one of them by
/// chance once in 10^13 times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyDigest(u64);

impl KeyDigest {
    /// The digest of a key.
    #[must_use]
    pub fn of(key: &ImageKey) -> Self {
        let digest = Sha256::digest(key.as_str());
        Self(digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    /// The digest in the name of a result, after [`SHORTENED`]; `None` if it is none.
    fn of_name(name: &str) -> Option<Self> {
        let is_digest =
            name.len() == DIGEST_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let start = name.get(..16).filter(|_| is_digest)?;
        u64::from_str_radix(start, 16).ok().map(Self)
    }
}

/// Tells whose results the objects below one OUT are.
#[derive(Clone, Copy, Debug)]
pub struct ResultOwners {
    /// True if an overlay may have a digest of its key and its explanation together: then nothing
    /// tells whose it is.
    overlays_hide_keys: bool,
}

impl Layout {
    /// Tells whose results the objects are. `options` are those of the run's explanations.
    ///
    /// ```
    /// use camshaft_common::explain::ExplainOptions;
    /// use camshaft_common::key::ImageKey;
    /// use camshaft_common::layout::{KeyDigest, Layout, OVERLAYS};
    ///
    /// let layout = Layout::of(&"s3://bucket/out".parse().unwrap());
    /// let owners = layout.owners(&ExplainOptions::default());
    /// let cat = KeyDigest::of(&ImageKey::parse("cat/a.jpg").unwrap());
    /// assert!(owners.of(OVERLAYS, "cat/a.jpg.layer-cam.class-1.png").contains(&cat));
    /// ```
    #[must_use]
    pub fn owners(&self, options: &ExplainOptions) -> ResultOwners {
        /// The longest name of the choices but the first, with its dot.
        fn longest<T: std::fmt::Display>(choices: &Choices<T>) -> usize {
            let others = choices.iter().skip(1);
            others.map(|choice| choice.to_string().len() + 1).max().unwrap_or_default()
        }
        let difference = longest(&options.method) + longest(&options.layer) + 1 + MAX_CLASS_BYTES;
        let bytes = SHORTENED.len() + DIGEST_DIGITS + difference + MAX_EXTENSION_BYTES;
        let overlays_hide_keys = !self.fits(&format!("{OVERLAYS}/{}", "x".repeat(bytes)));
        ResultOwners { overlays_hide_keys }
    }
}

impl ResultOwners {
    /// The images that the object at `path` below `folder` may be a result of. None if its name is that
    /// of no result, or does not tell the image.
    #[must_use]
    pub fn of(&self, folder: &str, path: &str) -> Vec<KeyDigest> {
        let names = match folder {
            OVERLAYS => without_extension(path).map(with_shorter_names),
            _ => path.strip_suffix(RESULT_SUFFIX).map(|name| vec![name]),
        };
        let whole_is_digest = |name: &&str| {
            let digest = name.strip_prefix(SHORTENED).and_then(KeyDigest::of_name);
            folder == OVERLAYS && digest.is_some()
        };
        let names = names.unwrap_or_default();
        if self.overlays_hide_keys && names.first().is_some_and(whole_is_digest) {
            return Vec::new();
        }
        let owner = |name: &str| match name.strip_prefix(SHORTENED) {
            Some(digest) => KeyDigest::of_name(digest),
            None => ImageKey::parse(name).ok().map(|key| KeyDigest::of(&key)),
        };
        names.into_iter().filter_map(owner).collect()
    }
}

/// An overlay's path without its ending; `None` if it has that of no overlay.
fn without_extension(path: &str) -> Option<&str> {
    let mut extensions = OverlayFormat::VARIANTS.iter().filter_map(|format| format.extension());
    extensions.find_map(|extension| path.strip_suffix(extension)?.strip_suffix('.'))
}

/// An overlay's path as it is, and without what may say how its explanation differs.
fn with_shorter_names(path: &str) -> Vec<&str> {
    let is_class = |part: &str| {
        let number = part.strip_prefix(CLASS).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_layer = |part: &str| part.parse::<FusedLayers>().is_ok();
    let is_method = |part: &str| part.parse::<Method>().is_ok();
    let mut names = vec![path];
    // From the end: each may be absent.
    let parts: [fn(&str) -> bool; 3] = [is_class, is_layer, is_method];
    for is_part in parts {
        let cuts = names.iter().copied().flat_map(cuts_at_dots);
        let shorter: Vec<_> =
            cuts.filter(|(_, part)| is_part(part)).map(|(name, _)| name).collect();
        names.extend(shorter);
    }
    names
}

/// What is before and after each dot in the last name of a path.
fn cuts_at_dots(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let last = path.rfind('/').map_or(0, |at| at + 1);
    let dots = path[last..].match_indices('.').map(move |(at, _)| last + at);
    dots.map(move |at| (&path[..at], &path[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::super::{FAILURES, OverlayDifference, PREDICTIONS};
    use super::*;

    fn key(text: &str) -> ImageKey {
        ImageKey::parse(text).unwrap()
    }

    fn options(methods: &str, layers: &str) -> ExplainOptions {
        ExplainOptions {
            method: methods.parse().unwrap(),
            layer: layers.parse().unwrap(),
            ..ExplainOptions::default()
        }
    }

    fn digests(keys: &[&str]) -> Vec<KeyDigest> {
        keys.iter().map(|text| KeyDigest::of(&key(text))).collect()
    }

    #[test]
    fn every_result_names_its_image() {
        let layers = "layer3+layer4,layer4.2.conv3,conv1,layer2.0.downsample.0";
        let options = options("grad-cam,grad-cam++,eigen-grad-cam", layers);
        let long = ["x".repeat(249), "y".repeat(230), format!("cat/{}", "z".repeat(1010))];
        let short = ["cat/a.jpg", "a", "no.ending.at.all", "%=caf%E9.jpg", "a.webp/b.class-7"];
        let keys = long.iter().map(String::as_str).chain(short);
        for (out, text) in ["/out", "s3://bucket/some/prefix"]
            .into_iter()
            .flat_map(|out| keys.clone().map(move |text| (out, text)))
        {
            let (layout, image) = (Layout::of(&out.parse().unwrap()), key(text));
            let (owners, expected) = (layout.owners(&options), KeyDigest::of(&image));
            let of = |path: &str| {
                let (folder, below) = path.split_once('/').unwrap();
                owners.of(folder, below)
            };
            for path in [layout.prediction(&image), layout.failure(&image)] {
                assert_eq!(of(&path), [expected], "{path}");
            }
            for method in [None, Some(Method::GradCamPlusPlus), Some(Method::EigenGradCam)] {
                for layer in options.layer.iter().map(Some).chain([None]) {
                    for (class, format) in [
                        (None, OverlayFormat::Jpeg),
                        (Some(0), OverlayFormat::Png),
                        (Some(999), OverlayFormat::Webp),
                    ] {
                        let differs = OverlayDifference { method, layer, class };
                        let path = layout.overlay(&image, differs, format).unwrap();
                        assert!(of(&path).contains(&expected), "{path} of {text}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_overlay_is_of_no_other_image_than_its_name_tells() {
        let owners = Layout::of(&"/out".parse().unwrap()).owners(&ExplainOptions::default());
        for (path, expected) in [
            ("a.jpg.jpg", &["a.jpg"][..]),
            ("cat/a.jpg.webp", &["cat/a.jpg"]),
            ("a.layer-cam.jpg", &["a.layer-cam", "a"]),
            ("a.jpg.layer3.class-1.png", &["a.jpg.layer3.class-1", "a.jpg.layer3", "a.jpg"]),
            ("b.class-1/a.jpg", &["b.class-1/a"]),
            // What others have put there.
            ("a.jpg.txt", &[]),
            ("a.gif", &[]),
            (".jpg", &[]),
            ("cat//a.jpg", &[]),
            ("%~x.jpg", &[]),
        ] {
            assert_eq!(owners.of(OVERLAYS, path), digests(expected), "{path}");
        }
        for folder in [PREDICTIONS, FAILURES] {
            assert_eq!(owners.of(folder, "a.layer-cam.json"), digests(&["a.layer-cam"]));
            assert!(owners.of(folder, "a.jpg").is_empty());
        }
    }

    #[test]
    fn an_overlay_whose_digest_may_be_of_more_than_a_key_is_nobodys() {
        let layout = Layout::of(&"/out".parse().unwrap());
        let convolutions =
            [(1, 3), (2, 4), (3, 6), (4, 3)].into_iter().flat_map(|(stage, blocks)| {
                (0..blocks).map(move |block| format!("layer{stage}.{block}.conv1"))
            });
        let fused = convolutions.collect::<Vec<_>>().join("+");
        let path = format!("%~{}.jpg", "0f".repeat(32));
        let usual = layout.owners(&ExplainOptions::default());
        assert_eq!(usual.of(OVERLAYS, &path).len(), 1);
        let unusual = layout.owners(&options("grad-cam", &format!("layer4,{fused}")));
        assert!(unusual.of(OVERLAYS, &path).is_empty());
        // With the difference behind the digest, it is the key's.
        let path = path.replace(".jpg", ".layer-cam.jpg");
        assert_eq!(unusual.of(OVERLAYS, &path).len(), 1);
        assert_eq!(unusual.of(PREDICTIONS, &path.replace(".layer-cam.jpg", ".json")).len(), 1);
    }
}
