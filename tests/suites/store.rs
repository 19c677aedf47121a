//! The contract of a store that the programs rely on, on local files and on real S3 servers.

use camshaft_common::key::ImageKey;
use camshaft_common::store::{Folder, JSON, StoreErrorKind, StoreOptions};
use camshaft_tests::results::local;
use camshaft_tests::s3::S3Server;
use camshaft_tests::s3_relay::S3Relay;
use futures::TryStreamExt;
use tempfile::tempdir;

/// Asserts the contract that every store has to keep.
async fn assert_keeps_the_contract(folder: &Folder) {
    let missing = folder.get("cat/a.jpg", 100).await.unwrap_err();
    assert_eq!(missing.kind(), StoreErrorKind::NotFound, "{missing}");
    assert!(!folder.exists("cat/a.jpg").await.unwrap());
    folder.delete("cat/a.jpg").await.unwrap();

    let keys = ["cat/a.jpg", "cat/b c+d%20é#1.jpg", "dog/x/y.png", "z.json"];
    for key in keys {
        folder.put(key, key.as_bytes().to_vec(), JSON).await.unwrap();
    }
    for key in keys {
        let fetched = folder.get(key, 100).await.unwrap();
        assert_eq!(fetched.bytes, key.as_bytes());
        let head = folder.head(key).await.unwrap();
        assert_eq!((head.etag, head.size_bytes), (fetched.etag, key.len() as u64));
    }
    let large = folder.get(keys[0], 3).await.unwrap_err();
    assert_eq!(large.kind(), StoreErrorKind::TooLarge);

    let listed = |prefix: &'static str| async move {
        let objects: Vec<_> = folder.list(prefix).try_collect().await.unwrap();
        let mut paths: Vec<_> = objects.into_iter().map(|object| object.path).collect();
        paths.sort();
        paths
    };
    assert_eq!(listed("").await, keys);
    assert_eq!(listed("cat").await, ["a.jpg", "b c+d%20é#1.jpg"]);
    assert!(listed("ca").await.is_empty(), "a prefix is a folder, not the start of a name");

    let before = folder.head(keys[0]).await.unwrap();
    folder.put(keys[0], b"other".to_vec(), JSON).await.unwrap();
    let after = folder.head(keys[0]).await.unwrap();
    assert_ne!(before.etag, after.etag, "another content has another entity tag");
    assert!(after.last_modified >= before.last_modified);
    folder.delete(keys[0]).await.unwrap();
    assert!(!folder.exists(keys[0]).await.unwrap());
}

#[tokio::test]
async fn local_files_keep_the_contract() {
    let directory = tempdir().unwrap();
    assert_keeps_the_contract(&local(directory.path())).await;
}

#[tokio::test]
async fn s3s_fs_keeps_the_contract() {
    let server = S3Server::s3s_fs();
    server.make_bucket("store-contract");
    assert_keeps_the_contract(&server.folder("s3://store-contract/some/prefix")).await;
}

#[tokio::test]
async fn moto_keeps_the_contract() {
    let server = S3Server::moto();
    server.make_bucket("store-contract");
    assert_keeps_the_contract(&server.folder("s3://store-contract/some/prefix")).await;
}

#[tokio::test]
async fn a_missing_bucket_is_another_error_than_a_missing_object() {
    for server in [S3Server::s3s_fs(), S3Server::moto()] {
        let listed: Result<Vec<_>, _> =
            server.folder("s3://no-such-bucket/x").list("").try_collect().await;
        assert_eq!(listed.unwrap_err().kind(), StoreErrorKind::NoBucket);
    }
    // Only moto: s3s-fs does not report a missing bucket for an object.
    let error = S3Server::moto().folder("s3://no-such-bucket/x").get("a", 1).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NoBucket, "{error}");
}

#[test]
fn a_refusal_is_explained_though_the_answer_to_head_has_no_text() {
    let server = S3Server::s3s_fs();
    let relay = S3Relay::to(server);
    let options = StoreOptions::from_variables(relay.variables(server));
    let place = "s3://store-refuses/x".parse().unwrap();
    let folder = Folder::open(&place, &options).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (status, code, message, kind) in [
        (400, "ExpiredToken", "The provided token has expired.", StoreErrorKind::BadCredentials),
        (403, "AccessDenied", "Access Denied", StoreErrorKind::AccessDenied),
        (
            400,
            "InvalidRequest",
            "The object was stored using a form of Server Side Encryption. The correct parameters \
             must be provided to retrieve the object.",
            StoreErrorKind::ArchivedOrEncrypted,
        ),
    ] {
        relay.answer_error("/store-refuses/x/a.jpg", status, code, message);
        let key = ImageKey::parse("a.jpg").unwrap();
        let (head, image, exists) = runtime.block_on(async {
            (
                folder.head("a.jpg").await,
                folder.head_image(&key).await,
                folder.exists("a.jpg").await,
            )
        });
        for error in [head.unwrap_err(), image.unwrap_err(), exists.unwrap_err()] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
