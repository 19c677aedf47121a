//! WebPs with chunks that claim more than they have.

use camshaft_common::prediction::FailureClass;

use super::{decoded, file};
use crate::{DecodeError, EncodedFormat};

pub(crate) fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let padding = vec![0; content.len() % 2];
    [name, &(content.len() as u32).to_le_bytes()[..], content, &padding].concat()
}

pub(crate) fn webp(chunks: &[Vec<u8>]) -> Vec<u8> {
    chunk(b"RIFF", &[b"WEBP".to_vec(), chunks.concat()].concat())
}

#[test]
fn a_webp_whose_metadata_claim_gigabytes_is_truncated() {
    let bytes = file("orientation-6.webp");
    let metadata = bytes.windows(4).position(|name| name == b"EXIF").unwrap();
    assert!(decoded(&bytes).is_ok());
    for length in [bytes.len() as u32, 0x6a00_0000, u32::MAX] {
        let mut bytes = bytes.clone();
        bytes[metadata + 4..metadata + 8].copy_from_slice(&length.to_le_bytes());
        assert_eq!(decoded(&bytes), Err(DecodeError::Truncated { format: EncodedFormat::WebP }));
    }
}

#[test]
fn a_webp_frame_larger_than_its_canvas_is_refused_before_it_is_decoded() {
    let mut bytes = file("lossy-alpha.webp");
    assert!(decoded(&bytes).is_ok());
    let frame = bytes.windows(4).position(|name| name == b"VP8 ").unwrap() + 8;
    bytes[frame + 6..frame + 10].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    let error = decoded(&bytes).unwrap_err();
    assert_eq!(error.class(), FailureClass::Undecodable);
    assert!(error.to_string().contains("16383×16383 pixels exceeds its canvas"), "{error}");
}

#[test]
fn what_follows_a_webps_end_is_not_part_of_it() {
    let whole = file("lossy-alpha.webp");
    let with_a_tail = [&whole[..], b"VP8 a tail of anyone's making"].concat();
    assert_eq!(decoded(&with_a_tail).unwrap(), decoded(&whole).unwrap());
    let frame = whole.windows(4).position(|name| name == b"VP8 ").unwrap();
    let mut enormous = whole;
    enormous[frame + 14..frame + 18].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    // Without the check, the decoder would find the frame up to 18 bytes after the end.
    enormous[4..8].copy_from_slice(&(frame as u32 - 8).to_le_bytes());
    let error = decoded(&enormous).unwrap_err();
    assert!(error.to_string().contains("chunk was missing"), "{error}");
}

#[test]
fn a_webp_that_ends_within_a_header_is_truncated() {
    let whole = file("lossy-alpha.webp");
    let mut without_canvas = whole.clone();
    without_canvas[16] = 8;
    let frame = whole.windows(4).position(|name| name == b"VP8 ").unwrap();
    let mut without_size = whole[..frame + 16].to_vec();
    without_size[4..8].copy_from_slice(&(frame as u32 + 8).to_le_bytes());
    without_size[frame + 4] = 8;
    for bytes in [without_canvas, without_size] {
        assert_eq!(decoded(&bytes), Err(DecodeError::Truncated { format: EncodedFormat::WebP }));
    }
}

#[test]
fn a_picture_behind_transparency_is_measured_whatever_its_chunk_is_called() {
    let still = file("lossy-alpha.webp");
    let content = |name: &[u8; 4]| {
        let at = still.windows(4).position(|found| found == name).unwrap();
        let length = u32::from_le_bytes(still[at + 4..at + 8].try_into().unwrap());
        still[at + 8..][..length as usize].to_vec()
    };
    let sides = decoded(&still).unwrap().dimensions();
    let side = |pixels: u32| (pixels - 1).to_le_bytes()[..3].to_vec();
    let sides = [side(sides.0), side(sides.1)].concat();
    let (transparency, picture) = (content(b"ALPH"), content(b"VP8 "));
    let animated = |name: &[u8; 4], picture: &[u8]| {
        let frame = [&[0; 6][..], &sides, &[0; 4], &chunk(b"ALPH", &transparency)].concat();
        let frame = [frame, chunk(name, picture)].concat();
        let canvas = [&[0b1_0010, 0, 0, 0][..], &sides].concat();
        webp(&[chunk(b"VP8X", &canvas), chunk(b"ANIM", &[0; 6]), chunk(b"ANMF", &frame)])
    };
    assert!(decoded(&animated(b"VP8 ", &picture)).is_ok());
    let mut enormous = picture.clone();
    enormous[6..10].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    for name in [b"VP8 ", b"????"] {
        let error = decoded(&animated(name, &enormous)).unwrap_err();
        assert!(error.to_string().contains("16383×16383 pixels exceeds its canvas"), "{error}");
    }
}
