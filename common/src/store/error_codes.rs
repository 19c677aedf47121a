//! What the codes in stores' answers mean. `docs/reliability.md` has the table for users.
//!
//! A code says more than the status beside it: S3 answers for an archived object as for a forbidden
//! one, and Azure as for one that exists already. Upstream: [`error`](super::error).

use super::error_kind::StoreErrorKind;

/// Why one object can't be had as it is stored. All others may be well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StorageProblem {
    /// It is in an archive, and has to be restored first.
    Archived,
    /// It is encrypted with a key of a key service, and the service doesn't give it.
    KeyUnusable,
    /// It is encrypted with a key that its owner keeps, and the request has no key or another one.
    KeyNotGiven,
}

/// S3's code, and Azure's.
const ARCHIVED: [&str; 3] = ["InvalidObjectState", "BlobArchived", "BlobBeingRehydrated"];

/// S3 puts `KMS.` before the codes of AWS's key service:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
const AWS_KEY_SERVICE: &str = "KMS.";
/// The codes of AWS's key service that pass by themselves.
const KEY_SERVICE_BUSY: [&str; 6] = [
    "KMS.DependencyTimeoutException",
    "KMS.InternalException",
    "KMS.KMSInternalException",
    "KMS.KeyUnavailableException",
    "KMS.LimitExceededException",
    "KMS.ThrottlingException",
];
/// Google's codes: <https://cloud.google.com/storage/docs/xml-api/reference-status>. Azure's:
/// <https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes>
const KEY_UNUSABLE: [&str; 8] = [
    "CloudKmsBadKey",
    "CloudKmsDecryptionKeyNotFound",
    "CloudKmsDisabledKey",
    "CloudKmsEncryptionKeyNotFound",
    "CloudKmsKeyLocationNotAllowed",
    "KeyVaultAccessTokenCannotBeAcquired",
    "KeyVaultEncryptionKeyNotFound",
    "KeyVaultVaultNotFound",
];

/// Google's codes, and Azure's.
const KEY_NOT_GIVEN: [&str; 5] = [
    "CustomerEncryptionKeyIsIncorrect",
    "ResourceIsEncryptedWithCustomerEncryptionKey",
    "ResourceNotEncryptedWithCustomerEncryptionKey",
    "BlobDoesNotUseCustomerSpecifiedEncryption",
    "BlobUsesCustomerSpecifiedEncryption",
];
/// S3 has no code for it. With this one, its message tells: "The object was stored using a form of
/// Server Side Encryption. The correct parameters must be provided to retrieve the object.", or "The
/// encryption parameters are not applicable to this object."
const S3_INVALID_REQUEST: &str = "InvalidRequest";
const S3_KEY_NOT_GIVEN: [&str; 2] = ["Server Side Encryption", "encryption parameters"];

/// For a full disk or quota: of Ceph, of Google and others, of MinIO.
const FULL: [&str; 3] = ["QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"];
/// For a name that the store does not take: of S3, of MinIO, of Azure.
const BAD_NAME: [&str; 3] = ["KeyTooLongError", "XMinioInvalidObjectName", "InvalidResourceName"];
/// Of S3 and Google, and of Azure.
const NO_BUCKET: [&str; 2] = ["NoSuchBucket", "ContainerNotFound"];

/// For credentials that are refused with another status than 401 or 403: of S3, and of Azure.
const CREDENTIALS: [&str; 6] = [
    "AuthorizationHeaderMalformed",
    "CredentialsNotSupported",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAuthenticationInfo",
];

impl StorageProblem {
    /// What the code and the message of an answer say about the object; `None` if they say something
    /// else.
    pub(super) fn of(code: &str, message: &str) -> Option<Self> {
        let is_of_key_service =
            code.starts_with(AWS_KEY_SERVICE) && !KEY_SERVICE_BUSY.contains(&code);
        let is_about_s3_key = code == S3_INVALID_REQUEST
            && S3_KEY_NOT_GIVEN.iter().any(|part| message.contains(part));
        if ARCHIVED.contains(&code) {
            Some(Self::Archived)
        } else if is_of_key_service || KEY_UNUSABLE.contains(&code) {
            Some(Self::KeyUnusable)
        } else if is_about_s3_key || KEY_NOT_GIVEN.contains(&code) {
            Some(Self::KeyNotGiven)
        } else {
            None
        }
    }

    /// What is wrong with the object, and what to do. `answer` is the store's own text.
    pub(super) fn describe(self, answer: &str) -> String {
        let (problem, advice) = match self {
            Self::Archived => ("it is archived", "restore it first"),
            Self::KeyUnusable => (
                "the key that it is encrypted with can't be used",
                "enable the key, or allow its use",
            ),
            Self::KeyNotGiven => (
                "it is encrypted with a key that its owner keeps",
                "give the key to the store's client, or store the object without one",
            ),
        };
        format!("{problem} ({answer}); {advice}")
    }
}

/// The kind that a code alone decides, whatever status was beside it.
pub(super) fn kind_of(code: &str, message: &str) -> Option<StoreErrorKind> {
    if FULL.contains(&code) {
        Some(StoreErrorKind::NoSpace)
    } else if BAD_NAME.contains(&code) {
        Some(StoreErrorKind::Unusable)
    } else if NO_BUCKET.contains(&code) {
        Some(StoreErrorKind::NoBucket)
    } else if CREDENTIALS.contains(&code) {
        Some(StoreErrorKind::BadCredentials)
    } else {
        StorageProblem::of(code, message).map(|_| StoreErrorKind::ArchivedOrEncrypted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes that `docs/reliability.md` lists, with their problem.
    fn documented() -> Vec<(String, StorageProblem)> {
        let docs = include_str!("../../../docs/reliability.md");
        let (_, table) = docs.split_once("## Codes of one object").unwrap();
        let table = table.split("\n## ").next().unwrap();
        let mut documented = Vec::new();
        for row in table.lines().filter(|line| line.starts_with("| ")) {
            let problem = [
                ("archived", StorageProblem::Archived),
                ("key can't be used", StorageProblem::KeyUnusable),
                ("owner's key", StorageProblem::KeyNotGiven),
            ]
            .into_iter()
            .find_map(|(text, problem)| row.contains(text).then_some(problem));
            let Some(problem) = problem else { continue };
            let codes = row.split('`').skip(1).step_by(2);
            documented.extend(codes.map(|code| (code.to_owned(), problem)));
        }
        documented
    }

    #[test]
    fn every_documented_code_is_about_one_object() {
        let documented = documented();
        assert!(documented.len() > 20, "{documented:?}");
        let message = "The object was stored using a form of Server Side Encryption. The correct \
                       parameters must be provided to retrieve the object.";
        for (code, problem) in &documented {
            assert_eq!(StorageProblem::of(code, message), Some(*problem), "{code}");
            assert_eq!(kind_of(code, message), Some(StoreErrorKind::ArchivedOrEncrypted), "{code}");
        }
        let all = ARCHIVED.iter().chain(&KEY_UNUSABLE).chain(&KEY_NOT_GIVEN);
        for code in all.chain([&S3_INVALID_REQUEST]) {
            assert!(documented.iter().any(|(known, _)| known == code), "{code} is in no table");
        }
    }

    #[test]
    fn other_codes_say_nothing_about_the_object() {
        for code in KEY_SERVICE_BUSY {
            assert_eq!(kind_of(code, "wait"), None, "{code}");
        }
        for code in ["AccessDenied", "SlowDown", "InternalError", "InvalidRequest", "", "KMS"] {
            assert_eq!(StorageProblem::of(code, "another message"), None, "{code}");
        }
    }
}
