//! The precision of an audit that goes on: on a GPU that of the results in OUT, unless another is asked for.
//!
//! A GPU computes in several, and its default has changed. Numbers of two precisions are not compared as
//! if they were of one. A CPU's results don't differ so much, and go on with the machine's own kernel.

use camshaft_common::layout::PREDICTIONS;
use camshaft_common::location::Location;
use camshaft_common::prediction::{MAX_RECORD_BYTES, ModelRecord, PredictionRecord};
use camshaft_common::store::{Folder, StoreError, StoreErrorKind, StoreOptions};
use camshaft_model::Precision;
use camshaft_worker::config::ComputeConfig;
use futures::TryStreamExt;

use crate::terminal::output::print_line;

/// Lets `compute` go on in the precision of the results in OUT.
///
/// # Errors
/// If OUT can't be read.
pub(super) async fn go_on(
    compute: &mut ComputeConfig,
    out: &Location,
    stores: &StoreOptions,
) -> Result<(), StoreError> {
    if compute.precision != Precision::Auto {
        return Ok(());
    }
    let out = Folder::open(out, stores)?;
    let Some(file) = camshaft_common::results::list(&out, PREDICTIONS).try_next().await? else {
        return Ok(());
    };
    let content = match out.get(&file.path, MAX_RECORD_BYTES).await {
        Ok(content) => content.bytes,
        // Another process has removed it meanwhile.
        Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // A damaged result tells nothing.
    let Ok(record) = serde_json::from_slice::<PredictionRecord>(&content) else { return Ok(()) };
    let ModelRecord { device, precision, .. } = &record.model;
    // `auto` may open none; one that was asked for and can't be opened is told later.
    let on_gpu = compute.device.may_be_gpu()
        && compute.device.open().map_or(true, |device| !device.is_cpu());
    if !on_gpu {
        if device.starts_with("cuda") {
            print_line(&format!(
                "The results in OUT are of {precision} on a GPU; new ones are computed on the CPU"
            ));
        }
        return Ok(());
    }
    if let Some(precision) = of_results(&record.model) {
        compute.precision = precision;
        print_line(&format!(
            "Goes on in {precision}, as the results in OUT; --precision chooses another"
        ));
    }
    Ok(())
}

/// The precision to go on in; none if that is the default.
fn of_results(model: &ModelRecord) -> Option<Precision> {
    let precision = model.precision.parse().ok()?;
    let by_candle = model.device.starts_with("cuda") && model.kernel == "candle";
    match precision {
        // candle's f32 was TF32 on a GPU.
        Precision::F32 if by_candle => Some(Precision::Tf32),
        // As the default, which does images again whose numbers are too large for it.
        Precision::F16 | Precision::Auto => None,
        precision => Some(precision),
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::model::FileDigest;

    use super::*;

    #[test]
    fn what_was_called_f32_on_a_gpu_goes_on_as_what_it_was() {
        let of = |precision: &str, kernel: &str, device: &str| {
            let digest = FileDigest::of(b"");
            of_results(&ModelRecord {
                name: "pets".to_owned(),
                digest: digest.clone(),
                config_digest: digest,
                precision: precision.to_owned(),
                kernel: kernel.to_owned(),
                device: device.to_owned(),
            })
        };
        assert_eq!(of("f32", "candle", "cuda:0"), Some(Precision::Tf32));
        assert_eq!(of("f32", "cudnn", "cuda:0"), Some(Precision::F32));
        assert_eq!(of("f32", "candle", "cpu"), Some(Precision::F32));
        assert_eq!(of("bf16", "amx-bf16", "cpu"), Some(Precision::Bf16));
        assert_eq!(of("f16", "cudnn", "cuda:1"), None);
        assert_eq!(of("", "", ""), None);
    }
}
