//! Which files of SOURCE are images: by their names, or by the globs of `--include` and `--exclude`.
//!
//! Looks at names only. A file that counts as an image by its name and is none fails when it is
//! decoded.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use crate::key::ImageKey;

/// The extensions of images. Some kinds can't be read; such an image fails as `unsupported` and is
/// not silently missing from the audit.
const IMAGE_EXTENSIONS: &str = " jpg jpeg jpe jfif jif pjpeg pjp png apng webp gif bmp dib tif tiff \
    heic heics heif heifs hif avif avifs jxl jp2 j2k j2c jpc jpf jpx jpm jxr wdp hdp \
    psd psb xcf raw cr2 cr3 crw nef nrw arw srf sr2 srw dng orf rw2 rwl raf pef 3fr fff iiq erf \
    kdc dcr mrw mef mos x3f svg svgz dcm dicom nii ico cur icns \
    ppm pgm pbm pnm pam pfm tga exr hdr rgbe dds qoi ff xbm xpm pcx sgi rgb rgba ras flif \
    fits fit fts bpg mng jng wbmp ";

/// Extensions that say how a file is packed; the one before it says what it is (`scan.nii.gz`).
const PACKED_EXTENSIONS: [&str; 2] = ["gz", "bz2"];

/// Folders that operating systems add to archives, with files named as the images they are about.
const SYSTEM_FOLDERS: [&str; 1] = ["__MACOSX"];

/// A glob, as `--include` and `--exclude` take it. With a `/` it is about the whole key, without one
/// about the file's name. `*` matches no `/`, `**` does; `DIR/` is all below a folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob {
    text: String,
    matcher: GlobMatcher,
    whole_key: bool,
}

/// A text is not a glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// The text has no characters.
    #[error("a glob is empty; write for instance '*.jpg'")]
    Empty,
    /// The text can't be read.
    #[error("{0}; escape special characters with a backslash")]
    Malformed(#[from] globset::Error),
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let whole_key = text.contains('/');
        // A glob is below SOURCE, as keys are: `./cat/*` and `/cat/*` mean `cat/*` there.
        let mut pattern = text.trim_start_matches("./").trim_start_matches('/').to_owned();
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        if pattern.ends_with('/') {
            pattern.push_str("**");
        }
        let mut builder = GlobBuilder::new(&pattern);
        let glob = builder.literal_separator(true).backslash_escape(true).build()?;
        Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher(), whole_key })
    }
}

impl Glob {
    /// True if the glob matches an image's name.
    #[must_use]
    pub fn matches_key(&self, key: &ImageKey) -> bool {
        self.matches(&key.name())
    }

    fn matches(&self, name: &[u8]) -> bool {
        let name = if self.whole_key { name } else { file_name(name) };
        self.matcher.is_match(Path::new(OsStr::from_bytes(name)))
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Glob {}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Glob {
    type Error = GlobError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.text
    }
}

/// Which files of SOURCE are images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFiles {
    /// If there are any, an image is what one of them matches. Else a file is an image by its name.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub include: Vec<Glob>,
    /// What one of them matches is no image.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub exclude: Vec<Glob>,
}

/// Why a file is not an image of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSelected {
    /// Its extension is of no image; in the letters of its name.
    Extension(String),
    /// It lies in a folder of an operating system, such as `__MACOSX`.
    SystemFolder,
    /// No glob of `include` matches it.
    NotIncluded,
    /// A glob of `exclude` matches it.
    Excluded,
}

impl ImageFiles {
    /// True if the file is an image of the run.
    #[must_use]
    pub fn selects(&self, key: &ImageKey) -> bool {
        self.why_not(key).is_none()
    }

    /// Why the file is not an image of the run; `None` if it is one.
    #[must_use]
    pub fn why_not(&self, key: &ImageKey) -> Option<NotSelected> {
        let name = key.name();
        if self.exclude.iter().any(|glob| glob.matches(&name)) {
            return Some(NotSelected::Excluded);
        }
        if !self.include.is_empty() {
            let is_included = self.include.iter().any(|glob| glob.matches(&name));
            return (!is_included).then_some(NotSelected::NotIncluded);
        }
        let is_system =
            |segment: &[u8]| SYSTEM_FOLDERS.iter().any(|name| name.as_bytes() == segment);
        if name.split(|byte| *byte == b'/').any(is_system) {
            return Some(NotSelected::SystemFolder);
        }
        let extension = extension(&name)?;
        (!is_image_extension(&extension)).then_some(NotSelected::Extension(extension))
    }
}

fn file_name(name: &[u8]) -> &[u8] {
    name.rsplit(|byte| *byte == b'/').next().unwrap_or(name)
}

/// The extension of a file, without the `#1` that some programs add to a second file of one name;
/// `None` if it has none.
fn extension(name: &[u8]) -> Option<String> {
    let file = String::from_utf8_lossy(file_name(name));
    let file = match file.rsplit_once('#') {
        Some((before, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => before,
        _ => &*file,
    };
    let (stem, last) = file.rsplit_once('.')?;
    let is_packed = PACKED_EXTENSIONS.iter().any(|packed| last.eq_ignore_ascii_case(packed));
    let extension = match stem.rsplit_once('.') {
        Some((_, packed)) if is_packed && is_image_extension(packed) => packed,
        _ => last,
    };
    (!extension.is_empty()).then(|| extension.to_owned())
}

/// True for the extension of an image, in any case: also of one that can't be read.
#[must_use]
pub fn is_image_extension(extension: &str) -> bool {
    !extension.contains(' ')
        && IMAGE_EXTENSIONS.contains(&format!(" {} ", extension.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ImageKey {
        ImageKey::from_name(name.as_bytes()).unwrap()
    }

    fn files(include: &[&str], exclude: &[&str]) -> ImageFiles {
        let globs = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        ImageFiles { include: globs(include), exclude: globs(exclude) }
    }

    #[test]
    fn by_default_names_of_image_types_and_names_without_extension_are_images() {
        let files = ImageFiles::default();
        for name in [
            "a.jpg",
            "A.JPEG",
            "x/b.Tiff",
            "c.heic",
            "d.CR2",
            "scan.nii.gz",
            "photo",
            "photo#1",
            "a.jpg#2",
            "v1.2/photo",
            "ends.",
            "n\n.jpg",
            "a.svg",
            "back\\slash.png",
        ] {
            assert!(files.selects(&key(name)), "{name:?}");
        }
        for (name, extension) in [
            ("labels/a.txt", "txt"),
            ("a.xml", "xml"),
            ("desktop.ini", "ini"),
            ("Thumbs.db", "db"),
            ("a.jpg.json", "json"),
            ("a.tar.gz", "gz"),
            ("a.jpg~", "jpg~"),
            ("a.jpg png", "jpg png"),
        ] {
            let found = files.why_not(&key(name));
            assert_eq!(found, Some(NotSelected::Extension(extension.to_owned())), "{name:?}");
        }
        assert_eq!(files.why_not(&key("__MACOSX/a.jpg")), Some(NotSelected::SystemFolder));
    }

    #[test]
    fn a_glob_is_about_the_file_or_with_a_slash_about_the_whole_key() {
        for (glob, matching, others) in [
            ("*.jpg", &["a.jpg", "x/y/a.jpg"][..], &["a.JPG", "a.jpg.txt"][..]),
            ("*_mask.*", &["x/a_mask.png"], &["x_mask.d/a.png"]),
            ("*.{jpg,png}", &["a.jpg", "b.png"], &["c.gif"]),
            ("cat/*", &["cat/a.jpg"], &["cat/x/a.jpg", "x/cat/a.jpg"]),
            ("/cat/*", &["cat/a.jpg"], &["x/cat/a.jpg"]),
            ("./cat/*", &["cat/a.jpg"], &["x/cat/a.jpg"]),
            ("/*", &["a.jpg"], &["cat/a.jpg"]),
            ("cat/", &["cat/a.jpg", "cat/x/a.jpg"], &["x/cat/a.jpg", "cat"]),
            ("**/cat/**", &["cat/a.jpg", "x/cat/y/a.jpg"], &["cat"]),
            ("a\\*b", &["a*b"], &["axb"]),
            ("[ab].jpg", &["a.jpg"], &["c.jpg"]),
        ] {
            let glob: Glob = glob.parse().unwrap();
            for name in matching {
                assert!(glob.matches(name.as_bytes()), "{glob} and {name}");
            }
            for name in others {
                assert!(!glob.matches(name.as_bytes()), "{glob} and {name}");
            }
        }
        let any: Glob = "*.jpg".parse().unwrap();
        assert!(any.matches(b"caf\xe9\n.jpg"), "bytes that are no text are matched, too");
        for text in ["", "/", "[", "{a"] {
            assert!(text.parse::<Glob>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn include_replaces_the_default_and_exclude_takes_from_either() {
        let some = files(&["*.txt", "cat/*"], &["*_mask.png"]);
        assert!(some.selects(&key("a.txt")) && some.selects(&key("cat/a.jpg")));
        assert_eq!(some.why_not(&key("dog/a.jpg")), Some(NotSelected::NotIncluded));
        assert_eq!(some.why_not(&key("cat/a_mask.png")), Some(NotSelected::Excluded));
        let fewer = files(&[], &["dog/"]);
        assert!(fewer.selects(&key("cat/a.jpg")) && !fewer.selects(&key("dog/a.jpg")));
        assert!(!fewer.selects(&key("cat/a.txt")));
    }

    #[test]
    fn the_selection_survives_json() {
        let some = files(&["*.jpg"], &["x/"]);
        let json = serde_json::to_string(&some).unwrap();
        assert_eq!(json, r#"{"include":["*.jpg"],"exclude":["x/"]}"#);
        assert_eq!(serde_json::from_str::<ImageFiles>(&json).unwrap(), some);
        assert_eq!(serde_json::to_string(&ImageFiles::default()).unwrap(), "{}");
    }
}
