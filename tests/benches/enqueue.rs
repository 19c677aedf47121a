//! Enqueues *n* invented images, kills the enqueue once in the middle and starts it again. Prints
//! messages a second, memory, and the numbers of images that are in the queue twice or not at all.
//!
//! `cargo build --release -p camshaft-producer && cargo bench -p camshaft-tests --bench enqueue -- 1000000`
//!
//! RabbitMQ runs on the same machine and uses its cores too.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::time::{Duration, Instant};

use camshaft_tests::broker::Broker;
use camshaft_tests::jobs::Jobs;
use camshaft_tests::programs::{Running, camshaft};

const POLL: Duration = Duration::from_millis(50);
const CLASSES: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo passes arguments of its own; the first number is ours.
    let images = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let images: usize = images.unwrap_or(100_000);
    let directory = tempfile::tempdir()?;
    let list = directory.path().join("list.csv");
    let mut lines = BufWriter::new(File::create(&list)?);
    writeln!(lines, "key,label")?;
    for number in 0..images {
        let class = number * CLASSES / images;
        writeln!(lines, "train/class-{class:03}/{number:08}.jpg,class-{class:03}")?;
    }
    lines.into_inner()?;

    let broker = Broker::start();
    let url = broker.url();
    let jobs = Jobs::at(&url);
    let start = || {
        let mut command = camshaft(["enqueue", "--broker", &url, "--base", "s3://invented/images"]);
        command.arg(format!("list:{}", list.display()));
        Running::start(command.arg("--out").arg(directory.path().join("out")))
    };
    let mut peak = 0;
    let mut watch = |running: &mut Running, until: usize| {
        let started = Instant::now();
        while running.ended().is_none() && jobs.count("camshaft.jobs").unwrap_or(0) < until {
            peak = peak.max(running.peak_bytes());
            std::thread::sleep(POLL);
        }
        started.elapsed()
    };

    let mut killed = start();
    let first = watch(&mut killed, images / 2);
    killed.kill();
    // The broker may still read messages that were on their way.
    let before = jobs.count("camshaft.jobs").unwrap_or(0);
    let mut again = start();
    let second = watch(&mut again, usize::MAX);
    let ended = again.end(Duration::from_secs(60)).expect(0);
    print!("{}", ended.stdout);
    let load = fs::read_to_string("/proc/loadavg")?;

    let found = jobs.take();
    let messages: usize = found.values().sum();
    let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64();
    println!(
        "{images} images: {before} messages in {:.1} s ({:.0}/s), killed, {} more in {:.1} s \
         ({:.0}/s); {:.0}/s in all",
        first.as_secs_f64(),
        rate(before, first),
        messages - before,
        second.as_secs_f64(),
        rate(messages - before, second),
        rate(messages, first + second),
    );
    println!(
        "{messages} messages of {} images: {} twice, {} missing; camshaft had {} MiB at most; load {load}",
        found.len(),
        messages - found.len(),
        images - found.len(),
        peak >> 20,
    );
    Ok(())
}
