//! Examples at the end of each command's help. Everything else there is computed from the options.

pub(super) const CAMSHAFT: &str = "\
Examples:
  camshaft audit ~/images --out ~/audit     then open ~/audit/report/index.html
  camshaft audit --help                     the options of a command";

#[cfg(feature = "embedded")]
pub(super) const AUDIT: &str = "\
Examples:
  camshaft audit ~/images --out ~/audit
  camshaft audit s3://data/images --out s3://data/audit --limit 1000
  camshaft audit list:keys.csv --base s3://data/images --out audit
  camshaft audit ~/images --out ~/audit --prune --dry-run
  camshaft audit ~/images --out ~/audit --model ~/my-resnet --target label
  camshaft audit ~/images --out ~/audit --fail-on 'label-errors>10,accuracy<0.9'";

#[cfg(feature = "embedded")]
pub(super) const TRAIN: &str = "\
Examples:
  camshaft train ~/pets --out ~/pets-model
  camshaft train ~/pets --out ~/pets-model --layers all --epochs 20
  camshaft train list:clean.csv --base ~/pets --out ~/clean-model
  camshaft audit ~/pets/val --out ~/pets-audit --model ~/pets-model";

#[cfg(feature = "embedded")]
pub(super) const CALIBRATE: &str = "\
Examples:
  camshaft calibrate ~/pets-model ~/pets                   into the model's folder
  camshaft calibrate cats-vs-dogs ~/pets --out ~/pets-audit
  camshaft enqueue ~/pets --out ~/pets-audit --precision int8";

pub(super) const ENQUEUE: &str = "\
Examples:
  export CAMSHAFT_BROKER=amqp://user:password@rabbitmq:5672/%2f
  camshaft enqueue s3://data/images --out s3://data/audit
  camshaft enqueue s3://data/images --out s3://data/audit --only failed
  camshaft enqueue s3://data/images --out s3://data/audit --prune --dry-run";

pub(super) const REPORT: &str = "\
Examples:
  camshaft report ~/audit
  camshaft report ~/audit --against ~/audit-of-last-month --fail-on 'broken>0'
  camshaft report s3://data/audit --json";

pub(super) const SERVE: &str = "\
Examples:
  camshaft serve ~/audit
  camshaft serve s3://data/audit --port 8000 --no-open     then ssh -L 8000:localhost:8000, and open it";

pub(super) const DECIDE: &str = "\
Examples:
  camshaft decide ~/audit --drop exact --relabel 'label-error and score>0.95' --dry-run
  camshaft decide ~/audit --keep 'best and split=train' --drop 'duplicate and not best'
  camshaft decide ~/audit --import ~/Downloads/decisions.jsonl     or what camshaft export began
  camshaft decide s3://data/audit --sample 100 --of label-error
  camshaft decide s3://data/audit --sample 300 --of no-label-error    how many wrong labels are left";

pub(super) const EXPORT: &str = "\
Examples:
  camshaft export ~/audit --as label-studio --to tasks.json --image-root '/data/local-files/?d=pets'
  camshaft export ~/audit --as cvat --rule 'label-error and score>0.9' --to annotations.xml
  camshaft export s3://data/audit --as coco --all --to s3://data/audit.coco.json
  camshaft export ~/audit --as csv --to decide.csv     then camshaft decide ~/audit --import decide.csv";

pub(super) const APPLY: &str = "\
Examples:
  camshaft apply ~/audit --to clean.csv      then camshaft train list:clean.csv --base ~/images
  camshaft apply ~/audit --to ~/clean --link hard
  camshaft apply s3://data/audit --to s3://data/clean --dry-run
  camshaft apply --undo ~/clean.undo.json";

pub(super) const STATUS: &str = "\
Examples:
  camshaft status ~/audit
  camshaft status s3://data/audit --watch      with CAMSHAFT_BROKER also the queue";

pub(super) const CANCEL: &str = "\
Examples:
  camshaft cancel ~/audit
  camshaft cancel s3://data/audit";

pub(super) const RUNS: &str = "\
Examples:
  export CAMSHAFT_BROKER=amqp://user:password@rabbitmq:5672/%2f
  camshaft runs
  camshaft runs --queue team-a --json";

pub(super) const REDRIVE: &str = "\
Examples:
  export CAMSHAFT_BROKER=amqp://user:password@rabbitmq:5672/%2f
  camshaft redrive";

pub(super) const COMPLETIONS: &str = "\
Examples:
  camshaft completions bash > ~/.local/share/bash-completion/completions/camshaft
  camshaft completions zsh > \"${fpath[1]}/_camshaft\"
  camshaft completions fish > ~/.config/fish/completions/camshaft.fish";
