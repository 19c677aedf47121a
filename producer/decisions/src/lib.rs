//! What is decided about a run's images: to keep one, to drop it, or to give it another label.
//!
//! Owns the line of a decision, the parts that decisions are written in, their merge, and the rules that
//! decide by findings. Knows no command line and no HTTP. Upstream: `camshaft decide`, `camshaft serve`
//! and the report's page, which write decisions; `camshaft report`, whose findings rules read.
//! Downstream: `camshaft apply`.
//!
//! | module | what it holds |
//! |---|---|
//! | `decision` | a decision, and its line of JSON |
//! | `lines` | files of such lines |
//! | `parts` | the parts below `OUT/decisions/`: their names and their writer |
//! | `reader` | reads parts, each once |
//! | `merge` | all parts in one table by key |
//! | `findings` | the findings of a report, by image |
//! | `rule` | the language of rules: its words, its parser, and what a rule means |
//! | `judge` | what rules decide, beside what is decided already |
//! | `sample` | images drawn at random, for people to judge |

mod decision;
mod error;
mod findings;
mod judge;
mod lines;
mod merge;
mod parts;
mod reader;
mod rule;
mod sample;

pub use decision::{Choice, Decision, DecisionError, MAX_BY_BYTES};
pub use error::{MergeError, SampleError};
pub use findings::{Findings, FindingsError, ImageFindings, read_judged_images};
pub use judge::{JudgeError, Judged, RuleAction, RuleFor, judge};
pub use lines::{LinesError, read_file, read_lines};
pub use merge::{MergedDecision, MergedDecisions};
pub use parts::DecisionWriter;
pub use reader::DecisionReader;
pub use rule::{Rule, RuleError, WORDS};
pub use sample::{Sample, SampleKind};
