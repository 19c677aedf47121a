//! Reads a message's body: the result is a job of this version, or an error.
#![no_main]

use camshaft_common::job::{Job, MAX_JOB_BYTES};
use camshaft_common::layout::{self, Layout, ResultName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(job) = Job::parse(body) else { return };
    assert!(body.len() <= MAX_JOB_BYTES, "a message of {} bytes was read", body.len());
    let again = Job::parse(&job.to_json()).expect("what a job writes is a job");
    assert_eq!(again, job);
    for folder in [&job.source, &job.out] {
        assert!(folder.as_url().password().is_none(), "{folder} has a password");
        assert!(!folder.as_url().scheme().starts_with("http"), "{folder} is fetched from the web");
    }
    let layout = Layout::of(&job.out);
    for path in [layout.prediction(&job.key), layout.failure(&job.key)] {
        let (_, below) = path.split_once('/').expect("a result lies in a folder");
        match layout::result_name(below) {
            Some(ResultName::Key(key)) => assert_eq!(key, job.key),
            Some(ResultName::Shortened) => {}
            None => panic!("{path:?} is no result's name"),
        }
    }
});
