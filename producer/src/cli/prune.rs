//! What `audit` and `enqueue` remove from OUT, and a look ahead at all that they do.

use clap::Args;
use clap::builder::BoolishValueParser;

use crate::enqueue::prune::PruneLimit;

/// Results of images that have gone.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// Remove results whose images have gone from SOURCE, if at most half of them have; --prune=all
    /// removes any number. Try it with --dry-run first
    #[arg(long, env = "CAMSHAFT_PRUNE", value_name = "LIMIT", value_enum, num_args = 0..=1,
          require_equals = true, default_missing_value = "half", conflicts_with = "limit")]
    pub(crate) prune: Option<PruneLimit>,
    /// Tell what would be done and how many requests that takes, and do nothing
    #[arg(long, env = "CAMSHAFT_DRY_RUN", value_parser = BoolishValueParser::new())]
    pub(crate) dry_run: bool,
}
