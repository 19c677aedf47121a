use super::*;

fn forbidden(body: &str) -> StoreError {
    let source = object_store::Error::PermissionDenied {
        path: "a.jpg".into(),
        source: body.to_owned().into(),
    };
    StoreError::new("read", "s3://bucket/a.jpg".into(), source)
}

#[test]
fn a_forbidden_object_is_told_from_bad_credentials() {
    let denied = forbidden("<Error><Code>AccessDenied</Code></Error>");
    assert_eq!(denied.kind(), StoreErrorKind::AccessDenied);
    let expired = forbidden("<Error><Code>ExpiredToken</Code><Message>x</Message></Error>");
    assert_eq!(expired.kind(), StoreErrorKind::BadCredentials);
    assert_eq!(
        expired.to_string(),
        "cannot read s3://bucket/a.jpg: the store refused the credentials (ExpiredToken); check them"
    );
}

#[test]
fn a_disk_that_is_full_or_read_only_is_told_as_such() {
    for (kind, reason) in [
        (io::ErrorKind::StorageFull, "no space is left there; free some"),
        (io::ErrorKind::ReadOnlyFilesystem, "access denied: the file system is read-only"),
        (io::ErrorKind::PermissionDenied, "access denied; check permissions"),
    ] {
        let source = io::Error::from(kind).into();
        let source = object_store::Error::Generic { store: LOCAL, source };
        let error = StoreError::new("write", "/out/run.json".into(), source);
        assert_eq!(error.to_string(), format!("cannot write /out/run.json: {reason}"));
    }
}

/// What `object_store` makes of an answer to a listing, or to a request that is neither forbidden
/// nor without its object.
fn answered(status: &str, body: &str) -> StoreError {
    let text = format!(
        "Error performing GET http://s3/bucket/a.jpg in 1ms - Server returned non-2xx status \
         code: {status}: {body}"
    );
    let source = object_store::Error::Generic { store: "S3", source: text.into() };
    StoreError::new("read", "s3://bucket/a.jpg".into(), source)
}

fn body(code: &str, message: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>")
}

#[test]
fn an_object_that_is_archived_or_encrypted_is_told_from_bad_credentials_and_outages() {
    let archived = body("InvalidObjectState", "The operation is not valid");
    let error = forbidden(&archived);
    assert_eq!(error.kind(), StoreErrorKind::ArchivedOrEncrypted);
    assert_eq!(
        error.to_string(),
        "cannot read s3://bucket/a.jpg: it is archived (InvalidObjectState: The operation is not \
         valid); restore it first"
    );
    let sse_c = "The object was stored using a form of Server Side Encryption. The correct \
                 parameters must be provided to retrieve the object.";
    for (status, code, message, part) in [
        ("400 Bad Request", "KMS.DisabledException", "arn:x is disabled.", "enable the key"),
        ("400 Bad Request", "KMS.KMSInvalidStateException", "arn:x is pending", "enable the key"),
        ("400 Bad Request", "CloudKmsDisabledKey", "", "enable the key"),
        ("403 Forbidden", "KeyVaultEncryptionKeyNotFound", "", "enable the key"),
        ("400 Bad Request", "InvalidRequest", sse_c, "its owner keeps"),
        ("400 Bad Request", "ResourceIsEncryptedWithCustomerEncryptionKey", "", "its owner keeps"),
        ("409 Conflict", "BlobArchived", "", "restore it first"),
        ("409 Conflict", "BlobBeingRehydrated", "", "restore it first"),
    ] {
        let error = answered(status, &body(code, message));
        assert_eq!(error.kind(), StoreErrorKind::ArchivedOrEncrypted, "{code}");
        assert!(!error.kind().may_pass());
        let text = error.to_string();
        assert!(text.contains(code) && text.contains(part), "{text}");
    }
    // As `object_store` passes on a 409.
    let source = body("BlobArchived", "").into();
    let conflict = object_store::Error::AlreadyExists { path: "a.jpg".into(), source };
    let error = StoreError::new("read", "az://container/a.jpg".into(), conflict);
    assert_eq!(error.kind(), StoreErrorKind::ArchivedOrEncrypted);

    for (status, code) in [
        ("400 Bad Request", "KMS.ThrottlingException"),
        ("400 Bad Request", "InvalidRequest"),
        ("500 Internal Server Error", "KMS.KeyUnavailableException"),
        ("503 Service Unavailable", "SlowDown"),
    ] {
        let error = answered(status, &body(code, "please wait"));
        assert_eq!(error.kind(), StoreErrorKind::Transient, "{code}");
    }
}

#[test]
fn credentials_are_told_by_the_code_whatever_the_status() {
    for (status, code) in [
        ("400 Bad Request", "ExpiredToken"),
        ("400 Bad Request", "InvalidToken"),
        ("400 Bad Request", "AuthorizationHeaderMalformed"),
        ("403 Forbidden", "InvalidAccessKeyId"),
        ("403 Forbidden", "AuthenticationFailed"),
    ] {
        let error = answered(status, &body(code, "no"));
        assert_eq!(error.kind(), StoreErrorKind::BadCredentials, "{code}");
        assert!(error.to_string().contains(&format!("credentials ({code})")), "{error}");
    }
    // The metadata service, or a proxy.
    assert_eq!(answered("403 Forbidden", "").kind(), StoreErrorKind::BadCredentials);
    // A listing, and a deletion of several objects, by S3.
    let denied = answered("403 Forbidden", &body("AccessDenied", "Access Denied"));
    assert_eq!(denied.kind(), StoreErrorKind::AccessDenied);
    let text = "DeleteObjects request failed for key a.jpg: Access Denied (code: AccessDenied)";
    let source = object_store::Error::Generic { store: "S3", source: text.into() };
    let denied = StoreError::new("delete", "s3://bucket/a.jpg".into(), source);
    assert_eq!(denied.kind(), StoreErrorKind::AccessDenied);
}

#[test]
fn the_service_that_gives_roles_is_told_from_the_store() {
    let answer = |code: &str| {
        format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>\
             <Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
        )
    };
    let denied = answered("403 Forbidden", &answer("AccessDenied"));
    assert_eq!(denied.kind(), StoreErrorKind::BadCredentials);
    assert!(denied.to_string().contains("AWS_ROLE_ARN"), "{denied}");
    let busy = answered("400 Bad Request", &answer("IDPCommunicationError"));
    assert_eq!(busy.kind(), StoreErrorKind::Transient);
    let text = "Failed to read token file '/run/token': No such file or directory";
    let source = object_store::Error::Generic { store: "S3", source: text.into() };
    let error = StoreError::new("read", "s3://bucket/a.jpg".into(), source);
    assert_eq!(error.kind(), StoreErrorKind::BadCredentials);
    assert!(error.to_string().ends_with(text), "{error}");
}

#[test]
fn a_wrong_region_names_the_right_one() {
    let malformed = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization \
                     header is malformed; the region 'us-east-1' is wrong; expecting \
                     'eu-west-1'</Message><Region>eu-west-1</Region></Error>";
    let by_text = answered("400 Bad Request", malformed);
    let source = SettingsError::WrongRegion { right: "eu-west-1".to_owned() };
    let by_header = StoreError::new("read", "s3://bucket/a.jpg".into(), source.into());
    for error in [by_text, by_header] {
        assert_eq!(error.kind(), StoreErrorKind::BadSettings);
        assert_eq!(
            error.to_string(),
            "cannot read s3://bucket/a.jpg: the bucket is in the region eu-west-1, and another one \
             was asked; set AWS_REGION=eu-west-1"
        );
    }
    let text = "Received redirect without LOCATION, this normally indicates an incorrectly \
                configured region";
    let source = object_store::Error::Generic { store: "S3", source: text.into() };
    let redirected = StoreError::new("list", "s3://bucket".into(), source);
    assert_eq!(redirected.kind(), StoreErrorKind::BadSettings);
    assert!(redirected.to_string().contains("AWS_REGION"), "{redirected}");
}

#[test]
fn a_refusal_without_a_text_is_told_from_one_with_a_reason() {
    let source = |status: &str, body: &str| *answered(status, body).source.unwrap();
    for status in ["400 Bad Request", "403 Forbidden", "409 Conflict"] {
        assert!(is_unexplained_refusal(&source(status, "")), "{status}");
    }
    assert!(!is_unexplained_refusal(&source("404 Not Found", "")));
    assert!(!is_unexplained_refusal(&source("500 Internal Server Error", "")));
    assert!(!is_unexplained_refusal(&source("403 Forbidden", &body("AccessDenied", ""))));
}

#[test]
fn a_store_that_cannot_be_opened_has_wrong_settings() {
    let source = object_store::Error::Generic { store: "S3", source: "Missing key".into() };
    let error = StoreError::of_settings("s3://bucket".into(), source);
    assert_eq!(error.kind(), StoreErrorKind::BadSettings);
    assert_eq!(error.to_string(), "cannot open s3://bucket: Missing key");
    let profile = SettingsError::NoCredentials("none is set".to_owned());
    let error = StoreError::of_settings("s3://bucket".into(), profile.into());
    assert_eq!(error.kind(), StoreErrorKind::BadCredentials);
}

#[test]
fn pages_of_answers_become_one_short_line() {
    let source = object_store::Error::Generic {
        store: "S3",
        source: "<html>\n  oh no\n".repeat(100).into(),
    };
    let text = StoreError::new("list", "s3://bucket".into(), source).to_string();
    assert!(!text.contains('\n') && text.chars().count() < 250, "{text}");
}
