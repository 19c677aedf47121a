mod bucket;

use object_store::client::{HttpRequest, HttpRequestBody};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use self::bucket::{Bucket, Habits, NameOrder, Tokens, Writing};
use super::super::listed_names::client_of;
use super::super::{Folder, SourceEntry};
use super::*;
use crate::key::ImageKey;
use crate::skipped::SkipReason;

const USUAL: Habits = Habits {
    page_entries: 3,
    page_folders: 3,
    order: NameOrder::Utf8,
    writing: Writing::Raw,
    tokens: Tokens::Usual,
    ignores_offset: false,
};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn listed(names: &[&str], habits: Habits, folder: &str) -> Vec<String> {
    let folder =
        Bucket::new(names.iter().map(|name| (*name).to_owned()), habits).open(folder, true);
    let found = folder.list_entries(&folder.root).map_ok(|entry| match entry {
        FoundEntry::Object(object) => String::from_utf8(object.name).unwrap(),
        FoundEntry::Skipped(_) => panic!("a bucket has objects only"),
    });
    runtime().block_on(found.try_collect()).unwrap()
}

#[test]
fn a_name_that_starts_with_a_slash_hides_no_other() {
    let names = ["/zzz.jpg", "000.jpg", "cat/1.jpg", "cat/2.jpg", "cat//3.jpg", "dog/", "zzz.jpg"];
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    assert_eq!(listed(&names, USUAL, ""), sorted);
    assert_eq!(listed(&names, USUAL, "cat"), ["/3.jpg", "1.jpg", "2.jpg"]);
    assert_eq!(listed(&names, USUAL, "dog"), [""]);
}

#[test]
fn a_folder_that_is_listed_under_another_name_hides_no_other() {
    let names = ["a\u{1}/1.jpg", "ab/1.jpg", "ac/1.jpg", "b/1.jpg", "caf\u{fffd}/1.jpg", "d/1.jpg"];
    let mut expected = names.to_vec();
    expected[0] = "a\u{fffd}/1.jpg";
    for page_entries in 1..4 {
        let habits = Habits { page_entries, writing: Writing::Replaced, ..USUAL };
        assert_eq!(listed(&names, habits, ""), expected);
    }
}

#[test]
fn a_name_is_after_a_cut_only_if_every_store_lists_it_there() {
    for (name, cut, after) in [
        ("b", "a", true),
        ("a", "a", false),
        ("a", "a/", false),
        ("a/b", "a", true),
        ("a!", "a", true),
        ("a!", "a/", false),
        ("é", "z", true),
        ("a\u{fffd}", "a", true),
        ("a\u{fffd}", "ab", false),
        ("ab\u{fffd}", "aa", true),
        ("\u{ff21}", "z", false),
        ("😀", "z", false),
        ("b😀", "a", true),
    ] {
        assert_eq!(is_after(name, cut), after, "{name} after {cut}");
    }
}

#[tokio::test]
async fn a_listing_that_panics_does_not_look_complete() {
    fn fail() {
        panic!("made for a test");
    }
    let (sender, receiver) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        sender.send("the first page").await.unwrap();
        fail();
    });
    let found: Vec<_> = received(receiver, task).collect().await;
    assert!(matches!(found[..], [Ok("the first page"), Err(_)]), "{found:?}");
}

#[tokio::test]
async fn a_page_that_does_not_say_how_to_go_on_is_an_error() {
    let names = ["1.jpg", "2.jpg"].map(str::to_owned);
    for (page_entries, is_refused) in [(1, true), (2, false)] {
        let habits = Habits { page_entries, tokens: Tokens::Never, ..USUAL };
        let client = client_of(Bucket::new(names.clone(), habits));
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = "http://server/bucket?list-type=2".parse().unwrap();
        assert_eq!(client.execute(request).await.is_err(), is_refused);
    }
}

#[tokio::test]
async fn the_names_in_a_folder_are_those_of_its_objects_as_they_are() {
    let names = ["m/", "m/a/b", "m/a/", "m/%=x", "m/c\t.pth", "m/w.pth", "m//x", "n"];
    let bucket = Bucket::new(names.map(str::to_owned), USUAL);
    for (folder, expected) in [("m", &["%=x", "c\t.pth", "w.pth"][..]), ("", &["n"][..])] {
        let mut found = bucket.open(folder, true).names().await.unwrap();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}

/// What stores, XML, URLs and paths treat in ways of their own, with `|` between.
const PIECES: &str = "a|b|A|0|/|//|.|..|%|%=|%~|%2F|%2e| |-|!|+|&|&amp;|<|>|?|#|\\|\"|*|\0|\t|\n|\r|\
    \u{1}|\u{7f}|\u{85}|\u{a0}|\u{2028}|é|猫|\u{fffd}|\u{ffff}|\u{ff21}|😀|_$folder$";
/// Names that are prefixes of others, and whose order is easily mistaken.
const NEIGHBOURS: &str = "a|a/|a/b|a//b|a.b|a!|a0|a-b/c|/a|/a/b";
/// S3's keys have 1,024 bytes, their folder included.
const MAX_NAME_BYTES: usize = 1016;

fn hostile_name() -> impl Strategy<Value = String> {
    let length = prop_oneof![9 => Just(0_usize), 1 => 0..MAX_NAME_BYTES];
    let filling = select(vec!["x", "a/", "/", "é"]);
    let pieces = select(PIECES.split('|').collect::<Vec<_>>());
    (vec(pieces, 0..7), length, filling).prop_map(|(pieces, length, filling)| {
        let name = pieces.concat();
        let room = length.saturating_sub(name.len());
        filling.repeat(room / filling.len()) + &name
    })
}

fn habits() -> impl Strategy<Value = Habits> {
    (
        1..6_usize,
        select(vec![2_usize, 1000]),
        select(vec![NameOrder::Utf8, NameOrder::Utf16]),
        select(vec![Writing::Raw, Writing::References, Writing::Replaced]),
        select(vec![Tokens::Usual, Tokens::EmptyAtEnd]),
        any::<bool>(),
    )
        .prop_map(|(page_entries, page_folders, order, writing, tokens, ignores_offset)| {
            Habits { page_entries, page_folders, order, writing, tokens, ignores_offset }
        })
}

/// A bucket, and the folder of it that is listed.
fn hostile_bucket() -> impl Strategy<Value = (Bucket, &'static str)> {
    let folder = select(vec!["", "a", "a/b", "a b", "é", "\u{ff21}"]);
    let names = btree_set((hostile_name(), any::<bool>()), 0..40);
    (folder, names, any::<bool>(), habits()).prop_map(|(folder, names, has_neighbours, habits)| {
        let names = names.into_iter().map(|(name, is_below)| {
            if is_below && !folder.is_empty() { format!("{folder}/{name}") } else { name }
        });
        let neighbours = NEIGHBOURS.split('|').filter(|_| has_neighbours).map(str::to_owned);
        let names = names.chain(neighbours).filter(|name| !name.is_empty());
        (Bucket::new(names, habits), folder)
    })
}

/// Lists the images in a folder, and returns for each key whether it is an image, and what it is
/// called.
fn images(folder: &Folder) -> Vec<(bool, String)> {
    let entries: Vec<_> = runtime().block_on(folder.list_images().try_collect()).unwrap();
    let entries = entries.into_iter().map(|entry| match entry {
        SourceEntry::Image(image) => {
            (true, String::from_utf8(image.key.name().into_owned()).unwrap())
        }
        SourceEntry::Skipped(skipped) => {
            assert_eq!(skipped.reason, SkipReason::FolderMarker);
            (false, skipped.name)
        }
    });
    entries.collect()
}

/// The same, of the name that a key has below its folder.
fn expected_image(name: String) -> (bool, String) {
    let marked = match name.strip_suffix('/') {
        Some(folder) => Some((folder, "/")),
        None => name.ends_with("_$folder$").then_some((&*name, "")),
    };
    match marked {
        _ if name.is_empty() => (false, "./".to_owned()),
        None => (true, name),
        Some((folder, end)) => {
            let key = ImageKey::from_name(folder.as_bytes()).unwrap();
            (false, crate::printable::printable(key.as_str()).into_owned() + end)
        }
    }
}

proptest! {
    #[test]
    fn every_key_is_listed_once_in_order_or_counted_with_its_name(
        (bucket, folder) in hostile_bucket(),
    ) {
        let expected: Vec<_> =
            bucket.names_below(folder).into_iter().map(expected_image).collect();
        for in_ranges in [true, false] {
            prop_assert_eq!(&images(&bucket.open(folder, in_ranges)), &expected);
        }
    }
}
