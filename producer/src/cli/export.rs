//! The arguments of `camshaft export`, and the config made of them.

use camshaft_common::location::Location;
use camshaft_decisions::Rule;
use camshaft_exchange::ExportFormat;
use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use crate::export::{ExportConfig, ImageChoice};

/// `camshaft export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// The run to export images of: a folder or URL with a report
    #[arg(value_name = "OUT")]
    pub(crate) out: Location,
    /// The other program's format
    #[arg(long = "as", env = "CAMSHAFT_AS", value_enum, value_name = "FORMAT")]
    pub(crate) format: FormatArgument,
    /// The file to write: a path or URL. Nothing is replaced. For Label Studio, the labelling configuration
    /// goes beside it (tasks.json: tasks.config.xml), for CVAT the labels
    #[arg(long, env = "CAMSHAFT_TO", value_name = "FILE")]
    pub(crate) to: Location,
    /// Export only the images that meet this rule about their findings, such as 'label-error and
    /// score>0.9' [default: all with a finding]
    #[arg(long, env = "CAMSHAFT_RULE", value_name = "RULE", conflicts_with = "all")]
    pub(crate) rule: Option<Rule>,
    /// Export every image of the run
    #[arg(long, env = "CAMSHAFT_ALL", value_parser = BoolishValueParser::new())]
    pub(crate) all: bool,
    /// What comes before the images' keys where the other program finds them, such as
    /// https://images.example/pets or '/data/local-files/?d=pets' [default: where SOURCE is]
    #[arg(long, env = "CAMSHAFT_IMAGE_ROOT", value_name = "PREFIX", value_parser = address_root)]
    pub(crate) image_root: Option<String>,
    /// The same for overlays: what comes before overlays/… [default: where OUT is]
    #[arg(long, env = "CAMSHAFT_OUT_ROOT", value_name = "PREFIX", value_parser = address_root)]
    pub(crate) out_root: Option<String>,
}

/// A format, as the command line names it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FormatArgument {
    /// Label Studio's JSON, with predictions and maps
    LabelStudio,
    /// CVAT for images 1.1: XML with a tag for each image
    Cvat,
    /// COCO's JSON, with annotations of the whole image
    Coco,
    /// CSV for a spreadsheet
    Csv,
}

/// Addresses stand in files that are passed on.
fn address_root(text: &str) -> Result<String, String> {
    let authority = text.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or(rest));
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Err(
            "it has a user or a password, and would be in the file; leave them out".to_owned()
        );
    }
    let lower = text.to_ascii_lowercase();
    let signs = ["x-amz-", "signature=", "sig=", "token=", "x-goog-"];
    if signs.into_iter().any(|sign| lower.contains(sign)) {
        return Err("it is signed, and would be in the file; give the plain address".to_owned());
    }
    if text.is_empty() { Err("it is empty; leave it out".to_owned()) } else { Ok(text.to_owned()) }
}

impl ExportArgs {
    pub(crate) fn resolve(self) -> ExportConfig {
        let Self { out, format, to, rule, all, image_root, out_root } = self;
        let format = match format {
            FormatArgument::LabelStudio => ExportFormat::LabelStudio,
            FormatArgument::Cvat => ExportFormat::Cvat,
            FormatArgument::Coco => ExportFormat::Coco,
            FormatArgument::Csv => ExportFormat::Csv,
        };
        let images = match rule {
            Some(rule) => ImageChoice::Meeting(Box::new(rule)),
            None if all => ImageChoice::All,
            None => ImageChoice::WithFindings,
        };
        ExportConfig { out, format, to, images, image_root, out_root }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_comes_into_a_file() {
        for root in ["https://ana:secret@host/x", "https://host/x?X-Amz-Signature=1", ""] {
            let error = address_root(root).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        for root in ["https://host/a@b", "/data/local-files/?d=pets", "s3://bucket/x", "/mnt/@x"] {
            assert_eq!(address_root(root).as_deref(), Ok(root));
        }
    }
}
