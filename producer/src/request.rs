//! From arguments to a [`Plan`](crate::enqueue::plan::Plan)'s request: opens SOURCE and names the model.

use std::collections::HashSet;

use camshaft_common::explain::ExplainOptions;
use camshaft_common::model::ModelIdentity;
use camshaft_common::store::StoreOptions;

use crate::cli::RunArgs;
use crate::enqueue::plan::Request;
use crate::images::selection::Only;
use crate::images::source::{Source, SourceArgument, SourceError};

/// Opens SOURCE and puts together what was asked for.
///
/// # Errors
/// Where SOURCE is not there, or doesn't go with the other arguments.
pub(crate) fn request(
    args: RunArgs,
    only: Only,
    can_redo_all: bool,
    model: ModelIdentity,
    stores: &StoreOptions,
) -> Result<Request, SourceError> {
    let source_name = match &args.source {
        SourceArgument::Place(place) => place.as_url().to_string(),
        SourceArgument::List(path) => format!("list:{path}"),
    };
    let base = args.base.clone();
    let source = Source::open(args.source, args.base, &args.out, args.labels, stores)?;
    Ok(Request {
        source,
        source_name,
        base,
        out: args.out,
        only,
        dead: HashSet::new(),
        limit: args.limit,
        model,
        explain: ExplainOptions::from(args.explain),
        can_redo_all,
    })
}
