use std::collections::BTreeSet;

use async_trait::async_trait;
use chrono::Utc;
use object_store::ListResult;
use proptest::prelude::*;

use super::super::listed_names::location_of;
use super::*;

/// A bucket whose pages have three objects.
#[derive(Debug)]
struct SmallPages(BTreeSet<String>);

const PAGE: usize = 3;

#[async_trait]
impl PaginatedListStore for SmallPages {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> Result<PaginatedListResult> {
        let prefix = prefix.unwrap_or_default();
        let after = options.page_token.or(options.offset).unwrap_or_default();
        let names = self.0.iter().filter(|name| name.starts_with(prefix) && **name > after);
        let mut result =
            ListResult { common_prefixes: vec![], objects: vec![], extensions: Default::default() };
        let mut last = None;
        let mut token = None;
        for name in names {
            if result.objects.len() + result.common_prefixes.len() == PAGE {
                token = last;
                break;
            }
            last = Some(name.clone());
            let below = &name[prefix.len()..];
            if let Some((folder, _)) = below.split_once('/').filter(|_| options.delimiter.is_some())
            {
                // As the connector and object_store leave it.
                let folder = format!("{prefix}{folder}");
                let is_path = Path::parse(&folder).is_ok_and(|path| path.as_ref() == folder);
                let folder = Path::parse(if is_path { &*folder } else { "" }).unwrap();
                if result.common_prefixes.last() != Some(&folder) {
                    result.common_prefixes.push(folder);
                }
                continue;
            }
            result.objects.push(ObjectMeta {
                location: location_of(name),
                last_modified: Utc::now(),
                size: 1,
                e_tag: None,
                version: None,
            });
        }
        Ok(PaginatedListResult { result, page_token: token })
    }
}

fn listed(names: &BTreeSet<String>, prefix: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Arc::new(SmallPages(names.clone()));
    let found = list(store, &Path::parse(prefix).unwrap()).map_ok(|entry| match entry {
        FoundEntry::Object(object) => String::from_utf8(object.name).unwrap(),
        FoundEntry::Skipped(_) => panic!("a bucket has objects only"),
    });
    runtime.block_on(found.try_collect()).unwrap()
}

/// What a listing without cuts finds.
fn plainly_listed(names: &BTreeSet<String>, prefix: &str) -> Vec<String> {
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    names.iter().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect()
}

#[test]
fn a_name_that_starts_with_a_slash_hides_no_other() {
    let names = ["/zzz.jpg", "000.jpg", "cat/1.jpg", "cat/2.jpg", "cat//3.jpg", "dog/", "zzz.jpg"];
    let names: BTreeSet<_> = names.map(str::to_owned).into();
    assert_eq!(listed(&names, ""), plainly_listed(&names, ""));
    assert_eq!(listed(&names, "cat"), ["/3.jpg", "1.jpg", "2.jpg"]);
    assert_eq!(listed(&names, "dog"), [""]);
}

proptest! {
    #[test]
    fn no_odd_name_is_left_out_or_listed_twice(
        names in proptest::collection::btree_set("(a|b|/|\\.|%=|-|\t| |é){1,7}", 0..60),
        prefix in proptest::sample::select(vec!["", "a", "b", "a/b"]),
    ) {
        prop_assert_eq!(listed(&names, prefix), plainly_listed(&names, prefix));
    }
}
