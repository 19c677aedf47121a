//! Decodes any file: the result is a picture within the limits, or an error with its class.
//!
//! Like the pipeline, this catches a decoder's panic, which the pipeline reports as `undecodable`.
//! A hang, an abort or unbounded memory would harm other images, so each is a bug.
#![no_main]

use std::cell::Cell;
use std::panic::{catch_unwind, set_hook, take_hook};
use std::time::Duration;

use camshaft_common::decoded_scale::DecodedScale;
use camshaft_common::prediction::FailureClass;
use camshaft_common::transparency::Transparency;
use camshaft_decoding::{DecodeError, DecodedPicture, ImageLimits};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Small limits, so that mutations reach them and each try is quick.
const LIMITS: ImageLimits = ImageLimits {
    max_bytes: 64 << 10,
    max_pixels: 256 << 10,
    max_side: 2048,
    max_time: Duration::from_secs(5),
};

/// Memory allowed for each pixel: the decoder's pixels of up to eight bytes, RGBA and RGB copies,
/// the coefficients of a progressive JPEG, and the copy that turns a picture upright.
const BYTES_PER_PIXEL: u64 = 32;
/// Memory allowed for any file: the decoders' tables and buffers, and the length that a lossy
/// WebP's partition may claim, which has 24 bits.
const FIXED_BYTES: u64 = 20 << 20;

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

fuzz_target!(
    init: catch_decoders_panics(),
    |bytes: &[u8]| {
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        DECODING.set(true);
        let decoded = catch_unwind(|| camshaft_decoding::decode(bytes, &LIMITS, Transparency::OverWhite));
        DECODING.set(false);
        let used = (MEMORY.peak_usage() - before) as u64;
        let allowed = FIXED_BYTES + LIMITS.max_bytes * 4 + LIMITS.max_pixels * BYTES_PER_PIXEL;
        assert!(used <= allowed, "{} bytes of file took {used} bytes of memory", bytes.len());
        match &decoded {
            Ok(Ok(picture)) => {
                let (width, height) = picture.dimensions();
                assert!(width > 0 && height > 0 && width.max(height) <= LIMITS.max_side);
                assert!(u64::from(width) * u64::from(height) <= LIMITS.max_pixels);
            }
            Ok(Err(error)) => check(error, bytes.len() as u64),
            Err(_panic) => {}
        }
        decode_reduced(bytes, matches!(decoded, Ok(Ok(_))));
    }
);

/// At a reduced scale the same files are pictures.
fn decode_reduced(bytes: &[u8], is_picture: bool) {
    let scale = DecodedScale::REDUCED[bytes.len() % DecodedScale::REDUCED.len()];
    DECODING.set(true);
    let reduced = catch_unwind(|| {
        camshaft_decoding::decode_at_scale(bytes, &LIMITS, Transparency::OverWhite, &|_size| scale)
    });
    DECODING.set(false);
    let Ok(reduced) = reduced else { return };
    // A reduced picture takes less time: the limit may stop only the other.
    assert!(reduced.is_ok() || !is_picture, "{:?} at {scale:?}", reduced.err());
    if let Ok(DecodedPicture { pixels, frame }) = reduced {
        assert_eq!(pixels.dimensions(), frame.scale.reduce(frame.size));
    }
}

/// Checks that a message is one line whose length does not depend on the file.
fn check(error: &DecodeError, bytes: u64) {
    let message = error.to_string();
    assert!(!message.contains('\n') && message.len() < 500, "{message:?}");
    let class = error.class();
    assert!(
        matches!(
            class,
            FailureClass::Undecodable | FailureClass::Unsupported | FailureClass::TooLarge
        ),
        "{class} is not for decoding to tell"
    );
    assert_eq!(bytes > LIMITS.max_bytes, matches!(error, DecodeError::FileTooLarge { .. }));
}

/// Replaces libFuzzer's panic hook, which aborts at any panic: panics of decoders are caught.
fn catch_decoders_panics() {
    let abort = take_hook();
    set_hook(Box::new(move |panic| {
        if !DECODING.get() {
            abort(panic);
        }
    }));
}
